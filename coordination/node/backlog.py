"""Events that wait to be projected, bounded; and a bell that rings when there are new ones."""

import threading
from collections import deque
from itertools import takewhile

from coordination.machine.events import Recorded

EVENTS_MAX = 200_000
"""Some 100 MB at the most. Beyond it the rows are reconciled from the state instead."""


class Backlog:
    """A `replica.Listener`. Filled by the member's thread, emptied by the projection's."""

    def __init__(self, events_max: int = EVENTS_MAX) -> None:
        self._events: deque[Recorded] = deque()
        self._events_max = events_max
        self._lock = threading.Lock()
        self._bell = threading.Event()
        self.overflows = 0

    def on_events(self, events: list[Recorded]) -> None:
        """Keep events; the oldest go where there are too many, which the projection sees as a gap."""
        with self._lock:
            self._events.extend(events)
            if len(self._events) > self._events_max:
                self._events.clear()
                self.overflows += 1
        self._bell.set()

    def on_restored(self) -> None:
        """Events were missed: what is kept no longer joins what comes."""
        with self._lock:
            self._events.clear()
        self._bell.set()

    def first(self, limit: int) -> list[Recorded]:
        """About the first `limit` events, whole revisions, at least one if there is any."""
        with self._lock:
            if len(self._events) <= limit:
                return list(self._events)
            last = self._events[limit - 1].revision
            return list(takewhile(lambda recorded: recorded.revision <= last, self._events))

    def drop_through(self, revision: int) -> None:
        """Forget events up to a revision that is projected."""
        with self._lock:
            while self._events and self._events[0].revision <= revision:
                self._events.popleft()

    def wait(self, timeout_s: float) -> None:
        """Return when new events came, or after a while."""
        self._bell.wait(timeout_s)
        self._bell.clear()

    def ring(self) -> None:
        """Let whoever waits look again."""
        self._bell.set()

    def __len__(self) -> int:
        return len(self._events)
