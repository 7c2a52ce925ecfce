"""Tasks: a row with the payload, a place in the machine's queue, and claims with fencing tokens."""

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import Error as DatabaseError
from django.db import connection, transaction

from coordination.errors import (
    CoordinationError,
    InvalidError,
    NotAvailable,
    NotFound,
    OutcomeUnknown,
    RejectedError,
    Stored,
)
from coordination.log.client import async_node_client, node_client
from coordination.machine import commands
from coordination.machine.kinds import DependencyPolicy, RejectionCode, TaskStatus, Tier
from coordination.machine.outcomes import ClaimAnswer, Grant, Rejected, TaskAnswer
from coordination.models import TASK_DATA_BYTES_MAX, ClaudeSession, DistributedTask, Lesson
from coordination.offers import dependencies_of, offer_of, spec_of
from coordination.selectors import projected_revision, wait_until_projected
from coordination.services.submitting import (
    Outcome,
    accepted,
    as_json_text,
    id_or_fresh,
    in_ms,
    ms_until,
    refusal,
    sub_id,
    submit,
    submit_one,
)
from gaia_site.background import Folded

RESULT_BYTES_MAX = 1024 * 1024
ERROR_MESSAGE_MAX = 4_000
LATER = frozenset({RejectionCode.UNKNOWN_DEPENDENCY, RejectionCode.OVERLOADED})
"""Refusals after which the row waits in PostgreSQL and the feeder offers it again."""


@dataclass(frozen=True, slots=True)
class NewTask:
    """What a client asks for. `target_session` is a name; `depends_on` are ids of tasks that exist."""

    idempotency_key: str
    task_type: str
    task_data: Mapping[str, Any] = field(default_factory=dict)
    priority: int = 0
    lesson_id: uuid.UUID | None = None
    target_session: str | None = None
    required_capabilities: tuple[str, ...] = ()
    required_tier: str = ""
    depends_on: tuple[uuid.UUID, ...] = ()
    on_dependency_failure: str = "fail"
    run_after: datetime | None = None
    max_retries: int = 3
    claim_ttl_s: float | None = None
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class Enqueued:
    """The row of a task; `is_new` is False where its key was known with the same body."""

    task: DistributedTask
    is_new: bool
    revision: int


@dataclass(frozen=True, slots=True)
class ClaimedTask:
    """A granted claim with its payload; `has_payload` is False while PostgreSQL cannot be asked."""

    id: uuid.UUID
    task_type: str
    task_data: Any
    attempt: int
    claim_token: int
    claim_expires_at: datetime
    lesson_id: uuid.UUID | None
    timeout_s: float | None
    retry_count: int
    has_payload: bool = True


@dataclass(frozen=True, slots=True)
class ClaimedTasks:
    """`reason` says why there are none: nothing_pending, no_room, paused, draining, failed, unhealthy …"""

    tasks: tuple[ClaimedTask, ...]
    reason: str
    revision: int


@dataclass(frozen=True, slots=True)
class Completion:
    """What a holder hands in."""

    task_id: uuid.UUID
    claim_token: int
    result: Any = None


@dataclass(frozen=True, slots=True)
class TaskChange:
    """A task after a command, as the log answered. `known`: it had been done before, nothing changed."""

    task_id: uuid.UUID
    status: str
    retry_count: int
    claim_token: int
    claim_expires_at: datetime | None
    run_after: datetime | None
    known: bool
    revision: int


# Into the queue


def enqueue(task: NewTask, *, actor: str, request_id: bytes = b"") -> Enqueued:
    """Store a task and queue it; a known key with the same body answers the task it has.

    Raises RejectedError `conflict` for a known key with another body, InvalidError, NotFound for a lesson,
    session or dependency that does not exist, Stored where the row waits for the log.
    """
    (answer,) = enqueue_many([task], actor=actor, request_id=request_id)
    if isinstance(answer, CoordinationError):
        raise answer
    return answer


