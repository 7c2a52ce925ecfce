"""Recording metrics from code; requests of apps go by the buffer of ingest, past the same door."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from django.utils import timezone

from usability.ingest import direct
from usability.ingest.decode import Rules, judge_values
from usability.ingest.direct import Recorded
from usability.models import App


def record_metrics(
    metrics: Sequence[Mapping[str, Any]],
    *,
    batch_id: str | None = None,
    rules: Rules | None = None,
    now: dt.datetime | None = None,
) -> Recorded:
    """Store metrics, each a mapping with the fields of the API; those that break a rule are named and left out.

    The same `batch_id` again stores nothing. Durable once the surrounding transaction has committed.
    """
    now = now or timezone.now()
    decoded = judge_values(list(metrics), received_at=now, rules=rules or Rules(own_types=own_types))
    key = (direct.SCOPE, batch_id) if batch_id is not None else None
    is_duplicate = direct.store(decoded, received_at=now, batch_key=key)
    return Recorded(len(decoded.metrics), tuple(decoded.rejected), is_duplicate)


def own_types(app_name: str) -> list[str]:
    """The metric types an app has registered beyond the common ones."""
    found = App.objects.filter(name=app_name).values_list("metric_types", flat=True).first()
    return found or []
