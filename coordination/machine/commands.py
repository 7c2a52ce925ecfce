"""What can be asked of the machine: imperative wishes, each of which may be refused.

Encoded as arrays with an integer tag. A tag is never reused and a field never moves: new fields go
to the end, with a default, so old logs replay. `request_id` is 16 bytes drawn from the client's
idempotency key; empty where the outcome need not be remembered. `actor` is for the audit log.
"""

import msgspec

from .kinds import DependencyPolicy, Health, Provider, SessionStatus, TaskStatus, Tier
from .policy import Policy


class Command(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True):
    """What every command carries. A field here moves those of all commands, so there will be no other."""

    request_id: bytes = b""
    actor: str = ""


class TimeWindow(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True):
    """When a session works: an absolute span, a weekly recurrence, or both. All times are UTC.

    `start_ms` and `end_ms` are unix milliseconds, 0 means open. `days` is a bit mask, Monday is 1,
    0 means every day; the minutes count from midnight, `from_minute <= minute < to_minute`.
    """

    start_ms: int = 0
    end_ms: int = 0
    days: int = 0
    from_minute: int = 0
    to_minute: int = 1440


class TaskSpec(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True):
    """What the machine must know of a task; its payload stays in PostgreSQL.

    `lesson_id`, `target_session` (a session name) and `tier` are empty where the task has none.
    `claim_ttl_ms` 0 means the policy's; `timeout_ms` 0 means an attempt may be renewed for ever.
    """

    task_type: str
    priority: int = 0
    lesson_id: str = ""
    target_session: str = ""
    tier: str = ""
    required_capabilities: tuple[str, ...] = ()
    max_retries: int = 3
    claim_ttl_ms: int = 0
    timeout_ms: int = 0
    on_dependency_failure: DependencyPolicy = DependencyPolicy.FAIL


class TaskProgress(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True):
    """Progress of a claimed task, carried by a heartbeat; it renews the claim. `percent` 0 to 100."""

    task_id: str
    claim_token: int
    percent: int = 0
    note: str = ""


# Sessions


class SessionRegister(Command, frozen=True, array_like=True, kw_only=True, tag=10):
    """Grant a lease on a name. `session_id` is used where the name is new to the machine: callers pass
    the id of the row of that name if there is one, else a new id. `lease_token` resumes a live lease.
    `metadata` is JSON text, opaque here. `user` is the owning user's id as text.
    """

    session_id: str
    session_name: str
    tier: Tier = Tier.WORKER
    provider: Provider = Provider.CLAUDE
    max_concurrent_tasks: int = 5
    lesson_id: str = ""
    time_windows: tuple[TimeWindow, ...] = ()
    capabilities: tuple[str, ...] = ()
    metadata: str = "{}"
    accepts_push: bool = False
    user: str = ""
    lease_token: int = 0


class SessionHeartbeat(Command, frozen=True, array_like=True, kw_only=True, tag=11):
    """Renew a lease. `status` lets a session pause or drain itself; other values change nothing.
    `load_milli` is its own view of its load in thousandths, -1 if not told.
    """

    session_name: str
    lease_token: int
    load_milli: int = -1
    status: SessionStatus | None = None
    progress: tuple[TaskProgress, ...] = ()


class SessionUpdate(Command, frozen=True, array_like=True, kw_only=True, tag=12):
    """Change the fields that are not None; `lesson_id` "" leaves the lesson."""

    session_name: str
    max_concurrent_tasks: int | None = None
    lesson_id: str | None = None
    time_windows: tuple[TimeWindow, ...] | None = None
    capabilities: tuple[str, ...] | None = None
    metadata: str | None = None
    accepts_push: bool | None = None
    health: Health | None = None


class SessionTransition(Command, frozen=True, array_like=True, kw_only=True, tag=13):
    """Pause (`paused`), drain (`draining`) or resume (`idle`) a session."""

    session_name: str
    to: SessionStatus
    reason: str = ""


class SessionFailure(Command, frozen=True, array_like=True, kw_only=True, tag=14):
    """Fail a session: its claims are requeued and its locks freed; it works again once resumed."""

    session_name: str
    reason: str = ""


class SessionDeregister(Command, frozen=True, array_like=True, kw_only=True, tag=15):
    """Orderly goodbye. `lease_token` 0 is an operator's; else it must be the session's."""

    session_name: str
    lease_token: int = 0
    reason: str = ""


# Tasks


class TaskEnqueue(Command, frozen=True, array_like=True, kw_only=True, tag=20):
    """Put a task into the queue. Offering a task the machine knows answers its state and changes nothing.

    Every id of `depends_on` must be known to the machine, or be in `done_depends` (rows say completed)
    or `failed_depends` (rows say failed or cancelled); otherwise the command is rejected with
    `unknown-dependency` and the row waits. `seen_revision` is 0 for an id made just now; for a row that
    may have been offered before (the feeder), the watermark (at least 1) at which it was read as pending: a row
    read before the memory of finished tasks begins is refused, so a finished task cannot run again.
    """

    task_id: str
    spec: TaskSpec
    depends_on: tuple[str, ...] = ()
    done_depends: tuple[str, ...] = ()
    failed_depends: tuple[str, ...] = ()
    delay_ms: int = 0
    seen_revision: int = 0


class TaskAssign(Command, frozen=True, array_like=True, kw_only=True, tag=21):
    """Push a pending task to a session; with an empty name the best session is chosen here."""

    task_id: str
    session_name: str = ""


class TaskClaim(Command, frozen=True, array_like=True, kw_only=True, tag=22):
    """Take up to `max_tasks` of the best tasks for this session; undelivered assignments come first."""

    session_name: str
    lease_token: int
    max_tasks: int = 1
    task_types: tuple[str, ...] = ()


