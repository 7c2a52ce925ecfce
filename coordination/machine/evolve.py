"""What each event does to the state. The only code that changes one; it knows no rules and cannot fail."""

from collections.abc import Callable
from typing import Any

import msgspec

from . import events as e
from .deadlines import DueKind
from .events import AnyEvent, ClockMoved
from .kinds import Health, SessionStatus, TaskStatus
from .state import Affinity, Claim, Final, Lesson, Lock, Session, State, Task, Waiter, drop, forget_oldest


def evolve(state: State, event: AnyEvent | ClockMoved) -> None:
    """Change the state by one event."""
    _EVOLVE[type(event)](state, event)


# Sessions


def _session_registered(state: State, event: e.SessionRegistered) -> None:
    if event.session_id not in state.sessions:
        state.sessions[event.session_id] = _blank_session(event)
    session = state.changing_session(event.session_id)
    session.tier = event.tier
    session.provider = event.provider
    session.max_concurrent_tasks = event.max_concurrent_tasks
    session.lesson_id = event.lesson_id
    session.time_windows = event.time_windows
    session.capabilities = event.capabilities
    session.metadata = event.metadata
    session.accepts_push = event.accepts_push
    session.user = event.user
    session.status = event.status
    session.health = event.health
    session.consecutive_failures = event.consecutive_failures
    session.lease_token = event.lease_token
    session.lease_expires_ms = event.lease_expires_ms
    session.last_heartbeat_ms = state.clock_ms
    session.last_heartbeat_stamp_ms = state.stamp_ms
    session.offline_since = 0
    if event.how != "resumed":
        session.registered_stamp_ms = state.stamp_ms
    state.index_session(session)


def _blank_session(event: e.SessionRegistered) -> Session:
    return Session(
        session_id=event.session_id,
        session_name=event.session_name,
        tier=event.tier,
        provider=event.provider,
        status=event.status,
        health=event.health,
        lesson_id="",
        time_windows=(),
        capabilities=(),
        metadata="{}",
        accepts_push=False,
        user="",
        max_concurrent_tasks=event.max_concurrent_tasks,
        current_task_count=0,
        consecutive_failures=0,
        tasks_completed=0,
        tasks_failed=0,
        busy_ms=0,
        load_milli=-1,
        lease_token=0,
        lease_expires_ms=0,
        last_heartbeat_ms=0,
        last_heartbeat_stamp_ms=0,
        registered_stamp_ms=0,
        offline_since=0,
        directives=(),
    )


def _session_renewed(state: State, event: e.SessionRenewed) -> None:
    session = state.changing_session(event.session_id)
    session.lease_expires_ms = event.lease_expires_ms
    session.health = event.health
    session.load_milli = event.load_milli
    session.last_heartbeat_ms = state.clock_ms
    session.last_heartbeat_stamp_ms = state.stamp_ms
    if event.delivered:
        session.directives = session.directives[event.delivered :]
    state.deadlines.touch(DueKind.SESSION, session.session_id, session.next_due_ms(state.policy))


def _session_updated(state: State, event: e.SessionUpdated) -> None:
    session = state.changing_session(event.session_id)
    session.max_concurrent_tasks = event.max_concurrent_tasks
    session.lesson_id = event.lesson_id
    session.time_windows = event.time_windows
    session.capabilities = event.capabilities
    session.metadata = event.metadata
    session.accepts_push = event.accepts_push


def _session_status_changed(state: State, event: e.SessionStatusChanged) -> None:
    session = state.changing_session(event.session_id)
    session.status = event.status
    session.consecutive_failures = event.consecutive_failures


def _session_health_changed(state: State, event: e.SessionHealthChanged) -> None:
    session = state.changing_session(event.session_id)
    session.health = event.health
    session.consecutive_failures = event.consecutive_failures
    state.deadlines.touch(DueKind.SESSION, session.session_id, session.next_due_ms(state.policy))


def _session_failed(state: State, event: e.SessionFailed) -> None:
    session = state.changing_session(event.session_id)
    session.status = SessionStatus.FAILED
    session.consecutive_failures = event.consecutive_failures


def _session_ended(state: State, event: e.SessionExpired | e.SessionDeregistered) -> None:
    session = state.changing_session(event.session_id)
    session.status = SessionStatus.OFFLINE
    session.health = Health.UNHEALTHY
    session.lease_token = 0
    session.directives = ()
    session.offline_since = state.at
    state.index_session(session)


def _session_forgotten(state: State, event: e.SessionForgotten) -> None:
    del state.sessions[event.session_id]
    del state.names_index[event.session_name]
    del state.offline_index[event.session_id]
    state.affinities.pop(event.session_id, None)


