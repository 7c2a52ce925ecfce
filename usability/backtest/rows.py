"""The metrics of a class as observations, streamed out of PostgreSQL in the order of their receipt.

COPY sends rows as fast as they are found and keeps none of them here; the text form needs no parsing beyond a
split, because every string of a metric is an id without blanks.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator

import msgspec
from django.db import connection

from usability.detection.observations import Observation, from_metric
from usability.models import Enrollment

CHUNK = 20_000

# The condition on learners lets the index find them; whoever sat here once is looked for.
_WHERE = (
    ' FROM usability_metrics WHERE student_id = ANY(%s) AND "timestamp" >= %s AND "timestamp" < %s'
    " AND classroom_id = %s AND (app_name = %s OR %s = '')"
)
# Microseconds since 1970 fit a double exactly, so the division rounds down as it does in the worker.
_SELECT = (
    "COPY (SELECT id, student_id, app_name, metric_type, metric_value,"
    " (date_part('epoch', \"timestamp\") * 1000000)::bigint / 1000, coalesce(session_id, ''), metadata"
    f"{_WHERE} ORDER BY id) TO STDOUT"
)
_decode_json = msgspec.json.Decoder(dict).decode


def _parameters(
    classroom_id: uuid.UUID, since: dt.datetime, until: dt.datetime, app_name: str
) -> list[object]:
    sat_here = Enrollment.objects.filter(classroom=classroom_id).values_list("student_id", flat=True)
    return [sorted(set(sat_here)), since, until, classroom_id, app_name, app_name]


def count_of(classroom_id: uuid.UUID, since: dt.datetime, until: dt.datetime, app_name: str = "") -> int:
    """How many metrics there are."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*){_WHERE}", _parameters(classroom_id, since, until, app_name))
        return cursor.fetchone()[0]


def observations(
    classroom_id: uuid.UUID, since: dt.datetime, until: dt.datetime, app_name: str = ""
) -> Iterator[list[Observation]]:
    """Metrics with event times in [`since`, `until`), in chunks of about twenty thousand.

    A chunk ends between two receipts, so cutting does not change what the fold sees.
    """
    parameters = _parameters(classroom_id, since, until, app_name)
    chunk: list[Observation] = []
    with connection.cursor() as cursor, cursor.copy(_SELECT, parameters) as copy:
        for block in copy:
            one = _observation(bytes(block))
            if len(chunk) >= CHUNK and one.received_ms != chunk[-1].received_ms:
                yield chunk
                chunk = []
            chunk.append(one)
    if chunk:
        yield chunk


def _observation(line: bytes) -> Observation:
    key, student_id, app_name, metric_type, value, at_ms, session_id, metadata = (
        line.decode().rstrip("\n").split("\t")
    )
    return from_metric(
        id=key,
        student_id=student_id,
        app_name=app_name,
        metric_type=metric_type,
        metric_value=float(value),
        at_ms=int(at_ms),
        received_ms=int(key[:8] + key[9:13], 16),  # a UUIDv7 begins with its receipt
        session_id=session_id,
        metadata=None if metadata == "\\N" else _decode_json(metadata),
    )
