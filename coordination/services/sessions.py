"""Sessions: a lease on a name, kept by heartbeats."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from coordination.errors import InvalidError, NotFound, RejectedError
from coordination.log.client import async_node_client
from coordination.machine import commands
from coordination.machine.commands import TimeWindow
from coordination.machine.kinds import DirectiveKind, Health, Provider, SessionStatus, Tier
from coordination.machine.outcomes import (
    Directive,
    HeartbeatAnswer,
    Rejected,
    ReleaseAnswer,
    SessionAnswer,
)
from coordination.models import ClaudeSession, new_id
from coordination.services.submitting import (
    Outcome,
    accepted,
    as_json_text,
    id_or_fresh,
    in_ms,
    refusal,
    sub_id,
    submit,
    submit_one,
)

METADATA_BYTES_MAX = 16 * 1024


@dataclass(frozen=True, slots=True)
class NewSession:
    """What a session says of itself when it registers. `lease_token` resumes a live lease."""

    session_name: str
    tier: str = "worker"
    provider: str = "claude"
    max_concurrent_tasks: int = 5
    lesson_id: uuid.UUID | None = None
    time_windows: tuple[TimeWindow, ...] = ()
    capabilities: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    accepts_push: bool = False
    user_id: int | None = None
    lease_token: int = 0


@dataclass(frozen=True, slots=True)
class SessionGrant:
    """A granted lease. `how` is new, resumed, takeover, updated or unchanged."""

    id: uuid.UUID
    session_name: str
    status: str
    health_status: str
    lease_token: int
    lease_expires_at: datetime
    heartbeat_interval_s: float
    current_task_count: int
    max_concurrent_tasks: int
    how: str
    revision: int


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of one claimed task: `percent` 0 to 100."""

    task_id: uuid.UUID
    claim_token: int
    percent: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """`load` is the session's own view of its load, 0.0 to 1.0 and above; `status` pauses or drains it."""

    session_name: str
    lease_token: int
    load: float | None = None
    status: str | None = None
    progress: tuple[Progress, ...] = ()


@dataclass(frozen=True, slots=True)
class HeartbeatDone:
    """The renewed lease, and what the session is told to do (each with `kind` and what belongs to it)."""

    session_id: uuid.UUID
    status: str
    lease_expires_at: datetime
    directives: tuple[dict[str, Any], ...]
    revision: int


@dataclass(frozen=True, slots=True)
class Released:
    """A session failed or left: how many of its tasks went back to the queue, and how many ended."""

    session_name: str
    requeued: int
    failed: int
    revision: int


def register_session(session: NewSession, *, actor: str, request_id: bytes = b"") -> SessionGrant:
    """Grant a lease on a name. Raises RejectedError `conflict` where the name lives and no token resumes it."""
    (outcome,) = submit([_register_command(session, _known_ids([session]), actor, id_or_fresh(request_id))])
    return _grant(outcome)


def register_sessions(
    sessions: Sequence[NewSession], *, actor: str, request_id: bytes = b""
) -> list[SessionGrant | RejectedError]:
    """Register a batch: a grant or the refusal for each, in order."""
    known, request = _known_ids(sessions), id_or_fresh(request_id)
    wishes = [
        _register_command(session, known, actor, sub_id(request, part))
        for part, session in enumerate(sessions)
    ]
    return [_grant_or_refusal(outcome) for outcome in submit(wishes)]


def _known_ids(sessions: Sequence[NewSession]) -> dict[str, uuid.UUID]:
    """The ids that rows of these names have, so that a name keeps its id for ever."""
    names = [session.session_name for session in sessions]
    return dict(ClaudeSession.objects.filter(session_name__in=names).values_list("session_name", "id"))


def _register_command(
    session: NewSession, known: Mapping[str, uuid.UUID], actor: str, request_id: bytes
) -> commands.SessionRegister:
    return commands.SessionRegister(
        request_id=request_id,
        actor=actor,
        session_id=str(known.get(session.session_name) or new_id()),
        session_name=session.session_name,
        tier=_kind(Tier, session.tier, "tier"),
        provider=_kind(Provider, session.provider, "provider"),
        max_concurrent_tasks=session.max_concurrent_tasks,
        lesson_id=str(session.lesson_id or ""),
        time_windows=session.time_windows,
        capabilities=session.capabilities,
        metadata=metadata_text(session.metadata),
        accepts_push=session.accepts_push,
        user=str(session.user_id or ""),
        lease_token=session.lease_token,
    )


