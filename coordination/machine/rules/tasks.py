"""Rules of tasks: each is pending, claimed by one live session, or final, and never lost."""

from collections.abc import Generator

import msgspec

from coordination.machine.commands import (
    TaskAssign,
    TaskCancel,
    TaskClaim,
    TaskComplete,
    TaskDelete,
    TaskEnqueue,
    TaskFail,
    TaskRenew,
    TaskRetry,
    TaskSpec,
    TaskStart,
    TaskUpdate,
)
from coordination.machine.events import (
    AnyEvent,
    AssignmentsDelivered,
    TaskCompleted,
    TaskDeleted,
    TaskEnqueued,
    TaskRetried,
    TaskStarted,
    TaskUpdated,
)
from coordination.machine.kinds import AttemptOutcome, DependencyPolicy, RejectionCode, TaskStatus
from coordination.machine.outcomes import ClaimAnswer, Grant, TaskAnswer
from coordination.machine.scoring import (
    best_session,
    best_task,
    bonuses,
    filter_of,
    obstacles,
    push_sessions,
    why_not,
)
from coordination.machine.scoring import why_unavailable as why_session_unavailable
from coordination.machine.state import Final, State, Task

from .counters import count_lesson, count_session, uncount_final, use_affinity
from .decision import (
    MAX_ATTEMPTS,
    MAX_ID,
    MAX_PRIORITY,
    MAX_RETRIES,
    MAX_TEXT,
    Decision,
    Refusal,
    are_ids,
    invalid,
    is_duration,
    is_id,
)
from .endings import cancel_task, claim_of, fail_task, give_back, note_failure, settle_dependents
from .grants import claimed, grant_of, renewal
from .sessions import leased, no_session

# Into the queue


def enqueue(state: State, command: TaskEnqueue) -> Decision:
    """Queue a new task; one that is known is answered as it stands."""
    known = _known(state, command.task_id)
    if known is not None:
        return known
    refusal = _why_not_enqueue(state, command)
    if refusal is not None:
        return refusal
    waiting_on, failed = _sort_dependencies(state, command)
    yield TaskEnqueued(
        task_id=command.task_id,
        spec=command.spec,
        waiting_on=waiting_on,
        run_after_ms=state.clock_ms + command.delay_ms if command.delay_ms else 0,
        order_ms=order_ms(state, command.spec.priority, state.clock_ms),
        order_seq=state.at,
    )
    yield from count_lesson(state, command.spec.lesson_id, total=1)
    if failed and command.spec.on_dependency_failure is DependencyPolicy.FAIL:
        task = state.tasks[command.task_id]
        yield from fail_task(state, task, AttemptOutcome.NONE, f"dependency {failed[0]} did not complete")
        return TaskAnswer(task_id=command.task_id, status=TaskStatus.FAILED)
    return _answer(state, state.tasks[command.task_id])


def order_ms(state: State, priority: int, enqueued_ms: int) -> int:
    """The place in the queue, smaller first: one priority more is worth one step of age."""
    return enqueued_ms - priority * state.policy.priority_step_ms


def _known(state: State, task_id: str) -> TaskAnswer | None:
    task = state.tasks.get(task_id)
    if task is not None:
        return _answer(state, task, known=True)
    final = state.finals.get(task_id)
    return None if final is None else _final_answer(final)


def _why_not_enqueue(state: State, command: TaskEnqueue) -> Refusal | None:
    problem = _why_invalid(command.task_id, command.spec)
    if problem:
        return invalid(problem)
    if not is_duration(command.delay_ms):
        return invalid("delay_ms must be 0 to ten years")
    if not are_ids(command.depends_on, state.policy.max_dependencies):
        return invalid(f"depends_on must be at most {state.policy.max_dependencies} ids")
    if command.task_id in command.depends_on:
        return Refusal(RejectionCode.DEPENDENCY_CYCLE, f"task {command.task_id} depends on itself")
    if _is_forgotten(state, command.seen_revision):
        return _read_again(state, command.task_id)
    if len(state.tasks) >= state.policy.max_tasks:
        return Refusal(RejectionCode.OVERLOADED, f"{len(state.tasks)} live tasks are all there can be")
    return _why_not_depend(state, command)


