"""What must hold in every state: checked after each step in tests, and on every node in debug mode."""

from collections import Counter
from collections.abc import Iterator

from coordination.machine import codec
from coordination.machine.kinds import SessionStatus
from coordination.machine.state import Session, State, snapshot_of, state_of


def check_invariants(state: State) -> None:
    """Raise AssertionError naming every rule this state breaks. O(n) in all it holds."""
    broken = broken_rules(state)
    assert not broken, "; ".join(broken)


def broken_rules(state: State) -> list[str]:
    """Every rule this state breaks, in words; empty if none."""
    return [
        *_sessions(state),
        *_tasks(state),
        *_dependencies(state),
        *_lessons(state),
        *_locks(state),
        *_bounds(state),
        *_indices(state),
    ]


def _sessions(state: State) -> Iterator[str]:
    claims = Counter(task.claim.session_id for task in state.tasks.values() if task.claim is not None)
    for session in state.sessions.values():
        name, count = session.session_name, session.current_task_count
        if count != claims[session.session_id]:
            yield f"session {name} counts {count} tasks and has {claims[session.session_id]} claims"
        if count > session.max_concurrent_tasks:
            yield f"session {name} has {count} tasks, more than its {session.max_concurrent_tasks}"
        if session.is_online != bool(session.lease_token):
            yield f"session {name} is {session.status} with lease token {session.lease_token}"
        if session.lease_token > state.revision:
            yield f"the lease token of session {name} is from the future"
        if session.status is SessionStatus.IDLE and count:
            yield f"session {name} is idle with {count} tasks"
        if session.status is SessionStatus.BUSY and not count:
            yield f"session {name} is busy without a task"
        if not session.is_online and session.directives:
            yield f"session {name} is offline with directives"


def _tasks(state: State) -> Iterator[str]:
    for task in state.tasks.values():
        if task.status.is_final:
            yield f"task {task.task_id} is {task.status} and still live"
        if task.task_id in state.finals:
            yield f"task {task.task_id} is both live and final"
        if task.status.is_claimed != (task.claim is not None):
            yield f"task {task.task_id} is {task.status} with claim {task.claim}"
        if task.retry_count > task.spec.max_retries:
            yield f"task {task.task_id} was retried {task.retry_count} of {task.spec.max_retries} times"
        if task.claim is None:
            continue
        session = state.sessions.get(task.claim.session_id)
        if session is None or not session.is_online:
            yield f"task {task.task_id} is claimed by {task.claim.session_name}, which is not live"
        if task.claim.token > state.revision:
            yield f"the claim token of task {task.task_id} is from the future"
        if task.waiting_on or task.run_after_ms:
            yield f"task {task.task_id} is claimed before it may run"
        if task.claim.deadline_ms and task.claim.expires_ms > task.claim.deadline_ms:
            yield f"the claim on task {task.task_id} outlives its attempt"


def _dependencies(state: State) -> Iterator[str]:
    waiting = {task.task_id: set(task.waiting_on) for task in state.tasks.values() if task.waiting_on}
    for task_id, dependencies in waiting.items():
        missing = dependencies - state.tasks.keys()
        if missing:
            yield f"task {task_id} waits for {sorted(missing)}, which are over"
    # Kahn, "Topological sorting of large networks" (1962): what cannot be taken away lies on a cycle.
    while free := [task_id for task_id, others in waiting.items() if not others & waiting.keys()]:
        for task_id in free:
            del waiting[task_id]
    if waiting:
        yield f"tasks {sorted(waiting)} wait for each other"


def _lessons(state: State) -> Iterator[str]:
    live = Counter(task.spec.lesson_id for task in state.tasks.values() if task.spec.lesson_id)
    for lesson in state.lessons.values():
        counted = lesson.tasks_total - lesson.tasks_completed - lesson.tasks_failed
        if counted != live.pop(lesson.lesson_id, 0):
            yield f"lesson {lesson.lesson_id} counts {counted} live tasks and has another number"
        if min(lesson.tasks_completed, lesson.tasks_failed) < 0:
            yield f"lesson {lesson.lesson_id} counts below nothing"
    if live:
        yield f"lessons {sorted(live)} have tasks and no counters"


def _locks(state: State) -> Iterator[str]:
    for lock in state.locks.values():
        owners = [waiter.owner_id for waiter in lock.waiters]
        if not lock.owner_id:
            yield f"lock {lock.lock_key} is held by nobody"
        if lock.fencing_token > state.revision:
            yield f"the token of lock {lock.lock_key} is from the future"
        if lock.owner_id in owners or len(set(owners)) != len(owners):
            yield f"an owner stands twice at lock {lock.lock_key}"


def _bounds(state: State) -> Iterator[str]:
    policy = state.policy
    sizes = {
        "outcomes": (len(state.remembered), policy.remembered_outcomes),
        "outcomes of what changed nothing": (len(state.remembered_idle), policy.remembered_idle),
        "finals": (len(state.finals), policy.remembered_finals),
        "ring": (len(state.ring), policy.event_ring),
        "tasks": (len(state.tasks), policy.max_tasks),
        "sessions": (len(state.sessions), policy.max_sessions),
        "locks": (len(state.locks), policy.max_locks),
        "waiters": (
            max((len(lock.waiters) for lock in state.locks.values()), default=0),
            policy.max_waiters_per_lock,
        ),
        "affinities": (
            max((len(rows) for rows in state.affinities.values()), default=0),
            policy.max_affinities,
        ),
        "directives": (
            max((len(s.directives) for s in state.sessions.values()), default=0),
            policy.max_directives,
        ),
    }
    for name, (size, bound) in sizes.items():
        if size > bound:
            yield f"{size} {name} exceed their bound of {bound}"


def _indices(state: State) -> Iterator[str]:
    """The indices must be what a restore would build."""
    fresh = state_of(codec.decode_snapshot(codec.encode_snapshot(snapshot_of(state))))
    for name in (
        "names_index",
        "offline_index",
        "claims_index",
        "undelivered_index",
        "dependents_index",
        "lesson_tasks_index",
        "owned_locks_index",
        "waited_locks_index",
    ):
        if getattr(state, name) != getattr(fresh, name):
            yield f"{name} is {getattr(state, name)} and should be {getattr(fresh, name)}"
    if _id(state.longest_offline()) != _id(fresh.longest_offline()):
        yield f"{_id(state.longest_offline())} is longest offline, not {_id(fresh.longest_offline())}"
    claimable = {task.task_id for task in state.tasks.values() if task.is_claimable}
    queued = {task_id for task_id in state.tasks if task_id in state.queue}
    if claimable != queued or len(state.queue) != len(queued):
        yield f"the queue holds {queued} of {len(state.queue)} and should hold {claimable}"
    if state.next_due() != fresh.next_due():
        yield f"{state.next_due()} is due next and should be {fresh.next_due()}"


def _id(session: Session | None) -> str:
    return session.session_id if session is not None else ""
