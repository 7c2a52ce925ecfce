"""What has happened: facts, past tense, never refused. Events alone change the state and PostgreSQL.

Each carries every value its reader needs, as absolute values, so a reader knows no rules. Deadlines are
on the logical clock; wall time is `stamp_ms + (deadline - clock_ms)` of the `Recorded` around it. Encoded
as commands are: tags are never reused, new fields go to the end with a default.

`audited` False marks events that are projected but are not history (heartbeats, counters).
"""

import re
from functools import cache
from typing import ClassVar

import msgspec

from .commands import TaskSpec, TimeWindow
from .kinds import AttemptOutcome, Health, LessonStatus, Provider, SessionStatus, TaskStatus, Tier
from .outcomes import Directive
from .policy import Policy


@cache
def _kind(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


class Event(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True):
    """What every event can tell about itself."""

    audited: ClassVar[bool] = True
    subject_field: ClassVar[str] = ""

    @property
    def kind(self) -> str:
        """The event's name in the audit log, such as `task_claimed`."""
        return _kind(type(self).__name__)

    @property
    def subject(self) -> str:
        """What it happened to: a session's name, the id of a task or lesson, a lock's key, or "cluster"."""
        return str(getattr(self, self.subject_field)) if self.subject_field else "cluster"


class SessionEvent(Event, frozen=True, array_like=True, kw_only=True):
    """Something happened to a session."""

    subject_field: ClassVar[str] = "session_name"

    session_id: str
    session_name: str


class TaskEvent(Event, frozen=True, array_like=True, kw_only=True):
    """Something happened to a task."""

    subject_field: ClassVar[str] = "task_id"

    task_id: str


class LessonEvent(Event, frozen=True, array_like=True, kw_only=True):
    """Something happened to a lesson."""

    subject_field: ClassVar[str] = "lesson_id"

    lesson_id: str


class LockEvent(Event, frozen=True, array_like=True, kw_only=True):
    """Something happened to a lock; `owner_id` is whom it concerns."""

    subject_field: ClassVar[str] = "lock_key"

    lock_key: str
    owner_id: str


# Sessions


class SessionRegistered(SessionEvent, frozen=True, array_like=True, kw_only=True, tag=10):
    """A lease was granted or resumed: `how` is new, resumed or takeover. Status, health and failure
    count are as after a fresh start unless it was resumed.
    """

    how: str
    tier: Tier
    provider: Provider
    max_concurrent_tasks: int
    lesson_id: str
    time_windows: tuple[TimeWindow, ...]
    capabilities: tuple[str, ...]
    metadata: str
    accepts_push: bool
    user: str
    status: SessionStatus
    health: Health
    consecutive_failures: int
    lease_token: int
    lease_expires_ms: int


class SessionRenewed(SessionEvent, frozen=True, array_like=True, kw_only=True, tag=11):
    """A heartbeat: the lease was renewed. `delivered` directives left the session's list."""

    audited: ClassVar[bool] = False

    lease_expires_ms: int
    health: Health
    load_milli: int
    delivered: int = 0


class SessionUpdated(SessionEvent, frozen=True, array_like=True, kw_only=True, tag=12):
    """The fields a session or operator may change, as they are now."""

    max_concurrent_tasks: int
    lesson_id: str
    time_windows: tuple[TimeWindow, ...]
    capabilities: tuple[str, ...]
    metadata: str
    accepts_push: bool


class SessionStatusChanged(SessionEvent, frozen=True, array_like=True, kw_only=True, tag=13):
    """Paused, draining, resumed (idle or busy) on request. Idle and busy otherwise follow the claims and
    are told by `SessionCounted`.
    """

    status: SessionStatus
    consecutive_failures: int
    reason: str = ""


class SessionHealthChanged(SessionEvent, frozen=True, array_like=True, kw_only=True, tag=14):
    """Heartbeats were missed or came again, or somebody set the health."""

    health: Health
    consecutive_failures: int


class SessionFailed(SessionEvent, frozen=True, array_like=True, kw_only=True, tag=15):
    """The status is failed: by an operator, by itself, or after too many failures in a row."""

    reason: str
    consecutive_failures: int


class SessionExpired(SessionEvent, frozen=True, array_like=True, kw_only=True, tag=16):
    """The lease was over: the status is offline, the health unhealthy, the lease void."""

    lease_token: int


class SessionDeregistered(SessionEvent, frozen=True, array_like=True, kw_only=True, tag=17):
    """The session said goodbye: the status is offline, the lease void."""

    lease_token: int
    reason: str = ""


class SessionForgotten(SessionEvent, frozen=True, array_like=True, kw_only=True, tag=18):
    """The machine dropped an offline session and its affinities to make room; rows may stay."""

    audited: ClassVar[bool] = False


class SessionCounted(SessionEvent, frozen=True, array_like=True, kw_only=True, tag=19):
    """The counters of a session after a command that moved one of them."""

    audited: ClassVar[bool] = False

    status: SessionStatus
    current_task_count: int
    consecutive_failures: int
    tasks_completed: int
    tasks_failed: int
    busy_ms: int  # spent in the tasks that were completed; the average is this over tasks_completed


class DirectiveQueued(SessionEvent, frozen=True, array_like=True, kw_only=True, tag=20):
    """The next heartbeat's answer will carry this."""

    audited: ClassVar[bool] = False

    directive: Directive


class AssignmentsDelivered(SessionEvent, frozen=True, array_like=True, kw_only=True, tag=21):
    """The session has taken note of tasks that were pushed to it."""

    audited: ClassVar[bool] = False

    task_ids: tuple[str, ...]


# Tasks


class TaskEnqueued(TaskEvent, frozen=True, array_like=True, kw_only=True, tag=30):
    """`order_ms` and `order_seq` are its place in the queue; `waiting_on` its unfinished dependencies."""

    spec: TaskSpec
    waiting_on: tuple[str, ...]
    run_after_ms: int
    order_ms: int
    order_seq: int


class TaskUpdated(TaskEvent, frozen=True, array_like=True, kw_only=True, tag=31):
    """A pending task as it is now."""

    spec: TaskSpec
    run_after_ms: int
    order_ms: int


class TaskReady(TaskEvent, frozen=True, array_like=True, kw_only=True, tag=32):
    """A pending task's delay is over: it can be claimed if it waits for no other task."""

    audited: ClassVar[bool] = False


class DependencyMet(TaskEvent, frozen=True, array_like=True, kw_only=True, tag=33):
    """A pending task no longer waits for `depends_on`; `waiting` others remain."""

    audited: ClassVar[bool] = False

    depends_on: str
    waiting: int


class TaskClaimed(TaskEvent, frozen=True, array_like=True, kw_only=True, tag=34):
    """The status is assigned. `pushed`: the coordinator chose; the session has yet to learn of it.
    `deadline_ms`: renewing ends there, 0 if it never does. `score` is what the choice was made by.
    """

    session_id: str
    session_name: str
    claim_token: int
    attempt: int
    expires_ms: int
    deadline_ms: int
    lesson_id: str
    pushed: bool
    score: int = 0


class TaskStarted(TaskEvent, frozen=True, array_like=True, kw_only=True, tag=35):
    """The status is in_progress."""

    session_id: str
    session_name: str
    claim_token: int


class TaskRenewed(TaskEvent, frozen=True, array_like=True, kw_only=True, tag=36):
    """A claim was prolonged, with the progress its holder reported."""

    audited: ClassVar[bool] = False

    session_id: str
    session_name: str
    claim_token: int
    expires_ms: int
    percent: int
    note: str


class TaskCompleted(TaskEvent, frozen=True, array_like=True, kw_only=True, tag=37):
    """The task is final, by the word of its holder."""

    session_id: str
    session_name: str
    claim_token: int
    attempt: int
    retry_count: int
    lesson_id: str
    duration_ms: int  # of logical time since the claim


class TaskRequeued(TaskEvent, frozen=True, array_like=True, kw_only=True, tag=38):
    """A claim ended without completion and the task is pending again, not before `run_after_ms`."""

    session_id: str
    session_name: str
    claim_token: int
    attempt: int
    retry_count: int
    handbacks: int
    run_after_ms: int
    outcome: AttemptOutcome
    error: str


class TaskFailed(TaskEvent, frozen=True, array_like=True, kw_only=True, tag=39):
    """The task is final: its retries are used up, it was not retryable, or a dependency failed (then no
    session, token and attempt).
    """

    session_id: str
    session_name: str
    claim_token: int
    attempt: int
    retry_count: int
    lesson_id: str
    outcome: AttemptOutcome
    error: str


class TaskCancelled(TaskEvent, frozen=True, array_like=True, kw_only=True, tag=40):
    """The task is final; the session and token are those of the claim that was voided, if any."""

    session_id: str
    session_name: str
    claim_token: int
    attempt: int
    retry_count: int
    lesson_id: str
    reason: str


class TaskRetried(TaskEvent, frozen=True, array_like=True, kw_only=True, tag=41):
    """A failed or cancelled task is pending again, its retries counted anew."""

    spec: TaskSpec
    was: TaskStatus
    attempt: int
    order_ms: int
    order_seq: int


class TaskDeleted(TaskEvent, frozen=True, array_like=True, kw_only=True, tag=42):
    """A pending or final task was forgotten; its row goes as well."""

    was: TaskStatus
    lesson_id: str


# Lessons


class LessonProgressed(LessonEvent, frozen=True, array_like=True, kw_only=True, tag=50):
    """The counters and status of a lesson after a command that moved them. Cancelled tasks do not count."""

    audited: ClassVar[bool] = False

    tasks_total: int
    tasks_completed: int
    tasks_failed: int
    started: bool
    archived: bool
    status: LessonStatus


class LessonDeleted(LessonEvent, frozen=True, array_like=True, kw_only=True, tag=51):
    """The lesson is gone; its live tasks and sessions have none now."""


# Locks


class LockAcquired(LockEvent, frozen=True, array_like=True, kw_only=True, tag=60):
    """A lock has a new holder. `waited`: it came from the queue, and `request_id` is that of the command
    that queued it, whose caller is waiting for this event.
    """

    fencing_token: int
    expires_ms: int
    ttl_ms: int
    metadata: str
    waited: bool
    request_id: bytes


class LockQueued(LockEvent, frozen=True, array_like=True, kw_only=True, tag=61):
    """An owner waits; one that waited already keeps its place and has a new request."""

    audited: ClassVar[bool] = False

    request_id: bytes
    wait_expires_ms: int
    ttl_ms: int
    metadata: str


class LockRenewed(LockEvent, frozen=True, array_like=True, kw_only=True, tag=62):
    """The holder prolonged its lock; token and acquisition stay."""

    audited: ClassVar[bool] = False

    fencing_token: int
    expires_ms: int
    ttl_ms: int
    renewed_count: int
    metadata: str


class LockReleased(LockEvent, frozen=True, array_like=True, kw_only=True, tag=63):
    """`reason` is released, forced: …, or what happened to the session that owned it."""

    fencing_token: int
    reason: str


class LockExpired(LockEvent, frozen=True, array_like=True, kw_only=True, tag=64):
    """The holder's time was over."""

    fencing_token: int


class LockWaitExpired(LockEvent, frozen=True, array_like=True, kw_only=True, tag=65):
    """A waiter left the queue without the lock: its time was over, it went away, or its session did."""

    audited: ClassVar[bool] = False

    request_id: bytes
    reason: str


# Affinity


class AffinityEvent(LessonEvent, frozen=True, array_like=True, kw_only=True):
    """An affinity as it stands now; a row is inserted or changed by (session, lesson). `affinity_id` is
    empty where the machine made the affinity by itself.
    """

    affinity_id: str
    session_id: str
    session_name: str
    score_milli: int
    window_start_ms: int
    window_end_ms: int
    last_used_ms: int


class AffinityChanged(AffinityEvent, frozen=True, array_like=True, kw_only=True, tag=70):
    """Somebody set it."""


class AffinityUsed(AffinityEvent, frozen=True, array_like=True, kw_only=True, tag=72):
    """The mark of an assignment, or what was learned from its result."""

    audited: ClassVar[bool] = False


class AffinityDeleted(LessonEvent, frozen=True, array_like=True, kw_only=True, tag=71):
    """An affinity was dropped, by wish or because the session has newer ones."""

    affinity_id: str
    session_id: str
    session_name: str


# Cluster


class TermStarted(Event, frozen=True, array_like=True, kw_only=True, tag=80):
    """A new leader's first tick: every deadline of a session, claim, lock and waiter moved by
    `extended_ms`.
    """

    term: int
    extended_ms: int


class PolicyChanged(Event, frozen=True, array_like=True, kw_only=True, tag=81):
    """The policy that holds from now."""

    policy: Policy


class RevisionRaised(Event, frozen=True, array_like=True, kw_only=True, tag=82):
    """This event's revision does not follow the one before."""

    revision: int


class ClockMoved(Event, frozen=True, array_like=True, kw_only=True, tag=90):
    """The logical clock shows this. It changes no row: it is evolved, but neither recorded nor a change
    that makes a revision.
    """

    clock_ms: int


AnyEvent = (
    SessionRegistered
    | SessionRenewed
    | SessionUpdated
    | SessionStatusChanged
    | SessionHealthChanged
    | SessionFailed
    | SessionExpired
    | SessionDeregistered
    | SessionForgotten
    | SessionCounted
    | DirectiveQueued
    | AssignmentsDelivered
    | TaskEnqueued
    | TaskUpdated
    | TaskReady
    | DependencyMet
    | TaskClaimed
    | TaskStarted
    | TaskRenewed
    | TaskCompleted
    | TaskRequeued
    | TaskFailed
    | TaskCancelled
    | TaskRetried
    | TaskDeleted
    | LessonProgressed
    | LessonDeleted
    | LockAcquired
    | LockQueued
    | LockRenewed
    | LockReleased
    | LockExpired
    | LockWaitExpired
    | AffinityChanged
    | AffinityUsed
    | AffinityDeleted
    | TermStarted
    | PolicyChanged
    | RevisionRaised
)


class Recorded(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True):
    """An event in its place: `sequence` counts from 0 within the revision, which has at least one event.
    `stamp_ms` is display time (unix), `clock_ms` the logical clock, `actor` who wished it.
    """

    revision: int
    sequence: int
    stamp_ms: int
    clock_ms: int
    event: AnyEvent
    actor: str = ""