def _why_not_depend(state: State, command: TaskEnqueue) -> Refusal | None:
    """Every dependency must be known, so a cycle cannot be built: its first task would name an unknown one."""
    told = {*command.done_depends, *command.failed_depends}
    for dependency in command.depends_on:
        if dependency in state.tasks:
            if len(state.dependents_index.get(dependency, ())) >= state.policy.max_dependents:
                return Refusal(RejectionCode.OVERLOADED, f"too many tasks depend on {dependency}")
        elif dependency not in state.finals and dependency not in told:
            return Refusal(
                RejectionCode.UNKNOWN_DEPENDENCY,
                f"task {command.task_id} depends on {dependency}, which is not known here",
                {"depends_on": dependency},
            )
    return None


def _sort_dependencies(state: State, command: TaskEnqueue) -> tuple[tuple[str, ...], list[str]]:
    """The dependencies to wait for, and those that failed or were cancelled. The machine's word goes
    before the row's, which may be older.
    """
    waiting: dict[str, None] = {}
    failed = []
    for dependency in command.depends_on:
        final = state.finals.get(dependency)
        if dependency in state.tasks:
            waiting[dependency] = None
        elif dependency in command.failed_depends if final is None else not _is_completed(final):
            failed.append(dependency)
    return tuple(waiting), failed


def _is_completed(final: Final) -> bool:
    return final.status is TaskStatus.COMPLETED


def _is_forgotten(state: State, seen_revision: int) -> bool:
    return 0 < seen_revision < state.forgotten_revision


def _read_again(state: State, task_id: str) -> Refusal:
    return Refusal(
        RejectionCode.CONFLICT,
        f"the row of task {task_id} was read before revision {state.forgotten_revision}; read it again",
        {"forgotten_revision": state.forgotten_revision},
    )


def update(state: State, command: TaskUpdate) -> Decision:
    """Change a pending task."""
    task = state.tasks.get(command.task_id)
    if task is None:
        return _gone(state, command.task_id)
    if task.status is not TaskStatus.PENDING:
        return _not_pending(task)
    spec = msgspec.structs.replace(
        task.spec,
        priority=task.spec.priority if command.priority is None else command.priority,
        target_session=task.spec.target_session if command.target_session is None else command.target_session,
        max_retries=task.spec.max_retries if command.max_retries is None else command.max_retries,
    )
    problem = _why_invalid(task.task_id, spec)
    if problem:
        return invalid(problem)
    if command.delay_ms is not None and not is_duration(command.delay_ms):
        return invalid("delay_ms must be 0 to ten years")
    if spec.max_retries < task.retry_count:
        return invalid(f"task {task.task_id} has been retried {task.retry_count} times")
    run_after_ms = task.run_after_ms
    if command.delay_ms is not None:
        run_after_ms = state.clock_ms + command.delay_ms if command.delay_ms else 0
    yield TaskUpdated(
        task_id=task.task_id,
        spec=spec,
        run_after_ms=run_after_ms,
        order_ms=order_ms(state, spec.priority, task.enqueued_ms),
    )
    return _answer(state, task)


def retry(state: State, command: TaskRetry) -> Decision:
    """Queue a failed or cancelled task again."""
    final = state.finals.get(command.task_id)
    status = final.status if final is not None else command.row_status
    if command.task_id in state.tasks:
        return _not_final(state.tasks[command.task_id])
    if status not in (TaskStatus.FAILED, TaskStatus.CANCELLED):
        return Refusal(
            RejectionCode.CONFLICT, f"task {command.task_id} is {status}", {"status": status.value}
        )
    problem = _why_invalid(command.task_id, command.spec)
    if problem:
        return invalid(problem)
    if not 0 <= command.attempts <= MAX_ATTEMPTS:
        return invalid(f"attempts must be 0 to {MAX_ATTEMPTS}")
    if final is None and _is_forgotten(state, command.seen_revision):
        return _read_again(state, command.task_id)
    if len(state.tasks) >= state.policy.max_tasks:
        return Refusal(RejectionCode.OVERLOADED, f"{len(state.tasks)} live tasks are all there can be")
    yield TaskRetried(
        task_id=command.task_id,
        spec=command.spec,
        was=status,
        attempt=max(final.attempt if final else 0, command.attempts),
        order_ms=order_ms(state, command.spec.priority, state.clock_ms),
        order_seq=state.at,
    )
    yield from uncount_final(state, final.lesson_id if final else command.spec.lesson_id, status)
    yield from count_lesson(state, command.spec.lesson_id, total=1)
    return _answer(state, state.tasks[command.task_id])


