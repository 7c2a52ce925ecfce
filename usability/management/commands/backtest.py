"""`manage.py backtest`: stored metrics of some classes through other parameters, compared with what holds."""

from __future__ import annotations

import datetime as dt
import json
import os
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

from usability.backtest import queue, shadow
from usability.backtest.run import CANDIDATE, LIMIT_S, PRESENT, TooLongError, run
from usability.backtest.wish import Wish, WishError, make_wish
from usability.errors import UsabilityError
from usability.services.profiles import save_candidate

PROCESSES_MOST = 32


class Command(BaseCommand):
    help = (
        "Replays stored metrics through other detector parameters and compares the alerts with those of the"
        " parameters that hold. Nobody is alerted; nothing is changed unless --save asks for it."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--classroom", action="append", default=[], help="id of a class, may be repeated; or all"
        )
        parser.add_argument("--app", default="", help="only metrics of this app")
        parser.add_argument(
            "--since", default="", help="RFC 3339 or a date (UTC); default: a week before --until"
        )
        parser.add_argument("--until", default="", help="RFC 3339 or a date (UTC); default: now")
        parser.add_argument(
            "--profile", default="", help="id of a stored profile, or balanced, later, earlier"
        )
        parser.add_argument(
            "--set",
            action="append",
            default=[],
            dest="changes",
            metavar="NAME=VALUE",
            help="a parameter, such as error_streak.warn=4 or episodes.hold_s=40; may be repeated",
        )
        parser.add_argument("--processes", type=int, default=min(4, os.cpu_count() or 1))
        parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds after which it gives up")
        parser.add_argument("--save", choices=["draft", "shadow", "active"], help="as a new profile version")
        parser.add_argument("--json", action="store_true", help="the whole result as one JSON object")
        parser.add_argument(
            "--work", action="store_true", help="run what was asked for in the admin, count shadows, and end"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if not 1 <= options["processes"] <= PROCESSES_MOST:
            raise CommandError(f"--processes: from 1 to {PROCESSES_MOST}, not {options['processes']}")
        if options["limit"] <= 0:
            raise CommandError(f"--limit: more than 0, not {options['limit']:g}")
        if options["work"]:
            self._work(options["processes"])
            return
        wish = _wish(options)
        try:
            result = run(wish, processes=options["processes"], limit_s=options["limit"])
        except TooLongError as late:
            raise CommandError(
                f"--limit: it took more than {options['limit']:g} s; choose a shorter stretch or fewer classes"
            ) from late
        if options["save"]:
            result["saved"] = self._save(wish, options["save"])
        self.stdout.write(json.dumps(result) if options["json"] else in_words(result))

    def _work(self, processes: int) -> None:
        """Beside a detection worker: with the lowest claim to the processor."""
        os.nice(10)
        while queue.run_next(processes=processes):
            pass
        shadow.count_due(timezone.now())

    def _save(self, wish: Wish, state: str) -> list[str]:
        classrooms = wish.classroom_ids if len(wish.classroom_ids) == 1 else (None,)
        try:
            return [
                str(save_candidate(wish, who=None, classroom_id=one, state=state).pk) for one in classrooms
            ]
        except UsabilityError as refusal:
            raise CommandError(f"--save: {refusal.detail}") from refusal


def _wish(options: dict[str, Any]) -> Wish:
    errors: list[tuple[str, str]] = []
    until = _moment("until", options["until"], errors) or timezone.now()
    since = _moment("since", options["since"], errors) or until - dt.timedelta(days=7)
    try:
        wish = make_wish(
            classrooms=options["classroom"],
            since=since,
            until=until,
            app_name=options["app"],
            profile=options["profile"],
            changes=options["changes"],
        )
    except WishError as wrong:
        errors += wrong.errors
    if errors:
        raise CommandError("\n".join(f"--{field}: {message}" for field, message in errors))
    return wish


def _moment(field: str, text: str, errors: list[tuple[str, str]]) -> dt.datetime | None:
    if not text:
        return None
    try:
        found = parse_datetime(text)
        day = parse_date(text) if found is None else None
    except ValueError:
        found = day = None
    if day is not None:
        found = dt.datetime.combine(day, dt.time(), dt.UTC)
    if found is None:
        errors.append((field, f"a time such as 2026-11-24T08:00:00Z or a date, not {text!r}"))
        return None
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)


def in_words(result: dict[str, Any]) -> str:
    """The result for a person at a terminal."""
    lines = [
        f"{result['metrics']} metrics of {len(result['classes'])} classes in {result['elapsed_s']:g} s",
        f"{result['class_hours']:g} class-hours",
        "",
        f"{'':24}{'present':>12}{'candidate':>12}",
    ]
    for words, key in (
        ("alerts", "alerts"),
        ("  interrupting", "interrupting"),
        ("  in the list only", "listed"),
        ("alerts a class-hour", "alerts_per_class_hour"),
        ("interrupting an hour", "interrupting_per_class_hour"),
    ):
        lines.append(f"{words:24}{_cell(result[PRESENT][key])}{_cell(result[CANDIDATE][key])}")
    lines += [
        f"{'a problem to teachers':24}"
        + "".join(f"{_precision(result[side]['against_teachers']):>12}" for side in (PRESENT, CANDIDATE)),
        "",
    ]
    found, labels = result["difference"], result["labels"]
    lines += [
        f"{found['kept']} kept, {found['moved']} moved, {found['new']} new, {found['lost']} lost",
        f"{found['starts_interrupting']} start interrupting, {found['stops_interrupting']} stop",
        f"{labels['problems_missed']} that teachers took for a problem would be missed",
        f"{labels['dismissals_spared']} that teachers dismissed would be spared",
    ]
    for kind in ("new", "lost", "moved"):
        lines += [
            f"{kind:5} {one['at'][:16]} {one['student_id'] or 'class':20} {one['family']:12} {one['reason']}"
            for one in result["examples"][kind][:5]
        ]
    if "saved" in result:
        lines.append(f"saved as profile {', '.join(result['saved'])}")
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return f"{'-' if value is None else format(value, 'g'):>12}"


def _precision(found: dict[str, Any]) -> str:
    return f"{found['problems']}/{found['n']}"
