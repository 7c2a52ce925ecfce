"""Why a pupil was, or was not, on the teacher's screen at a moment: the class once more from its rows, up to then.

The fold is that of production. What really happened, where an alert is stored, goes before what the fold says
would have. Of then, some things are not stored: they are named in `not_known`, and never guessed.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from django.db import OperationalError, connection, transaction
from django.db.models import Q
from django.utils import timezone

from usability import access
from usability.detection import classroom as fold
from usability.detection.budget import Controls, is_quiet
from usability.detection.classroom import ClassroomState
from usability.detection.explain import Explanation, explain
from usability.detection.observations import Observation, from_metric
from usability.errors import Invalid, UsabilityError
from usability.kinds import AlertState, AlertVerb, ProfileState
from usability.models import (
    AlertStep,
    Classroom,
    DetectorProfile,
    Enrollment,
    TeacherDashboardAlert,
    UsabilityMetric,
)
from usability.policies import RoomPolicy, from_ms, room_policies, to_ms
from usability.querysets import TIMESTAMP_AFTER_RECEIPT

# As far as a worker without a checkpoint looks back.
LOOK_BACK = timedelta(hours=2)
OLDEST_THAT_COUNTS = timedelta(days=1)
ROWS_LIMIT = 60_000
SLICE_ROWS = 5_000
CLASSES_LIMIT = 4
QUERY_LIMIT_S = 5
FOLD_LIMIT_S = 10.0
# A moment so little ago counts as now: what teachers have set is what held.
PRESENT = timedelta(seconds=5)
SNOOZE_LONGEST = timedelta(days=1)

_WITH_EPISODE = ("interrupted", "listed", "closing")
_TAKEN = {AlertState.RESOLVED, AlertState.DISMISSED}


@dataclass(frozen=True, slots=True)
class Recorded:
    """The alert that is stored about it. `held_back`: why it did not interrupt; `closed_as`: what was done by then."""

    alert_id: uuid.UUID
    raised_at: datetime
    interrupted: bool
    held_back: str
    closed_as: str


@dataclass(frozen=True, slots=True)
class Why:
    """Where one kind of signal, or below its threshold one rule, stood; `status` as in detection.explain."""

    status: str
    app_name: str
    family: str
    detector: str
    held_back: str
    since: datetime | None
    until: datetime | None
    reason: str
    numbers: dict[str, float]
    thresholds: dict[str, float]
    recorded: Recorded | None = None


@dataclass(frozen=True, slots=True)
class ClassWhy:
    """The answer for one class.

    `resting`: what held interruptions back then (paused, quiet_hours, snoozed). `not_known`: what of then is not
    stored (pauses, profile) or was too much to read (earlier_rows).
    """

    classroom_id: uuid.UUID
    rows_since: datetime
    rows: int
    resting: tuple[str, ...]
    not_known: tuple[str, ...]
    explanations: tuple[Why, ...]


@dataclass(frozen=True, slots=True)
class StudentWhy:
    """Why a learner was, or was not, on the teacher's screen at `at`, by class."""

    student_id: str
    at: datetime
    classes: tuple[ClassWhy, ...]


def student_why(
    student_id: str,
    *,
    who: Any,
    at: datetime | None = None,
    app_name: str | None = None,
    classroom_id: uuid.UUID | None = None,
    now: datetime | None = None,
) -> StudentWhy:
    """The answer in each visible class of the pupil (`classroom_id`: in that one), of `app_name` alone if given.

    Raises `NotFound` for somebody else's pupil, `Invalid` for a moment to come, and a problem `overloaded` where a
    class cannot be read and folded within some seconds.
    """
    now = now or timezone.now()
    at = at or now
    if at > now:
        raise Invalid("at", f"not after now ({now.isoformat(timespec='seconds')})")
    student = access.get_student(who, student_id)
    rooms = access.visible_classrooms(who).filter(
        pk__in=Enrollment.objects.current().filter(student=student).values("classroom")
    )
    if classroom_id is not None:
        rooms = rooms.filter(pk=classroom_id)
    found = [
        _in_class(room, student_id, at, now, app_name)
        for room in rooms.order_by("created_at", "pk")[:CLASSES_LIMIT]
    ]
    return StudentWhy(student_id, at, tuple(found))


