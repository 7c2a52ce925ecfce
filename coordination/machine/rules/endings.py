"""How a claim, a task or a session ends, wherever the wish came from: a command, a failure, or time."""

from collections import deque
from hashlib import blake2b

from coordination.machine.events import (
    AnyEvent,
    DependencyMet,
    DirectiveQueued,
    LockWaitExpired,
    SessionDeregistered,
    SessionExpired,
    SessionFailed,
    TaskCancelled,
    TaskFailed,
    TaskRequeued,
)
from coordination.machine.kinds import AttemptOutcome, DependencyPolicy, DirectiveKind, SessionStatus
from coordination.machine.outcomes import Directive
from coordination.machine.policy import Policy
from coordination.machine.state import Claim, Session, State, Task

from .counters import count_lesson, count_session, use_affinity
from .decision import Consequences
from .lock_passing import free_lock


def backoff_ms(policy: Policy, retry_count: int, seed: bytes) -> int:
    """How long the `retry_count`-th retry waits: exponential with full jitter.

    Uniform in 0..min(max, base · 2^(n-1)), as in "Exponential Backoff And Jitter" (AWS Architecture Blog,
    2015), drawn from a hash of the seed so that all members draw the same.
    """
    ceiling = min(policy.backoff_max_ms, policy.backoff_base_ms << min(retry_count - 1, 40))
    draw = int.from_bytes(blake2b(seed + retry_count.to_bytes(4, "big"), digest_size=8).digest(), "big")
    return draw % (ceiling + 1)


def claim_of(task: Task) -> Claim:
    """The claim of a task that must have one."""
    assert task.claim is not None, f"task {task.task_id} is {task.status} without a claim"
    return task.claim


def give_back(
    state: State, task: Task, outcome: AttemptOutcome, error: str, *, backoff_seed: bytes | None = None
) -> Consequences:
    """End a claim without completion: back to the queue with the retry counted, or final after the last.

    With a seed the retry waits for its backoff, without one it may run at once.
    """
    claim = claim_of(task)
    is_free = outcome is AttemptOutcome.HANDED_BACK and task.handbacks < state.policy.free_handbacks
    if not is_free and task.retry_count >= task.spec.max_retries:
        yield from fail_task(state, task, outcome, error)
        return
    retry_count = task.retry_count + (not is_free)
    delay_ms = 0 if backoff_seed is None else backoff_ms(state.policy, retry_count, backoff_seed)
    yield TaskRequeued(
        task_id=task.task_id,
        session_id=claim.session_id,
        session_name=claim.session_name,
        claim_token=claim.token,
        attempt=task.attempt,
        retry_count=retry_count,
        handbacks=task.handbacks + is_free,
        run_after_ms=state.clock_ms + delay_ms if delay_ms else 0,
        outcome=outcome,
        error=error,
    )


def fail_task(state: State, task: Task, outcome: AttemptOutcome, error: str) -> Consequences:
    """The dead letter, and what it means for its lesson and for the tasks that wait for it."""
    yield _failed(task, outcome, error)
    yield from count_lesson(state, task.spec.lesson_id, failed=1)
    yield from settle_dependents(state, task.task_id, succeeded=False)


def _failed(task: Task, outcome: AttemptOutcome, error: str) -> TaskFailed:
    claim = task.claim
    return TaskFailed(
        task_id=task.task_id,
        session_id=claim.session_id if claim else "",
        session_name=claim.session_name if claim else "",
        claim_token=claim.token if claim else 0,
        attempt=task.attempt,
        retry_count=task.retry_count,
        lesson_id=task.spec.lesson_id,
        outcome=outcome,
        error=error,
    )


def cancel_task(state: State, task: Task, reason: str) -> Consequences:
    """Cancel a live task: void its claim, tell its session, and settle what waits for it."""
    claim = task.claim
    yield TaskCancelled(
        task_id=task.task_id,
        session_id=claim.session_id if claim else "",
        session_name=claim.session_name if claim else "",
        claim_token=claim.token if claim else 0,
        attempt=task.attempt,
        retry_count=task.retry_count,
        lesson_id=task.spec.lesson_id,
        reason=reason,
    )
    yield from count_lesson(state, task.spec.lesson_id, total=-1)
    if claim is not None:
        session = state.sessions[claim.session_id]
        yield from direct(state, session, _cancellation(task.task_id, claim, reason))
        yield from count_session(state, session)
    yield from settle_dependents(state, task.task_id, succeeded=False)


