"""Rules of sessions: who has a lease on a name, and what a session may be told."""

from coordination.machine.commands import (
    SessionDeregister,
    SessionFailure,
    SessionHeartbeat,
    SessionRegister,
    SessionTransition,
    SessionUpdate,
    TaskProgress,
    TimeWindow,
)
from coordination.machine.events import (
    SessionForgotten,
    SessionHealthChanged,
    SessionRegistered,
    SessionRenewed,
    SessionStatusChanged,
    SessionUpdated,
)
from coordination.machine.kinds import DirectiveKind, Health, RejectionCode, SessionStatus
from coordination.machine.outcomes import Directive, HeartbeatAnswer, ReleaseAnswer, SessionAnswer
from coordination.machine.state import Session, State, Task

from .counters import working_status
from .decision import (
    MAX_ID,
    MAX_METADATA,
    NAME,
    Consequences,
    Decision,
    Refusal,
    are_ids,
    invalid,
    is_id,
)
from .endings import direct, dismiss_session, expire_session, fail_session
from .grants import grant_of, renewal

# From where a session can be asked into which status; IDLE means "resume".
_TRANSITIONS = {
    SessionStatus.PAUSED: {SessionStatus.IDLE, SessionStatus.BUSY},
    SessionStatus.DRAINING: {SessionStatus.IDLE, SessionStatus.BUSY, SessionStatus.PAUSED},
    SessionStatus.IDLE: {SessionStatus.PAUSED, SessionStatus.DRAINING, SessionStatus.FAILED},
}
_STANDING_ORDERS = {
    SessionStatus.PAUSED: DirectiveKind.PAUSE,
    SessionStatus.DRAINING: DirectiveKind.DRAIN,
    SessionStatus.FAILED: DirectiveKind.PAUSE,
}


def register(state: State, command: SessionRegister) -> Decision:
    """New name: a lease. Live name: only with its token, which resumes. Lease over: a takeover."""
    problem = _why_invalid(state, command)
    if problem:
        return invalid(problem)
    known = state.session_named(command.session_name)
    if known is None:
        return (yield from _register_new(state, command))
    if known.is_online and known.lease_expires_ms > state.clock_ms:
        if command.lease_token != known.lease_token:
            return _name_taken(state, known)
        return (yield from _resume(state, command, known))
    if known.is_online:
        yield from expire_session(state, known)
    yield _registered(state, command, known.session_id, "takeover")
    return _answer(state, known, "takeover")


def _register_new(state: State, command: SessionRegister) -> Decision:
    if command.session_id in state.sessions:
        other = state.sessions[command.session_id].session_name
        return Refusal(RejectionCode.CONFLICT, f"session id {command.session_id} belongs to {other}")
    if len(state.sessions) >= state.policy.max_sessions:
        longest_offline = state.longest_offline()
        if longest_offline is None:
            return Refusal(RejectionCode.OVERLOADED, f"{len(state.sessions)} sessions are all there can be")
        yield SessionForgotten(
            session_id=longest_offline.session_id, session_name=longest_offline.session_name
        )
    yield _registered(state, command, command.session_id, "new")
    return _answer(state, state.sessions[command.session_id], "new")


def _resume(state: State, command: SessionRegister, session: Session) -> Decision:
    if command.max_concurrent_tasks < session.current_task_count:
        return _below_claims(session)
    yield _registered(state, command, session.session_id, "resumed")
    return _answer(state, session, "resumed")


def _registered(state: State, command: SessionRegister, session_id: str, how: str) -> SessionRegistered:
    resumed = state.sessions[session_id] if how == "resumed" else None
    return SessionRegistered(
        session_id=session_id,
        session_name=command.session_name,
        how=how,
        tier=command.tier,
        provider=command.provider,
        max_concurrent_tasks=command.max_concurrent_tasks,
        lesson_id=command.lesson_id,
        time_windows=command.time_windows,
        capabilities=command.capabilities,
        metadata=command.metadata,
        accepts_push=command.accepts_push,
        user=command.user,
        status=resumed.status if resumed else SessionStatus.IDLE,
        health=Health.HEALTHY,
        consecutive_failures=resumed.consecutive_failures if resumed else 0,
        lease_token=resumed.lease_token if resumed else state.at,
        lease_expires_ms=state.deadline_ms(state.policy.lease_ms),
    )


