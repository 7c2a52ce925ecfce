"""Group commit: everything that waits, from all requests, is one COPY and one commit.

A request is answered after the commit that holds it. Two connections work in turn, so that one fills while
the other syncs; each is rebuilt after an error. What waits is bounded in bytes, and every wait in time.

What a failure means for those who wait:
- a batch the database refuses is tried again alone, so that one bad request fails by itself;
- no database, or no answer in time: `Unavailable`. Unless the connection broke during the commit itself,
  nothing was stored; a batch with an id is safe to send again in any case.

Batch ids are inserted in the same transaction as their rows, hence each batch is stored exactly once.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from uuid import UUID

import psycopg
from prometheus_client import Counter as Total
from prometheus_client import Gauge, Histogram

from usability.ingest.copy import COPY_HEADER, COPY_STATEMENT, COPY_TRAILER, Row

log = logging.getLogger("gaia.ingest")

CONNECTIONS = 2
WAITING_BYTES_LIMIT = 96 * 1024 * 1024
# What one metric takes while it waits, beside its encoded bytes: the body it came in, its objects (measured).
ROW_OVERHEAD_BYTES = 1_100
ROWS_A_COMMIT = 10_000
# While one connection commits, the other waits so long for so many rows: a commit costs the same for few as
# for many. An idle buffer commits at once.
GATHER_ROWS = 5_000
GATHER_S = 0.008
CONNECT_TIMEOUT_S = 3
COMMIT_TIMEOUT_S = 8.0
WAIT_TIMEOUT_S = 12.0
RECONNECT_PAUSE_S = 0.5
COUNTS_EVERY_S = 5.0

STORED = Total("gaia_ingest_metrics_total", "Metrics stored")
COMMITS = Histogram(
    "gaia_ingest_commit_seconds",
    "Time of one group commit",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 8),
)
COMMIT_ROWS = Histogram(
    "gaia_ingest_commit_rows",
    "Metrics of one group commit",
    buckets=(1, 10, 100, 500, 1000, 2500, 5000, 10000),
)
WAITING = Gauge("gaia_ingest_waiting_bytes", "Memory of metrics that wait for their commit")
FAILURES = Total("gaia_ingest_failures_total", "Group commits that failed", ["why"])


class Overloaded(Exception):
    """More waits than may wait. Nothing of this batch was taken."""


class Unavailable(Exception):
    """The database did not store the batch in time."""


class Refused(Exception):
    """The database refused this batch's rows: a defect of ours, for the door lets only storable values in."""


class Mismatch(Exception):
    """The batch id is known with another body."""


@dataclass(frozen=True, slots=True)
class HelpCall:
    """A learner asked for help; the row is made in the transaction that stores the metric."""

    id: bytes
    student_id: str
    app_name: str
    classroom: bytes | None
    at_us: int

    @property
    def uuid(self) -> UUID:
        """The id of the request and of its metric."""
        return UUID(bytes=self.id)

    @property
    def classroom_uuid(self) -> UUID | None:
        """The classroom's id."""
        return UUID(bytes=self.classroom) if self.classroom else None


def help_calls(rows: Sequence[Row]) -> list[HelpCall]:
    """The requests for help among rows."""
    asked = [row.entry for row in rows if row.entry[4] == "help_request"]
    return [
        HelpCall(metric_id, student_id, app_name, classroom, at_us)
        for metric_id, classroom, student_id, app_name, _, _, at_us, _, _ in asked
    ]


@dataclass(slots=True, eq=False)
class Batch:
    """One request's rows, ready to be stored. `batch_key` is (scope, batch id)."""

    rows: list[Row]
    received_us: int
    batch_key: tuple[str, str] | None = None
    fingerprint: bytes = b""
    help_calls: list[HelpCall] = field(default_factory=list)
    size_bytes: int = 0
    done: asyncio.Future[bool] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def __post_init__(self) -> None:
        self.size_bytes = sum([len(row.wire) + ROW_OVERHEAD_BYTES for row in self.rows]) + 200

    def settle(self, *, is_duplicate: bool) -> None:
        """It is durable."""
        if not self.done.done():
            self.done.set_result(is_duplicate)

    def fail(self, error: Exception) -> None:
        """It was not stored."""
        if not self.done.done():
            self.done.set_exception(error)


CountKey = tuple[str, dt.datetime, str, str]
"""App, hour, measure, label of an `AppHealthCount`."""


