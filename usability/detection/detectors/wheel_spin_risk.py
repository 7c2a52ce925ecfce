"""wheel_spin_risk: an early warning that a skill is not being mastered.

Rule: from the `from_try`-th (4) answer at a skill, until it is mastered or wheel_spinning takes over (10), raised
while the score of `practice.py` is at least `score`. Cleared when the score falls under `score_clear`, on
mastery, by an answer at another skill, when wheel_spinning takes over, or after `forget_s` (300 s) without an answer.
Source: the score's order was measured on tutor sequences (see bench/wheelspin.py); the default threshold flags
the highest fifth of the not yet mastered after five answers. It is shown as a count of tries, not as a
probability.
"""

from typing import Annotated

import msgspec

from usability.detection.detector import NOTHING, Detector, Params
from usability.detection.kinds import MetricType, SignalFamily
from usability.detection.observations import Observation
from usability.detection.practice import (
    SPINNING_AFTER,
    UNPRACTISED,
    SkillPractice,
    answered,
    with_practice,
)
from usability.detection.signals import Evidence, Signal, Strength, newest
from usability.detection.words import say


class WheelSpinRiskParams(Params, frozen=True, kw_only=True):
    from_try: Annotated[int, msgspec.Meta(ge=3, le=9)] = 4
    score: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.73
    score_clear: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.55
    forget_s: Annotated[int, msgspec.Meta(ge=30, le=3600)] = 300

    def __post_init__(self) -> None:
        if self.score_clear > self.score:
            raise ValueError("score_clear must not be greater than score")


class WheelSpinRiskState(msgspec.Struct, frozen=True):
    skills: dict[str, SkillPractice] = {}
    raised_skill: str = ""
    raised_ms: int = 0
    last_ms: int = 0
    ids: tuple[str, ...] = ()


class WheelSpinRisk(Detector[WheelSpinRiskState, WheelSpinRiskParams]):
    name = "wheel_spin_risk"
    version = 1
    family = SignalFamily.PROGRESS
    listens = frozenset({MetricType.ANSWER})
    State = WheelSpinRiskState
    Params = WheelSpinRiskParams

    def new_session(self, state: WheelSpinRiskState) -> WheelSpinRiskState:
        """Practice of a skill goes on over sessions; what was raised does not."""
        return WheelSpinRiskState(skills=state.skills)

    def score(self, state: WheelSpinRiskState, skill: str) -> float:
        """The present score of a skill, 0..1: higher, more likely to be wheel-spinning."""
        return state.skills.get(skill, UNPRACTISED).score

    def advance(
        self, state: WheelSpinRiskState, observation: Observation, params: WheelSpinRiskParams
    ) -> tuple[WheelSpinRiskState, tuple[Signal, ...]]:
        skill = observation.skill
        if not skill:
            return state, NOTHING
        practice = answered(state.skills.get(skill, UNPRACTISED), correct=bool(observation.correct))
        limit = params.score_clear if state.raised_skill == skill else params.score
        is_raised = params.from_try <= practice.opportunities < SPINNING_AFTER and practice.score >= limit
        after = WheelSpinRiskState(
            skills=with_practice(state.skills, skill, practice),
            raised_skill=skill if is_raised else "",
            raised_ms=state.raised_ms if state.raised_skill == skill else observation.at_ms,
            last_ms=observation.at_ms,
            ids=newest(state.ids, observation.id),
        )
        if is_raised:
            return after, (self._signal(after, practice, observation, params),)
        return after, (self.cleared(observation.at_ms),) if state.raised_skill else NOTHING

    def due_ms(self, state: WheelSpinRiskState, params: WheelSpinRiskParams) -> int | None:
        return state.last_ms + params.forget_s * 1000 if state.raised_skill else None

    def on_time(
        self, state: WheelSpinRiskState, now_ms: int, params: WheelSpinRiskParams
    ) -> tuple[WheelSpinRiskState, tuple[Signal, ...]]:
        due = self.due_ms(state, params)
        if due is None or due > now_ms:
            return state, NOTHING
        return msgspec.structs.replace(state, raised_skill=""), (self.cleared(due),)

    def _signal(
        self,
        state: WheelSpinRiskState,
        practice: SkillPractice,
        observation: Observation,
        params: WheelSpinRiskParams,
    ) -> Signal:
        return self.raised(
            at_ms=observation.at_ms,
            since_ms=state.raised_ms,
            strength=Strength.WEAK,
            reason=say(
                "wheel_spin_risk",
                "{right} of {tries} tries at {skill} right so far, most of the latest wrong",
                right=practice.right,
                tries=practice.opportunities,
                skill=observation.skill,
            ),
            evidence=Evidence(
                numbers={
                    "tries": practice.opportunities,
                    "right": practice.right,
                    "score": round(practice.score, 3),
                },
                thresholds={"score": params.score, "from_try": params.from_try},
                observations=state.ids,
            ),
            item=observation.item,
            skill=observation.skill,
        )


DETECTOR = WheelSpinRisk()
