"""A member whose disk is full: it gives up leadership, promises nothing, and goes on by itself when there is room.

Nothing was synced and believed: the batch that found no room was taken back by the disk and waits in the journal's
buffer, so that once it can be written this was no more than a slow disk. Until then the member is mute: messages
are dropped unheard, because any answer would promise what is not durable. What it has applied can still be read.
"""

import logging
import math
from collections import defaultdict

import pysyncobj.syncobj as core
from pysyncobj import FAIL_REASON
from pysyncobj.node import Node

from coordination.log import wire
from coordination.log.disk import DiskFull
from coordination.log.seat import FOLLOWER, LEADER, Seat

log = logging.getLogger(__name__)

RETRY_S = 0.5


class Room(Seat):
    """What is done without room, and when there is some again."""

    full = ""
    """Why nothing can be written; empty while there is room."""
    _full_retry_at = math.inf

    def _no_room(self, error: DiskFull) -> None:
        """Step down, tell the best follower to stand, and answer everybody who waits."""
        if not self.full:
            self._count("disk_full")
            log.error("disk_full", extra={"node": self.identity.node_id, "reason": str(error)})
        self.full = str(error)
        self._full_retry_at = core.monotonicTime() + RETRY_S
        heir = self._heir() if self._state == LEADER else None
        self._SyncObj__setState(FOLLOWER)
        self._leader = None
        self._forwards_unknown()
        self._reads_lost()
        waiting, self._waiting_commit = self._waiting_commit, defaultdict(list)
        for callbacks in waiting.values():
            for _, callback in callbacks:
                callback(None, FAIL_REASON.UNKNOWN_OUTCOME)
        self._outbox.discard()
        if heir is not None:
            self._outbox.send(heir, wire.TimeoutNow(self.raftCurrentTerm))
            self._outbox.flush()

    def _heir(self) -> Node | None:
        """The connected follower that has most of the log."""
        able = [node for node in self._connected & self._others if self.counts(node)]
        return max(able, key=lambda node: self._match[node], default=None)

    def _has_room(self) -> bool:
        """Try again what found no room; True once it is durable, or while nothing is wrong."""
        if not self.full:
            return True
        now = core.monotonicTime()
        if now < self._full_retry_at:
            return False
        self._full_retry_at = now + RETRY_S
        try:
            self.journal.sync()
        except DiskFull as error:
            self.full = str(error)
            return False
        log.info("disk_has_room", extra={"node": self.identity.node_id})
        self.full, self._full_retry_at = "", math.inf
        self._deadline = now + self._SyncObj__generateRaftTimeout() if self._voters else -math.inf
        return True
