"""`manage.py evaluate_detectors PATH --scores OUT.csv`: the production score over attempt sequences, and its AUC."""

import csv
import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from usability.evaluation import JUDGED_AFTER, Collector, Interval, Quality, quality, scores
from usability.recordings import RecordingError, read_sequences


class Command(BaseCommand):
    help = "Runs the wheel-spinning score over attempt sequences; writes a row after each attempt; prints quality."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("path", type=Path, help="attempt sequences, plain or .gz")
        parser.add_argument("--scores", type=Path, required=True, help="the CSV file to write")
        parser.add_argument("--resamples", type=int, default=200, help="bootstrap resamples by student")
        parser.add_argument("--seed", type=int, default=7, help="of the resampling")
        parser.add_argument("--json", action="store_true", help="one JSON line a figure")

    def handle(self, *args: Any, **options: Any) -> None:
        collector = Collector()
        try:
            with options["scores"].open("w", newline="", encoding="utf-8") as out:
                rows = csv.writer(out)
                rows.writerow(["student", "skill", "k", "score"])
                for score in scores(read_sequences(options["path"])):
                    rows.writerow([score.student, score.skill, score.k, f"{score.score:.6f}"])
                    collector.add(score)
        except (OSError, RecordingError) as error:
            raise CommandError(f"{options['path']}: {error}") from error
        for k in JUDGED_AFTER:
            found = quality(collector.judged(k), k=k, resamples=options["resamples"], seed=options["seed"])
            self.stdout.write(_json(found) if options["json"] else _sentence(found))


def _sentence(found: Quality) -> str:
    return (
        f"after {found.k} attempts: AUC {_told(found.auc)}; at the operating point precision "
        f"{_told(found.precision)}, recall {_told(found.recall)}, flagged {found.flagged.value:.1%}; "
        f"{found.spinning} of {found.pairs} pairs wheel-spinning, {found.students} students"
    )


def _told(figure: Interval) -> str:
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def _json(found: Quality) -> str:
    return json.dumps(
        {
            "bench": "wheel_spinning",
            "k": found.k,
            "auc": round(found.auc.value, 4),
            "low": round(found.auc.low, 4),
            "high": round(found.auc.high, 4),
            "precision": _rounded(found.precision),
            "recall": _rounded(found.recall),
            "flagged": round(found.flagged.value, 4),
            "pairs": found.pairs,
            "spinning": found.spinning,
            "students": found.students,
        }
    )


def _rounded(figure: Interval) -> list[float]:
    return [round(figure.value, 4), round(figure.low, 4), round(figure.high, 4)]