def enqueue_many(
    tasks: Sequence[NewTask], *, actor: str, request_id: bytes = b""
) -> list[Enqueued | CoordinationError]:
    """Store and queue a batch: the task or what is wrong for each, in order. One failure spoils no other.

    Raises Stored where the log does not answer: the rows are there, the leader's feeder queues them, and the same
    call again answers them.
    """
    wishes = _checked(tasks)
    answers: list[Enqueued | CoordinationError | None] = [
        wish if isinstance(wish, CoordinationError) else None for wish in wishes
    ]
    good = {place: wish for place, wish in enumerate(wishes) if not isinstance(wish, CoordinationError)}
    with transaction.atomic():
        stored = _stored(list(good.values()), tasks, list(good), actor)
    rows = dict(zip(good, stored, strict=True))
    places = [place for place, (row, _) in rows.items() if not isinstance(row, RejectedError)]
    revisions = _offered([rows[place][0] for place in places], actor, id_or_fresh(request_id))
    for place, (row, _) in rows.items():
        if isinstance(row, RejectedError):
            answers[place] = row
    for place, offered in zip(places, revisions, strict=True):
        row, is_new = rows[place]
        answers[place] = offered if isinstance(offered, RejectedError) else Enqueued(row, is_new, offered)
    assert None not in answers
    return [answer for answer in answers if answer is not None]


def _checked(tasks: Sequence[NewTask]) -> list[DistributedTask | CoordinationError]:
    """A row, not yet stored, or what is wrong with it, for each; references by three queries for all."""
    lessons = set(
        Lesson.objects.filter(pk__in={task.lesson_id for task in tasks if task.lesson_id}).values_list(
            "pk", flat=True
        )
    )
    sessions = _session_ids({task.target_session for task in tasks if task.target_session})
    wanted = {dependency for task in tasks for dependency in task.depends_on}
    known = (
        set(DistributedTask.objects.filter(pk__in=wanted).values_list("pk", flat=True)) if wanted else set()
    )
    rows: list[DistributedTask | CoordinationError] = []
    for task in tasks:
        try:
            _check_references(task, lessons, sessions, known)
            rows.append(_row(task, sessions))
        except (InvalidError, NotFound) as wrong:
            rows.append(wrong)
    return rows


def _session_ids(names: set[str]) -> dict[str, uuid.UUID]:
    """Ids by name. A session registered a moment ago may not have its row yet: then the rows catch up first."""
    if not names:
        return {}
    query = ClaudeSession.objects.filter(session_name__in=names)
    found = dict(query.values_list("session_name", "id"))
    if len(found) < len(names):
        wait_until_projected(node_client().status()["revision"], timeout_s=2.0)
        found = dict(query.all().values_list("session_name", "id"))
    return found


def _check_references(
    task: NewTask, lessons: set[uuid.UUID], sessions: Mapping[str, uuid.UUID], known: set[uuid.UUID]
) -> None:
    if task.lesson_id and task.lesson_id not in lessons:
        raise NotFound("lesson", task.lesson_id)
    if task.target_session and task.target_session not in sessions:
        raise NotFound("session", task.target_session)
    for dependency in task.depends_on:
        if dependency not in known:
            raise NotFound("task", dependency)


def _row(task: NewTask, sessions: Mapping[str, uuid.UUID]) -> DistributedTask:
    if not 1 <= len(task.idempotency_key) <= 255:
        raise InvalidError("idempotency_key", "must be 1 to 255 characters")
    if not 1 <= len(task.task_type) <= 100:
        raise InvalidError("task_type", "must be 1 to 100 characters")
    if task.required_tier and task.required_tier not in list(Tier):
        raise InvalidError("required_tier", f"must be one of {', '.join(Tier)}")
    if task.on_dependency_failure not in list(DependencyPolicy):
        raise InvalidError("on_dependency_failure", f"must be one of {', '.join(DependencyPolicy)}")
    return DistributedTask(
        idempotency_key=task.idempotency_key,
        body_digest=_digest(task),
        task_type=task.task_type,
        task_data=dict(task.task_data),
        priority=task.priority,
        lesson_id=task.lesson_id,
        target_session_id=sessions[task.target_session] if task.target_session else None,
        required_capabilities=list(task.required_capabilities),
        required_tier=task.required_tier,
        on_dependency_failure=task.on_dependency_failure,
        run_after=task.run_after,
        max_retries=task.max_retries,
        claim_ttl_s=task.claim_ttl_s,
        timeout_s=task.timeout_s,
    )


