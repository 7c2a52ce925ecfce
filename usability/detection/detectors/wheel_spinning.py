"""wheel_spinning: many tries at a skill, never mastered.

Rule: at least `opportunities` (10) answers at a skill without three right in a row. It holds while the pupil
works at that skill; mastering it clears it, and so do an answer at another skill and `forget_s` (300 s) without an answer.
Source: Beck and Gong 2013 (wheel-spinning: not mastered within 10 opportunities).
"""

from typing import Annotated

import msgspec

from usability.detection.detector import NOTHING, Detector, Params
from usability.detection.kinds import MetricType, SignalFamily
from usability.detection.observations import Observation
from usability.detection.practice import (
    MASTERY_RUN,
    UNPRACTISED,
    SkillPractice,
    answered,
    with_practice,
)
from usability.detection.signals import Evidence, Signal, Strength, newest
from usability.detection.words import say


class WheelSpinningParams(Params, frozen=True, kw_only=True):
    opportunities: Annotated[int, msgspec.Meta(ge=5, le=50)] = 10
    forget_s: Annotated[int, msgspec.Meta(ge=30, le=3600)] = 300


class WheelSpinningState(msgspec.Struct, frozen=True):
    skills: dict[str, SkillPractice] = {}
    raised_skill: str = ""
    raised_ms: int = 0
    last_ms: int = 0
    ids: tuple[str, ...] = ()


class WheelSpinning(Detector[WheelSpinningState, WheelSpinningParams]):
    name = "wheel_spinning"
    version = 1
    family = SignalFamily.PROGRESS
    listens = frozenset({MetricType.ANSWER})
    State = WheelSpinningState
    Params = WheelSpinningParams

    def new_session(self, state: WheelSpinningState) -> WheelSpinningState:
        """Practice of a skill goes on over sessions; what was raised does not."""
        return WheelSpinningState(skills=state.skills)

    def advance(
        self, state: WheelSpinningState, observation: Observation, params: WheelSpinningParams
    ) -> tuple[WheelSpinningState, tuple[Signal, ...]]:
        skill = observation.skill
        if not skill:
            return state, NOTHING
        practice = answered(state.skills.get(skill, UNPRACTISED), correct=bool(observation.correct))
        is_raised = practice.opportunities >= params.opportunities and not practice.is_mastered
        after = WheelSpinningState(
            skills=with_practice(state.skills, skill, practice),
            raised_skill=skill if is_raised else "",
            raised_ms=state.raised_ms if state.raised_skill == skill else observation.at_ms,
            last_ms=observation.at_ms,
            ids=newest(state.ids, observation.id),
        )
        if is_raised:
            return after, (self._signal(after, practice, observation, params),)
        return after, (self.cleared(observation.at_ms),) if state.raised_skill else NOTHING

    def due_ms(self, state: WheelSpinningState, params: WheelSpinningParams) -> int | None:
        return state.last_ms + params.forget_s * 1000 if state.raised_skill else None

    def on_time(
        self, state: WheelSpinningState, now_ms: int, params: WheelSpinningParams
    ) -> tuple[WheelSpinningState, tuple[Signal, ...]]:
        due = self.due_ms(state, params)
        if due is None or due > now_ms:
            return state, NOTHING
        return msgspec.structs.replace(state, raised_skill=""), (self.cleared(due),)

    def _signal(
        self,
        state: WheelSpinningState,
        practice: SkillPractice,
        observation: Observation,
        params: WheelSpinningParams,
    ) -> Signal:
        return self.raised(
            at_ms=observation.at_ms,
            since_ms=state.raised_ms,
            strength=Strength.STRONG,
            reason=say(
                "wheel_spinning",
                "{tries} tries at {skill}, never three right in a row",
                tries=practice.opportunities,
                skill=observation.skill,
                right=practice.right,
            ),
            evidence=Evidence(
                numbers={"tries": practice.opportunities, "right": practice.right},
                thresholds={"opportunities": params.opportunities, "right_in_a_row": MASTERY_RUN},
                observations=state.ids,
            ),
            item=observation.item,
            skill=observation.skill,
        )


DETECTOR = WheelSpinning()
