"""What is measured before and after help: one measure a family of signals, each as so many good of so many.

More is better in each of them, so that "more after" reads the same everywhere. One query measures many
stretches; each is a lookup along (student, timestamp).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from django.db import connection

from usability.detection.detector import ACTIVITY
from usability.proportions import Share

BIN_S = 30
STROKES_AT_LEAST = 10

RIGHT_ANSWERS = "right_answers"
WORKING = "working"
UNCORRECTED = "uncorrected_typing"
# By family of the signal; all others are about answers.
MEASURE_OF = {"pause": WORKING, "away": WORKING, "pace": WORKING, "typing": UNCORRECTED}


def measure_of(family: str) -> str:
    """The measure by which an effect on a signal of that family is told."""
    return MEASURE_OF.get(family, RIGHT_ANSWERS)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Equal lengths of time before and after `middle`, of these pupils; `app_name` "" counts every app."""

    students: tuple[str, ...]
    app_name: str
    middle: dt.datetime
    length: dt.timedelta
    measure: str


@dataclass(frozen=True, slots=True)
class BeforeAfter:
    """The same measure over both lengths."""

    before: Share
    after: Share


_STRETCHES = """
  FROM unnest(%(keys)s::int[], %(students)s::text[], %(apps)s::text[], %(middles)s::timestamptz[],
              %(lengths)s::interval[]) AS s(k, student, app, middle, length)
  JOIN usability_metrics m ON m.student_id = s.student
    AND m."timestamp" >= s.middle - s.length AND m."timestamp" < s.middle + s.length
    AND (m.app_name = s.app OR s.app = '')
  WHERE m."timestamp" >= %(first)s AND m."timestamp" < %(last)s
"""
_SQL = {
    # Right of all answers.
    RIGHT_ANSWERS: f"""
SELECT s.k, m."timestamp" >= s.middle AS is_after,
  count(*) FILTER (WHERE coalesce((m.metadata->>'correct')::boolean, m.metric_value >= 0.5))::float, count(*)
{_STRETCHES} AND m.metric_type = 'answer' GROUP BY 1, 2
""",
    # Half minutes in which the pupil did something, of all half minutes; none where the app sent nothing at all.
    WORKING: f"""
SELECT k, is_after, sum(bins)::float, sum(whole)::int FROM (
  SELECT s.k, s.student, m."timestamp" >= s.middle AS is_after,
    count(DISTINCT floor(extract(epoch FROM m."timestamp" - s.middle) / {BIN_S})) FILTER (
      WHERE m.metric_type = ANY(%(activity)s) AND (m.metric_value > 0 OR m.metric_type = 'answer')) AS bins,
    extract(epoch FROM min(s.length)) / {BIN_S} AS whole
  {_STRETCHES} GROUP BY 1, 2, 3) AS by_pupil GROUP BY 1, 2
""",  # noqa: S608 - constants alone
    # Strokes that are no corrections: the mean share of the half minutes in which something was typed.
    UNCORRECTED: f"""
SELECT k, is_after, sum(kept), count(*) FROM (
  SELECT s.k, s.student, m."timestamp" >= s.middle AS is_after,
    floor(extract(epoch FROM m."timestamp" - s.middle) / {BIN_S}) AS bin,
    coalesce(sum(m.metric_value) FILTER (WHERE m.metric_type = 'keypress'), 0) / sum(m.metric_value) AS kept
  {_STRETCHES} AND m.metric_type IN ('keypress', 'backspace') AND m.metric_value > 0
  GROUP BY 1, 2, 3, 4 HAVING sum(m.metric_value) >= {STROKES_AT_LEAST}) AS by_bin GROUP BY 1, 2
""",  # noqa: S608 - constants alone
}
NOTHING = Share(0, 0)


def measured(stretches: Sequence[Stretch]) -> list[BeforeAfter]:
    """Each stretch by its measure, in their order."""
    found: dict[tuple[int, bool], Share] = {}
    for measure, query in _SQL.items():
        own = [(key, one) for key, one in enumerate(stretches) if one.measure == measure and one.students]
        if own:
            with connection.cursor() as cursor:
                cursor.execute(query, _parameters(own))
                found |= {(key, is_after): Share(good, n) for key, is_after, good, n in cursor.fetchall()}
    return [
        BeforeAfter(found.get((key, False), NOTHING), found.get((key, True), NOTHING))
        for key in range(len(stretches))
    ]


def _parameters(own: Sequence[tuple[int, Stretch]]) -> dict[str, object]:
    lines = [(key, student, one) for key, one in own for student in one.students]
    return {
        "keys": [key for key, _, _ in lines],
        "students": [student for _, student, _ in lines],
        "apps": [one.app_name for _, _, one in lines],
        "middles": [one.middle for _, _, one in lines],
        "lengths": [one.length for _, _, one in lines],
        "first": min(one.middle - one.length for _, one in own),
        "last": max(one.middle + one.length for _, one in own),
        "activity": sorted(str(name) for name in ACTIVITY),
    }
