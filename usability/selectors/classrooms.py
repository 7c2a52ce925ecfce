"""A class over a stretch of time: counts, rates, who struggles, what the weeks show."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.db.models import Avg, Count, Q, QuerySet

from usability import access
from usability.effects import Share, verdict_of
from usability.models import ClassroomMetricsSnapshot, Enrollment, Intervention
from usability.selectors.activity import totals_of
from usability.selectors.shapes import ClassroomMetrics, Effect, Signal, Struggling
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
GROUP_AT_LEAST = 5


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


# ---------------------------------------------------------------- trends


@dataclass(frozen=True, slots=True)
class Week:
    """One week of a class, from Monday (UTC): how many of its pupils had a signal, with the 95 % interval."""

    starts_on: dt.date
    pupils: int
    with_signal: int
    share: float | None
    low: float | None
    high: float | None
    alerts: int
    helped: int
    average_rating: float | None
    ratings: int
    error_rate: float | None


@dataclass(frozen=True, slots=True)
class HelpKind:
    """All help of one kind: how often, and right answers before and after over all of it."""

    kind: str
    times: int
    effect: Effect


@dataclass(frozen=True, slots=True)
class SignalFamily:
    """How much time pupils spent with one kind of signal, and how often somebody came."""

    family: str
    signals: int
    minutes: float
    visits: int
    dismissed: int


@dataclass(frozen=True, slots=True)
class Trends:
    """What the weeks of a class show. Groups under five are left out: they would name a pupil."""

    classroom_id: uuid.UUID
    name: str
    since: dt.datetime
    until: dt.datetime
    weeks: tuple[Week, ...]
    help_kinds: tuple[HelpKind, ...]
    families: tuple[SignalFamily, ...]


def trends(classroom_id: Any, *, who: Any, since: dt.datetime, until: dt.datetime) -> Trends:
    """The weeks of the class from `since` to `until`. Raises `NotFound`."""
    classroom = access.get_classroom(who, classroom_id)
    return Trends(
        classroom_id=classroom.pk,
        name=classroom.name,
        since=since,
        until=until,
        weeks=tuple(_weeks(classroom.pk, since, until)),
        help_kinds=tuple(_help_kinds(who, classroom.pk, since, until)),
        families=tuple(_families(who, classroom.pk, since, until)),
    )


_WEEKS = """
WITH weeks AS (
  SELECT generate_series(date_trunc('week', %(since)s AT TIME ZONE 'UTC'), %(until)s AT TIME ZONE 'UTC',
                         interval '1 week') AS week
), signals AS (
  SELECT date_trunc('week', detected_at AT TIME ZONE 'UTC') AS week, count(DISTINCT student_id) AS pupils
  FROM frustration_events WHERE classroom_id = %(room)s AND detected_at >= %(since)s AND detected_at < %(until)s
  GROUP BY 1
), alerts AS (
  SELECT date_trunc('week', created_at AT TIME ZONE 'UTC') AS week, count(*) AS alerts
  FROM teacher_dashboard_alerts
  WHERE classroom_id = %(room)s AND created_at >= %(since)s AND created_at < %(until)s
    AND is_interrupting GROUP BY 1
), helped AS (
  SELECT date_trunc('week', i.at AT TIME ZONE 'UTC') AS week, count(*) AS helped
  FROM usability_intervention i JOIN teacher_dashboard_alerts a ON a.id = i.alert_id
  WHERE a.classroom_id = %(room)s AND i.at >= %(since)s AND i.at < %(until)s GROUP BY 1
), ratings AS (
  SELECT date_trunc('week', created_at AT TIME ZONE 'UTC') AS week, avg(rating)::float AS mean, count(*) AS n
  FROM satisfaction_ratings
  WHERE classroom_id = %(room)s AND created_at >= %(since)s AND created_at < %(until)s GROUP BY 1
), work AS (
  SELECT date_trunc('week', window_start AT TIME ZONE 'UTC') AS week,
         avg(error_rate) AS error_rate, max(active_count) AS active
  FROM classroom_metrics_snapshots
  WHERE classroom_id = %(room)s AND window_start >= %(since)s AND window_start < %(until)s GROUP BY 1
)
SELECT week::date, coalesce(signals.pupils, 0), coalesce(alerts.alerts, 0), coalesce(helped.helped, 0),
       ratings.mean, coalesce(ratings.n, 0), work.error_rate, coalesce(work.active, 0)
