"""Health counts of apps on Django's connection: what the buffer counts with its commits, for the other ways in."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping

from django.db import connection

from usability.ingest.decode import Decoded
from usability.ingest.endpoint import health_counts
from usability.kinds import HealthMeasure


def count(
    decoded: Decoded | None, left_out: Mapping[str, int], *, app_name: str, received_at: dt.datetime
) -> None:
    """Add what a request of this app brought, and what of it meant no metric, by reason."""
    counts: Counter[tuple[str, str, str]] = Counter()
    if decoded is not None:
        counts.update(health_counts(decoded, app_name))
    if app_name:
        counts.update({(app_name, HealthMeasure.REJECTED, reason): n for reason, n in left_out.items()})
    if not counts:
        return
    hour = received_at.replace(minute=0, second=0, microsecond=0)
    # In one order everywhere, or two requests could wait for each other.
    rows = sorted((*key, amount) for key, amount in counts.items())
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO usability_apphealthcount AS a (app_name, hour, measure, label, count)"
            " SELECT u.app_name, %s, u.measure, u.label, u.amount"
            " FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[]) AS u (app_name, measure, label, amount)"
            " ON CONFLICT (app_name, hour, measure, label) DO UPDATE SET count = a.count + excluded.count",
            [hour, *(list(column) for column in zip(*rows, strict=True))],
        )
