"""Histories of a machine for tests of the projection: small integers become commands that mostly make sense."""

import uuid
from collections.abc import Callable, Sequence

from coordination.machine import codec
from coordination.machine.commands import (
    AffinityDelete,
    AffinitySet,
    AnyCommand,
    Batch,
    LessonArchive,
    LessonDelete,
    LockAcquire,
    LockRelease,
    LockRenew,
    SessionDeregister,
    SessionFailure,
    SessionHeartbeat,
    SessionRegister,
    SessionTransition,
    SessionUpdate,
    TaskAssign,
    TaskCancel,
    TaskClaim,
    TaskComplete,
    TaskDelete,
    TaskEnqueue,
    TaskFail,
    TaskProgress,
    TaskRenew,
    TaskRetry,
    TaskSpec,
    TaskStart,
    TaskUpdate,
    Tick,
    TimeWindow,
)
from coordination.machine.events import Recorded
from coordination.machine.kinds import SessionStatus, TaskStatus
from coordination.machine.machine import Machine
from coordination.machine.outcomes import Accepted, Rejected
from coordination.machine.policy import Policy

BASE_MS = 1_772_443_800_000
TASKS = [str(uuid.UUID(int=1000 + n)) for n in range(8)]
LESSONS = [str(uuid.UUID(int=2000 + n)) for n in range(3)]
NAMES = ["ann", "ben", "cay"]
KEYS = ["k1", "k2"]
STEP_MS = [0, 900, 5_000, 16_000, 31_000]
Step = tuple[int, int, int]


