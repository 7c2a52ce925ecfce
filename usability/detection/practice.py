"""How a pupil's practice of each skill has gone: counted once, used by the wheel-spinning rules.

A skill is mastered by three right answers in a row; a pupil is wheel-spinning on a skill when that has not
happened within the first ten opportunities (Beck and Gong 2013). The score is the error rate, exponentially
weighted towards the latest answers: O(1) per answer, no look-ahead.
"""

import msgspec

MASTERY_RUN = 3
SPINNING_AFTER = 10
SCORE_START = 0.3  # before the first answer; the usual error rate
SCORE_WEIGHT = 0.3
KEPT_SKILLS = 128  # the latest practised ones; a year of a tutor's exercises has about as many


class SkillPractice(msgspec.Struct, frozen=True, gc=False):
    """One pupil's answers at one skill so far. `run` counts right answers in a row."""

    opportunities: int = 0
    right: int = 0
    run: int = 0
    is_mastered: bool = False
    error_rate: float = SCORE_START

    @property
    def score(self) -> float:
        """How likely wheel-spinning is compared with others, 0..1: an order, not a probability."""
        return 0.0 if self.is_mastered else self.error_rate


UNPRACTISED = SkillPractice()


def answered(practice: SkillPractice, *, correct: bool) -> SkillPractice:
    """The practice of a skill after one more answer."""
    run = practice.run + 1 if correct else 0
    error = 0.0 if correct else 1.0
    return SkillPractice(
        opportunities=practice.opportunities + 1,
        right=practice.right + correct,
        run=run,
        is_mastered=practice.is_mastered or run >= MASTERY_RUN,
        error_rate=practice.error_rate + SCORE_WEIGHT * (error - practice.error_rate),
    )


def with_practice(
    skills: dict[str, SkillPractice], skill: str, practice: SkillPractice
) -> dict[str, SkillPractice]:
    """The skills with this one set and latest; beyond `KEPT_SKILLS` the one longest ago is forgotten."""
    kept = {name: known for name, known in skills.items() if name != skill}
    if len(kept) >= KEPT_SKILLS:
        del kept[next(iter(kept))]
    kept[skill] = practice
    return kept
