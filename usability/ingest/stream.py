"""The hand-over from ingest to detection: packed entries in Redis Streams, one a commit and partition.

The stream is a hint that is quicker than the rows, never the truth. A web process numbers its entries for
each partition, so a reader sees a gap (Redis away, an entry trimmed, a process ended between commit and
hand-over) and reads those rows from the table: `usability.ingest.rows`.

Entry: key `gaia:m:{partition}`, one field `d` = msgpack of `Entry`. Only commands of Redis 6.2 are used.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import redis.asyncio
from prometheus_client import Counter
from redis.exceptions import RedisError

from usability.detection.observations import Observation, from_metric

if TYPE_CHECKING:
    from usability.ingest.buffer import Batch

log = logging.getLogger("gaia.ingest")

FIELD = b"d"
VERSION = 1
# Readers that are further behind read rows.
KEEP_MS = 30_000
QUEUE_LIMIT_ROWS = 100_000
TIMEOUT_S = 2.0
PAUSE_S = 2.0

HANDED = Counter("gaia_stream_metrics_total", "Metrics handed over to detection by the stream")
DROPPED = Counter("gaia_stream_dropped_total", "Metrics whose hand-over failed; detection reads them as rows")


class StreamRow(msgspec.Struct, array_like=True, gc=False):
    """A stored metric as detection gets it, from the stream or from the table. Times are unix microseconds."""

    id: bytes
    classroom_id: bytes | None
    student_id: str
    app_name: str
    metric_type: str
    metric_value: float
    at_us: int
    session_id: str | None = None
    metadata: dict[str, Any] | None = None

    @property
    def received_ms(self) -> int:
        """The receipt, which the UUIDv7 carries."""
        return int.from_bytes(self.id[:6])

    @property
    def classroom(self) -> str:
        """The classroom's UUID as text, "" for a learner on no roster."""
        return str(uuid.UUID(bytes=self.classroom_id)) if self.classroom_id else ""


class Entry(msgspec.Struct, array_like=True):
    """What one commit of one web process (`origin`) stored in one partition; `number` counts from 1."""

    version: int
    origin: bytes
    number: int
    rows: list[StreamRow]


_decoder = msgspec.msgpack.Decoder(Entry)
_encode = msgspec.msgpack.Encoder().encode


def key_of(partition: int) -> str:
    """The name of a partition's stream in Redis."""
    return f"gaia:m:{partition}"


def decode_entry(payload: bytes) -> Entry:
    """The entry in a stream message. Raises msgspec.DecodeError for anything else."""
    return _decoder.decode(payload)


def observation_of(row: StreamRow) -> Observation:
    """The row as the detectors see it."""
    return from_metric(
        id=str(uuid.UUID(bytes=row.id)),
        student_id=row.student_id,
        app_name=row.app_name,
        metric_type=row.metric_type,
        metric_value=row.metric_value,
        at_ms=row.at_us // 1000,
        received_ms=row.received_ms,
        session_id=row.session_id or "",
        metadata=row.metadata,
    )


class Streamer:
    """Hands over what commits stored, in their order, from a bounded queue. Belongs to one event loop."""

    def __init__(self, redis_url: str | None) -> None:
        self._url = redis_url
        self._origin = os.urandom(8)
        self._numbers: dict[int, int] = defaultdict(int)
        self._queue: deque[tuple[int, dict[int, bytes]]] = deque()
        self._queued_rows = 0
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def hand_over(self, batches: Sequence[Batch]) -> None:
        """Queue the rows of one commit; never waits. Without Redis, or when too much waits, they are left out."""
        count = sum(len(batch.rows) for batch in batches)
        parts: dict[int, list[tuple[object, ...]]] = defaultdict(list)
        for batch in batches:
            for row in batch.rows:
                parts[row.partition].append(row.entry)
        if not parts:
            return
        for partition in parts:
            # Counted even when it is left out: the gap is how a reader learns of it.
            self._numbers[partition] += 1
        if self._url is None or self._queued_rows + count > QUEUE_LIMIT_ROWS:
            DROPPED.inc(count)
            return
        packed = {
            partition: _encode((VERSION, self._origin, self._numbers[partition], entries))
            for partition, entries in parts.items()
        }
        self._queue.append((count, packed))
        self._queued_rows += count
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain(), name="ingest-stream")

    async def close(self) -> None:
        """Hand over what is queued, as long as Redis takes it."""
        self._closing = True
        if self._task is not None:
            await asyncio.wait([self._task], timeout=2 * TIMEOUT_S)
            self._task.cancel()

    async def _drain(self) -> None:
        """Empty the queue with one connection; ends when it is empty, so that no idle task is left behind."""
        client = redis.asyncio.Redis.from_url(
            self._url,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            single_connection_client=True,
        )
        try:
            async with client:
                while self._queue:
                    await self._send(client)
                    if not self._queue and not self._closing:
                        # Commits follow each other closely: keep the connection for the next one.
                        await self._rest()
        except (RedisError, OSError, TimeoutError) as error:
            log.warning(
                "stream_unavailable", extra={"error": type(error).__name__, "rows": self._queued_rows}
            )
            self._drop_all()
            await asyncio.sleep(PAUSE_S)
            self._drop_all()

    async def _rest(self) -> None:
        for _ in range(200):
            await asyncio.sleep(0.005)
            if self._queue or self._closing:
                return

    async def _send(self, client: redis.asyncio.Redis) -> None:
        count, packed = self._queue[0]
        keep_after = f"{int(_unix_ms()) - KEEP_MS}-0"
        async with asyncio.timeout(TIMEOUT_S):
            pipeline = client.pipeline(transaction=False)
            for partition, payload in packed.items():
                pipeline.xadd(key_of(partition), {FIELD: payload}, minid=keep_after, approximate=True)
            await pipeline.execute()
        self._queue.popleft()
        self._queued_rows -= count
        HANDED.inc(count)

    def _drop_all(self) -> None:
        DROPPED.inc(self._queued_rows)
        self._queue.clear()
        self._queued_rows = 0


def _unix_ms() -> float:
    return time.time() * 1000
