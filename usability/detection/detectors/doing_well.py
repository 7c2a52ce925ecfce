"""doing_well: most of the last answers are right. Off unless a profile turns it on.

Rule: of the last `window` (10) answers at least `high` (8) are right, none taken for granted; told once, and again
only after fewer than `again_under` (6) were. In a class at work this holds for most pupils most of the time, so a
card about each would hide the others: hence off, and as every good news it is shown only of a pupil who had an
episode in the quarter of an hour before.
Source: Lumilo's "doing well" (at least 8 of the last 10 right; Holstein, McLaren, Aleven 2018).
"""

from typing import Annotated

import msgspec

from usability.detection.detector import NOTHING, Detector, Params
from usability.detection.kinds import MetricType, SignalFamily
from usability.detection.observations import Observation
from usability.detection.signals import Evidence, Signal, Strength
from usability.detection.words import say


class DoingWellParams(Params, frozen=True, kw_only=True):
    enabled: bool = False
    window: Annotated[int, msgspec.Meta(ge=4, le=50)] = 10
    high: Annotated[int, msgspec.Meta(ge=2, le=50)] = 8
    again_under: Annotated[int, msgspec.Meta(ge=1, le=49)] = 6

    def __post_init__(self) -> None:
        if not self.again_under < self.high <= self.window:
            raise ValueError("again_under < high <= window must hold")


class DoingWellState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    answers: tuple[bool, ...] = ()
    is_told: bool = False


class DoingWell(Detector[DoingWellState, DoingWellParams]):
    name = "doing_well"
    version = 1
    family = SignalFamily.RECOVERY
    listens = frozenset({MetricType.ANSWER})
    State = DoingWellState
    Params = DoingWellParams

    def advance(
        self, state: DoingWellState, observation: Observation, params: DoingWellParams
    ) -> tuple[DoingWellState, tuple[Signal, ...]]:
        answers = (*state.answers, bool(observation.correct))[-params.window :]
        right = sum(answers)
        if len(answers) < params.window or right < params.high or state.is_told:
            return DoingWellState(answers, state.is_told and right >= params.again_under), NOTHING
        signal = self.raised(
            at_ms=observation.at_ms,
            since_ms=observation.at_ms,
            strength=Strength.WEAK,
            reason=say(
                "doing_well", "{right} of the last {given} answers right", right=right, given=len(answers)
            ),
            evidence=Evidence(
                numbers={"right": right, "answers": len(answers)},
                thresholds={"high": params.high, "window": params.window},
                observations=(observation.id,),
            ),
            item=observation.item,
            skill=observation.skill,
        )
        return DoingWellState(answers, is_told=True), (signal,)


DETECTOR = DoingWell()
