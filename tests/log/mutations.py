"""One promise broken on purpose at a time. If a mutation is not caught, the simulation has gone blind."""

from collections.abc import Callable

import pytest
from pysyncobj.node import Node

from coordination.log import identity, journal, reads, wire
from coordination.log.journal import CHECKED, OVERHEAD_BYTES, PREFIX, Journal, Record
from coordination.log.members import Members
from coordination.log.outbox import Outbox
from coordination.log.replica import Replica
from coordination.log.waiting import Waiting
from tests.log.world import SimFile

Mutation = Callable[[pytest.MonkeyPatch], None]


def skip_sync(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SimFile, "sync", lambda self: self._disk.operation())


def answer_before_sync(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Outbox, "flush_early", lambda self: Outbox.flush(self) if self._late else None)

    def flush(self: Outbox) -> None:
        waiting, self._early, self._late = self._early + self._late, [], []
        self._leave(waiting)

    patch.setattr(Outbox, "flush", flush)


def _after_recovery(patch: pytest.MonkeyPatch, forget: Callable[[Journal], None]) -> None:
    recover = Journal._recover

    def recover_and_forget(self: Journal) -> None:
        recover(self)
        forget(self)

    patch.setattr(Journal, "_recover", recover_and_forget)


def forget_vote(patch: pytest.MonkeyPatch) -> None:
    _after_recovery(patch, lambda found: setattr(found, "_voted_for", None))


def forget_term(patch: pytest.MonkeyPatch) -> None:
    def forget(found: Journal) -> None:
        found._term, found._voted_for = 0, None

    _after_recovery(patch, forget)


def ignore_crc(patch: pytest.MonkeyPatch) -> None:
    def read_anything(data: bytes, at: int) -> Record | None:
        if len(data) - at < OVERHEAD_BYTES:
            return None
        _, body_bytes, _ = PREFIX.unpack_from(data, at)
        batch, kind, index, term = CHECKED.unpack_from(data, at + PREFIX.size)
        end = at + OVERHEAD_BYTES + body_bytes
        return Record(
            batch,
            kind,
            index,
            term,
            data[at + OVERHEAD_BYTES : end].ljust(body_bytes, b"0"),
            min(end, len(data)),
        )

    def take_unfinished(data: bytes) -> list[list[Record]]:
        batches: list[list[Record]] = [[]]
        at = 0
        while (record := read_anything(data, at)) is not None:
            batches[-1].append(record)
            at = record.end
            if record.kind == journal.END:
                batches.append([])
        return [batch for batch in batches if batch]

    patch.setattr(journal, "read_batches", take_unfinished)


def keep_conflicts(patch: pytest.MonkeyPatch) -> None:
    def take(self: Replica, entries: list[tuple[bytes, int, int]], matched: int) -> int:
        for command, index, term in entries:
            if index > self.journal.last_index:
                self.journal.add(command, index, term)
            matched = max(matched, index)
        return matched

    patch.setattr(Replica, "_take", take)


def cut_always(patch: pytest.MonkeyPatch) -> None:
    take = Replica._take

    def cut_and_take(self: Replica, entries: list[tuple[bytes, int, int]], matched: int) -> int:
        if matched < self.journal.last_index:
            self.journal.cut_from(matched + 1)
        return take(self, entries, matched)

    patch.setattr(Replica, "_take", cut_and_take)


