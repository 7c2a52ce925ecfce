"""How entries get into every log and are applied: the follower's side, the leader's side, and commands."""

import pysyncobj.syncobj as core
from pysyncobj import FAIL_REASON
from pysyncobj.node import Node

from coordination.log import members, wire
from coordination.log.changes import Changes
from coordination.log.seat import FOLLOWER, LEADER
from coordination.log.waiting import Waiting

REGULAR = b"\x00"
"""pysyncobj's kind byte of a command; of the other kinds only its no-op is ever in our log."""
FEED_BYTES = 4 * 1024 * 1024
"""What one peer is sent in one round, and the backlog at which it gets heartbeats only."""
APPLY_SLICE_S = 0.02
"""A member that catches up goes on reading and sending in between."""


class Replication(Changes):
    """Invariant: the log equals the leader's up to every index answered for in this term."""

    def _follow(self, node: Node, term: int) -> bool:
        """Accept this leader of our term; False, with an answer that tells our newer term, if it is deposed."""
        if term != self.raftCurrentTerm:
            self._answer(node, self._commit + 1, success=False, in_round=0)
            return False
        now = core.monotonicTime()
        if not self._transferring:
            self._deadline = now + self._SyncObj__generateRaftTimeout()
        self._heard = now
        if self._leader != node or self._verified[0] != term:
            self._forwards_unknown()
            self._reads_lost()
            self._transferring = False
            self._verified = (term, self._commit)
        self._leader = node
        self._dismissed_at = 0
        self._SyncObj__setState(FOLLOWER)
        return True

    def _answer(self, node: Node, next_index: int, *, success: bool, in_round: int) -> None:
        counted = self.identity.votes
        instance = "" if counted else self.identity.instance
        self._outbox.send(node, wire.AppendAnswer(next_index, success, in_round, counted, instance))

    def _on_append(self, node: Node, sender_term: int, message: wire.AppendEntries) -> None:
        """Cut only at a real conflict, answer only for what this message has verified."""
        if not self._follow(node, message.term):
            return
        previous = message.previous_index
        if previous > self._commit and self.journal.term_at(previous) != message.previous_term:
            # One constant hint: a different one for each message on its way would chase the leader for ever.
            hint = max(self._verified[1], self._commit) + 1
            self._answer(node, hint, success=False, in_round=message.round)
            return
        matched = self._take(message.entries, max(previous, self._commit))
        self._verified = (message.term, max(self._verified[1], matched))
        self._answer(node, matched + 1, success=True, in_round=message.round)
        self._commit = max(self._commit, min(message.commit_index, matched))

    def _take(self, entries: list[tuple[bytes, int, int]], matched: int) -> int:
        """Returns the index up to which our log is now known to equal the leader's."""
        for command, index, term in entries:
            if index <= self._commit:
                continue  # committed here: the same entry by definition
            held = self.journal.term_at(index)
            if held is not None and held != term:
                self.journal.cut_from(index)
                self._unnote_members(index)
                held = None
            if held is None:
                assert index == self.journal.last_index + 1, "the leader's entries are not in sequence"
                self.journal.add(command, index, term)
                self._note_members(command)
            matched = index
        return matched

    def _on_append_answer(self, node: Node, sender_term: int, message: wire.AppendAnswer) -> None:
        """An answer raises what is matched, a refusal lowers what is sent next; neither does the other's work."""
        if sender_term != self.raftCurrentTerm or self._state != LEADER or node not in self._match:
            return
        now = core.monotonicTime()
        self._reign.seen[node] = now
        if message.counted:
            self._last_response[node] = now
            self._reign.acked_round[node] = max(self._reign.acked_round.get(node, 0), message.round)
            self._reign.joiners.pop(node, None)
        else:
            self._match[node] = 0
            if node in self._others:
                self._consider_admission(node, message.instance)
        last = self.journal.last_index
        if message.success:
            verified = min(message.next_index - 1, last)
            self._reign.progress[node] = max(self._reign.progress.get(node, 0), verified)
            if message.counted:
                self._match[node] = max(self._match[node], verified)
            self._next[node] = max(self._next[node], verified + 1)
        else:
            self._next[node] = min(self._next[node], message.next_index)
        self._next[node] = min(max(self._next[node], self._match[node] + 1, 2), last + 1)
        outgoing = self._reign.outgoing.get(node)
        if outgoing is not None and self._next[node] > outgoing.position[0]:
            del self._reign.outgoing[node]  # installed; a newer one may be needed by now

    def _SyncObj__sendAppendEntries(self) -> None:  # noqa: N802
        self._append_time = core.monotonicTime() + self._settings.append_period_s
        self._round += 1
        self._told = (self.journal.last_index, self._commit)
        for node in self._nodes.values():
            if node in self._connected:
                self._feed(node)

    def _feed(self, node: Node) -> None:
        """A heartbeat at least; as many entries as the link has room for."""
        following = self._next[node]
        if following <= self.journal.first_index:
            self._send_chunk(node)
            return
        # One that is being removed hears its leader, but gets the entry itself only if it belongs again.
        is_leaving = self.members.find(node.id) is None
        room = FEED_BYTES - self._links.backlog(node.id)
        while True:
            entries = (
                self.journal.entries_from(following, min(room, self._settings.batch_bytes))
                if room > 0
                else []
            )
            if is_leaving:
                entries = [entry for entry in entries if entry[1] < self.members.index]
            previous = following - 1
            previous_term = self.journal.term_at(previous)
            assert previous_term is not None, "the base of the journal covers what is sent next"
            message = wire.AppendEntries(
                self.raftCurrentTerm, self._commit, previous, previous_term, self._round, entries
            )
            self._outbox.send(node, message)
            if not entries:
                break
            following += len(entries)
            room -= sum(len(entry[0]) for entry in entries)
            if following > self.journal.last_index:
                break
        self._next[node] = following

    def propose(self, payload: bytes, waiting: Waiting) -> None:
        """Put a payload into the log, here or through the leader."""
        self._applyCommand(payload, waiting.answer, 0)

    def _checkCommandsToApply(self) -> None:  # noqa: N802
        """Called by the tick after it has committed and applied. New entries, and news of commits, leave at once."""
        if self._transfer is None or self._state != LEADER:
            super()._checkCommandsToApply()
        if self._state == LEADER and self._nodes:
            has_reads = any(read.round > self._round for read in self._reads)
            if has_reads or self._told != (self.journal.last_index, self._commit):
                self._SyncObj__sendAppendEntries()

    def _on_forward(self, node: Node, sender_term: int, message: wire.Forward) -> None:
        if len(message.payload) > self._settings.max_payload_bytes:
            refusal = wire.ForwardAnswer(message.request_id, FAIL_REASON.REQUEST_DENIED, 0, 0)
            self._outbox.send(node, refusal)
            return
        self._stock(
            node,
            {"type": "apply_command", "command": REGULAR + message.payload, "request_id": message.request_id},
        )

    def _on_forward_answer(self, node: Node, sender_term: int, message: wire.ForwardAnswer) -> None:
        self._stock(
            node,
            {
                "type": "apply_command_response",
                "request_id": message.request_id,
                "error": message.error or None,
                "log_idx": message.log_index,
                "log_term": message.log_term,
            },
        )

    def refuse_forward(self, request_id: int) -> None:
        """It could not leave: so it was not applied."""
        callback = self._waiting_reply.pop(request_id, None)
        if callback is not None:
            callback(None, FAIL_REASON.MISSING_LEADER)

    def _SyncObj__applyLogEntries(self) -> bool:  # noqa: N802
        started = core.monotonicTime()
        while self._applied < self._commit and core.monotonicTime() - started < APPLY_SLICE_S:
            index = self._applied + 1
            command, _, term = self.journal[index - self.journal.first_index]
            result = self._SyncObj__doApplyCommand(command)
            self._applied = index
            for proposed_term, callback in self._waiting_commit.pop(index, ()):
                if proposed_term == term:
                    callback(result, FAIL_REASON.SUCCESS)
                else:
                    callback(None, FAIL_REASON.DISCARDED)
        return False

    def _SyncObj__doApplyCommand(self, command: bytes) -> object:  # noqa: N802
        """Only our own payloads mean anything; pysyncobj would unpickle its kinds here."""
        if command[:1] != REGULAR:
            return members.in_command(command)
        index = self._applied + 1
        term = self.journal.term_at(index)
        assert term is not None, "an entry is applied from the journal"
        result = self._machine.apply(command[1:])
        self._on_applied(index, term, result)
        return result
