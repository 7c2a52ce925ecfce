"""What a detection worker reads: the Redis stream while it is there, the stored rows always.

The stream is quick and may lose entries; the rows are complete and a little slower. Both give the same rows,
and each row is handed on once, known by its id. The stream is read by position and not through a consumer
group: who reads a partition is settled by its owner row in PostgreSQL, and how far detection has come stands
there too, written together with its effects; a second cursor in Redis could only disagree.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections import deque
from typing import TYPE_CHECKING

import msgspec
import redis
from prometheus_client import Counter, Gauge
from redis.exceptions import RedisError

from usability.ingest.rows import SETTLE, ids_received, rows_with_ids
from usability.ingest.stream import FIELD, StreamRow, decode_entry, key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

log = logging.getLogger("gaia.detection")

ENTRIES_A_READ = 200
PAGES_A_READ = 20
REDIS_TIMEOUT_S = 2.0
REDIS_RETRY_S = 2.0
# Without the stream rows are polled; a poll looks back this far, a sweep as far as commits may lag.
POLL_EVERY_S = 0.25
POLL_BACK = dt.timedelta(seconds=2)
SWEEP_EVERY_S = 5.0
# Detection leaves out what was older on receipt than its profile's `late_s`: older days need no search.
OLDEST_THAT_COUNTS = dt.timedelta(days=1)
REMEMBER = SETTLE + dt.timedelta(seconds=30)

READ = Counter("gaia_detection_rows_total", "Metrics handed to detection", ["source"])
GAPS = Counter("gaia_detection_stream_gaps_total", "Gaps in the numbering of the stream, refilled from rows")
STREAM_UP = Gauge("gaia_detection_stream_up", "Whether the stream is being read (else rows are polled)")


class StreamReader:
    """Reads partitions of the Redis stream by position. `is_up` is False while Redis does not answer."""

    def __init__(self, redis_url: str | None, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._url = redis_url
        self._monotonic_s = monotonic_s
        self._client: redis.Redis | None = None
        self._positions: dict[int, str] = {}
        self._numbers: dict[tuple[int, bytes], int] = {}
        self._retry_at_s = float("-inf")
        self.is_up = False
        self.has_gap = False

    def follow(self, partitions: Collection[int]) -> None:
        """Read these partitions from their present end on, and no others; those followed already go on."""
        for partition in self._positions.keys() - set(partitions):
            del self._positions[partition]
        new = set(partitions) - self._positions.keys()
        if new and self._connect():
            try:
                for partition in sorted(new):
                    self._positions[partition] = self._end_of(partition)
            except (RedisError, OSError) as error:
                self._lose(error)

    def read(self, block_ms: int) -> list[StreamRow]:
        """What has arrived, waiting up to `block_ms` for the first; empty where Redis is away."""
        if not self._positions or not self._connect():
            return []
        rows: list[StreamRow] = []
        try:
            rows += self._read_page(max(1, block_ms))
            for _ in range(PAGES_A_READ if rows else 0):
                more = self._read_page(None)
                if not more:
                    break
                rows += more
        except (RedisError, OSError) as error:
            self._lose(error)
        return rows

    def close(self) -> None:
        """End the connection."""
        if self._client is not None:
            self._client.close()
        self._client, self.is_up = None, False

    def _read_page(self, block_ms: int | None) -> list[StreamRow]:
        keys = {key_of(partition): position for partition, position in self._positions.items()}
        found = self._client.xread(keys, count=ENTRIES_A_READ, block=block_ms) or []
        partitions = {key_of(partition).encode(): partition for partition in self._positions}
        rows: list[StreamRow] = []
        for key, messages in found:
            for position, fields in messages:
                self._positions[partitions[key]] = position.decode()
                rows += self._rows_of(partitions[key], fields)
        return rows

    def _rows_of(self, partition: int, fields: dict[bytes, bytes]) -> list[StreamRow]:
        try:
            entry = decode_entry(fields.get(FIELD, b""))
        except msgspec.DecodeError:
            # Not ours, or of another version: the sweep finds its rows in the table.
            log.warning("stream_entry_unreadable", extra={"partition": partition})
            self.has_gap = True
            return []
        last = self._numbers.get((partition, entry.origin))
        if last is not None and entry.number != last + 1:
            GAPS.inc()
            self.has_gap = True
        self._numbers[(partition, entry.origin)] = entry.number
        return entry.rows

    def _connect(self) -> bool:
        if self.is_up:
            return True
        if self._url is None or self._monotonic_s() < self._retry_at_s:
            return False
        try:
            self._client = redis.Redis.from_url(
                self._url, socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S
            )
            self._client.ping()
            # What came while nobody read is found by a sweep of the rows; go on from the present end.
            self._positions = {partition: self._end_of(partition) for partition in self._positions}
        except (RedisError, OSError) as error:
            self._lose(error)
            return False
        self.is_up, self.has_gap = True, True
        STREAM_UP.set(1)
        return True

    def _end_of(self, partition: int) -> str:
        newest = self._client.xrevrange(key_of(partition), count=1)
        return newest[0][0].decode() if newest else "0-0"

    def _lose(self, error: Exception) -> None:
        if self.is_up:
            log.warning("stream_lost", extra={"error": type(error).__name__})
        self.close()
        STREAM_UP.set(0)
        self._retry_at_s = self._monotonic_s() + REDIS_RETRY_S


class StoredStream:
    """The rows of the partitions followed, each once, whichever way they come."""

    def __init__(self, redis_url: str | None, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._reader = StreamReader(redis_url, monotonic_s)
        self._monotonic_s = monotonic_s
        self._seen: set[bytes] = set()
        self._seen_order: deque[bytes] = deque()
        self._swept_at_s = float("-inf")
        self._polled_at_s = float("-inf")
        self._settled: dt.datetime | None = None

    @property
    def is_streaming(self) -> bool:
        """Whether Redis is being read; else rows are polled."""
        return self._reader.is_up

    def follow(self, partitions: Collection[int]) -> None:
        """Hand on rows of these partitions from now on. Call it before reading what is stored of them."""
        self._reader.follow(partitions)

    def sweep_from(self, moment: dt.datetime) -> None:
        """Let the next sweep look at rows received since `moment`, where that is earlier than planned."""
        self._settled = moment if self._settled is None else min(self._settled, moment)
        self._swept_at_s = float("-inf")

    def mark_seen(self, ids: Iterable[bytes]) -> None:
        """These rows have been handed on in another way."""
        for key in ids:
            self._remember(key)

    def read(self, now: dt.datetime, *, block_ms: int) -> list[StreamRow]:
        """Rows not handed on before, in no particular order. Raises django.db.Error if the rows are away."""
        rows = self._fresh(self._reader.read(block_ms))
        READ.labels("stream").inc(len(rows))
        at_s = self._monotonic_s()
        if self._reader.has_gap or at_s - self._swept_at_s >= SWEEP_EVERY_S:
            self._swept_at_s, self._polled_at_s = at_s, at_s
            self._reader.has_gap = False
            rows += self._sweep(now)
        elif not self._reader.is_up and at_s - self._polled_at_s >= POLL_EVERY_S:
            self._polled_at_s = at_s
            rows += self._fresh_from_rows(now - POLL_BACK, now)
        self._forget(now)
        return rows

    def close(self) -> None:
        """End the connection to Redis."""
        self._reader.close()

    def _sweep(self, now: dt.datetime) -> list[StreamRow]:
        """Everything received since the moment before which all was visible at the last sweep."""
        since = self._settled or now - SETTLE
        rows = self._fresh_from_rows(since, now)
        self._settled = max(since, now - SETTLE)
        return rows

    def _fresh_from_rows(self, since: dt.datetime, until: dt.datetime) -> list[StreamRow]:
        """Rows received in that stretch whose ids are not known. Their ids are looked at first: most are known."""
        at_oldest = since - OLDEST_THAT_COUNTS
        found = ids_received(since=since, until=until, at_oldest=at_oldest)
        unknown = [key for key in found if key.bytes not in self._seen]
        rows = self._fresh(rows_with_ids(unknown, at_oldest=at_oldest))
        READ.labels("rows").inc(len(rows))
        return rows

    def _fresh(self, rows: Iterable[StreamRow]) -> list[StreamRow]:
        fresh = []
        for row in rows:
            if row.id not in self._seen:
                self._remember(row.id)
                fresh.append(row)
        return fresh

    def _remember(self, key: bytes) -> None:
        if key not in self._seen:
            self._seen.add(key)
            self._seen_order.append(key)

    def _forget(self, now: dt.datetime) -> None:
        """Drop ids so old that no sweep looks at them again; the receipt is in the id."""
        since = min(self._settled or now, now) - REMEMBER
        oldest_ms = int(since.timestamp() * 1000)
        order = self._seen_order
        while order and int.from_bytes(order[0][:6]) < oldest_ms:
            self._seen.discard(order.popleft())
