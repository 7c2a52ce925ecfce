"""A class over a stretch of time: counts, rates, who struggles."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

from django.db.models import Avg, QuerySet

from usability import access
from usability.models import ClassroomMetricsSnapshot, Enrollment
from usability.selectors.activity import totals_of
from usability.selectors.shapes import ClassroomMetrics, Signal, Struggling
from usability.selectors.signals import SEVERITY_RANK, in_order, roster_of, signal_of, with_people

# What a teacher might try first, by the family of the gravest signal; one table, so that no two copies differ.
SUGGESTED_HELP = {
    "help": "guidance",
    "accuracy": "guidance",
    "progress": "guidance",
    "guessing": "encouragement",
    "typing": "guidance",
    "pace": "encouragement",
    "pause": "encouragement",
    "away": "encouragement",
}


def classroom_metrics(
    classroom_id: Any, *, who: Any, since: dt.datetime, until: dt.datetime, app_name: str | None = None
) -> ClassroomMetrics:
    """Counts and rates of the pupils now enrolled, and of nobody else. Raises `NotFound`."""
    classroom = access.get_classroom(who, classroom_id)
    pupils = _pupils(classroom.pk)
    totals = totals_of(pupils, since=since, until=until, app_name=app_name)
    open_alerts = access.visible_alerts(who).filter(classroom=classroom, student_id__in=pupils).open()
    ratings = access.visible_ratings(who).filter(
        student_id__in=pupils, created_at__gte=since, created_at__lt=until
    )
    if app_name is not None:
        open_alerts, ratings = open_alerts.filter(app_name=app_name), ratings.filter(app_name=app_name)
    struggling_pupils = open_alerts.exclude(alert_type="recovered").values("student_id").distinct().count()
    minutes = (until - since).total_seconds() / 60
    return ClassroomMetrics(
        classroom_id=classroom.pk,
        app_name=app_name,
        since=since,
        until=until,
        total_students=len(pupils),
        active_students=totals.active,
        struggling_student_count=struggling_pupils,
        counts=totals.counts,
        error_rate=totals.error_rate,
        correction_share=totals.correction_share,
        completion_rate=totals.counts.get("completion", 0) / totals.active / minutes
        if totals.active
        else None,
        average_hesitation_s=totals.average_hesitation_s,
        average_satisfaction_rating=ratings.aggregate(mean=Avg("rating"))["mean"],
    )


def _pupils(classroom_id: uuid.UUID) -> list[str]:
    enrolled = Enrollment.objects.current().filter(classroom_id=classroom_id)
    return sorted(enrolled.values_list("student_id", flat=True))


def struggling(
    classroom_id: Any, *, who: Any, app_name: str | None = None, now: dt.datetime | None = None
) -> list[Struggling]:
    """Pupils with an open signal, each once an app: the gravest first, among equals the longest."""
    classroom = access.get_classroom(who, classroom_id)
    pupils = roster_of(classroom.pk)
    alerts = access.visible_alerts(who).filter(classroom=classroom, student__isnull=False).open()
    alerts = alerts.exclude(alert_type="recovered")
    if app_name is not None:
        alerts = alerts.filter(app_name=app_name)
    by_pupil: dict[tuple[str, str], list[Signal]] = {}
    for signal in in_order(signal_of(alert, pupils) for alert in with_people(alerts)):
        by_pupil.setdefault((signal.pupil.student_id, signal.app_name), []).append(signal)
    found = [_struggling(signals) for signals in by_pupil.values()]
    return sorted(found, key=lambda one: (-SEVERITY_RANK[one.severity], one.since, one.pupil.student_id))


def _struggling(signals: list[Signal]) -> Struggling:
    worst = max(signals, key=lambda one: SEVERITY_RANK[one.severity])
    return Struggling(
        pupil=worst.pupil,
        app_name=worst.app_name,
        severity=worst.severity,
        reasons=tuple(one.reason for one in signals),
        since=min(one.since for one in signals),
        suggested_help=SUGGESTED_HELP.get(worst.family, "guidance"),
    )


def snapshots(
    classroom_id: Any, *, who: Any, since: dt.datetime, until: dt.datetime, app_name: str | None = None
) -> QuerySet[ClassroomMetricsSnapshot]:
    """Snapshots of the class whose windows begin in the stretch, oldest first. Raises `NotFound`."""
    classroom = access.get_classroom(who, classroom_id)
    rows = ClassroomMetricsSnapshot.objects.for_classroom(classroom, since).filter(window_start__lt=until)
    return rows if app_name is None else rows.filter(app_name=app_name)
