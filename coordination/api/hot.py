"""Claims, completions, heartbeats and locks in front of Django: the same bodies and answers as the views of the
same addresses, decoded straight into typed records and folded into few commands to the node.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from coordination import services
from coordination.api.locks import TTL_MOST_S, WAIT_MOST_S, check_key, shown
from coordination.api.refusals import INDEX_HEADER, item, problem_of
from coordination.api.sessions import heartbeat_answer, heartbeats_answer
from coordination.api.tasks import claim_answer, completion_lines, task_change
from coordination.errors import CoordinationError
from gaia_site.bodies import BATCH_LIMIT, too_large
from gaia_site.hot import Handler, HotRequest, HotResponse, Route, decode
from gaia_site.problems import FieldError, Problem

AGENTS = ("agent", "admin")

Name = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"\A[A-Za-z0-9._:/-]+\Z")]
Token = Annotated[int, Meta(ge=1, le=2**63 - 1)]


class Claim(Struct, forbid_unknown_fields=True):
    """Which session wants how many tasks."""

    session_name: Name
    lease_token: Token
    max: Annotated[int, Meta(ge=1, le=100)] = 1
    wait_s: Annotated[float, Meta(ge=0, le=30)] = 0.0
    task_types: Annotated[list[Annotated[str, Meta(min_length=1, max_length=100)]], Meta(max_length=100)] = []


class Complete(Struct, forbid_unknown_fields=True):
    """The claim and the result."""

    claim_token: Token
    result: Any = None


class Completion(Struct, forbid_unknown_fields=True):
    """One of many completions."""

    id: UUID
    claim_token: Token
    result: Any = None


class Completions(Struct, forbid_unknown_fields=True):
    """Many completions, each judged alone."""

    completions: list[msgspec.Raw]


class Progress(Struct, forbid_unknown_fields=True):
    """Progress of one claimed task."""

    task_id: UUID
    claim_token: Token
    percent: Annotated[int, Meta(ge=0, le=100)] = 0
    note: Annotated[str, Meta(max_length=255)] = ""


class Heartbeat(Struct, forbid_unknown_fields=True):
    """Renews a lease."""

    lease_token: Token
    load: Annotated[float, Meta(ge=0, le=1000)] | None = None
    status: str | None = None
    progress: Annotated[list[Progress], Meta(max_length=1000)] = []


class NamedHeartbeat(Heartbeat, forbid_unknown_fields=True, kw_only=True):
    """A heartbeat of one of many sessions."""

    session_name: Name


class Heartbeats(Struct, forbid_unknown_fields=True):
    """Heartbeats of many sessions, each judged alone."""

    heartbeats: list[msgspec.Raw]


class Acquire(Struct, forbid_unknown_fields=True):
    """Who wants a lock, for how long, and how long they wait for it."""

    owner_id: Annotated[str, Meta(min_length=1, max_length=255)]
    ttl_s: Annotated[float, Meta(ge=0.001, le=TTL_MOST_S)]
    wait_s: Annotated[float, Meta(ge=0, le=WAIT_MOST_S)] = 0.0
    metadata: dict[str, Any] = {}


_acquire = msgspec.json.Decoder(Acquire)
_claim = msgspec.json.Decoder(Claim)
_complete = msgspec.json.Decoder(Complete)
_completion = msgspec.json.Decoder(Completion)
_completions = msgspec.json.Decoder(Completions)
_heartbeat = msgspec.json.Decoder(Heartbeat)
_named_heartbeat = msgspec.json.Decoder(NamedHeartbeat)
_heartbeats = msgspec.json.Decoder(Heartbeats)


def _translated(handler: Handler) -> Handler:
    """The handler with coordination's errors as problems."""

    @functools.wraps(handler)
    async def translated(request: HotRequest) -> HotResponse:
        if request.query:
            named = sorted(request.query)
            errors = [FieldError(("query", name), "Unknown parameter. Known here: none.") for name in named]
            raise Problem("validation-error", f"query.{named[0]}: unknown parameter.", errors=errors)
        try:
            return await handler(request)
        except CoordinationError as error:
            raise problem_of(error) from error

    return translated


def _answer(body: Any, revision: int) -> HotResponse:
    return HotResponse(200, body, {INDEX_HEADER: str(revision)})


@_translated
async def claim(request: HotRequest) -> HotResponse:
    """`POST tasks/claim`."""
    wish = _decoded(request, _claim)
    claimed = await services.claim_async(
        wish.session_name,
        wish.lease_token,
        actor=request.principal.actor,
        max_tasks=wish.max,
        task_types=tuple(wish.task_types),
        wait_s=wish.wait_s,
        request_id=request.command_id,
    )
    return _answer(claim_answer(claimed), claimed.revision)


@_translated
async def complete(request: HotRequest) -> HotResponse:
    """`POST tasks/{id}/complete`."""
    task_id = _uuid(request.path_values["id"])
    wish = _decoded(request, _complete)
    done = await services.complete_async(
        task_id, wish.claim_token, wish.result, actor=request.principal.actor, request_id=request.command_id
    )
    return _answer(task_change(done), done.revision)


