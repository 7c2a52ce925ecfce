"""Linearizable reads: whoever leads proves it with a round of answers sent after the read was asked for."""

import math

from pysyncobj.node import Node

from coordination.log import wire
from coordination.log.contract import Committed, NotApplied
from coordination.log.seat import LEADER, Read, Seat
from coordination.log.waiting import Waiting


class Reads(Seat):
    """The read-index protocol (Raft thesis, 6.4)."""

    def read(self, waiting: Waiting) -> None:
        """Ask for a linearizable read; settled with the index once it is applied here."""
        if self._state == LEADER:
            self._reads.append(Read(self._round + 1, max(self._commit, self._noop), waiting, None))
        elif self._leader in self._connected:
            self._read_count += 1
            self._reads_asked[self._read_count] = waiting
            self._outbox.send(self._leader, wire.ReadRequest(self._read_count))
        else:
            waiting.settle(NotApplied("no leader is known at the moment"))

    def _on_read_request(self, node: Node, sender_term: int, message: wire.ReadRequest) -> None:
        if self._state == LEADER:
            index = max(self._commit, self._noop)
            self._reads.append(Read(self._round + 1, index, None, (node, message.request_id)))
        else:
            self._outbox.send(node, wire.ReadAnswer(message.request_id, 0))

    def _on_read_answer(self, node: Node, sender_term: int, message: wire.ReadAnswer) -> None:
        waiting = self._reads_asked.pop(message.request_id, None)
        if waiting is None:
            return
        if message.index:
            self._reads_ready.append((message.index, waiting))
        else:
            waiting.settle(NotApplied("the member asked does not lead any more"))

    def _serve_reads(self) -> None:
        if self._reads and self._state == LEADER:
            acked = sorted((self._reign.acked_round.get(n, 0) for n in self._voters.values()), reverse=True)
            needed = (len(self._voters) + 1) // 2
            confirmed = acked[needed - 1] if needed else math.inf
            open_reads = []
            for read in self._reads:
                if read.round > confirmed:
                    open_reads.append(read)
                elif read.local is not None:
                    self._reads_ready.append((read.index, read.local))
                elif read.asker is not None:
                    self._outbox.send(read.asker[0], wire.ReadAnswer(read.asker[1], read.index))
            self._reads = open_reads
        if self._reads_ready:
            ready = [(index, waiting) for index, waiting in self._reads_ready if index <= self._applied]
            self._reads_ready = [
                (index, w) for index, w in self._reads_ready if index > self._applied and not w.is_settled
            ]
            for index, waiting in ready:
                waiting.settle(Committed(max(index, self._applied)))

    def _reads_lost(self) -> None:
        """Nobody confirms what was asked of the leader that was."""
        reads, self._reads = self._reads, []
        asked, self._reads_asked = self._reads_asked, {}
        for waiting in [read.local for read in reads if read.local] + list(asked.values()):
            waiting.settle(NotApplied("the leader changed"))
        for asker in [read.asker for read in reads if read.asker]:
            self._outbox.send(asker[0], wire.ReadAnswer(asker[1], 0))
