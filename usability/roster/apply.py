"""Writes what a plan says, a set of rows at a time, all of it or nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.db import connection, transaction
from django.utils.crypto import salted_hmac

from usability.models import Classroom, ClassroomTeacher, Enrollment, School, Student
from usability.roster.parse import RosterFile
from usability.roster.plan import Change, Ending, Plan, plan_import

ROWS_A_STATEMENT = 1_000
# The advisory lock of this one duty: any number nobody else takes, here the letters "rost".
LOCK = 0x726F7374
PSEUDONYM_SALT = "usability.roster.pseudonym"
PSEUDONYM_CHARACTERS = 24  # 96 bits: no two of a million pupils share one


def pseudonym_of(sourced_id: str) -> str:
    """The stable pseudonym of a pupil whose roster has no usable one: keyed by SECRET_KEY, never the name."""
    digest = salted_hmac(PSEUDONYM_SALT, sourced_id, algorithm="sha256").hexdigest()
    return f"p-{digest[:PSEUDONYM_CHARACTERS]}"


def import_roster(roster: RosterFile, *, today: dt.date, now: dt.datetime, is_dry_run: bool = False) -> Plan:
    """Compare and, unless it is a dry run, write in the same transaction; gives what was compared.

    Imports come one after another. Raises RosterError, and Django's IntegrityError where somebody else
    changed the roster in between; nothing is written then.
    """
    if is_dry_run:
        return plan_import(roster, today=today, pseudonym=pseudonym_of)
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        plan = plan_import(roster, today=today, pseudonym=pseudonym_of)
        if not plan.is_empty:
            _write(plan, now)
    return plan


def _write(plan: Plan, now: dt.datetime) -> None:
    _schools(plan, now)
    school_keys = _keys(
        School, [row.school for row in _rows(plan.classes)] + [r.school for r in _rows(plan.pupils)]
    )
    _classes(plan, school_keys, now)
    _pupils(plan, school_keys, now)
    _accounts(plan)
    class_keys = _keys(
        Classroom,
        [row.classroom for row in plan.places.added] + [row.classroom for row in plan.teachers.added],
    )
    _places(plan, class_keys, now)
    _teachers(plan, class_keys, now)


def _rows(diff: Any) -> list[Any]:
    return [*diff.added, *(change.row for change in diff.changed)]


def _keys(model: Any, sourced_ids: Iterable[str]) -> dict[str, Any]:
    found = model.objects.filter(sourced_id__in=set(sourced_ids))
    return dict(found.values_list("sourced_id", "pk"))


def _schools(plan: Plan, now: dt.datetime) -> None:
    _create(School, (School(sourced_id=row.sourced_id, name=row.name) for row in plan.schools.added))
    changed = [School(pk=change.key, name=change.row.name, updated_at=now) for change in plan.schools.changed]
    _update(School, changed, ["name"])


def _classes(plan: Plan, school_keys: dict[str, Any], now: dt.datetime) -> None:
    def room(row: Any, **more: Any) -> Classroom:
        school = school_keys[row.school]
        return Classroom(
            sourced_id=row.sourced_id, name=row.name, subject=row.subject, school_id=school, **more
        )

    _create(Classroom, (room(row) for row in plan.classes.added))
    changed = [room(change.row, pk=change.key, updated_at=now) for change in plan.classes.changed]
    # A new Classroom object is not archived: one that comes back is used again.
    _update(Classroom, changed, ["name", "subject", "school", "is_archived"])
    ended = [ending.key for ending in plan.classes.ended]
    Classroom.objects.filter(pk__in=ended).update(is_archived=True, updated_at=now)


def _pupils(plan: Plan, school_keys: dict[str, Any], now: dt.datetime) -> None:
    pupils = [
        Student(
            student_id=row.student_id,
            sourced_id=row.sourced_id,
            display_name=row.display_name,
            school_id=school_keys.get(row.school),
        )
        for row in plan.pupils.added
    ]
    # An app may have named a pupil since the plan was made: the row it made is taken over.
    Student.objects.bulk_create(
        pupils,
        batch_size=ROWS_A_STATEMENT,
        update_conflicts=True,
        unique_fields=["student_id"],
        update_fields=["sourced_id", "display_name", "school"],
    )
    placed, unplaced = [], []
    for change in plan.pupils.changed:
        pupil = Student(
            pk=change.key,
            sourced_id=change.row.sourced_id,
            display_name=change.row.display_name,
            school_id=school_keys.get(change.row.school),
            updated_at=now,
        )
        (placed if change.row.school else unplaced).append(pupil)
    _update(Student, placed, ["sourced_id", "display_name", "school"])
    _update(Student, unplaced, ["sourced_id", "display_name"])


def _accounts(plan: Plan) -> None:
    users = get_user_model()
    _create(
        users,
        (
            users(
                username=row.username,
                first_name=row.first_name,
                last_name=row.last_name,
                password=make_password(
                    None
                ),  # none can be guessed: an admin sets one, or another sign-in does
            )
            for row in plan.accounts.added
        ),
    )


def _places(plan: Plan, class_keys: dict[str, Any], now: dt.datetime) -> None:
    """Free, end, change, add: in this order no step meets a sourcedId or a place another still holds."""
    rekeyed = [change.key for change in plan.places.changed if "sourced_id" in change.fields]
    Enrollment.objects.filter(pk__in=[*plan.freed, *rekeyed]).update(sourced_id=None, updated_at=now)
    for on, endings in _by_day(plan.places.ended).items():
        Enrollment.objects.filter(pk__in=endings).update(ended_on=on, updated_at=now)
    reopened = [change for change in plan.places.changed if "ended_on" in change.fields]
    # The seat may be somebody else's by now.
    Enrollment.objects.filter(pk__in=[c.key for c in reopened]).update(ended_on=None, seat="", updated_at=now)
    changed = [_rekeyed(change, now) for change in plan.places.changed if "sourced_id" in change.fields]
    _update(Enrollment, changed, ["sourced_id"])
    _create(
        Enrollment,
        (
            Enrollment(
                sourced_id=row.sourced_id,
                classroom_id=class_keys[row.classroom],
                student_id=row.student_id,
            )
            for row in plan.places.added
        ),
    )


def _rekeyed(change: Change, now: dt.datetime) -> Enrollment:
    return Enrollment(pk=change.key, sourced_id=change.row.sourced_id, updated_at=now)


def _by_day(endings: Iterable[Ending]) -> dict[dt.date | None, list[Any]]:
    days: dict[dt.date | None, list[Any]] = {}
    for ending in endings:
        days.setdefault(ending.on, []).append(ending.key)
    return days


def _teachers(plan: Plan, class_keys: dict[str, Any], now: dt.datetime) -> None:
    ClassroomTeacher.objects.filter(pk__in=[ending.key for ending in plan.teachers.ended]).delete()
    changed = [
        ClassroomTeacher(pk=change.key, role=change.row.role, updated_at=now)
        for change in plan.teachers.changed
    ]
    _update(ClassroomTeacher, changed, ["role"])
    names = {row.username for row in plan.teachers.added}
    users = dict(get_user_model().objects.filter(username__in=names).values_list("username", "pk"))
    _create(
        ClassroomTeacher,
        (
            ClassroomTeacher(
                classroom_id=class_keys[row.classroom], user_id=users[row.username], role=row.role
            )
            for row in plan.teachers.added
        ),
    )


def _create(model: Any, rows: Iterable[Any]) -> None:
    model.objects.bulk_create(list(rows), batch_size=ROWS_A_STATEMENT)


def _update(model: Any, rows: list[Any], fields: list[str]) -> None:
    model.objects.bulk_update(rows, [*fields, "updated_at"], batch_size=ROWS_A_STATEMENT)