@_translated
async def complete_many(request: HotRequest) -> HotResponse:
    """`POST tasks/complete`."""
    parts = _bounded(_decoded(request, _completions).completions)
    good, bad = _each(parts, _completion, ("body", "completions"))
    wishes = [services.Completion(one.id, one.claim_token, one.result) for one in good.values()]
    answers = (
        await services.complete_many_async(
            wishes, actor=request.principal.actor, request_id=request.command_id
        )
        if wishes
        else []
    )
    lines = dict(zip(good, completion_lines(wishes, answers), strict=True))
    lines |= {place: item(problem) for place, problem in bad.items()}
    newest = max((getattr(answer, "revision", 0) for answer in answers), default=0)
    return _answer([lines[place] for place in sorted(lines)], newest)


@_translated
async def heartbeat(request: HotRequest) -> HotResponse:
    """`POST sessions/{name}/heartbeat`."""
    wish = _decoded(request, _heartbeat)
    beat = _beat(request.path_values["name"], wish)
    (done,) = await services.record_heartbeats_async([beat], actor=request.principal.actor)
    if isinstance(done, CoordinationError):
        raise done
    return _answer(heartbeat_answer(done), done.revision)


@_translated
async def heartbeats(request: HotRequest) -> HotResponse:
    """`POST heartbeats`."""
    parts = _bounded(_decoded(request, _heartbeats).heartbeats)
    good, bad = _each(parts, _named_heartbeat, ("body", "heartbeats"))
    beats = [_beat(one.session_name, one) for one in good.values()]
    done = await services.record_heartbeats_async(beats, actor=request.principal.actor) if beats else []
    answer = heartbeats_answer(beats, done)
    answer["rejected"] += [
        {"session_name": _name_in(parts[place]), "type": problem.slug, "detail": problem.detail}
        for place, problem in bad.items()
    ]
    return _answer(answer, max((one.revision for one in done), default=0))


@_translated
async def acquire(request: HotRequest) -> HotResponse:
    """`POST locks/{key}/acquire`: here because it may wait, and must leave the queue with its client."""
    key = request.path_values["key"]
    check_key(key)
    wish = _decoded(request, _acquire)
    held = await services.acquire_lock_async(
        key,
        wish.owner_id,
        ttl_s=wish.ttl_s,
        wait_s=wish.wait_s,
        metadata=wish.metadata,
        actor=request.principal.actor,
        request_id=request.command_id,
    )
    return _answer(shown(held), held.revision)


def routes() -> tuple[Route, ...]:
    """What is answered in front of Django."""
    base = "/api/v1"
    return (
        Route("POST", f"{base}/tasks/claim", claim, AGENTS, may_wait=True),
        Route("POST", f"{base}/tasks/complete", complete_many, AGENTS),
        Route("POST", f"{base}/heartbeats", heartbeats, AGENTS),
        Route("POST", f"{base}/tasks/{{id}}/complete", complete, AGENTS),
        Route("POST", f"{base}/sessions/{{name}}/heartbeat", heartbeat, AGENTS),
        Route("POST", f"{base}/locks/{{key}}/acquire", acquire, AGENTS, may_wait=True),
    )


def _decoded(request: HotRequest, decoder: msgspec.json.Decoder) -> Any:
    if request.content_type not in ("", "application/json"):
        raise Problem("unsupported-media-type", f"Send application/json, not {request.content_type[:100]}.")
    return decode(request.body, decoder)


def _bounded(parts: list[msgspec.Raw]) -> list[msgspec.Raw]:
    if len(parts) > BATCH_LIMIT:
        raise too_large("The batch", f"{BATCH_LIMIT:,} items")
    return parts


def _each(
    parts: list[msgspec.Raw], decoder: msgspec.json.Decoder, loc: tuple[str, ...]
) -> tuple[dict[int, Any], dict[int, Problem]]:
    """The parts of a batch that are valid by their place, and the problems of the others."""
    good: dict[int, Any] = {}
    bad: dict[int, Problem] = {}
    for place, part in enumerate(parts):
        try:
            good[place] = decode(bytes(part), decoder)
        except Problem as problem:
            errors = [FieldError((*loc, place, *error.loc[1:]), error.msg) for error in problem.errors]
            bad[place] = Problem(problem.slug, problem.detail, errors=errors)
    return good, bad


def _beat(name: str, wish: Heartbeat) -> services.Heartbeat:
    return services.Heartbeat(
        session_name=name,
        lease_token=wish.lease_token,
        load=wish.load,
        status=wish.status,
        progress=tuple(
            services.Progress(step.task_id, step.claim_token, step.percent, step.note)
            for step in wish.progress
        ),
    )


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise Problem("not-found", "There is nothing at this address.") from error


def _name_in(part: msgspec.Raw) -> str | None:
    """The name in a heartbeat that could not be accepted, so that the client can tell which one it was."""
    try:
        one = msgspec.json.decode(bytes(part))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    name = one.get("session_name") if isinstance(one, dict) else None
    return name if isinstance(name, str) else None
