"""A node that hangs is left by the clients within a moment, whichever it is, and nothing is done twice."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.conf import settings

from coordination import services
from coordination.api.cluster import _cluster
from coordination.api.endpoint import CoordinationEndpoint
from coordination.log.client import ATTEMPT_TIMEOUT_S, AsyncNodeClient, NodeClient
from coordination.machine.commands import LockAcquire, SessionRegister, TaskClaim
from coordination.machine.outcomes import Accepted, SessionAnswer
from tests.cluster import Cluster, NodeProcess, eventually, pointed_at

pytestmark = pytest.mark.timeout(120)

LEFT_S = 3.0
"""On a machine that does something else as well; half of what one attempt may take."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(3, database_url=None)
    try:
        yield cluster.start()
    finally:
        cluster.close()


@contextmanager
def hanging(node: NodeProcess) -> Iterator[None]:
    node.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        node.signal(signal.SIGCONT)


def followers(cluster: Cluster) -> list[NodeProcess]:
    leader = cluster.leader()
    return [node for node in cluster.nodes if node is not leader]


def preferring(cluster: Cluster, first: NodeProcess) -> list[str]:
    return [first.url, *(node.url for node in cluster.nodes if node is not first)]


def wish() -> LockAcquire:
    return LockAcquire(lock_key=os.urandom(4).hex(), owner_id="me", ttl_ms=60_000, request_id=os.urandom(16))


@pytest.mark.parametrize("is_leader", [False, True], ids=["follower", "leader"])
def test_a_call_leaves_a_node_that_hangs(cluster, is_leader):
    cluster.wait_until_ready()
    node = cluster.leader() if is_leader else followers(cluster)[0]
    client = NodeClient(preferring(cluster, node), settings.GAIA.cluster_secret)
    assert isinstance(client.submit([wish()])[0], Accepted)

    with hanging(node):
        begun_s = time.monotonic()
        (outcome,) = client.submit([wish()])
        took_s = time.monotonic() - begun_s

    assert isinstance(outcome, Accepted)
    assert took_s < (ATTEMPT_TIMEOUT_S - 1 if is_leader else LEFT_S)  # with an election


@pytest.mark.django_db
def test_the_cluster_as_one_cut_off_node_sees_it_is_marked_as_old(cluster):
    cluster.wait_until_ready()
    last, *others = cluster.nodes

    with pointed_at(cluster), hanging(others[0]), hanging(others[1]):
        eventually(
            lambda: (cluster.client(last).status_of_each()[last.url] or {}).get("stale"), what="it knows"
        )
        seen = services.cluster_status()
        answer = _cluster(CoordinationEndpoint(), 200, seen)

    assert (seen.node_id, seen.healthy, seen.stale) == (last.node_id, False, "no leader is known")
    assert answer.headers["X-Raft-Stale"] == "true"
    assert answer.data["stale"] == seen.stale


async def test_calls_of_an_event_loop_leave_it_together_and_so_does_a_long_poll(cluster):
    cluster.wait_until_ready()
    node, _ = followers(cluster)
    client = AsyncNodeClient(preferring(cluster, node), settings.GAIA.cluster_secret)
    try:
        (session,) = await client.submit(
            [SessionRegister(request_id=os.urandom(16), session_id="s", session_name=os.urandom(4).hex())]
        )
        assert isinstance(session, Accepted)
        assert isinstance(session.value, SessionAnswer)
        with hanging(node):
            begun_s = time.monotonic()
            claim = TaskClaim(
                request_id=os.urandom(16),
                session_name=session.value.session_name,
                lease_token=session.value.lease_token,
                max_tasks=1,
            )
            polling = asyncio.create_task(client.submit([claim], wait_s=1.0))
            answers = await asyncio.gather(*(client.submit([wish()]) for _ in range(20)))
            took_s = time.monotonic() - begun_s
            (polled,) = await polling
            polled_s = time.monotonic() - begun_s
    finally:
        await client.close()

    assert all(isinstance(outcome, Accepted) for (outcome,) in answers)
    assert took_s < LEFT_S
    assert isinstance(polled, Accepted)
    assert polled_s < 1.0 + LEFT_S