def _in_class(
    room: Classroom, student_id: str, at: datetime, now: datetime, app_name: str | None
) -> ClassWhy:
    is_present = now - at <= PRESENT
    policy = _policy(room, student_id, at, is_present=is_present)
    observations, is_cut = _observations(room.pk, policy, at)
    alerts = _alerts_at(room.pk, student_id, at)
    state = _with_the_truth(_folded(room, observations, policy, to_ms(at)), alerts)
    found = explain(
        state,
        student_id,
        now_ms=to_ms(at),
        profile=policy.profile,
        app_profiles=policy.app_profiles,
        controls=policy.controls,
    )
    why = [_why(one, alerts, at) for one in found]
    told = {(one.app_name, one.family) for one in why if one.status in _WITH_EPISODE}
    lost = [_why_of_alert(alert, at) for key, alert in alerts.items() if key not in told]
    if lost:
        why = [one for one in why if one.status != "unknown"]
    asked = [one for one in (*lost, *why) if app_name in (None, one.app_name) or one.status == "unknown"]
    not_known = [
        *(() if is_present else ("pauses",)),
        *(("profile",) if _has_changed(room, at) else ()),
        *(("earlier_rows",) if is_cut else ()),
    ]
    return ClassWhy(
        classroom_id=room.pk,
        rows_since=from_ms(observations[0].received_ms) if is_cut else at - LOOK_BACK,
        rows=len(observations),
        resting=tuple(_resting(policy, student_id, to_ms(at))),
        not_known=tuple(not_known),
        explanations=tuple(asked) or (_why(Explanation("unknown"), {}, at),),
    )


# ---------------------------------------------------------------- what held then


def _policy(room: Classroom, student_id: str, at: datetime, *, is_present: bool) -> RoomPolicy:
    """The policy to judge by: today's rules, the roster of then, and of what teachers set what is known of then."""
    policy = room_policies([room.pk], at)[room.pk]
    left = Q(ended_on__isnull=False, ended_on__lte=at.date())
    roster = Enrollment.objects.filter(classroom=room).exclude(left).values_list("student_id", flat=True)
    controls = policy.controls
    if not is_present:
        until_ms = _snoozed_until_ms(room.pk, student_id, at)
        controls = Controls(
            snoozed_until_ms={student_id: until_ms} if until_ms else {},
            utc_offset_minutes=controls.utc_offset_minutes,
        )
    return replace(policy, roster=frozenset(roster), controls=controls)


def _snoozed_until_ms(classroom_id: uuid.UUID, student_id: str, at: datetime) -> int:
    """Until when the snooze that held at that moment lasted, by the steps teachers took; 0 where none held."""
    steps = AlertStep.objects.filter(
        Q(undone_at__isnull=True) | Q(undone_at__gt=at),
        alert__classroom=classroom_id,
        alert__student=student_id,
        verb=AlertVerb.SNOOZE,
        at__lte=at,
        at__gt=at - SNOOZE_LONGEST,
    )
    step = steps.select_related("alert").order_by("-at", "-id").first()
    if step is None:
        return 0
    until = step.undone_at or _snooze_end(step)
    return to_ms(until) if until is not None and until > at else 0


def _snooze_end(step: AlertStep) -> datetime | None:
    """A step keeps what was before it, so the end of a snooze stands in the next step, else in the alert."""
    following = AlertStep.objects.filter(alert=step.alert, at__gt=step.at).order_by("at", "id").first()
    if following is None:
        return step.alert.snoozed_until
    told = following.before.get("snoozed_until")
    return datetime.fromisoformat(told) if told else None


def _has_changed(room: Classroom, at: datetime) -> bool:
    """Whether parameters or budget are others than those the fold of then had."""
    return DetectorProfile.objects.filter(
        Q(classroom=room) | Q(classroom__isnull=True),
        state__in=(ProfileState.ACTIVE, ProfileState.RETIRED),
        state_at__gt=at,
    ).exists()


def _resting(policy: RoomPolicy, student_id: str, at_ms: int) -> Iterator[str]:
    controls = policy.controls
    if is_quiet(at_ms, policy.profile.quiet_hours, controls.utc_offset_minutes):
        yield "quiet_hours"
    if at_ms < controls.paused_until_ms:
        yield "paused"
    if at_ms < controls.snoozed_until_ms.get(student_id, 0):
        yield "snoozed"


# ---------------------------------------------------------------- the class once more


def _observations(
    classroom_id: uuid.UUID, policy: RoomPolicy, at: datetime
) -> tuple[list[Observation], bool]:
    """What was received of the class in the two hours up to that moment, in order; whether there was more.

    An id is a UUIDv7, so the least ids of two moments bound the receipt; the bounds on event time are those beyond
    which detection leaves out what it gets.
    """
    since = at - LOOK_BACK
    late_s = max(profile.late_s for profile in (policy.profile, *policy.app_profiles.values()))
    sat_here = Enrollment.objects.filter(classroom=classroom_id).values_list("student_id", flat=True)
    rows = UsabilityMetric.objects.filter(
        classroom=classroom_id,
        student_id__in=sorted(set(sat_here)),
        timestamp__gte=since - min(OLDEST_THAT_COUNTS, timedelta(seconds=late_s)),
        timestamp__lte=at + TIMESTAMP_AFTER_RECEIPT,
        id__gte=_least_id(to_ms(since)),
        id__lt=_least_id(to_ms(at) + 1),
    ).order_by("-id")
    columns = ("id", "student_id", "app_name", "metric_type", "metric_value", "timestamp", "session_id")
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SELECT set_config('statement_timeout', %s, true)", [f"{QUERY_LIMIT_S}s"])
            found = list(rows.values_list(*columns, "metadata")[: ROWS_LIMIT + 1])
    except OperationalError as slow:
        raise UsabilityError("overloaded", "The class could not be read in time; try again.") from slow
    is_cut = len(found) > ROWS_LIMIT
    return [_observation(row) for row in reversed(found[:ROWS_LIMIT])], is_cut


