"""`manage.py import_roster FILE.zip`: a OneRoster 1.2 CSV roster, shown as a diff and applied."""

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import IntegrityError
from django.utils import timezone

from usability.roster.apply import import_roster
from usability.roster.parse import RosterError, read_roster
from usability.roster.plan import Diff, Plan

LINES_SHOWN = 20


class Command(BaseCommand):
    help = (
        "Imports schools, classes, pupils and teachers from a OneRoster 1.2 CSV zip and prints what changes."
        " Nothing is written with --dry-run, or when anything in the file is wrong."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, help="a OneRoster 1.2 CSV zip, bulk or delta")
        parser.add_argument("--dry-run", action="store_true", help="print the diff and write nothing")
        parser.add_argument("--json", action="store_true", help="print the diff as one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        path, is_dry_run = options["file"], options["dry_run"]
        now = timezone.now()
        try:
            roster = read_roster(path)
            plan = import_roster(roster, today=timezone.localdate(now), now=now, is_dry_run=is_dry_run)
        except OSError as error:
            raise CommandError(f"{path}: cannot be read ({error.strerror}). Nothing was changed.") from error
        except RosterError as error:
            raise CommandError(_refusal(path, error)) from error
        except IntegrityError as error:
            raise CommandError(
                f"{path}: somebody else changed the roster meanwhile. Nothing was changed; import it again."
            ) from error
        if options["json"]:
            self.stdout.write(json.dumps(_as_json(plan, is_dry_run=is_dry_run)))
        else:
            self.stdout.write("\n".join(_as_text(plan, is_dry_run=is_dry_run)))


def _refusal(path: Path, error: RosterError) -> str:
    more = error.found - len(error.issues)
    return "\n".join(
        [
            f"{path} cannot be imported. Nothing was changed.",
            *(f"  {issue}" for issue in error.issues),
            *([f"  and {more} more"] if more else []),
        ]
    )


def _as_text(plan: Plan, *, is_dry_run: bool) -> list[str]:
    lines = [f"{'':10}{'added':>8}{'changed':>9}{'ended':>8}{'unchanged':>11}"]
    for table, diff in plan.tables().items():
        counts = f"{len(diff.added):8}{len(diff.changed):9}{len(diff.ended):8}{diff.unchanged:11}"
        lines.append(f"{table:10}{counts}")
    for table, diff in plan.tables().items():
        lines += _shown([f"  {verb} {table}: {what}" for verb, what in _told(diff)])
    lines += _shown([f"  orphan {row}" for row in plan.orphans])
    lines += _shown([f"  passed over {row}" for row in plan.skipped])
    if plan.is_empty:
        return [*lines, "Nothing to change."]
    return [*lines, "Dry run: nothing was written." if is_dry_run else "Applied."]


def _shown(lines: list[str]) -> list[str]:
    more = len(lines) - LINES_SHOWN
    return [*lines[:LINES_SHOWN], *([f"  and {more} more (--json lists all)"] if more > 0 else [])]


def _told(diff: Diff) -> list[tuple[str, str]]:
    return [
        *(("+", _name(row)) for row in diff.added),
        *(("~", f"{_name(change.row)} ({', '.join(change.fields)})") for change in diff.changed),
        *(("-", _name(ending.row)) for ending in diff.ended),
    ]


def _name(row: Any) -> str:
    return " ".join(map(str, _ids(row).values()))


def _ids(row: Any) -> dict[str, str]:
    """What a row is told by: ids, and the names of schools and classes. Never the name of a person."""
    told = ("sourced_id", "student_id", "classroom", "username", "role", "name")
    return {name: str(getattr(row, name)) for name in told if hasattr(row, name)}


def _as_json(plan: Plan, *, is_dry_run: bool) -> dict[str, Any]:
    tables = {
        table: {
            "added": [_ids(row) for row in diff.added],
            "changed": [_ids(change.row) | {"fields": list(change.fields)} for change in diff.changed],
            "ended": [
                _ids(ending.row) | ({"on": ending.on.isoformat()} if ending.on else {})
                for ending in diff.ended
            ],
            "unchanged": diff.unchanged,
        }
        for table, diff in plan.tables().items()
    }
    passed_over = {
        name: [
            {"file": row.file, "line": row.line, "sourced_id": row.sourced_id, "reason": row.reason}
            for row in rows
        ]
        for name, rows in (("orphans", plan.orphans), ("skipped", plan.skipped))
    }
    return tables | passed_over | {"applied": not is_dry_run and not plan.is_empty, "dry_run": is_dry_run}
