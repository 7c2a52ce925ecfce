"""Members that come and go while three real nodes run, by the command and by the services."""

import json
import urllib.request
from collections.abc import Iterator
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from coordination import services
from coordination.errors import NotFound, RejectedError
from coordination.log.client import NodeClient
from coordination.machine import commands
from tests.cluster import Cluster, NodeProcess, eventually, free_ports, pointed_at

pytestmark = [pytest.mark.timeout(240), pytest.mark.usefixtures("live_node")]


def said(*arguments: str) -> list[dict]:
    out = StringIO()
    call_command("cluster", *arguments, "--json", stdout=out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.fixture
def cluster(live_node) -> Iterator[Cluster]:
    cluster = Cluster(3, database_url=None)
    try:
        cluster.start()
        with pointed_at(cluster):
            yield cluster
    finally:
        cluster.close()


def newcomer(cluster: Cluster, node_id: str) -> NodeProcess:
    """A node with an empty directory that may found nothing and is told of those there are."""
    raft, http = free_ports(2)
    asked = ",".join(f"{node.node_id}={node.raft}" for node in cluster.nodes)
    node = cluster._node(node_id, raft, http, asked, 3, None, {"CLUSTER_BOOTSTRAP": "false"})
    cluster.nodes.append(node)
    node.start()
    return node


def write(client: NodeClient, number: int) -> None:
    """A lock that was acknowledged."""
    key = number.to_bytes(16, "big")
    client.submit(
        [commands.LockAcquire(lock_key=f"lock-{number}", owner_id="me", ttl_ms=600_000, request_id=key)]
    )


def status_of(cluster: Cluster, node: NodeProcess) -> dict:
    return cluster.client(node).status_of_each()[node.url] or {}


def roles(cluster: Cluster, by: NodeProcess) -> dict[str, str]:
    return {member["id"]: member["role"] for member in status_of(cluster, by).get("members", ())}


def test_a_member_is_added_learns_votes_and_carries_a_majority(cluster):
    client = cluster.client(*cluster.nodes)
    for number in range(50):
        write(client, number)
    new = newcomer(cluster, "a-new-one")
    eventually(lambda: status_of(cluster, new).get("role") == "joining", 60, what="it waits")
    eventually(lambda: "not_a_member_yet" in new.log, 20, what="it says what is to be done")

    added = {member["id"]: member for member in said("add", "a-new-one", new.raft)}

    assert added["a-new-one"]["role"] in ("learner", "follower", "joining")
    eventually(lambda: roles(cluster, cluster.leader()).get("a-new-one") == "follower", what="it votes")
    assert said("add", "a-new-one", new.raft)  # repeating it changes nothing
    with pytest.raises(CommandError, match="is a member already"):
        said("add", "a-new-one", "127.0.0.1:9")
    with pytest.raises(RejectedError, match="another member's address"):
        services.add_member("another", new.raft)
    removed = next(node for node in cluster.nodes if node is not new and node is not cluster.leader())
    said("remove", removed.node_id)
    gone = next(node for node in cluster.nodes if node not in (new, removed))
    gone.kill()  # of the three that are left the new one is needed now
    write(cluster.client(*(node for node in cluster.nodes if node is not gone)), 1000)
    assert status_of(cluster, new)["revision"] >= 51


def test_a_removed_leader_hands_over_is_told_and_stays_quiet_after_a_restart(cluster):
    old = cluster.leader()
    others = [node for node in cluster.nodes if node is not old]

    left = said("remove", old.node_id)

    assert {member["id"] for member in left} == {node.node_id for node in others}
    eventually(lambda: status_of(cluster, old)["role"] == "removed", what="it knows")
    assert "removed_from_the_cluster" in old.log
    term = status_of(cluster, others[0])["term"]
    old.stop()
    old.start()  # with the configuration of the first day
    eventually(lambda: status_of(cluster, old).get("role") == "removed", 60, what="it is told again")
    write(cluster.client(*others), 1)
    assert status_of(cluster, others[0])["term"] == term
    with pytest.raises(NotFound):
        services.remove_member(old.node_id)
    said("add", old.node_id, old.raft)  # and it may come back as it is
    eventually(lambda: status_of(cluster, old)["role"] == "follower", 30, what="it is a member again")


def test_the_last_majority_is_not_given_away(cluster):
    first, second, third = cluster.nodes
    leader = cluster.leader()
    dead = next(node for node in cluster.nodes if node is not leader)
    dead.kill()
    alive = next(node for node in (first, second, third) if node not in (leader, dead))

    eventually(lambda: _is_refused(alive.node_id), what="a refusal")

    assert len(roles(cluster, leader)) == 3
    said("remove", dead.node_id)  # the dead one may go
    assert set(roles(cluster, leader)) == {leader.node_id, alive.node_id}


def _is_refused(node_id: str) -> bool:
    try:
        services.remove_member(node_id)
    except RejectedError as refusal:
        return "too few" in refusal.detail
    raise AssertionError("it was removed")


def test_every_node_takes_a_snapshot_when_it_is_asked(cluster):
    for number in range(10):
        write(cluster.client(), number)

    taken = said("snapshot")

    assert {one["node_id"] for one in taken} == {node.node_id for node in cluster.nodes}
    eventually(
        lambda: all(status_of(cluster, node)["snapshot_index"] > 5 for node in cluster.nodes),
        what="snapshots",
    )


def test_an_orderly_stop_of_the_leader_hands_over_first(cluster):
    leader = cluster.leader()
    before = status_of(cluster, leader)["term"]

    assert leader.stop() == 0

    successor = cluster.leader()
    assert status_of(cluster, successor)["term"] == before + 1
    assert status_of(cluster, successor)["counters"].get("pre_votes_asked", 0) == 0


def test_members_are_shown_at_the_address_they_advertise(cluster):
    shown = {member["id"]: member["address"] for member in said("members")}

    assert shown == {node.node_id: node.raft for node in cluster.nodes}


def test_a_node_with_another_secret_is_refused_logged_and_counted_for_prometheus(cluster):
    stranger = newcomer(cluster, "a-stranger")
    cluster.nodes.remove(stranger)
    stranger.stop()
    stranger.environment["CLUSTER_SECRET"] = "another-secret-of-forty-characters-length"
    stranger.start()
    leader = cluster.leader()
    try:
        eventually(lambda: 'kind="wrong_secret"' in _metrics(stranger), 30, what="its own counter")
        eventually(
            lambda: any('kind="unproved"' in _metrics(node) for node in cluster.nodes), 30, what="the counter"
        )
        assert any("peer_refused" in node.log for node in cluster.nodes)
        assert cluster.leader() is leader
    finally:
        stranger.kill()


def _metrics(node: NodeProcess) -> str:
    try:
        with urllib.request.urlopen(f"{node.url}/metrics", timeout=5) as answer:
            return str(answer.read(), "utf-8")
    except OSError:  # it is being started
        return ""
