"""What a replica does with messages it must not act on: nonsense, other clusters, old chunks, the unadmitted."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordination.log import identity, members, wire
from coordination.log.contract import MemberSettings, NotApplied, Outcome, Peer
from coordination.log.replica import Replica
from coordination.log.waiting import Waiting
from tests.log.directed import begin, elect, propose
from tests.log.machines import Items
from tests.log.world import SimDisk, World


class Wire:
    """Links that remember what was sent and who was dropped."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, wire.Message]] = []
        self.dropped: list[str] = []
        self.met: dict[str, str] = {}

    def send(self, peer: str, frame: bytes) -> bool:
        self.sent.append((peer, wire.decode(frame).message))
        return True

    def backlog(self, peer: str) -> int:
        return 0

    def drop(self, peer: str, reason: str) -> None:
        self.dropped.append(peer)

    def meet(self, peer: str, address: str) -> None:
        self.met[peer] = address

    def forget(self, peer: str) -> None:
        self.met.pop(peer, None)


FOUNDERS = members.configured("n1", "n1", (("n2", "n2"), ("n3", "n3")))


def greeting(
    cluster_id: str,
    instance: str,
    standing: str,
    *,
    history: bool,
    of: members.Members = FOUNDERS,
    address: str = "",
) -> wire.Greeting:
    return wire.Greeting(cluster_id, instance, standing, history, address, of)


class Seated:
    """A member of three whose peers are played by the test; it founds a cluster with them unless they are silent."""

    def __init__(self, *, are_silent: bool = False) -> None:
        self.wire, self.machine, self.disk = Wire(), Items(), SimDisk(random.Random(1))
        peers = (Peer("n2", "n2"), Peer("n3", "n3"))
        settings = MemberSettings("n1", Path("/nowhere"), peers=peers)
        self.replica = Replica(settings, self.disk, self.wire, self.machine, lambda *_: None)
        for peer in ("n2", "n3"):
            self.replica.link_up(peer)
            if not are_silent:
                self.hear(peer, 0, greeting("", f"instance of {peer}", identity.NEW, history=False))

    def hear(self, peer: str, term: int, message: wire.Message) -> list[wire.Message]:
        """Deliver one message, let a step pass, and return what was answered to that peer."""
        self.wire.sent.clear()
        self.replica.frame(peer, wire.encode(term, message))
        self.replica.step()
        return [sent for to, sent in self.wire.sent if to == peer]

    def fill(self, last: int) -> None:
        """The leader n2 of term 1 sends entries up to `last`, all committed."""
        entries = [(b"\0%d" % index, index, 1) for index in range(2, last + 1)]
        self.hear("n2", 1, wire.AppendEntries(1, last, 1, 0, 1, entries))

    def facts(self) -> tuple[object, ...]:
        replica = self.replica
        return replica.journal[:], replica.raftCommitIndex, replica.raftLastApplied, list(self.machine.items)


@pytest.fixture
def seated() -> Seated:
    return Seated()


def test_three_without_history_found_a_cluster_under_one_id(seated) -> None:
    expected = identity.bootstrap_cluster_id(
        ["instance of n2", "instance of n3", seated.replica.identity.instance]
    )

    assert seated.replica.identity.standing == identity.MEMBER
    assert seated.replica.identity.cluster_id == expected


def test_a_peer_of_another_cluster_is_dropped_and_counted(seated) -> None:
    seated.hear("n2", 9, greeting("ff" * 16, "other", identity.MEMBER, history=True))

    assert seated.wire.dropped == ["n2"]
    assert seated.replica.counters["refused_wrong_cluster"] == 1


def test_bytes_that_are_no_message_drop_the_peer(seated) -> None:
    before = seated.facts()

    seated.replica.frame("n2", b"\x80\x04no message")

    assert seated.wire.dropped == ["n2"]
    assert seated.facts() == before


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_malformed(data: bytes) -> None:
    try:
        envelope = wire.decode(data)
    except wire.Malformed:
        return
    assert isinstance(envelope, wire.Envelope)


@pytest.mark.parametrize(
    "message",
    [
        wire.AppendEntries(1, 5, 1, 0, 1, [(b"\0x", 2, 1)]),
        wire.Forward(1, b"payload"),
        wire.Admission(1, "i", 5),
        wire.SnapshotChunk(1, 9, 1, 10, 0, 1, b"0123456789"),
    ],
)
def test_nothing_is_heard_before_the_greeting(seated, message) -> None:
    seated.replica.link_down("n2")
    before = seated.facts()

    answers = seated.hear("n2", 1, message)

    assert answers == []
    assert seated.facts() == before


def test_a_deposed_leader_is_told_the_newer_term(seated) -> None:
    seated.fill(5)
    seated.hear("n3", 7, wire.AppendEntries(7, 5, 5, 1, 1, []))
    before = seated.facts()

    (answer,) = seated.hear("n2", 1, wire.AppendEntries(1, 9, 5, 1, 2, [(b"\0old", 6, 1)]))

    assert isinstance(answer, wire.AppendAnswer)
    assert not answer.success
    assert seated.facts() == before


