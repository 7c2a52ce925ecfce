"""Fits the few weights of the wheel-spinning score on attempt sequences, and says how well they carry over.

The sequences are taken as they are and in four other shapes, so that the weights lean on what holds in all of
them: easier answers and pupils with few skills, finer skills, coarser skills, practice that stops at mastery. No
problem ids are used. The weights are those of a logistic model of "not mastered within ten opportunities" after 3
to 7 attempts, with an intercept of its own for each shape but the first, found by Newton's method. With them goes how
far they may be off elsewhere: as far as if they had been fitted on `WORTH` examples, however many they were.

Prints, as JSON lines, the AUC of each shape on the half of the pupils that was not fitted, with that shape left
out of the fit too: with the fitted weights, and with weights that begin there and learn from pupil to pupil as in
production. `--write` writes `usability/detection/weights.py` from a fit on all pupils.
Run: python -m bench.fit_wheel_spin PATH [--write]   (format: see usability/recordings.py)
"""

import argparse
import json
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import exp
from operator import itemgetter
from pathlib import Path

from usability.detection import weights
from usability.detection.practice import (
    LEARNED_AFTER,
    NO_NORMS,
    NO_PRACTICE,
    SPINNING_AFTER,
    Weighing,
    features,
    learned,
)
from usability.evaluation import Judged, quality
from usability.recordings import Attempt, read_sequences
from usability.recordings import Sequence as Pupil

FITTED_AFTER = range(3, 8)
JUDGED_AFTER = (4, 5, 6)
STEPS = 8
RIDGE = 1e-3
WORTH = 5000
INTERCEPT_SPREAD = (
    0.5  # variance of what no other weight explains; it takes part in learning, not in the score
)
TARGET = Path(__file__).resolve().parent.parent / "usability" / "detection" / "weights.py"

Row = tuple[int, tuple[float, ...], bool, str]
"""Attempts so far, features, whether the pair came out wheel-spinning, student."""


def as_they_are(pupils: list[Pupil], rng: random.Random) -> list[Pupil]:
    return pupils


def easier(pupils: list[Pupil], rng: random.Random) -> list[Pupil]:
    """Three in ten wrong answers made right; each pupil cut into pupils of three skills, in any order."""
    found = []
    for pupil in pupils:
        skills = list(dict.fromkeys(attempt.skill for attempt in pupil.attempts))
        attempts = _flipped(pupil.attempts, 0.3, rng)
        for first in range(0, len(skills), 3):
            few = set(skills[first : first + 3])
            own = tuple(attempt for attempt in attempts if attempt.skill in few)
            found.append(Pupil(f"{pupil.student}.{first}", own))
    rng.shuffle(found)
    return found


def finer(pupils: list[Pupil], rng: random.Random) -> list[Pupil]:
    """Each skill split in two by its problems."""
    return [_renamed(pupil, lambda each: f"{each.skill}.{sum(each.item.encode()) % 2}") for pupil in pupils]


def coarser(pupils: list[Pupil], rng: random.Random) -> list[Pupil]:
    """Twenty skills in all."""
    return [_renamed(pupil, lambda each: str(sum(each.skill.encode()) % 20)) for pupil in pupils]


def until_mastery(pupils: list[Pupil], rng: random.Random) -> list[Pupil]:
    """Practice of a skill ends with three right in a row, and now and then before; a little easier."""
    found = []
    for pupil in pupils:
        runs: dict[str, int] = defaultdict(int)
        over: set[str] = set()
        kept = []
        for attempt in _flipped(pupil.attempts, 0.15, rng):
            if attempt.skill in over:
                continue
            kept.append(attempt)
            runs[attempt.skill] = runs[attempt.skill] + 1 if attempt.correct else 0
            if runs[attempt.skill] >= 3 or rng.random() < 0.03:
                over.add(attempt.skill)
        found.append(Pupil(pupil.student, tuple(kept)))
    return found