def _digest(task: NewTask) -> bytes:
    """Equal for two bodies that ask for the same."""
    try:
        payload = as_json_text(dict(task.task_data))
    except (ValueError, TypeError) as error:
        raise InvalidError("task_data", str(error)) from error
    if len(payload.encode(errors="surrogatepass")) > TASK_DATA_BYTES_MAX:
        raise InvalidError("task_data", f"longer than {TASK_DATA_BYTES_MAX} bytes")
    rest = {
        "task_type": task.task_type,
        "priority": task.priority,
        "lesson_id": str(task.lesson_id or ""),
        "target_session": task.target_session or "",
        "required_capabilities": sorted(task.required_capabilities),
        "required_tier": task.required_tier,
        "depends_on": sorted(str(dependency) for dependency in task.depends_on),
        "on_dependency_failure": task.on_dependency_failure,
        "run_after": task.run_after.isoformat() if task.run_after else "",
        "max_retries": task.max_retries,
        "claim_ttl_s": task.claim_ttl_s,
        "timeout_s": task.timeout_s,
    }
    return hashlib.sha256(f"{as_json_text(rest)}\n{payload}".encode(errors="surrogatepass")).digest()


def _stored(
    rows: Sequence[DistributedTask], tasks: Sequence[NewTask], places: Sequence[int], actor: str
) -> list[tuple[Any, bool]]:
    """The stored row and whether it is new, or a refusal, for each: one INSERT for all.

    Two rows of one batch with the same key come to one row, as two calls would.
    """
    for row in rows:
        row.created_by = actor[:255]
    DistributedTask.objects.bulk_create(rows, ignore_conflicts=True, batch_size=1000)
    keys = [row.idempotency_key for row in rows]
    existing = {
        found.idempotency_key: found
        for found in DistributedTask.objects.filter(idempotency_key__in=keys).select_related(
            "target_session", "claimed_by"
        )
    }
    _store_dependencies(
        (row, tasks[place])
        for row, place in zip(rows, places, strict=True)
        if existing[row.idempotency_key].pk == row.pk
    )
    answers: list[tuple[Any, bool]] = []
    for row in rows:
        found = existing[row.idempotency_key]
        if bytes(found.body_digest) == bytes(row.body_digest):
            answers.append((found, found.pk == row.pk))
        else:
            detail = f"idempotency_key {row.idempotency_key} is known with another body"
            answers.append((RejectedError("conflict", detail, {"task_id": str(found.pk)}), False))
    return answers


def _store_dependencies(new: Iterable[tuple[DistributedTask, NewTask]]) -> None:
    through = DistributedTask.depends_on.through
    links = [
        through(from_distributedtask_id=row.pk, to_distributedtask_id=dependency)
        for row, task in new
        for dependency in task.depends_on
    ]
    if links:
        through.objects.bulk_create(links, ignore_conflicts=True)


def _offered(rows: Sequence[DistributedTask], actor: str, request: bytes) -> list[int | RejectedError]:
    """Offer to the machine the rows it does not have; the revision of each, or the refusal.

    A row the machine will never take is deleted again: nobody was promised anything.
    """
    waiting = [row for row in rows if row.status == "pending" and row.enqueued_revision is None]
    if not waiting:
        return [row.enqueued_revision or 0 for row in rows]
    dependencies = dependencies_of({row.pk for row in waiting})
    offers = [
        offer_of(row, dependencies[row.pk], request_id=sub_id(request, part), actor=actor)
        for part, row in enumerate(waiting)
    ]
    try:
        outcomes = submit(offers)
    except (NotAvailable, OutcomeUnknown) as failure:
        raise Stored(failure, [row.pk for row in waiting]) from failure
    found: dict[uuid.UUID, int | RejectedError] = {}
    for row, outcome in zip(waiting, outcomes, strict=True):
        if isinstance(outcome, Rejected) and outcome.code not in LATER:
            DistributedTask.objects.filter(pk=row.pk, enqueued_revision__isnull=True).delete()
            found[row.pk] = refusal(outcome)
        else:
            found[row.pk] = outcome.revision
    return [found.get(row.pk, row.enqueued_revision or 0) for row in rows]


