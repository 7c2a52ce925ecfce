"""What a claim grants, and for how long."""

from coordination.machine.events import TaskClaimed, TaskRenewed
from coordination.machine.outcomes import Grant
from coordination.machine.state import Session, State, Task

from .endings import claim_of


def ttl_ms(state: State, task: Task) -> int:
    """How long a claim on this task lasts."""
    return task.spec.claim_ttl_ms or state.policy.claim_ttl_ms


def claimed(state: State, session: Session, task: Task, *, pushed: bool, score: int) -> TaskClaimed:
    """A new claim; its token is the revision of the command that grants it."""
    timeout_ms = task.spec.timeout_ms
    deadline_ms = state.deadline_ms(timeout_ms) if timeout_ms else 0
    expires_ms = state.deadline_ms(ttl_ms(state, task))
    return TaskClaimed(
        task_id=task.task_id,
        session_id=session.session_id,
        session_name=session.session_name,
        claim_token=state.at,
        attempt=task.attempt + 1,
        expires_ms=min(expires_ms, deadline_ms) if deadline_ms else expires_ms,
        deadline_ms=deadline_ms,
        lesson_id=task.spec.lesson_id,
        pushed=pushed,
        score=score,
    )


def grant_of(state: State, task: Task) -> Grant:
    """What the claimant is told. The promised time leaves out the slack that covers the ticks."""
    claim = claim_of(task)
    return Grant(
        task_id=task.task_id,
        task_type=task.spec.task_type,
        attempt=task.attempt,
        claim_token=claim.token,
        expires_ms=claim.expires_ms,
        ttl_ms=max(0, claim.expires_ms - state.clock_ms - state.policy.tick_slack_ms),
        lesson_id=task.spec.lesson_id,
        timeout_ms=task.spec.timeout_ms,
        retry_count=task.retry_count,
    )


def renewal(state: State, task: Task, *, percent: int, note: str) -> TaskRenewed:
    """A claim prolonged by its full time, not beyond the attempt's deadline."""
    claim = claim_of(task)
    expires_ms = max(claim.expires_ms, state.deadline_ms(ttl_ms(state, task)))
    return TaskRenewed(
        task_id=task.task_id,
        session_id=claim.session_id,
        session_name=claim.session_name,
        claim_token=claim.token,
        expires_ms=min(expires_ms, claim.deadline_ms) if claim.deadline_ms else expires_ms,
        percent=percent,
        note=note,
    )
