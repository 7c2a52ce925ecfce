"""What a command comes to: accepted with a value, or rejected with a code.

Deadlines (`*_expires_ms`) are on the logical clock; `*_ttl_ms` and `lease_ms` are what was promised from
now. Callers show wall time as the stamp of the answer plus the promised time.
"""

import msgspec

from .kinds import DirectiveKind, Health, RejectionCode, SessionStatus, TaskStatus


class Grant(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True):
    """One claimed task. `timeout_ms` 0: the attempt may be renewed for ever."""

    task_id: str
    task_type: str
    attempt: int
    claim_token: int
    expires_ms: int
    ttl_ms: int
    lesson_id: str = ""
    timeout_ms: int = 0
    retry_count: int = 0


class Directive(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True):
    """Something a session is told with a heartbeat's answer."""

    kind: DirectiveKind
    task_id: str = ""
    claim_token: int = 0
    reason: str = ""
    grant: Grant | None = None


class SessionAnswer(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True, tag=1):
    """`how` is new, resumed, takeover, updated or unchanged."""

    session_id: str
    session_name: str
    status: SessionStatus
    health: Health
    lease_token: int
    lease_ms: int
    lease_expires_ms: int
    heartbeat_interval_ms: int
    current_task_count: int
    max_concurrent_tasks: int
    how: str


class HeartbeatAnswer(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True, tag=2):
    """The lease, and what the session is told."""

    session_id: str
    status: SessionStatus
    lease_ms: int
    lease_expires_ms: int
    directives: tuple[Directive, ...] = ()


class ClaimAnswer(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True, tag=3):
    """`reason` says why there are no grants: nothing_pending, no_room, paused, draining, failed,
    unhealthy, outside_window.
    """

    session_id: str
    grants: tuple[Grant, ...] = ()
    reason: str = ""


class TaskAnswer(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True, tag=4):
    """The state of one task. `known` is True where the command changed nothing because it had been
    done before. `run_after_ms` is how long from now a pending task is held back.
    """

    task_id: str
    status: TaskStatus
    retry_count: int = 0
    claim_token: int = 0
    expires_ms: int = 0
    ttl_ms: int = 0
    run_after_ms: int = 0
    known: bool = False


class LockAnswer(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True, tag=5):
    """`state` is held, queued, released or expired (the wait was over); `position` counts the waiters
    in front of a queued one.
    """

    state: str
    lock_key: str
    owner_id: str
    fencing_token: int = 0
    expires_ms: int = 0
    ttl_ms: int = 0
    renewed_count: int = 0
    position: int = 0


class ReleaseAnswer(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True, tag=6):
    """A session failed or left: how many tasks went back to the queue, how many ended."""

    session_id: str
    requeued: int = 0
    failed: int = 0


class LessonAnswer(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True, tag=7):
    """The status of a lesson."""

    lesson_id: str
    status: str


class TickAnswer(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True, tag=8):
    """`more` is True where more was due than one tick may process: tick again at once, with 0."""

    clock_ms: int
    expired: int = 0
    more: bool = False


class Done(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True, tag=9):
    """Done, with nothing more to say."""


Value = (
    SessionAnswer
    | HeartbeatAnswer
    | ClaimAnswer
    | TaskAnswer
    | LockAnswer
    | ReleaseAnswer
    | LessonAnswer
    | TickAnswer
    | Done
)


class Accepted(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True, tag=1):
    """`revision` is the machine's after the command; it grew only if the command changed something."""

    revision: int
    value: Value


class Rejected(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True, tag=2):
    """Nothing was changed. `data` names what stands in the way (owner_id, expires_in_ms, …)."""

    revision: int
    code: RejectionCode
    detail: str
    data: dict[str, str | int] = {}


Outcome = Accepted | Rejected
