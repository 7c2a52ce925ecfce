"""A full disk: the member steps down, refuses with a reason, can be read, and goes on by itself when there is room."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from coordination.log.contract import Committed, MemberSettings, NotApplied, Outcome, Unknown
from coordination.log.disk import DiskFull, Folder
from coordination.log.journal import Journal
from coordination.log.raft import Member
from tests.log.cluster import Cluster
from tests.log.machines import Items, outcome_of
from tests.log.net import wait_until
from tests.log.small_disk import small_disk
from tests.log.world import SimDisk, SimFile, World

# In the simulation


@pytest.fixture
def full(monkeypatch) -> set[SimDisk]:
    """The simulated disks in this set have no room."""
    disks: set[SimDisk] = set()
    write, create, replace = SimFile.write, SimDisk.create, SimDisk.replace

    def refuse(disk: SimDisk) -> None:
        if disk in disks:
            raise DiskFull("the simulated disk is full")

    monkeypatch.setattr(SimFile, "write", lambda file, data: (refuse(file._disk), write(file, data))[1])
    monkeypatch.setattr(SimDisk, "create", lambda disk, *given: (refuse(disk), create(disk, *given))[1])
    monkeypatch.setattr(SimDisk, "replace", lambda disk, *given: (refuse(disk), replace(disk, *given))[1])
    return disks


def test_a_leader_whose_disk_is_full_hands_over_and_follows_again_when_there_is_room(full) -> None:
    with World(1, quiet=True) as world:
        world.until(lambda: world.leader() is not None)
        first = world.leader()
        world.until(lambda: bool(world.acked) or not world.propose(first) + 1)
        full.add(world.members[first].disk)
        world.propose(first)

        world.until(lambda: world.leader() not in (None, first), limit=0.5)
        refused: list[Outcome] = []
        _ask(world, first, refused)
        assert [type(outcome) for outcome in refused] == [NotApplied]
        assert "full" in refused[0].reason
        second = world.leader()
        lost = [world.propose(second) for _ in range(5)]
        world.until(lambda: set(lost) <= world.acked.keys())
        history = world.members[first].machine.history
        assert history, "what it had can be read"

        full.clear()
        world.until(lambda: world.members[first].machine.history == world.members[second].machine.history)
        world.judge()


def _ask(world: World, name: str, outcomes: list[Outcome]) -> None:
    from coordination.log.waiting import Waiting

    world.members[name].live.propose(b"-1", Waiting(outcomes.append, world.now + 1))


@pytest.mark.parametrize("seed", range(12))
def test_nothing_acknowledged_is_lost_whichever_disks_fill_up_and_when(full, seed) -> None:
    with World(seed) as world:
        for _ in range(40):
            name = world.rng.choice(world.names)
            disk = world.members[name].disk
            roll = world.rng.random()
            if roll < 0.25:
                full.add(disk)
            elif roll < 0.6:
                full.discard(disk)
            elif roll < 0.7 and world.members[name].replica is not None and disk not in full:
                world.kill(name, power=True)
                world.at(world.now + 0.5, lambda name=name: world.restart(name))
            for other in world.alive():
                if world.rng.random() < 0.5:
                    world.propose(other)
            world.run(world.rng.uniform(0.05, 0.5))
        full.clear()
        world.run(2.0)
        world.judge()
        assert world.acked


# The journal


def test_a_batch_without_room_is_written_when_there_is_some(tmp_path, monkeypatch) -> None:
    folder = Folder(tmp_path)
    journal = Journal(folder)
    journal.add(b"\0kept", 1, 1)
    journal.sync()
    journal.add(b"\0waits", 2, 1)
    with monkeypatch.context() as patch:
        patch.setattr("os.pwrite", _no_room)
        for _ in range(3):
            with pytest.raises(DiskFull):
                journal.sync()

    assert journal.sync()
    journal.add(b"\0after", 3, 1)
    journal.sync()
    journal._destroy()
    folder.close()

    folder = Folder(tmp_path)
    assert [body for body, _, _ in Journal(folder)[:]] == [b"\0kept", b"\0waits", b"\0after"]
    folder.close()


def test_a_segment_without_room_for_the_next_goes_on(tmp_path, monkeypatch) -> None:
    folder = Folder(tmp_path)
    journal = Journal(folder, segment_bytes=200)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "create", _no_room_to_create)
        for index in range(1, 20):
            journal.add(b"\0entry", index, 1)
            journal.sync()
    assert len([name for name in folder.names() if name.startswith("journal-")]) == 1
    journal.add(b"\0entry", 20, 1)
    journal.sync()

    assert len([name for name in folder.names() if name.startswith("journal-")]) == 2
    journal._destroy()
    assert Journal(folder, segment_bytes=200).last_index == 20
    folder.close()


def test_a_file_that_finds_no_room_leaves_nothing_behind(tmp_path, monkeypatch) -> None:
    folder = Folder(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("os.pwrite", _no_room)
        with pytest.raises(DiskFull, match="is full"):
            folder.create("journal-0000000007", b"content")

    assert folder.names() == []
    folder.close()


def _no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def _no_room_to_create(*_: object) -> None:
    raise DiskFull("no room")


# A member with its thread


def test_a_member_of_one_refuses_with_the_disk_named_and_goes_on_with_everything(
    tmp_path, monkeypatch
) -> None:
    machine, stopped = Items(), []
    member = Member(MemberSettings("n1", tmp_path / "data"), machine, on_stopped=stopped.append)
    member.start()
    try:
        wait_until(lambda: member.status().role == "leader", "a leader of one")
        assert outcome_of(lambda answer: member.propose(b"kept", answer)) == Committed(1)
        with monkeypatch.context() as patch:
            patch.setattr("os.pwrite", _no_room)
            in_flight = outcome_of(lambda answer: member.propose(b"perhaps", answer))
            refused = outcome_of(lambda answer: member.propose(b"never", answer))
            read = outcome_of(member.read_index)
            status = member.status()
        wait_until(lambda: member.status().role == "leader", "the leader again")

        assert isinstance(in_flight, Unknown)
        assert isinstance(refused, NotApplied)
        assert isinstance(read, NotApplied)
        assert "the disk is full" in refused.reason
        assert "the disk is full" in status.stale
        assert (status.role, status.leader) == ("follower", "")
        assert outcome_of(lambda answer: member.propose(b"after", answer)) == Committed(3)
        assert machine.items == [b"kept", b"perhaps", b"after"]
        assert member.status().stale == ""
        assert not stopped
    finally:
        member.stop()


def test_a_snapshot_without_room_is_taken_later(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("coordination.log.compaction.RETRY_S", 0.1)
    machine = Items()
    member = Member(MemberSettings("n1", tmp_path / "data", snapshot_entries=20), machine)
    member.start()
    try:
        wait_until(lambda: member.status().role == "leader", "a leader of one")
        replace = os.fsync
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", _no_room)
            for number in range(30):
                outcome_of(lambda answer, number=number: member.propose(b"%d" % number, answer))
            wait_until(lambda: "snapshots_without_room" in member.status().counters, "the refused snapshot")
        assert os.fsync is replace
        wait_until(lambda: member.status().snapshot_index > 0, "a snapshot")
        assert len(machine.items) == 30
    finally:
        member.stop()


# Real processes on a real small file system


def test_a_cluster_goes_on_while_one_real_disk_is_full(tmp_path: Path) -> None:
    with small_disk(tmp_path / "n1") as disk:
        cluster = Cluster(tmp_path, heartbeat_timeout_s=0.3, election_timeout_s=0.6)
        try:
            cluster.start()
            cluster.wait_for_leader()
            cluster.write("before")
            wait_until(lambda: _leads(cluster, "n1"), "n1 leads", 20.0)

            disk.fill()
            outcomes = [
                cluster.nodes["n1"].ask(op="propose", payload="x" * 200_000 + str(number))["outcome"]
                for number in range(8)
            ]
            wait_until(lambda: cluster.leader() not in (None, "n1"), "another leader")
            assert outcomes[-1] == "NotApplied"
            assert "the disk is full" in cluster.status("n1")["stale"]
            assert "before" in cluster.items("n1")
            cluster.kill("n1")
            cluster.start("n1")
            others = cluster.write("meanwhile")

            disk.free()
            wait_until(lambda: others in cluster.items("n1"), "n1 caught up", 20.0)
            wait_until(lambda: cluster.status("n1")["stale"] == "", "n1 is itself again")
            cluster.write("after")
            cluster.wait_for_agreement()
        finally:
            cluster.close()


def _leads(cluster: Cluster, name: str) -> bool:
    leader = cluster.leader()
    if leader not in (None, name):
        cluster.nodes[leader].ask(op="transfer", to=name)
    return leader == name
