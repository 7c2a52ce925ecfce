"""The few calls that come thousands of times a second, answered in front of Django.

Django starts and joins a thread for each request, which costs more than these calls themselves. Here an
exact method and address leads to a coroutine; authentication, limits, errors and page origins are the same
functions that the rest of the API uses. Everything else goes on to Django, with the size of its body
checked on the way.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from django.http import HttpResponse

from gaia_site import cors, idempotency, throttling
from gaia_site.background import in_database
from gaia_site.bodies import LIMIT_BYTES, check_declared_size, check_text, inflate, too_large
from gaia_site.keys import Principal, bearer, principal_of_async
from gaia_site.problems import FieldError, Problem, from_exception, invalid, render, validation

log = logging.getLogger("gaia.api")

BODY_TIMEOUT_S = 30.0

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class HotRequest:
    """One request, authenticated, its body read and inflated.

    `headers` have lower-case names; `query` keeps the last of repeated parameters; `path_values` are the
    parts of the address the route names.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    principal: Principal
    path_values: dict[str, str] = field(default_factory=dict)

    @property
    def content_type(self) -> str:
        """The media type without its parameters, lower case; empty where none is given."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @cached_property
    def attempt(self) -> idempotency.Attempt | None:
        """What its Idempotency-Key stands for; None where it has none."""
        value = self.headers.get("idempotency-key")
        key = idempotency.read_key({idempotency.HEADER: value} if value else {})
        if key is None:
            return None
        digest = hashlib.sha256(self.body).digest()
        return idempotency.Attempt(self.principal.subject, self.method, self.path[:600], key, digest)

    @cached_property
    def command_id(self) -> bytes:
        """The id of the command this request stands for in the replicated log (16 bytes)."""
        return self.attempt.request_id if self.attempt else idempotency.new_request_id()


@dataclass(frozen=True, slots=True)
class HotResponse:
    """An answer: `body` is bytes ready to send, or a value to encode as JSON."""

    status: int
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)


Handler = Callable[[HotRequest], Awaitable[HotResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One hot call.

    `path` is a template with at most one `{name}`; `policy` the rate limit; `is_open_to_pages`: browsers of
    other origins may call it, and it takes its key as `?key=` as well (sendBeacon cannot set headers).
    `yields_to_django`: a browser's login goes to Django's view of the same address, which checks CSRF.
    `keeps_answers`: the first answer to an Idempotency-Key is kept, as Django's views keep it; False where the
    handler knows repetitions itself. `may_wait`: it can take long, and is given up when the client hangs up.
    """

    method: str
    path: str
    handler: Handler
    scopes: tuple[str, ...]
    policy: str = "hot"
    is_open_to_pages: bool = False
    yields_to_django: bool = True
    keeps_answers: bool = True
    may_wait: bool = False

    @property
    def pattern(self) -> re.Pattern[str]:
        """The address, with or without a slash at its end."""
        return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+)", re.escape(self.path)) + "/?")


