"""The state: records of what the cluster owns now, and indices that are derived from them.

The records are the state; they go into a snapshot. An index (everything of `State` named `*_index`, the
queue and the deadlines) is rebuilt from the records by `State.reindexed`, holds nothing of its own, and
is never asked for an order that its history could influence. Only `evolve` changes either.
"""

from collections import deque
from collections.abc import Hashable
from heapq import heappop, heappush
from itertools import islice
from typing import Protocol, TypeVar

import msgspec

from .commands import TaskSpec, TimeWindow
from .deadlines import Deadlines, Due, DueKind
from .events import Recorded
from .kinds import Health, LessonStatus, Provider, SessionStatus, TaskStatus, Tier
from .outcomes import Directive, Outcome
from .policy import Policy
from .queue import Queue

Key = TypeVar("Key", bound=Hashable)
Record = TypeVar("Record")


class Session(msgspec.Struct, gc=False, array_like=True, kw_only=True):
    """A session known by name. Offline ones are kept, within bounds, so their name keeps its id."""

    session_id: str
    session_name: str
    tier: Tier
    provider: Provider
    status: SessionStatus
    health: Health
    lesson_id: str
    time_windows: tuple[TimeWindow, ...]
    capabilities: tuple[str, ...]
    metadata: str
    accepts_push: bool
    user: str
    max_concurrent_tasks: int
    current_task_count: int
    consecutive_failures: int
    tasks_completed: int
    tasks_failed: int
    busy_ms: int
    load_milli: int
    lease_token: int  # 0 while offline
    lease_expires_ms: int
    last_heartbeat_ms: int
    last_heartbeat_stamp_ms: int
    registered_stamp_ms: int
    offline_since: int  # revision, 0 while online
    directives: tuple[Directive, ...]

    @property
    def is_online(self) -> bool:
        """Whether it holds a lease."""
        return self.status is not SessionStatus.OFFLINE

    def next_due_ms(self, policy: Policy) -> int | None:
        """When a tick next changes this session, None while it is offline."""
        if not self.is_online:
            return None
        if self.health is Health.HEALTHY:
            return min(
                self.lease_expires_ms,
                self.last_heartbeat_ms + policy.degraded_after_ms + policy.tick_slack_ms,
            )
        if self.health is Health.DEGRADED:
            return min(
                self.lease_expires_ms,
                self.last_heartbeat_ms + policy.unhealthy_after_ms + policy.tick_slack_ms,
            )
        return self.lease_expires_ms


class Claim(msgspec.Struct, gc=False, array_like=True, kw_only=True):
    """Who works on a task. `deadline_ms` bounds renewal, 0 if nothing does."""

    session_id: str
    session_name: str
    token: int
    claimed_ms: int
    claimed_stamp_ms: int
    expires_ms: int
    deadline_ms: int
    is_delivered: bool
    percent: int = 0
    note: str = ""


class Task(msgspec.Struct, gc=False, array_like=True, kw_only=True):
    """A live task: pending (ready, delayed, or waiting for others) or claimed."""

    task_id: str
    spec: TaskSpec
    status: TaskStatus
    order_ms: int  # its place in the queue, smaller first: age against priority
    order_seq: int
    run_after_ms: int  # 0 when it may run
    waiting_on: tuple[str, ...]
    attempt: int
    retry_count: int
    handbacks: int
    enqueued_ms: int
    enqueued_stamp_ms: int
    claim: Claim | None = None

    @property
    def is_claimable(self) -> bool:
        """Whether it stands in the queue: pending, its time come, waiting for nobody."""
        return self.status is TaskStatus.PENDING and not self.run_after_ms and not self.waiting_on

    def next_due_ms(self) -> int | None:
        """When a tick next changes this task: its claim runs out, or its delay is over."""
        if self.claim is not None:
            return self.claim.expires_ms
        return self.run_after_ms or None


class Final(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True):
    """What is remembered of a task that is over."""

    task_id: str
    status: TaskStatus
    claim_token: int
    attempt: int
    retry_count: int
    lesson_id: str
    revision: int


class Lesson(msgspec.Struct, gc=False, array_like=True, kw_only=True):
    """`tasks_total` counts the live, completed and failed tasks."""

    lesson_id: str
    tasks_total: int = 0
    tasks_completed: int = 0
    tasks_failed: int = 0
    started: bool = False
    archived: bool = False

    @property
    def status(self) -> LessonStatus:
        """What the counters say."""
        if self.archived:
            return LessonStatus.ARCHIVED
        done = self.tasks_completed + self.tasks_failed
        if self.tasks_total and done == self.tasks_total:
            return LessonStatus.COMPLETED
        return LessonStatus.IN_PROGRESS if self.started or done else LessonStatus.PENDING