SHAPES: dict[str, Callable[[list[Pupil], random.Random], list[Pupil]]] = {
    shape.__name__: shape for shape in (as_they_are, easier, finer, coarser, until_mastery)
}


def rows_of(pupils: list[Pupil]) -> list[Row]:
    """A row for each attempt at a pair that is decided and not mastered yet, as production would see it then."""
    rows: list[Row] = []
    norms = NO_NORMS
    for pupil in pupils:
        practice = NO_PRACTICE
        seen: dict[str, list[tuple[int, tuple[float, ...]]]] = defaultdict(list)
        for attempt in pupil.attempts:
            practice = practice.after(attempt.skill, correct=attempt.correct, norms=norms)
            done = practice.of(attempt.skill)
            if done.opportunities in FITTED_AFTER and not done.is_mastered:
                seen[attempt.skill].append((done.opportunities, features(practice, attempt.skill, norms)))
        for skill, found in seen.items():
            done = practice.of(skill)
            if done.was_mastered_in_time or done.opportunities >= SPINNING_AFTER:
                rows += [(tries, x, not done.was_mastered_in_time, pupil.student) for tries, x in found]
        norms = learned(norms, practice)
    return rows


@dataclass(frozen=True, slots=True)
class Fit:
    """Weights of the features less their `centres`, and the covariance of how far they may be off."""

    centres: list[float]
    weights: list[float]
    spread: list[list[float]]

    def centred(self, x: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(value - centre for value, centre in zip(x, self.centres, strict=True))


def fitted(shapes: Sequence[list[Row]]) -> Fit:
    """The weights by Newton's method, without the intercepts of the shapes after the first."""
    features_ = len(weights.NAMES)
    count = sum(map(len, shapes))
    centres = [0.0] + [
        sum(row[1][place] for rows in shapes for row in rows) / count for place in range(1, features_)
    ]
    fit = Fit(centres, [], [])
    size = features_ + len(shapes) - 1
    found = [0.0] * size
    curve: list[list[float]] = []
    for _ in range(STEPS):
        slope = [0.0] * size
        curve = [[RIDGE * (row == column) for column in range(size)] for row in range(size)]
        for number, rows in enumerate(shapes):
            extra = [float(number == other) for other in range(1, len(shapes))]
            for _, x, is_spinning, _ in rows:
                values = [*fit.centred(x), *extra]
                chance = 1.0 / (1.0 + exp(-sum(w * v for w, v in zip(found, values, strict=True))))
                left, spread = is_spinning - chance, chance * (1.0 - chance)
                for row, value in enumerate(values):
                    if value:
                        slope[row] += left * value
                        scaled, line = spread * value, curve[row]
                        for column in range(row + 1):
                            line[column] += scaled * values[column]
        for row in range(size):
            for column in range(row):
                curve[column][row] = curve[row][column]
        found = [w + step for w, step in zip(found, _solved(curve, slope), strict=True)]
    return Fit(centres, found[:features_], _spread(curve, features_, WORTH / count))


def _spread(curve: list[list[float]], size: int, scale: float) -> list[list[float]]:
    """The inverse of the scaled curve of the first `size` weights, with an intercept that is free of the others."""
    rest = range(1, size)
    lines = [
        [scale * (curve[row][column] - curve[row][0] * curve[0][column] / curve[0][0]) for column in rest]
        for row in rest
    ]
    columns = [_solved(lines, [float(row == column) for row in rest]) for column in rest]
    return [
        [INTERCEPT_SPREAD] + [0.0] * (size - 1),
        *([0.0, *((columns[r][c] + columns[c][r]) / 2 for c in range(size - 1))] for r in range(size - 1)),
    ]


def report(shape: str, rows: list[Row], fit: Fit) -> None:
    for name, scored in (("fitted", _fixed(rows, fit)), ("learning", _learning(rows, fit))):
        for k in JUDGED_AFTER:
            judged = [each for tries, each in scored if tries == k]
            auc = quality(judged, k=k, resamples=0, seed=1).auc.value
            figures = {"shape": shape, "weights": name, "k": k, "auc": round(auc, 4)}
            print(json.dumps({"bench": "fit_wheel_spin", **figures}), flush=True)


def _fixed(rows: list[Row], fit: Fit) -> list[tuple[int, Judged]]:
    return [
        (tries, Judged(student, _product(fit.weights, fit.centred(x)), is_spinning))
        for tries, x, is_spinning, student in rows
    ]


def _learning(rows: list[Row], fit: Fit) -> list[tuple[int, Judged]]:
    """As `_fixed`, with weights that have learned from the pupils before."""
    weighing = Weighing(tuple(fit.weights), tuple(map(tuple, fit.spread)))
    found = []
    for _, group in groupby(rows, key=itemgetter(3)):
        own = [(tries, fit.centred(x), is_spinning, student) for tries, x, is_spinning, student in group]
        for tries, x, is_spinning, student in own:
            logit = _product(weighing.means, x) - weighing.means[0] + fit.weights[0]
            found.append((tries, Judged(student, logit, is_spinning)))
        for tries, x, is_spinning, _ in own:
            if tries in LEARNED_AFTER:
                weighing = weighing.after(x, is_spinning=is_spinning)
    return found


def _product(left: Sequence[float], right: Sequence[float]) -> float:
    return sum(w * x for w, x in zip(left, right, strict=True))


def written(fit: Fit) -> str:
    names = ", ".join(f'"{name}"' for name in weights.NAMES)
    spread = "".join(
        f"    ({', '.join(f'{each:.3e}'.replace('e+', 'e') for each in row)}),\n" for row in fit.spread
    )
    return (
        f'"""{weights.__doc__}"""\n\nNAMES = ({names})\n'
        f"CENTRES = ({', '.join(f'{centre:.3f}' for centre in fit.centres)})\n"
        f"WEIGHTS = ({', '.join(f'{weight:.3f}' for weight in fit.weights)})\n"
        f"SPREAD = (\n{spread})\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, help="attempt sequences, plain or .gz")
    parser.add_argument("--write", action="store_true", help="write usability/detection/weights.py")
    options = parser.parse_args()
    pupils = list(read_sequences(options.path))
    halves = [pupils[start::2] for start in (0, 1)]
    shaped = [
        {name: rows_of(shape(half, random.Random(11))) for name, shape in SHAPES.items()} for half in halves
    ]
    for name in SHAPES:
        others = [rows for other, rows in shaped[0].items() if other != name]
        report(name, shaped[1][name], fitted(others))
    if options.write:
        whole = [rows_of(shape(pupils, random.Random(11))) for shape in SHAPES.values()]
        TARGET.write_text(written(fitted(whole)))
    return 0


def _flipped(attempts: Sequence[Attempt], share: float, rng: random.Random) -> list[Attempt]:
    return [replace(each, correct=each.correct or rng.random() < share) for each in attempts]


def _renamed(pupil: Pupil, name: Callable[[Attempt], str]) -> Pupil:
    return Pupil(pupil.student, tuple(replace(each, skill=name(each)) for each in pupil.attempts))


def _solved(matrix: list[list[float]], right: list[float]) -> list[float]:
    """The solution of a positive definite system, by elimination."""
    size = len(right)
    lines = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for pivot in range(size):
        for below in range(pivot + 1, size):
            factor = lines[below][pivot] / lines[pivot][pivot]
            for column in range(pivot, size + 1):
                lines[below][column] -= factor * lines[pivot][column]
    found = [0.0] * size
    for row in reversed(range(size)):
        rest = sum(lines[row][column] * found[column] for column in range(row + 1, size))
        found[row] = (lines[row][size] - rest) / lines[row][row]
    return found


if __name__ == "__main__":
    sys.exit(main())
