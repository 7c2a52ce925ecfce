"""How well the wheel-spinning score orders pupils, measured on attempt sequences.

The score is the one the detector `wheel_spin_risk` decides by in production, read after each answer. It depends
on what stands before in the pupil's own sequence, and, for what is hard about a skill, on the pupils earlier in
the file. A pair of student and skill is *decided* when the skill was mastered (three right in a row) within ten
opportunities or had at least ten; it is *wheel-spinning* when it was not mastered within the first ten (Beck and
Gong 2013).
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from usability.detection.detectors.wheel_spin_risk import DETECTOR
from usability.detection.practice import (
    MASTERY_RUN,
    NO_NORMS,
    NO_PRACTICE,
    SPINNING_AFTER,
    learned,
)
from usability.detection.skill_detector import Standing
from usability.recordings import Sequence

JUDGED_AFTER = (4, 5, 6)
OPERATING_SCORE = (
    DETECTOR.Params().score
)  # at and above it the detector speaks, unless a profile says otherwise


@dataclass(frozen=True, slots=True)
class Score:
    """The score after the `k`-th attempt of a student at a skill."""

    student: str
    skill: str
    k: int
    score: float
    correct: bool


@dataclass(frozen=True, slots=True)
class Judged:
    """One decided pair, not yet mastered at k: its score then, and what became of it."""

    student: str
    score: float
    is_spinning: bool


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % interval, resampled by student; nan where it is not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Quality:
    """After k attempts: area under the ROC curve; precision, recall and flagged share at the operating point."""

    k: int
    pairs: int
    students: int
    spinning: int
    auc: Interval
    precision: Interval
    recall: Interval
    flagged: Interval


def scores(sequences: Iterable[Sequence]) -> Iterator[Score]:
    """One score after each attempt, in the order of the file."""
    norms = NO_NORMS
    for sequence in sequences:
        practice = NO_PRACTICE
        for attempt in sequence.attempts:
            practice = practice.after(attempt.skill, correct=attempt.correct, norms=norms)
            standing = Standing(attempt.skill, practice, norms)
            yield Score(
                sequence.student,
                attempt.skill,
                standing.done.opportunities,
                standing.score(),
                attempt.correct,
            )
        norms = learned(norms, practice)


class Collector:
    """Gathers scores as they pass and knows in the end which pairs are decided."""

    def __init__(self) -> None:
        self._scores: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._runs: dict[tuple[str, str], int] = defaultdict(int)
        self._mastered_at: dict[tuple[str, str], int] = {}

    def add(self, score: Score) -> None:
        """Take one score in; those beyond the tenth opportunity decide nothing."""
        pair = (score.student, score.skill)
        if score.k > SPINNING_AFTER:
            return
        self._scores[pair].append(score.score)
        self._runs[pair] = self._runs[pair] + 1 if score.correct else 0
        if self._runs[pair] >= MASTERY_RUN:
            self._mastered_at.setdefault(pair, score.k)

    def judged(self, k: int) -> list[Judged]:
        """The decided pairs that had at least `k` attempts and were not mastered by then."""
        found = []
        for pair, kept in self._scores.items():
            mastered_at = self._mastered_at.get(pair)
            is_decided = mastered_at is not None or len(kept) >= SPINNING_AFTER
            if is_decided and len(kept) >= k and (mastered_at is None or mastered_at > k):
                found.append(Judged(pair[0], kept[k - 1], mastered_at is None))
        return found


def quality(
    judged: list[Judged], *, k: int, resamples: int, seed: int, threshold: float = OPERATING_SCORE
) -> Quality:
    """What was judged after k attempts, at its operating point; nan where an outcome is missing."""
    ordered = _by_score(judged)
    students = sorted({each.student for each in judged})
    rng = random.Random(seed)
    whole = _figures(ordered, dict.fromkeys(students, 1), threshold)
    drawn = []
    for _ in range(resamples):
        weights: dict[str, int] = defaultdict(int)
        for student in rng.choices(students, k=len(students)) if students else ():
            weights[student] += 1
        drawn.append(_figures(ordered, weights, threshold))
    auc, precision, recall, flagged = (
        _interval(value, [each[place] for each in drawn]) for place, value in enumerate(whole)
    )
    return Quality(
        k=k,
        pairs=len(judged),
        students=len(students),
        spinning=sum(each.is_spinning for each in judged),
        auc=auc,
        precision=precision,
        recall=recall,
        flagged=flagged,
    )


def _by_score(judged: list[Judged]) -> list[list[Judged]]:
    """Groups of equal scores, lowest first."""
    groups: dict[float, list[Judged]] = defaultdict(list)
    for each in judged:
        groups[each.score].append(each)
    return [groups[score] for score in sorted(groups)]


def _figures(
    ordered: list[list[Judged]], weights: dict[str, int], threshold: float
) -> tuple[float, float, float, float]:
    """AUC (chance that a spinning pair scores higher, ties half), precision, recall, flagged share; by weight."""
    below = wins = spinning_total = hits = flagged = 0.0
    for group in ordered:
        spinning = others = 0
        for each in group:
            weight = weights.get(each.student, 0)
            if each.is_spinning:
                spinning += weight
            else:
                others += weight
        wins += spinning * (below + others / 2)
        below += others
        spinning_total += spinning
        if group[0].score >= threshold:
            hits += spinning
            flagged += spinning + others
    nan = float("nan")
    return (
        wins / (spinning_total * below) if spinning_total and below else nan,
        hits / flagged if flagged else nan,
        hits / spinning_total if spinning_total else nan,
        flagged / (spinning_total + below) if spinning_total + below else nan,
    )


def _interval(value: float, drawn: list[float]) -> Interval:
    known = sorted(each for each in drawn if each == each)  # noqa: PLR0124  nan is not itself
    return Interval(value, _quantile(known, 0.025), _quantile(known, 0.975))


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
