"""Rules of time: what is over at a tick, and the few commands about the cluster itself."""

from coordination.machine.commands import PolicySet, RevisionRaise, Tick
from coordination.machine.deadlines import DueKind
from coordination.machine.events import (
    ClockMoved,
    PolicyChanged,
    RevisionRaised,
    SessionHealthChanged,
    TaskReady,
    TermStarted,
)
from coordination.machine.kinds import AttemptOutcome, DirectiveKind, Health, RejectionCode
from coordination.machine.outcomes import Directive, Done, TickAnswer
from coordination.machine.state import State

from .decision import Consequences, Decision, Refusal, StepEnds, invalid
from .endings import claim_of, direct, expire_session, give_back, note_failure
from .lock_passing import expire_lock, expire_waiters

MAX_REVISION = 2**62  # the encoding's integers end at 2^63


def tick(state: State, command: Tick) -> Decision:
    """Move the clock and end what is due, so much at a time, each ending a revision of its own.

    The first tick of a term moves every deadline by one lease timeout before the clock: while there was
    no leader nobody could renew anything.
    """
    if command.elapsed_ms < 0:
        return invalid("elapsed_ms must not be negative")
    if command.term < state.term:
        return Refusal(RejectionCode.CONFLICT, f"a tick of term {command.term}; the term is {state.term}")
    if command.term > state.term:
        yield TermStarted(term=command.term, extended_ms=state.policy.lease_ms)
        yield StepEnds()
    elapsed_ms = min(command.elapsed_ms, state.policy.max_elapsed_ms)
    if elapsed_ms:
        yield ClockMoved(clock_ms=state.clock_ms + elapsed_ms)
    expired = 0
    while (due := state.next_due()) is not None and due.due_ms <= state.clock_ms:
        if expired == state.policy.max_expiries_per_tick:
            return TickAnswer(clock_ms=state.clock_ms, expired=expired, more=True)
        yield from _END[due.kind](state, due.key)
        yield StepEnds()
        expired += 1
        assert state.next_due() != due, f"{due} is due again after it was dealt with"
    return TickAnswer(clock_ms=state.clock_ms, expired=expired)


def _end_session_time(state: State, session_id: str) -> Consequences:
    """The lease is over, or another heartbeat has been missed."""
    session = state.sessions[session_id]
    if session.lease_expires_ms <= state.clock_ms:
        yield from expire_session(state, session)
        return
    is_first = session.health is Health.HEALTHY
    yield SessionHealthChanged(
        session_id=session_id,
        session_name=session.session_name,
        health=Health.DEGRADED if is_first else Health.UNHEALTHY,
        consecutive_failures=session.consecutive_failures,
    )


def _end_task_time(state: State, task_id: str) -> Consequences:
    """A delay is over, or a claim: then the task goes back and its session is told and held to account."""
    task = state.tasks[task_id]
    if task.claim is None:
        yield TaskReady(task_id=task_id)
        return
    claim = claim_of(task)
    session = state.sessions[claim.session_id]
    yield from give_back(state, task, AttemptOutcome.EXPIRED, "claim expired")
    yield from direct(
        state,
        session,
        Directive(
            kind=DirectiveKind.CANCEL_TASK, task_id=task_id, claim_token=claim.token, reason="claim expired"
        ),
    )
    yield from note_failure(state, session, task.spec.lesson_id)


def _end_lock_time(state: State, lock_key: str) -> Consequences:
    lock = state.locks[lock_key]
    if lock.expires_ms <= state.clock_ms:
        yield from expire_lock(state, lock)
    else:
        yield from expire_waiters(state, lock_key)


def set_policy(state: State, command: PolicySet) -> Decision:
    """Replace the policy by one that is possible."""
    problems = command.policy.problems()
    if problems:
        return invalid("; ".join(problems))
    if command.policy != state.policy:
        yield PolicyChanged(policy=command.policy)
    return Done()


def raise_revision(state: State, command: RevisionRaise) -> Decision:
    """Skip revisions, so that tokens grow across a cluster that lost its data."""
    if command.revision > MAX_REVISION:
        return invalid(f"a revision must be at most {MAX_REVISION}")
    if command.revision > state.at:
        yield RevisionRaised(revision=command.revision)
    return Done()


_END = {
    DueKind.SESSION: _end_session_time,
    DueKind.TASK: _end_task_time,
    DueKind.LOCK: _end_lock_time,
}
