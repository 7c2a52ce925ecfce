"""What the days and weeks of a class show, and its signals for a spreadsheet. Nothing here is by teacher."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from django.db import connection
from django.db.models import Count, Q

from usability import access
from usability.effect_measures import RIGHT_ANSWERS, BeforeAfter, measure_of
from usability.effects import comparison_of, landmark_of, pooled_moments, verdict_of
from usability.models import (
    Classroom,
    Enrollment,
    Intervention,
    SatisfactionRating,
    TeacherDashboardAlert,
    UnhelpedMoment,
)
from usability.policies import zone_of
from usability.proportions import Share, pooled
from usability.selectors.shapes import Effect

GROUP_AT_LEAST = 5
EXPORTED_MOST = 50_000
DAY, WEEK = "day", "week"


@dataclass(frozen=True, slots=True)
class Week:
    """One day or week (from Monday) of a class: how many of its pupils had a signal, with the 95 % interval."""

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
    """All help of one kind and measure: how often, and before and after over all of it."""

    kind: str
    times: int
    effect: Effect


@dataclass(frozen=True, slots=True)
class Unhelped:
    """Moments without help that are like those with it, together: the row to compare with."""

    measure: str
    episodes: int
    before: Share
    after: Share


@dataclass(frozen=True, slots=True)
class SignalFamily:
    """How much time pupils spent with one kind of signal, and how often somebody came."""

    family: str
    signals: int
    minutes: float
    visits: int
    dismissed: int


@dataclass(frozen=True, slots=True)
class Ratings:
    """Satisfaction in one app: how many gave each of 1 to 5; the mean is None under five ratings."""

    app_name: str
    count: int
    counts: tuple[int, int, int, int, int]
    average: float | None


@dataclass(frozen=True, slots=True)
class Trends:
    """What the days or weeks of a class show. Groups under five are left out: they would name a pupil."""

    classroom_id: uuid.UUID
    name: str
    since: dt.datetime
    until: dt.datetime
    step: str
    pupils: int
    class_hours: float
    spans: tuple[Week, ...]
    help_kinds: tuple[HelpKind, ...]
    help_times: int
    unhelped: tuple[Unhelped, ...]
    families: tuple[SignalFamily, ...]
    ratings: tuple[Ratings, ...]


def trends(
    classroom_id: Any, *, who: Any, since: dt.datetime, until: dt.datetime, step: str = WEEK
) -> Trends:
    """The days or weeks of the class from `since` to `until`, in its school's time zone. Raises `NotFound`."""
    classroom = access.get_classroom(who, classroom_id)
    helped = list(
        access.visible_interventions(who)
        .filter(alert__classroom=classroom, at__gte=since, at__lt=until)
        .select_related("alert__event")
        .order_by("kind", "at", "id")
    )
    measured = [row for row in helped if row.effect is not None]
    unhelped = tuple(_unhelped(classroom, measured, since, until))
    enrolled = Enrollment.objects.current().filter(classroom=classroom).count()
    return Trends(
        classroom_id=classroom.pk,
        name=classroom.name,
        since=since,
        until=until,
        step=step,
        pupils=enrolled,
        class_hours=class_hours(classroom, since, until),
        spans=tuple(_spans(classroom, enrolled, since, until, step)),
        help_kinds=tuple(_help_kinds(measured, unhelped)),
        help_times=len(helped),
        unhelped=unhelped,
        families=tuple(_families(who, classroom.pk, since, until)),
        ratings=tuple(_ratings(classroom, since, until)),
    )