def update_task(
    task_id: uuid.UUID,
    *,
    actor: str,
    priority: int | None = None,
    target_session: str | None = None,
    max_retries: int | None = None,
    run_after: datetime | None = None,
    request_id: bytes = b"",
) -> TaskChange:
    """Change the named fields, only while the task is pending; `target_session=""` means any."""
    command = commands.TaskUpdate(
        request_id=id_or_fresh(request_id),
        actor=actor,
        task_id=str(task_id),
        priority=priority,
        target_session=target_session,
        max_retries=max_retries,
        delay_ms=None if run_after is None else ms_until(run_after),
    )
    return _change(submit([command])[0])


def delete_task(task_id: uuid.UUID, *, actor: str, request_id: bytes = b"") -> int:
    """Delete a pending or final task; the revision. Raises RejectedError `conflict` while it is claimed."""
    task = _row_of(task_id)
    command = commands.TaskDelete(
        request_id=id_or_fresh(request_id),
        actor=actor,
        task_id=str(task_id),
        row_status=TaskStatus(task.status),
        lesson_id=str(task.lesson_id or ""),
    )
    try:
        return submit_one(command, TaskAnswer)[1]
    except RejectedError as refused:
        # The row may not show yet that the machine has the task, so only the machine can say that it has not.
        if refused.code == RejectionCode.NOT_FOUND and _delete_unknown(task_id):
            return refused.revision
        raise


def _delete_unknown(task_id: uuid.UUID) -> bool:
    """Delete a row that the machine was never given; whether there was one."""
    deleted, _ = DistributedTask.objects.filter(
        pk=task_id, status="pending", enqueued_revision__isnull=True
    ).delete()
    return deleted > 0


def retry(task_id: uuid.UUID, *, actor: str, request_id: bytes = b"") -> TaskChange:
    """Queue a failed or cancelled task again, its retries counted anew."""
    seen_revision = projected_revision()  # before the row is read
    task = _row_of(task_id)
    command = commands.TaskRetry(
        request_id=id_or_fresh(request_id),
        actor=actor,
        task_id=str(task_id),
        spec=spec_of(task),
        row_status=TaskStatus(task.status),
        seen_revision=seen_revision,
        attempts=task.attempts.count(),
    )
    return _change(submit([command])[0])


def cancel(task_id: uuid.UUID, *, actor: str, reason: str = "", request_id: bytes = b"") -> TaskChange:
    """End a pending or claimed task; its holder is told with the next heartbeat, its token is void."""
    command = commands.TaskCancel(
        request_id=id_or_fresh(request_id), actor=actor, task_id=str(task_id), reason=reason
    )
    return _change(submit([command])[0])


def _row_of(task_id: uuid.UUID) -> DistributedTask:
    task = DistributedTask.objects.select_related("target_session").filter(pk=task_id).first()
    if task is None:
        raise NotFound("task", task_id)
    return task


# Out of the queue


def claim(
    session_name: str,
    lease_token: int,
    *,
    actor: str,
    max_tasks: int = 1,
    task_types: tuple[str, ...] = (),
    wait_s: float = 0.0,
    request_id: bytes = b"",
) -> ClaimedTasks:
    """Take the best tasks for a session; none when `wait_s` has passed without one.

    Raises RejectedError `lease-expired` for a lease that is over or held with another token.
    """
    command = _claim_command(session_name, lease_token, max_tasks, task_types, actor, request_id)
    answer, revision = submit_one(command, ClaimAnswer, wait_s=wait_s)
    return _with_payloads(answer, revision)


async def claim_async(
    session_name: str,
    lease_token: int,
    *,
    actor: str,
    max_tasks: int = 1,
    task_types: tuple[str, ...] = (),
    wait_s: float = 0.0,
    request_id: bytes = b"",
) -> ClaimedTasks:
    """As `claim`, from an event loop."""
    command = _claim_command(session_name, lease_token, max_tasks, task_types, actor, request_id)
    (outcome,) = await async_node_client().submit([command], wait_s=wait_s)
    answer, revision = accepted(outcome, ClaimAnswer)
    if not answer.grants:
        return ClaimedTasks((), answer.reason, revision)
    payloads = await _payloads_together([uuid.UUID(grant.task_id) for grant in answer.grants])
    return _claimed_tasks(answer, payloads, revision)