class Waiter(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True):
    """Somebody in a lock's queue."""

    owner_id: str
    request_id: bytes
    wait_expires_ms: int
    ttl_ms: int
    metadata: str


class Lock(msgspec.Struct, gc=False, array_like=True, kw_only=True):
    """A held lock; a free one has no record, since tokens are revisions and grow anyway."""

    lock_key: str
    owner_id: str
    fencing_token: int
    acquired_ms: int
    acquired_stamp_ms: int
    expires_ms: int
    ttl_ms: int
    renewed_count: int
    metadata: str
    waiters: tuple[Waiter, ...] = ()

    def next_due_ms(self) -> int:
        """When a tick next changes this lock: its holder's time or a wait is over."""
        return min([self.expires_ms, *(waiter.wait_expires_ms for waiter in self.waiters)])


class Affinity(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True):
    """How well a session suits a lesson, when it was last used."""

    affinity_id: str
    session_id: str
    lesson_id: str
    score_milli: int
    window_start_ms: int
    window_end_ms: int
    last_used_ms: int


class Remembered(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True):
    """The outcome of a request, kept for its repetition."""

    request_id: bytes
    outcome: Outcome


class Captured(Protocol):
    """What wants to see a record before it changes; see `capture.Capture`."""

    def keep_session(self, session: Session) -> None:
        """A session is about to change."""

    def keep_task(self, task: Task) -> None:
        """A task, or its claim, is about to change."""

    def keep_lock(self, lock: Lock) -> None:
        """A lock is about to change."""