_SPANS = """
WITH spans AS (
  SELECT generate_series(date_trunc(%(step)s, %(since)s AT TIME ZONE %(zone)s), %(until)s AT TIME ZONE %(zone)s,
                         %(length)s::interval) AS span
), signals AS (
  SELECT date_trunc(%(step)s, detected_at AT TIME ZONE %(zone)s) AS span, count(DISTINCT student_id) AS pupils
  FROM frustration_events
  WHERE classroom_id = %(room)s AND detected_at >= %(since)s AND detected_at < %(until)s
    AND event_type <> 'reference'
  GROUP BY 1
), alerts AS (
  SELECT date_trunc(%(step)s, created_at AT TIME ZONE %(zone)s) AS span, count(*) AS alerts
  FROM teacher_dashboard_alerts
  WHERE classroom_id = %(room)s AND created_at >= %(since)s AND created_at < %(until)s
    AND is_interrupting GROUP BY 1
), helped AS (
  SELECT date_trunc(%(step)s, i.at AT TIME ZONE %(zone)s) AS span, count(*) AS helped
  FROM usability_intervention i JOIN teacher_dashboard_alerts a ON a.id = i.alert_id
  WHERE a.classroom_id = %(room)s AND i.at >= %(since)s AND i.at < %(until)s GROUP BY 1
), ratings AS (
  SELECT date_trunc(%(step)s, created_at AT TIME ZONE %(zone)s) AS span, avg(rating)::float AS mean, count(*) AS n
  FROM satisfaction_ratings
  WHERE classroom_id = %(room)s AND created_at >= %(since)s AND created_at < %(until)s GROUP BY 1
), work AS (
  SELECT date_trunc(%(step)s, window_start AT TIME ZONE %(zone)s) AS span,
         avg(error_rate) AS error_rate, max(active_count) AS active
  FROM classroom_metrics_snapshots
  WHERE classroom_id = %(room)s AND window_start >= %(since)s AND window_start < %(until)s GROUP BY 1
)
SELECT span::date, coalesce(signals.pupils, 0), coalesce(alerts.alerts, 0), coalesce(helped.helped, 0),
       ratings.mean, coalesce(ratings.n, 0), work.error_rate, coalesce(work.active, 0)
FROM spans LEFT JOIN signals USING (span) LEFT JOIN alerts USING (span) LEFT JOIN helped USING (span)
LEFT JOIN ratings USING (span) LEFT JOIN work USING (span) ORDER BY span
"""


def _spans(
    classroom: Classroom, enrolled: int, since: dt.datetime, until: dt.datetime, step: str
) -> list[Week]:
    asked = {
        "room": classroom.pk,
        "since": since,
        "until": until,
        "step": step,
        "length": f"1 {step}",
        "zone": str(zone_of(classroom.school.time_zone)),
    }
    with connection.cursor() as cursor:
        cursor.execute(_SPANS, asked)
        rows = cursor.fetchall()
    return [_span(enrolled, *row) for row in rows]


