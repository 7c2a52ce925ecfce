"""The machine as one node holds it: applied by the member's thread, read by others under its lock.

Nothing here decides anything. What was applied is handed on to listeners in the order of the log.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from coordination.machine.capture import Capture
from coordination.machine.events import Recorded
from coordination.machine.machine import Applied, Machine
from coordination.machine.policy import Policy
from coordination.machine.state import State

Answer = TypeVar("Answer")

PIECE_PAUSE_S = 0.0005


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

    def snapshot(self) -> Iterator[bytes]:
        """The whole state as it is now, encoded in pieces; to be taken in a thread that may wait."""
        with self._lock:
            capture = self._machine.capture()
        return self._pieces(capture)

    def _pieces(self, capture: Capture) -> Iterator[bytes]:
        try:
            while True:
                with self._lock:
                    piece = next(capture, None)
                if piece is None:
                    return
                yield piece
                # The lock is not fair: whoever applies shall have it between any two pieces.
                time.sleep(PIECE_PAUSE_S)
        finally:
            with self._lock:
                capture.close()

    def encoded(self) -> bytes:
        """The whole state in one piece; the member goes on meanwhile."""
        return b"".join(self.snapshot())

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
