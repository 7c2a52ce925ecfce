"""Time belongs to the leader's monotonic clock: neither a stopped leader nor a wall clock that jumps ends a lease."""

import signal
import threading
import time
from collections.abc import Iterator
from typing import Self

import pytest

from coordination.errors import CoordinationError
from coordination.log.client import NodeClient
from coordination.machine import codec, commands
from coordination.machine.commands import Tick
from coordination.machine.outcomes import Accepted
from tests.cluster import Cluster, eventually
from tests.machine.wishes import STAMP_MS, Wishes

HOUR_MS = 3_600_000
LEASE_S = 3.0
STOPPED_S = 2 * LEASE_S


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three nodes with a tenth of the usual lease."""
    settings = {"SESSION_LEASE_TIMEOUT": f"{LEASE_S:.0f}s", "SESSION_HEARTBEAT_INTERVAL": "1s"}
    cluster = Cluster(3, database_url=None, extra=settings)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


def register(client: NodeClient, name: str) -> int:
    (outcome,) = client.submit(
        [commands.SessionRegister(session_name=name, session_id=f"id-{name}", request_id=name.encode()[:16])]
    )
    assert isinstance(outcome, Accepted), outcome
    return outcome.value.lease_token


def status_of(client: NodeClient, name: str) -> str:
    found = codec.decode_snapshot(client.state()).sessions
    return next(str(session.status) for session in found if session.session_name == name)


class Heart:
    """Beats for one session, as an agent does: at whichever node answers."""

    def __init__(self, client: NodeClient, name: str, token: int) -> None:
        self._client, self._name, self._token = client, name, token
        self._is_over = threading.Event()
        self.refused: list[object] = []
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(20)

    def _beat(self) -> None:
        while not self._is_over.wait(0.5):
            try:
                (outcome,) = self._client.submit(
                    [commands.SessionHeartbeat(session_name=self._name, lease_token=self._token)]
                )
            except CoordinationError:
                continue
            if not isinstance(outcome, Accepted):
                self.refused.append(outcome)


def test_a_leader_stopped_for_longer_than_a_lease_ends_no_healthy_session(cluster):
    leader = cluster.leader()
    others = [node for node in cluster.nodes if node is not leader]
    name = "through-the-stop"
    token = register(cluster.client(), name)
    with Heart(cluster.client(*others), name, token) as heart:
        leader.signal(signal.SIGSTOP)
        try:
            eventually(lambda: _leads(cluster, others), 20, what="another leader")
            until = time.monotonic() + STOPPED_S
            eventually(lambda: time.monotonic() > until, STOPPED_S + 5, what="twice a lease")
        finally:
            leader.signal(signal.SIGCONT)
        cluster.wait_until_ready()
        eventually(lambda: status_of(cluster.client(leader), name) == "idle", what="it at the old leader")
        assert heart.refused == []

    assert status_of(cluster.client(*others), name) == "idle"


def _leads(cluster: Cluster, nodes: list) -> bool:
    seen = cluster.client(*nodes).status_of_each()
    return any(status and status["role"] == "leader" for status in seen.values())


def test_a_cluster_stopped_as_a_whole_for_longer_than_a_lease_ends_no_session(cluster):
    name = "all-stood-still"
    token = register(cluster.client(), name)
    for node in cluster.nodes:
        node.signal(signal.SIGSTOP)
    until = time.monotonic() + STOPPED_S
    try:
        eventually(lambda: time.monotonic() > until, STOPPED_S + 5, what="twice a lease")
    finally:
        for node in cluster.nodes:
            node.signal(signal.SIGCONT)

    cluster.wait_until_ready()
    with Heart(cluster.client(), name, token) as heart:
        eventually(lambda: status_of(cluster.client(), name) == "idle", what="its session")
        assert heart.refused == []


def test_a_session_that_is_silent_ends_all_the_same(cluster):
    name = "silent"
    register(cluster.client(), name)

    eventually(lambda: status_of(cluster.client(), name) == "offline", 10 * LEASE_S, what="its end")


def test_wall_clocks_that_jump_by_hours_change_no_deadline():
    """Stamps are for display: forwards, backwards and forwards again, the machine's clock moves by ticks alone."""
    wishes = Wishes(max_elapsed_ms=60_000)
    wishes.ask(Tick(elapsed_ms=0, term=1))
    token = wishes.register("ann")
    wishes.ask(commands.LockAcquire(lock_key="k", owner_id="me", ttl_ms=25_000))
    before = wishes.machine.state.clock_ms
    for jump_ms in (5 * HOUR_MS, -9 * HOUR_MS, 100 * HOUR_MS):
        wishes.stamp_ms = STAMP_MS + jump_ms
        wishes.ask(Tick(elapsed_ms=1_000, term=1))

    state = wishes.machine.state
    assert state.clock_ms == before + 3_000
    assert str(state.sessions["id-ann"].status) == "idle"
    assert state.sessions["id-ann"].lease_token == token
    assert "k" in state.locks
    wishes.ask(Tick(elapsed_ms=23_000, term=1))
    assert "k" not in wishes.machine.state.locks
