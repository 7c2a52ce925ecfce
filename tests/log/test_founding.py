"""How a cluster begins and how a directory finds the one it belongs to, with real members on loopback."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from coordination.log.contract import Committed, MemberSettings, NotApplied, Peer
from coordination.log.raft import MIN_SILENCE_S, Member
from tests.log.machines import Items, outcome_of
from tests.log.net import free_ports, wait_until

SECRET = "a secret that all members share"


class Seats:
    """Members in this process, each with a directory and a port of its own; stopped at the end of the test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = dict(zip("abcdef", free_ports(6), strict=True))
        self.running: dict[str, Member] = {}
        self.machines: dict[str, Items] = {}

    def address(self, name: str) -> str:
        return f"127.0.0.1:{self._ports[name]}"

    def move(self, name: str) -> None:
        (self._ports[name],) = free_ports(1)

    def start(self, name: str, told_of: str, **values: object) -> Member:
        peers = tuple(Peer(other, self.address(other)) for other in told_of if other != name)
        settings = MemberSettings(
            name,
            self._folder / name,
            secret=SECRET,
            bind=self.address(name),
            peers=peers,
            heartbeat_timeout_s=0.3,
            election_timeout_s=0.6,
            **values,
        )
        self.machines[name] = Items()
        self.running[name] = Member(settings, self.machines[name])
        self.running[name].start()
        return self.running[name]

    def stop(self, name: str) -> None:
        self.running.pop(name).stop()

    def leader(self) -> Member:
        def leading() -> list[Member]:
            return [member for member in self.running.values() if member.status().role == "leader"]

        wait_until(lambda: len(leading()) == 1, "one leader", 30.0)
        return leading()[0]

    def role(self, name: str) -> str:
        return self.running[name].status().role

    def close(self) -> None:
        for name in list(self.running):
            self.stop(name)


@pytest.fixture
def seats(tmp_path) -> Iterator[Seats]:
    seats = Seats(tmp_path)
    yield seats
    seats.close()


def stays(seats: Seats, name: str, role: str, steps: int = 40) -> None:
    """For several election time-outs this member's role is this one."""
    seen = []
    wait_until(lambda: seen.append(seats.role(name)) or len(seen) > steps, "some looks", 10.0)
    assert set(seen) == {role}


def test_all_founders_must_be_there_at_the_very_first_start(seats) -> None:
    seats.start("a", "abc")
    seats.start("b", "abc")
    stays(seats, "a", "joining")

    seats.start("c", "abc")

    assert isinstance(outcome_of(lambda answer: seats.leader().propose(b"first", answer)), Committed)


def test_after_the_first_start_a_majority_is_enough(seats) -> None:
    for name in "abc":
        seats.start(name, "abc")
    seats.leader()
    seats.close()

    seats.start("a", "abc")
    seats.start("c", "abc")

    assert seats.leader().status().cluster_id


def test_founders_that_mean_different_clusters_found_none(seats) -> None:
    seats.start("a", "ab")
    seats.start("b", "abc")
    seats.start("c", "abc")

    stays(seats, "a", "joining")
    assert {seats.role(name) for name in "bc"} == {"joining"}


def test_two_clusters_that_began_apart_never_merge(seats) -> None:
    seats.start("a", "a")
    seats.start("b", "b")
    first, second = seats.running["a"], seats.running["b"]
    wait_until(lambda: seats.role("a") == seats.role("b") == "leader", "two clusters")
    ids = first.status().cluster_id, second.status().cluster_id

    outcome_of(lambda answer: first.add_member("b", seats.address("b"), answer))
    wait_until(lambda: first.status().counters.get("refused_wrong_cluster", 0) > 0, "a refusal")

    assert (first.status().cluster_id, second.status().cluster_id) == ids
    assert ids[0] != ids[1]
    assert seats.role("b") == "leader"
    assert [view.role for view in first.status().members if view.id == "b"] == ["learner"]


def test_without_leave_to_found_an_empty_directory_waits_to_be_added(seats) -> None:
    seats.start("d", "d", may_found=False)
    stays(seats, "d", "joining")
    seats.start("a", "a")
    seats.leader()

    outcome_of(lambda answer: seats.running["a"].add_member("d", seats.address("d"), answer))

    wait_until(lambda: seats.role("d") == "follower", "it votes")
    assert seats.running["d"].status().cluster_id == seats.running["a"].status().cluster_id


def test_a_cluster_grows_from_one_to_three_and_shrinks_to_one(seats) -> None:
    seats.start("a", "a")
    seats.leader()
    for name in "bc":
        seats.start(name, "a", may_found=False)
        outcome_of(lambda answer, name=name: seats.leader().add_member(name, seats.address(name), answer))
        wait_until(lambda name=name: seats.role(name) == "follower", "it votes", 30.0)
    assert outcome_of(lambda answer: seats.leader().propose(b"three", answer)) == Committed(1)

    for name in "bc":
        wait_until(lambda name=name: isinstance(_removed(seats, name), Committed), "it goes", 30.0)

    assert outcome_of(lambda answer: seats.running["a"].propose(b"one", answer)) == Committed(2)


def _removed(seats: Seats, name: str) -> object:
    return outcome_of(lambda answer: seats.leader().remove_member(name, answer))


def test_the_last_voter_stays(seats) -> None:
    seats.start("a", "a")

    outcome = outcome_of(lambda answer: seats.leader().remove_member("a", answer))

    assert outcome == NotApplied("a is the only voting member", "conflict")


def test_a_member_that_moves_is_found_at_its_new_address(seats) -> None:
    for name in "abc":
        seats.start(name, "abc")
    seats.leader()
    seats.stop("c")
    seats.move("c")

    seats.start("c", "ab")  # the greatest id: the others dial it, at an address where nobody is

    wait_until(lambda: seats.role("c") == "follower", "it is back", 30.0)
    shown = {view.id: view.address for view in seats.leader().status().members}
    wait_until(
        lambda: {v.id: v.address for v in seats.leader().status().members}["c"] == seats.address("c"),
        "its address",
    )
    assert set(shown) == {"a", "b", "c"}


def test_a_single_node_without_sockets_takes_nobody_in(tmp_path) -> None:
    member = Member(MemberSettings("a", tmp_path / "a"), Items())
    member.start()
    try:
        wait_until(lambda: member.status().role == "leader", "a leader of one")
        outcome = outcome_of(lambda answer: member.add_member("b", "127.0.0.1:1", answer))
        assert outcome == NotApplied("this node runs alone: CLUSTER_ENABLED is false", "conflict")
    finally:
        member.stop()


def test_a_clusters_directory_does_not_start_alone(seats, tmp_path) -> None:
    for name in "abc":
        seats.start(name, "abc")
    seats.leader()
    wait_until(lambda: seats.running["a"].status().commit_index > 2, "the members are written down")
    seats.stop("a")

    with pytest.raises(ValueError, match="belongs to a cluster of 3"):
        Member(MemberSettings("a", tmp_path / "a"), Items()).start()


def test_silence_is_noticed_within_an_election_time_out(seats) -> None:
    member = seats.start("a", "a")

    assert member._links._silence_s <= max(MIN_SILENCE_S, 0.6)
    assert member._links._ping_s < member._links._silence_s / 2