class State:
    """Everything the machine holds. Read it freely from the thread that applies; never change it."""

    __slots__ = (
        "affinities",
        "captures",
        "claims_index",
        "clock_ms",
        "deadlines",
        "departures",
        "dependents_index",
        "finals",
        "forgotten_revision",
        "lesson_tasks_index",
        "lessons",
        "locks",
        "names_index",
        "offline_index",
        "owned_locks_index",
        "policy",
        "queue",
        "remembered",
        "remembered_idle",
        "revision",
        "ring",
        "sessions",
        "stamp_ms",
        "tasks",
        "term",
        "undelivered_index",
        "waited_locks_index",
    )

    def __init__(self, policy: Policy) -> None:
        self.revision = 0
        self.clock_ms = 0
        self.stamp_ms = 0
        self.term = 0
        self.policy = policy
        self.sessions: dict[str, Session] = {}
        self.tasks: dict[str, Task] = {}
        self.finals: dict[str, Final] = {}  # oldest first
        self.forgotten_revision = 0  # finals of this revision and before may be forgotten
        self.lessons: dict[str, Lesson] = {}
        self.locks: dict[str, Lock] = {}
        self.affinities: dict[str, dict[str, Affinity]] = {}  # session id, lesson id
        self.remembered: dict[bytes, Outcome] = {}  # of what changed something, oldest first
        self.remembered_idle: dict[
            bytes, Outcome
        ] = {}  # of what changed nothing: fewer, so they crowd nobody out
        self.ring: deque[Recorded] = deque()
        self.captures: list[Captured] = []  # being encoded: they must hear of a record before it changes
        self._reset_indices()

    def _reset_indices(self) -> None:
        self.names_index: dict[str, str] = {}
        self.offline_index: dict[str, int] = {}  # session id → offline since
        self.departures: list[tuple[int, str]] = []  # heap of (offline since, session id), with stale ones
        self.claims_index: dict[str, set[str]] = {}  # session id → task ids
        self.undelivered_index: dict[str, set[str]] = {}  # session id → task ids pushed, not yet noticed
        self.dependents_index: dict[str, set[str]] = {}  # task id → ids of tasks waiting for it
        self.lesson_tasks_index: dict[str, set[str]] = {}
        self.owned_locks_index: dict[str, set[str]] = {}  # owner id → lock keys
        self.waited_locks_index: dict[str, set[str]] = {}
        self.queue = Queue()
        self.deadlines = Deadlines()

    # Questions

    @property
    def at(self) -> int:
        """The revision of the command being decided, if it comes to anything; the token of its grants."""
        return self.revision + 1

    def session_named(self, session_name: str) -> Session | None:
        """The session of this name, if one is known."""
        session_id = self.names_index.get(session_name)
        return None if session_id is None else self.sessions[session_id]

    def claimed_tasks(self, session_id: str) -> list[Task]:
        """The tasks a session has a live claim on, oldest claim first."""
        tasks = [self.tasks[task_id] for task_id in self.claims_index.get(session_id, ())]
        return sorted(tasks, key=claim_order)

    def undelivered_tasks(self, session_id: str) -> list[Task]:
        """The tasks pushed to a session that it has not taken note of, oldest first."""
        tasks = [self.tasks[task_id] for task_id in self.undelivered_index.get(session_id, ())]
        return sorted(tasks, key=claim_order)

    def dependents_of(self, task_id: str) -> list[str]:
        """The ids of the tasks that wait for this one, in order."""
        return sorted(self.dependents_index.get(task_id, ()))

    def longest_offline(self) -> Session | None:
        """The session that went offline first, by id where several went at once; None if all are online."""
        while self.departures:
            since, session_id = self.departures[0]
            if self.offline_index.get(session_id) == since:
                return self.sessions[session_id]
            heappop(self.departures)
        return None

    def next_due(self) -> Due | None:
        """The record that is due first, and when."""
        return self.deadlines.head(self._due_ms)

    def deadline_ms(self, ttl_ms: int) -> int:
        """When something granted now for `ttl_ms` is over (see `Policy.tick_slack_ms`)."""
        return self.clock_ms + ttl_ms + self.policy.tick_slack_ms

    def remembers(self, request_id: bytes) -> Outcome | None:
        """What this request came to, if that is still known."""
        return self.remembered.get(request_id) or self.remembered_idle.get(request_id)

    # Records that are about to change: whoever encodes the state piece by piece copies them first

    def changing_session(self, session_id: str) -> Session:
        """The session, to be changed at once."""
        session = self.sessions[session_id]
        for capture in self.captures:
            capture.keep_session(session)
        return session

    def changing_task(self, task_id: str) -> Task:
        """The task, to be changed at once, or its claim."""
        task = self.tasks[task_id]
        for capture in self.captures:
            capture.keep_task(task)
        return task

    def changing_lock(self, lock_key: str) -> Lock:
        """The lock, to be changed at once."""
        lock = self.locks[lock_key]
        for capture in self.captures:
            capture.keep_lock(lock)
        return lock

    def _due_ms(self, kind: DueKind, key: str) -> int | None:
        match kind:
            case DueKind.SESSION:
                session = self.sessions.get(key)
                return None if session is None else session.next_due_ms(self.policy)
            case DueKind.TASK:
                task = self.tasks.get(key)
                return None if task is None else task.next_due_ms()
            case DueKind.LOCK:
                lock = self.locks.get(key)
                return None if lock is None else lock.next_due_ms()

    # Indices: each record is entered by one function, which a restore uses as well

    def index_session(self, session: Session) -> None:
        """Enter a session by its status; call it after every change of that."""
        self.names_index[session.session_name] = session.session_id
        if session.is_online:
            self.offline_index.pop(session.session_id, None)
            self.deadlines.touch(DueKind.SESSION, session.session_id, session.next_due_ms(self.policy))
        else:
            self.offline_index[session.session_id] = session.offline_since
            heappush(self.departures, (session.offline_since, session.session_id))
            if len(self.departures) > 2 * len(self.offline_index) + 64:
                self.departures = sorted((since, key) for key, since in self.offline_index.items())

    def index_task(self, task: Task) -> None:
        """Enter a task by its status; call it after every change that moves it."""
        if task.is_claimable and task.task_id not in self.queue:
            self.queue.add(task.task_id, task.spec, task.order_ms, task.order_seq)
        for dependency in task.waiting_on:
            self.dependents_index.setdefault(dependency, set()).add(task.task_id)
        if task.spec.lesson_id:
            self.lesson_tasks_index.setdefault(task.spec.lesson_id, set()).add(task.task_id)
        if task.claim is not None:
            self.claims_index.setdefault(task.claim.session_id, set()).add(task.task_id)
            if not task.claim.is_delivered:
                self.undelivered_index.setdefault(task.claim.session_id, set()).add(task.task_id)
        self.deadlines.touch(DueKind.TASK, task.task_id, task.next_due_ms())

    def unindex_task(self, task: Task) -> None:
        """Take a task out of every index, as it stands; call it before a change that moves it."""
        self.queue.discard(task.task_id)
        for dependency in task.waiting_on:
            drop(self.dependents_index, dependency, task.task_id)
        if task.spec.lesson_id:
            drop(self.lesson_tasks_index, task.spec.lesson_id, task.task_id)
        if task.claim is not None:
            drop(self.claims_index, task.claim.session_id, task.task_id)
            drop(self.undelivered_index, task.claim.session_id, task.task_id)

    def index_lock(self, lock: Lock) -> None:
        """Enter a lock with its holder and waiters."""
        self.owned_locks_index.setdefault(lock.owner_id, set()).add(lock.lock_key)
        for waiter in lock.waiters:
            self.waited_locks_index.setdefault(waiter.owner_id, set()).add(lock.lock_key)
        self.deadlines.touch(DueKind.LOCK, lock.lock_key, lock.next_due_ms())

    def unindex_lock(self, lock: Lock) -> None:
        """Take a lock out of every index, as it stands; call it before a change of who is at it."""
        drop(self.owned_locks_index, lock.owner_id, lock.lock_key)
        for waiter in lock.waiters:
            drop(self.waited_locks_index, waiter.owner_id, lock.lock_key)

    def reindex(self) -> None:
        """Build every index anew from the records."""
        self._reset_indices()
        for session in self.sessions.values():
            self.index_session(session)
        for task in self.tasks.values():
            self.index_task(task)
        for lock in self.locks.values():
            self.index_lock(lock)


