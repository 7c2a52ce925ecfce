"""Frustration events that somebody records or settles by hand; the detection worker writes its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.utils import timezone

from usability.access import get_event, person
from usability.errors import Invalid, NotFound
from usability.kinds import EventSeverity
from usability.models import Classroom, FrustrationEvent, Student
from usability.querysets import EVENT_SEVERITY_RANK
from usability.services.routing import classroom_of

if TYPE_CHECKING:
    import datetime as dt


def record_event(
    *,
    student_id: str,
    app_name: str,
    event_type: str,
    severity: str,
    details: dict[str, Any],
    detected_at: dt.datetime,
    detector: str = "",
    params_version: str = "",
    classroom: Classroom | None = None,
) -> FrustrationEvent:
    """The open event of that student, app and type: a new one, or the one that is open already.

    A second record of an open event raises its severity where the new one is worse and replaces the evidence
    then; it never opens another. Raises `NotFound` for a pupil nobody knows, `Invalid` for a severity.
    """
    if severity not in EventSeverity.values:
        raise Invalid("severity", f"one of {', '.join(EventSeverity.values)}, not {severity!r}")
    if not Student.objects.filter(student_id=student_id).exists():
        raise NotFound
    where = classroom or classroom_of(student_id, app_name)
    with transaction.atomic():
        event = FrustrationEvent(
            student_id=student_id,
            classroom=where,
            app_name=app_name,
            event_type=event_type,
            severity=severity,
            details=details,
            detected_at=detected_at,
            detector=detector,
            params_version=params_version,
        )
        # The partial unique index decides between two at once; the loser finds the winner's row.
        FrustrationEvent.objects.bulk_create([event], ignore_conflicts=True)
        kept = (
            FrustrationEvent.objects.open()
            .select_for_update(no_key=True)
            .get(student_id=student_id, app_name=app_name, event_type=event_type)
        )
        if kept.pk != event.pk and EVENT_SEVERITY_RANK[severity] > EVENT_SEVERITY_RANK[kept.severity]:
            kept.severity, kept.details = severity, details
            kept.save(update_fields=["severity", "details", "updated_at"])
    return kept


def acknowledge_event(event_id: Any, *, who: Any, now: dt.datetime | None = None) -> FrustrationEvent:
    """Seen: time and person of the first who says so stay."""
    return _settle(event_id, "acknowledged", who, now or timezone.now())


def resolve_event(event_id: Any, *, who: Any, now: dt.datetime | None = None) -> FrustrationEvent:
    """Settled by a person: time and person of the first stay. An event nobody had seen is seen by this."""
    now = now or timezone.now()
    _settle(event_id, "acknowledged", who, now)
    return _settle(event_id, "resolved", who, now)


def _settle(event_id: Any, what: str, who: Any, now: dt.datetime) -> FrustrationEvent:
    event = get_event(who, event_id)
    FrustrationEvent.objects.filter(pk=event.pk, **{f"{what}_at__isnull": True}).update(
        **{f"{what}_at": now, f"{what}_by": person(who), "updated_at": now}
    )
    event.refresh_from_db()
    return event
