"""low_recent_success: few of the last answers are right.

Rule: the last `window` (10) answers, taken as right before there were any. Raised at `low` (3) right or fewer,
strong at `very_low` (1); cleared at `clear` (5) or more, so that one right answer does not flip it,
and after `forget_s` (300 s) without an answer.
Source: Lumilo's struggle detector (window 10, three right; Holstein, McLaren, Aleven 2018).
"""

from typing import Annotated

import msgspec

from usability.detection.detector import NOTHING, Detector, Params
from usability.detection.kinds import MetricType, SignalFamily
from usability.detection.observations import Observation
from usability.detection.signals import Evidence, Signal, Strength
from usability.detection.words import at_skill, say


class LowRecentSuccessParams(Params, frozen=True, kw_only=True):
    window: Annotated[int, msgspec.Meta(ge=4, le=50)] = 10
    low: Annotated[int, msgspec.Meta(ge=0, le=40)] = 3
    very_low: Annotated[int, msgspec.Meta(ge=0, le=40)] = 1
    clear: Annotated[int, msgspec.Meta(ge=1, le=50)] = 5
    forget_s: Annotated[int, msgspec.Meta(ge=30, le=3600)] = 300

    def __post_init__(self) -> None:
        if not self.very_low <= self.low < self.clear <= self.window:
            raise ValueError("very_low <= low < clear <= window must hold")


class Answer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    correct: bool
    at_ms: int
    id: str


class LowRecentSuccessState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    answers: tuple[Answer, ...] = ()
    skill: str = ""
    item: str = ""
    since_ms: int = 0
    is_raised: bool = False


class LowRecentSuccess(Detector[LowRecentSuccessState, LowRecentSuccessParams]):
    name = "low_recent_success"
    version = 1
    family = SignalFamily.ACCURACY
    listens = frozenset({MetricType.ANSWER})
    State = LowRecentSuccessState
    Params = LowRecentSuccessParams

    def advance(
        self, state: LowRecentSuccessState, observation: Observation, params: LowRecentSuccessParams
    ) -> tuple[LowRecentSuccessState, tuple[Signal, ...]]:
        answer = Answer(bool(observation.correct), observation.at_ms, observation.id)
        answers = (*state.answers, answer)[-params.window :]
        wrong = [answer for answer in answers if not answer.correct]
        right = params.window - len(wrong)
        # What is older than `forget_s` has been forgotten and does not date the onset.
        from_ms = observation.at_ms - params.forget_s * 1000
        is_raised = right < params.clear if state.is_raised else right <= params.low and not answer.correct
        after = LowRecentSuccessState(
            answers=answers,
            skill=observation.skill,
            item=observation.item,
            since_ms=_onset(state, wrong, from_ms) if is_raised else 0,
            is_raised=is_raised,
        )
        if is_raised:
            return after, (self._signal(after, right, params),)
        return after, (self.cleared(observation.at_ms),) if state.is_raised else NOTHING

    def near(self, state: LowRecentSuccessState, now_ms: int, params: LowRecentSuccessParams) -> Evidence:
        right = params.window - sum(not answer.correct for answer in state.answers)
        return Evidence({"right": right, "answers": len(state.answers)}, {"low": params.low})

    def due_ms(self, state: LowRecentSuccessState, params: LowRecentSuccessParams) -> int | None:
        return state.answers[-1].at_ms + params.forget_s * 1000 if state.is_raised else None

    def on_time(
        self, state: LowRecentSuccessState, now_ms: int, params: LowRecentSuccessParams
    ) -> tuple[LowRecentSuccessState, tuple[Signal, ...]]:
        due = self.due_ms(state, params)
        if due is None or due > now_ms:
            return state, NOTHING
        return msgspec.structs.replace(state, is_raised=False), (self.cleared(due),)

    def _signal(self, state: LowRecentSuccessState, right: int, params: LowRecentSuccessParams) -> Signal:
        given = len(state.answers)
        given_right = sum(answer.correct for answer in state.answers)
        return self.raised(
            at_ms=state.answers[-1].at_ms,
            since_ms=state.since_ms,
            strength=Strength.STRONG if right <= params.very_low else Strength.WARN,
            reason=say(
                "low_recent_success",
                "{right} of the last {given} answers right{at_skill}",
                right=given_right,
                given=given,
                at_skill=at_skill(state.skill),
                skill=state.skill,
            ),
            evidence=Evidence(
                numbers={"right": given_right, "answers": given},
                thresholds={"low": params.low, "window": params.window, "clear": params.clear},
                observations=tuple(answer.id for answer in state.answers if not answer.correct),
            ),
            item=state.item,
            skill=state.skill,
        )


def _onset(state: LowRecentSuccessState, wrong: list[Answer], from_ms: int) -> int:
    return state.since_ms if state.is_raised else next(each.at_ms for each in wrong if each.at_ms > from_ms)


DETECTOR = LowRecentSuccess()