class TaskStart(Command, frozen=True, array_like=True, kw_only=True, tag=23):
    """The holder has begun to work."""

    task_id: str
    claim_token: int


class TaskRenew(Command, frozen=True, array_like=True, kw_only=True, tag=24):
    """Prolong a claim; `percent` -1 keeps the progress as it is."""

    task_id: str
    claim_token: int
    percent: int = -1
    note: str = ""


class TaskComplete(Command, frozen=True, array_like=True, kw_only=True, tag=25):
    """The holder has done the work; its result is a row."""

    task_id: str
    claim_token: int


class TaskFail(Command, frozen=True, array_like=True, kw_only=True, tag=26):
    """The holder's attempt failed. `error` goes into the attempt's row, cut at 4,096 characters."""

    task_id: str
    claim_token: int
    error: str = ""
    retryable: bool = True


class TaskCancel(Command, frozen=True, array_like=True, kw_only=True, tag=27):
    """Stop a task for good, whoever holds it."""

    task_id: str
    reason: str = ""


class TaskRetry(Command, frozen=True, array_like=True, kw_only=True, tag=28):
    """Queue a failed or cancelled task again, its retries counted anew. `row_status` is what the row
    says and `attempts` how many it has seen, used (with `seen_revision`, as in `TaskEnqueue`) where the
    machine has forgotten the task. Its dependencies are not asked again.
    """

    task_id: str
    spec: TaskSpec
    row_status: TaskStatus = TaskStatus.FAILED
    attempts: int = 0
    seen_revision: int = 0


class TaskUpdate(Command, frozen=True, array_like=True, kw_only=True, tag=29):
    """Change the fields that are not None, only while the task is pending. `delay_ms` is from now."""

    task_id: str
    priority: int | None = None
    target_session: str | None = None
    max_retries: int | None = None
    delay_ms: int | None = None


class TaskDelete(Command, frozen=True, array_like=True, kw_only=True, tag=30):
    """Forget a pending or final task. `row_status` and `lesson_id` are what the row says, used where the
    machine has forgotten the task.
    """

    task_id: str
    row_status: TaskStatus | None = None
    lesson_id: str = ""


# Lessons


class LessonArchive(Command, frozen=True, array_like=True, kw_only=True, tag=40):
    """Archive a lesson, or open it again."""

    lesson_id: str
    archived: bool = True


class LessonDelete(Command, frozen=True, array_like=True, kw_only=True, tag=41):
    """Forget a lesson; its tasks stay, without lesson."""

    lesson_id: str


# Locks


class LockAcquire(Command, frozen=True, array_like=True, kw_only=True, tag=50):
    """Take a lock, renew it where the owner holds it, or wait for it up to `wait_ms` in order."""

    lock_key: str
    owner_id: str
    ttl_ms: int
    wait_ms: int = 0
    metadata: str = "{}"


class LockRenew(Command, frozen=True, array_like=True, kw_only=True, tag=51):
    """Prolong a lock; `ttl_ms` 0 means the time it was acquired with."""

    lock_key: str
    owner_id: str
    fencing_token: int
    ttl_ms: int = 0


class LockRelease(Command, frozen=True, array_like=True, kw_only=True, tag=52):
    """Give a lock back. `force` frees it whoever holds it and needs a reason (operators)."""

    lock_key: str
    owner_id: str = ""
    fencing_token: int = 0
    force: bool = False
    reason: str = ""


class LockWaitCancel(Command, frozen=True, array_like=True, kw_only=True, tag=53):
    """Leave the queue of a lock (the client went away)."""

    lock_key: str
    owner_id: str


# Affinity


class AffinitySet(Command, frozen=True, array_like=True, kw_only=True, tag=60):
    """Insert or change the affinity of a session for a lesson. `score_milli` 0 to 1000.

    An empty `lesson_id`: for any work, where the session has no affinity for its lesson.
    """

    affinity_id: str
    session_name: str
    lesson_id: str
    score_milli: int = 1000
    window_start_ms: int = 0
    window_end_ms: int = 0


class AffinityDelete(Command, frozen=True, array_like=True, kw_only=True, tag=61):
    """Forget the affinity of a session for a lesson."""

    session_name: str
    lesson_id: str


# Cluster


class Tick(Command, frozen=True, array_like=True, kw_only=True, tag=70):
    """Move the logical clock by what the leader of `term` measured on its monotonic clock since its
    last tick (0 at its first, and after a pause in which nothing was outstanding).
    """

    elapsed_ms: int
    term: int


class PolicySet(Command, frozen=True, array_like=True, kw_only=True, tag=71):
    """Replace the policy, for every member at once."""

    policy: Policy


class RevisionRaise(Command, frozen=True, array_like=True, kw_only=True, tag=72):
    """Lift the revision to at least this one: a cluster that lost all its data starts above the
    watermark in PostgreSQL, so tokens never go back.
    """

    revision: int


AnyCommand = (
    SessionRegister
    | SessionHeartbeat
    | SessionUpdate
    | SessionTransition
    | SessionFailure
    | SessionDeregister
    | TaskEnqueue
    | TaskAssign
    | TaskClaim
    | TaskStart
    | TaskRenew
    | TaskComplete
    | TaskFail
    | TaskCancel
    | TaskRetry
    | TaskUpdate
    | TaskDelete
    | LessonArchive
    | LessonDelete
    | LockAcquire
    | LockRenew
    | LockRelease
    | LockWaitCancel
    | AffinitySet
    | AffinityDelete
    | Tick
    | PolicySet
    | RevisionRaise
)


class Batch(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True):
    """One entry of the log: what was proposed together. `stamp_ms` is the proposer's wall clock in unix
    milliseconds, for display and time windows only.
    """

    version: int = 1
    stamp_ms: int
    commands: list[AnyCommand]
