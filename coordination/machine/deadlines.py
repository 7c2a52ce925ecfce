"""When each record next changes by itself, in one order every member agrees on.

A deadline that moves to later (a renewed lease) costs nothing until its old time comes: the entry is then
put back with the time its record names. Entries therefore carry lower bounds, and what counts is asked of
the record. The order of processing is (due, kind, id), whatever the history of the heap.
"""

from collections.abc import Callable
from enum import IntEnum
from heapq import heappop, heappush, heapreplace
from typing import NamedTuple


class DueKind(IntEnum):
    """What is due; at the same moment a session goes before its claims, and both before locks."""

    SESSION = 1
    TASK = 2
    LOCK = 3


class Due(NamedTuple):
    """A record, and when it changes."""

    due_ms: int
    kind: DueKind
    key: str


class Deadlines:
    """A heap of lower bounds, at most one that counts for each record."""

    __slots__ = ("_heap", "_scheduled")

    def __init__(self) -> None:
        self._heap: list[Due] = []
        self._scheduled: dict[tuple[DueKind, str], int] = {}

    def touch(self, kind: DueKind, key: str, due_ms: int | None) -> None:
        """Note that a record is due then; None (never) is found out when its old time comes."""
        if due_ms is None:
            return
        known = self._scheduled.get((kind, key))
        if known is None or due_ms < known:
            self._scheduled[(kind, key)] = due_ms
            heappush(self._heap, Due(due_ms, kind, key))

    def head(self, actual_ms: Callable[[DueKind, str], int | None]) -> Due | None:
        """The next record that is really due, and when; entries that are out of date are put right."""
        while self._heap:
            entry = self._heap[0]
            key = (entry.kind, entry.key)
            if self._scheduled.get(key) != entry.due_ms:
                heappop(self._heap)
                continue
            actual = actual_ms(entry.kind, entry.key)
            if actual is None:
                heappop(self._heap)
                del self._scheduled[key]
            elif actual > entry.due_ms:
                self._scheduled[key] = actual
                heapreplace(self._heap, Due(actual, entry.kind, entry.key))
            else:
                return entry
        return None

    def lower_bound_ms(self) -> int | None:
        """Nothing is due before this; None if nothing is."""
        return self._heap[0].due_ms if self._heap else None
