"""Snapshots: what a class did with one app in one window of time, kept for trends.

A snapshot is a function of stored rows, so taking it again gives the same one, or a better one when rows
came late: there is one a classroom, app and window.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from django.db import connection
from django.db.models import Avg, Q

from usability.models import (
    Classroom,
    ClassroomMetricsSnapshot,
    Enrollment,
    FrustrationEvent,
    Intervention,
    SatisfactionRating,
)
from usability.querysets import EVENT_SEVERITY_RANK
from usability.selectors.activity import Totals, totals_of

if TYPE_CHECKING:
    import uuid
    from collections.abc import Iterable

WINDOW = dt.timedelta(minutes=5)
# A window is taken when rows that were on their way at its end have come.
GRACE = dt.timedelta(seconds=30)
_KEY = ("classroom", "app_name", "window_start", "window_end")
_MEASURED = (
    "student_count",
    "active_count",
    "struggling_student_count",
    "average_frustration_level",
    "average_satisfaction_rating",
    "error_rate",
    "correction_rate",
    "hint_rate",
    "completion_rate",
    "snapshot_data",
    "updated_at",
)


def take_snapshot(
    classroom: Classroom, app_name: str, window_start: dt.datetime, window_end: dt.datetime
) -> ClassroomMetricsSnapshot:
    """The snapshot of that class, app and window, written or written anew. Rates of nothing are None.

    `average_frustration_level` is the mean, over the pupils active in the window, of their gravest signal's
    severity: 0 none, 1 low, to 4 critical. Raises ValueError for a window that ends before it begins.
    """
    if window_end <= window_start:
        raise ValueError(f"the window ends at {window_end}, before or when it begins ({window_start})")
    pupils = sorted(
        Enrollment.objects.current().filter(classroom=classroom).values_list("student_id", flat=True)
    )
    totals = totals_of(pupils, since=window_start, until=window_end, app_name=app_name)
    worst = _worst_severities(pupils, app_name, window_start, window_end)
    row = ClassroomMetricsSnapshot(
        classroom=classroom,
        app_name=app_name,
        window_start=window_start,
        window_end=window_end,
        student_count=len(pupils),
        active_count=totals.active,
        struggling_student_count=len(worst),
        average_frustration_level=sum(worst.values()) / totals.active if totals.active else None,
        average_satisfaction_rating=_average_rating(pupils, app_name, window_start, window_end),
        error_rate=totals.error_rate,
        correction_rate=totals.correction_share,
        hint_rate=totals.hint_rate,
        completion_rate=_completion_rate(totals, window_end - window_start),
        snapshot_data={
            "counts": totals.counts,
            "attempts": totals.attempts,
            "right": totals.right,
            "average_hesitation_s": totals.average_hesitation_s,
            "interventions": _interventions(classroom, app_name, window_start, window_end),
        },
    )
    ClassroomMetricsSnapshot.objects.bulk_create(
        [row], update_conflicts=True, unique_fields=_KEY, update_fields=_MEASURED
    )
    return ClassroomMetricsSnapshot.objects.get(
        classroom=classroom, app_name=app_name, window_start=window_start, window_end=window_end
    )


def window_before(now: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
    """The last whole window whose rows have come by `now`; windows begin at multiples of five minutes."""
    settled = now - GRACE
    length_s = int(WINDOW.total_seconds())
    end = dt.datetime.fromtimestamp(int(settled.timestamp()) // length_s * length_s, tz=dt.UTC)
    return end - WINDOW, end


def take_due(classroom_ids: Iterable[uuid.UUID], *, now: dt.datetime) -> int:
    """Take the last whole window of each class in which something happened, where it is not there yet."""
    begin, end = window_before(now)
    taken = 0
    for classroom in Classroom.objects.filter(pk__in=list(classroom_ids)).order_by("pk"):
        have = set(
            ClassroomMetricsSnapshot.objects.filter(
                classroom=classroom, window_start=begin, window_end=end
            ).values_list("app_name", flat=True)
        )
        for app_name in _apps_used(classroom, begin, end) - have:
            take_snapshot(classroom, app_name, begin, end)
            taken += 1
    return taken


def _apps_used(classroom: Classroom, begin: dt.datetime, end: dt.datetime) -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT m.app_name FROM usability_metrics m JOIN usability_enrollment e"
            " ON e.student_id = m.student_id AND e.classroom_id = %s AND e.ended_on IS NULL"
            " WHERE m.timestamp >= %s AND m.timestamp < %s",
            [classroom.pk, begin, end],
        )
        return {row[0] for row in cursor.fetchall()}


def _worst_severities(
    pupils: list[str], app_name: str, begin: dt.datetime, end: dt.datetime
) -> dict[str, int]:
    """The gravest severity, as a rank, of each pupil with an event open in the window."""
    events = FrustrationEvent.objects.filter(
        Q(ended_at__isnull=True) | Q(ended_at__gt=begin),
        Q(resolved_at__isnull=True) | Q(resolved_at__gt=begin),
        student_id__in=pupils,
        app_name=app_name,
        detected_at__lt=end,
        detected_at__gte=begin - dt.timedelta(days=1),
    )
    worst: dict[str, int] = {}
    for student_id, severity in events.values_list("student_id", "severity"):
        worst[student_id] = max(worst.get(student_id, 0), EVENT_SEVERITY_RANK[severity])
    return worst


def _average_rating(pupils: list[str], app_name: str, begin: dt.datetime, end: dt.datetime) -> float | None:
    rows = SatisfactionRating.objects.filter(
        student_id__in=pupils, app_name=app_name, created_at__gte=begin, created_at__lt=end
    )
    return rows.aggregate(mean=Avg("rating"))["mean"]


def _completion_rate(totals: Totals, length: dt.timedelta) -> float | None:
    """Completions a pupil and minute; None where nobody was active."""
    if not totals.active:
        return None
    return totals.counts.get("completion", 0) / totals.active / (length.total_seconds() / 60)


def _interventions(classroom: Classroom, app_name: str, begin: dt.datetime, end: dt.datetime) -> int:
    return Intervention.objects.filter(
        alert__classroom=classroom, alert__app_name=app_name, at__gte=begin, at__lt=end
    ).count()
