"""Stretches of time in SQL: TimescaleDB's `time_bucket` on a hypertable, PostgreSQL's `date_bin` without one.

Both align to the same origin, so the same moment falls into the same stretch on either store.
"""

from __future__ import annotations

import datetime as dt
from functools import cache

from django.db.models import DateTimeField, F, Func, Value
from timescale.db.models.expressions import TimeBucket

from usability import partitions

# TimescaleDB's own origin for stretches shorter than a month: a Monday.
ORIGIN = dt.datetime(2000, 1, 3, tzinfo=dt.UTC)


class DateBin(Func):
    """`date_bin(stride, timestamp, origin)` of PostgreSQL 14 and later."""

    function = "date_bin"
    output_field = DateTimeField()

    def __init__(self, field: str, length: dt.timedelta) -> None:
        super().__init__(Value(length), F(field), Value(ORIGIN, output_field=DateTimeField()))


def bucket_start(length_s: int, *, field: str = "timestamp", hypertable: bool | None = None) -> Func:
    """The start of the stretch of `length_s` seconds into which a metric's `field` falls.

    `hypertable` None: as the store of this database is.
    """
    if hypertable if hypertable is not None else _is_hypertable():
        return TimeBucket(field, f"{length_s} seconds")
    return DateBin(field, dt.timedelta(seconds=length_s))


@cache
def _is_hypertable() -> bool:
    """A store never changes its kind while a process runs: migrations decide it once."""
    return not partitions.is_native()
