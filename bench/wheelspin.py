"""How well the wheel-spinning score orders pupils on attempt sequences, beside plainer scores on the same pairs.

Prints one JSON line a figure: AUC after 4, 5 and 6 attempts with its 95 % interval (resampled by student).
Run: python bench/wheelspin.py PATH   (format: see usability/recordings.py; no data is in this repository)
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from usability.evaluation import JUDGED_AFTER, Collector, Score, quality, scores
from usability.recordings import read_sequences


def errors_so_far(found: list[Score]) -> Iterator[Score]:
    """The number of wrong answers at the skill."""
    wrong: dict[tuple[str, str], int] = defaultdict(int)
    for score in found:
        wrong[score.student, score.skill] += not score.correct
        yield replace(score, score=wrong[score.student, score.skill])


def wrong_in_a_row(found: list[Score]) -> Iterator[Score]:
    """The number of wrong answers since the last right one at the skill."""
    run: dict[tuple[str, str], int] = defaultdict(int)
    for score in found:
        pair = (score.student, score.skill)
        run[pair] = 0 if score.correct else run[pair] + 1
        yield replace(score, score=run[pair])


def error_rate(found: list[Score]) -> Iterator[Score]:
    """The exponentially weighted error rate at the skill (weight 0.3, from 0.3)."""
    rate: dict[tuple[str, str], float] = defaultdict(lambda: 0.3)
    for score in found:
        pair = (score.student, score.skill)
        rate[pair] += 0.3 * ((not score.correct) - rate[pair])
        yield replace(score, score=rate[pair])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, nargs="?", help="attempt sequences, plain or .gz")
    parser.add_argument("--resamples", type=int, default=200)
    options = parser.parse_args()
    if options.path is None:
        print(json.dumps({"bench": "wheelspin", "skipped": "no path of attempt sequences was given"}))
        return
    production = list(scores(read_sequences(options.path)))
    for name, rule in {
        "production": iter(production),
        "error_rate": error_rate(production),
        "errors": errors_so_far(production),
        "wrong_in_a_row": wrong_in_a_row(production),
    }.items():
        collector = Collector()
        for score in rule:
            collector.add(score)
        for k in JUDGED_AFTER:
            found = quality(collector.judged(k), k=k, resamples=options.resamples, seed=7)
            figures = {"auc": found.auc.value, "low": found.auc.low, "high": found.auc.high}
            print(
                json.dumps(
                    {
                        "bench": f"wheelspin.{name}",
                        "k": k,
                        **{key: round(value, 4) for key, value in figures.items()},
                        "pairs": found.pairs,
                        "spinning": found.spinning,
                        "students": found.students,
                    }
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