def heartbeat(state: State, command: SessionHeartbeat) -> Decision:
    """Renew the lease and the claims that progress, restore the health, hand over what waits.

    A heartbeat changes the status only where the session asks to be paused or drained.
    """
    session = leased(state, command.session_name, command.lease_token)
    if isinstance(session, Refusal):
        return session
    if len(command.progress) > state.policy.max_concurrent_tasks:
        return invalid("progress of more tasks than a session can have")
    one_off = session.directives
    if session.health is not Health.HEALTHY:
        yield _health_changed(session, Health.HEALTHY, session.consecutive_failures)
    yield SessionRenewed(
        session_id=session.session_id,
        session_name=session.session_name,
        lease_expires_ms=state.deadline_ms(state.policy.lease_ms),
        health=Health.HEALTHY,
        load_milli=command.load_milli,
        delivered=len(one_off),
    )
    wanted = command.status
    if wanted in (SessionStatus.PAUSED, SessionStatus.DRAINING) and session.status in _TRANSITIONS[wanted]:
        yield _status_changed(session, wanted, "asked by the session")
    stale: list[Directive] = []
    for progress in command.progress:
        task = state.tasks.get(progress.task_id)
        if task is None or task.claim is None or task.claim.token != progress.claim_token:
            stale.append(_cancel(progress))
        else:
            yield renewal(state, task, percent=_percent(progress.percent), note=progress.note[:MAX_ID])
    return HeartbeatAnswer(
        session_id=session.session_id,
        status=session.status,
        lease_ms=state.policy.lease_ms,
        lease_expires_ms=session.lease_expires_ms,
        directives=_directives(state, session, one_off, stale),
    )


def _directives(
    state: State, session: Session, one_off: tuple[Directive, ...], stale: list[Directive]
) -> tuple[Directive, ...]:
    """Standing orders, then what was queued, then claims that are void, then undelivered assignments.

    A resumption that was overtaken by another order is left out; an assignment is repeated until the
    session shows that it knows of it.
    """
    found = []
    if session.status in _STANDING_ORDERS:
        reason = "failed" if session.status is SessionStatus.FAILED else ""
        found.append(Directive(kind=_STANDING_ORDERS[session.status], reason=reason))
    else:
        found.extend(order for order in one_off if order.kind is DirectiveKind.RESUME)
    found.extend(order for order in one_off if order.kind is not DirectiveKind.RESUME)
    cancelled = {(directive.task_id, directive.claim_token) for directive in one_off}
    found.extend(order for order in stale if (order.task_id, order.claim_token) not in cancelled)
    found.extend(_assigned(state, task) for task in state.undelivered_tasks(session.session_id))
    return tuple(found)


def _assigned(state: State, task: Task) -> Directive:
    grant = grant_of(state, task)
    return Directive(
        kind=DirectiveKind.ASSIGNED, task_id=grant.task_id, claim_token=grant.claim_token, grant=grant
    )


def _cancel(progress: TaskProgress) -> Directive:
    return Directive(
        kind=DirectiveKind.CANCEL_TASK,
        task_id=progress.task_id,
        claim_token=progress.claim_token,
        reason="this claim is over",
    )


