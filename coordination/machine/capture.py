"""A state as it is at one moment, encoded piece by piece while it goes on changing.

Capturing copies the containers and no record, which takes milliseconds where encoding takes a second. A record
that is about to change is copied into the capture first (`State.changing_session` and its like call `keep_*`), as
long as its piece is still to come. The pieces together are byte for byte `codec.encode_snapshot(snapshot_of(state))`.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from itertools import islice
from typing import Any, TypeVar

import msgspec

from .codec import SNAPSHOT_VERSION
from .state import Lock, Remembered, Session, Snapshot, State, Task

PIECE_RECORDS = 256
"""Encoded in well under a millisecond."""

_encode = msgspec.msgpack.Encoder().encode

_Record = TypeVar("_Record")


def array_head(length: int) -> bytes:
    """The first bytes of a msgpack array of so many items (https://github.com/msgpack/msgpack/blob/master/spec.md)."""
    if length < 1 << 4:
        return bytes([0x90 | length])
    if length < 1 << 16:
        return b"\xdc" + length.to_bytes(2, "big")
    return b"\xdd" + length.to_bytes(4, "big")


class Capture:
    """Iterate it to its end, or `close` it; whoever changes the state must not run during either.

    It may be asked for its next piece between any two commands: each piece tells of the moment of the capture.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._sessions = dict(state.sessions)
        self._tasks = dict(state.tasks)
        self._locks = dict(state.locks)
        self._lists: dict[str, list[Any]] = {
            "finals": list(state.finals.values()),
            "lessons": list(state.lessons.values()),
            "affinities": [row for rows in state.affinities.values() for row in rows.values()],
            "ring": list(state.ring),
        }
        self._memories = {
            "remembered": list(state.remembered.items()),
            "remembered_idle": list(state.remembered_idle.items()),
        }
        self._values: dict[str, Any] = {
            "version": SNAPSHOT_VERSION,
            "revision": state.revision,
            "clock_ms": state.clock_ms,
            "stamp_ms": state.stamp_ms,
            "term": state.term,
            "policy": state.policy,
            "forgotten_revision": state.forgotten_revision,
        }
        self._pieces = self._encoded()
        state.captures.append(self)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._pieces)
        except StopIteration:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the state; records that change are no longer copied. Idempotent."""
        self._pieces.close()
        if self in self._state.captures:
            self._state.captures.remove(self)

    # ---- what is about to change

    def keep_session(self, session: Session) -> None:
        """Copy a session that is about to change."""
        if self._sessions.get(session.session_id) is session:
            self._sessions[session.session_id] = msgspec.structs.replace(session)

    def keep_task(self, task: Task) -> None:
        """Copy a task, with its claim, that is about to change."""
        if self._tasks.get(task.task_id) is task:
            claim = None if task.claim is None else msgspec.structs.replace(task.claim)
            self._tasks[task.task_id] = msgspec.structs.replace(task, claim=claim)

    def keep_lock(self, lock: Lock) -> None:
        """Copy a lock that is about to change."""
        if self._locks.get(lock.lock_key) is lock:
            self._locks[lock.lock_key] = msgspec.structs.replace(lock)

    # ---- pieces

    def _encoded(self) -> Generator[bytes, None, None]:
        fields: dict[str, Callable[[], Iterator[bytes]]] = {
            "sessions": lambda: _array(self._sessions, self._sessions.values()),
            "tasks": lambda: _array(self._tasks, self._tasks.values()),
            "locks": lambda: _array(self._locks, self._locks.values()),
        }
        yield array_head(len(Snapshot.__struct_fields__))
        for name in Snapshot.__struct_fields__:
            if name in fields:
                yield from fields[name]()
            elif name in self._lists:
                records = self._lists.pop(name)
                yield from _array(records, records)
            elif name in self._memories:
                memories = self._memories.pop(name)
                yield from _array(memories, (_remembered(memory) for memory in memories))
            else:
                yield _encode(self._values[name])
            if name == "tasks":
                self._tasks = {}
            elif name == "sessions":
                self._sessions = {}
            elif name == "locks":
                self._locks = {}


def _remembered(memory: tuple[bytes, Any]) -> Remembered:
    return Remembered(request_id=memory[0], outcome=memory[1])


def _array(sized: Sized, records: Iterable[_Record]) -> Iterator[bytes]:
    yield array_head(len(sized))
    left = iter(records)
    while taken := list(islice(left, PIECE_RECORDS)):
        yield _encode(taken)[len(array_head(len(taken))) :]