FROM weeks LEFT JOIN signals USING (week) LEFT JOIN alerts USING (week) LEFT JOIN helped USING (week)
LEFT JOIN ratings USING (week) LEFT JOIN work USING (week) ORDER BY week
"""


def _weeks(classroom_id: uuid.UUID, since: dt.datetime, until: dt.datetime) -> list[Week]:
    enrolled = len(_pupils(classroom_id))
    with connection.cursor() as cursor:
        cursor.execute(_WEEKS, {"room": classroom_id, "since": since, "until": until})
        rows = cursor.fetchall()
    return [_week(enrolled, *row) for row in rows]


def _week(
    enrolled: int,
    starts_on: dt.date,
    with_signal: int,
    alerts: int,
    helped: int,
    average_rating: float | None,
    ratings: int,
    error_rate: float | None,
    active: int,
) -> Week:
    """A week in which nobody worked has no share: nothing seen is not nobody struggling."""
    had_work = active > 0 or with_signal > 0
    share = (
        Share(with_signal, max(enrolled, with_signal))
        if had_work and enrolled >= GROUP_AT_LEAST
        else Share(0, 0)
    )
    low, high = share.interval() or (None, None)
    return Week(
        starts_on=starts_on,
        pupils=share.n,
        with_signal=with_signal,
        share=share.value,
        low=low,
        high=high,
        alerts=alerts,
        helped=helped,
        average_rating=average_rating if ratings >= GROUP_AT_LEAST else None,
        ratings=ratings,
        error_rate=error_rate,
    )


def _help_kinds(who: Any, classroom_id: uuid.UUID, since: dt.datetime, until: dt.datetime) -> list[HelpKind]:
    rows = access.visible_interventions(who).filter(
        alert__classroom_id=classroom_id, at__gte=since, at__lt=until, effect__isnull=False
    )
    by_kind: dict[str, list[Intervention]] = {}
    for row in rows.order_by("kind", "at").iterator(chunk_size=500):
        by_kind.setdefault(row.kind, []).append(row)
    return [
        HelpKind(kind, len(found), _pooled(found))
        for kind, found in by_kind.items()
        if len(found) >= GROUP_AT_LEAST
    ]


def _pooled(rows: list[Intervention]) -> Effect:
    """Answers of all these moments together, before and after."""
    before, after = (_pooled_share(rows, part) for part in ("before", "after"))
    before_low, before_high = before.interval() or (None, None)
    after_low, after_high = after.interval() or (None, None)
    return Effect(
        verdict=verdict_of(before, after),
        before=before.value,
        before_n=before.n,
        before_low=before_low,
        before_high=before_high,
        after=after.value,
        after_n=after.n,
        after_low=after_low,
        after_high=after_high,
        window_s=600,
    )


def _pooled_share(rows: list[Intervention], part: str) -> Share:
    parts = [row.effect.get(part) or {} for row in rows]
    n = sum(int(one.get("n") or 0) for one in parts)
    return Share(round(sum((one.get("share") or 0) * int(one.get("n") or 0) for one in parts)), n)


def _families(
    who: Any, classroom_id: uuid.UUID, since: dt.datetime, until: dt.datetime
) -> list[SignalFamily]:
    alerts = access.visible_alerts(who).filter(
        classroom_id=classroom_id, created_at__gte=since, created_at__lt=until, event__isnull=False
    )
    counted = {
        row["alert_type"]: row
        for row in alerts.values("alert_type").annotate(
            visits=Count("interventions"), dismissed=Count("id", filter=Q(state="dismissed"), distinct=True)
        )
    }
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT event_type, count(*), sum(extract(epoch FROM coalesce(ended_at, resolved_at, least(%s, now()))"
            " - detected_at))::float / 60 FROM frustration_events"
            " WHERE classroom_id = %s AND detected_at >= %s AND detected_at < %s GROUP BY 1 ORDER BY 3 DESC, 1",
            [until, classroom_id, since, until],
        )
        rows = cursor.fetchall()
    return [
        SignalFamily(
            family=family,
            signals=signals,
            minutes=max(0.0, minutes or 0.0),
            visits=counted.get(family, {}).get("visits", 0),
            dismissed=counted.get(family, {}).get("dismissed", 0),
        )
        for family, signals, minutes in rows
    ]