# Out of the queue


def claim(state: State, command: TaskClaim) -> Decision:
    """Hand over undelivered assignments, then the best tasks that fit, one after the other."""
    session = leased(state, command.session_name, command.lease_token)
    if isinstance(session, Refusal):
        return session
    if not 1 <= command.max_tasks <= state.policy.max_grants:
        return invalid(f"max must be 1 to {state.policy.max_grants}")
    if not are_ids(command.task_types):
        return invalid("task_types must be at most 100 names")
    grants: list[Grant] = []
    pushed = state.undelivered_tasks(session.session_id)[: command.max_tasks]
    if pushed:
        yield AssignmentsDelivered(
            session_id=session.session_id,
            session_name=session.session_name,
            task_ids=tuple(task.task_id for task in pushed),
        )
        grants.extend(grant_of(state, task) for task in pushed)
    reason = yield from _pull(state, command, grants)
    return ClaimAnswer(session_id=session.session_id, grants=tuple(grants), reason="" if grants else reason)


def _pull(state: State, command: TaskClaim, grants: list[Grant]) -> Generator[AnyEvent, None, str]:
    """Claim until the wish is met or something stands in the way; answer what it was."""
    session = state.sessions[state.names_index[command.session_name]]
    reason = why_session_unavailable(session, state.stamp_ms)
    if reason:
        return reason
    wanted = min(command.max_tasks - len(grants), session.max_concurrent_tasks - session.current_task_count)
    fits = filter_of(session, command.task_types)
    bonus_ms = bonuses(state, session)
    lessons: dict[str, None] = {}
    for _ in range(wanted):
        choice = best_task(state, session, fits, bonus_ms)
        if choice is None:
            break
        task = state.tasks[choice[0]]
        yield claimed(state, session, task, pushed=False, score=choice[1])
        yield from count_lesson(state, task.spec.lesson_id, started=True)
        lessons[task.spec.lesson_id] = None
        grants.append(grant_of(state, task))
    if lessons:
        for lesson_id in lessons:
            yield from use_affinity(state, session, lesson_id)
        yield from count_session(state, session)
    return "nothing_pending"


def assign(state: State, command: TaskAssign) -> Decision:
    """Push a task: choice and claim are one command, so two choosers cannot take one place."""
    task = state.tasks.get(command.task_id)
    if task is None:
        return _gone(state, command.task_id)
    if not task.is_claimable:
        return Refusal(
            RejectionCode.CONFLICT,
            f"task {task.task_id}: {', '.join(obstacles(task))}",
            {"status": task.status.value},
        )
    sessions = push_sessions(state)
    if command.session_name:
        session = state.session_named(command.session_name)
        if session is None:
            return no_session(command.session_name)
        reasons = why_not(session, task, state.stamp_ms)
        if reasons or not session.accepts_push:
            why = ", ".join(reasons) or "takes no pushed tasks"
            return Refusal(RejectionCode.CONFLICT, f"session {session.session_name}: {why}")
        sessions = [session]
    choice = best_session(state, task, sessions)
    if choice is None:
        return Refusal(RejectionCode.CONFLICT, f"no session can be given task {task.task_id} now")
    session, judged = choice
    yield claimed(state, session, task, pushed=True, score=judged.total)
    yield from count_lesson(state, task.spec.lesson_id, started=True)
    yield from use_affinity(state, session, task.spec.lesson_id)
    yield from count_session(state, session)
    return _answer(state, task)


# While claimed


