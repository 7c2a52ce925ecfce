"""The live class and the list of classes: who needs the teacher now, since when and why."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from django.db import connection, transaction
from django.db.models import Count, Max, Q
from django.utils import timezone

from usability import access
from usability.kinds import AlertState
from usability.models import Classroom, DetectorProfile, Enrollment, Intervention, TeacherDashboardAlert
from usability.policies import active_profiles, quiet_until
from usability.selectors.activity import Presence, presence_of, strips_of
from usability.selectors.shapes import (
    ClassCard,
    Freshness,
    LiveClass,
    Pause,
    Pupil,
    Seat,
    Signal,
    Tally,
    Working,
)
from usability.selectors.signals import HELP_TYPES, in_order, roster_of, severity_of, signal_of, with_people

if TYPE_CHECKING:
    import uuid
    from collections.abc import Iterable, Mapping, Sequence

# A pupil whose app has sent nothing for so long is silent: we do not know, and say so.
SILENT_AFTER = dt.timedelta(minutes=5)
AWAY_AFTER = dt.timedelta(seconds=30)
LATE_AFTER = dt.timedelta(seconds=60)
LOOK_BACK = dt.timedelta(minutes=60)
SIGNALS_LIMIT = 200
GRAVE = ("high", "critical")


def live_class(classroom_id: Any, *, who: Any, now: dt.datetime | None = None) -> LiveClass:
    """The whole picture of one class and the cursor that belongs to it, read in one snapshot.

    Raises `NotFound` for a classroom that is not the caller's.
    """
    now = now or timezone.now()
    is_outermost = not connection.in_atomic_block
    with transaction.atomic():
        if is_outermost:
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        classroom = access.get_classroom(who, classroom_id)
        alerts = _open_alerts(classroom, who)
        pupils = roster_of(classroom.pk)
        presence = presence_of(pupils, since=now - LOOK_BACK, until=now)
        strips = strips_of({alert.student_id for alert in alerts if alert.student_id}, until=now)
        signals = in_order(signal_of(alert, pupils, strips) for alert in alerts)
        helped_at = _last_helped(classroom.pk)
        return LiveClass(
            classroom_id=classroom.pk,
            name=classroom.name,
            at=now,
            cursor=classroom.alert_seq,
            signals=tuple(one for one in signals if not _is_snoozed(one, now)),
            snoozed=tuple(one for one in signals if _is_snoozed(one, now)),
            tally=_tally(pupils, signals, presence, now),
            seats=_seats(pupils, signals, presence, now),
            working=_working(pupils, signals, presence, helped_at, now),
            freshness=_freshness(classroom.pk, presence.values(), now),
            pause=_pause(classroom, active_profiles([classroom]).get(classroom.pk), now),
        )


def _open_alerts(classroom: Classroom, who: Any) -> list[TeacherDashboardAlert]:
    mine = access.visible_alerts(who).filter(classroom=classroom).open()
    return list(with_people(mine).worst_first()[:SIGNALS_LIMIT])


def _is_snoozed(signal: Signal, now: dt.datetime) -> bool:
    """Whether the card rests; a help request never does."""
    return signal.kind != "help" and signal.snoozed_until is not None and signal.snoozed_until > now


def condition_of(
    signals: Sequence[Signal], presence: Presence | None, now: dt.datetime
) -> tuple[str, dt.datetime | None]:
    """The gravest condition of one pupil and since when: one of the states of a `Seat` but empty."""
    waking = [one for one in signals if not _is_snoozed(one, now)]
    for state, holds in (
        ("helping", lambda one: one.state == AlertState.HELPING),
        ("help", lambda one: one.kind == "help"),
        ("needs", lambda one: one.severity in GRAVE),
        ("warn", lambda one: one.family != "recovery"),
    ):
        since = [one.since for one in waking if holds(one)]
        if since:
            return state, min(since)
    if presence is None or now - presence.last_seen > SILENT_AFTER:
        return "silent", presence.last_seen if presence else None
    if presence.away_since is not None and now - presence.away_since > AWAY_AFTER:
        return "away", presence.away_since
    return "working", None


def _by_pupil(signals: Iterable[Signal]) -> dict[str, list[Signal]]:
    found: dict[str, list[Signal]] = {}
    for one in signals:
        if one.pupil is not None:
            found.setdefault(one.pupil.student_id, []).append(one)
    return found


def _tally(
    pupils: Mapping[str, Pupil], signals: Sequence[Signal], presence: Mapping[str, Presence], now: dt.datetime
) -> Tally:
    of_pupil = _by_pupil(signals)
    states = [condition_of(of_pupil.get(key, ()), presence.get(key), now)[0] for key in pupils]
    return Tally(
        needs_now=states.count("needs"),
        asked_for_help=states.count("help"),
        rising=states.count("warn"),
        being_helped=states.count("helping"),
        working=states.count("working"),
        away=states.count("away"),
        silent=states.count("silent"),
    )


_STATE_WORDS = {
    "needs": "needs you now",
    "warn": "rising",
    "help": "asked for help",
    "helping": "being helped",
    "away": "app not in front",
    "working": "working",
    "silent": "no data",
}


def seats_of(
    pupils: Mapping[str, Pupil], signals: Sequence[Signal], presence: Mapping[str, Presence], now: dt.datetime
) -> dict[str, Seat]:
    """The condition of every pupil by pseudonym, also of those without a place (`place` is "" then)."""
    of_pupil = _by_pupil(signals)
    found = {}
    for key, pupil in pupils.items():
        mine = of_pupil.get(key, [])
        state, since = condition_of(mine, presence.get(key), now)
        words = mine[0].reason if mine and state in ("needs", "warn") else _STATE_WORDS[state]
        # A silent pupil's last sign of life is not part of the seat's condition: it would never stand still.
        found[key] = Seat(pupil.seat, pupil, state, None if state == "silent" else since, words)
    return found


def _seats(
    pupils: Mapping[str, Pupil], signals: Sequence[Signal], presence: Mapping[str, Presence], now: dt.datetime
) -> tuple[Seat, ...]:
    """The room by rows from the board; places without a pupil are empty, so that the room keeps its shape."""
    taken = {seat.place: seat for seat in seats_of(pupils, signals, presence, now).values() if seat.place}
    return tuple(taken.get(place) or Seat(place, None, "empty") for place in _places(taken))


def _places(taken: Iterable[str]) -> list[str]:
    """Every place of the smallest room that holds the seats taken, row by row: A1 B1 C1, A2 B2 C2."""
    split = [(place.rstrip("0123456789"), int(place.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))) for place in taken]
    if not split:
        return []
    columns = range(1, max(_column_number(letters) for letters, _ in split) + 1)
    rows = range(1, max(row for _, row in split) + 1)
    return [f"{_column_letters(column)}{row}" for row in rows for column in columns]


def _column_number(letters: str) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - 64
    return number


def _column_letters(number: int) -> str:
    letters = ""
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(65 + rest) + letters
    return letters


def _working(
    pupils: Mapping[str, Pupil],
    signals: Sequence[Signal],
    presence: Mapping[str, Presence],
    helped_at: Mapping[str, dt.datetime],
    now: dt.datetime,
) -> tuple[Working, ...]:
    """Pupils without a signal, by who has gone longest without help: the quiet ones come first."""
    of_pupil = _by_pupil(signals)
    found = []
    for key, pupil in pupils.items():
        state, _ = condition_of(of_pupil.get(key, ()), presence.get(key), now)
        if state in ("working", "away", "silent"):
            seen = presence.get(key)
            found.append(Working(pupil, seen.last_seen if seen else None, helped_at.get(key)))
    long_ago = dt.datetime.min.replace(tzinfo=dt.UTC)
    return tuple(sorted(found, key=lambda one: (one.last_helped or long_ago, one.pupil.name)))


def _last_helped(classroom_id: uuid.UUID) -> dict[str, dt.datetime]:
    rows = (
        Intervention.objects.filter(alert__classroom_id=classroom_id, alert__student__isnull=False)
        .values_list("alert__student_id")
        .annotate(at=Max("at"))
    )
    return dict(rows)


def _freshness(classroom_id: uuid.UUID, presence: Iterable[Presence], now: dt.datetime) -> Freshness:
    newest = max((one.last_seen for one in presence), default=None)
    state = "none" if newest is None else "late" if now - newest > LATE_AFTER else "live"
    return Freshness(state, newest, _delay_s(classroom_id, now))


def _delay_s(classroom_id: uuid.UUID, now: dt.datetime) -> float | None:
    """95th percentile today of receipt to alert row, as the worker measured it; None without an alert."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT percentile_cont(0.95) WITHIN GROUP (ORDER BY (details->>'delay_s')::float)"
            " FROM teacher_dashboard_alerts WHERE classroom_id = %s AND created_at >= %s AND details ? 'delay_s'",
            [classroom_id, now.replace(hour=0, minute=0, second=0, microsecond=0)],
        )
        return cursor.fetchone()[0]