def _session_counted(state: State, event: e.SessionCounted) -> None:
    session = state.changing_session(event.session_id)
    session.status = event.status
    session.current_task_count = event.current_task_count
    session.consecutive_failures = event.consecutive_failures
    session.tasks_completed = event.tasks_completed
    session.tasks_failed = event.tasks_failed
    session.busy_ms = event.busy_ms


def _directive_queued(state: State, event: e.DirectiveQueued) -> None:
    session = state.changing_session(event.session_id)
    session.directives = (*session.directives, event.directive)


def _assignments_delivered(state: State, event: e.AssignmentsDelivered) -> None:
    for task_id in event.task_ids:
        _mark_delivered(state, state.changing_task(task_id))


# Tasks


def _task_enqueued(state: State, event: e.TaskEnqueued) -> None:
    task = Task(
        task_id=event.task_id,
        spec=event.spec,
        status=TaskStatus.PENDING,
        order_ms=event.order_ms,
        order_seq=event.order_seq,
        run_after_ms=event.run_after_ms,
        waiting_on=event.waiting_on,
        attempt=0,
        retry_count=0,
        handbacks=0,
        enqueued_ms=state.clock_ms,
        enqueued_stamp_ms=state.stamp_ms,
    )
    state.tasks[event.task_id] = task
    state.index_task(task)


def _task_updated(state: State, event: e.TaskUpdated) -> None:
    task = state.changing_task(event.task_id)
    state.unindex_task(task)
    task.spec = event.spec
    task.run_after_ms = event.run_after_ms
    task.order_ms = event.order_ms
    state.index_task(task)


def _task_ready(state: State, event: e.TaskReady) -> None:
    task = state.changing_task(event.task_id)
    task.run_after_ms = 0
    state.index_task(task)


def _dependency_met(state: State, event: e.DependencyMet) -> None:
    task = state.changing_task(event.task_id)
    drop(state.dependents_index, event.depends_on, task.task_id)
    task.waiting_on = tuple(other for other in task.waiting_on if other != event.depends_on)
    state.index_task(task)


def _task_claimed(state: State, event: e.TaskClaimed) -> None:
    task = state.changing_task(event.task_id)
    state.queue.discard(task.task_id)
    task.status = TaskStatus.ASSIGNED
    task.attempt = event.attempt
    task.claim = Claim(
        session_id=event.session_id,
        session_name=event.session_name,
        token=event.claim_token,
        claimed_ms=state.clock_ms,
        claimed_stamp_ms=state.stamp_ms,
        expires_ms=event.expires_ms,
        deadline_ms=event.deadline_ms,
        is_delivered=not event.pushed,
    )
    state.index_task(task)


def _task_started(state: State, event: e.TaskStarted) -> None:
    task = state.changing_task(event.task_id)
    task.status = TaskStatus.IN_PROGRESS
    _mark_delivered(state, task)


def _task_renewed(state: State, event: e.TaskRenewed) -> None:
    task = state.changing_task(event.task_id)
    claim = _mark_delivered(state, task)
    claim.expires_ms = event.expires_ms
    claim.percent = event.percent
    claim.note = event.note
    state.deadlines.touch(DueKind.TASK, task.task_id, task.next_due_ms())


def _mark_delivered(state: State, task: Task) -> Claim:
    claim = task.claim
    assert claim is not None, f"task {task.task_id} is claimed"
    if not claim.is_delivered:
        claim.is_delivered = True
        drop(state.undelivered_index, claim.session_id, task.task_id)
    return claim


def _task_completed(state: State, event: e.TaskCompleted) -> None:
    _finish(state, event, TaskStatus.COMPLETED)


def _task_failed(state: State, event: e.TaskFailed) -> None:
    _finish(state, event, TaskStatus.FAILED)


def _task_cancelled(state: State, event: e.TaskCancelled) -> None:
    _finish(state, event, TaskStatus.CANCELLED)


def _finish(
    state: State, event: e.TaskCompleted | e.TaskFailed | e.TaskCancelled, status: TaskStatus
) -> None:
    task = state.tasks.pop(event.task_id)
    state.unindex_task(task)
    state.finals[event.task_id] = Final(
        task_id=event.task_id,
        status=status,
        claim_token=event.claim_token,
        attempt=event.attempt,
        retry_count=event.retry_count,
        lesson_id=event.lesson_id,
        revision=state.at,
    )
    forgotten = forget_oldest(state.finals, state.policy.remembered_finals)
    if forgotten:
        state.forgotten_revision = forgotten[-1].revision


