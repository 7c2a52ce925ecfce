"""A cluster of one, with its thread and a real disk: the embedded default."""

import errno
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordination.log.contract import Committed, MemberSettings, NotApplied, Outcome, Unknown
from coordination.log.disk import DirectoryInUse, DiskFailed
from coordination.log.identity import WrongIdentity
from coordination.log.raft import Member
from tests.log.machines import Items, outcome_of
from tests.log.net import wait_until


class Started:
    """Members of a test, stopped at its end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._members: list[Member] = []
        self.stopped: list[BaseException | None] = []
        self.applied: list[tuple[int, int, object]] = []

    def __call__(self, machine: Items, **settings: object) -> Member:
        values = {"node_id": "n1", "data_dir": self._folder, **settings}
        member = Member(
            MemberSettings(**values),
            machine,
            lambda *applied: self.applied.append(applied),
            self.stopped.append,
        )
        self._members.append(member)
        member.start()
        wait_until(
            lambda: member.status().role == "leader" and member.status().applied_index > 1, "a leader of one"
        )
        return member

    def stop(self) -> None:
        for member in self._members:
            member.stop()


@pytest.fixture
def started(tmp_path) -> Iterator[Started]:
    started = Started(tmp_path / "data")
    yield started
    started.stop()


def propose(member: Member, payload: bytes) -> Outcome:
    return outcome_of(lambda answer: member.propose(payload, answer))


def test_it_answers_with_the_machines_result_and_tells_the_hook(started) -> None:
    machine = Items()
    member = started(machine)

    assert propose(member, b"first") == Committed(1)
    assert propose(member, b"second") == Committed(2)
    assert machine.items == [b"first", b"second"]
    assert [result for _, _, result in started.applied] == [1, 2]
    (first, term, _), (second, _, _) = started.applied
    assert (second - first, term) == (1, 1)


def test_what_was_answered_is_there_after_a_restart(started) -> None:
    member = started(Items())
    for number in range(50):
        propose(member, b"%d" % number)
    member.stop()

    machine = Items()
    member = started(machine)
    wait_until(lambda: len(machine.items) == 50, "the journal replayed")

    assert propose(member, b"more") == Committed(51)
    assert machine.items == [b"%d" % number for number in range(50)] + [b"more"]


def test_it_restarts_from_a_snapshot_and_the_entries_behind_it(started) -> None:
    member = started(Items(), snapshot_entries=20, segment_bytes=2000)
    for number in range(110):
        propose(member, b"%d" % number)
    wait_until(lambda: member.status().snapshot_index >= 60, "a snapshot")
    member.stop()

    machine = Items()
    started(machine, snapshot_entries=20, segment_bytes=2000)
    wait_until(lambda: len(machine.items) == 110, "everything recovered")

    assert machine.items == [b"%d" % number for number in range(110)]


def test_many_callers_share_a_sync(started, monkeypatch) -> None:
    import os

    syncs = []
    fdatasync = os.fdatasync
    monkeypatch.setattr("os.fdatasync", lambda descriptor: (syncs.append(1), fdatasync(descriptor)))
    member = started(Items())
    outcomes: list[Outcome] = []
    syncs.clear()

    for number in range(2000):
        member.propose(b"%d" % number, outcomes.append)
    wait_until(lambda: len(outcomes) == 2000, "all outcomes")

    assert all(isinstance(outcome, Committed) for outcome in outcomes)
    assert len(syncs) < 1000


def test_nothing_is_answered_before_its_sync(started, monkeypatch) -> None:
    import os

    member = started(Items())
    fdatasync, may_sync, outcomes = os.fdatasync, threading.Event(), []
    entered = threading.Event()

    def wait_and_sync(descriptor: int) -> None:
        entered.set()
        may_sync.wait(10)
        fdatasync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("os.fdatasync", wait_and_sync)
        member.propose(b"durable first", outcomes.append)
        assert entered.wait(10)
        assert outcomes == []
        may_sync.set()
        wait_until(lambda: outcomes == [Committed(1)], "the outcome")


def test_a_read_barrier_covers_what_was_acknowledged(started) -> None:
    member = started(Items())
    propose(member, b"written")

    outcome = outcome_of(member.read_index)

    assert isinstance(outcome, Committed)
    assert outcome.result >= started.applied[-1][0]


def test_an_idle_member_costs_next_to_nothing(started) -> None:
    member = started(Items())
    propose(member, b"once")
    used, began = time.process_time(), time.monotonic()
    wait_until(lambda: time.monotonic() - began > 0.5, "half a second")

    # The waiting loop itself takes about 2 ms of it.
    assert time.process_time() - used < 0.05


def test_a_payload_over_the_limit_is_not_applied(started) -> None:
    member = started(Items(), max_payload_bytes=100)

    assert isinstance(propose(member, bytes(101)), NotApplied)
    assert propose(member, bytes(100)) == Committed(1)


def test_callers_beyond_the_bound_are_refused_at_once(started, monkeypatch) -> None:
    import os

    member = started(Items(), max_waiting=10)
    may_sync, fdatasync, outcomes = threading.Event(), os.fdatasync, []
    with monkeypatch.context() as patch:
        patch.setattr("os.fdatasync", lambda descriptor: (may_sync.wait(10), fdatasync(descriptor)))
        for number in range(40):
            member.propose(b"%d" % number, outcomes.append)
        refused = [outcome for outcome in outcomes if isinstance(outcome, NotApplied)]
        may_sync.set()

    assert len(refused) >= 20
    assert "10 callers are waiting already" in refused[0].reason
    wait_until(lambda: len(outcomes) == 40, "an outcome for each")


def test_a_raising_callback_stops_nobody(started) -> None:
    member = started(Items())

    def raise_it(outcome: Outcome) -> None:
        raise RuntimeError("a caller's defect")

    member.propose(b"first", raise_it)

    assert propose(member, b"second") == Committed(2)


def test_a_failed_disk_ends_the_member_and_answers_unknown(started, monkeypatch) -> None:
    member = started(Items())
    propose(member, b"kept")  # its election is behind it: the next sync is that of the proposal

    def broken(*_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("os.fdatasync", broken)
        outcome = propose(member, b"perhaps")
        wait_until(lambda: bool(started.stopped), "the hook")

    assert isinstance(outcome, Unknown)
    assert isinstance(started.stopped[0], DiskFailed)
    assert isinstance(propose(member, b"after"), NotApplied)


def test_a_machine_that_raises_ends_the_member(started) -> None:
    class Defective(Items):
        def apply(self, payload: bytes) -> object:
            raise ValueError("not total")

    member = started(Defective())

    assert isinstance(propose(member, b"any"), Unknown)
    wait_until(lambda: bool(started.stopped), "the hook")
    assert isinstance(started.stopped[0], ValueError)


def test_stopping_answers_everybody(started) -> None:
    member = started(Items())
    outcomes: list[Outcome] = []
    for number in range(200):
        member.propose(b"%d" % number, outcomes.append)

    member.stop()
    member.stop()

    assert len(outcomes) == 200
    assert started.stopped == [None]


def test_a_second_member_cannot_take_the_directory(started, tmp_path) -> None:
    started(Items())

    with pytest.raises(DirectoryInUse):
        Member(MemberSettings("n1", tmp_path / "data"), Items()).start()


def test_a_directory_of_another_node_is_refused(started, tmp_path) -> None:
    started(Items()).stop()

    with pytest.raises(WrongIdentity, match="belongs to node 'n1', not to 'n2'"):
        Member(MemberSettings("n2", tmp_path / "data"), Items()).start()


def test_a_directory_whose_journal_is_gone_is_refused(started, tmp_path) -> None:
    started(Items()).stop()
    for path in (tmp_path / "data").glob("journal-*"):
        path.unlink()

    with pytest.raises(WrongIdentity, match="journal is missing"):
        Member(MemberSettings("n1", tmp_path / "data"), Items()).start()