class Hot:
    """The ASGI application in front of `django`."""

    def __init__(self, django: Application, routes: tuple[Route, ...]) -> None:
        self._django = django
        self._routes = [(route, route.pattern) for route in routes]
        self._exact = {(route.method, route.path): route for route in routes if "{" not in route.path}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one HTTP request."""
        path = scope["path"]
        if scope["type"] != "http" or not path.startswith(("/api/", "/xapi/")):
            await self._django(scope, receive, send)
            return
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        route, values = self._route(scope["method"], path)
        try:
            if scope["method"] == "OPTIONS" and (asked := self._preflighted(headers, path)) is not None:
                await _send(send, await _preflight(asked, headers))
            elif route is not None and not _yields(route, headers):
                await self._serve(route, values, scope, headers, receive, send)
            else:
                check_declared_size(headers.get("content-length"))
                await self._django(scope, _bounded(receive), send)
        except Problem as problem:
            await _send_problem(send, problem, path)

    def _route(self, method: str, path: str) -> tuple[Route | None, dict[str, str]]:
        exact = self._exact.get((method, path.rstrip("/")))
        if exact is not None:
            return exact, {}
        if method == "POST":
            for route, pattern in self._routes:
                match = pattern.fullmatch(path)
                if match and match.groupdict():
                    return route, match.groupdict()
        return None, {}

    def _preflighted(self, headers: Mapping[str, str], path: str) -> Route | None:
        route, _ = self._route(headers.get("access-control-request-method", ""), path)
        return route if route is not None and route.is_open_to_pages else None

    async def _serve(
        self,
        route: Route,
        values: dict[str, str],
        scope: Scope,
        headers: dict[str, str],
        receive: Receive,
        send: Send,
    ) -> None:
        extra: dict[str, str] = {}
        try:
            query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
            principal = await _authenticate(route, headers, query, scope)
            allowance = await throttling.take_async(route.policy, principal.subject)
            extra |= allowance.headers
            if route.is_open_to_pages:
                cors.check(principal, headers.get("origin"))
                extra |= cors.headers(principal, headers.get("origin"))
            allowance.check()
            principal.demand(*route.scopes)
            body = await read_body(receive, headers)
            request = HotRequest(
                scope["method"], scope["path"].rstrip("/"), query, headers, body, principal, values
            )
            work = (
                _once(route, request) if route.keeps_answers and request.attempt else route.handler(request)
            )
            answer = await (_unless_gone(work, receive) if route.may_wait else work)
        except ClientGone:
            return
        except Exception as error:  # noqa: BLE001  the edge of the request: whatever it is becomes an answer
            problem = from_exception(error)
            if problem.status == 401 and route.is_open_to_pages:
                extra |= await cors.refusal_headers_async(headers.get("origin"))
            await _send_problem(send, problem, scope["path"], extra)
            return
        await _send(send, answer, extra)


async def _once(route: Route, request: HotRequest) -> HotResponse:
    """The first answer to this request's Idempotency-Key, made now or before."""
    assert request.attempt is not None
    begun = await idempotency.begin_async(request.attempt)
    if isinstance(begun, HttpResponse):
        return HotResponse(begun.status_code, begun.content, dict(begun.items()))
    try:
        answer = await route.handler(request)
    except asyncio.CancelledError:
        # Nobody hears the answer: the key is free, and its commands keep their ids in the log.
        await asyncio.shield(in_database(idempotency.abandon, begun))
        raise
    except Exception as error:  # noqa: BLE001  the answer may be a refusal, which is kept as well
        rendered = render(from_exception(error), request.path)
        answer = HotResponse(rendered.status, rendered.body, rendered.headers)
    answer = HotResponse(answer.status, _encoded(answer.body), answer.headers)
    headers = {"Content-Type": "application/json"} | answer.headers
    kept = HttpResponse(answer.body, status=answer.status, headers=headers)
    await in_database(idempotency.finish, begun, kept)
    return answer


class ClientGone(Exception):
    """The client hung up: nobody waits for the answer."""


async def _unless_gone(work: Awaitable[HotResponse], receive: Receive) -> HotResponse:
    """The result of `work`, which is cancelled when the client hangs up: a claim must not be granted to
    somebody who has left. Quick work never pays for the watching.
    """
    working = asyncio.ensure_future(work)
    done, _ = await asyncio.wait({working}, timeout=0.25)
    if done:
        return working.result()
    leaving = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _authenticate(
    route: Route, headers: Mapping[str, str], query: Mapping[str, str], scope: Scope
) -> Principal:
    try:
        return await principal_of_async(_credential(route, headers, query))
    except Problem as problem:
        if problem.status == 401:
            address = (scope.get("client") or ("",))[0]
            (await throttling.take_async("anonymous", f"address:{address}")).check()
        raise


def _credential(route: Route, headers: Mapping[str, str], query: Mapping[str, str]) -> str:
    secret = bearer(headers.get("authorization", ""))
    if secret is None and route.is_open_to_pages:
        secret = query.get("key")
    if secret is None:
        raise Problem("not-authenticated", "Send Authorization: Bearer <api key>.")
    return secret