def _kind(kinds: type, value: str, field_name: str) -> Any:
    try:
        return kinds(value)
    except ValueError as error:
        raise InvalidError(field_name, f"{value!r} is not one of {', '.join(kinds)}") from error


def metadata_text(metadata: Mapping[str, Any]) -> str:
    """Metadata as the log carries it. Raises InvalidError."""
    try:
        text = as_json_text(dict(metadata))
    except ValueError as error:
        raise InvalidError("metadata", str(error)) from error
    if len(text.encode(errors="replace")) > METADATA_BYTES_MAX:
        raise InvalidError("metadata", f"longer than {METADATA_BYTES_MAX} bytes")
    return text


def _grant(outcome: Outcome) -> SessionGrant:
    answer, revision = accepted(outcome, SessionAnswer)
    return SessionGrant(
        id=uuid.UUID(answer.session_id),
        session_name=answer.session_name,
        status=answer.status.value,
        health_status=answer.health.value,
        lease_token=answer.lease_token,
        lease_expires_at=in_ms(answer.lease_ms),
        heartbeat_interval_s=answer.heartbeat_interval_ms / 1000,
        current_task_count=answer.current_task_count,
        max_concurrent_tasks=answer.max_concurrent_tasks,
        how=answer.how,
        revision=revision,
    )


def _grant_or_refusal(outcome: Outcome) -> SessionGrant | RejectedError:
    return refusal(outcome) if isinstance(outcome, Rejected) else _grant(outcome)


def record_heartbeat(heartbeat: Heartbeat, *, actor: str, request_id: bytes = b"") -> HeartbeatDone:
    """Renew a lease. Raises RejectedError `lease-expired` for a token that is not the current one."""
    (outcome,) = submit([_heartbeat_command(heartbeat, actor, request_id)])
    return _heartbeat_done(outcome)


def record_heartbeats(heartbeats: Sequence[Heartbeat], *, actor: str) -> list[HeartbeatDone | RejectedError]:
    """Renew many leases; a result or the refusal for each, in order."""
    return [
        _heartbeat_or_refusal(outcome)
        for outcome in submit([_heartbeat_command(heartbeat, actor) for heartbeat in heartbeats])
    ]


async def record_heartbeats_async(
    heartbeats: Sequence[Heartbeat], *, actor: str
) -> list[HeartbeatDone | RejectedError]:
    """As `record_heartbeats`, from an event loop; what arrives together shares one request to the node."""
    wishes = [_heartbeat_command(heartbeat, actor) for heartbeat in heartbeats]
    return [_heartbeat_or_refusal(outcome) for outcome in await async_node_client().submit(wishes)]


def _heartbeat_command(
    heartbeat: Heartbeat, actor: str, request_id: bytes = b""
) -> commands.SessionHeartbeat:
    return commands.SessionHeartbeat(
        request_id=request_id,
        actor=actor,
        session_name=heartbeat.session_name,
        lease_token=heartbeat.lease_token,
        load_milli=-1 if heartbeat.load is None else round(heartbeat.load * 1000),
        status=None if heartbeat.status is None else _kind(SessionStatus, heartbeat.status, "status"),
        progress=tuple(
            commands.TaskProgress(
                task_id=str(step.task_id), claim_token=step.claim_token, percent=step.percent, note=step.note
            )
            for step in heartbeat.progress
        ),
    )


def _heartbeat_done(outcome: Outcome) -> HeartbeatDone:
    answer, revision = accepted(outcome, HeartbeatAnswer)
    return HeartbeatDone(
        session_id=uuid.UUID(answer.session_id),
        status=answer.status.value,
        lease_expires_at=in_ms(answer.lease_ms),
        directives=tuple(_directive(directive) for directive in answer.directives),
        revision=revision,
    )


def _heartbeat_or_refusal(outcome: Outcome) -> HeartbeatDone | RejectedError:
    return refusal(outcome) if isinstance(outcome, Rejected) else _heartbeat_done(outcome)


def _directive(directive: Directive) -> dict[str, Any]:
    told: dict[str, Any] = {"kind": directive.kind.value}
    if directive.task_id:
        told |= {"task_id": directive.task_id, "claim_token": directive.claim_token}
    if directive.reason:
        told["reason"] = directive.reason
    if directive.kind is DirectiveKind.ASSIGNED and directive.grant is not None:
        told |= {
            "task_type": directive.grant.task_type,
            "attempt": directive.grant.attempt,
            "claim_expires_at": in_ms(directive.grant.ttl_ms),
        }
    return told


