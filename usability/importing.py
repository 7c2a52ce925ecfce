"""Storing recorded metrics at their original times, whatever their age, for trends and back-tests.

They are judged by the rules of the door, but nothing is handed over to detection and nobody is alerted: each
row's receipt is its own time (to the second), which lies behind every worker's cursor.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby, islice

import msgspec
from django.db import connection, transaction

from usability.ingest.copy import COPY_HEADER, COPY_STATEMENT, COPY_TRAILER, Encoder, Row, ids_from
from usability.ingest.decode import BATCH_LIMIT, Decoded, Rejection, Rules, decode
from usability.ingest.roster import OwnTypes, Roster, look_up
from usability.partitions import create_days
from usability.replay import Metric, Timed, rfc3339

ROWS_A_COMMIT = 20_000


@dataclass(slots=True)
class Imported:
    """What was stored, and the first refusals of what was not."""

    stored: int = 0
    rejected: int = 0
    refusals: list[Rejection] = field(default_factory=list)


def import_metrics(timed: Iterable[Timed]) -> Iterator[Imported]:
    """Store metrics, in order of time; gives the tally after each commit."""
    imported, roster, own_types = Imported(), Roster(), OwnTypes()
    own_types.read()
    encoder = Encoder(roster.classroom_of)
    rules = Rules(own_types=own_types.of)
    remaining = iter(timed)
    while chunk := list(islice(remaining, ROWS_A_COMMIT)):
        rows = []
        for second, group in groupby(chunk, key=lambda pair: pair[0] // 1000):
            rows += _rows(
                [metric | {"timestamp": rfc3339(at_ms)} for at_ms, metric in group],
                second + 1,
                encoder,
                roster,
                rules,
                imported,
            )
        create_days(sorted({datetime.fromtimestamp(at_ms / 1000, UTC).date() for at_ms, _ in chunk}))
        _copy(rows)
        imported.stored += len(rows)
        yield imported


def _rows(
    metrics: list[Metric], received_s: int, encoder: Encoder, roster: Roster, rules: Rules, imported: Imported
) -> list[Row]:
    rows: list[Row] = []
    for start in range(0, len(metrics), BATCH_LIMIT):
        body = b"\n".join(map(msgspec.json.encode, metrics[start : start + BATCH_LIMIT]))
        received_at = datetime.fromtimestamp(received_s, UTC)
        decoded = decode(body, is_lines=True, received_at=received_at, rules=rules)
        imported.rejected += len(decoded.rejected)
        imported.refusals += decoded.rejected[: max(0, 5 - len(imported.refusals))]
        _learn(decoded, roster)
        ids = ids_from(received_s * 1_000_000, len(decoded.metrics))
        rows += encoder.rows(decoded.metrics, decoded.at_us, ids, received_s * 1_000_000)
    return rows


def _learn(decoded: Decoded, roster: Roster) -> None:
    unknown = roster.unknown({metric.student_id for metric in decoded.metrics}, 0.0)
    if unknown:
        roster.learn(look_up(unknown, decoded.metrics[0].app_name))


def _copy(rows: list[Row]) -> None:
    with transaction.atomic(), connection.cursor() as cursor, cursor.copy(COPY_STATEMENT) as copy:
        copy.write(COPY_HEADER + b"".join(row.wire for row in rows) + COPY_TRAILER)
