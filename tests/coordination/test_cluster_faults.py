"""Three real nodes over a PostgreSQL of their own, while parts of it are killed, paused, stopped and wiped."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from coordination.errors import CoordinationError
from coordination.log.client import NodeClient
from coordination.machine import commands
from coordination.machine.codec import decode_snapshot
from coordination.machine.commands import TaskSpec
from coordination.machine.outcomes import Accepted, ClaimAnswer, SessionAnswer
from gaia_site.embedded.servers import Servers, servers_in
from tests.cluster import ROOT, Cluster, eventually

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """A PostgreSQL that a test may stop, with the tables in it."""
    folder = Path(tempfile.mkdtemp(prefix="gaia-f-", dir="/tmp"))
    folder.chmod(0o711)
    found = servers_in(folder, overrides={"max_connections": "60"})
    found.start()
    environment = {**os.environ, "DATABASE_URL": found.postgres.url}
    subprocess.run(
        [
            sys.executable,
            str(ROOT / "manage.py"),
            "migrate",
            "coordination",
            "--skip-checks",
            "--verbosity",
            "0",
        ],
        env=environment,
        cwd=ROOT,
        check=True,
        timeout=120,
    )
    yield found
    found.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster(servers: Servers) -> Iterator[Cluster]:
    """Three nodes that write into it. Each test leaves all of them running."""
    nodes = Cluster(3, database_url=servers.postgres.url)
    try:
        yield nodes.start()
    finally:
        nodes.close()


def query(servers: Servers, statement: str, *values: object) -> list[tuple]:
    with psycopg.connect(servers.postgres.url, autocommit=True) as connection:
        cursor = connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


def insert_rows(servers: Servers, count: int, task_type: str) -> list[str]:
    """Task rows as the service leaves them before it offers them to the machine."""
    task_ids = [str(uuid.uuid4()) for _ in range(count)]
    query(
        servers,
        "INSERT INTO coordination_distributedtask (id, idempotency_key, body_digest, task_type, task_data,"
        " required_capabilities) SELECT id::uuid, id, '', %s, '{}', '[]' FROM unnest(%s::text[]) AS v (id)",
        task_type,
        task_ids,
    )
    return task_ids


@dataclass
class Worker:
    """A session that queues, claims and completes tasks one after the other, and notes what was acknowledged.

    Its tasks have a type of their own. The feeder may queue them first, so a claim may get any of them.
    """

    client: NodeClient
    name: str
    task_ids: list[str]
    completed: dict[str, int] = field(default_factory=dict)
    failures: list[BaseException] = field(default_factory=list)
    _thread: threading.Thread | None = None

    def start(self) -> "Worker":
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def join(self) -> "Worker":
        assert self._thread is not None
        self._thread.join(120)
        assert not self._thread.is_alive()
        if self.failures:
            raise self.failures[0]
        return self

    def _run(self) -> None:
        try:
            lease = self._register()
            for task_id in self.task_ids:
                self._work_on(task_id, lease)
        except BaseException as failure:  # noqa: BLE001  handed to the test
            self.failures.append(failure)

    def ask(self, command: commands.AnyCommand) -> Accepted:
        """The accepted outcome; asked again under the same id until somebody answers."""

        def answered() -> Accepted | None:
            try:
                (outcome,) = self.client.submit([command])
            except CoordinationError:
                return None
            assert isinstance(outcome, Accepted), outcome
            return outcome

        return eventually(answered, 60.0, 0.05, f"an answer to {type(command).__name__}")

    def _register(self) -> int:
        answer = self.ask(
            commands.SessionRegister(
                request_id=os.urandom(16), session_id=str(uuid.uuid4()), session_name=self.name
            )
        ).value
        assert isinstance(answer, SessionAnswer)
        return answer.lease_token

    def _work_on(self, task_id: str, lease: int) -> None:
        spec = TaskSpec(task_type=self.name)
        self.ask(commands.TaskEnqueue(request_id=os.urandom(16), task_id=task_id, spec=spec))
        claimed = self.ask(
            commands.TaskClaim(
                request_id=os.urandom(16),
                session_name=self.name,
                lease_token=lease,
                task_types=(self.name,),
            )
        ).value
        assert isinstance(claimed, ClaimAnswer)
        assert len(claimed.grants) == 1, claimed.reason
        grant = claimed.grants[0]
        assert grant.task_id not in self.completed
        self.ask(
            commands.TaskComplete(
                request_id=os.urandom(16), task_id=grant.task_id, claim_token=grant.claim_token
            )
        )
        self.completed[grant.task_id] = grant.claim_token


def wait_until_projected(servers: Servers, client: NodeClient) -> int:
    """The watermark once it shows all that was acknowledged."""
    revision = client.read_index()

    def shown() -> int:
        found = query(servers, "SELECT revision FROM coordination_projectionstate")
        return found and found[0][0] >= revision and found[0][0]

    return eventually(shown, 40.0, 0.05, f"revision {revision} in the rows")


def check_rows(servers: Servers, workers: list[Worker]) -> None:
    """Everything acknowledged is in the rows, once."""
    expected = {task_id: token for worker in workers for task_id, token in worker.completed.items()}
    task_ids = list(expected)
    rows = query(
        servers,
        "SELECT id::text, status, claim_token FROM coordination_distributedtask WHERE id::text = ANY(%s)",
        task_ids,
    )
    assert {task_id: token for task_id, status, token in rows if status == "completed"} == expected
    attempts = query(
        servers,
        "SELECT task_id::text, count(*), count(*) FILTER (WHERE outcome = 'completed')"
        " FROM coordination_taskattempt WHERE task_id::text = ANY(%s) GROUP BY 1",
        task_ids,
    )
    assert sorted(attempts) == sorted((task_id, 1, 1) for task_id in task_ids)
    history = query(
        servers,
        "SELECT kind, count(*), count(DISTINCT subject) FROM coordination_coordinationevent"
        " WHERE subject = ANY(%s) GROUP BY 1 ORDER BY 1",
        task_ids,
    )
    count = len(task_ids)
    assert history == [(kind, count, count) for kind in ("task_claimed", "task_completed", "task_enqueued")]


def worker_on(cluster: Cluster, servers: Servers, tasks: int) -> Worker:
    """A worker with rows for its tasks, not started."""
    name = f"worker-{uuid.uuid4().hex[:8]}"
    return Worker(cluster.client(), name, insert_rows(servers, tasks, name))


def all_completed(workers: list[Worker]) -> int:
    """How many completions were acknowledged so far; raises what stopped a worker."""
    for worker in workers:
        if worker.failures:
            raise worker.failures[0]
    return sum(len(worker.completed) for worker in workers)


def test_nothing_acknowledged_is_lost_or_doubled_when_leaders_die_or_hang(servers, cluster):
    gaps_before = query(servers, GAPS)
    workers = [worker_on(cluster, servers, 40).start() for _ in range(3)]
    eventually(lambda: all_completed(workers) > 10, 60, what="traffic")

    killed = cluster.leader()
    killed.kill(signal.SIGKILL)
    done = all_completed(workers)
    eventually(lambda: all_completed(workers) > done + 10, 60, what="traffic that goes on")
    killed.start()
    cluster.wait_until_ready()
    paused = cluster.leader()
    paused.signal(signal.SIGSTOP)
    for worker in workers:
        worker.join()
    paused.signal(signal.SIGCONT)
    cluster.wait_until_ready()

    wait_until_projected(servers, cluster.client())
    check_rows(servers, workers)
    assert query(servers, GAPS) == gaps_before, "every event was projected by somebody"
    states = eventually(lambda: same_states(cluster), 20, 0.2, "equal states")
    assert len(states) == 1


GAPS = (
    "SELECT data FROM coordination_coordinationevent WHERE kind = 'projection_reconciled' ORDER BY raft_index"
)


def tasks_of(cluster: Cluster) -> set[str]:
    """The live tasks, as the node that answers has them."""
    return {task.task_id for task in decode_snapshot(cluster.client().state()).tasks}


def same_states(cluster: Cluster) -> set[bytes] | None:
    """The states of all nodes, once they are the same."""
    try:
        states = {cluster.client(node).state() for node in cluster.nodes}
    except CoordinationError:
        return None
    return states if len(states) == 1 else None


def test_postgresql_may_go_away_and_come_back(servers, cluster):
    """Claims go on meanwhile, and the rows catch up exactly once."""
    before = worker_on(cluster, servers, 5).start().join()
    during = worker_on(cluster, servers, 30)
    wait_until_projected(servers, cluster.client())

    servers.stop()
    during.start().join()
    servers.start()

    wait_until_projected(servers, cluster.client())
    check_rows(servers, [before, during])
    (left,) = insert_rows(servers, 1, "left")
    eventually(lambda: left in tasks_of(cluster), what="the feeder, whose connection was cut too")


def test_a_cluster_that_lost_all_its_data_begins_above_the_rows(servers, cluster):
    worker = worker_on(cluster, servers, 5).start().join()
    (left,) = insert_rows(servers, 1, "left")
    wait_until_projected(servers, cluster.client())
    highest = max(worker.completed.values())
    eventually(
        lambda: left in tasks_of(cluster),
        what="the feeder",
    )

    for node in cluster.nodes:
        node.stop()
        shutil.rmtree(cluster.folder / node.node_id)
    for node in cluster.nodes:
        node.start()
    cluster.wait_until_ready()

    after = worker_on(cluster, servers, 3).start().join()
    wait_until_projected(servers, cluster.client())
    assert min(after.completed.values()) > highest + 100_000
    check_rows(servers, [after])
    completed = query(
        servers,
        "SELECT count(*) FROM coordination_distributedtask WHERE status = 'completed' AND id::text = ANY(%s)",
        list(worker.completed),
    )
    assert completed == [(5,)]
    eventually(
        lambda: left in tasks_of(cluster),
        what="the task that was left comes back to the queue",
    )


def test_a_node_ends_in_order_when_told_to(cluster):
    follower = next(node for node in cluster.nodes if node is not cluster.leader())

    assert follower.stop() == 0
    follower.start()
    cluster.wait_until_ready()


def test_leadership_can_be_handed_over(cluster):
    leader = cluster.leader()
    other = next(node for node in cluster.nodes if node is not leader)

    cluster.client().transfer(other.node_id)

    eventually(lambda: cluster.leader() is other, what="the new leader")
