"""Questions to the stored metrics about many pupils at once, each one query along (student, timestamp)."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import connection
from django.db.models import Count, Q, Sum

from usability.buckets import ORIGIN, bucket_start
from usability.models import UsabilityMetric
from usability.selectors.shapes import Bucket, Mark, Strip

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

STRIP_S = 600
STRIP_BIN_S = 30
STRIP_MARKS = 60
PAUSE_AT_LEAST_S = 10
TYPED_AT_LEAST = 10


@dataclass(frozen=True, slots=True)
class Presence:
    """When a pupil's app last sent anything, and since when the app has not been in front (None: it is)."""

    last_seen: dt.datetime
    away_since: dt.datetime | None


def _rows(sql: str, parameters: Sequence[Any] | Mapping[str, Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def presence_of(student_ids: Iterable[str], *, since: dt.datetime, until: dt.datetime) -> dict[str, Presence]:
    """Of each pupil with data in that stretch, by pseudonym. A blur counts until the next focus or key."""
    rows = _rows(
        "SELECT student_id, max(received_at),"
        " max(timestamp) FILTER (WHERE metric_type = 'blur'),"
        " max(timestamp) FILTER (WHERE metric_type NOT IN ('blur', 'pause', 'hesitation'))"
        " FROM usability_metrics WHERE student_id = ANY(%s) AND timestamp >= %s AND timestamp <= %s"
        " GROUP BY student_id",
        [list(student_ids), since, until + dt.timedelta(minutes=5)],
    )
    return {
        student_id: Presence(seen, blurred if blurred and (active is None or blurred > active) else None)
        for student_id, seen, blurred, active in rows
    }


def strips_of(student_ids: Iterable[str], *, until: dt.datetime) -> dict[str, Strip]:
    """The last ten minutes of each pupil: answers, hints, pauses, and the share of corrections by half minute."""
    begin = until - dt.timedelta(seconds=STRIP_S)
    wanted = list(student_ids)
    marks: dict[str, list[Mark]] = {student_id: [] for student_id in wanted}
    if not wanted:
        return {}
    rows = _rows(
        "SELECT student_id, metric_type, timestamp, metric_value,"
        " coalesce((metadata->>'correct')::boolean, metric_value >= 0.5)"
        " FROM usability_metrics WHERE student_id = ANY(%s) AND timestamp > %s AND timestamp <= %s"
        " AND metric_type IN ('answer', 'hint', 'error', 'hesitation', 'pause') ORDER BY timestamp, id",
        [wanted, begin, until],
    )
    for student_id, metric_type, at, value, is_right in rows:
        mark = _mark(metric_type, (until - at).total_seconds(), value, is_right=is_right)
        if mark is not None:
            marks[student_id].append(mark)
    for student_id, at, share in _correction_bins(wanted, begin, until):
        marks[student_id].append(Mark("corrections", max(0.0, (until - at).total_seconds()), share))
    return {
        student_id: Strip(
            ends_at=until, length_s=STRIP_S, marks=tuple(found[-STRIP_MARKS:]), words=_in_words(found)
        )
        for student_id, found in marks.items()
    }


def _mark(metric_type: str, at_s: float, value: float, *, is_right: bool) -> Mark | None:
    if metric_type == "answer":
        return Mark("right" if is_right else "wrong", at_s)
    if metric_type == "error":
        return Mark("wrong", at_s) if value > 0 else None
    if metric_type == "hint":
        return Mark("hint", at_s)
    return Mark("pause", at_s, value) if value >= PAUSE_AT_LEAST_S else None


def _correction_bins(
    student_ids: list[str], begin: dt.datetime, until: dt.datetime
) -> list[tuple[str, dt.datetime, float]]:
    return _rows(
        "SELECT student_id, date_bin(make_interval(secs => %s), timestamp, %s) AS bin,"
        " sum(metric_value) FILTER (WHERE metric_type = 'backspace')"
        " / sum(metric_value)"
        " FROM usability_metrics WHERE student_id = ANY(%s) AND timestamp > %s AND timestamp <= %s"
        " AND metric_type IN ('keypress', 'backspace') AND metric_value > 0"
        " GROUP BY 1, 2 HAVING sum(metric_value) >= %s"
        " AND sum(metric_value) FILTER (WHERE metric_type = 'backspace') > 0 ORDER BY 2",
        [STRIP_BIN_S, ORIGIN, student_ids, begin, until, TYPED_AT_LEAST],
    )


def _in_words(marks: Iterable[Mark]) -> str:
    """The strip for those who do not see it: counts, in the order of the legend."""
    counts: dict[str, int] = {}
    for mark in marks:
        counts[mark.kind] = counts.get(mark.kind, 0) + 1
    named = (("right", "right"), ("wrong", "wrong"), ("hint", "hints"), ("pause", "pauses"))
    said = [f"{counts[kind]} {word}" for kind, word in named if kind in counts]
    return "Last 10 minutes: " + (", ".join(said) if said else "no answers, no hints")


_IS_RIGHT = Q(metadata__correct=True) | Q(metadata__correct__isnull=True, metric_value__gte=0.5)
_PAUSES = ("hesitation", "pause")


def _sum_of(*metric_types: str) -> Sum:
    return Sum("metric_value", filter=Q(metric_type__in=metric_types), default=0.0)


def buckets_of(
    student_ids: Iterable[str],
    *,
    since: dt.datetime,
    until: dt.datetime,
    bucket_s: int,
    app_name: str | None = None,
    metric_type: str | None = None,
) -> list[Bucket]:
    """Counts by stretch of `bucket_s` seconds, oldest first, without the stretches in which nothing was.

    Stretches are aligned to a fixed origin, so the same moment falls into the same bucket whatever was asked.
    """
    metrics = UsabilityMetric.objects.filter(
        student_id__in=list(student_ids), timestamp__gte=since, timestamp__lt=until
    )
    if app_name is not None:
        metrics = metrics.filter(app_name=app_name)
    if metric_type is not None:
        metrics = metrics.filter(metric_type=metric_type)
    is_answer = Q(metric_type="answer")
    rows = (
        metrics.annotate(at=bucket_start(bucket_s))
        .values("at")
        .annotate(
            keypresses=_sum_of("keypress"),
            backspaces=_sum_of("backspace"),
            errors=_sum_of("error"),
            attempts=Count("id", filter=is_answer),
            right=Count("id", filter=is_answer & _IS_RIGHT),
            hints=Count("id", filter=Q(metric_type="hint")),
            hesitation_s=_sum_of(*_PAUSES),
            late=Count("id", filter=Q(metadata__late=True)),
        )
        .order_by("at")
    )
    return [_bucket(**row) for row in rows]


def _bucket(
    at: dt.datetime,
    keypresses: float,
    backspaces: float,
    errors: float,
    attempts: int,
    right: int,
    hints: int,
    hesitation_s: float,
    late: int,
) -> Bucket:
    strokes = keypresses + backspaces
    return Bucket(
        at=at,
        keypresses=keypresses,
        backspaces=backspaces,
        errors=errors,
        attempts=attempts,
        right=right,
        hints=hints,
        hesitation_s=hesitation_s,
        late=late,
        correction_share=backspaces / strokes if strokes else None,
        error_rate=(attempts - right) / attempts if attempts else None,
    )


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over many pupils in one stretch of time."""

    active: int
    counts: dict[str, float]
    attempts: int
    right: int
    hesitations: int
    last_received: dt.datetime | None

    @property
    def error_rate(self) -> float | None:
        """Wrong answers over answers; None where there was no answer."""
        return (self.attempts - self.right) / self.attempts if self.attempts else None

    @property
    def correction_share(self) -> float | None:
        """Backspaces over strokes; None where nothing was typed."""
        strokes = self.counts.get("keypress", 0) + self.counts.get("backspace", 0)
        return self.counts.get("backspace", 0) / strokes if strokes else None

    @property
    def hint_rate(self) -> float | None:
        """Hints over answers; None where there was no answer."""
        return self.counts.get("hint", 0) / self.attempts if self.attempts else None

    @property
    def average_hesitation_s(self) -> float | None:
        """Mean length of the reported pauses; None where there was none."""
        return self.counts.get("hesitation", 0) / self.hesitations if self.hesitations else None


_TOTALS = """
SELECT metric_type,
  CASE WHEN metric_type IN ('answer', 'hint') THEN count(*) ELSE sum(metric_value) END,
  count(*),
  count(*) FILTER (WHERE metric_type = 'answer'
    AND coalesce((metadata->>'correct')::boolean, metric_value >= 0.5)),
  max(received_at)
FROM usability_metrics
WHERE student_id = ANY(%(students)s) AND timestamp >= %(since)s AND timestamp < %(until)s
  AND (%(app)s::text IS NULL OR app_name = %(app)s)
GROUP BY metric_type ORDER BY metric_type
"""
_ACTIVE = """
SELECT count(DISTINCT student_id) FROM usability_metrics
WHERE student_id = ANY(%(students)s) AND timestamp >= %(since)s AND timestamp < %(until)s
  AND (%(app)s::text IS NULL OR app_name = %(app)s)
"""


def totals_of(
    student_ids: Iterable[str], *, since: dt.datetime, until: dt.datetime, app_name: str | None = None
) -> Totals:
    """Sums by metric type over the pupils given, and nobody else.

    Answers and hints are counted (their values are a verdict and a level), the others are summed.
    """
    asked = {"students": list(student_ids), "since": since, "until": until, "app": app_name}
    rows = _rows(_TOTALS, asked)
    active = _rows(_ACTIVE, asked)[0][0]
    return Totals(
        active=active,
        counts={metric_type: float(total) for metric_type, total, *_ in rows},
        attempts=sum(count for metric_type, _, count, *_ in rows if metric_type == "answer"),
        right=sum(right for *_, right, _ in rows),
        hesitations=sum(count for metric_type, _, count, *_ in rows if metric_type == "hesitation"),
        last_received=max((row[4] for row in rows), default=None),
    )
