"""hint_avoid: wrong answer after wrong answer on an item, few right lately, and no hint opened though there are hints.

Rule: at least `wrong` (3) wrong answers on the present item without a hint on it, while of the last `window` (10)
answers, taken as right before there were any, at most `low` (5) are right. It speaks only of a pupil who has
opened a hint in this app before: an app without hints cannot be told from one whose hints are avoided. A hint, a
right answer, a completion or another item clears it, and so do `forget_s` (300 s) without an answer.
Source: Lumilo's struggle detector says "not using hints" (Holstein, McLaren, Aleven 2018).
"""

from typing import Annotated

import msgspec

from usability.detection.detector import NOTHING, Detector, Params
from usability.detection.kinds import MetricType, SignalFamily
from usability.detection.observations import Observation
from usability.detection.signals import Evidence, Signal, Strength, newest
from usability.detection.words import on_item, say


class HintAvoidParams(Params, frozen=True, kw_only=True):
    wrong: Annotated[int, msgspec.Meta(ge=2, le=20)] = 3
    window: Annotated[int, msgspec.Meta(ge=4, le=50)] = 10
    low: Annotated[int, msgspec.Meta(ge=0, le=48)] = 5
    forget_s: Annotated[int, msgspec.Meta(ge=30, le=3600)] = 300

    def __post_init__(self) -> None:
        if self.low >= self.window:
            raise ValueError("low must be less than window")


class HintAvoidState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    has_hints: bool = False
    answers: tuple[bool, ...] = ()
    item: str = ""
    wrong: int = 0  # on the item, since the last hint or right answer
    since_ms: int = 0
    last_ms: int = 0
    ids: tuple[str, ...] = ()
    is_raised: bool = False


class HintAvoid(Detector[HintAvoidState, HintAvoidParams]):
    name = "hint_avoid"
    version = 1
    family = SignalFamily.GUESSING
    listens = frozenset({MetricType.ANSWER, MetricType.HINT, MetricType.COMPLETION})
    State = HintAvoidState
    Params = HintAvoidParams

    def new_session(self, state: HintAvoidState) -> HintAvoidState:
        """That the app has hints stays true."""
        return HintAvoidState(has_hints=state.has_hints)

    def advance(
        self, state: HintAvoidState, observation: Observation, params: HintAvoidParams
    ) -> tuple[HintAvoidState, tuple[Signal, ...]]:
        at_ms = observation.at_ms
        if observation.metric_type == MetricType.HINT:
            return self._ended(msgspec.structs.replace(state, has_hints=True), at_ms)
        if observation.metric_type == MetricType.COMPLETION:
            return self._ended(state, at_ms)
        answers = (*state.answers, bool(observation.correct))[-params.window :]
        state = msgspec.structs.replace(state, answers=answers)
        if observation.correct:
            return self._ended(state, at_ms)
        signals: tuple[Signal, ...] = NOTHING
        if state.item != observation.item:
            state, signals = self._ended(state, at_ms)
        is_raised = (
            state.has_hints
            and state.wrong + 1 >= params.wrong
            and params.window - answers.count(False) <= params.low
        )
        after = msgspec.structs.replace(
            state,
            item=observation.item,
            wrong=state.wrong + 1,
            since_ms=state.since_ms or at_ms,
            last_ms=at_ms,
            ids=newest(state.ids, observation.id),
            is_raised=is_raised,
        )
        return after, (*signals, self._signal(after, observation, params)) if is_raised else signals

    def near(self, state: HintAvoidState, now_ms: int, params: HintAvoidParams) -> Evidence:
        return Evidence({"wrong": state.wrong, "has_hints": state.has_hints}, {"wrong": params.wrong})

    def due_ms(self, state: HintAvoidState, params: HintAvoidParams) -> int | None:
        return state.last_ms + params.forget_s * 1000 if state.is_raised else None

    def on_time(
        self, state: HintAvoidState, now_ms: int, params: HintAvoidParams
    ) -> tuple[HintAvoidState, tuple[Signal, ...]]:
        due = self.due_ms(state, params)
        return self._ended(state, due) if due is not None and due <= now_ms else (state, NOTHING)

    def _ended(self, state: HintAvoidState, at_ms: int) -> tuple[HintAvoidState, tuple[Signal, ...]]:
        after = HintAvoidState(has_hints=state.has_hints, answers=state.answers)
        return after, (self.cleared(at_ms),) if state.is_raised else NOTHING

    def _signal(self, state: HintAvoidState, observation: Observation, params: HintAvoidParams) -> Signal:
        right = sum(state.answers)
        return self.raised(
            at_ms=state.last_ms,
            since_ms=state.since_ms,
            strength=Strength.WEAK,
            reason=say(
                "hint_avoid",
                "{wrong} wrong answers{on_item} and no hint opened; {right} of the last {given} answers right",
                wrong=state.wrong,
                on_item=on_item(state.item),
                right=right,
                given=len(state.answers),
                item=state.item,
            ),
            evidence=Evidence(
                numbers={"wrong": state.wrong, "right": right, "answers": len(state.answers)},
                thresholds={"wrong": params.wrong, "low": params.low, "window": params.window},
                observations=state.ids,
            ),
            item=state.item,
            skill=observation.skill,
        )


DETECTOR = HintAvoid()