def _task_requeued(state: State, event: e.TaskRequeued) -> None:
    task = state.changing_task(event.task_id)
    state.unindex_task(task)
    task.status = TaskStatus.PENDING
    task.claim = None
    task.retry_count = event.retry_count
    task.handbacks = event.handbacks
    task.run_after_ms = event.run_after_ms
    state.index_task(task)


def _task_retried(state: State, event: e.TaskRetried) -> None:
    state.finals.pop(event.task_id, None)
    task = Task(
        task_id=event.task_id,
        spec=event.spec,
        status=TaskStatus.PENDING,
        order_ms=event.order_ms,
        order_seq=event.order_seq,
        run_after_ms=0,
        waiting_on=(),
        attempt=event.attempt,
        retry_count=0,
        handbacks=0,
        enqueued_ms=state.clock_ms,
        enqueued_stamp_ms=state.stamp_ms,
    )
    state.tasks[event.task_id] = task
    state.index_task(task)


def _task_deleted(state: State, event: e.TaskDeleted) -> None:
    task = state.tasks.pop(event.task_id, None)
    if task is not None:
        state.unindex_task(task)
    state.finals.pop(event.task_id, None)


# Lessons


def _lesson_progressed(state: State, event: e.LessonProgressed) -> None:
    state.lessons[event.lesson_id] = Lesson(
        lesson_id=event.lesson_id,
        tasks_total=event.tasks_total,
        tasks_completed=event.tasks_completed,
        tasks_failed=event.tasks_failed,
        started=event.started,
        archived=event.archived,
    )


def _lesson_deleted(state: State, event: e.LessonDeleted) -> None:
    state.lessons.pop(event.lesson_id, None)
    for task_id in sorted(state.lesson_tasks_index.get(event.lesson_id, ())):
        task = state.changing_task(task_id)
        state.unindex_task(task)
        task.spec = msgspec.structs.replace(task.spec, lesson_id="")
        state.index_task(task)
    for final in [final for final in state.finals.values() if final.lesson_id == event.lesson_id]:
        state.finals[final.task_id] = msgspec.structs.replace(final, lesson_id="")
    for session in state.sessions.values():
        if session.lesson_id == event.lesson_id:
            state.changing_session(session.session_id).lesson_id = ""
    for session_id in [key for key, rows in state.affinities.items() if event.lesson_id in rows]:
        _drop_affinity(state, session_id, event.lesson_id)


# Locks


def _lock_acquired(state: State, event: e.LockAcquired) -> None:
    lock = state.locks.get(event.lock_key)
    waiters: tuple[Waiter, ...] = ()
    if lock is not None:
        state.unindex_lock(lock)
        waiters = tuple(waiter for waiter in lock.waiters if waiter.owner_id != event.owner_id)
    lock = Lock(
        lock_key=event.lock_key,
        owner_id=event.owner_id,
        fencing_token=event.fencing_token,
        acquired_ms=state.clock_ms,
        acquired_stamp_ms=state.stamp_ms,
        expires_ms=event.expires_ms,
        ttl_ms=event.ttl_ms,
        renewed_count=0,
        metadata=event.metadata,
        waiters=waiters,
    )
    state.locks[event.lock_key] = lock
    state.index_lock(lock)


def _lock_queued(state: State, event: e.LockQueued) -> None:
    lock = state.changing_lock(event.lock_key)
    waiter = Waiter(
        owner_id=event.owner_id,
        request_id=event.request_id,
        wait_expires_ms=event.wait_expires_ms,
        ttl_ms=event.ttl_ms,
        metadata=event.metadata,
    )
    known = [place for place, other in enumerate(lock.waiters) if other.owner_id == event.owner_id]
    if known:
        lock.waiters = (*lock.waiters[: known[0]], waiter, *lock.waiters[known[0] + 1 :])
    else:
        lock.waiters = (*lock.waiters, waiter)
    state.index_lock(lock)


def _lock_renewed(state: State, event: e.LockRenewed) -> None:
    lock = state.changing_lock(event.lock_key)
    lock.expires_ms = event.expires_ms
    lock.ttl_ms = event.ttl_ms
    lock.renewed_count = event.renewed_count
    lock.metadata = event.metadata
    state.deadlines.touch(DueKind.LOCK, lock.lock_key, lock.next_due_ms())


def _lock_freed(state: State, event: e.LockReleased | e.LockExpired) -> None:
    """Leave the lock to its waiters, without owner; the same command grants it to the first."""
    lock = state.changing_lock(event.lock_key)
    state.unindex_lock(lock)
    lock.owner_id = ""
    _keep_if_wanted(state, lock)