def update(state: State, command: SessionUpdate) -> Decision:
    """Change the fields that were named."""
    session = state.session_named(command.session_name)
    if session is None:
        return no_session(command.session_name)
    problem = _why_invalid(state, command)
    if problem:
        return invalid(problem)
    most = command.max_concurrent_tasks
    if most is not None and most < session.current_task_count:
        return _below_claims(session)
    if command.health is not None and not session.is_online:
        return _offline(session)
    updated = _updated(session, command)
    changed = updated != _updated(session, SessionUpdate(session_name=session.session_name))
    if changed:
        yield updated
    if command.health is not None and command.health is not session.health:
        streak = 0 if command.health is Health.HEALTHY else session.consecutive_failures
        yield _health_changed(session, command.health, streak)
        changed = True
    return _answer(state, session, "updated" if changed else "unchanged")


def _updated(session: Session, command: SessionUpdate) -> SessionUpdated:
    """The fields of a session after the wish; what is None stays."""
    values = {
        field: getattr(session, field) if getattr(command, field) is None else getattr(command, field)
        for field in (
            "max_concurrent_tasks",
            "lesson_id",
            "time_windows",
            "capabilities",
            "metadata",
            "accepts_push",
        )
    }
    return SessionUpdated(session_id=session.session_id, session_name=session.session_name, **values)


def transition(state: State, command: SessionTransition) -> Decision:
    """Pause, drain or resume. To ask for the status a session has already changes nothing."""
    session = state.session_named(command.session_name)
    if session is None:
        return no_session(command.session_name)
    sources = _TRANSITIONS.get(command.to)
    if sources is None:
        return invalid(f"a session cannot be asked to be {command.to}")
    claims = session.current_task_count
    target = working_status(command.to, claims)
    if session.status is target:
        return _answer(state, session, "unchanged")
    if session.status not in sources:
        return Refusal(
            RejectionCode.CONFLICT,
            f"session {session.session_name} is {session.status} and cannot become {target}",
            {"status": session.status.value},
        )
    is_resumed = command.to is SessionStatus.IDLE
    yield _status_changed(session, target, command.reason, streak=0 if is_resumed else None)
    if is_resumed:
        yield from direct(state, session, Directive(kind=DirectiveKind.RESUME, reason=command.reason))
    return _answer(state, session, "updated")


def fail(state: State, command: SessionFailure) -> Decision:
    """Stop a session: its claims go back to the queue, its locks to whoever waits."""
    session = state.session_named(command.session_name)
    if session is None:
        return no_session(command.session_name)
    if not session.is_online:
        return _offline(session)
    if session.status is SessionStatus.FAILED:
        return ReleaseAnswer(session_id=session.session_id)
    return (yield from _released(state, session, fail_session(state, session, command.reason)))


def deregister(state: State, command: SessionDeregister) -> Decision:
    """Say goodbye: claims are handed back at once. Being offline already is as good."""
    session = state.session_named(command.session_name)
    if session is None:
        return no_session(command.session_name)
    if not session.is_online:
        return ReleaseAnswer(session_id=session.session_id)
    if command.lease_token and command.lease_token != session.lease_token:
        return _foreign_lease(session)
    return (yield from _released(state, session, dismiss_session(state, session, command.reason)))


def _released(state: State, session: Session, consequences: Consequences) -> Decision:
    """Let a session's claims go, and count where its tasks went."""
    held = [task.task_id for task in state.claimed_tasks(session.session_id)]
    yield from consequences
    requeued = sum(1 for task_id in held if task_id in state.tasks)
    return ReleaseAnswer(session_id=session.session_id, requeued=requeued, failed=len(held) - requeued)


def leased(state: State, session_name: str, lease_token: int) -> Session | Refusal:
    """The session whose live lease this token is."""
    session = state.session_named(session_name)
    if session is None:
        return no_session(session_name)
    if session.lease_token != lease_token or not session.is_online:
        return _foreign_lease(session)
    if session.lease_expires_ms <= state.clock_ms:
        return _foreign_lease(session)
    return session


def no_session(session_name: str) -> Refusal:
    """The refusal of a name nobody registered."""
    return Refusal(RejectionCode.NOT_FOUND, f"there is no session {session_name}")


