"""Real nodes for tests: processes of `manage.py raft_node` on loopback ports, writing into the test database.

`shared_node` is one node for the whole run of a test process; `live_node` points Django's settings at it
for one test, and empties the coordination tables afterwards. Rows must be committed, so such a test runs
outside a transaction: it may leave rows in no other table.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection, connections
from django.test.utils import setup_databases, teardown_databases

from coordination.errors import CoordinationError
from coordination.log.client import NodeClient, close_async_node_client

ROOT = Path(__file__).resolve().parent.parent
START_S = 60.0
TABLES = (
    "coordinationevent",
    "taskattempt",
    "taskresult",
    "distributedtask_depends_on",
    "sessionaffinity",
    "distributedtask",
    "claudesession",
    "distributedlock",
    "locktoken",
    "lesson",
    "project",
)


def free_ports(count: int) -> list[int]:
    """Ports nobody listens at now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def eventually(
    condition: Callable[[], Any], timeout_s: float = 15.0, pause_s: float = 0.02, what: str = "condition"
) -> Any:
    """The first truthy value of `condition`; AssertionError after `timeout_s`."""
    ends_s = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() >= ends_s:
            raise AssertionError(f"{what} did not come true within {timeout_s} s")
        time.sleep(pause_s)


def test_database_url() -> str:
    """The URL of the database this test process uses, for a child process."""
    parts = connection.settings_dict
    user = f"{parts['USER']}:{parts['PASSWORD']}@" if parts["PASSWORD"] else f"{parts['USER']}@"
    host = parts["HOST"].replace("/", "%2F")
    port = f":{parts['PORT']}" if parts["PORT"] else ""
    return f"postgresql://{user}{host}{port}/{parts['NAME']}"


test_database_url.__test__ = False  # type: ignore[attr-defined]


@dataclasses.dataclass
class NodeProcess:
    """One node as a process of its own."""

    node_id: str
    http: str
    raft: str
    environment: dict[str, str]
    log_path: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; returns at once."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), "raft_node"],
                env=self.environment,
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )

    def kill(self, number: int = signal.SIGKILL) -> int:
        """End it with a signal, wait for it, and answer its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    def stop(self) -> int:
        """End it in order."""
        if self.process is None or self.process.poll() is not None:
            return 0
        return self.kill(signal.SIGTERM)

    def signal(self, number: int) -> None:
        """Send a signal and go on."""
        assert self.process is not None
        self.process.send_signal(number)

    @property
    def url(self) -> str:
        return f"http://{self.http}"

    @property
    def log(self) -> str:
        """What it has logged so far, for a failure's message."""
        return self.log_path.read_text(errors="replace")[-4000:]