def _claim_command(
    session_name: str,
    lease_token: int,
    max_tasks: int,
    task_types: tuple[str, ...],
    actor: str,
    request_id: bytes,
) -> commands.TaskClaim:
    return commands.TaskClaim(
        request_id=id_or_fresh(request_id),
        actor=actor,
        session_name=session_name,
        lease_token=lease_token,
        max_tasks=max_tasks,
        task_types=task_types,
    )


def _with_payloads(answer: ClaimAnswer, revision: int) -> ClaimedTasks:
    return _claimed_tasks(answer, _payloads([uuid.UUID(grant.task_id) for grant in answer.grants]), revision)


def _claimed_tasks(answer: ClaimAnswer, payloads: dict[uuid.UUID, Any] | None, revision: int) -> ClaimedTasks:
    claimed = tuple(_claimed(grant, payloads) for grant in answer.grants)
    return ClaimedTasks(claimed, answer.reason, revision)


def _payloads(task_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Any] | None:
    """Payloads by one query; None while PostgreSQL cannot be asked: claims go on without it."""
    if not task_ids:
        return {}
    try:
        with connection.cursor() as cursor:  # building the query by the ORM would cost more than running it
            cursor.execute(
                "SELECT id, task_data FROM coordination_distributedtask WHERE id = ANY(%s::uuid[])",
                [list(task_ids)],
            )
            return {task_id: json.loads(payload) for task_id, payload in cursor.fetchall()}
    except DatabaseError:
        connection.close()
        return None


def _payloads_of_many(claims: list[list[uuid.UUID]]) -> list[dict[uuid.UUID, Any] | None]:
    """The payloads of several claims by one query; each gets all of them."""
    return [_payloads([task_id for claim in claims for task_id in claim])] * len(claims)


_payloads_together = Folded(_payloads_of_many)


def _claimed(grant: Grant, payloads: dict[uuid.UUID, Any] | None) -> ClaimedTask:
    task_id = uuid.UUID(grant.task_id)
    return ClaimedTask(
        id=task_id,
        task_type=grant.task_type,
        task_data=(payloads or {}).get(task_id),
        attempt=grant.attempt,
        claim_token=grant.claim_token,
        claim_expires_at=in_ms(grant.ttl_ms),
        lesson_id=uuid.UUID(grant.lesson_id) if grant.lesson_id else None,
        timeout_s=grant.timeout_ms / 1000 if grant.timeout_ms else None,
        retry_count=grant.retry_count,
        has_payload=payloads is not None and task_id in payloads,
    )


def start(task_id: uuid.UUID, claim_token: int, *, actor: str, request_id: bytes = b"") -> TaskChange:
    """Assigned → in_progress. Raises RejectedError `stale-token`."""
    command = commands.TaskStart(
        request_id=id_or_fresh(request_id), actor=actor, task_id=str(task_id), claim_token=claim_token
    )
    return _change(submit([command])[0])


def renew(
    task_id: uuid.UUID,
    claim_token: int,
    *,
    actor: str,
    percent: int | None = None,
    note: str = "",
    request_id: bytes = b"",
) -> TaskChange:
    """Prolong a live claim, with progress if it is told. Raises RejectedError `stale-token`."""
    command = commands.TaskRenew(
        request_id=id_or_fresh(request_id),
        actor=actor,
        task_id=str(task_id),
        claim_token=claim_token,
        percent=-1 if percent is None else percent,
        note=note,
    )
    return _change(submit([command])[0])


def complete(
    task_id: uuid.UUID,
    claim_token: int,
    result: Any = None,
    *,
    actor: str,
    request_id: bytes = b"",
) -> TaskChange:
    """Hand in the result of a claimed task. The same again is answered as the first time.

    Raises RejectedError `stale-token` where the claim is not the current one: nothing changes.
    """
    (answer,) = complete_many([Completion(task_id, claim_token, result)], actor=actor, request_id=request_id)
    if isinstance(answer, CoordinationError):
        raise answer
    return answer


def complete_many(
    completions: Sequence[Completion], *, actor: str, request_id: bytes = b""
) -> list[TaskChange | CoordinationError]:
    """Hand in many: the change or the refusal for each, in order."""
    _store_results(completions)
    outcomes = submit(_complete_commands(completions, actor, request_id))
    return [_change_or_refusal(outcome) for outcome in outcomes]


