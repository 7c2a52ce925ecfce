"""recovered: answers go well again after they did not.

Rule: of the last `window` (10) answers at most `dip` (5) were right at some time, and now at least `high` (8)
are; it is then signalled once. Before there were any, answers count as right.
Source: Lumilo's "doing well" (at least 8 of 10 right). It makes a positive card, and only for a pupil who had
an episode shortly before.
"""

from typing import Annotated

import msgspec

from usability.detection.detector import NOTHING, Detector, Params
from usability.detection.kinds import MetricType, SignalFamily
from usability.detection.observations import Observation
from usability.detection.signals import Evidence, Signal, Strength
from usability.detection.words import say


class RecoveredParams(Params, frozen=True, kw_only=True):
    window: Annotated[int, msgspec.Meta(ge=4, le=50)] = 10
    dip: Annotated[int, msgspec.Meta(ge=0, le=48)] = 5
    high: Annotated[int, msgspec.Meta(ge=2, le=50)] = 8

    def __post_init__(self) -> None:
        if not self.dip < self.high <= self.window:
            raise ValueError("dip < high <= window must hold")


class RecoveredState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    answers: tuple[bool, ...] = ()
    dip_ms: int = 0  # when the answers were last too often wrong; 0: they were not


class Recovered(Detector[RecoveredState, RecoveredParams]):
    name = "recovered"
    version = 1
    family = SignalFamily.RECOVERY
    listens = frozenset({MetricType.ANSWER})
    State = RecoveredState
    Params = RecoveredParams

    def advance(
        self, state: RecoveredState, observation: Observation, params: RecoveredParams
    ) -> tuple[RecoveredState, tuple[Signal, ...]]:
        answers = (*state.answers, bool(observation.correct))[-params.window :]
        right = params.window - answers.count(False)
        if right <= params.dip:
            return RecoveredState(answers, observation.at_ms), NOTHING
        if right < params.high or not state.dip_ms:
            return RecoveredState(answers, state.dip_ms), NOTHING
        signal = self.raised(
            at_ms=observation.at_ms,
            since_ms=state.dip_ms,
            strength=Strength.WEAK,
            reason=say(
                "recovered",
                "{right} of the last {given} answers right again",
                right=sum(answers),
                given=len(answers),
            ),
            evidence=Evidence(
                numbers={"right": sum(answers), "answers": len(answers)},
                thresholds={"high": params.high, "window": params.window},
                observations=(observation.id,),
            ),
            item=observation.item,
            skill=observation.skill,
        )
        return RecoveredState(answers), (signal,)


DETECTOR = Recovered()
