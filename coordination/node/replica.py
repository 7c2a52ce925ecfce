"""The machine as one node holds it: applied by the member's thread, read by others under its lock.

Nothing here decides anything. What was applied is handed on to listeners in the order of the log.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from coordination.machine.events import Recorded
from coordination.machine.machine import Applied, Machine
from coordination.machine.policy import Policy
from coordination.machine.state import State

Answer = TypeVar("Answer")


class Listener(Protocol):
    """Told of what was applied, in the member's thread: must return at once and must not raise."""

    def on_events(self, events: list[Recorded]) -> None:
        """These events happened, and no others since the last call."""
        ...

    def on_restored(self) -> None:
        """The state was replaced by a snapshot: events may have been missed."""
        ...


class Replica:
    """What `log.raft.Member` drives; see `log.contract.Machine`."""

    def __init__(self, policy: Policy) -> None:
        self._machine = Machine(policy)
        self._lock = threading.Lock()
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Add a listener; call it before the member starts."""
        self._listeners.append(listener)

    def apply(self, payload: bytes) -> Applied:
        """Apply one entry of the log; the result has one outcome a command."""
        with self._lock:
            applied = self._machine.apply(payload)
        if applied.events:
            for listener in self._listeners:
                listener.on_events(applied.events)
        return applied

    def snapshot(self) -> bytes:
        """The whole state, encoded."""
        with self._lock:
            return self._machine.snapshot()

    def restore(self, data: bytes) -> None:
        """Replace the whole state."""
        with self._lock:
            self._machine.restore(data)
        for listener in self._listeners:
            listener.on_restored()

    def events_after(self, revision: int) -> list[Recorded] | None:
        """The recorded events after this revision; None where the state no longer has them all."""
        with self._lock:
            return self._machine.events_after(revision)

    @contextmanager
    def reading(self) -> Iterator[State]:
        """The live state, standing still for as long as the block lasts: keep it short, change nothing."""
        with self._lock:
            yield self._machine.state

    def read(self, question: Callable[[State], Answer]) -> Answer:
        """The answer of a short question to the live state."""
        with self.reading() as state:
            return question(state)