async def complete_async(
    task_id: uuid.UUID,
    claim_token: int,
    result: Any = None,
    *,
    actor: str,
    request_id: bytes = b"",
) -> TaskChange:
    """As `complete`, from an event loop."""
    (answer,) = await complete_many_async(
        [Completion(task_id, claim_token, result)], actor=actor, request_id=request_id
    )
    if isinstance(answer, CoordinationError):
        raise answer
    return answer


async def complete_many_async(
    completions: Sequence[Completion], *, actor: str, request_id: bytes = b""
) -> list[TaskChange | CoordinationError]:
    """As `complete_many`, from an event loop."""
    if any(completion.result is not None for completion in completions):
        await _results_together(completions)
    outcomes = await async_node_client().submit(_complete_commands(completions, actor, request_id))
    return [_change_or_refusal(outcome) for outcome in outcomes]


def _complete_commands(
    completions: Sequence[Completion], actor: str, request_id: bytes
) -> list[commands.TaskComplete]:
    request = id_or_fresh(request_id)
    return [
        commands.TaskComplete(
            request_id=sub_id(request, part),
            actor=actor,
            task_id=str(completion.task_id),
            claim_token=completion.claim_token,
        )
        for part, completion in enumerate(completions)
    ]


def _store_results(completions: Sequence[Completion]) -> None:
    """Store results before the log is asked, the first of a claim wins; the projection takes the winner's."""
    rows = []
    for completion in completions:
        if completion.result is None:
            continue
        try:
            text = as_json_text(completion.result)
        except (ValueError, TypeError) as error:
            raise InvalidError("result", str(error)) from error
        if len(text.encode(errors="surrogatepass")) > RESULT_BYTES_MAX:
            raise InvalidError("result", f"longer than {RESULT_BYTES_MAX} bytes")
        rows.append((completion.task_id, completion.claim_token, text))
    if not rows:
        return
    task_ids, tokens, results = (list(column) for column in zip(*rows, strict=True))
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO coordination_taskresult (task_id, claim_token, result, created_at)"
                " SELECT given.task_id, given.claim_token, given.result::jsonb, now()"
                " FROM unnest(%s::uuid[], %s::bigint[], %s::text[]) AS given (task_id, claim_token, result)"
                " JOIN coordination_distributedtask AS task ON task.id = given.task_id"
                " ON CONFLICT DO NOTHING",
                [task_ids, tokens, results],
            )
    except DatabaseError as error:
        connection.close()
        raise NotAvailable(f"the result cannot be stored: {type(error).__name__}") from error


def _store_results_of_many(groups: list[Sequence[Completion]]) -> list[None]:
    _store_results([completion for group in groups for completion in group])
    return [None] * len(groups)


_results_together = Folded(_store_results_of_many)


def fail(
    task_id: uuid.UUID,
    claim_token: int,
    error_message: str,
    *,
    actor: str,
    retryable: bool = True,
    request_id: bytes = b"",
) -> TaskChange:
    """Report that an attempt failed: pending again after a back-off, or failed for good."""
    command = commands.TaskFail(
        request_id=id_or_fresh(request_id),
        actor=actor,
        task_id=str(task_id),
        claim_token=claim_token,
        error=error_message[:ERROR_MESSAGE_MAX].replace("\0", "�"),
        retryable=retryable,
    )
    return _change(submit([command])[0])


def _change_or_refusal(outcome: Outcome) -> TaskChange | RejectedError:
    return refusal(outcome) if isinstance(outcome, Rejected) else _change(outcome)


def _change(outcome: Outcome) -> TaskChange:
    answer, revision = accepted(outcome, TaskAnswer)
    return TaskChange(
        task_id=uuid.UUID(answer.task_id),
        status=answer.status.value,
        retry_count=answer.retry_count,
        claim_token=answer.claim_token,
        claim_expires_at=in_ms(answer.ttl_ms) if answer.ttl_ms else None,
        run_after=in_ms(answer.run_after_ms) if answer.run_after_ms else None,
        known=answer.known,
        revision=revision,
    )