async def read_body(receive: Receive, headers: Mapping[str, str]) -> bytes:
    """The whole inflated body. Raises payload-too-large, request-timeout; ClientGone if it never ends."""
    check_declared_size(headers.get("content-length"))
    bounded = _bounded(receive)
    chunks: list[bytes] = []
    more = True
    while more:
        message = await bounded()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunks.append(message.get("body", b""))
        more = message.get("more_body", False)
    return inflate(chunks[0] if len(chunks) == 1 else b"".join(chunks), headers.get("content-encoding", ""))


def decode(body: bytes, decoder: msgspec.json.Decoder) -> Any:
    """A typed body; the error says where and what, as everywhere in the API."""
    try:
        value = decoder.decode(body)
    except RecursionError as error:
        raise invalid(("body",), "Nested too deep.") from error
    except msgspec.ValidationError as error:
        raise validation([_located(str(error))]) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise invalid(("body",), f"Not valid JSON: {error}.") from error
    if b"\\u0000" in body:
        check_text(body, msgspec.json.decode(body))
    return value


_PATH_END = re.compile(r"^(?P<msg>.*?)(?: - at `\$(?P<path>[^`]*)`)?$", re.DOTALL)
_PATH_PART = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\[\.\.\.\]")
_FIELD = re.compile(r"^Object (?P<what>missing required|contains unknown) field `(?P<name>.*)`$", re.DOTALL)
_FIELD_MSG = {"missing required": "This field is required.", "contains unknown": "Unknown field."}


def _located(text: str) -> FieldError:
    """The "… - at `$.completions[3].id`" as a place in the body; a field that is missing or unknown is the place."""
    match = _PATH_END.match(text)
    path = (match and match["path"]) or ""
    loc = tuple(int(index) if index else name for name, index in _PATH_PART.findall(path) if index or name)
    msg = match["msg"] if match else text
    field = _FIELD.match(msg)
    if field is not None:
        return FieldError(("body", *loc, field["name"]), _FIELD_MSG[field["what"]])
    return FieldError(("body", *loc), msg + ".")


def _bounded(receive: Receive) -> Receive:
    """`receive` that refuses a body which is longer than the limit, whatever its Content-Length said, or takes
    longer than BODY_TIMEOUT_S to arrive.
    """
    size_bytes = 0
    ends_s = asyncio.get_running_loop().time() + BODY_TIMEOUT_S
    is_whole = False

    async def bounded() -> dict[str, Any]:
        nonlocal size_bytes, is_whole
        if is_whole:
            return await receive()  # only the client's leaving can follow, and that has no deadline
        try:
            async with asyncio.timeout_at(ends_s):
                message = await receive()
        except TimeoutError as error:
            detail = f"The body took longer than {BODY_TIMEOUT_S:.0f} s."
            raise Problem("request-timeout", detail) from error
        size_bytes += len(message.get("body", b""))
        if size_bytes > LIMIT_BYTES:
            raise too_large()
        is_whole = not message.get("more_body", False)
        return message

    return bounded


def _yields(route: Route, headers: Mapping[str, str]) -> bool:
    return route.yields_to_django and "authorization" not in headers


async def _preflight(route: Route, headers: Mapping[str, str]) -> HotResponse:
    allowed = await cors.preflight_headers_async(headers.get("origin"), [route.method, "OPTIONS"])
    return HotResponse(204, headers={"Allow": f"{route.method}, OPTIONS"} | allowed)


async def _send_problem(
    send: Send, problem: Problem, instance: str, extra: Mapping[str, str] | None = None
) -> None:
    rendered = render(problem, instance)
    await _send(send, HotResponse(rendered.status, rendered.body, rendered.headers), extra)


def _encoded(body: Any) -> bytes:
    return body if isinstance(body, bytes) else msgspec.json.encode(body)


async def _send(send: Send, answer: HotResponse, extra: Mapping[str, str] | None = None) -> None:
    body = _encoded(answer.body)
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"} if body else {}
    headers |= {**(extra or {}), **answer.headers, "Content-Length": str(len(body))}
    await send(
        {
            "type": "http.response.start",
            "status": answer.status,
            "headers": [
                (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


def application(django: Application) -> Hot:
    """The site's HTTP application: hot routes of the parts that are switched on, then `django`."""
    from gaia_site.api.routes import hot_routes  # noqa: PLC0415  it imports the routes, which import this

    return Hot(django, hot_routes())