def _lock_wait_expired(state: State, event: e.LockWaitExpired) -> None:
    lock = state.changing_lock(event.lock_key)
    state.unindex_lock(lock)
    lock.waiters = tuple(waiter for waiter in lock.waiters if waiter.owner_id != event.owner_id)
    _keep_if_wanted(state, lock)


def _keep_if_wanted(state: State, lock: Lock) -> None:
    if lock.owner_id or lock.waiters:
        state.index_lock(lock)
    else:
        del state.locks[lock.lock_key]


# Affinity


def _affinity_changed(state: State, event: e.AffinityEvent) -> None:
    state.affinities.setdefault(event.session_id, {})[event.lesson_id] = Affinity(
        affinity_id=event.affinity_id,
        session_id=event.session_id,
        lesson_id=event.lesson_id,
        score_milli=event.score_milli,
        window_start_ms=event.window_start_ms,
        window_end_ms=event.window_end_ms,
        last_used_ms=event.last_used_ms,
    )


def _affinity_deleted(state: State, event: e.AffinityDeleted) -> None:
    _drop_affinity(state, event.session_id, event.lesson_id)


def _drop_affinity(state: State, session_id: str, lesson_id: str) -> None:
    rows = state.affinities[session_id]
    del rows[lesson_id]
    if not rows:
        del state.affinities[session_id]


# Cluster


def _term_started(state: State, event: e.TermStarted) -> None:
    state.term = event.term
    for session in state.sessions.values():
        if session.is_online:
            state.changing_session(session.session_id)
            session.lease_expires_ms += event.extended_ms
            session.last_heartbeat_ms += event.extended_ms
    for task in state.tasks.values():
        if task.claim is not None:
            state.changing_task(task.task_id)
            task.claim.expires_ms += event.extended_ms
            task.claim.deadline_ms += event.extended_ms if task.claim.deadline_ms else 0
    for lock in state.locks.values():
        state.changing_lock(lock.lock_key)
        lock.expires_ms += event.extended_ms
        lock.waiters = tuple(
            msgspec.structs.replace(waiter, wait_expires_ms=waiter.wait_expires_ms + event.extended_ms)
            for waiter in lock.waiters
        )


def _policy_changed(state: State, event: e.PolicyChanged) -> None:
    """Deadlines already granted stay; shorter limits and other thresholds hold from now."""
    state.policy = event.policy
    for session in state.sessions.values():
        state.deadlines.touch(DueKind.SESSION, session.session_id, session.next_due_ms(state.policy))


def _revision_raised(state: State, event: e.RevisionRaised) -> None:
    state.revision = event.revision - 1


def _clock_moved(state: State, event: ClockMoved) -> None:
    state.clock_ms = event.clock_ms


_EVOLVE: dict[type, Callable[[State, Any], None]] = {
    e.SessionRegistered: _session_registered,
    e.SessionRenewed: _session_renewed,
    e.SessionUpdated: _session_updated,
    e.SessionStatusChanged: _session_status_changed,
    e.SessionHealthChanged: _session_health_changed,
    e.SessionFailed: _session_failed,
    e.SessionExpired: _session_ended,
    e.SessionDeregistered: _session_ended,
    e.SessionForgotten: _session_forgotten,
    e.SessionCounted: _session_counted,
    e.DirectiveQueued: _directive_queued,
    e.AssignmentsDelivered: _assignments_delivered,
    e.TaskEnqueued: _task_enqueued,
    e.TaskUpdated: _task_updated,
    e.TaskReady: _task_ready,
    e.DependencyMet: _dependency_met,
    e.TaskClaimed: _task_claimed,
    e.TaskStarted: _task_started,
    e.TaskRenewed: _task_renewed,
    e.TaskCompleted: _task_completed,
    e.TaskRequeued: _task_requeued,
    e.TaskFailed: _task_failed,
    e.TaskCancelled: _task_cancelled,
    e.TaskRetried: _task_retried,
    e.TaskDeleted: _task_deleted,
    e.LessonProgressed: _lesson_progressed,
    e.LessonDeleted: _lesson_deleted,
    e.LockAcquired: _lock_acquired,
    e.LockQueued: _lock_queued,
    e.LockRenewed: _lock_renewed,
    e.LockReleased: _lock_freed,
    e.LockExpired: _lock_freed,
    e.LockWaitExpired: _lock_wait_expired,
    e.AffinityChanged: _affinity_changed,
    e.AffinityUsed: _affinity_changed,
    e.AffinityDeleted: _affinity_deleted,
    e.TermStarted: _term_started,
    e.PolicyChanged: _policy_changed,
    e.RevisionRaised: _revision_raised,
    ClockMoved: _clock_moved,
}
