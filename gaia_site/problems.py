"""Errors of the API as RFC 9457 problems: every kind by name, and the one place that renders them.

A view or a handler raises :class:`Problem`. DRF's exception handler, Django's own error pages under
``/api/`` and the routes in front of Django all turn it into the same bytes through :func:`render`.
The slugs are a contract with clients: add, never rename.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import DataError, InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from django.views import csrf, defaults
from rest_framework import exceptions as drf

log = logging.getLogger("gaia.api")

MEDIA_TYPE = "application/problem+json"
API_PREFIXES = ("/api/", "/xapi/", "/mcp")

Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem: its stable slug, its HTTP status, a title that never varies."""

    slug: str
    status: int
    title: str
    retry_after_s: int | None = None


KINDS: dict[str, Kind] = {
    kind.slug: kind
    for kind in (
        Kind("validation-error", 400, "The request is not valid"),
        Kind("not-authenticated", 401, "No valid credentials"),
        Kind("permission-denied", 403, "Not allowed"),
        Kind("not-found", 404, "Not found"),
        Kind("method-not-allowed", 405, "Method not allowed"),
        Kind("request-timeout", 408, "The body did not arrive in time"),
        Kind("conflict", 409, "Conflict with the present state"),
        Kind("lease-expired", 409, "The lease is over or not yours"),
        Kind("stale-token", 412, "The token is no longer the current one"),
        Kind("precondition-failed", 412, "A condition of the request does not hold"),
        Kind("payload-too-large", 413, "Payload too large"),
        Kind("unsupported-media-type", 415, "Unsupported media type"),
        Kind("idempotency-mismatch", 422, "The idempotency key was used with another body"),
        Kind("rate-limited", 429, "Too many requests", retry_after_s=1),
        Kind("internal-error", 500, "Internal error"),
        Kind("no-leader", 503, "The cluster has no leader", retry_after_s=1),
        Kind("overloaded", 503, "Overloaded or a part is unavailable", retry_after_s=1),
    )
}


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong at one place of the request; `loc` starts with body, query, path or header."""

    loc: Location
    msg: str

    def as_json(self) -> dict[str, Any]:
        """The entry of the problem's `errors` list."""
        return {"loc": list(self.loc), "msg": self.msg}


class Problem(Exception):
    """A refusal the client shall see.

    `slug` is one of :data:`KINDS`; `errors` name places in the request; `extra` members stand beside
    the standard ones in the body (a held lock's `owner_id`); `headers` go into the answer.
    """

    def __init__(
        self,
        slug: str,
        detail: str = "",
        *,
        errors: Sequence[FieldError] = (),
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        self.kind = KINDS[slug]
        self.detail = detail or self.kind.title + "."
        self.errors = tuple(errors)
        self.extra = dict(extra or {})
        self.headers = dict(headers or {})
        self.retry_after_s = retry_after_s if retry_after_s is not None else self.kind.retry_after_s
        super().__init__(f"{slug}: {self.detail}")

    @property
    def slug(self) -> str:
        """The stable name of this kind of problem."""
        return self.kind.slug

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.kind.status

    def as_json(self, instance: str = "") -> dict[str, Any]:
        """The body, as RFC 9457 section 3 lays it out."""
        body: dict[str, Any] = {
            "type": self.slug,
            "title": self.kind.title,
            "status": self.status,
            "detail": self.detail,
        }
        if instance:
            body["instance"] = instance
        if self.errors:
            body["errors"] = [error.as_json() for error in self.errors]
        return body | {name: value for name, value in self.extra.items() if name not in body}


def invalid(loc: Location, msg: str) -> Problem:
    """The validation problem of a single place."""
    return Problem("validation-error", f"{'.'.join(map(str, loc))}: {msg}", errors=[FieldError(loc, msg)])


@dataclass(frozen=True, slots=True)
class Rendered:
    """An answer ready to send: status, headers (latin-1 text), body bytes."""

    status: int
    headers: dict[str, str]
    body: bytes


def render(problem: Problem, instance: str = "") -> Rendered:
    """The bytes of a problem; 429 and 503 always carry Retry-After (whole seconds, at least 1)."""
    body = msgspec.json.encode(problem.as_json(instance))
    headers = {"Content-Type": MEDIA_TYPE, "Content-Length": str(len(body)), "Cache-Control": "no-store"}
    if problem.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(problem.retry_after_s + 0.499)))
    if problem.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="gaia"'
    return Rendered(problem.status, headers | problem.headers, body)


