"""Three real processes: killed, stopped, wiped and restarted under traffic; nothing acknowledged is lost."""

import signal
import threading
import time
from collections.abc import Iterator

import pytest

from tests.log.cluster import Cluster
from tests.log.net import wait_until


@pytest.fixture
def cluster(tmp_path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, snapshot_entries=200, segment_bytes=20_000)
    try:
        cluster.start()
        cluster.wait_for_leader()
        yield cluster
    finally:
        cluster.close()


class Traffic:
    """A few threads that write through whichever member answers, and remember what was acknowledged."""

    def __init__(self, cluster: Cluster, threads: int = 4) -> None:
        self._cluster, self._is_over = cluster, threading.Event()
        self.acknowledged: list[str] = []
        self.refused: list[str] = []
        self._threads = [threading.Thread(target=self._write, args=(n,)) for n in range(threads)]

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(20)

    def _write(self, thread: int) -> None:
        number = 0
        while not self._is_over.is_set():
            names = sorted(self._cluster.nodes)
            node = self._cluster.nodes.get(names[(thread + number) % len(names)]) if names else None
            number += 1
            payload = f"{thread}-{number}"
            outcome = node.ask(op="propose", payload=payload).get("outcome") if node else "gone"
            if outcome == "Committed":
                self.acknowledged.append(payload)
            elif outcome == "NotApplied":
                self.refused.append(payload)
                time.sleep(0.01)

    def wait_for(self, more: int) -> None:
        target = len(self.acknowledged) + more
        wait_until(lambda: len(self.acknowledged) >= target, f"{more} more acknowledged", 30.0)


def check(cluster: Cluster, traffic: Traffic) -> None:
    items = cluster.wait_for_agreement()
    assert len(items) == len(set(items)), "a payload was applied twice"
    assert set(traffic.acknowledged) <= set(items), "an acknowledged payload is gone"
    assert not set(traffic.refused) & set(items), "a payload answered as not applied was applied"


def test_any_member_takes_writes_and_all_agree(cluster) -> None:
    for number, name in enumerate(cluster.names * 5):
        assert cluster.nodes[name].ask(op="propose", payload=f"item-{number}") == {
            "id": cluster.nodes[name]._count,
            "outcome": "Committed",
            "value": number + 1,
        }

    assert cluster.wait_for_agreement() == [f"item-{number}" for number in range(15)]


def test_killing_leaders_under_traffic_loses_nothing(cluster) -> None:
    with Traffic(cluster) as traffic:
        for _ in range(4):
            traffic.wait_for(50)
            leader = cluster.wait_for_leader()
            cluster.kill(leader)
            traffic.wait_for(50)
            cluster.start(leader)
            wait_until(lambda: cluster.leader() is not None, "a leader")

    check(cluster, traffic)


def test_killing_all_at_once_under_traffic_loses_nothing(cluster) -> None:
    with Traffic(cluster) as traffic:
        for _ in range(2):
            traffic.wait_for(100)
            cluster.kill(*list(cluster.nodes))
            cluster.start()
            cluster.wait_for_leader()

    cluster.write("afterwards")
    check(cluster, traffic)


def test_a_stopped_leader_is_replaced_and_falls_in_when_it_goes_on(cluster) -> None:
    old = cluster.wait_for_leader()
    others = {name: node for name, node in cluster.nodes.items() if name != old}
    cluster.nodes[old].signal(signal.SIGSTOP)
    stopped = cluster.nodes.pop(old)
    try:
        wait_until(lambda: cluster.leader() in others, "another leader")
        cluster.write("while it was stopped")
    finally:
        stopped.signal(signal.SIGCONT)
        cluster.nodes[old] = stopped

    wait_until(lambda: cluster.status(old)["leader"] in others, "the old leader follows")
    assert "while it was stopped" in cluster.wait_for_agreement()[-1]


def test_a_wiped_member_catches_up_from_a_snapshot_and_takes_part_again(cluster) -> None:
    with Traffic(cluster) as traffic:
        traffic.wait_for(500)
        wiped = next(name for name in cluster.names if name != cluster.leader())
        cluster.kill(wiped)
        cluster.wipe(wiped)
        cluster.start(wiped)
        wait_until(lambda: cluster.status(wiped)["counters"].get("snapshots_installed", 0) > 0, "a snapshot", 30.0)
        wait_until(lambda: cluster.status(wiped)["role"] == "follower", "admission", 30.0)
        traffic.wait_for(50)

    check(cluster, traffic)
    other = next(name for name in cluster.names if name != wiped)
    cluster.kill(other)  # now the wiped one is needed for a majority
    assert "two are enough" in cluster.write("two are enough")


def test_leadership_is_handed_over_on_request(cluster) -> None:
    old = cluster.wait_for_leader()
    target = next(name for name in cluster.names if name != old)

    with Traffic(cluster) as traffic:
        traffic.wait_for(20)
        answer = cluster.nodes[old].ask(op="transfer", to=target)
        traffic.wait_for(20)

    assert (answer["outcome"], answer["value"]) == ("Committed", target)
    assert cluster.leader() == target
    check(cluster, traffic)


def test_a_read_barrier_at_any_member_covers_what_was_acknowledged(cluster) -> None:
    for number in range(10):
        written = cluster.write(f"value-{number}")
        for name in cluster.names:
            assert cluster.nodes[name].ask(op="read")["outcome"] == "Committed"
            assert written in cluster.items(name)


def test_a_member_cut_off_from_the_others_neither_writes_nor_reads(cluster) -> None:
    lonely, *others = cluster.names
    cluster.kill(*others)

    outcomes = {cluster.nodes[lonely].ask(op=op, payload="x")["outcome"] for op in ("propose", "read")}

    assert outcomes <= {"NotApplied", "Unknown"}


def test_a_status_names_all_members_and_their_lag(cluster) -> None:
    leader = cluster.wait_for_leader()
    cluster.write("something")
    wait_until(lambda: all(m["lag"] == 0 for m in cluster.status(leader)["members"]), "no lag")

    status = cluster.status(leader)

    assert (status["role"], status["leader"]) == ("leader", leader)
    assert sorted(member["id"] for member in status["members"]) == cluster.names
    assert all(member["last_seen_s"] < 1 for member in status["members"])
    assert {cluster.status(name)["cluster_id"] for name in cluster.names} == {status["cluster_id"]}
