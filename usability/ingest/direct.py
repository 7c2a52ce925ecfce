"""Storing metrics from ordinary code: the same door and the same encoding, on Django's connection.

For a service call, an import, or a process without an event loop. A request's metrics go by the buffer.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from django.db import connection, transaction

from usability.ingest import roster
from usability.ingest.buffer import help_calls
from usability.ingest.copy import COPY_HEADER, COPY_STATEMENT, COPY_TRAILER, Encoder, Row, ids_from
from usability.ingest.decode import Decoded, Metric, Rejection
from usability.models import HelpRequest

SCOPE = "s:services"


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of a batch."""

    accepted: int
    rejected: tuple[Rejection, ...] = field(default_factory=tuple)
    duplicate: bool = False


def store(
    decoded: Decoded,
    *,
    received_at: dt.datetime,
    batch_key: tuple[str, str] | None = None,
    committed: Callable[[Sequence[Row], int], None] | None = None,
) -> bool:
    """Store a judged batch in one transaction; whether its id had been stored before.

    Durable when the surrounding transaction has committed; then `committed` is told the rows and their receipt
    (unix microseconds). Without it detection finds the rows by reading the table.
    """
    if not decoded.metrics:
        return False
    encoder = Encoder(_classrooms(decoded.metrics).classroom_of)
    received_us = round(received_at.timestamp() * 1e6)
    ids = ids_from(received_us, len(decoded.metrics))
    rows = encoder.rows(decoded.metrics, decoded.at_us, ids, received_us)
    with transaction.atomic():
        if batch_key is not None and not _claim(batch_key):
            return True
        _copy(rows)
        _keep_help_calls(rows)
        if committed is not None:
            transaction.on_commit(lambda: committed(rows, received_us))
    return False


def _classrooms(metrics: Sequence[Metric]) -> roster.Roster:
    places = roster.Roster()
    unknown = places.unknown({metric.student_id for metric in metrics}, 0.0)
    places.learn(roster.look_up(unknown, metrics[0].app_name))
    return places


def _claim(batch_key: tuple[str, str]) -> bool:
    scope, batch_id = batch_key
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO usability_ingestbatch (scope, batch_id, fingerprint) VALUES (%s, %s, '')"
            " ON CONFLICT (scope, batch_id) DO NOTHING",
            [scope, batch_id],
        )
        return cursor.rowcount == 1


def _copy(rows: list[Row]) -> None:
    ordered = sorted(rows, key=lambda row: row.who)
    with connection.cursor() as cursor, cursor.copy(COPY_STATEMENT) as copy:
        copy.write(b"".join([COPY_HEADER, *(row.wire for row in ordered), COPY_TRAILER]))


def _keep_help_calls(rows: list[Row]) -> None:
    HelpRequest.objects.bulk_create(
        HelpRequest(
            id=call.uuid,
            student_id=call.student_id,
            app_name=call.app_name,
            classroom_id=call.classroom_uuid,
            requested_at=dt.datetime.fromtimestamp(call.at_us / 1e6, tz=dt.UTC),
        )
        for call in help_calls(rows)
    )