class GroupCommit:
    """The buffer of one process and event loop. `committed` is told what each commit stored, in order."""

    def __init__(self, conninfo: str, committed: Callable[[Sequence[Batch]], None]) -> None:
        self._conninfo = conninfo
        self._committed = committed
        self._waiting: deque[Batch] = deque()
        self._waiting_bytes = 0
        self._waiting_rows = 0
        self._committing = 0
        self._arrived = asyncio.Event()
        self._gathered = asyncio.Event()
        self._writers: list[asyncio.Task[None]] = []
        self._closing = False
        self._counts: Counter[CountKey] = Counter()
        self._counts_due_s = 0.0

    def count(self, key: CountKey, amount: int = 1) -> None:
        """Add to an app's health counts; they are stored with a later commit, some seconds late."""
        self._counts[key] += amount
        self._start()
        self._arrived.set()

    async def store(self, batch: Batch) -> bool:
        """Wait until the batch is durable; whether it had been stored before. Raises as the module says."""
        if self._waiting_bytes + batch.size_bytes > WAITING_BYTES_LIMIT or self._closing:
            raise Overloaded("too much waits to be stored")
        self._start()
        self._waiting.append(batch)
        self._waiting_bytes += batch.size_bytes
        self._waiting_rows += len(batch.rows)
        WAITING.set(self._waiting_bytes)
        self._arrived.set()
        if self._waiting_rows >= GATHER_ROWS:
            self._gathered.set()
        try:
            async with asyncio.timeout(WAIT_TIMEOUT_S):
                return await batch.done
        except TimeoutError as error:
            raise Unavailable("not stored in time") from error

    async def close(self) -> None:
        """Take nothing more, store what waits, end the connections."""
        self._closing = True
        self._arrived.set()
        self._gathered.set()
        if self._writers:
            await asyncio.wait(self._writers, timeout=COMMIT_TIMEOUT_S)
        for writer in self._writers:
            writer.cancel()
        await asyncio.gather(*self._writers, return_exceptions=True)
        self._fail_waiting(Unavailable("the process ends"))

    # ------------------------------------------------------------ the writers

    def _start(self) -> None:
        self._writers = [writer for writer in self._writers if not writer.done()]
        while len(self._writers) < CONNECTIONS and not self._closing:
            self._writers.append(asyncio.create_task(self._write_for_ever(), name="ingest-writer"))

    async def _write_for_ever(self) -> None:
        connection: psycopg.AsyncConnection | None = None
        try:
            while True:
                while not self._waiting and not self._has_counts_due():
                    if self._closing and not self._counts:
                        return
                    await self._wait_for_work()
                if self._committing:
                    await self._gather()
                group = self._take()
                self._committing += 1
                try:
                    connection = await self._store_group(connection, group)
                finally:
                    self._committing -= 1
                    self._gathered.set()
        finally:
            if connection is not None:
                await connection.close()

    async def _gather(self) -> None:
        """Let more arrive while the other connection is busy."""
        if self._waiting_rows >= GATHER_ROWS or self._closing:
            return
        self._gathered.clear()
        try:
            async with asyncio.timeout(GATHER_S):
                await self._gathered.wait()
        except TimeoutError:
            pass

    async def _wait_for_work(self) -> None:
        self._arrived.clear()
        if self._waiting or self._closing:
            self._arrived.set()
            await asyncio.sleep(0)
            return
        pause = None
        if self._counts:
            pause = max(0.05, self._counts_due_s - asyncio.get_running_loop().time())
        try:
            async with asyncio.timeout(pause):
                await self._arrived.wait()
        except TimeoutError:
            pass

    def _has_counts_due(self) -> bool:
        return bool(self._counts) and (
            self._closing or asyncio.get_running_loop().time() >= self._counts_due_s
        )

    def _take(self) -> list[Batch]:
        """What waits, up to one commit's rows. Those whose request has gone are left out: nobody was told."""
        group: list[Batch] = []
        rows = 0
        while self._waiting and (not group or rows + len(self._waiting[0].rows) <= ROWS_A_COMMIT):
            batch = self._waiting.popleft()
            self._waiting_bytes -= batch.size_bytes
            self._waiting_rows -= len(batch.rows)
            if not batch.done.done():
                group.append(batch)
                rows += len(batch.rows)
        WAITING.set(self._waiting_bytes)
        return group

    def _fail_waiting(self, error: Exception) -> None:
        while self._waiting:
            self._waiting.popleft().fail(error)
        self._waiting_bytes = self._waiting_rows = 0
        WAITING.set(0)

    async def _store_group(
        self, connection: psycopg.AsyncConnection | None, group: list[Batch]
    ) -> psycopg.AsyncConnection | None:
        """Store a group and settle its batches; the connection to go on with, None: it was lost."""
        counts = self._take_counts()
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_S):
                if connection is None:
                    connection = await self._connect()
                await self._commit(connection, group, counts)
        except (psycopg.OperationalError, psycopg.InterfaceError, OSError, TimeoutError) as error:
            self._give_back(counts)
            return await self._lose(connection, group, error)
        except (psycopg.Error, UnicodeError) as error:
            self._give_back(counts)
            FAILURES.labels("refused").inc()
            # Without the traceback: the text of the error quotes the row.
            log.error("ingest_commit_refused", extra={"batches": len(group), "error": type(error).__name__})  # noqa: TRY400
            return await self._store_singly(connection, group, error)
        except BaseException:
            self._fail_group(group, Unavailable("the process ends"))
            raise
        return connection

    async def _lose(
        self, connection: psycopg.AsyncConnection | None, group: list[Batch], error: Exception
    ) -> None:
        """The database is away or too slow: tell those who wait, and pause before the next attempt."""
        FAILURES.labels("unavailable").inc()
        log.error("ingest_database_unavailable", extra={"batches": len(group), "error": type(error).__name__})
        self._fail_group(group, Unavailable("the database is not available"))
        if connection is not None:
            # Closing the socket ends a statement that still runs; it does not wait for an answer.
            await connection.close()
        await asyncio.sleep(RECONNECT_PAUSE_S)

    async def _store_singly(
        self, connection: psycopg.AsyncConnection, group: list[Batch], error: Exception
    ) -> psycopg.AsyncConnection | None:
        """After a refusal: each batch alone. A group of one is the culprit."""
        if len(group) <= 1:
            self._fail_group(group, Refused(type(error).__name__))
            return connection
        left = deque(group)
        current: psycopg.AsyncConnection | None = connection
        while left:
            current = await self._store_group(current, [left.popleft()])
            if current is None:
                self._fail_group(list(left), Unavailable("the database is not available"))
                return None
        return current

    @staticmethod
    def _fail_group(group: list[Batch], error: Exception) -> None:
        for batch in group:
            batch.fail(error)

    # ------------------------------------------------------------ one transaction

    async def _connect(self) -> psycopg.AsyncConnection:
        return await psycopg.AsyncConnection.connect(
            self._conninfo,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT_S,
            options=f"-c statement_timeout={int(COMMIT_TIMEOUT_S * 1000)} -c timezone=UTC",
            application_name="gaia-ingest",
        )

    async def _commit(
        self, connection: psycopg.AsyncConnection, group: list[Batch], counts: Counter[CountKey]
    ) -> None:
        repeated, fresh = _without_repetitions(group)
        stored = fresh
        with COMMITS.time():
            if counts or any(batch.batch_key or batch.help_calls for batch in fresh):
                async with connection.transaction():
                    stored = await self._insert_batch_ids(connection, fresh)
                    await self._copy(connection, stored)
                    await self._insert_help_calls(connection, stored)
                    await self._add_counts(connection, counts)
            else:
                # A COPY alone is a transaction of its own.
                await self._copy(connection, fresh)
        rows = sum(len(batch.rows) for batch in stored)
        STORED.inc(rows)
        COMMIT_ROWS.observe(rows)
        was_stored = set(map(id, stored))
        for batch in fresh:
            batch.settle(is_duplicate=id(batch) not in was_stored)
        for batch, first in repeated:
            _settle_repetition(batch, first)
        if stored:
            self._committed(stored)

    async def _insert_batch_ids(self, connection: psycopg.AsyncConnection, group: list[Batch]) -> list[Batch]:
        """Claim the batch ids; the batches that are not known yet. A known id with another body is refused."""
        named = {batch.batch_key: batch for batch in group if batch.batch_key}
        if not named:
            return group
        # In one order everywhere, or two processes could wait for each other.
        keys = sorted(named)
        inserted = await connection.execute(
            "INSERT INTO usability_ingestbatch (scope, batch_id, fingerprint)"
            " SELECT * FROM unnest(%s::text[], %s::text[], %s::bytea[])"
            " ON CONFLICT (scope, batch_id) DO NOTHING RETURNING scope, batch_id",
            [
                [scope for scope, _ in keys],
                [key for _, key in keys],
                [named[key].fingerprint for key in keys],
            ],
        )
        new = set(await inserted.fetchall())
        if len(new) < len(keys):
            await self._check_fingerprints(connection, [named[key] for key in keys if key not in new])
        return [batch for batch in group if batch.batch_key is None or batch.batch_key in new]

    @staticmethod
    async def _check_fingerprints(connection: psycopg.AsyncConnection, known: list[Batch]) -> None:
        rows = await connection.execute(
            "SELECT scope, batch_id, fingerprint FROM usability_ingestbatch"
            " JOIN unnest(%s::text[], %s::text[]) AS wanted (s, b) ON scope = s AND batch_id = b",
            [[batch.batch_key[0] for batch in known], [batch.batch_key[1] for batch in known]],
        )
        first = {(scope, key): bytes(fingerprint) for scope, key, fingerprint in await rows.fetchall()}
        for batch in known:
            if first.get(batch.batch_key) not in (None, batch.fingerprint):
                batch.fail(Mismatch("the batch id was used with another body"))

    @staticmethod
    async def _copy(connection: psycopg.AsyncConnection, group: list[Batch]) -> None:
        """All rows in the order of their learners: neighbours in the index are written together."""
        rows = [row for batch in group for row in batch.rows]
        if not rows:
            return
        rows.sort(key=_who)
        data = b"".join([COPY_HEADER, *[row.wire for row in rows], COPY_TRAILER])
        async with connection.cursor() as cursor, cursor.copy(COPY_STATEMENT) as copy:
            await copy.write(data)

    @staticmethod
    async def _insert_help_calls(connection: psycopg.AsyncConnection, group: list[Batch]) -> None:
        calls = [call for batch in group for call in batch.help_calls]
        if not calls:
            return
        # The roster is remembered for a while, so a learner's row may have gone meanwhile.
        await connection.execute(
            "INSERT INTO usability_student (id, student_id, display_name, first_seen_app, updated_at)"
            " SELECT c.id, c.student, '', c.app, now() FROM unnest(%s::uuid[], %s::text[], %s::text[])"
            "   AS c (id, student, app) ORDER BY c.student ON CONFLICT (student_id) DO NOTHING",
            [
                [call.id.hex() for call in calls],
                [call.student_id for call in calls],
                [call.app_name for call in calls],
            ],
        )
        await connection.execute(
            "INSERT INTO usability_helprequest (id, student_id, app_name, classroom_id, requested_at)"
            " SELECT c.id, c.student, c.app, r.id, to_timestamp(c.at_us / 1e6)"
            " FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::uuid[], %s::bigint[])"
            "   AS c (id, student, app, classroom, at_us)"
            " LEFT JOIN usability_classroom r ON r.id = c.classroom",
            [
                [call.id.hex() for call in calls],
                [call.student_id for call in calls],
                [call.app_name for call in calls],
                [call.classroom.hex() if call.classroom else None for call in calls],
                [call.at_us for call in calls],
            ],
        )

    # ------------------------------------------------------------ counts of an app's health

    def _take_counts(self) -> Counter[CountKey]:
        if not self._has_counts_due():
            return Counter()
        counts, self._counts = self._counts, Counter()
        self._counts_due_s = asyncio.get_running_loop().time() + COUNTS_EVERY_S
        return counts

    def _give_back(self, counts: Counter[CountKey]) -> None:
        self._counts.update(counts)

    @staticmethod
    async def _add_counts(connection: psycopg.AsyncConnection, counts: Counter[CountKey]) -> None:
        if not counts:
            return
        keys = sorted(counts)
        await connection.execute(
            "INSERT INTO usability_apphealthcount (app_name, hour, measure, label, count)"
            " SELECT * FROM unnest(%s::text[], %s::timestamptz[], %s::text[], %s::text[], %s::bigint[])"
            " ON CONFLICT (app_name, hour, measure, label)"
            " DO UPDATE SET count = usability_apphealthcount.count + excluded.count",
            [
                [key[0] for key in keys],
                [key[1] for key in keys],
                [key[2] for key in keys],
                [key[3] for key in keys],
                [counts[key] for key in keys],
            ],
        )


_who = attrgetter("who")


def _without_repetitions(group: list[Batch]) -> tuple[list[tuple[Batch, Batch]], list[Batch]]:
    """(repetition, first) of batch ids that are twice in one group, and the group without repetitions."""
    first: dict[tuple[str, str], Batch] = {}
    repeated: list[tuple[Batch, Batch]] = []
    fresh: list[Batch] = []
    for batch in group:
        known = first.setdefault(batch.batch_key, batch) if batch.batch_key else batch
        if known is batch:
            fresh.append(batch)
        else:
            repeated.append((batch, known))
    return repeated, fresh


def _settle_repetition(batch: Batch, first: Batch) -> None:
    if batch.fingerprint == first.fingerprint:
        batch.settle(is_duplicate=True)
    else:
        batch.fail(Mismatch("the batch id was used with another body"))
