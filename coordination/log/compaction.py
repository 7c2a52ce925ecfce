"""Snapshots in a running member: taking them, cutting the journal, sending one to a laggard, installing one."""

import logging
import math

import pysyncobj.syncobj as core
from pysyncobj import FAIL_REASON
from pysyncobj.node import Node

from coordination.log import identity, members, snapshot, wire
from coordination.log.disk import DiskFull
from coordination.log.seat import LEADER, Outgoing, Seat

log = logging.getLogger(__name__)

RESEND_SHARE = 2.0
"""A chunk unanswered for this share of the shortest time-out is sent again."""
RETRY_S = 5.0
"""After a snapshot found no room."""


class Compaction(Seat):
    """Invariant: snapshot and journal together always cover everything answered for."""

    _compact_after = -math.inf

    def _SyncObj__tryLogCompaction(self) -> None:  # noqa: N802
        now = core.monotonicTime()
        if self._compacting is not None:
            if self._compacting.done():
                self._finish_compaction(self._compacting.result())
            return
        settings = self._settings
        is_due = (
            self._applied - self.snapshot_index >= settings.snapshot_entries
            or self.journal.bytes_since_compaction >= settings.snapshot_bytes
            or now - self._compacted_at >= settings.snapshot_interval_s
            or self._SyncObj__forceLogCompaction
        )
        if is_due and self.identity.cluster_id and now >= self._compact_after:
            self._compacted_at = now
            self._SyncObj__forceLogCompaction = False
            if self._applied > max(self.snapshot_index, 1):
                self._compact(self._applied)

    def _compact(self, index: int) -> None:
        term = self.journal.term_at(index)
        assert term is not None, "what was applied last is in the journal"
        try:
            self._keep_members(index)
        except DiskFull as error:
            log.warning("snapshot_has_no_room", extra={"index": index, "reason": str(error)})
            self._finish_compaction(0)
            return
        state, cluster_id, snapshots = self._machine.snapshot(), self._cluster_id(), self._snapshots
        pieces = [state] if isinstance(state, bytes) else state

        def store() -> int:
            content = snapshot.encode_pieces(index, term, pieces, cluster_id)
            try:
                snapshots.store(index, term, content)
            except DiskFull as error:
                log.warning("snapshot_has_no_room", extra={"index": index, "reason": str(error)})
                return 0
            return index

        self._compacting = self._run_aside(store)
        if self._compacting.done():
            self._finish_compaction(self._compacting.result())

    def _finish_compaction(self, index: int) -> None:
        """The journal keeps what lies behind the oldest kept snapshot: for laggards, and if the newest is damaged.

        Without a snapshot (0: it found no room) it keeps everything, and another is taken later.
        """
        self._compacting = None
        if not index:
            self._count("snapshots_without_room")
            self._compact_after = core.monotonicTime() + RETRY_S
            return
        self._count("snapshots_taken")
        self.snapshot_index = max(self.snapshot_index, index)
        self.journal.drop_before(self._snapshots.positions()[0][0])

    def _send_chunk(self, node: Node) -> None:
        """The next piece once the last was answered; until then an empty one, which is also the heartbeat."""
        outgoing = self._reign.outgoing.get(node)
        if outgoing is None:
            newest = self._snapshots.newest_bytes()
            if newest is None:
                self.forceLogCompaction()
                return
            outgoing = self._reign.outgoing[node] = Outgoing(*newest)
        now, data = core.monotonicTime(), b""
        resend_after = self._settings.heartbeat_timeout_s * RESEND_SHARE
        if outgoing.sent != outgoing.offset or now - outgoing.sent_at > resend_after:
            data = outgoing.data[outgoing.offset : outgoing.offset + self._settings.chunk_bytes]
            outgoing.sent, outgoing.sent_at = outgoing.offset, now
        index, snapshot_term = outgoing.position
        chunk = wire.SnapshotChunk(
            self.raftCurrentTerm,
            index,
            snapshot_term,
            len(outgoing.data),
            outgoing.offset,
            self._round,
            data,
            members.encode(self._members_at(index)),
        )
        self._outbox.send(node, chunk)

    def _on_chunk_wanted(self, node: Node, sender_term: int, message: wire.ChunkWanted) -> None:
        if sender_term != self.raftCurrentTerm or self._state != LEADER:
            return
        self._reign.seen[node] = core.monotonicTime()
        if self.counts(node):
            self._last_response[node] = self._reign.seen[node]
            self._reign.acked_round[node] = max(self._reign.acked_round.get(node, 0), message.round)
        outgoing = self._reign.outgoing.get(node)
        if outgoing is None or outgoing.position != (message.index, message.snapshot_term):
            return
        is_news = outgoing.offset != message.offset
        outgoing.offset = message.offset
        if is_news and self._next[node] <= self.journal.first_index:
            self._send_chunk(node)

    def counts(self, node: Node) -> bool:
        """Whether the peer's answers may count in majorities, as far as it has told us."""
        greeting = self._greeted.get(node)
        return greeting is not None and greeting.standing == identity.MEMBER

    def _on_chunk(self, node: Node, sender_term: int, message: wire.SnapshotChunk) -> None:
        """Nothing but a whole, stored and loaded snapshot changes the log, the commit index or the answer."""
        if not self._follow(node, message.term):
            return
        position = (message.index, message.snapshot_term)
        if message.index <= self._commit:
            self._answer(node, self._commit + 1, success=True, in_round=message.round)
        elif self._incoming.add(position, message.total, message.offset, message.data):
            self._install(node, message)
        else:
            wanted = wire.ChunkWanted(*position, len(self._incoming.data), message.round)
            self._outbox.send(node, wanted)

    def _install(self, node: Node, message: wire.SnapshotChunk) -> None:
        data, self._incoming = bytes(self._incoming.data), snapshot.Incoming()
        try:
            received = snapshot.decode(data, self._cluster_id())
        except snapshot.SnapshotDamaged as error:
            self._count("refused_snapshots")
            log.warning("snapshot_refused", extra={"peer": node.id, "reason": str(error)})
            return
        index, term = received.index, received.term
        try:
            held = members.decode(message.members)
        except members.NotMembers as error:
            self._count("refused_snapshots")
            log.warning("snapshot_refused", extra={"peer": node.id, "reason": str(error)})
            return
        keep = []
        if self.journal.term_at(index) == term:
            keep = self.journal[index + 1 - self.journal.first_index :]
        # First who the members are: with the snapshot but an older membership it would count the wrong majorities.
        self._store_members(held)
        self._snapshots.store(index, term, data)
        self.journal.reset(index, term, keep)
        self._machine.restore(received.state)
        self._applied = self._commit = self.snapshot_index = index
        self._members_of_snapshot(held, index, keeps_tail=bool(keep))
        self._verified = (message.term, max(self._verified[1], index))
        self._count("snapshots_installed")
        for covered in [at for at in self._waiting_commit if at <= index]:
            for _, callback in self._waiting_commit.pop(covered):
                callback(None, FAIL_REASON.UNKNOWN_OUTCOME)
        self._answer(node, index + 1, success=True, in_round=message.round)
