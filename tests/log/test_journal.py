"""The journal keeps every synced record through cuts at any byte, and refuses bytes that have changed."""

import errno
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordination.log.disk import DirectoryInUse, DiskFailed, DiskFull, Folder
from coordination.log.journal import Journal, JournalDamaged, read_batches
from tests.log.world import PowerLost, SimDisk, SimFile

State = tuple[list[tuple[bytes, int, int]], int, str | None]


def new_disk(seed: int = 0) -> SimDisk:
    return SimDisk(random.Random(seed))


def state(journal: Journal) -> State:
    return journal[:], journal.getCurrentTerm(), journal.getVotedForNodeId()


def some_journal(disk: SimDisk) -> list[State]:
    """Five synced batches in one segment; returns the state after each."""
    journal = Journal(disk)
    states = [state(journal)]
    for number in range(5):
        journal.setCurrentTerm(number + 1, f"n{number}")
        for _ in range(3):
            journal.add(
                b"\0" + b"x" * number * 7, (journal.last_index if len(journal) else 0) + 1, number + 1
            )
        if number == 3:
            journal.cut_from(journal.last_index - 3)
        journal.sync()
        states.append(state(journal))
    return states


def segment(disk: SimDisk) -> tuple[str, bytes]:
    (name,) = [name for name in disk.names() if name.startswith("journal-")]
    return name, disk.read(name)


def test_what_was_synced_is_there_after_a_restart() -> None:
    disk = new_disk()

    states = some_journal(disk)

    assert state(Journal(disk)) == states[-1]


def test_nothing_is_durable_before_the_sync() -> None:
    disk = new_disk()
    states = some_journal(disk)
    journal = Journal(disk)

    journal.add(b"\0late", journal.last_index + 1, 9)
    disk.lose_power()

    assert state(Journal(disk)) == states[-1]


def test_a_journal_cut_at_any_byte_recovers_the_whole_batches_before_it() -> None:
    original = new_disk()
    states = some_journal(original)
    name, data = segment(original)
    ends = [batch[-1].end for batch in read_batches(data)]
    for length in range(ends[0], len(data) + 1):
        disk = new_disk()
        disk.files[name] = SimFile(disk, data[:length])

        recovered = Journal(disk)

        assert state(recovered) == states[sum(end <= length for end in ends) - 1], length


def test_a_cut_journal_goes_on_where_it_was_cut() -> None:
    disk = new_disk()
    states = some_journal(disk)
    name, data = segment(disk)
    disk.files[name] = SimFile(disk, data[:-5])

    journal = Journal(disk)
    journal.add(b"\0new", journal.last_index + 1, 7)
    journal.sync()

    assert state(Journal(disk))[0] == [*states[-2][0], (b"\0new", states[-2][0][-1][1] + 1, 7)]


def test_any_changed_bit_before_the_last_batch_is_refused_with_its_place() -> None:
    original = new_disk()
    some_journal(original)
    name, data = segment(original)
    ends = [batch[-1].end for batch in read_batches(data)]
    for at in range(ends[-2]):
        for bit in range(8):
            disk = new_disk()
            disk.files[name] = SimFile(disk, data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])

            with pytest.raises(
                JournalDamaged, match=rf"{name} is damaged at byte \d+.*restore this directory"
            ):
                Journal(disk)


def test_any_changed_bit_in_the_last_batch_is_cut_like_a_torn_write() -> None:
    original = new_disk()
    states = some_journal(original)
    name, data = segment(original)
    ends = [batch[-1].end for batch in read_batches(data)]
    for at in range(ends[-2], len(data)):
        for bit in range(8):
            disk = new_disk()
            disk.files[name] = SimFile(disk, data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])

            assert state(Journal(disk)) == states[-2], (at, bit)


