"""The buffer on the real database: durable before acknowledged, each batch once, bounded in bytes and time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
from asgiref.sync import sync_to_async
from uuid_utils.compat import uuid7

from gaia_site.problems import Problem
from tests.ingest.senders import app_key, metric, request, sent
from usability.ingest import buffer
from usability.ingest.copy import Encoder, ids_from
from usability.ingest.decode import Metric
from usability.ingest.endpoint import Ingest, _conninfo
from usability.models import UsabilityMetric

pytestmark = pytest.mark.django_db(transaction=True)


@sync_to_async
def count() -> int:
    return UsabilityMetric.objects.count()


@pytest.fixture
async def commits(stored: None) -> AsyncIterator[buffer.GroupCommit]:
    running = buffer.GroupCommit(_conninfo(), lambda batches: None)
    yield running
    await running.close()


def batch(*values: float, student_id: str = "ada", key: str | None = None, body: bytes = b"") -> buffer.Batch:
    """Rows as the encoder makes them, past the door."""
    now_us = time.time_ns() // 1000
    metrics = [Metric(student_id, "maths", "keypress", value) for value in values]
    rows = Encoder(lambda student_id, app_name: None).rows(
        metrics, [now_us] * len(metrics), ids_from(now_us, len(metrics)), now_us
    )
    return buffer.Batch(rows, now_us, ("b:test", key) if key else None, body)


@contextlib.contextmanager
def locked_table() -> Iterator[None]:
    """The table of metrics, held by somebody else: nothing can be stored meanwhile."""
    with psycopg.connect(_conninfo()) as connection:
        connection.execute("LOCK TABLE usability_metrics IN ACCESS EXCLUSIVE MODE")
        yield
        connection.rollback()


async def until(condition: Any, limit_s: float = 10) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        await asyncio.sleep(0.01)


async def test_nothing_is_acknowledged_before_it_is_committed(ingest: Ingest) -> None:
    await sent(ingest, metric())
    with locked_table():
        waiting = asyncio.create_task(sent(ingest, metric()))
        done, _ = await asyncio.wait({waiting}, timeout=0.3)
        assert not done
    assert (await waiting).status == 202
    assert await count() == 2


async def test_a_batch_the_database_refuses_fails_alone(commits: buffer.GroupCommit) -> None:
    good = [batch(1, 2), batch(3)]
    bad = batch(4, float("nan"))
    with locked_table():
        # One group: the first holds a connection, the others gather behind the lock.
        first = [asyncio.create_task(commits.store(batch(0))) for _ in range(2)]
        await asyncio.sleep(0.1)
        tasks = [asyncio.create_task(commits.store(one)) for one in (good[0], bad, good[1])]
        await asyncio.sleep(0.1)

    answers = await asyncio.gather(*first, *tasks, return_exceptions=True)

    assert [isinstance(answer, buffer.Refused) for answer in answers] == [False, False, False, True, False]
    assert await count() == 5


async def test_two_copies_of_a_batch_in_one_group_are_one(commits: buffer.GroupCommit) -> None:
    with locked_table():
        first = [asyncio.create_task(commits.store(batch(0))) for _ in range(2)]
        await asyncio.sleep(0.1)
        copies = [asyncio.create_task(commits.store(batch(1, 2, key="b-1"))) for _ in range(4)]
        await asyncio.sleep(0.1)

    await asyncio.gather(*first)

    assert sorted(await asyncio.gather(*copies)) == [False, True, True, True]
    assert await count() == 4


async def test_a_key_with_another_body_is_refused_within_a_group_and_across(
    commits: buffer.GroupCommit,
) -> None:
    same = [batch(1, key="k", body=b"one"), batch(1, key="k", body=b"two")]

    answers = await asyncio.gather(*map(commits.store, same), return_exceptions=True)

    assert answers[0] is False
    assert isinstance(answers[1], buffer.Mismatch)
    with pytest.raises(buffer.Mismatch):
        await commits.store(batch(1, key="k", body=b"three"))
    assert await count() == 1


async def test_a_full_buffer_refuses_with_503_and_loses_nothing(
    ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sent(ingest, metric())
    monkeypatch.setattr(buffer, "WAITING_BYTES_LIMIT", 40_000)
    with locked_table():
        tasks = []
        for _ in range(30):
            tasks.append(asyncio.create_task(sent(ingest, [metric()] * 3)))
            await asyncio.sleep(0.005)
        await until(lambda: any(task.done() for task in tasks))
    answers = await asyncio.gather(*tasks, return_exceptions=True)

    refused = [answer for answer in answers if isinstance(answer, Problem)]
    assert {answer.slug for answer in refused} == {"overloaded"}
    assert all(answer.retry_after_s for answer in refused)
    accepted = len(answers) - len(refused)
    assert 0 < accepted < 30
    assert await count() == 1 + 3 * accepted


async def test_without_a_database_the_answer_is_503_within_bounded_time(stored: None) -> None:
    commits = buffer.GroupCommit("host=/nowhere/at/all dbname=gaia", lambda batches: None)
    begun = time.monotonic()

    with pytest.raises(buffer.Unavailable):
        await commits.store(batch(1))

    assert time.monotonic() - begun < 5
    await commits.close()


async def test_a_database_that_does_not_answer_is_given_up(
    commits: buffer.GroupCommit, monkeypatch: pytest.MonkeyPatch
) -> None:
    await commits.store(batch(0))
    monkeypatch.setattr(buffer, "COMMIT_TIMEOUT_S", 0.3)
    with locked_table(), pytest.raises(buffer.Unavailable):
        await commits.store(batch(1))

    monkeypatch.undo()
    assert await commits.store(batch(2)) is False
    assert await count() == 2


async def test_connections_that_broke_are_rebuilt(ingest: Ingest) -> None:
    await asyncio.gather(*(sent(ingest, metric()) for _ in range(4)))
    await sync_to_async(end_connections)()
    await asyncio.sleep(0.1)

    answers = [await answer_of(ingest, {"metrics": [metric()]}) for _ in range(4)]

    assert answers[-1] == 202
    assert await count() == 4 + answers.count(202)


def end_connections() -> None:
    with psycopg.connect(_conninfo(), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'gaia-ingest' AND datname = current_database()"
        )


async def answer_of(ingest: Ingest, body: Any, **more: Any) -> int:
    try:
        return (await ingest.take(request(body, **more))).status
    except Problem as problem:
        return problem.status


async def test_a_batch_that_is_sent_until_it_is_acknowledged_is_stored_once_while_connections_die(
    ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffer, "RECONNECT_PAUSE_S", 0.01)
    caller = app_key("maths")
    bodies = [{"batch_id": f"b-{uuid7()}", "metrics": [metric(metric_value=n)] * 3} for n in range(40)]

    async def persist(body: Any) -> None:
        end = time.monotonic() + 30
        while await answer_of(ingest, body, principal=caller) != 202:
            assert time.monotonic() < end
            await asyncio.sleep(0.02)

    async def disturb() -> None:
        for _ in range(12):
            await sync_to_async(end_connections)()
            await asyncio.sleep(0.03)

    disturbing = asyncio.create_task(disturb())
    for some in range(0, 40, 8):
        await asyncio.gather(*map(persist, bodies[some : some + 8]))
    await disturbing

    assert await count() == 3 * len(bodies)


async def test_a_client_that_has_left_still_leaves_a_whole_batch_or_none(ingest: Ingest) -> None:
    await sent(ingest, metric())
    with locked_table():
        leaving = asyncio.create_task(sent(ingest, [metric()] * 5))
        await asyncio.sleep(0.1)
        leaving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leaving
    await sent(ingest, metric())

    assert await count() in (2, 7)


async def test_closing_stores_what_waits_and_takes_nothing_more(stored: None) -> None:
    commits = buffer.GroupCommit(_conninfo(), lambda batches: None)
    waiting = [asyncio.create_task(commits.store(batch(n))) for n in range(5)]
    await asyncio.sleep(0)

    await commits.close()

    assert await asyncio.gather(*waiting) == [False] * 5
    with pytest.raises(buffer.Overloaded):
        await commits.store(batch(9))
    assert await count() == 5