def _least_id(ms: int) -> uuid.UUID:
    return uuid.UUID(int=ms << 80)


def _observation(row: tuple[Any, ...]) -> Observation:
    key, student_id, app_name, metric_type, value, timestamp, session_id, metadata = row
    return from_metric(
        id=str(key),
        student_id=student_id,
        app_name=app_name,
        metric_type=metric_type,
        metric_value=value,
        at_ms=(timestamp - _EPOCH) // _MILLISECOND,
        received_ms=key.int >> 80,
        session_id=session_id or "",
        metadata=metadata,
    )


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def _folded(
    room: Classroom, observations: list[Observation], policy: RoomPolicy, at_ms: int
) -> ClassroomState:
    """The class at that moment. Slices change nothing in the result; between them the time it took is looked at."""
    began_s = time.monotonic()
    state = fold.start(str(room.pk))
    for begin in range(0, max(1, len(observations)), SLICE_ROWS):
        if time.monotonic() - began_s > FOLD_LIMIT_S:
            raise UsabilityError("overloaded", "The class could not be judged in time; try again.")
        piece = observations[begin : begin + SLICE_ROWS]
        is_last = begin + SLICE_ROWS >= len(observations)
        state, _ = fold.step(
            state,
            piece,
            now_ms=at_ms if is_last else piece[-1].received_ms,
            roster=policy.roster,
            profile=policy.profile,
            app_profiles=policy.app_profiles,
            controls=policy.controls,
        )
    return state


# ---------------------------------------------------------------- what really happened


def _alerts_at(
    classroom_id: uuid.UUID, student_id: str, at: datetime
) -> dict[tuple[str, str], TeacherDashboardAlert]:
    """The alerts about episodes that went on at that moment, by app and family."""
    alerts = TeacherDashboardAlert.objects.filter(
        Q(event__ended_at__isnull=True) | Q(event__ended_at__gt=at),
        classroom=classroom_id,
        student=student_id,
        event__isnull=False,
        detected_at__lte=at,
        created_at__lte=at,
    )
    return {(one.app_name, one.alert_type): one for one in alerts.order_by("created_at", "id")}


def _with_the_truth(
    state: ClassroomState, alerts: dict[tuple[str, str], TeacherDashboardAlert]
) -> ClassroomState:
    """Without the interruptions that the fold would have made and the stored alerts deny."""
    silent = {str(one.event_id) for one in alerts.values() if not one.is_interrupting}
    told = {key: severity for key, severity in state.told.items() if key not in silent}
    return msgspec.structs.replace(state, told=told)


def _why(found: Explanation, alerts: dict[tuple[str, str], TeacherDashboardAlert], at: datetime) -> Why:
    alert = alerts.get((found.app_name, found.family)) if found.status in _WITH_EPISODE else None
    recorded = _recorded(alert, at) if alert is not None else None
    held_back: str = found.held_back
    if recorded is not None and found.status == "listed":
        held_back = recorded.held_back or held_back
    return Why(
        status=found.status,
        app_name=found.app_name,
        family=str(found.family),
        detector=found.detector,
        held_back=held_back,
        since=from_ms(found.since_ms) if found.since_ms else None,
        until=from_ms(found.until_ms) if found.until_ms else None,
        reason=found.reason.text,
        numbers={name: float(value) for name, value in found.evidence.numbers.items()},
        thresholds={name: float(value) for name, value in found.evidence.thresholds.items()},
        recorded=recorded,
    )


def _why_of_alert(alert: TeacherDashboardAlert, at: datetime) -> Why:
    """What is stored and the fold does not come to again, such as a signal that was recorded by hand."""
    recorded = _recorded(alert, at)
    return Why(
        status="interrupted" if recorded.interrupted else "listed",
        app_name=alert.app_name,
        family=alert.alert_type,
        detector=alert.event.detector if alert.event else "",
        held_back=recorded.held_back,
        since=alert.detected_at,
        until=None,
        reason=str(alert.details.get("reason", "")),
        numbers={},
        thresholds={},
        recorded=recorded,
    )


def _recorded(alert: TeacherDashboardAlert, at: datetime) -> Recorded:
    is_over = alert.closed_at is not None and alert.closed_at <= at and alert.state in _TAKEN
    return Recorded(
        alert_id=alert.pk,
        raised_at=alert.created_at,
        interrupted=alert.is_interrupting,
        held_back="" if alert.is_interrupting else str(alert.details.get("held_back", "")),
        closed_as=str(alert.state) if is_over else "",
    )
