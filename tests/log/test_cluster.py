"""Three real processes: killed, stopped, wiped and restarted under traffic; nothing acknowledged is lost."""

import signal
import threading
import time
from collections.abc import Iterator
from typing import Self

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


@pytest.fixture(scope="module")
def calm_cluster(tmp_path_factory) -> Iterator[Cluster]:
    """One for all tests that break nothing; they write payloads of their own."""
    cluster = Cluster(tmp_path_factory.mktemp("calm"), heartbeat_timeout_s=0.5, election_timeout_s=1.0)
    try:
        cluster.start()
        cluster.wait_for_leader()
        yield cluster
    finally:
        cluster.close()


class Traffic:
    """A few threads that write through whichever member answers, and remember what was acknowledged."""

    def __init__(self, cluster: Cluster, threads: int = 4, name: str = "traffic") -> None:
        self._cluster, self._name, self._is_over = cluster, name, threading.Event()
        self.acknowledged: list[str] = []
        self.refused: list[str] = []
        self._threads = [threading.Thread(target=self._write, args=(n,)) for n in range(threads)]

    def __enter__(self) -> Self:
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
            payload = f"{self._name}-{thread}-{number}"
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


def test_any_member_takes_writes_and_all_agree(calm_cluster) -> None:
    written = []
    for number, name in enumerate(calm_cluster.names * 5):
        answer = calm_cluster.nodes[name].ask(op="propose", payload=f"any-{number}")
        written.append((answer["value"], f"any-{number}"))

    items = calm_cluster.wait_for_agreement()

    assert [items[place - 1] for place, _ in written] == [payload for _, payload in written]
    assert [place for place, _ in written] == sorted(place for place, _ in written)


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
        wait_until(
            lambda: cluster.status(wiped)["counters"].get("snapshots_installed", 0) > 0, "a snapshot", 30.0
        )
        wait_until(lambda: cluster.status(wiped)["role"] == "follower", "admission", 30.0)
        traffic.wait_for(50)

    check(cluster, traffic)
    other = next(name for name in cluster.names if name != wiped)
    cluster.kill(other)  # now the wiped one is needed for a majority
    assert "two are enough" in cluster.write("two are enough")


def test_leadership_is_handed_over_on_request(calm_cluster) -> None:
    old = calm_cluster.wait_for_leader()
    target = next(name for name in calm_cluster.names if name != old)

    with Traffic(calm_cluster, name="handing") as traffic:
        traffic.wait_for(20)
        answer = calm_cluster.nodes[old].ask(op="transfer", to=target)
        traffic.wait_for(20)

    assert (answer["outcome"], answer["value"]) == ("Committed", target)
    check(calm_cluster, traffic)


def test_a_read_barrier_at_any_member_covers_what_was_acknowledged(calm_cluster) -> None:
    for number in range(10):
        written = calm_cluster.write(f"value-{number}")
        for name in calm_cluster.names:
            assert calm_cluster.nodes[name].ask(op="read")["outcome"] == "Committed"
            assert written in calm_cluster.items(name)


def test_a_member_cut_off_from_the_others_neither_writes_nor_reads(cluster) -> None:
    lonely, *others = cluster.names
    cluster.kill(*others)

    outcomes = {cluster.nodes[lonely].ask(op=op, payload="x")["outcome"] for op in ("propose", "read")}

    assert outcomes <= {"NotApplied", "Unknown"}


def test_a_status_names_all_members_and_their_lag(calm_cluster) -> None:
    leader = calm_cluster.wait_for_leader()
    calm_cluster.write("something")
    wait_until(lambda: all(m["lag"] == 0 for m in calm_cluster.status(leader)["members"]), "no lag")

    status = calm_cluster.status(leader)

    assert (status["role"], status["leader"]) == ("leader", leader)
    assert sorted(member["id"] for member in status["members"]) == calm_cluster.names
    assert all(member["last_seen_s"] < 1 for member in status["members"])
    assert {calm_cluster.status(name)["cluster_id"] for name in calm_cluster.names} == {status["cluster_id"]}