def start(state: State, command: TaskStart) -> Decision:
    """Note that the holder works; doing so again changes nothing."""
    task = _held(state, command.task_id, command.claim_token)
    if isinstance(task, Refusal):
        return task
    if task.status is TaskStatus.IN_PROGRESS:
        return _answer(state, task, known=True)
    holder = claim_of(task)
    yield TaskStarted(
        task_id=task.task_id,
        session_id=holder.session_id,
        session_name=holder.session_name,
        claim_token=holder.token,
    )
    return _answer(state, task)


def renew(state: State, command: TaskRenew) -> Decision:
    """Prolong a claim, and note its progress."""
    task = _held(state, command.task_id, command.claim_token)
    if isinstance(task, Refusal):
        return task
    if not -1 <= command.percent <= 100:
        return invalid("percent must be 0 to 100")
    if len(command.note) > MAX_ID:
        return invalid(f"note must be at most {MAX_ID} characters")
    holder = claim_of(task)
    keeps = command.percent < 0
    yield renewal(
        state,
        task,
        percent=holder.percent if keeps else command.percent,
        note=holder.note if keeps else command.note,
    )
    return _answer(state, task)


def complete(state: State, command: TaskComplete) -> Decision:
    """The holder's word that the work is done. The same word again is answered as the first time."""
    final = state.finals.get(command.task_id)
    if (
        final is not None
        and final.status is TaskStatus.COMPLETED
        and final.claim_token == command.claim_token
    ):
        return _final_answer(final)
    task = _held(state, command.task_id, command.claim_token)
    if isinstance(task, Refusal):
        return task
    holder = claim_of(task)
    session = state.sessions[holder.session_id]
    duration_ms = state.clock_ms - holder.claimed_ms
    yield TaskCompleted(
        task_id=task.task_id,
        session_id=holder.session_id,
        session_name=holder.session_name,
        claim_token=holder.token,
        attempt=task.attempt,
        retry_count=task.retry_count,
        lesson_id=task.spec.lesson_id,
        duration_ms=duration_ms,
    )
    yield from count_session(state, session, completed=1, busy_ms=duration_ms, streak=0)
    yield from count_lesson(state, task.spec.lesson_id, completed=1)
    yield from use_affinity(state, session, task.spec.lesson_id, result=True)
    yield from settle_dependents(state, task.task_id, succeeded=True)
    return TaskAnswer(
        task_id=task.task_id,
        status=TaskStatus.COMPLETED,
        retry_count=task.retry_count,
        claim_token=holder.token,
    )


def fail(state: State, command: TaskFail) -> Decision:
    """The holder's word that the attempt failed: again after a backoff, or never."""
    task = _held(state, command.task_id, command.claim_token)
    if isinstance(task, Refusal):
        return task
    error = command.error[:MAX_TEXT]
    session = state.sessions[claim_of(task).session_id]
    if command.retryable:
        seed = command.request_id or f"{task.task_id}:{command.claim_token}".encode()
        yield from give_back(state, task, AttemptOutcome.FAILED, error, backoff_seed=seed)
    else:
        yield from fail_task(state, task, AttemptOutcome.FAILED, error)
    yield from note_failure(state, session, task.spec.lesson_id)
    if command.task_id in state.tasks:
        return _answer(state, task)
    return _final_answer(state.finals[command.task_id], known=False)


# Against its will


def cancel(state: State, command: TaskCancel) -> Decision:
    """Cancel a live task; one that is cancelled already is answered as such."""
    task = state.tasks.get(command.task_id)
    if task is None:
        final = state.finals.get(command.task_id)
        if final is not None and final.status is TaskStatus.CANCELLED:
            return _final_answer(final)
        return _gone(state, command.task_id)
    yield from cancel_task(state, task, command.reason[:MAX_TEXT])
    return TaskAnswer(task_id=task.task_id, status=TaskStatus.CANCELLED, retry_count=task.retry_count)


