"""How well the wheel-spinning score orders pupils, measured on attempt sequences.

The score is the one the detector `wheel_spin_risk` keeps in production, read after each answer; nothing here
sees an answer before the detector does. A pair of student and skill is *decided* when the skill was mastered
(three right in a row) within ten opportunities or had at least ten; it is *wheel-spinning* when it was not
mastered within the first ten (Beck and Gong 2013).
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from usability.detection.detectors.wheel_spin_risk import DETECTOR
from usability.detection.kinds import MetricType
from usability.detection.observations import Observation
from usability.detection.practice import MASTERY_RUN, SPINNING_AFTER
from usability.recordings import Attempt, Sequence

JUDGED_AFTER = (4, 5, 6)
STEP_MS = 30_000  # sequences have no times; their order is kept by attempts half a minute apart


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
class Quality:
    """Area under the ROC curve after k attempts with its 95 % interval, resampled by student."""

    k: int
    pairs: int
    students: int
    spinning: int
    auc: float
    low: float
    high: float


def scores(sequences: Iterable[Sequence]) -> Iterator[Score]:
    """One score after each attempt, in the order of the file."""
    params = DETECTOR.Params()
    for sequence in sequences:
        state = DETECTOR.start()
        tries: dict[str, int] = defaultdict(int)
        for index, attempt in enumerate(sequence.attempts):
            state, _ = DETECTOR.advance(state, _observation(sequence.student, index, attempt), params)
            tries[attempt.skill] += 1
            yield Score(
                sequence.student,
                attempt.skill,
                tries[attempt.skill],
                DETECTOR.score(state, attempt.skill),
                attempt.correct,
            )


def _observation(student: str, index: int, attempt: Attempt) -> Observation:
    at_ms = (index + 1) * STEP_MS
    return Observation(
        id=f"{index:08d}",
        student_id=student,
        app_name="sequences",
        metric_type=MetricType.ANSWER,
        value=float(attempt.correct),
        at_ms=at_ms,
        received_ms=at_ms,
        item=attempt.item,
        skill=attempt.skill,
        correct=attempt.correct,
    )


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


def quality(judged: list[Judged], *, k: int, resamples: int, seed: int) -> Quality:
    """The AUC of what was judged after k attempts; without both outcomes it is nan."""
    ordered = _by_score(judged)
    students = sorted({each.student for each in judged})
    rng = random.Random(seed)
    drawn = []
    for _ in range(resamples):
        weights: dict[str, int] = defaultdict(int)
        for student in rng.choices(students, k=len(students)) if students else ():
            weights[student] += 1
        drawn.append(_auc(ordered, weights))
    known = sorted(each for each in drawn if each == each)  # noqa: PLR0124  nan is not itself
    return Quality(
        k=k,
        pairs=len(judged),
        students=len(students),
        spinning=sum(each.is_spinning for each in judged),
        auc=_auc(ordered, dict.fromkeys(students, 1)),
        low=_quantile(known, 0.025),
        high=_quantile(known, 0.975),
    )


def _by_score(judged: list[Judged]) -> list[list[Judged]]:
    """Groups of equal scores, lowest first."""
    groups: dict[float, list[Judged]] = defaultdict(list)
    for each in judged:
        groups[each.score].append(each)
    return [groups[score] for score in sorted(groups)]


def _auc(ordered: list[list[Judged]], weights: dict[str, int]) -> float:
    """Probability that a spinning pair scores higher than another, ties counted half; students weighted."""
    below = wins = spinning_total = 0.0
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
    return wins / (spinning_total * below) if spinning_total and below else float("nan")


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
