"""`manage.py evaluate_detectors PATH --scores OUT.csv`: the production score over attempt sequences, and its AUC."""

import csv
import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from usability.evaluation import JUDGED_AFTER, Collector, Quality, quality, scores
from usability.recordings import RecordingError, read_sequences


class Command(BaseCommand):
    help = "Runs the wheel-spinning score over attempt sequences; writes a row after each attempt and prints AUCs."
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
        f"after {found.k} attempts: AUC {found.auc:.3f} [{found.low:.3f}, {found.high:.3f}], "
        f"{found.spinning} of {found.pairs} pairs wheel-spinning, {found.students} students"
    )


def _json(found: Quality) -> str:
    return json.dumps(
        {
            "bench": "wheel_spinning",
            "k": found.k,
            "auc": round(found.auc, 4),
            "low": round(found.low, 4),
            "high": round(found.high, 4),
            "pairs": found.pairs,
            "spinning": found.spinning,
            "students": found.students,
        }
    )
