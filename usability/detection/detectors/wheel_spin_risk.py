"""wheel_spin_risk: an early warning that a skill is not being mastered.

Rule: from the `from_try`-th (4) answer at a skill, until it is mastered or wheel_spinning takes over (10), raised
while the score of `practice.py` (the chance that ten tries pass without three right in a row) is at least
`score`. Cleared when the score falls under `score_clear`, on mastery, by an answer at another skill, when
wheel_spinning takes over, or after `forget_s` (300 s) without an answer.
Source: the score was fitted and measured on tutor sequences (bench/fit_wheel_spin.py, bench/wheelspin.py); the default
threshold flags the highest fifth of the not yet mastered after five answers. It is shown as a count of tries, not
as a probability.
"""

from typing import Annotated

import msgspec

from usability.detection.practice import SPINNING_AFTER
from usability.detection.signals import Evidence, Strength
from usability.detection.skill_detector import Finding, SkillDetector, SkillParams, Standing
from usability.detection.words import say


class WheelSpinRiskParams(SkillParams, frozen=True, kw_only=True):
    from_try: Annotated[int, msgspec.Meta(ge=3, le=9)] = 4
    score: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.67
    score_clear: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.45

    def __post_init__(self) -> None:
        if self.score_clear > self.score:
            raise ValueError("score_clear must not be greater than score")


class WheelSpinRisk(SkillDetector[WheelSpinRiskParams]):
    name = "wheel_spin_risk"
    version = 2
    Params = WheelSpinRiskParams

    def found(self, standing: Standing, params: WheelSpinRiskParams, *, is_raised: bool) -> Finding | None:
        done = standing.done
        if done.is_mastered or not params.from_try <= done.opportunities < SPINNING_AFTER:
            return None
        score = standing.score()
        if score < (params.score_clear if is_raised else params.score):
            return None
        return Finding(
            Strength.WEAK,
            say(
                "wheel_spin_risk",
                "{right} of {tries} tries at {skill} right so far, not three in a row",
                right=done.right,
                tries=done.opportunities,
                skill=standing.skill,
            ),
            numbers={"tries": done.opportunities, "right": done.right, "score": round(score, 3)},
            thresholds={"score": params.score, "from_try": params.from_try},
        )

    def near_practice(self, standing: Standing, params: WheelSpinRiskParams) -> Evidence:
        numbers = {"tries": standing.done.opportunities, "score": round(standing.score(), 3)}
        return Evidence(numbers, {"score": params.score, "from_try": params.from_try})


DETECTOR = WheelSpinRisk()
