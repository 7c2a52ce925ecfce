"""Stored metrics in the order of their receipt: what detection reads after a start, a take-over or a loss.

The order is (received_at, id). A row becomes visible with its commit, which may be some seconds after its
receipt, and commits overtake each other; so only what was received before `settled_before` is in its final
order. A cursor that stays behind that moment misses nothing.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Collection, Iterator
from typing import Any

import msgspec
from django.db import connection

from usability.ingest.stream import StreamRow
from usability.querysets import CLOCKS_APART, TIMESTAMP_AFTER_RECEIPT, TIMESTAMP_BEFORE_RECEIPT, moment_of

# Longer than any commit may take (usability.ingest.buffer, WAIT_TIMEOUT_S).
SETTLE = dt.timedelta(seconds=15)

PAGE_ROWS = 5_000

_COLUMNS = (
    "id, classroom_id, student_id, app_name, metric_type, metric_value,"
    ' (extract(epoch FROM "timestamp") * 1000000)::bigint, session_id, metadata'
)


def settled_before(now: dt.datetime) -> dt.datetime:
    """Rows received before this moment are all visible at `now`."""
    return now - SETTLE


def rows_received(
    *,
    after: tuple[dt.datetime, uuid.UUID] | None,
    since: dt.datetime,
    until: dt.datetime,
    limit: int = PAGE_ROWS,
) -> list[tuple[dt.datetime, StreamRow]]:
    """Up to `limit` rows received in [`since`, `until`) after the cursor, each with its receipt, in order.

    The bounds on `timestamp` follow from the door's rule and keep the search to the days that can matter;
    within a day the BRIN index on the receipt finds the pages.
    """
    start = max(since, after[0]) if after else since
    query = (
        f"SELECT received_at, {_COLUMNS} FROM usability_metrics"  # noqa: S608 - constants alone
        ' WHERE received_at >= %s AND received_at < %s AND "timestamp" >= %s AND "timestamp" <= %s'
        + (" AND (received_at, id) > (%s, %s)" if after else "")
        + " ORDER BY received_at, id LIMIT %s"
    )
    parameters = [start, until, start - TIMESTAMP_BEFORE_RECEIPT, until + TIMESTAMP_AFTER_RECEIPT]
    parameters += [*(after or ()), limit]
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        return [(row[0], _stream_row(row[1:])) for row in cursor.fetchall()]


def rows_of_students(
    student_ids: Collection[str], *, since: dt.datetime, until: dt.datetime
) -> Iterator[StreamRow]:
    """The rows of these learners by event time, oldest first: what rebuilds their windows."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {_COLUMNS} FROM usability_metrics"  # noqa: S608 - constants alone
            ' WHERE student_id = ANY(%s) AND "timestamp" >= %s AND "timestamp" < %s ORDER BY "timestamp", id',
            [list(student_ids), since, until],
        )
        while page := cursor.fetchmany(PAGE_ROWS):
            yield from map(_stream_row, page)


def rows_of_class(
    classroom_id: uuid.UUID,
    student_ids: Collection[str],
    *,
    received_since: dt.datetime,
    event_since: dt.datetime,
    event_until: dt.datetime,
    limit: int,
) -> list[StreamRow]:
    """The newest `limit` rows of a class received since then, in the order of receipt, with event times between.

    An id is a UUIDv7, so its first 48 bits are the receipt in unix milliseconds: the least id of a moment bounds
    the search, and no row of the long stretch of event times before it leaves the database.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {_COLUMNS} FROM usability_metrics"  # noqa: S608 - constants alone
            ' WHERE student_id = ANY(%s) AND "timestamp" >= %s AND "timestamp" < %s'
            " AND classroom_id = %s AND id >= %s ORDER BY id DESC LIMIT %s",
            [list(student_ids), event_since, event_until, classroom_id, _least_id(received_since), limit],
        )
        return [_stream_row(row) for row in reversed(cursor.fetchall())]


def _least_id(moment: dt.datetime) -> uuid.UUID:
    return uuid.UUID(int=int(moment.timestamp() * 1000) << 80)


def ids_received(*, since: dt.datetime, until: dt.datetime, at_oldest: dt.datetime) -> list[uuid.UUID]:
    """The ids of rows received in [`since`, `until`] whose event time is not before `at_oldest`."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM usability_metrics WHERE received_at >= %s AND received_at <= %s"
            ' AND "timestamp" >= %s AND "timestamp" <= %s',
            [since, until, at_oldest, until + TIMESTAMP_AFTER_RECEIPT],
        )
        return [row[0] for row in cursor.fetchall()]


def rows_with_ids(ids: Collection[uuid.UUID], *, at_oldest: dt.datetime) -> list[StreamRow]:
    """The rows with these ids, as `ids_received` found them, in the order of receipt; read in pages."""
    wanted = sorted(ids)
    rows: list[StreamRow] = []
    with connection.cursor() as cursor:
        for begin in range(0, len(wanted), PAGE_ROWS):
            page = wanted[begin : begin + PAGE_ROWS]
            received = moment_of(page[0]), moment_of(page[-1])
            cursor.execute(
                f"SELECT {_COLUMNS} FROM usability_metrics WHERE received_at >= %s AND received_at <= %s"  # noqa: S608 - constants alone
                ' AND "timestamp" >= %s AND id = ANY(%s) ORDER BY received_at, id',
                [received[0] - CLOCKS_APART, received[1] + CLOCKS_APART, at_oldest, page],
            )
            rows += map(_stream_row, cursor.fetchall())
    return rows


def _stream_row(row: tuple[Any, ...]) -> StreamRow:
    metric_id, classroom_id, student_id, app_name, metric_type, value, at_us, session_id, metadata = row
    return StreamRow(
        id=metric_id.bytes,
        classroom_id=classroom_id.bytes if classroom_id else None,
        student_id=student_id,
        app_name=app_name,
        metric_type=metric_type,
        metric_value=value,
        at_us=at_us,
        session_id=session_id,
        metadata=_object(metadata),
    )


def _object(metadata: Any) -> dict[str, Any] | None:
    """Django's cursor leaves jsonb as text; a plain psycopg one has decoded it."""
    return msgspec.json.decode(metadata) if isinstance(metadata, str) else metadata
