"""The running system with two web processes whose database stands still, and goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from bench import pressure
from bench.system import running_system
from tests.running import Up

GROWTH_LIMIT_MIB = 150


@pytest.fixture(scope="module")
def two_webs() -> Iterator[tuple[Up, str]]:
    with running_system(WEB_PROCESSES="2", FRUSTRATION_DETECTION_ENABLED="false") as (system, demo):
        yield system, demo["keys"]["metrics"]


def test_while_the_database_stands_memory_is_bounded_and_nothing_acknowledged_is_lost(
    two_webs: tuple[Up, str],
) -> None:
    system, key = two_webs
    clients = pressure.Clients(system.url, key, connections=60)
    at_first = pressure.stored(system.run_file()["database_url"])

    before, most = asyncio.run(pressure.under_pressure(system, clients, 4.0))
    asyncio.run(clients.repeat_refused())

    found = pressure.stored(system.run_file()["database_url"]) - at_first
    everything = clients.seen.acknowledged | clients.seen.refused
    assert set(clients.seen.answers) == {202, 503}
    assert clients.seen.without_retry_after == 0
    assert most - before < GROWTH_LIMIT_MIB
    assert found["batches"] == len(everything)
    assert found["rows"] == pressure.BATCH * len(everything)


def test_two_web_processes_store_a_batch_once_that_both_are_sent(two_webs: tuple[Up, str]) -> None:
    """Four senders count their batches alike, so that each batch is sent four times at about the same moment."""
    system, key = two_webs
    senders = [pressure.Clients(system.url, key, connections=8, name="both") for _ in range(4)]
    at_first = pressure.stored(system.run_file()["database_url"])

    async def all_at_once() -> None:
        await asyncio.gather(*(sender.run(1.0) for sender in senders))

    asyncio.run(all_at_once())

    sent = set().union(*(sender.seen.acknowledged for sender in senders))
    found = pressure.stored(system.run_file()["database_url"]) - at_first
    assert len(system.pids("web")) == 2
    assert not any(sender.seen.refused for sender in senders)
    assert found["rows"] == pressure.BATCH * len(sent)
