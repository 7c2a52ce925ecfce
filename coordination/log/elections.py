"""Elections: ask before standing, one vote a term, no votes against a leader that is alive; and handing over."""

import math
from collections import defaultdict

import pysyncobj.syncobj as core
from pysyncobj import FAIL_REASON
from pysyncobj.node import Node

from coordination.log import wire
from coordination.log.contract import Committed, NotApplied
from coordination.log.seat import LEADER, Reign, Seat, Transfer
from coordination.log.waiting import Waiting

QUIET_SHARE = 0.8
"""A leader heard within this share of the shortest time-out is alive: no votes against it."""


class Elections(Seat):
    """Pre-votes, votes, changes of state, transfer of leadership."""

    def _stand(self, now: float) -> None:
        """When our time is up, first ask whether an election could be won; only then let pysyncobj hold one."""
        if self._state == LEADER:
            return
        if not self.may_stand:
            self._deadline = math.inf
            return
        if self._deadline >= now or self._may_campaign or not self._voters:
            return
        self._count("pre_votes_asked")
        self._deadline = now + self._SyncObj__generateRaftTimeout()
        self._leader = None
        self._forwards_unknown()
        self._reads_lost()
        term = self.raftCurrentTerm + 1
        self._pre_votes = (term, set())
        for node in self._connected & self._others:
            self._outbox.send(node, wire.PreVote(term, self.journal.last_index, self.journal.last_term))

    @property
    def may_stand(self) -> bool:
        """Whether this member can be a candidate: a voter that nobody has sent away."""
        return bool(self.identity.votes and self._is_voter and not self.is_removed)

    def _hears_leader(self) -> bool:
        if self._state == LEADER:
            return True
        return bool(core.monotonicTime() - self._heard < self._settings.heartbeat_timeout_s * QUIET_SHARE)

    def _on_pre_vote(self, node: Node, sender_term: int, message: wire.PreVote) -> None:
        if message.term <= self.raftCurrentTerm:
            self._outbox.send(node, wire.PreVoteGranted(0))  # its envelope tells the newer term
            return
        is_good = (message.last_log_term, message.last_log_index) >= (
            self.journal.last_term,
            self.journal.last_index,
        )
        if is_good and self.identity.votes and not self._hears_leader():
            self._outbox.send(node, wire.PreVoteGranted(message.term))

    def _on_pre_vote_granted(self, node: Node, sender_term: int, message: wire.PreVoteGranted) -> None:
        term, voters = self._pre_votes
        if self._state == LEADER or message.term != term or term != self.raftCurrentTerm + 1:
            return
        if node not in self._others:
            return
        voters.add(node.id)
        if self._is_majority(len(voters)) and self.may_stand:
            self._pre_votes = (0, set())
            self._campaign()

    def _campaign(self) -> None:
        """The next tick holds the election."""
        self._may_campaign, self._deadline = True, -math.inf

    def _on_request_vote(self, node: Node, sender_term: int, message: wire.RequestVote) -> None:
        if not self.identity.votes or (self._hears_leader() and not message.transfer):
            return
        if message.term == self.raftCurrentTerm and self._voted_for == node.id and self._state != LEADER:
            self._outbox.send(node, wire.VoteGranted(message.term))  # the first grant may have been lost
            return
        self._stock(
            node,
            {
                "type": "request_vote",
                "term": message.term,
                "last_log_index": message.last_log_index,
                "last_log_term": message.last_log_term,
            },
        )

    def _on_vote_granted(self, node: Node, sender_term: int, message: wire.VoteGranted) -> None:
        """Voters are counted, not votes."""
        if node in self._others and (message.term, node.id) not in self._votes:
            self._votes = {vote for vote in self._votes if vote[0] == message.term} | {
                (message.term, node.id)
            }
            self._stock(node, {"type": "response_vote", "term": message.term})

    def _on_timeout_now(self, node: Node, sender_term: int, message: wire.TimeoutNow) -> None:
        if message.term == self.raftCurrentTerm and node == self._leader and self.may_stand:
            self._transferring = self.stands_by_transfer = True
            self._campaign()

    def _on_state_changed(self, old: int, new: int) -> None:
        if new == LEADER:
            self._reign = Reign()
            self._told = (0, 0)
            self._count("terms_led")
        elif old == LEADER:
            self._count("terms_ended")
            self._forwards_unknown()
            self._reads_lost()
            waiting, self._waiting_commit = self._waiting_commit, defaultdict(list)
            for callbacks in waiting.values():
                for _, callback in callbacks:
                    callback(None, FAIL_REASON.UNKNOWN_OUTCOME)

    def transfer(self, node_id: str, waiting: Waiting) -> None:
        """Begin to hand leadership over."""
        target = self._voters.get(node_id)
        if self._state != LEADER:
            waiting.settle(NotApplied("only the leader can hand over; this member does not lead"))
        elif target is None or target not in self._connected:
            waiting.settle(NotApplied(f"{node_id} is not a connected voting member"))
        elif self._transfer is not None:
            waiting.settle(NotApplied("a transfer is already under way"))
        else:
            limit = core.monotonicTime() + 4 * self._settings.election_timeout_s
            self._transfer = Transfer(target, waiting, limit)

    def hand_over(self, waiting: Waiting) -> None:
        """Begin to hand leadership over to the voter that has most of the log."""
        if self._state != LEADER:  # only a leader knows how much the others have
            waiting.settle(NotApplied("this member does not lead"))
            return
        there = [node for node in self._others & self._connected if self._match[node]]
        if not there:
            waiting.settle(NotApplied("there is no other voting member to lead"))
        else:
            self.transfer(max(there, key=lambda node: (self._match[node], node.id)).id, waiting)

    def _pursue_transfer(self) -> None:
        """No new commands meanwhile; the target is asked once it has everything and all of it is committed."""
        transfer = self._transfer
        if transfer is None:
            return
        last = self.journal.last_index
        if self._leader == transfer.target:
            transfer.waiting.settle(Committed(transfer.target.id))
            self._transfer = None
        elif core.monotonicTime() > transfer.deadline:
            transfer.waiting.settle(NotApplied("the member did not take over in time"))
            self._transfer = None
        elif (
            self._state == LEADER
            and not transfer.is_sent
            and self._commit == last == self._match[transfer.target]
        ):
            self._outbox.send(transfer.target, wire.TimeoutNow(self.raftCurrentTerm))
            transfer.is_sent = True
