"""`manage.py replay_metrics FILE --speed X`: recorded metrics or attempt sequences through the public API."""

import json
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import urllib3
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from usability.importing import Imported, import_metrics
from usability.models import Enrollment
from usability.recordings import RecordingError
from usability.replay import Answer, Post, ReplayRefusedError, Tally, Timed, load, play, with_students

TIMEOUT_S = 15.0


class Command(BaseCommand):
    help = (
        "Plays recorded metrics (NDJSON) or attempt sequences through the API, intervals divided by --speed and"
        " their first moment moved to now; --import stores them at their original times and alerts nobody."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, help="NDJSON metrics or attempt sequences, plain or .gz")
        parser.add_argument("--speed", type=float, default=1.0, help="how many recorded seconds pass in one")
        parser.add_argument("--import", action="store_true", dest="is_import", help="store, do not play")
        parser.add_argument("--url", help="of the site; default: the running system of this checkout")
        parser.add_argument("--key", help="an API key with metrics:write; default: the demonstration's")
        parser.add_argument("--class", dest="classroom", help="id of a class whose pupils play the recording")
        parser.add_argument("--app", default="replay", help="app name of attempt sequences")
        parser.add_argument(
            "--every", type=float, default=20.0, help="seconds between attempts of a sequence"
        )
        parser.add_argument("--students", type=int, help="only the first so many students of a sequence file")

    def handle(self, *args: Any, **options: Any) -> None:
        if not 0 < options["speed"] <= 10_000:
            raise CommandError(f"--speed {options['speed']}: must be over 0 and at most 10000")
        if options["every"] <= 0:
            raise CommandError(f"--every {options['every']}: must be over 0")
        try:
            timed = load(
                options["file"],
                app_name=options["app"],
                every_s=options["every"],
                students=options["students"],
            )
            if options["classroom"]:
                timed = with_students(timed, _pupils(options["classroom"]))
            if options["is_import"]:
                self._import(timed)
            else:
                self._play(timed, options)
        except (OSError, RecordingError, ReplayRefusedError) as error:
            raise CommandError(f"{options['file']}: {error}") from error

    def _import(self, timed: list[Timed]) -> None:
        imported = Imported()
        for imported in import_metrics(timed):
            if imported.stored % 100_000 == 0:
                self.stdout.write(f"{imported.stored} of {len(timed)} metrics stored")
        self.stdout.write(
            f"{imported.stored} metrics stored at their original times, {imported.rejected} rejected"
        )
        for refusal in imported.refusals:
            self.stderr.write(f"  {'.'.join(map(str, refusal.loc))}: {refusal.msg}")

    def _play(self, timed: list[Timed], options: dict[str, Any]) -> None:
        url = options["url"] or _of_this_checkout("run.json", "url")
        key = options["key"] or _of_this_checkout("demo.json", "keys", "metrics")
        tally = Tally()
        for tally in play(
            timed,
            speed=options["speed"],
            post=_poster(url, key),
            clock_ms=lambda: time.time_ns() // 1_000_000,
            sleep=time.sleep,
        ):
            if tally.batches % 20 == 0:
                self.stdout.write(f"{tally.accepted} of {len(timed)} metrics accepted")
        self.stdout.write(
            f"{tally.accepted} metrics accepted, {tally.rejected} rejected, "
            f"{tally.batches} batches, {tally.retries} sent again"
        )


def _pupils(classroom: str) -> list[str]:
    """The pseudonyms of a class. Raises CommandError where there is no such class or nobody in it."""
    try:
        found = list(
            Enrollment.objects.filter(classroom_id=classroom, ended_on=None)
            .order_by("student__student_id")
            .values_list("student__student_id", flat=True)
        )
    except ValidationError as error:
        raise CommandError(f"--class {classroom}: is not the id of a class") from error
    if not found:
        raise CommandError(f"--class {classroom}: no pupil is enrolled in a class of that id")
    return found


def _of_this_checkout(name: str, *keys: str) -> str:
    path = Path(settings.GAIA.data_dir) / name
    try:
        found: Any = json.loads(path.read_text())
        for key in keys:
            found = found[key]
    except (OSError, ValueError, KeyError) as error:
        raise CommandError(
            f"{path}: not found; start the system (make run) or give --url and --key"
        ) from error
    return str(found)


def _poster(url: str, key: str) -> Post:
    pool = urllib3.PoolManager(timeout=urllib3.Timeout(TIMEOUT_S), retries=False)
    address = f"{url.rstrip('/')}/api/v1/usability/metrics"

    def post(body: dict[str, Any]) -> Answer:
        try:
            answer = pool.request("POST", address, json=body, headers={"Authorization": f"Bearer {key}"})
        except urllib3.exceptions.HTTPError as error:
            # Not answered is not refused: the same batch id makes it safe to send it again.
            return Answer(503, {"detail": f"no answer from {address}: {type(error).__name__}"})
        return Answer(answer.status, _body(answer), _retry_after_s(answer))

    return post


def _body(answer: urllib3.BaseHTTPResponse) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"detail": "the answer is not a JSON object"}


def _retry_after_s(answer: urllib3.BaseHTTPResponse) -> float:
    try:
        return float(answer.headers.get("Retry-After", "1"))
    except ValueError:
        return 1.0
