"""What came after a teacher's help: the share of right answers before and after, with honest intervals.

What came after is not proof of what helped: teachers help when things are worst, and the worst mostly gets
better by itself. So the verdict speaks only where the difference is beyond chance, and says "unclear" else.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from math import sqrt
from typing import Any

from django.db import connection

from usability.models import Intervention

WINDOW = dt.timedelta(minutes=10)
# Rows that were on their way at the end of the window have come by then.
GRACE = dt.timedelta(seconds=30)
ANSWERS_AT_LEAST = 5
Z_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Share:
    """`right` of `n` answers, with the 95 % interval of the share; None where there was no answer."""

    right: int
    n: int

    @property
    def value(self) -> float | None:
        """The share itself."""
        return self.right / self.n if self.n else None

    def interval(self) -> tuple[float, float] | None:
        """Wilson's score interval (Wilson 1927), which stays within 0..1 and holds for few answers."""
        if not self.n:
            return None
        share, z2 = self.right / self.n, Z_95**2
        middle = (share + z2 / (2 * self.n)) / (1 + z2 / self.n)
        half = Z_95 * sqrt(share * (1 - share) / self.n + z2 / (4 * self.n**2)) / (1 + z2 / self.n)
        # Rounding must not put the share itself outside.
        return min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))

    def as_json(self) -> dict[str, Any]:
        """What is stored: share, n, low, high."""
        low, high = self.interval() or (None, None)
        return {"share": self.value, "n": self.n, "low": low, "high": high}


def verdict_of(before: Share, after: Share) -> str:
    """better, worse, unclear or too_little_data.

    Better or worse only where the 95 % interval of the difference leaves zero out (Newcombe 1998, method 10,
    from the two Wilson intervals).
    """
    if before.n < ANSWERS_AT_LEAST or after.n < ANSWERS_AT_LEAST:
        return "too_little_data"
    low, high = difference_interval(before, after)
    return "better" if low > 0 else "worse" if high < 0 else "unclear"


def difference_interval(before: Share, after: Share) -> tuple[float, float]:
    """The 95 % interval of `after` minus `before`. Both must have answers."""
    (low_1, high_1), (low_2, high_2) = after.interval(), before.interval()
    share_1, share_2 = after.value, before.value
    gap = share_1 - share_2
    return (
        gap - sqrt((share_1 - low_1) ** 2 + (high_2 - share_2) ** 2),
        gap + sqrt((high_1 - share_1) ** 2 + (share_2 - low_2) ** 2),
    )


def measure_due(*, now: dt.datetime, limit: int = 100) -> int:
    """Fill in the effect of interventions whose time after has passed; how many. At most `limit` a call."""
    due = (
        Intervention.objects.filter(effect__isnull=True, at__lte=now - WINDOW - GRACE)
        .select_related("alert")
        .order_by("at", "id")[:limit]
    )
    count = 0
    for intervention in due:
        effect = effect_of(intervention)
        count += Intervention.objects.filter(pk=intervention.pk, effect__isnull=True).update(effect=effect)
    return count


def effect_of(intervention: Intervention) -> dict[str, Any]:
    """Ten minutes before against ten minutes after, of the pupils the alert was about, in its app."""
    alert, at = intervention.alert, intervention.at
    pupils = [alert.student_id] if alert.student_id else list(alert.details.get("students", ()))
    before = _answers(pupils, alert.app_name, at - WINDOW, at)
    after = _answers(pupils, alert.app_name, at, at + WINDOW)
    return {
        "before": before.as_json(),
        "after": after.as_json(),
        "verdict": verdict_of(before, after),
        "measure": "share of right answers",
        "window_s": int(WINDOW.total_seconds()),
    }


def _answers(pupils: list[str], app_name: str, begin: dt.datetime, end: dt.datetime) -> Share:
    """Right answers of all answers; `app_name` "" counts every app (a card about the class has none)."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FILTER (WHERE coalesce((metadata->>'correct')::boolean, metric_value >= 0.5)),"
            " count(*) FROM usability_metrics WHERE student_id = ANY(%s) AND metric_type = 'answer'"
            " AND timestamp >= %s AND timestamp < %s AND (app_name = %s OR %s = '')",
            [pupils, begin, end, app_name, app_name],
        )
        return Share(*cursor.fetchone())