def response(problem: Problem, instance: str = "") -> HttpResponse:
    """The Django response of a problem."""
    rendered = render(problem, instance)
    return HttpResponse(rendered.body, status=rendered.status, headers=rendered.headers)


def field_errors(detail: Any, loc: Location) -> Iterator[FieldError]:
    """Each leaf of DRF's nested error detail with the path that leads to it.

    DRF keys the errors of a whole object `non_field_errors`; that name is no place in the body.
    """
    if isinstance(detail, Mapping):
        for name, inner in detail.items():
            yield from field_errors(inner, loc if name == "non_field_errors" else (*loc, name))
    elif isinstance(detail, list | tuple):
        for index, inner in enumerate(detail):
            nested = isinstance(inner, Mapping | list | tuple)
            yield from field_errors(inner, (*loc, index) if nested else loc)
    else:
        yield FieldError(loc, str(detail))


def validation(errors: Sequence[FieldError]) -> Problem:
    """The validation problem that lists `errors`."""
    first = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return Problem("validation-error", f"{'.'.join(map(str, first.loc))}: {first.msg}{more}", errors=errors)


def from_exception(error: Exception) -> Problem:
    """The problem an exception means to a client; what is not foreseen is an internal error, logged."""
    match error:
        case Problem():
            return error
        case drf.ValidationError():
            return validation(list(field_errors(error.detail, ("body",))))
        case drf.NotAuthenticated() | drf.AuthenticationFailed():
            return Problem("not-authenticated", str(error.detail))
        case drf.PermissionDenied():
            return Problem("permission-denied", str(error.detail))
        case PermissionDenied():
            return Problem("permission-denied", str(error))
        case Http404() | drf.NotFound():
            return Problem("not-found", "There is no such object, or it is not yours.")
        case drf.MethodNotAllowed():
            return Problem("method-not-allowed", str(error.detail))
        case drf.UnsupportedMediaType():
            return Problem("unsupported-media-type", str(error.detail))
        case drf.ParseError():
            return invalid(("body",), str(error.detail))
        case drf.Throttled():
            return Problem("rate-limited", str(error.detail), retry_after_s=error.wait)
        case RequestDataTooBig():
            return Problem("payload-too-large", str(error))
        case SuspiciousOperation():
            return invalid(("request",), "The request was refused as malformed.")
        case DataError():
            log.warning("value_refused_by_database", exc_info=error)
            return invalid(("body",), "A value cannot be stored.")
        case OperationalError() | InterfaceError():
            log.error("database_unavailable", exc_info=error)
            return Problem("overloaded", "The database is not available; nothing was changed.")
        case _:
            log.error("request_failed", exc_info=error)
            return Problem("internal-error", "The request failed on our side and was logged.")


def exception_handler(error: Exception, context: Mapping[str, Any]) -> HttpResponse:
    """DRF's `EXCEPTION_HANDLER`: every exception of a view becomes a problem."""
    request = context["request"]
    answer = response(from_exception(error), request.path)
    if isinstance(error, drf.MethodNotAllowed):
        answer.headers["Allow"] = ", ".join(context["view"].allowed_methods)
    return answer


def is_api(request: HttpRequest) -> bool:
    """Whether errors of this request are problems rather than pages."""
    return request.path.startswith(API_PREFIXES)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """`handler400`."""
    if is_api(request):
        return response(from_exception(exception), request.path)
    return defaults.bad_request(request, exception)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """`handler403`."""
    if is_api(request):
        return response(Problem("permission-denied"), request.path)
    return defaults.permission_denied(request, exception)


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """`handler404`."""
    if is_api(request):
        return response(Problem("not-found", "There is nothing at this address."), request.path)
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    """`handler500`; Django has logged the exception already."""
    if is_api(request):
        return response(Problem("internal-error"), request.path)
    return defaults.server_error(request)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """`CSRF_FAILURE_VIEW`."""
    if is_api(request):
        return response(Problem("permission-denied", f"CSRF check failed: {reason}"), request.path)
    return csrf.csrf_failure(request, reason=reason)