class Cluster:
    """Nodes that know one another, in a folder that goes with them."""

    def __init__(self, count: int, *, database_url: str | None, extra: dict[str, str] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gaia-nodes-"))
        ports = free_ports(2 * count)
        seats = [(f"n{n}", ports[2 * n], ports[2 * n + 1]) for n in range(count)]
        members = ",".join(f"{node_id}=127.0.0.1:{raft}" for node_id, raft, _ in seats)
        self.nodes = [
            self._node(node_id, raft, http, members, count, database_url, extra or {})
            for node_id, raft, http in seats
        ]

    def _node(
        self,
        node_id: str,
        raft: int,
        http: int,
        members: str,
        count: int,
        database_url: str | None,
        extra: dict[str, str],
    ) -> NodeProcess:
        environment = {
            **os.environ,
            "GAIA_DATA_DIR": str(self.folder / "data"),
            "CLUSTER_ENABLED": "true" if count > 1 else "false",
            "CLUSTER_NODE_ID": node_id,
            "CLUSTER_BIND_ADDR": f"127.0.0.1:{raft}",
            "CLUSTER_ADVERTISE_ADDR": f"127.0.0.1:{raft}",
            "CLUSTER_HTTP_ADDR": f"127.0.0.1:{http}",
            "CLUSTER_DATA_DIR": str(self.folder / node_id),
            "CLUSTER_DISCOVERY_NODES": members,
            "CLUSTER_SECRET": settings.GAIA.cluster_secret,
            "DATABASE_URL": database_url or "",
            "DATABASE_POOL_MAX": "4",
            "RAFT_HEARTBEAT_TIMEOUT": "300ms",
            "RAFT_ELECTION_TIMEOUT": "900ms",
            **extra,
        }
        return NodeProcess(
            node_id, f"127.0.0.1:{http}", f"127.0.0.1:{raft}", environment, self.folder / f"{node_id}.log"
        )

    def start(self) -> Cluster:
        """Start every node and wait until commands are taken."""
        for node in self.nodes:
            node.start()
        self.wait_until_ready()
        return self

    def wait_until_ready(self, timeout_s: float = START_S) -> None:
        """Return when every node that runs knows a leader and the cluster has begun."""
        probe = self.client()
        running = [node for node in self.nodes if node.process and node.process.poll() is None]

        def is_ready() -> bool:
            for node in running:
                assert node.process is not None
                assert node.process.poll() is None, f"{node.node_id} ended:\n{node.log}"
            seen = probe.status_of_each(timeout_s=1.0)
            return all(
                (status := seen[node.url]) is not None and status["leader"] and status["revision"]
                for node in running
            )

        try:
            eventually(is_ready, timeout_s, 0.05, "a ready cluster")
        except AssertionError as error:
            raise AssertionError("\n".join([str(error), *(node.log for node in self.nodes)])) from None

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(node.url for node in self.nodes)

    def client(self, *nodes: NodeProcess) -> NodeClient:
        """A client of the given nodes, or of all."""
        return NodeClient([node.url for node in nodes or self.nodes], settings.GAIA.cluster_secret)

    def leader(self) -> NodeProcess:
        """The node that leads now, as a majority of the running ones see it."""

        def find() -> NodeProcess | None:
            seen = [status for status in self.client().status_of_each().values() if status]
            leaders = {status["leader"] for status in seen if status["role"] == "leader"}
            if len(leaders) != 1:
                return None
            return next(node for node in self.nodes if node.node_id in leaders)

        return eventually(find, what="a leader")

    def close(self) -> None:
        """Stop all and remove the folder."""
        for node in self.nodes:
            if node.process is not None and node.process.poll() is None:
                node.signal(signal.SIGCONT)
                node.signal(signal.SIGTERM)
        for node in self.nodes:
            if node.process is not None:
                try:
                    node.process.wait(20)
                except subprocess.TimeoutExpired:
                    node.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


_shared: list[Cluster] = []


def shared_node() -> Cluster:
    """One node for the whole run of this test process, started when first asked for."""
    if not _shared:
        cluster = Cluster(1, database_url=test_database_url())
        _shared.append(cluster)
        atexit.register(cluster.close)
        cluster.start()
    return _shared[0]


def stop_shared_node() -> None:
    """Stop it, if it runs: the database it writes into is about to go."""
    while _shared:
        cluster = _shared.pop()
        atexit.unregister(cluster.close)
        cluster.close()


@contextlib.contextmanager
def pointed_at(cluster: Cluster) -> Iterator[Cluster]:
    """Django's settings name this cluster's nodes for as long as the block lasts."""
    before = settings.GAIA
    settings.GAIA = dataclasses.replace(before, cluster_node_urls=cluster.urls)
    try:
        yield cluster
    finally:
        settings.GAIA = before


def quieten(client: NodeClient) -> None:
    """End everything the machine still holds, so that nothing happens after the test."""
    from coordination.machine import codec, commands

    snapshot = codec.decode_snapshot(client.state())
    ends: list[commands.AnyCommand] = [
        commands.TaskCancel(task_id=task.task_id, request_id=os.urandom(16)) for task in snapshot.tasks
    ]
    ends += [
        commands.SessionDeregister(session_name=session.session_name, request_id=os.urandom(16))
        for session in snapshot.sessions
        if session.status != "offline"
    ]
    ends += [
        commands.LockRelease(
            lock_key=lock.lock_key, force=True, reason="test over", request_id=os.urandom(16)
        )
        for lock in snapshot.locks
    ]
    with contextlib.suppress(CoordinationError):
        for begin in range(0, len(ends), 1000):
            client.submit(ends[begin : begin + 1000])


def empty_tables() -> None:
    """Delete every row of coordination but the watermark."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE coordination_distributedtask SET target_session_id = NULL, claimed_by_id = NULL"
        )
        for table in TABLES:
            cursor.execute(f"DELETE FROM coordination_{table}")


def projected(client: NodeClient, timeout_s: float = 15.0) -> int:
    """Wait until the rows show everything the node has applied; the watermark."""
    from coordination.selectors import projected_revision

    revision = client.status()["revision"]
    return eventually(
        lambda: (seen := projected_revision()) >= revision and seen, timeout_s, what=f"revision {revision}"
    )


@pytest.fixture(scope="session")
def committed_database(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """The test database. pytest-django makes it only where a collected test asks for it by a mark."""
    with django_db_blocker.unblock():
        if connection.settings_dict["NAME"].startswith("test_"):
            yield
            return
        made = setup_databases(verbosity=0, interactive=False, aliases={"default"})
        try:
            yield
        finally:
            teardown_databases(made, verbosity=0)


@pytest.fixture(scope="session")
def node_process(committed_database: None, django_db_blocker: Any) -> Iterator[Cluster]:
    """The shared node, stopped before the test database goes."""
    with django_db_blocker.unblock():
        cluster = shared_node()
    yield cluster
    stop_shared_node()


@pytest.fixture
def live_node(node_process: Cluster, django_db_blocker: Any) -> Iterator[Cluster]:
    """A running node that Django's settings name, over committed rows; cleaned up afterwards."""
    with django_db_blocker.unblock(), pointed_at(node_process):
        yield node_process
        client = node_process.client()
        quieten(client)
        projected(client)
        empty_tables()
        connections.close_all()


@pytest.fixture
async def async_client() -> AsyncIterator[None]:
    """Closes what the test's event loop opened to the nodes."""
    yield
    await close_async_node_client()