def _pause(classroom: Classroom, profile: DetectorProfile | None, now: dt.datetime) -> Pause | None:
    if classroom.paused_until is not None and classroom.paused_until > now:
        return Pause(classroom.paused_until, "paused")
    until = quiet_until(profile, classroom.school.time_zone, now)
    return Pause(until, "quiet_hours") if until is not None else None


# ---------------------------------------------------------------- my classes


def classrooms_of(who: Any, *, now: dt.datetime | None = None) -> list[ClassCard]:
    """The caller's classes by name, each with how many need somebody now. A fixed number of queries."""
    now = now or timezone.now()
    classrooms = list(
        access.visible_classrooms(who)
        .filter(is_archived=False)
        .select_related("school")
        .annotate(pupils=Count("enrollments", filter=Q(enrollments__ended_on__isnull=True)))
        .order_by("name", "id")
    )
    keys = [classroom.pk for classroom in classrooms]
    enrolled: dict[uuid.UUID, list[str]] = {}
    for classroom_id, student_id in (
        Enrollment.objects.current().filter(classroom__in=keys).values_list("classroom_id", "student_id")
    ):
        enrolled.setdefault(classroom_id, []).append(student_id)
    everyone = {student_id for ids in enrolled.values() for student_id in ids}
    presence = presence_of(everyone, since=now - LOOK_BACK, until=now)
    waiting: dict[uuid.UUID, list[TeacherDashboardAlert]] = {}
    for alert in access.visible_alerts(who).filter(classroom__in=keys).open():
        waiting.setdefault(alert.classroom_id, []).append(alert)
    profiles = active_profiles(classrooms)
    return [
        _card(
            one,
            profiles.get(one.pk),
            waiting.get(one.pk, []),
            [presence.get(key) for key in enrolled.get(one.pk, [])],
            now,
        )
        for one in classrooms
    ]


def _card(
    classroom: Any,
    profile: DetectorProfile | None,
    alerts: Sequence[TeacherDashboardAlert],
    presence: Sequence[Presence | None],
    now: dt.datetime,
) -> ClassCard:
    seen = [one.last_seen for one in presence if one is not None]
    waiting = [alert for alert in alerts if alert.state != AlertState.HELPING and alert.student_id]
    asked = {alert.student_id for alert in waiting if alert.alert_type in HELP_TYPES}
    grave = {
        alert.student_id
        for alert in waiting
        if severity_of(alert) in GRAVE and not (alert.snoozed_until and alert.snoozed_until > now)
    }
    return ClassCard(
        classroom_id=classroom.pk,
        name=classroom.name,
        subject=classroom.subject,
        room="",
        pupils=classroom.pupils,
        needs_now=len(grave - asked),
        asked_for_help=len(asked),
        active=sum(1 for at in seen if now - at <= SILENT_AFTER),
        has_data=bool(seen),
        last_metric_at=max(seen, default=None),
        pause=_pause(classroom, profile, now),
    )
