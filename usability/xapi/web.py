"""HTTP for the resources of the store: who calls, in which version, with which parameters, and what every answer has.

A caller sends HTTP Basic with any user name and an API key as password, or the key as Bearer. `metrics:write` lets it
write, `metrics:read` lets it read. Errors are problems as everywhere in the API.

xAPI 1.0.3, part three, sections 1, 3 and 4; IEEE 9274.1.1, section 4.1.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar
from urllib.parse import parse_qsl

import msgspec
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt

from gaia_site import cors, throttling
from gaia_site.bodies import LIMIT_BYTES, check_declared_size, inflate, too_large
from gaia_site.keys import Principal, bearer, principal_of
from gaia_site.models import Scope
from gaia_site.problems import FieldError, Problem, from_exception, response, validation
from usability.xapi import versions
from usability.xapi.values import Wrong
from usability.xapi.versions import Version

ALLOWED_HEADERS = (
    "Authorization, Content-Type, Content-Encoding, Content-Length, If-Match, If-None-Match, Accept-Language, "
    "X-Experience-API-Version"
)
EXPOSED_HEADERS = (
    "ETag, Last-Modified, X-Experience-API-Version, X-Experience-API-Consistent-Through, X-Gaia-Metrics, "
    f"{cors.EXPOSED_HEADERS}"
)
PARAMETERS_LIMIT = 50
READING = frozenset({"GET", "HEAD"})
WRITING = frozenset({"PUT", "POST", "DELETE"})

# In the alternate request syntax these stand in the form and mean the headers of those names (1.0.3, 1.3).
_FORM_HEADERS = {
    name.lower()
    for name in (
        "Authorization",
        versions.HEADER,
        "Content-Type",
        "Content-Length",
        "If-Match",
        "If-None-Match",
    )
} | {"accept", "accept-language", "content-encoding"}


@dataclass(frozen=True)
class Call:
    """One request, taken apart. `headers` have lower-case names."""

    method: str
    path: str
    base_url: str
    parameters: dict[str, str]
    headers: dict[str, str]
    body: bytes
    request: HttpRequest
    principal: Principal | None = None
    version: Version = Version.V1
    is_form: bool = False

    @property
    def caller(self) -> Principal:
        """Who calls."""
        assert self.principal is not None
        return self.principal

    @property
    def app_name(self) -> str:
        """Whose store: that of the key's app."""
        return self.caller.app_name

    @property
    def content_type(self) -> str:
        """The media type of the body without parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class Allowed:
    """The parameters of one method: all it knows, and those it needs."""

    known: frozenset[str] = field(default_factory=frozenset)
    required: tuple[str, ...] = ()


@method_decorator(csrf_exempt, name="dispatch")  # no cookie is looked at: there is nothing to forge
class Resource(View):
    """One address. A subclass has `allowed`, and a method `do_get`, `do_put` … for each of its names."""

    allowed: ClassVar[Mapping[str, Allowed]] = {}
    is_public: ClassVar[bool] = False

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """The one way through: every answer, refusals included, has its headers."""
        if request.method == "OPTIONS":
            return self._preflight(request)
        call, extra = None, {}
        try:
            call = _told_in_form(_call_of(request))
            call = self._known(call, extra)
            answer = self._answered(call)
        except Wrong as wrong:
            answer = response(validation([FieldError(_located(wrong.loc), wrong.msg)]), request.path)
        except Exception as error:  # noqa: BLE001  the edge of the request: whatever it is becomes an answer
            answer = response(from_exception(error), request.path)
        if answer.status_code == 401:
            answer.headers["WWW-Authenticate"] = 'Basic realm="gaia", charset="UTF-8"'
        version = call.version if call is not None else Version.V1
        answer.headers.setdefault(versions.HEADER, version.value)
        answer.headers.setdefault("Cache-Control", "no-store")
        for name, value in extra.items():
            answer.headers[name] = value
        self.finish(call, answer)
        if request.method == "HEAD":
            answer.headers["Content-Length"] = str(len(answer.content))
            answer.content = b""
        return answer

    def finish(self, call: Call | None, answer: HttpResponse) -> None:
        """Add what all answers of this resource have; `call` None: it could not be read."""

    # ------------------------------------------------------------ steps

    def _known(self, call: Call, extra: dict[str, str]) -> Call:
        """The call with its caller and its version. Raises a Problem for a caller who may not call."""
        if self.is_public and "authorization" not in call.headers:
            return call
        principal = _caller(call)
        version = versions.asked_for(call.headers.get(versions.HEADER.lower()))
        call = replace(call, principal=principal, version=version or versions.last_of(principal.subject))
        allowance = throttling.take("default", principal.subject)
        extra |= allowance.headers
        allowance.check()
        origin = call.headers.get("origin")
        cors.check(principal, origin)
        if page := cors.headers(principal, origin):
            extra |= page | {"Access-Control-Expose-Headers": EXPOSED_HEADERS}
        if principal.kind != "key":
            raise Problem("permission-denied", "A session token only writes its own student's metrics.")
        if self.is_public:
            return call
        if version is None:
            raise _refused(("header", versions.HEADER), f"needed, one of {', '.join(versions.SPOKEN)}", call)
        versions.remember(principal.subject, version)
        return call

    def _answered(self, call: Call) -> HttpResponse:
        """The answer of the method."""
        method = "GET" if call.method == "HEAD" else call.method
        allowed = self.allowed.get(method)
        if allowed is None:
            raise Problem(
                "method-not-allowed",
                f"{call.method[:20]} is not a method of this resource.",
                headers={"Allow": ", ".join(self.allowed)},
            )
        if not self.is_public:
            call.caller.demand(Scope.METRICS_READ if method == "GET" else Scope.METRICS_WRITE)
        for name in call.parameters:
            if name not in allowed.known:
                known = ", ".join(sorted(allowed.known)) or "none"
                raise Wrong(("query", name[:60]), f"not a parameter here; known: {known}")
        for name in allowed.required:
            if not call.parameters.get(name):
                raise Wrong(("query", name), "required")
        return getattr(self, f"do_{method.lower()}")(call)

    def _preflight(self, request: HttpRequest) -> HttpResponse:
        """A browser's question before it sends; asked without credentials."""
        methods = [*self.allowed, "HEAD"]
        headers = {"Allow": ", ".join(methods)} | cors.preflight_headers(
            request.headers.get("Origin"), methods
        )
        if "Access-Control-Allow-Headers" in headers:
            headers["Access-Control-Allow-Headers"] = ALLOWED_HEADERS
        return HttpResponse(status=204, headers=headers)


