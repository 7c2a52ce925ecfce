"""pysyncobj's Raft with its promises kept: our handlers, our snapshots, no answer before the sync.

`Replica` overrides, by their mangled names, the private methods of pysyncobj 0.3.17 that lose acknowledged commands,
hang or unpickle; a test pins the source they were written against. It has no thread, no socket and no clock of its
own: whoever drives it delivers frames and calls `step`, one thread only, so the simulation runs the same code.

One step, in this order, is what durability rests on:
    frames were delivered      handlers append to the journal's buffer and queue answers
    stand, tick                elections; commit what a majority has; apply; take commands; queue entries
    flush_early                entries leave; they promise nothing
    sync                       one sync for entries, cuts, term and vote
    flush                      votes and answers leave; they promise what is now on disk
The leader counts itself in the next tick, after this sync.
"""

import logging
import math
from collections.abc import Callable
from typing import Any

import pysyncobj.syncobj as core
from pysyncobj.node import Node

from coordination.log import contract, identity, snapshot, wire
from coordination.log.compaction import Compaction
from coordination.log.contract import AppliedHook, Machine, MemberSettings, MemberView
from coordination.log.disk import Disk, DiskFull
from coordination.log.journal import JournalDamaged
from coordination.log.members import Seated
from coordination.log.outbox import Links
from coordination.log.reads import Reads
from coordination.log.replication import Replication
from coordination.log.room import Room
from coordination.log.seat import LEADER, ROLES, RunAside, raft_conf, run_here
from coordination.log.standing import Standing
from coordination.log.waiting import Waiting

log = logging.getLogger(__name__)


class _NoPoller:
    """Stands where pysyncobj reads sockets at the end of a tick: frames are delivered before the tick instead."""

    def poll(self, timeout: float) -> None: ...

    def subscribe(self, *args: object) -> None: ...

    def unsubscribe(self, *args: object) -> None: ...