def claim_order(task: Task) -> tuple[int, str]:
    """Older claims first, then by id."""
    assert task.claim is not None, f"task {task.task_id} is in a claims index without a claim"
    return task.claim.token, task.task_id


FORGET_SHARE = 50


def forget_oldest(records: dict[Key, Record], bound: int) -> list[Record]:
    """Keep at most `bound` records; the ones that go, oldest first.

    Beyond the bound a fiftieth more goes at once: a dict whose front was deleted is searched from there again and
    again for its first key, so one at a time would cost more than the command itself.
    """
    if len(records) <= bound:
        return []
    oldest = list(islice(records, len(records) - bound + bound // FORGET_SHARE))
    return [records.pop(key) for key in oldest]


def drop(index: dict[str, set[str]], key: str, member: str) -> None:
    """Take a member out of an index of sets; empty sets go as well."""
    members = index.get(key)
    if members is None:
        return
    members.discard(member)
    if not members:
        del index[key]


class Snapshot(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """The records of a state, each kind in the order in which the log made them. New fields go to the end."""

    version: int = 1
    revision: int
    clock_ms: int
    stamp_ms: int
    term: int
    policy: Policy
    sessions: list[Session]
    tasks: list[Task]
    finals: list[Final]
    forgotten_revision: int
    lessons: list[Lesson]
    locks: list[Lock]
    affinities: list[Affinity]
    remembered: list[Remembered]
    ring: list[Recorded]
    remembered_idle: list[Remembered] = []


def snapshot_of(state: State) -> Snapshot:
    """The records, to be encoded at once: they are the live ones, not copies."""
    return Snapshot(
        revision=state.revision,
        clock_ms=state.clock_ms,
        stamp_ms=state.stamp_ms,
        term=state.term,
        policy=state.policy,
        sessions=list(state.sessions.values()),
        tasks=list(state.tasks.values()),
        finals=list(state.finals.values()),
        forgotten_revision=state.forgotten_revision,
        lessons=list(state.lessons.values()),
        locks=list(state.locks.values()),
        affinities=[row for rows in state.affinities.values() for row in rows.values()],
        remembered=_memories(state.remembered),
        ring=list(state.ring),
        remembered_idle=_memories(state.remembered_idle),
    )


def _memories(remembered: dict[bytes, Outcome]) -> list[Remembered]:
    return [Remembered(request_id=key, outcome=value) for key, value in remembered.items()]


def state_of(snapshot: Snapshot) -> State:
    """A state with these records, its indices built anew."""
    state = State(snapshot.policy)
    state.revision = snapshot.revision
    state.clock_ms = snapshot.clock_ms
    state.stamp_ms = snapshot.stamp_ms
    state.term = snapshot.term
    state.sessions = {session.session_id: session for session in snapshot.sessions}
    state.tasks = {task.task_id: task for task in snapshot.tasks}
    state.finals = {final.task_id: final for final in snapshot.finals}
    state.forgotten_revision = snapshot.forgotten_revision
    state.lessons = {lesson.lesson_id: lesson for lesson in snapshot.lessons}
    state.locks = {lock.lock_key: lock for lock in snapshot.locks}
    for affinity in snapshot.affinities:
        state.affinities.setdefault(affinity.session_id, {})[affinity.lesson_id] = affinity
    state.remembered = {remembered.request_id: remembered.outcome for remembered in snapshot.remembered}
    state.remembered_idle = {idle.request_id: idle.outcome for idle in snapshot.remembered_idle}
    state.ring = deque(snapshot.ring)
    state.reindex()
    return state


def has_outstanding(state: State) -> bool:
    """Whether anything waits for time to pass: only then need the leader tick."""
    return state.deadlines.lower_bound_ms() is not None


def next_due_ms(state: State) -> int | None:
    """Nothing changes by a tick before this time of the logical clock; None if nothing waits for time."""
    return state.deadlines.lower_bound_ms()


def wall_ms(state: State, logical_ms: int) -> int:
    """The unix time in milliseconds at which the logical clock will show `logical_ms`, for display."""
    return state.stamp_ms + logical_ms - state.clock_ms