def commit_old_term(patch: pytest.MonkeyPatch) -> None:
    tick = Replica._onTick

    def commit_and_tick(self: Replica, wait_s: float = 0.0) -> None:
        if self._isLeader():
            held = sorted([self._match[node] for node in self._nodes.values()] + [self.journal.last_index])
            self._commit = max(self._commit, held[(len(held) - 1) // 2])
        tick(self, wait_s)

    patch.setattr(Replica, "_onTick", commit_and_tick)


def commit_alone(patch: pytest.MonkeyPatch) -> None:
    tick = Replica._onTick

    def commit_and_tick(self: Replica, wait_s: float = 0.0) -> None:
        if self._isLeader():
            self._commit = self.journal.last_index
        tick(self, wait_s)

    patch.setattr(Replica, "_onTick", commit_and_tick)


def stale_answer(patch: pytest.MonkeyPatch) -> None:
    on_answer = Replica._on_append_answer
    patch.setattr(
        Replica,
        "_on_append_answer",
        lambda self, node, _, message: on_answer(self, node, self.raftCurrentTerm, message),
    )


def trust_chunk_commit(patch: pytest.MonkeyPatch) -> None:
    on_chunk = Replica._on_chunk

    def trust(self: Replica, node: object, term: int, message: wire.SnapshotChunk) -> None:
        self._commit = max(self._commit, min(message.index, self.journal.last_index))
        on_chunk(self, node, term, message)

    patch.setattr(Replica, "_on_chunk", trust)


def clear_tail(patch: pytest.MonkeyPatch) -> None:
    recover = Replica._recover_snapshot

    def recover_and_clear(self: Replica) -> object:
        newest = recover(self)
        if newest is not None:
            self.journal.reset(newest.index, newest.term)
        return newest

    patch.setattr(Replica, "_recover_snapshot", recover_and_clear)


def vote_without_log_check(patch: pytest.MonkeyPatch) -> None:
    def generous(handler: Callable[..., None]) -> Callable[..., None]:
        def handle(self: Replica, node: object, term: int, message: wire.RequestVote | wire.PreVote) -> None:
            if isinstance(message, wire.RequestVote):
                better: wire.Message = wire.RequestVote(message.term, 1 << 40, 1 << 40, message.transfer)
            else:
                better = wire.PreVote(message.term, 1 << 40, 1 << 40)
            handler(self, node, term, better)

        return handle

    patch.setattr(Replica, "_on_request_vote", generous(Replica._on_request_vote))
    patch.setattr(Replica, "_on_pre_vote", generous(Replica._on_pre_vote))


def count_the_wiped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(identity.Identity, "votes", property(lambda self: self.standing != identity.NEW))


def admit_at_once(patch: pytest.MonkeyPatch) -> None:
    """A wiped directory takes itself for a founder although others have a history."""
    find = Replica._find_standing

    def found(self: Replica) -> None:
        find(self)
        if self.identity.standing == identity.JOINING:
            self._become(identity.MEMBER, self.identity.cluster_id)

    patch.setattr(Replica, "_find_standing", found)


def admit_a_majority(patch: pytest.MonkeyPatch) -> None:
    """Those that have forgotten are left out, however many they are."""
    is_confirmed = Replica._is_confirmed

    def confirmed(self: Replica, joining: Node) -> bool:
        joiners = self._reign.joiners
        asked = max(joiner.asked_round for joiner in joiners.values())
        rest = self._others - joiners.keys()
        return is_confirmed(self, joining) or all(self._reign.acked_round.get(o, 0) >= asked for o in rest)

    patch.setattr(Replica, "_is_confirmed", confirmed)


def confirm_for_one(patch: pytest.MonkeyPatch) -> None:
    """Whoever has confirmed the leader after this joiner came need not do it again after those left out came."""

    def confirmed(self: Replica, joining: Node) -> bool:
        joiners = self._reign.joiners
        rest = self._others - joiners.keys()
        is_minority = 2 * len(joiners.keys() & self._others) <= len(self._voters) + 1
        return is_minority and all(
            self._reign.acked_round.get(o, 0) >= joiners[joining].asked_round for o in rest
        )

    patch.setattr(Replica, "_is_confirmed", confirmed)


def apply_twice(patch: pytest.MonkeyPatch) -> None:
    apply = Replica._SyncObj__doApplyCommand

    def apply_again(self: Replica, command: bytes) -> object:
        result = apply(self, command)
        return apply(self, command) if self._applied % 50 == 49 else result

    patch.setattr(Replica, "_SyncObj__doApplyCommand", apply_again)


def read_without_round(patch: pytest.MonkeyPatch) -> None:
    make = reads.Read
    patch.setattr(reads, "Read", lambda _, *rest: make(0, *rest))


def call_discarded_applied(patch: pytest.MonkeyPatch) -> None:
    """An entry of another leader at the awaited place is taken for one's own."""

    class Same(int):
        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return int.__hash__(self)

    apply = Replica._SyncObj__applyLogEntries

    def confuse(self: Replica) -> bool:
        for at, callbacks in self._waiting_commit.items():
            self._waiting_commit[at] = [(Same(term), callback) for term, callback in callbacks]
        return bool(apply(self))

    patch.setattr(Replica, "_SyncObj__applyLogEntries", confuse)


def forget_snapshot_before_journal(patch: pytest.MonkeyPatch) -> None:
    """The journal is cut before the snapshot that replaces it is stored."""
    compact = Replica._compact

    def cut_first(self: Replica, index: int) -> None:
        self.journal.drop_before(index)
        compact(self, index)

    patch.setattr(Replica, "_compact", cut_first)


def count_uncounted(patch: pytest.MonkeyPatch) -> None:
    """The leader counts the answers of a directory that has not been admitted."""
    on_answer = Replica._on_append_answer

    def count(self: Replica, node: object, term: int, message: wire.AppendAnswer) -> None:
        on_answer(
            self, node, term, wire.AppendAnswer(message.next_index, message.success, message.round, True, "")
        )

    patch.setattr(Replica, "_on_append_answer", count)


def count_learners(patch: pytest.MonkeyPatch) -> None:
    """Learners vote and are counted."""
    patch.setattr(Members, "voters", property(lambda self: frozenset(seat.id for seat in self.seats)))
    count_the_wiped(patch)


def change_before_own_entry(patch: pytest.MonkeyPatch) -> None:
    """A new leader changes the members before anything of its own is committed."""
    may_change = Replica._may_change

    def hasty(self: Replica) -> str:
        noop, self._noop = self._noop, 0
        try:
            return may_change(self)
        finally:
            self._noop = noop

    patch.setattr(Replica, "_may_change", hasty)


def two_changes_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Replica, "_may_change", lambda self: "")


def forget_members_at_restart(patch: pytest.MonkeyPatch) -> None:
    """What the journal says about the members is not read again."""
    recover = Replica._recover_members

    def recover_and_forget(self: Replica) -> None:
        recover(self)
        del self._memberships[1:]

    patch.setattr(Replica, "_recover_members", recover_and_forget)


def forget_members_in_snapshots(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Replica, "_keep_members", lambda self, index: None)


def keep_cut_members(patch: pytest.MonkeyPatch) -> None:
    """A membership stays in effect although its entry was cut from the journal."""
    patch.setattr(Replica, "_unnote_members", lambda self, index: None)


def hear_strangers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Replica, "_accepts", lambda self, node: node in self._greeted)


def remove_oneself(patch: pytest.MonkeyPatch) -> None:
    """A leader removes itself without handing over, and counts itself all the same."""

    def leave(self: Replica, waiting: Waiting) -> None:
        held = self.members.without(self.journal.last_index + 1, self.identity.node_id)
        self._propose_members(held, waiting)

    patch.setattr(Replica, "_hand_over_and_leave", leave)


MUTATIONS: dict[str, Mutation] = {
    mutation.__name__: mutation
    for mutation in (
        skip_sync,
        answer_before_sync,
        forget_vote,
        forget_term,
        ignore_crc,
        keep_conflicts,
        cut_always,
        commit_old_term,
        commit_alone,
        stale_answer,
        trust_chunk_commit,
        clear_tail,
        vote_without_log_check,
        count_the_wiped,
        admit_at_once,
        admit_a_majority,
        confirm_for_one,
        apply_twice,
        read_without_round,
        call_discarded_applied,
        forget_snapshot_before_journal,
        count_uncounted,
        count_learners,
        change_before_own_entry,
        two_changes_at_once,
        forget_members_at_restart,
        forget_members_in_snapshots,
        keep_cut_members,
        hear_strangers,
        remove_oneself,
    )
}
