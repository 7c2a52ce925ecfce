"""A back-test of a million stored metrics: how long it takes, with two processes.

Simulated lessons of ten classes are copied into a database of their own with the days they need; then the command
of production is timed, from its start to its answer. Goal: under 30 s on 2 cores.
Run: python -m bench.backtest [--metrics 1000000] [--runs 3]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.figures import report
from bench.system import running_system

ROOT = Path(__file__).resolve().parent.parent
CLASSES = 10
PUPILS = 28
LESSON_EVERY = timedelta(hours=3)


def lessons(
    pupils: list[str], start: datetime, count: int, seed: int
) -> Iterator[tuple[int, dict[str, object]]]:
    """About `count` metrics of one class, lesson after lesson, as (unix ms, metric)."""
    from usability.simulator import KINDS, LESSON_S, ClassSimulator  # noqa: PLC0415

    made = 0
    while made < count:
        start_ms = int(start.timestamp() * 1000)
        simulator = ClassSimulator(pupils, seed=seed, start_ms=start_ms, struggles=len(KINDS))
        for metric in simulator.until(start_ms + int(LESSON_S * 1000)):
            at = datetime.fromisoformat(str(metric["timestamp"]))
            yield int(at.timestamp() * 1000), metric
            made += 1
            if made >= count:
                return
        start, seed = start + LESSON_EVERY, seed + 1


def fill(metrics: int) -> None:
    """In a process of its own, whose settings are those of the system that runs: imports follow its set-up."""
    import django  # noqa: PLC0415

    django.setup()
    from usability.importing import import_metrics  # noqa: PLC0415
    from usability.models import Classroom, Enrollment, School, Student  # noqa: PLC0415

    school = School.objects.create(name="Bench school")
    start = datetime.now(UTC) - timedelta(days=6)
    for number in range(CLASSES):
        room = Classroom.objects.create(school=school, name=f"class {number}", app_names=["fractions-lab"])
        pupils = [f"bench-{number}-{index}" for index in range(PUPILS)]
        Student.objects.bulk_create([Student(student_id=one, school=school) for one in pupils])
        Enrollment.objects.bulk_create([Enrollment(student_id=one, classroom=room) for one in pupils])
        for _ in import_metrics(
            sorted(lessons(pupils, start, metrics // CLASSES, number * 1000), key=lambda pair: pair[0])
        ):
            pass


def used_s() -> float:
    """Processor time of the commands that have ended, with their own children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metrics", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--fill", action="store_true", help="used by the benchmark itself")
    options = parser.parse_args()
    if options.fill:
        fill(options.metrics)
        return
    with running_system(DEMO="0", FRUSTRATION_DETECTION_ENABLED="false") as (system, _):
        environment = {
            **os.environ,
            "GAIA_DATA_DIR": str(system.data),
            "DJANGO_SETTINGS_MODULE": "gaia_site.settings",
        }
        began = time.monotonic()
        own = [sys.executable, "-m", "bench.backtest", "--fill", "--metrics", str(options.metrics)]
        subprocess.run(own, check=True, cwd=ROOT, env=environment, timeout=600)
        filled_s = time.monotonic() - began
        command = [
            *(sys.executable, "manage.py", "backtest", "--classroom", "all", "--json"),
            *("--set", "error_streak.warn=4", "--set", "episodes.hold_s=40"),
        ]
        times, processor, results = [], [], []
        for _ in range(options.runs):
            began, used = time.monotonic(), used_s()
            done = subprocess.run(
                command, check=True, cwd=ROOT, env=environment, timeout=300, capture_output=True, text=True
            )
            times.append(time.monotonic() - began)
            processor.append(used_s() - used)
            results.append(json.loads(done.stdout))
        last = results[-1]
        report(
            "backtest",
            f"{last['metrics']} metrics through two profiles",
            times,
            "s",
            filled_s=round(filled_s, 1),
            difference=last["difference"],
            class_hours=last["class_hours"],
        )
        report("backtest", "processor, all processes but PostgreSQL", processor, "s")
        report("backtest", "metrics a second", [last["metrics"] / one for one in times], "1/s")


if __name__ == "__main__":
    main()
