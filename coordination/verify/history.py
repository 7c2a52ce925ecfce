"""What was asked and what was answered: one operation a line, in the format the API's page of commands fixes.

Times are nanoseconds of one machine's monotonic clock. An operation whose outcome nobody learned has neither
output nor return: it may have happened at any time after its invocation, or never.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

OPS = (
    "lock.acquire",
    "lock.renew",
    "lock.release",
    "session.register",
    "session.heartbeat",
    "task.enqueue",
    "task.claim",
    "task.complete",
    "register.write",
    "register.read",
)
LINES_MAX = 5_000_000
NS_PER_S = 1_000_000_000


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One call. `key` is the lock, session, task (its id, or the idempotency_key where no id was learned) or register.

    `process` calls one thing after the other; after an unknown outcome its work goes on under another number.
    """

    process: int
    op: str
    key: str | None
    input: dict[str, Any]
    output: dict[str, Any] | None
    invoke_ns: int
    return_ns: int | None

    @property
    def is_known(self) -> bool:
        """Whether the answer was heard."""
        return self.output is not None

    @property
    def status(self) -> int:
        """The status of the answer; 0 where none was heard."""
        return 0 if self.output is None else int(self.output["status"])

    @property
    def is_ok(self) -> bool:
        """Whether it was done."""
        return 200 <= self.status < 300

    @property
    def may_have_happened(self) -> bool:
        """Whether it was done, or nobody knows."""
        return self.is_ok or not self.is_known


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One event as one watcher was given it; `digest` stands for all its content."""

    watcher: str
    index: int
    sequence: int
    kind: str
    subject: str
    digest: str


class HistoryDamaged(Exception):
    """A file is no history. The message names the line and what is wrong."""


_operation = msgspec.json.Decoder(Operation)


def encode(operation: Operation) -> bytes:
    """One line, with its end."""
    return msgspec.json.encode(operation) + b"\n"


def decode(lines: Iterable[bytes]) -> list[Operation]:
    """The operations of a file in the order of their invocation. Raises HistoryDamaged."""
    found = []
    for number, line in enumerate(lines, start=1):
        if number > LINES_MAX:
            raise HistoryDamaged(f"more than {LINES_MAX} lines")
        try:
            operation = _operation.decode(line)
        except msgspec.MsgspecError as error:
            raise HistoryDamaged(f"line {number}: {error}") from error
        found.append(_checked(operation, number))
    return in_order(found)


def _checked(operation: Operation, number: int) -> Operation:
    if operation.op not in OPS:
        raise HistoryDamaged(f"line {number}: op is {operation.op!r}, not one of {', '.join(OPS)}")
    if (operation.output is None) is not (operation.return_ns is None):
        raise HistoryDamaged(f"line {number}: output and return_ns must both be there, or both be null")
    if operation.return_ns is not None and operation.return_ns < operation.invoke_ns:
        raise HistoryDamaged(f"line {number}: it returned before it was invoked")
    if operation.output is not None and not isinstance(operation.output.get("status"), int):
        raise HistoryDamaged(f"line {number}: output has no status")
    return operation


def read(path: Path) -> list[Operation]:
    """The operations of a history file. Raises HistoryDamaged and OSError."""
    with path.open("rb") as lines:
        return decode(lines)


def in_order(operations: Iterable[Operation]) -> list[Operation]:
    """By invocation."""
    return sorted(operations, key=lambda operation: operation.invoke_ns)


def by_key(operations: Iterable[Operation]) -> dict[str, list[Operation]]:
    """The operations of each key, in the given order; those without a key are left out."""
    found: dict[str, list[Operation]] = {}
    for operation in operations:
        if operation.key is not None:
            found.setdefault(operation.key, []).append(operation)
    return found


def overlapping_processes(operations: Sequence[Operation]) -> list[tuple[Operation, Operation]]:
    """Pairs in which a process began something before its last call had returned: a defect of the record."""
    last: dict[int, Operation] = {}
    found = []
    for operation in in_order(operations):
        before = last.get(operation.process)
        if before is not None and (before.return_ns is None or before.return_ns > operation.invoke_ns):
            found.append((before, operation))
        last[operation.process] = operation
    return found
