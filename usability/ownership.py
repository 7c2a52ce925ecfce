"""Which worker detects in which partition: rows in PostgreSQL, fenced by an epoch.

A partition is taken by one UPDATE that finds the last owner's time over; it raises the epoch. Each
transaction of detection locks its partition's row and finds owner and epoch unchanged, or writes nothing:
an owner that was stopped for a while and wakes up again can do no harm. Workers tell each other that they
live by a row of their own, so that each takes its share and gives up what is above it.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.db import connection, transaction

from usability.models import DetectionWorker, StreamPartition
from usability.stream_partition import PARTITIONS

if TYPE_CHECKING:
    from collections.abc import Collection

# Renewed every second; a worker that has died is replaced four seconds after its last renewal.
RENEW_EVERY_S = 1.0
# Who holds nothing waits for somebody's time to pass, and may not be late.
ASK_EVERY_S = 0.25
LEASE = dt.timedelta(seconds=3.5)


class Fenced(Exception):
    """Somebody else owns the partition now. Nothing was written."""


@dataclass(frozen=True, slots=True)
class Holding:
    """A partition held, by which epoch, and up to when its rows had been judged at the time it was taken."""

    partition: int
    epoch: int
    judged_until: dt.datetime | None


def renew(name: str, held: Collection[int], *, now: dt.datetime) -> dict[int, Holding]:
    """What the worker holds from now on, by partition: what it keeps of `held`, and free ones up to its share.

    What is above its share is let go, the highest first. The clock is the database's wherever two workers'
    clocks could disagree: a lease is over when PostgreSQL says so.
    """
    with transaction.atomic():
        _make_rows()
        share = _share(name, now)
        kept = _keep(name, sorted(held)[:share])
        _let_go(name, sorted(held)[share:])
        taken = _take(name, share - len(kept))
    return {holding.partition: holding for holding in (*kept, *taken)}


def release(name: str) -> None:
    """Let everything go, for an orderly end: the others need not wait for the lease to pass."""
    with transaction.atomic():
        DetectionWorker.objects.filter(name=name).delete()
        StreamPartition.objects.filter(owner=name).update(owner="", until=None)


def check(name: str, holding: Holding, *, judged_until: dt.datetime) -> None:
    """Lock the partition's row until commit and note how far it is judged. Raises `Fenced`.

    The first statement of every transaction of detection.
    """
    assert connection.in_atomic_block, "a fence holds for a transaction"
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE usability_streampartition SET cursor_received_at = greatest(cursor_received_at, %s)"
            " WHERE partition = %s AND owner = %s AND epoch = %s",
            [judged_until, holding.partition, name, holding.epoch],
        )
        if cursor.rowcount != 1:
            raise Fenced(
                f"partition {holding.partition} has another owner than {name} of epoch {holding.epoch}"
            )


def _make_rows() -> None:
    if StreamPartition.objects.count() < PARTITIONS:
        StreamPartition.objects.bulk_create(
            [StreamPartition(partition=number) for number in range(PARTITIONS)], ignore_conflicts=True
        )


def _share(name: str, now: dt.datetime) -> int:
    """How many partitions fall to each worker that lives, rounded up; this one's row is renewed."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO usability_detectionworker (name, started_at, until, backlog_s)"
            " VALUES (%s, %s, clock_timestamp() + %s, 0)"
            " ON CONFLICT (name) DO UPDATE SET until = excluded.until",
            [name, now, LEASE],
        )
        cursor.execute(
            "DELETE FROM usability_detectionworker WHERE until < clock_timestamp() - interval '1 hour'"
        )
        cursor.execute("SELECT count(*) FROM usability_detectionworker WHERE until > clock_timestamp()")
        alive = cursor.fetchone()[0]
    return -(-PARTITIONS // max(1, alive))


def _keep(name: str, partitions: list[int]) -> list[Holding]:
    return _update(
        "UPDATE usability_streampartition SET until = clock_timestamp() + %s"
        " WHERE partition = ANY(%s) AND owner = %s RETURNING partition, epoch, cursor_received_at",
        [LEASE, partitions, name],
    )


def _let_go(name: str, partitions: list[int]) -> None:
    StreamPartition.objects.filter(owner=name, partition__in=partitions).update(owner="", until=None)


def _take(name: str, count: int) -> list[Holding]:
    """Free partitions, and those this name held in an earlier life, up to `count`."""
    if count <= 0:
        return []
    return _update(
        "UPDATE usability_streampartition SET owner = %s, epoch = epoch + 1, until = clock_timestamp() + %s"
        " WHERE partition IN (SELECT partition FROM usability_streampartition"
        "   WHERE until IS NULL OR until < clock_timestamp() ORDER BY partition LIMIT %s FOR UPDATE SKIP LOCKED)"
        " RETURNING partition, epoch, cursor_received_at",
        [name, LEASE, count],
    )


def _update(sql: str, parameters: list[object]) -> list[Holding]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return [Holding(*row) for row in cursor.fetchall()]