def _cancellation(task_id: str, claim: Claim, reason: str) -> Directive:
    return Directive(kind=DirectiveKind.CANCEL_TASK, task_id=task_id, claim_token=claim.token, reason=reason)


def direct(state: State, session: Session, directive: Directive) -> Consequences:
    """Queue a directive for the next heartbeat. Beyond the bound it is left out: a session that reports
    progress of a void claim is told to cancel it anyway.
    """
    if len(session.directives) < state.policy.max_directives:
        yield DirectiveQueued(
            session_id=session.session_id, session_name=session.session_name, directive=directive
        )


def settle_dependents(state: State, task_id: str, *, succeeded: bool) -> Consequences:
    """Release the tasks that wait for this one, or fail them as their policy says, and theirs in turn.

    Iterative: a chain may be as long as the queue.
    """
    settled = deque([(task_id, succeeded)])
    while settled:
        dependency, is_good = settled.popleft()
        for dependent_id in state.dependents_of(dependency):
            dependent = state.tasks[dependent_id]
            if is_good or dependent.spec.on_dependency_failure is DependencyPolicy.RELEASE:
                yield DependencyMet(
                    task_id=dependent_id, depends_on=dependency, waiting=len(dependent.waiting_on) - 1
                )
                continue
            yield _failed(dependent, AttemptOutcome.NONE, f"dependency {dependency} did not complete")
            yield from count_lesson(state, dependent.spec.lesson_id, failed=1)
            settled.append((dependent_id, False))


def note_failure(state: State, session: Session, lesson_id: str) -> Consequences:
    """A task failed in a session's hands: count it, and fail the session after too many in a row."""
    streak = session.consecutive_failures + 1
    yield from use_affinity(state, session, lesson_id, result=False)
    yield from count_session(state, session, failed=1, streak=streak)
    is_working = session.status not in (SessionStatus.FAILED, SessionStatus.OFFLINE)
    if is_working and streak >= state.policy.failure_threshold:
        yield from fail_session(state, session, f"{streak} task failures in a row")


def fail_session(state: State, session: Session, reason: str) -> Consequences:
    """Stop a session: claims back to the queue, locks passed on, and a word to the session."""
    voided = [(task.task_id, claim_of(task)) for task in state.claimed_tasks(session.session_id)]
    yield SessionFailed(
        session_id=session.session_id,
        session_name=session.session_name,
        reason=reason,
        consecutive_failures=session.consecutive_failures,
    )
    yield from _release_everything(state, session, AttemptOutcome.SESSION_LOST, f"session failed: {reason}")
    for task_id, claim in voided:
        yield from direct(state, session, _cancellation(task_id, claim, "session failed"))
    yield from count_session(state, session)


def expire_session(state: State, session: Session) -> Consequences:
    """The lease is over."""
    ended = SessionExpired(
        session_id=session.session_id, session_name=session.session_name, lease_token=session.lease_token
    )
    yield from _end_session(state, session, ended, AttemptOutcome.SESSION_LOST, "session lease expired")


def dismiss_session(state: State, session: Session, reason: str) -> Consequences:
    """The session said goodbye."""
    ended = SessionDeregistered(
        session_id=session.session_id,
        session_name=session.session_name,
        lease_token=session.lease_token,
        reason=reason,
    )
    yield from _end_session(state, session, ended, AttemptOutcome.HANDED_BACK, "session left")


def _end_session(
    state: State, session: Session, ended: AnyEvent, outcome: AttemptOutcome, error: str
) -> Consequences:
    yield ended
    yield from _release_everything(state, session, outcome, error)
    yield from count_session(state, session)


def _release_everything(state: State, session: Session, outcome: AttemptOutcome, error: str) -> Consequences:
    """Claims back to the queue, places in lock queues given up, locks passed on, in this order."""
    for task in state.claimed_tasks(session.session_id):
        yield from give_back(state, task, outcome, error)
    name = session.session_name
    for lock_key in sorted(state.waited_locks_index.get(name, ())):
        waiter = next(waiter for waiter in state.locks[lock_key].waiters if waiter.owner_id == name)
        yield LockWaitExpired(lock_key=lock_key, owner_id=name, request_id=waiter.request_id, reason=error)
    for lock_key in sorted(state.owned_locks_index.get(name, ())):
        yield from free_lock(state, state.locks[lock_key], error)