class Replica(Standing, Replication, Reads, Compaction, Room):
    """One member's Raft state. Raises JournalDamaged, WrongIdentity or SnapshotDamaged when it must not start."""

    def __init__(
        self,
        settings: MemberSettings,
        disk: Disk,
        links: Links,
        machine: Machine,
        on_applied: AppliedHook,
        run_aside: RunAside = run_here,
    ) -> None:
        self._prepare(settings, disk, links, machine, on_applied, run_aside)
        newest = self._recover_snapshot()
        self._recover_members()
        conf = raft_conf(settings, self.journal, self._on_state_changed)
        super().__init__(Node(settings.node_id), [], conf, nodeClass=Node, transport=self._outbox)
        self._SyncObj__needLoadDumpFile = False
        # A late answer to what this member forwarded before a restart must not be taken for another command's.
        self._SyncObj__commandsLocalCounter = int(core.monotonicTime() * 1_000_000)
        self._poller = _NoPoller()
        self._compacted_at = core.monotonicTime()
        self._handlers: dict[type, Callable[[Node, int, Any], None]] = {
            wire.AppendEntries: self._on_append,
            wire.AppendAnswer: self._on_append_answer,
            wire.SnapshotChunk: self._on_chunk,
            wire.ChunkWanted: self._on_chunk_wanted,
            wire.RequestVote: self._on_request_vote,
            wire.VoteGranted: self._on_vote_granted,
            wire.PreVote: self._on_pre_vote,
            wire.PreVoteGranted: self._on_pre_vote_granted,
            wire.Forward: self._on_forward,
            wire.ForwardAnswer: self._on_forward_answer,
            wire.TimeoutNow: self._on_timeout_now,
            wire.ReadRequest: self._on_read_request,
            wire.ReadAnswer: self._on_read_answer,
            wire.Admission: self._on_admission,
        }
        if newest is not None:
            machine.restore(newest.state)
            self._applied = self._commit = newest.index
        self._activate()
        if not self._nodes and self.identity.standing == identity.NEW and settings.may_found:
            self._become(identity.MEMBER, identity.bootstrap_cluster_id([self.identity.instance]))
        if not self._voters:
            self._deadline = -math.inf

    # ---- recovery

    def _recover_snapshot(self) -> snapshot.Snapshot | None:
        """The newest whole snapshot, with a journal that continues it; refuses a gap between the two."""
        self._snapshots = snapshot.Snapshots(self._disk, self._cluster_id(), self._settings.snapshot_retain)
        newest = self._snapshots.newest()
        first = self.journal.first_index if len(self.journal) else 1
        if first > (newest.index if newest else 1):
            raise JournalDamaged(
                f"the journal begins at entry {first}, the newest whole snapshot ends at {newest.index if newest else 0}: "
                "entries between are missing. Restore the directory from a backup, or empty it so that the other "
                "members send a snapshot"
            )
        if newest is not None and self.journal.term_at(newest.index) != newest.term:
            # Stored, but the crash came before the journal followed: what the journal has instead was never committed.
            self.journal.reset(newest.index, newest.term)
        self.snapshot_index = newest.index if newest else 0
        return newest

    # ---- the step

    def step(self) -> None:
        """Everything between two looks at the sockets. Raises DiskFailed: then nothing more may leave."""
        if not self._has_room():
            self._outbox.flush_early()  # greetings: they promise nothing new
            return
        try:
            self._step()
        except DiskFull as error:
            self._no_room(error)

    def _step(self) -> None:
        now = core.monotonicTime()
        self._forgive_stall(now)
        self._stand(now)
        self._onTick(0)
        self._watch_members()
        self._pursue_changes()
        self._may_campaign = self.stands_by_transfer = False
        self._serve_reads()
        self._pursue_transfer()
        self._outbox.flush_early()
        self.journal.sync()
        self._outbox.flush()

    def next_wakeup(self) -> float:
        """When the next step is due at the latest, on the replica's clock."""
        now = core.monotonicTime()
        self._due = max(now, self._next_due(now))
        return self._due

    def _next_due(self, now: float) -> float:
        if self.full:
            return self._full_retry_at
        if self._applied < self._commit or (not self._voters and self._commit < self.journal.last_index):
            return now
        compaction = (
            self._compacted_at + self._settings.snapshot_interval_s
            if self._compacting is None
            else now + 0.05
        )
        if self._compact_after > now:
            compaction = min(compaction, self._compact_after)
        if self._state != LEADER:
            return min(self._deadline, compaction)
        return min(self._append_time, compaction) if self._nodes else max(now + 0.01, compaction)

    def _forgive_stall(self, now: float) -> None:
        """After a stall of our own the silence of others proves nothing: what they sent was read only just now."""
        stalled = now - self._due
        if stalled > self._settings.heartbeat_timeout_s / 2:
            self._deadline = max(self._deadline, now + self._SyncObj__generateRaftTimeout())
            for node in self._last_response:
                self._last_response[node] += stalled

    # ---- links

    def link_up(self, peer: str) -> None:
        """A new connection: greet; nothing else is heard from it before its greeting."""
        self.greet(self._node(peer))

    def link_down(self, peer: str) -> None:
        """The connection is gone, with everything on it that had not arrived."""
        node = self._node(peer)
        self._greeted.pop(node, None)
        self._reign.outgoing.pop(node, None)
        self._outbox.disconnected(node)
        if self._leader == node:
            self._forwards_unknown()
            self._reads_lost()
            # A closed connection is no proof, but reason enough to ask the others soon whether they hear it.
            self._heard = -math.inf
            soon = self._SyncObj__generateRaftTimeout() - self._settings.heartbeat_timeout_s
            self._deadline = min(self._deadline, core.monotonicTime() + soon)

    def frame(self, peer: str, data: bytes) -> None:
        """One frame from an authenticated peer."""
        try:
            envelope = wire.decode(data)
        except wire.Malformed as error:
            self._count("refused_malformed")
            log.warning("peer_sent_no_message", extra={"peer": peer, "reason": str(error)})
            self._links.drop(peer, "it sent something that is no message")
            return
        self._receive(self._node(peer), envelope.sender_term, envelope.message)

    def _receive(self, node: Node, sender_term: int, message: wire.Message) -> None:
        try:
            self._handle(node, sender_term, message)
        except DiskFull as error:
            self._no_room(error)
            if isinstance(message, wire.Greeting):
                self._links.drop(node.id, "its greeting found no room on our disk")  # it will greet again

    def _handle(self, node: Node, sender_term: int, message: wire.Message) -> None:
        if isinstance(message, wire.Greeting):
            self._on_greeting(node, message)
            return
        if self.full:
            return
        if isinstance(message, wire.Dismissal):
            self._on_dismissal(node, sender_term, message)
            return
        if self.identity.standing == identity.NEW or not self._accepts(node):
            return
        if sender_term > self.raftCurrentTerm and not isinstance(message, wire.RequestVote | wire.PreVote):
            self._adopt(sender_term)
        self._handlers[type(message)](node, sender_term, message)

    # ---- what callers ask

    def propose(self, payload: bytes, waiting: Waiting) -> None:
        """Put a payload into the log, here or through the leader; refused while the disk is full."""
        if self.full:
            waiting.settle(contract.NotApplied(self.full))
        else:
            super().propose(payload, waiting)

    def read(self, waiting: Waiting) -> None:
        """Ask for a linearizable read; refused while the disk is full, when nothing new is heard either."""
        if self.full:
            waiting.settle(contract.NotApplied(self.full))
        else:
            super().read(waiting)

    def transfer(self, node_id: str, waiting: Waiting) -> None:
        """Begin to hand leadership over; a member with a full disk has none."""
        if self.full:
            waiting.settle(contract.NotApplied(self.full))
        else:
            super().transfer(node_id, waiting)

    # ---- what others may know

    @property
    def role(self) -> str:
        """One of the roles in `contract`."""
        if self.is_removed:
            return contract.REMOVED
        if not self.identity.votes:
            return contract.JOINING
        return ROLES[self._state] if self._is_voter else contract.LEARNER

    @property
    def leader_id(self) -> str:
        """Who leads as far as this member knows, or an empty string."""
        return self._leader.id if self._leader is not None else ""

    def views(self) -> tuple[MemberView, ...]:
        """All members, this one first; the others' progress is the leader's knowledge."""
        last, now = self.journal.last_index, core.monotonicTime()
        me = self.identity.node_id
        mine = MemberView(me, self._settings.address, self.role, last, 0, 0.0)
        return (mine, *(self._view(seat, last, now) for seat in self.members.seats if seat.id != me))

    def _view(self, seat: Seated, last: int, now: float) -> MemberView:
        node_id, address = seat.id, self._addresses.get(seat.id) or seat.address
        node = self._node(node_id)
        role = contract.FOLLOWER if node != self._leader else contract.LEADER
        greeting = self._greeted.get(node)
        if not seat.votes:
            role = contract.LEARNER
        elif greeting is not None and greeting.standing != identity.MEMBER:
            role = contract.JOINING
        if self._state != LEADER:
            return MemberView(node_id, address, role)
        match, seen = self._reign.progress.get(node, 0), self._reign.seen.get(node)
        return MemberView(node_id, address, role, match, last - match, None if seen is None else now - seen)