def _foreign_lease(session: Session) -> Refusal:
    return Refusal(
        RejectionCode.LEASE_EXPIRED,
        f"the lease of session {session.session_name} is over, or held with another token",
        {"status": session.status.value},
    )


def _offline(session: Session) -> Refusal:
    return Refusal(
        RejectionCode.CONFLICT, f"session {session.session_name} is offline", {"status": "offline"}
    )


def _below_claims(session: Session) -> Refusal:
    return Refusal(
        RejectionCode.CONFLICT,
        f"session {session.session_name} has {session.current_task_count} tasks, more than that",
        {"current_task_count": session.current_task_count},
    )


def _name_taken(state: State, session: Session) -> Refusal:
    return Refusal(
        RejectionCode.CONFLICT,
        f"session {session.session_name} is live; its lease_token resumes it",
        {
            "session_id": session.session_id,
            "lease_expires_in_ms": session.lease_expires_ms - state.clock_ms,
        },
    )


def _health_changed(session: Session, health: Health, streak: int) -> SessionHealthChanged:
    return SessionHealthChanged(
        session_id=session.session_id,
        session_name=session.session_name,
        health=health,
        consecutive_failures=streak,
    )


def _status_changed(
    session: Session, status: SessionStatus, reason: str, *, streak: int | None = None
) -> SessionStatusChanged:
    return SessionStatusChanged(
        session_id=session.session_id,
        session_name=session.session_name,
        status=status,
        consecutive_failures=session.consecutive_failures if streak is None else streak,
        reason=reason,
    )


def _answer(state: State, session: Session, how: str) -> SessionAnswer:
    return SessionAnswer(
        session_id=session.session_id,
        session_name=session.session_name,
        status=session.status,
        health=session.health,
        lease_token=session.lease_token,
        lease_ms=lease_left_ms(state, session),
        lease_expires_ms=session.lease_expires_ms,
        heartbeat_interval_ms=state.policy.heartbeat_interval_ms,
        current_task_count=session.current_task_count,
        max_concurrent_tasks=session.max_concurrent_tasks,
        how=how,
    )


def lease_left_ms(state: State, session: Session) -> int:
    """What is promised of the lease: its time without the slack that covers the ticks, 0 while offline."""
    if not session.is_online:
        return 0
    return max(0, session.lease_expires_ms - state.clock_ms - state.policy.tick_slack_ms)


def _why_invalid(state: State, command: SessionRegister | SessionUpdate) -> str:
    """The first field that cannot be, in words; "" if all can."""
    if isinstance(command, SessionRegister):
        if not NAME.fullmatch(command.session_name):
            return "session_name must be 1 to 255 of A-Z a-z 0-9 . _ : / -"
        if not is_id(command.session_id):
            return f"session_id must be 1 to {MAX_ID} characters"
    most = command.max_concurrent_tasks
    if most is not None and not 1 <= most <= state.policy.max_concurrent_tasks:
        return f"max_concurrent_tasks must be 1 to {state.policy.max_concurrent_tasks}"
    if command.capabilities is not None and not are_ids(command.capabilities):
        return f"capabilities must be at most 100, each 1 to {MAX_ID} characters"
    if command.metadata is not None and len(command.metadata.encode()) > MAX_METADATA:
        return f"metadata must be at most {MAX_METADATA} bytes"
    if command.lesson_id is not None and len(command.lesson_id) > MAX_ID:
        return f"lesson_id must be at most {MAX_ID} characters"
    windows = command.time_windows or ()
    if len(windows) > 100 or not all(_is_possible(window) for window in windows):
        return "time_windows must be at most 100, each with its start before its end"
    return ""


def _is_possible(window: TimeWindow) -> bool:
    """Whether there is a moment at which the window can be open."""
    return (
        window.start_ms >= 0
        and (window.end_ms == 0 or window.start_ms < window.end_ms)
        and 0 <= window.days < 128
        and 0 <= window.from_minute < window.to_minute <= 1440
    )


def _percent(value: int) -> int:
    return min(100, max(0, value))
