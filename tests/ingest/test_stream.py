"""What detection gets: the same rows by the stream and from the table, and gaps that show."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
import uuid
from collections import defaultdict
from typing import Any

import pytest
import redis
from asgiref.sync import sync_to_async
from hypothesis import given
from hypothesis import strategies as st

from tests.ingest.senders import app_key, metric, sent
from usability.ingest.copy import ids_from
from usability.ingest.endpoint import Ingest, _conninfo
from usability.ingest.rows import rows_of_students
from usability.ingest.stream import FIELD, Entry, StreamRow, decode_entry, key_of, observation_of
from usability.models import Classroom, Enrollment, School, Student
from usability.querysets import moment_of
from usability.stream_partition import PARTITIONS, partition_of

pytestmark = pytest.mark.django_db(transaction=True)


class Reader:
    """The entries that arrive from now on."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url)
        self._positions = {key_of(number): self._end(key_of(number)) for number in range(PARTITIONS)}
        self.entries: dict[int, list[Entry]] = defaultdict(list)

    def _end(self, key: str) -> str:
        last = self._client.xrevrange(key, count=1)
        return last[0][0].decode() if last else "0-0"

    def read(self) -> None:
        for key, messages in self._client.xread(self._positions):
            for position, fields in messages:
                self._positions[key.decode()] = position.decode()
                self.entries[int(key.decode().rpartition(":")[2])].append(decode_entry(fields[FIELD]))

    async def until(self, rows: int, student_id: str | None = None) -> list[StreamRow]:
        """So many rows, of this pupil if one is named: what an earlier test left may still arrive."""
        end = time.monotonic() + 10
        while True:
            self.read()
            found = [
                row
                for entries in self.entries.values()
                for entry in entries
                for row in entry.rows
                if student_id in (None, row.student_id)
            ]
            if len(found) >= rows:
                return found
            assert time.monotonic() < end, f"{len(found)} rows of {rows}"
            await asyncio.sleep(0.01)


@sync_to_async
def table_rows(*student_ids: str) -> list[StreamRow]:
    now = dt.datetime.now(tz=dt.UTC)
    span = {"since": now - dt.timedelta(days=8), "until": now + dt.timedelta(minutes=10)}
    return list(rows_of_students(student_ids, **span))


async def test_the_stream_and_the_table_tell_the_same(ingest: Ingest, settings: Any) -> None:
    reader = Reader(settings.GAIA.redis_url)
    details = {"item": "i-1", "correct": False, "duration_ms": 1200}

    await sent(
        ingest, [metric(metric_type="answer", metric_value=0, metadata=details), metric(student_id="ben")]
    )

    streamed = await reader.until(2)
    stored = await table_rows("stu-0001", "ben")
    by_id = lambda rows: sorted(rows, key=lambda row: row.id)  # noqa: E731
    assert by_id(streamed) == by_id(stored)
    assert [observation_of(row) for row in by_id(streamed)] == [observation_of(row) for row in by_id(stored)]
    assert observation_of(by_id(streamed)[0]).correct is False


async def test_a_class_shares_a_partition_and_a_stranger_has_one_of_their_own(
    ingest: Ingest, settings: Any
) -> None:
    @sync_to_async
    def enroll() -> Classroom:
        room = Classroom.objects.create(school=School.objects.create(name="North"), name="5a")
        for student_id in ("ada", "ben", "cleo"):
            Student.objects.create(student_id=student_id)
            Enrollment.objects.create(classroom=room, student_id=student_id)
        return room

    room = await enroll()
    reader = Reader(settings.GAIA.redis_url)

    await sent(ingest, [metric(student_id=student_id) for student_id in ("ada", "ben", "cleo", "stranger")])

    rows = {row.student_id: row for row in await reader.until(4)}
    where = {
        row.student_id: number
        for number, entries in reader.entries.items()
        for entry in entries
        for row in entry.rows
    }
    assert {rows[name].classroom for name in ("ada", "ben", "cleo")} == {str(room.pk)}
    assert {where[name] for name in ("ada", "ben", "cleo")} == {
        partition_of(classroom_id=str(room.pk), student_id="")
    }
    assert rows["stranger"].classroom == ""
    assert where["stranger"] == partition_of(classroom_id="", student_id="stranger")


async def test_entries_of_a_partition_are_numbered_without_holes(ingest: Ingest, settings: Any) -> None:
    reader = Reader(settings.GAIA.redis_url)
    for _ in range(5):
        await sent(ingest, metric(student_id="numbered"))

    await reader.until(5, "numbered")

    every = [entry for entries in reader.entries.values() for entry in entries]
    entries = [entry for entry in every if any(row.student_id == "numbered" for row in entry.rows)]
    assert [entry.number for entry in entries] == [1, 2, 3, 4, 5]
    assert len({entry.origin for entry in entries}) == 1


async def test_a_hand_over_that_failed_leaves_a_hole_in_the_numbers(
    ingest: Ingest, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader(settings.GAIA.redis_url)
    await sent(ingest, metric())
    await reader.until(1)
    streamer = ingest._streamer
    monkeypatch.setattr(streamer, "_url", None)
    await sent(ingest, metric())
    monkeypatch.undo()
    await sent(ingest, metric())

    await reader.until(2)

    (entries,) = reader.entries.values()
    assert [entry.number for entry in entries] == [1, 3]


async def test_without_redis_metrics_are_stored_and_acknowledged_all_the_same(stored: None) -> None:
    alone = Ingest(_conninfo(), "unix:///nowhere/at/all.sock")

    answers = [await sent(alone, metric()) for _ in range(3)]
    await alone.close()

    assert [answer.status for answer in answers] == [202] * 3
    assert len(await table_rows("stu-0001")) == 3


async def test_a_duplicate_is_not_handed_over_again(ingest: Ingest, settings: Any) -> None:
    reader = Reader(settings.GAIA.redis_url)
    caller = app_key("maths")
    for _ in range(3):
        await sent(ingest, {"batch_id": "b-1", "metrics": [metric(student_id="thrice")]}, principal=caller)
    await sent(ingest, metric(student_id="last"))
    await ingest.close()  # hands over all that is left

    await reader.until(1, "last")
    assert len(await reader.until(1, "thrice")) == 1


@given(st.integers(0, 2**47), st.integers(1, 5000))
def test_ids_carry_the_receipt_and_keep_the_order_of_a_batch(received_ms: int, count: int) -> None:
    ids = ids_from(received_ms * 1000, count)

    first, last = uuid.UUID(int=ids[0]), uuid.UUID(int=ids[-1])
    assert (first.version, first.variant, last.version, last.variant) == (7, uuid.RFC_4122, 7, uuid.RFC_4122)
    assert first.int >> 80 == last.int >> 80 == received_ms
    assert last.int - first.int == count - 1


def test_the_moment_of_an_id_is_its_receipt() -> None:
    now = dt.datetime(2026, 11, 24, 12, 0, 0, 123_000, tzinfo=dt.UTC)

    assert moment_of(uuid.UUID(int=ids_from(round(now.timestamp() * 1e6), 1)[0])) == now
