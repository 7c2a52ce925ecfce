"""From alert rows to the cards a teacher reads, in the order in which they should be read."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from usability import access
from usability.errors import NotFound
from usability.models import Classroom, Enrollment, TeacherDashboardAlert
from usability.selectors.shapes import AlertChange, Pupil, Signal, Strip

if TYPE_CHECKING:
    import uuid
    from collections.abc import Iterable, Mapping

    from django.db.models import QuerySet

SEVERITY_RANK = {"low": 1, "medium": 2, "high": 3, "critical": 4}
# Where an alert carries no severity of its episode, what a teacher should take it for.
SEVERITY_OF_ALERT = {"info": "low", "warning": "medium", "critical": "critical"}
KIND_RANK = {"help": 0, "class": 1, "student": 2}
HELP_TYPES = frozenset({"help", "asked_for_help", "help_request"})
UNDO_S = 10
CHANGES_LIMIT = 200


def with_people(alerts: QuerySet[TeacherDashboardAlert]) -> QuerySet[TeacherDashboardAlert]:
    """The alerts with what a card needs of other tables, in one query."""
    return alerts.select_related("student", "helping_by")


def pupil_of(enrollment: Enrollment) -> Pupil:
    """The pupil as the class knows it; without a name, the pseudonym."""
    student = enrollment.student
    name = student.display_name or student.student_id
    return Pupil(student.student_id, name, short_name(name), enrollment.seat)


def short_name(name: str) -> str:
    """First name and initial of the last: "Thandi Z."; a pseudonym stays as it is."""
    words = name.split()
    return f"{words[0]} {words[-1][0]}." if len(words) > 1 else name


def roster_of(classroom_id: uuid.UUID) -> dict[str, Pupil]:
    """The pupils now enrolled, by pseudonym, in the order of their names."""
    enrollments = Enrollment.objects.current().filter(classroom_id=classroom_id).select_related("student")
    pupils = [pupil_of(enrollment) for enrollment in enrollments]
    return {pupil.student_id: pupil for pupil in sorted(pupils, key=lambda one: (one.name, one.student_id))}


def signal_of(
    alert: TeacherDashboardAlert, pupils: Mapping[str, Pupil], strips: Mapping[str, Strip] | None = None
) -> Signal:
    """The card of one alert."""
    details = alert.details
    step_at = max(filter(None, (alert.helping_at, alert.closed_at, alert.acknowledged_at)), default=None)
    return Signal(
        alert_id=alert.pk,
        seq=alert.seq,
        kind=kind_of(alert),
        state=alert.state,
        severity=severity_of(alert),
        alert_severity=alert.severity,
        family=str(details.get("family", alert.alert_type)),
        alert_type=alert.alert_type,
        app_name=alert.app_name,
        pupil=_pupil(alert, pupils),
        reason=str(details.get("reason", alert.alert_type.replace("_", " "))),
        evidence=str(details.get("evidence", "")),
        details=details,
        since=alert.detected_at,
        updated_at=alert.updated_at,
        interrupts=alert.is_interrupting,
        snoozed_until=alert.snoozed_until,
        helpers=(_name_of(alert.helping_by),) if alert.helping_by else (),
        helping_since=alert.helping_at,
        undo_until=step_at + dt.timedelta(seconds=UNDO_S) if step_at else None,
        closed_at=alert.closed_at,
        event_id=alert.event_id,
        strip=(strips or {}).get(alert.student_id or ""),
    )


def _pupil(alert: TeacherDashboardAlert, pupils: Mapping[str, Pupil]) -> Pupil | None:
    """The pupil of the alert, also one who has left the class since."""
    if alert.student_id is None:
        return None
    known = pupils.get(alert.student_id)
    if known is not None:
        return known
    name = alert.student.display_name or alert.student_id
    return Pupil(alert.student_id, name, short_name(name), "")


def kind_of(alert: TeacherDashboardAlert) -> str:
    """help, class or student: which of the three cards it is."""
    if alert.student_id is None:
        return "class"
    return "help" if alert.alert_type in HELP_TYPES else "student"


def severity_of(alert: TeacherDashboardAlert) -> str:
    """The severity of the episode: low, medium, high or critical."""
    given = alert.details.get("severity")
    return given if given in SEVERITY_RANK else SEVERITY_OF_ALERT[alert.severity]


def in_order(signals: Iterable[Signal]) -> list[Signal]:
    """Asked for help, whole class, then the gravest, then the longest; the id makes it total."""
    return sorted(
        signals,
        key=lambda one: (
            KIND_RANK[one.kind],
            -SEVERITY_RANK[one.severity],
            one.since,
            str(one.alert_id),
        ),
    )


def _name_of(user: Any) -> str:
    return user.get_full_name() or user.get_username()


# ---------------------------------------------------------------- questions


def live_signal(alert_id: Any, *, who: Any, now: dt.datetime | None = None) -> Signal:
    """One card, for a fragment. Raises `NotFound` for another's alert."""
    alert = with_people(access.visible_alerts(who)).filter(pk=access.get_alert(who, alert_id).pk).get()
    return signal_of(alert, roster_of(alert.classroom_id))


def cursor_of(classroom_id: uuid.UUID) -> int:
    """The classroom's last number: what was rendered after reading it misses nothing before it."""
    found = Classroom.objects.filter(pk=classroom_id).values_list("alert_seq", flat=True).first()
    if found is None:
        raise NotFound
    return found


def alerts_after(
    classroom_id: uuid.UUID, seq: int, *, limit: int = CHANGES_LIMIT, now: dt.datetime | None = None
) -> list[AlertChange]:
    """What changed in the classroom after the cursor, in the order of change; at most `limit`.

    An alert that changed several times is there once, as it is now: its earlier numbers are gone.
    The caller has checked who asks; alerts addressed to one teacher alone are for that teacher (`teacher_id`).
    """
    rows = list(
        with_people(TeacherDashboardAlert.objects.filter(classroom_id=classroom_id).after(seq))[:limit]
    )
    if not rows:
        return []
    pupils = roster_of(classroom_id)
    return [
        AlertChange(
            cursor=row.seq,
            first_seq=row.first_seq,
            signal=signal_of(row, pupils),
            teacher_id=row.teacher_id,
        )
        for row in rows
    ]


def help_request_state(request_id: Any, *, who: Any) -> str:
    """What the pupil's page shows: sent, seen, coming or done. Raises `NotFound` for somebody else's."""
    return access.get_help_request(who, request_id).state