def test_a_missing_segment_is_refused() -> None:
    disk = new_disk()
    journal = Journal(disk, segment_bytes=200)
    for index in range(1, 30):
        journal.add(b"\0entry", index, 1)
        journal.sync()
    names = [name for name in disk.names() if name.startswith("journal-")]

    del disk.files[names[len(names) // 2]]

    with pytest.raises(JournalDamaged, match="is missing"):
        Journal(disk)


def test_segments_go_only_from_the_front_so_that_no_hole_is_left() -> None:
    disk = new_disk()
    journal = Journal(disk, segment_bytes=300)
    for index in range(1, 21):
        journal.add(b"\0first", index, 1)
    journal.sync()
    journal.cut_from(5)  # the next segments end lower than the one before them
    for index in range(5, 16):
        journal.add(b"\0other", index, 2)
        journal.sync()

    journal.drop_before(14)

    assert _tail_equal(state(Journal(disk, segment_bytes=300)), state(journal))


class _Step:
    """Operations for the property below: each changes the journal and says nothing about what is durable."""

    @staticmethod
    def add(journal: Journal, amount: int) -> None:
        for _ in range(amount):
            journal.add(
                b"\0" + b"p" * amount * 11,
                journal.last_index + 1,
                max(journal.last_term, journal.getCurrentTerm()),
            )

    @staticmethod
    def vote(journal: Journal, amount: int) -> None:
        journal.setCurrentTerm(journal.getCurrentTerm() + amount, f"n{amount}" if amount % 2 else None)

    @staticmethod
    def cut(journal: Journal, amount: int) -> None:
        if journal.last_index - amount > journal.first_index:
            journal.cut_from(journal.last_index - amount)

    @staticmethod
    def drop(journal: Journal, amount: int) -> None:
        journal.drop_before(journal.first_index + amount)

    @staticmethod
    def reset(journal: Journal, amount: int) -> None:
        last = journal.last_index
        keep = journal[-1:] if amount % 2 else []
        journal.reset(last - 1 if keep else last + amount, journal.last_term, keep)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "vote", "cut", "sync", "sync", "drop", "reset"]), st.integers(1, 5)
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS, crash_in=st.integers(1, 30), seed=st.integers(0, 10**6))
def test_whenever_the_power_goes_what_comes_back_was_synced_or_was_being_synced(
    steps: list[tuple[str, int]], crash_in: int, seed: int
) -> None:
    disk = new_disk(seed)
    journal = Journal(disk, segment_bytes=400)
    journal.add(b"\x01", 1, 0)
    journal.sync()
    synced = state(journal)
    disk.crash_in = crash_in
    try:
        for kind, amount in steps:
            if kind in ("sync", "drop", "reset"):
                journal.sync()
                synced = state(journal)
            if kind != "sync":
                getattr(_Step, kind)(journal, amount)
            if kind in ("drop", "reset"):  # durable when they return
                synced = state(journal)
    except PowerLost:
        pass
    attempted = state(journal)
    disk.crash_in = None
    disk.lose_power()

    recovered = Journal(disk, segment_bytes=400)

    assert _tail_equal(state(recovered), synced) or _tail_equal(state(recovered), attempted)
    recovered.add(b"\0after", recovered.last_index + 1, 99)
    recovered.sync()
    assert state(Journal(disk, segment_bytes=400))[0][-1][0] == b"\0after"


def _tail_equal(found: State, expected: State) -> bool:
    """Equal but for older entries that a restart may find again, and for the base, of which only the place matters."""
    places = [(index, term) for _, index, term in expected[0]]
    tail = found[0][-len(expected[0]) :]
    return (
        found[1:] == expected[1:] and [(i, t) for _, i, t in tail] == places and tail[1:] == expected[0][1:]
    )


def test_a_second_process_cannot_open_the_directory(tmp_path) -> None:
    folder = Folder(tmp_path)

    with pytest.raises(DirectoryInUse, match="in use by another process"):
        Folder(tmp_path)

    folder.close()
    Folder(tmp_path).close()


def test_a_journal_on_a_real_disk_survives_reopening_and_rolling(tmp_path) -> None:
    folder = Folder(tmp_path)
    journal = Journal(folder, segment_bytes=2000)
    for index in range(1, 200):
        journal.add(b"\0entry %d" % index, index, 1)
        journal.sync()
    journal.drop_before(150)
    expected = state(journal)
    journal._destroy()
    folder.close()

    folder = Folder(tmp_path)
    reopened = Journal(folder, segment_bytes=2000)

    assert _tail_equal(state(reopened), expected)
    assert len([name for name in folder.names() if name.startswith("journal-")]) < 10
    reopened._destroy()
    folder.close()


def test_a_full_disk_is_named_and_takes_nothing_with_it(tmp_path, monkeypatch) -> None:
    folder = Folder(tmp_path)
    journal = Journal(folder)
    journal.add(b"\0kept", 1, 1)
    journal.sync()

    def no_room(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    journal.add(b"\0lost", 2, 1)
    with monkeypatch.context() as patch:
        patch.setattr("os.pwrite", no_room)
        with pytest.raises(DiskFull, match="free some space"):
            journal.sync()
    journal._destroy()
    folder.close()

    folder = Folder(tmp_path)
    assert Journal(folder)[:] == [(b"\0kept", 1, 1)]
    folder.close()


def test_a_failed_sync_is_never_retried(tmp_path, monkeypatch) -> None:
    folder = Folder(tmp_path)
    journal = Journal(folder)
    journal.add(b"\0entry", 1, 1)

    def broken(*_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("os.fdatasync", broken)
        with pytest.raises(DiskFailed, match="restart to see what is durable"):
            journal.sync()
    folder.close()
