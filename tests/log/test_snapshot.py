"""A snapshot comes back as it was, or is refused; a damaged newest one falls back to the one before."""

import random
from pathlib import Path

import pytest

from coordination.log.contract import MemberSettings
from coordination.log.disk import Folder
from coordination.log.journal import JournalDamaged
from coordination.log.replica import Replica
from coordination.log.snapshot import (
    Incoming,
    Snapshot,
    SnapshotDamaged,
    Snapshots,
    decode,
    encode,
    file_name,
)
from tests.log.world import SimDisk, SimFile

CLUSTER = bytes(range(16))


def new_disk() -> SimDisk:
    return SimDisk(random.Random(0))


def test_it_comes_back_as_it_was() -> None:
    original = Snapshot(17, 3, b"state " * 1000)

    assert decode(encode(original, CLUSTER), CLUSTER) == original


def test_an_empty_state_is_a_state() -> None:
    assert decode(encode(Snapshot(1, 1, b""), CLUSTER), CLUSTER) == Snapshot(1, 1, b"")


def test_it_is_refused_when_any_byte_has_changed() -> None:
    data = encode(Snapshot(17, 3, b"state"), CLUSTER)
    for at in range(len(data)):
        with pytest.raises(SnapshotDamaged):
            decode(data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :], CLUSTER)


def test_it_is_refused_when_cut_or_lengthened() -> None:
    data = encode(Snapshot(17, 3, b"state"), CLUSTER)
    for wrong in [data[:length] for length in range(len(data))] + [data + b"\0"]:
        with pytest.raises(SnapshotDamaged):
            decode(wrong, CLUSTER)


def test_it_is_refused_in_another_cluster() -> None:
    with pytest.raises(SnapshotDamaged, match="belongs to cluster"):
        decode(encode(Snapshot(17, 3, b"state"), CLUSTER), bytes(16))


def test_the_newest_are_kept_and_older_ones_removed() -> None:
    disk = new_disk()
    snapshots = Snapshots(disk, CLUSTER, retain=2)

    for index in (10, 20, 30):
        snapshots.store(index, 1, encode(Snapshot(index, 1, b"%d" % index), CLUSTER))

    assert snapshots.positions() == [(20, 1), (30, 1)]


def test_a_damaged_newest_one_falls_back_to_the_one_before() -> None:
    disk = new_disk()
    snapshots = Snapshots(disk, CLUSTER, retain=2)
    for index in (10, 20):
        snapshots.store(index, 1, encode(Snapshot(index, 1, b"%d" % index), CLUSTER))

    disk.files[file_name(20, 1)].durable = b"damage"

    assert snapshots.newest() == Snapshot(10, 1, b"10")


def test_a_snapshot_whose_writing_was_cut_short_is_cleared_away(tmp_path) -> None:
    (tmp_path / (file_name(30, 1) + ".new")).write_bytes(b"half of it")

    folder = Folder(tmp_path)

    assert Snapshots(folder, CLUSTER, retain=2).newest() is None
    assert folder.names() == []
    folder.close()


class _Silent:
    def send(self, peer: str, frame: bytes) -> bool:
        return False

    def backlog(self, peer: str) -> int:
        return 0

    def drop(self, peer: str, reason: str) -> None:
        pass


class _Items:
    def __init__(self) -> None:
        self.items: list[bytes] = []

    def apply(self, payload: bytes) -> object:
        self.items.append(payload)
        return len(self.items)

    def snapshot(self) -> bytes:
        return b",".join(self.items)

    def restore(self, data: bytes) -> None:
        self.items = data.split(b",") if data else []


def lone(disk: SimDisk) -> tuple[Replica, _Items]:
    """A cluster of one on this disk, elected and caught up."""
    machine = _Items()
    settings = MemberSettings("n1", Path("/nowhere"), snapshot_entries=10, segment_bytes=300)
    replica = Replica(settings, disk, _Silent(), machine, lambda *_: None)
    for _ in range(4):
        replica.step()
    return replica, machine


def filled() -> tuple[SimDisk, list[bytes]]:
    disk = new_disk()
    replica, machine = lone(disk)
    for number in range(45):
        replica._applyCommand(b"item-%d" % number, None, 0)
        replica.step()
    for _ in range(3):
        replica.step()
    return disk, machine.items


def test_a_member_restarts_from_an_older_snapshot_and_the_journal_when_the_newest_is_damaged() -> None:
    disk, expected = filled()
    newest = max(name for name in disk.names() if name.startswith("snapshot-"))

    disk.files[newest] = SimFile(disk, disk.read(newest)[:-3] + b"???")

    assert lone(disk)[1].items == expected


def test_a_member_refuses_to_start_when_no_snapshot_reaches_its_journal() -> None:
    disk, _ = filled()
    for name in [name for name in disk.names() if name.startswith("snapshot-")]:
        disk.files[name] = SimFile(disk, b"damage")

    with pytest.raises(JournalDamaged, match="entries between are missing"):
        lone(disk)


def test_chunks_out_of_order_change_nothing() -> None:
    incoming = Incoming()

    incoming.add((7, 1), 6, 0, b"abc")
    is_whole = incoming.add((7, 1), 6, 4, b"ef")

    assert not is_whole
    assert bytes(incoming.data) == b"abc"
    assert incoming.add((7, 1), 6, 3, b"def")


def test_a_chunk_beyond_the_announced_size_is_not_taken() -> None:
    incoming = Incoming()

    incoming.add((7, 1), 6, 0, b"abcdefgh")

    assert not incoming.data


def test_another_snapshot_starts_over() -> None:
    incoming = Incoming()
    incoming.add((7, 1), 6, 0, b"abc")

    incoming.add((9, 1), 4, 0, b"wx")

    assert bytes(incoming.data) == b"wx"