def test_entries_that_are_here_are_neither_cut_nor_written_again(seated) -> None:
    seated.fill(8)
    before = seated.facts()

    (answer,) = seated.hear("n2", 1, wire.AppendEntries(1, 8, 3, 1, 2, [(b"\0%d" % 4, 4, 1)]))

    assert (answer.success, answer.next_index) == (True, 9)  # all that is committed is known to be equal
    assert seated.facts() == before


def test_refusals_give_one_constant_hint(seated) -> None:
    seated.fill(4)

    hints = {
        seated.hear("n2", 1, wire.AppendEntries(1, 4, previous, 1, 2, []))[0].next_index
        for previous in (9, 20, 7)
    }

    assert hints == {5}


def test_a_chunk_of_an_older_snapshot_changes_nothing(seated) -> None:
    seated.fill(8)
    before = seated.facts()

    (answer,) = seated.hear("n2", 1, wire.SnapshotChunk(1, 6, 1, 4, 0, 2, b"data"))

    assert (answer.success, answer.next_index) == (True, 9)
    assert seated.facts() == before


def test_a_damaged_snapshot_is_neither_installed_nor_acknowledged(seated) -> None:
    seated.fill(4)
    before = seated.facts()

    answers = seated.hear("n2", 1, wire.SnapshotChunk(1, 60, 1, 4, 0, 2, b"junk"))

    assert answers == []
    assert seated.facts() == before
    assert seated.replica.counters["refused_snapshots"] == 1


def test_a_forwarded_payload_over_the_limit_is_refused(seated) -> None:
    (answer,) = seated.hear("n2", 0, wire.Forward(3, bytes(5 * 1024 * 1024)))

    assert (answer.request_id, answer.error) == (3, 6)


def test_kinds_that_pysyncobj_would_unpickle_are_applied_as_nothing(seated) -> None:
    bomb = b"\x03cos\nsystem\n(S'false'\ntR."
    entries = [(bomb, 2, 1), (b"\x02" + bomb[1:], 3, 1), (b"\0real", 4, 1)]

    seated.hear("n2", 1, wire.AppendEntries(1, 4, 1, 0, 1, entries))

    assert seated.machine.items == [b"real"]
    assert seated.replica.raftLastApplied == 4


def test_a_member_that_hears_its_leader_votes_for_nobody_else(seated) -> None:
    seated.fill(4)

    assert seated.hear("n3", 1, wire.PreVote(2, 90, 90)) == []
    assert seated.hear("n3", 2, wire.RequestVote(2, 90, 90, transfer=False)) == []
    assert seated.replica.raftCurrentTerm == 1


def test_a_transfer_is_a_reason_to_vote_although_the_leader_lives(seated) -> None:
    seated.fill(4)

    answers = seated.hear("n3", 2, wire.RequestVote(2, 90, 90, transfer=True))

    assert answers == [wire.VoteGranted(2)]


def test_a_lost_vote_is_granted_again_to_the_same_candidate_only(seated) -> None:
    request = wire.RequestVote(2, 90, 90, transfer=True)

    assert seated.hear("n3", 2, request) == [wire.VoteGranted(2)]
    assert seated.hear("n3", 2, request) == [wire.VoteGranted(2)]
    assert seated.hear("n2", 2, request) == []


def test_a_directory_that_meets_a_history_joins_and_does_not_vote() -> None:
    member = Seated(are_silent=True)

    member.hear("n2", 4, greeting("ab" * 16, "instance of n2", identity.MEMBER, history=True))

    assert (member.replica.identity.standing, member.replica.identity.cluster_id) == (
        identity.JOINING,
        "ab" * 16,
    )
    assert member.hear("n2", 5, wire.RequestVote(5, 90, 90, transfer=True)) == []
    (answer,) = member.hear("n2", 5, wire.AppendEntries(5, 1, 1, 0, 1, []))
    assert not answer.counted


def test_an_admission_for_another_directory_or_term_is_ignored() -> None:
    with World(3, 3, quiet=True) as world:
        begin(world)
        elect(world, "n1")
        propose(world, "n1", 5)
        world.run(0.5)
        world.wipe("n2")
        world.block("n3", "n1")  # so the leader cannot confirm that all others have answered
        world.restart("n2")
        world.run(1.0)
        wiped = world.members["n2"].live
        node = wiped._nodes["n1"]
        assert wiped.identity.standing == identity.JOINING

        wiped._on_admission(node, wiped.raftCurrentTerm, wire.Admission(wiped.raftCurrentTerm, "another", 2))
        wiped._on_admission(node, 0, wire.Admission(wiped.raftCurrentTerm - 1, wiped.identity.instance, 2))
        assert wiped.identity.standing == identity.JOINING

        world.unblock("n3", "n1")
        world.until(lambda: world.is_whole("n2"))
        world.judge()


def test_a_member_that_never_led_has_nothing_to_hand_over() -> None:
    outcomes: list[Outcome] = []
    with World(3, quiet=True) as world:
        world.until(lambda: world.leader() is not None)
        follower = next(name for name in world.names if name != world.leader())

        world.members[follower].live.hand_over(Waiting(outcomes.append, world.now + 1))

        assert outcomes == [NotApplied("this member does not lead")]
