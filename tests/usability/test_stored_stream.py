"""What a worker reads: the stream while it is there, the rows always, each row once. On a Redis of its own."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
import redis
from django.utils import timezone
from usability_lessons import Clock, Lesson

from gaia_site.embedded.account import wheel_binaries
from tests.running import wait_for
from usability.ingest.stream import FIELD, VERSION, key_of
from usability.models import UsabilityMetric
from usability.stored_stream import StoredStream, StreamReader

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("days")


class OwnRedis:
    """A Redis that can be stopped and comes back empty."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "r.sock"
        self.url = f"unix://{self._socket}"
        self._process: subprocess.Popen[bytes] | None = None
        self.client = redis.Redis.from_url(self.url, socket_timeout=2)

    def start(self) -> None:
        self._process = subprocess.Popen(
            [str(wheel_binaries(18).redis), "--port", "0", "--unixsocket", str(self._socket), "--save", ""],
            cwd=self._socket.parent,
            stdout=subprocess.DEVNULL,
        )
        wait_for(self._answers, "Redis", 20)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)
            self._socket.unlink(missing_ok=True)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False


@pytest.fixture
def own_redis() -> Iterator[OwnRedis]:
    folder = Path(tempfile.mkdtemp(prefix="gr-", dir="/tmp"))
    server = OwnRedis(folder)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def lesson(room):
    return Lesson(room, timezone.now() - dt.timedelta(seconds=30))


def hand_over(client: redis.Redis, rows: list[UsabilityMetric], number: int, partition: int = 3) -> None:
    """What a web process writes after its commit."""
    packed = [
        (
            row.id.bytes,
            row.classroom_id.bytes,
            row.student_id,
            row.app_name,
            row.metric_type,
            row.metric_value,
            int(row.timestamp.timestamp() * 1_000_000),
            None,
            row.metadata,
        )
        for row in rows
    ]
    payload = msgspec.msgpack.encode((VERSION, b"web", number, packed))
    client.xadd(key_of(partition), {FIELD: payload})


def kept(rows: list[UsabilityMetric]) -> list[UsabilityMetric]:
    return UsabilityMetric.objects.bulk_create(rows)


def ids(rows) -> set[uuid.UUID]:
    return {uuid.UUID(bytes=row.id) for row in rows}


def test_a_row_that_comes_by_both_ways_is_handed_on_once(own_redis, lesson):
    clock = Clock(timezone.now())
    stream = StoredStream(own_redis.url, clock.monotonic_s)
    stream.follow([3])
    rows = kept([lesson.does(1, "p1", "hint"), lesson.does(2, "p1", "error")])
    hand_over(own_redis.client, rows, 1)

    found = stream.read(clock(), block_ms=1)
    clock.now += dt.timedelta(seconds=6)
    again = stream.read(clock(), block_ms=1)

    assert ids(found) == {row.id for row in rows}
    assert len(found) == 2
    assert again == []


def test_a_hand_over_that_was_lost_is_found_in_the_rows(own_redis, lesson):
    clock = Clock(timezone.now())
    stream = StoredStream(own_redis.url, clock.monotonic_s)
    stream.follow([3])
    stream.read(clock(), block_ms=1)
    first, lost, third = kept([lesson.does(n, "p1", "hint", delay_s=30 - n) for n in (1, 2, 3)])
    hand_over(own_redis.client, [first], 1)
    hand_over(own_redis.client, [third], 3)

    found = [*stream.read(clock(), block_ms=1), *stream.read(clock(), block_ms=1)]

    assert ids(found) == {first.id, lost.id, third.id}
    assert len(found) == 3


def test_when_redis_goes_away_rows_are_polled_and_when_it_comes_back_it_is_read(own_redis, lesson):
    clock = Clock(timezone.now())
    stream = StoredStream(own_redis.url, clock.monotonic_s)
    stream.follow([3])
    stream.read(clock(), block_ms=1)
    assert stream.is_streaming

    own_redis.stop()
    stream.read(clock(), block_ms=1)
    clock.now += dt.timedelta(seconds=1)
    without = kept([lesson.does(30.5, "p1", "hint")])
    polled = stream.read(clock(), block_ms=1)
    was_streaming = stream.is_streaming

    own_redis.start()
    clock.now += dt.timedelta(seconds=3)
    stream.read(clock(), block_ms=1)
    with_it = kept([lesson.does(32, "p1", "error")])
    hand_over(own_redis.client, with_it, 1)
    streamed = stream.read(clock(), block_ms=1)

    assert not was_streaming
    assert ids(polled) == {row.id for row in without}
    assert ids(streamed) == {row.id for row in with_it}
    assert stream.is_streaming


def test_without_redis_every_row_is_polled_once(lesson):
    clock = Clock(timezone.now())
    stream = StoredStream("redis://127.0.0.1:1/0", clock.monotonic_s)
    stream.follow([3])
    rows = [lesson.does(30 + n / 2, "p1", "hint") for n in range(20)]
    found = []
    for row in rows:
        kept([row])
        clock.now = max(clock.now, row.received_at) + dt.timedelta(seconds=0.3)
        found += stream.read(clock(), block_ms=1)

    assert [row.id for row in found] == [row.id.bytes for row in rows]


def test_an_entry_nobody_can_read_stops_nothing(own_redis, lesson):
    clock = Clock(timezone.now())
    reader = StreamReader(own_redis.url, clock.monotonic_s)
    reader.follow([3])
    reader.read(1)
    own_redis.client.xadd(key_of(3), {b"d": b"\xff\x00nonsense"})
    hand_over(own_redis.client, [lesson.does(1, "p1", "hint")], 1)
    reader.has_gap = False

    rows = reader.read(1)

    assert len(rows) == 1
    assert reader.has_gap


def test_what_is_remembered_is_forgotten_again(lesson):
    clock = Clock(timezone.now())
    stream = StoredStream(None, clock.monotonic_s)
    kept([lesson.does(25 + n / 100, "p1", "hint") for n in range(50)])
    stream.read(clock(), block_ms=1)
    assert len(stream._seen) == 50

    for _ in range(14):
        clock.now += dt.timedelta(seconds=6)
        stream.read(clock(), block_ms=1)

    assert stream._seen == set()