def delete(state: State, command: TaskDelete) -> Decision:
    """Forget a pending or final task, and no longer count it."""
    task = state.tasks.get(command.task_id)
    final = state.finals.get(command.task_id)
    if task is not None and task.status is not TaskStatus.PENDING:
        return _not_pending(task)
    if task is not None:
        status, lesson_id = task.status, task.spec.lesson_id
    elif final is not None:
        status, lesson_id = final.status, final.lesson_id
    elif command.row_status is not None and command.row_status.is_final:
        status, lesson_id = command.row_status, command.lesson_id
    else:
        return _gone(state, command.task_id)
    yield TaskDeleted(task_id=command.task_id, was=status, lesson_id=lesson_id)
    if status is TaskStatus.PENDING:
        yield from count_lesson(state, lesson_id, total=-1)
    else:
        yield from uncount_final(state, lesson_id, status)
    yield from settle_dependents(state, command.task_id, succeeded=False)
    return TaskAnswer(task_id=command.task_id, status=status)


# Answers and refusals


def _held(state: State, task_id: str, claim_token: int) -> Task | Refusal:
    """The task, if this is the token of its live claim."""
    task = state.tasks.get(task_id)
    if task is not None and task.claim is not None and task.claim.token == claim_token:
        return task
    if task is None and task_id not in state.finals:
        return Refusal(RejectionCode.NOT_FOUND, f"there is no live task {task_id}")
    status = task.status if task is not None else state.finals[task_id].status
    return Refusal(
        RejectionCode.STALE_TOKEN,
        f"token {claim_token} is not that of a live claim on task {task_id}, which is {status}",
        {"status": status.value},
    )


def _gone(state: State, task_id: str) -> Refusal:
    final = state.finals.get(task_id)
    if final is None:
        return Refusal(RejectionCode.NOT_FOUND, f"there is no live task {task_id}")
    return Refusal(
        RejectionCode.CONFLICT, f"task {task_id} is {final.status}", {"status": final.status.value}
    )


def _not_pending(task: Task) -> Refusal:
    return Refusal(
        RejectionCode.CONFLICT,
        f"task {task.task_id} is {task.status}, not pending",
        {"status": task.status.value},
    )


def _not_final(task: Task) -> Refusal:
    return Refusal(
        RejectionCode.CONFLICT,
        f"task {task.task_id} is {task.status}, not failed or cancelled",
        {"status": task.status.value},
    )


def _answer(state: State, task: Task, *, known: bool = False) -> TaskAnswer:
    holder = task.claim
    return TaskAnswer(
        task_id=task.task_id,
        status=task.status,
        retry_count=task.retry_count,
        claim_token=holder.token if holder else 0,
        expires_ms=holder.expires_ms if holder else 0,
        ttl_ms=grant_of(state, task).ttl_ms if holder else 0,
        run_after_ms=max(0, task.run_after_ms - state.clock_ms) if task.run_after_ms else 0,
        known=known,
    )


def _final_answer(final: Final, *, known: bool = True) -> TaskAnswer:
    return TaskAnswer(
        task_id=final.task_id,
        status=final.status,
        retry_count=final.retry_count,
        claim_token=final.claim_token,
        known=known,
    )


def _why_invalid(task_id: str, spec: TaskSpec) -> str:
    """The first field that cannot be, in words; "" if all can."""
    if not is_id(task_id):
        return f"task_id must be 1 to {MAX_ID} characters"
    if not is_id(spec.task_type):
        return f"task_type must be 1 to {MAX_ID} characters"
    if abs(spec.priority) > MAX_PRIORITY:
        return f"priority must be -{MAX_PRIORITY} to {MAX_PRIORITY}"
    if not 0 <= spec.max_retries <= MAX_RETRIES:
        return f"max_retries must be 0 to {MAX_RETRIES}"
    if max(len(spec.lesson_id), len(spec.target_session), len(spec.tier)) > MAX_ID:
        return f"lesson_id, target_session and tier must be at most {MAX_ID} characters"
    if not are_ids(spec.required_capabilities):
        return "required_capabilities must be at most 100 names"
    if not is_duration(spec.claim_ttl_ms) or not is_duration(spec.timeout_ms):
        return "claim_ttl_ms and timeout_ms must be 0 to ten years"
    return ""