def update_session(
    session_name: str,
    *,
    actor: str,
    max_concurrent_tasks: int | None = None,
    lesson_id: uuid.UUID | str | None = None,
    time_windows: tuple[TimeWindow, ...] | None = None,
    capabilities: tuple[str, ...] | None = None,
    metadata: Mapping[str, Any] | None = None,
    accepts_push: bool | None = None,
    request_id: bytes = b"",
) -> SessionGrant:
    """Change the named fields that are not None; `lesson_id=""` leaves the lesson."""
    command = commands.SessionUpdate(
        request_id=id_or_fresh(request_id),
        actor=actor,
        session_name=session_name,
        max_concurrent_tasks=max_concurrent_tasks,
        lesson_id=None if lesson_id is None else str(lesson_id),
        time_windows=time_windows,
        capabilities=capabilities,
        metadata=None if metadata is None else metadata_text(metadata),
        accepts_push=accepts_push,
    )
    return _grant(submit([command])[0])


def set_session_health(
    session_name: str, health: str, *, actor: str, request_id: bytes = b""
) -> SessionGrant:
    """Set a session's health by hand; healthy sets its failures in a row to 0."""
    command = commands.SessionUpdate(
        request_id=id_or_fresh(request_id),
        actor=actor,
        session_name=session_name,
        health=_kind(Health, health, "health_status"),
    )
    return _grant(submit([command])[0])


def set_session_status(
    session_name: str, to: str, *, actor: str, reason: str = "", request_id: bytes = b""
) -> SessionGrant:
    """Pause (`paused`), drain (`draining`) or resume (`idle`); other transitions are refused."""
    command = commands.SessionTransition(
        request_id=id_or_fresh(request_id),
        actor=actor,
        session_name=session_name,
        to=_kind(SessionStatus, to, "status"),
        reason=reason,
    )
    return _grant(submit([command])[0])


def pause_session(
    session_name: str, *, actor: str, reason: str = "", request_id: bytes = b""
) -> SessionGrant:
    """It keeps its tasks and takes no more until resumed."""
    return set_session_status(session_name, "paused", actor=actor, reason=reason, request_id=request_id)


def resume_session(
    session_name: str, *, actor: str, reason: str = "", request_id: bytes = b""
) -> SessionGrant:
    """It takes tasks again, also after it was failed."""
    return set_session_status(session_name, "idle", actor=actor, reason=reason, request_id=request_id)


def drain_session(
    session_name: str, *, actor: str, reason: str = "", request_id: bytes = b""
) -> SessionGrant:
    """It finishes what it has and takes no more."""
    return set_session_status(session_name, "draining", actor=actor, reason=reason, request_id=request_id)


def fail_session(session_name: str, reason: str, *, actor: str, request_id: bytes = b"") -> Released:
    """Fail a session: its claims are requeued with the retry counted, its locks freed."""
    command = commands.SessionFailure(
        request_id=id_or_fresh(request_id), actor=actor, session_name=session_name, reason=reason
    )
    answer, revision = submit_one(command, ReleaseAnswer)
    return Released(session_name, answer.requeued, answer.failed, revision)


def requeue_session_tasks(session_id: uuid.UUID, *, actor: str, request_id: bytes = b"") -> int:
    """Put a failed session's live claims back into the queue, retries counted, tokens void; how many.

    A session whose tasks are taken away has failed, so this fails it; 0 where it had failed before.
    """
    name = ClaudeSession.objects.filter(pk=session_id).values_list("session_name", flat=True).first()
    if name is None:
        raise NotFound("session", session_id)
    return fail_session(name, "tasks requeued", actor=actor, request_id=request_id).requeued


def deregister_session(
    session_name: str, *, actor: str, lease_token: int = 0, reason: str = "", request_id: bytes = b""
) -> Released:
    """Orderly goodbye: claims go back to the queue, locks are freed. `lease_token` 0 is an operator's."""
    command = commands.SessionDeregister(
        request_id=id_or_fresh(request_id),
        actor=actor,
        session_name=session_name,
        lease_token=lease_token,
        reason=reason,
    )
    answer, revision = submit_one(command, ReleaseAnswer)
    return Released(session_name, answer.requeued, answer.failed, revision)