def _call_of(request: HttpRequest) -> Call:
    check_declared_size(request.META.get("CONTENT_LENGTH"))
    body = request.body
    if len(body) > LIMIT_BYTES:
        raise too_large()
    headers = {name.lower(): value for name, value in request.headers.items()}
    try:
        told = request.META.get("QUERY_STRING", "")
        pairs = parse_qsl(told, keep_blank_values=True, max_num_fields=PARAMETERS_LIMIT)
    except ValueError as error:
        raise Wrong(("query",), f"more than {PARAMETERS_LIMIT} parameters") from error
    return Call(
        method=request.method or "",
        path=request.path,
        base_url=request.build_absolute_uri("/xapi/"),
        parameters=_once_each(pairs, "query"),
        headers=headers,
        body=inflate(body, headers.get("content-encoding", "")),
        request=request,
    )


def _once_each(pairs: list[tuple[str, str]], where: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise Wrong((where, name[:60]), "given twice")
        if "\0" in value:
            raise Wrong((where, name[:60]), "must not contain the NUL character")
        found[name] = value
    return found


def _told_in_form(call: Call) -> Call:
    """The alternate request syntax of 1.0.3: POST ?method=X with everything else in a form. 2.0 does not have it."""
    method = call.parameters.get("method")
    if method is None:
        return call
    spoken = versions.asked_for(call.headers.get(versions.HEADER.lower()))
    if spoken is Version.V2 or call.method != "POST" or method not in READING | WRITING:
        raise _refused(("query", "method"), "not a request of the alternate syntax", call)
    if len(call.parameters) > 1:
        raise _refused(("query",), "only method may stand in the address of the alternate syntax", call)
    if call.content_type != "application/x-www-form-urlencoded" and call.body:
        raise _refused(("header", "content-type"), "must be application/x-www-form-urlencoded here", call)
    try:
        text = call.body.decode()
        pairs = parse_qsl(
            text, keep_blank_values=True, strict_parsing=bool(text), max_num_fields=PARAMETERS_LIMIT
        )
    except ValueError as error:
        raise _refused(("body",), "not a form", call) from error
    form = _once_each(pairs, "body")
    content = form.pop("content", None)
    if content is None and method in ("PUT", "POST"):
        raise _refused(("body", "content"), "required", call)
    told = {name.lower(): form.pop(name) for name in list(form) if name.lower() in _FORM_HEADERS}
    headers = {name: value for name, value in call.headers.items() if name != "content-type"} | told
    if content is not None:
        headers.setdefault("content-type", "application/json")
    return replace(
        call, method=method, parameters=form, headers=headers, body=(content or "").encode(), is_form=True
    )


def _refused(loc: tuple[str | int, ...], msg: str, call: Call) -> Problem:
    """A refusal before the call is understood, in the version of its header where that is one of ours."""
    spoken = versions.asked_for(call.headers.get(versions.HEADER.lower())) or call.version
    problem = validation([FieldError(loc, msg)])
    problem.headers[versions.HEADER] = spoken.value
    return problem


def _located(loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    return loc or ("body",)


def _caller(call: Call) -> Principal:
    """The caller by its key. Raises not-authenticated; who has no key is counted by address."""
    try:
        return principal_of(_secret(call.headers.get("authorization", "")))
    except Problem as problem:
        if problem.status == 401:
            throttling.take("anonymous", f"address:{call.request.META.get('REMOTE_ADDR', '')}").check()
        raise


def _secret(authorization: str) -> str:
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            _, colon, password = base64.b64decode(rest.strip(), validate=True).decode().partition(":")
        except (binascii.Error, ValueError) as error:
            raise Problem("not-authenticated", "Not the credentials of HTTP Basic.") from error
        if not colon:
            raise Problem("not-authenticated", "HTTP Basic needs a user name, a colon and an API key.")
        return password
    secret = bearer(authorization)
    if secret is None:
        raise Problem(
            "not-authenticated", "Send HTTP Basic with an API key as password, or the key as Bearer."
        )
    return secret


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> HttpResponse:
    """A JSON answer."""
    return HttpResponse(
        msgspec.json.encode(value),
        status=status,
        content_type="application/json",
        headers=dict(headers or {}),
    )


def done(headers: Mapping[str, str] | None = None) -> HttpResponse:
    """204."""
    return HttpResponse(status=204, headers=dict(headers or {}))
