"""error_streak: wrong answers and errors in a row.

Rule: a wrong answer adds 1, an `error` adds its value (a client may fold several into one); a right answer or
a completion ends the streak. Raised at `warn` (3), strong at `strong` (5). A streak is forgotten after
`forget_s` (300 s) without another error, so that an app that never reports success cannot keep it raised.
Source: the thresholds 3 and 5 of the reference engine, with the semantics of "consecutive" its name promised.
"""

from typing import Annotated

import msgspec

from usability.detection.detector import NOTHING, Detector, Params
from usability.detection.kinds import MetricType, SignalFamily
from usability.detection.observations import Observation
from usability.detection.signals import Evidence, Signal, Strength, newest
from usability.detection.words import hints_opened, on_item, say

COUNT_LIMIT = 1000  # what one folded observation may add


class ErrorStreakParams(Params, frozen=True, kw_only=True):
    warn: Annotated[int, msgspec.Meta(ge=1, le=50)] = 3
    strong: Annotated[int, msgspec.Meta(ge=2, le=100)] = 5
    forget_s: Annotated[int, msgspec.Meta(ge=30, le=3600)] = 300

    def __post_init__(self) -> None:
        if self.strong <= self.warn:
            raise ValueError("strong must be greater than warn")


class ErrorStreakState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    count: int = 0
    answers: int = 0
    hints: int = 0
    since_ms: int = 0
    last_ms: int = 0
    item: str = ""
    skill: str = ""
    ids: tuple[str, ...] = ()
    is_raised: bool = False


class ErrorStreak(Detector[ErrorStreakState, ErrorStreakParams]):
    name = "error_streak"
    version = 1
    family = SignalFamily.ACCURACY
    listens = frozenset({MetricType.ANSWER, MetricType.ERROR, MetricType.COMPLETION, MetricType.HINT})
    State = ErrorStreakState
    Params = ErrorStreakParams

    def advance(
        self, state: ErrorStreakState, observation: Observation, params: ErrorStreakParams
    ) -> tuple[ErrorStreakState, tuple[Signal, ...]]:
        kind = observation.metric_type
        if kind == MetricType.HINT:
            return (
                (msgspec.structs.replace(state, hints=state.hints + 1), NOTHING)
                if state.count
                else (state, NOTHING)
            )
        if kind == MetricType.COMPLETION or (kind == MetricType.ANSWER and observation.correct):
            return self._ended(state, observation.at_ms)
        added = 1 if kind == MetricType.ANSWER else min(int(observation.value), COUNT_LIMIT)
        if added <= 0:
            return state, NOTHING
        grown = _grown(state, observation, added)
        if grown.count < params.warn:
            return grown, NOTHING
        raised = msgspec.structs.replace(grown, is_raised=True)
        return raised, (self._signal(raised, params),)

    def near(self, state: ErrorStreakState, now_ms: int, params: ErrorStreakParams) -> Evidence:
        return Evidence({"errors_in_a_row": state.count}, {"warn": params.warn})

    def due_ms(self, state: ErrorStreakState, params: ErrorStreakParams) -> int | None:
        return state.last_ms + params.forget_s * 1000 if state.count else None

    def on_time(
        self, state: ErrorStreakState, now_ms: int, params: ErrorStreakParams
    ) -> tuple[ErrorStreakState, tuple[Signal, ...]]:
        due = self.due_ms(state, params)
        return self._ended(state, due) if due is not None and due <= now_ms else (state, NOTHING)

    def _ended(self, state: ErrorStreakState, at_ms: int) -> tuple[ErrorStreakState, tuple[Signal, ...]]:
        return ErrorStreakState(), (self.cleared(at_ms),) if state.is_raised else NOTHING

    def _signal(self, state: ErrorStreakState, params: ErrorStreakParams) -> Signal:
        noun = "wrong answers" if state.answers == state.count else "errors"
        return self.raised(
            at_ms=state.last_ms,
            since_ms=state.since_ms,
            strength=Strength.STRONG if state.count >= params.strong else Strength.WARN,
            reason=say(
                "error_streak",
                "{count} {noun} in a row{on_item}, {hints_opened}",
                count=state.count,
                noun=noun,
                on_item=on_item(state.item),
                hints_opened=hints_opened(state.hints),
                item=state.item,
                hints=state.hints,
            ),
            evidence=Evidence(
                numbers={"errors_in_a_row": state.count, "hints": state.hints},
                thresholds={"warn": params.warn, "strong": params.strong},
                observations=state.ids,
            ),
            item=state.item,
            skill=state.skill,
        )


def _grown(state: ErrorStreakState, observation: Observation, added: int) -> ErrorStreakState:
    is_first = state.count == 0
    return ErrorStreakState(
        count=state.count + added,
        answers=state.answers + (added if observation.metric_type == MetricType.ANSWER else 0),
        hints=state.hints,
        since_ms=observation.at_ms if is_first else state.since_ms,
        last_ms=observation.at_ms,
        # A streak over several items belongs to none of them.
        item=observation.item if is_first or state.item == observation.item else "",
        skill=observation.skill if is_first or state.skill == observation.skill else "",
        ids=newest(state.ids, observation.id),
        is_raised=state.is_raised,
    )


DETECTOR = ErrorStreak()
