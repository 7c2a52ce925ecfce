"""What a service may raise: the refusals and failures of the coordination half, as one small family.

The API turns these into problem documents in one place; nothing here knows HTTP.
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any


class CoordinationError(Exception):
    """The family."""


class RejectedError(CoordinationError):
    """A rule refused the command: nothing changed, and the same command will be refused again as things stand.

    `code` is a value of `machine.kinds.RejectionCode`; `data` has what the refusal is about (the holder of a
    lock, the current token); `revision` is the state it was decided against.
    """

    def __init__(
        self, code: str, detail: str, data: Mapping[str, Any] | None = None, revision: int = 0
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = str(code)
        self.detail = detail
        self.data = dict(data or {})
        self.revision = revision


class InvalidError(CoordinationError):
    """An argument is out of its bounds; `field` names it. Nothing was sent to the log."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field = field
        self.detail = detail


class NotFound(CoordinationError):
    """There is no such object, or the asker may not know of it."""

    def __init__(self, kind: str, name: object) -> None:
        super().__init__(f"there is no {kind} {name}")
        self.kind = kind
        self.name = str(name)


class NotAvailable(CoordinationError):
    """The command was certainly not applied (no leader, queue full, no node reachable): try again later."""

    def __init__(self, detail: str, retry_after_s: float = 1.0) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_s = retry_after_s


class OutcomeUnknown(CoordinationError):
    """The command may or may not have been applied, or may still be: ask again with the same request id."""

    def __init__(self, detail: str, retry_after_s: float = 1.0) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_s = retry_after_s


class Stored(OutcomeUnknown):
    """Tasks are rows, and the log did not take them: the leader queues them as soon as there is one.

    The same call with the same idempotency keys answers them.
    """

    def __init__(self, failure: NotAvailable | OutcomeUnknown, task_ids: Sequence[uuid.UUID]) -> None:
        super().__init__(failure.detail, failure.retry_after_s)
        self.task_ids = tuple(task_ids)
