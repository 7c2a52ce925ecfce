"""wheel_spinning: many tries at a skill, never mastered.

Rule: at least `opportunities` (10) answers at a skill without three right in a row. It holds while the pupil
works at that skill; mastering it clears it, and so do an answer at another skill and `forget_s` (300 s) without
an answer.
Source: Beck and Gong 2013 (wheel-spinning: not mastered within 10 opportunities).
"""

from typing import Annotated

import msgspec

from usability.detection.practice import MASTERY_RUN
from usability.detection.signals import Evidence, Strength
from usability.detection.skill_detector import Finding, SkillDetector, SkillParams, Standing
from usability.detection.words import say


class WheelSpinningParams(SkillParams, frozen=True, kw_only=True):
    opportunities: Annotated[int, msgspec.Meta(ge=5, le=50)] = 10


class WheelSpinning(SkillDetector[WheelSpinningParams]):
    name = "wheel_spinning"
    version = 2
    Params = WheelSpinningParams

    def found(self, standing: Standing, params: WheelSpinningParams, *, is_raised: bool) -> Finding | None:
        done = standing.done
        if done.is_mastered or done.opportunities < params.opportunities:
            return None
        return Finding(
            Strength.STRONG,
            say(
                "wheel_spinning",
                "{tries} tries at {skill}, never three right in a row",
                tries=done.opportunities,
                skill=standing.skill,
                right=done.right,
            ),
            numbers={"tries": done.opportunities, "right": done.right},
            thresholds={"opportunities": params.opportunities, "right_in_a_row": MASTERY_RUN},
        )

    def near_practice(self, standing: Standing, params: WheelSpinningParams) -> Evidence:
        done = standing.done
        numbers: dict[str, float] = {"tries": done.opportunities, "is_mastered": done.is_mastered}
        return Evidence(numbers, {"opportunities": params.opportunities})


DETECTOR = WheelSpinning()