class History:
    """A machine, and every event it made."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.machine = Machine(policy or Policy(claim_ttl_ms=20_000, max_elapsed_ms=60_000))
        self.events: list[Recorded] = []
        self.requests = 0

    @property
    def state(self):
        return self.machine.state

    def wish(self, *commands: AnyCommand, elapsed_ms: int = 0) -> list[Accepted | Rejected]:
        """Apply commands as one entry. Display time keeps step with the logical clock."""
        stamp_ms = BASE_MS + self.state.clock_ms + elapsed_ms
        applied = self.machine.apply(codec.encode_batch(Batch(stamp_ms=stamp_ms, commands=list(commands))))
        self.events.extend(applied.events)
        return applied.outcomes

    def tick(self, elapsed_ms: int, term: int = 1) -> None:
        self.wish(Tick(elapsed_ms=elapsed_ms, term=term), elapsed_ms=elapsed_ms)

    def after(self, revision: int) -> list[Recorded]:
        """Events above a revision."""
        return [recorded for recorded in self.events if recorded.revision > revision]

    def play(self, steps: Sequence[Step]) -> None:
        """Turn each step into a command and apply it."""
        for kind, a, b in steps:
            _STEPS[kind % len(_STEPS)](self, a, b)

    def token_of(self, task_id: str) -> int:
        task = self.state.tasks.get(task_id)
        return task.claim.token if task and task.claim else 0

    def lease_of(self, name: str) -> int:
        session = self.state.session_named(name)
        return session.lease_token if session else 0


def _register(history: History, a: int, b: int) -> None:
    windows = (TimeWindow(start_ms=BASE_MS, end_ms=BASE_MS + 10**9), TimeWindow(start_ms=1)) if b == 3 else ()
    history.wish(
        SessionRegister(
            session_id=str(uuid.UUID(int=1 + a % 3)),
            session_name=NAMES[a % 3],
            max_concurrent_tasks=1 + b % 3,
            lesson_id=LESSONS[b % 3] if b % 2 else "",
            capabilities=("python",) if b == 1 else (),
            time_windows=windows,
            metadata='{"host": "a"}',
            accepts_push=a == 1,
            lease_token=history.lease_of(NAMES[a % 3]) if b % 2 else 0,
        )
    )


def _beat(history: History, a: int, b: int) -> None:
    name = NAMES[a % 3]
    progress = tuple(
        TaskProgress(task_id=task_id, claim_token=history.token_of(task_id), percent=10 * b, note="on it")
        for task_id in TASKS[:b]
    )
    history.wish(
        SessionHeartbeat(
            session_name=name, lease_token=history.lease_of(name), load_milli=100 * b, progress=progress
        )
    )


def _update(history: History, a: int, b: int) -> None:
    history.wish(
        SessionUpdate(session_name=NAMES[a % 3], lesson_id=LESSONS[b % 3] if b else "", capabilities=("sql",))
    )


def _transition(history: History, a: int, b: int) -> None:
    to = [SessionStatus.PAUSED, SessionStatus.DRAINING, SessionStatus.IDLE][b % 3]
    history.wish(SessionTransition(session_name=NAMES[a % 3], to=to))


def _enqueue(history: History, a: int, b: int) -> None:
    history.wish(
        TaskEnqueue(
            task_id=TASKS[a],
            spec=TaskSpec(task_type="t", priority=b, lesson_id=LESSONS[a % 3], max_retries=1 + b % 2),
            depends_on=(TASKS[a - 1],) if b == 2 and a else (),
            done_depends=(TASKS[a - 1],) if b == 2 and a else (),
            delay_ms=3_000 if b == 1 else 0,
        )
    )


def _claim(history: History, a: int, b: int) -> None:
    name = NAMES[a % 3]
    history.wish(TaskClaim(session_name=name, lease_token=history.lease_of(name), max_tasks=1 + b % 3))


def _finish(history: History, a: int, b: int) -> None:
    task_id, token = TASKS[a], history.token_of(TASKS[a])
    if b % 2:
        history.wish(TaskComplete(task_id=task_id, claim_token=token))
    else:
        history.wish(TaskFail(task_id=task_id, claim_token=token, error="no\0pe", retryable=b != 4))


def _work(history: History, a: int, b: int) -> None:
    task_id, token = TASKS[a], history.token_of(TASKS[a])
    if b % 2:
        history.wish(TaskStart(task_id=task_id, claim_token=token))
    else:
        history.wish(TaskRenew(task_id=task_id, claim_token=token, percent=b * 10, note="half"))


def _change(history: History, a: int, b: int) -> None:
    spec = TaskSpec(task_type="t", lesson_id=LESSONS[a % 3], max_retries=2)
    wishes: list[AnyCommand] = [
        TaskUpdate(task_id=TASKS[a], priority=b, delay_ms=1_000 * (b % 2)),
        TaskCancel(task_id=TASKS[a], reason="not needed"),
        TaskRetry(task_id=TASKS[a], spec=spec, row_status=TaskStatus.FAILED),
        TaskAssign(task_id=TASKS[a]),
        TaskDelete(task_id=TASKS[a]),
    ]
    history.wish(wishes[b % 5])


def _lock(history: History, a: int, b: int) -> None:
    key, owner = KEYS[a % 2], NAMES[b % 3]
    lock = history.state.locks.get(key)
    token = lock.fencing_token if lock else 0
    wishes: list[AnyCommand] = [
        LockAcquire(lock_key=key, owner_id=owner, ttl_ms=9_000, request_id=history_id(history)),
        LockAcquire(
            lock_key=key, owner_id=owner, ttl_ms=9_000, wait_ms=20_000, request_id=history_id(history)
        ),
        LockRenew(lock_key=key, owner_id=lock.owner_id if lock else owner, fencing_token=token),
        LockRelease(lock_key=key, owner_id=lock.owner_id if lock else owner, fencing_token=token),
    ]
    history.wish(wishes[a % 4])


def history_id(history: History) -> bytes:
    """A request id of its own."""
    history.requests += 1
    return history.requests.to_bytes(16, "big")


def _end_session(history: History, a: int, b: int) -> None:
    name = NAMES[a % 3]
    wish = SessionFailure(session_name=name, reason="x") if b % 2 else SessionDeregister(session_name=name)
    history.wish(wish)


def _affinity(history: History, a: int, b: int) -> None:
    name, lesson_id = NAMES[a % 3], [*LESSONS, ""][b % 4]
    if b == 4:
        history.wish(AffinityDelete(session_name=name, lesson_id=[*LESSONS, ""][a % 4]))
    else:
        history.wish(
            AffinitySet(
                affinity_id="",
                session_name=name,
                lesson_id=lesson_id,
                score_milli=100 * b,
                window_start_ms=BASE_MS if b == 1 else 0,
            )
        )


def _lesson(history: History, a: int, b: int) -> None:
    lesson_id = LESSONS[a % 3]
    history.wish(
        LessonDelete(lesson_id=lesson_id)
        if b == 4
        else LessonArchive(lesson_id=lesson_id, archived=b % 2 == 1)
    )


def _time(history: History, a: int, b: int) -> None:
    history.tick(STEP_MS[b % 5], term=max(1, history.state.term + (a == 7)))


_STEPS: list[Callable[[History, int, int], None]] = [
    _register,
    _beat,
    _enqueue,
    _claim,
    _finish,
    _work,
    _time,
    _change,
    _lock,
    _end_session,
    _affinity,
    _update,
    _transition,
    _lesson,
    _enqueue,
    _claim,
    _finish,
]