def _span(
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
    """A day or week in which nobody worked has no share: nothing seen is not nobody struggling."""
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


def class_hours(classroom: Classroom, since: dt.datetime, until: dt.datetime) -> float:
    """Hours in which anybody worked, by the snapshots' windows."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(sum(extract(epoch FROM window_end - window_start)), 0)::float / 3600 FROM ("
            " SELECT DISTINCT window_start, window_end FROM classroom_metrics_snapshots"
            " WHERE classroom_id = %s AND window_start >= %s AND window_start < %s AND active_count > 0) AS w",
            [classroom.pk, since, until],
        )
        return cursor.fetchone()[0]


# ---------------------------------------------------------------- before and after help


def _measure(row: Intervention) -> str:
    return measure_of(row.alert.alert_type)


def _help_kinds(rows: list[Intervention], unhelped: tuple[Unhelped, ...]) -> list[HelpKind]:
    groups: dict[tuple[str, str], list[Intervention]] = {}
    for row in rows:
        groups.setdefault((row.kind, _measure(row)), []).append(row)
    others = {one.measure: one for one in unhelped}
    return [
        HelpKind(kind, len(found), _pooled_effect(found, measure, others.get(measure)))
        for (kind, measure), found in sorted(
            groups.items(), key=lambda pair: (pair[0][1] != RIGHT_ANSWERS, pair[0][1], -len(pair[1]))
        )
        if len(found) >= GROUP_AT_LEAST
    ]


def _pooled_effect(rows: list[Intervention], measure: str, other: Unhelped | None) -> Effect:
    """All these moments together, before and after, beside those without help."""
    parts = {
        part: pooled([Share.from_json((row.effect or {}).get(part)) for row in rows])
        for part in ("before", "after")
    }
    counted = {
        part: sum(Share.from_json((row.effect or {}).get(part)).n for row in rows)
        for part in ("before", "after")
    }
    before, after = parts["before"], parts["after"]
    before_low, before_high = before.interval() or (None, None)
    after_low, after_high = after.interval() or (None, None)
    compared = (
        comparison_of(BeforeAfter(before, after), BeforeAfter(other.before, other.after), other.episodes)
        if other
        else "insufficient_data"
    )
    return Effect(
        verdict=verdict_of(before, after),
        before=before.value,
        before_n=counted["before"],
        before_low=before_low,
        before_high=before_high,
        after=after.value,
        after_n=counted["after"],
        after_low=after_low,
        after_high=after_high,
        window_s=600,
        measure=measure,
        compared=compared,
        unhelped_before=other.before.value if other else None,
        unhelped_after=other.after.value if other else None,
        unhelped_episodes=other.episodes if other else 0,
        unhelped_among="class" if other else "",
    )


def _unhelped(
    classroom: Classroom, helped: list[Intervention], since: dt.datetime, until: dt.datetime
) -> Iterator[Unhelped]:
    """Of each measure: episodes of the families that were helped, from when they had lasted as long as those."""
    lasted: dict[str, list[float]] = {}
    for row in helped:
        if row.alert.event is not None:
            seconds = (row.at - row.alert.event.detected_at).total_seconds()
            lasted.setdefault(row.alert.alert_type, []).append(seconds)
    found: dict[str, list[UnhelpedMoment]] = {}
    for family, seconds in sorted(lasted.items()):
        moments = UnhelpedMoment.objects.filter(
            classroom=classroom,
            family=family,
            after_s=landmark_of(median(seconds)),
            at__gte=since,
            at__lt=until,
        )
        found.setdefault(measure_of(family), []).extend(moments.order_by("at", "id"))
    for measure, moments_of in found.items():
        if len(moments_of) >= GROUP_AT_LEAST:
            both = pooled_moments(moments_of)
            yield Unhelped(measure, len(moments_of), both.before, both.after)


# ---------------------------------------------------------------- kinds of signals, ratings


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
            " WHERE classroom_id = %s AND detected_at >= %s AND detected_at < %s AND event_type <> 'reference'"
            " GROUP BY 1 ORDER BY 3 DESC, 1",
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


def _ratings(classroom: Classroom, since: dt.datetime, until: dt.datetime) -> Iterator[Ratings]:
    rows = SatisfactionRating.objects.filter(classroom=classroom, created_at__gte=since, created_at__lt=until)
    by_app: dict[str, list[int]] = {}
    for row in rows.values("app_name", "rating").annotate(n=Count("id")).order_by("app_name", "rating"):
        by_app.setdefault(row["app_name"], [0] * 5)[row["rating"] - 1] = row["n"]
    for app_name, counts in by_app.items():
        total = sum(counts)
        if total >= GROUP_AT_LEAST:
            mean = sum(stars * n for stars, n in enumerate(counts, start=1)) / total
            one, two, three, four, five = counts
            yield Ratings(app_name, total, (one, two, three, four, five), mean)


# ---------------------------------------------------------------- for a spreadsheet


def exported_signals(
    classroom_id: Any, *, who: Any, since: dt.datetime, until: dt.datetime
) -> Iterator[tuple[TeacherDashboardAlert, str, str]]:
    """Alerts of the class in that stretch, oldest first, with the name and seat of their pupil. Raises `NotFound`.

    At most `EXPORTED_MOST`; the caller records whose data it hands out.
    """
    classroom = access.get_classroom(who, classroom_id)
    people = {
        row.student_id: (row.student.display_name or row.student_id, row.seat)
        for row in Enrollment.objects.filter(classroom=classroom).select_related("student")
    }
    alerts = (
        access.visible_alerts(who)
        .filter(classroom=classroom, detected_at__gte=since, detected_at__lt=until)
        .select_related("event")
        .prefetch_related("interventions")
        .order_by("detected_at", "id")[:EXPORTED_MOST]
    )
    for alert in alerts:
        name, seat = people.get(alert.student_id, (alert.student_id or "", ""))
        yield alert, name, seat
