"""The class behind every call of the API that Django serves.

An endpoint names its scopes and has one method a verb. Here, once for all: who calls, how often, with
which Idempotency-Key, from which page; and what every answer carries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from gaia_site import cors, idempotency, throttling
from gaia_site.bodies import BATCH_LIMIT, too_large
from gaia_site.keys import Principal, requires
from gaia_site.problems import Problem, invalid

UNSAFE = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class _Replay(Exception):
    """Carries the first answer past the method that would work again."""

    def __init__(self, answer: HttpResponse) -> None:
        self.answer = answer


class StrictSerializer(serializers.Serializer):
    """A serializer that refuses fields it does not know, so that a misspelt option never passes silently."""

    def to_internal_value(self, data: Any) -> Any:
        """Checks the names before the values."""
        if isinstance(data, Mapping):
            unknown = [name for name in data if name not in self.fields]
            if unknown:
                raise serializers.ValidationError(
                    {str(name): f"Unknown field. Known here: {', '.join(self.fields)}." for name in unknown}
                )
        return super().to_internal_value(data)


class Endpoint(APIView):
    """One address of the API.

    `scopes`: verb to the scopes of which a caller needs one (an empty tuple: any known caller).
    `is_open_to_pages`: browsers of other origins may call it, with a key that lists their origin.
    `is_idempotent`: False where POST changes nothing.
    """

    scopes: ClassVar[Mapping[str, Sequence[str]]] = {}
    is_open_to_pages: ClassVar[bool] = False
    is_idempotent: ClassVar[bool] = True
    schema_errors: ClassVar[Sequence[int]] = ()

    _started: idempotency.Started | None = None
    _allowance: throttling.Allowance | None = None

    # What a method may ask ----------------------------------------------------------------------

    @property
    def caller(self) -> Principal:
        """Who calls."""
        return self.request.auth

    @cached_property
    def command_id(self) -> bytes:
        """The id (16 bytes) of the command this request stands for in the replicated log."""
        attempt = self._attempt()
        return attempt.request_id if attempt else idempotency.new_request_id()

    def body(self, serializer: type[serializers.Serializer], **context: Any) -> Any:
        """The validated body: an object."""
        bound = serializer(data=_object(self.request.data), context=context)
        bound.is_valid(raise_exception=True)
        return bound.validated_data

    def items(self) -> list[Any] | None:
        """The body as a batch; None where it is a single object. Raises payload-too-large."""
        data = self.request.data
        if not isinstance(data, list):
            return None
        if len(data) > BATCH_LIMIT:
            raise too_large("The batch", f"{BATCH_LIMIT:,} items")
        return data

    # DRF's hooks --------------------------------------------------------------------------------

    def get_permissions(self) -> list[Any]:
        """One permission: the scopes of this verb."""
        return [requires(*self.scopes.get(self.request.method or "", ()))()]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Before the method: caller, scope, rate, page of origin, and whether the answer is known."""
        if request.method not in self.allowed_methods:
            return  # DRF answers 405
        try:
            super().initial(request, *args, **kwargs)
        except Problem as problem:
            if problem.status == 401:
                self._count("anonymous", f"address:{request.META.get('REMOTE_ADDR', '')}")
            raise
        self._count("default", self.caller.subject)
        if self.is_open_to_pages:
            cors.check(self.caller, request.headers.get("Origin"))
        elif self.caller.kind == "student":
            raise Problem("permission-denied", "A session token only writes its own student's metrics.")
        if request.method == "POST" and self.is_idempotent:
            self._begin(request)

    def options(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """A browser's question before it sends; asked without credentials."""
        headers = {"Allow": ", ".join(self.allowed_methods)}
        if self.is_open_to_pages:
            headers |= cors.preflight_headers(request.headers.get("Origin"), self.allowed_methods)
        return HttpResponse(status=204, headers=headers)

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """OPTIONS needs no caller; everything else goes DRF's way."""
        if request.method == "OPTIONS":
            self.request = request
            return self.options(request)
        return super().dispatch(request, *args, **kwargs)

    def handle_exception(self, exc: Exception) -> HttpResponseBase:
        """A known answer is an answer; the rest becomes a problem in :mod:`gaia_site.problems`."""
        if isinstance(exc, _Replay):
            return exc.answer
        return super().handle_exception(exc)

    def finalize_response(
        self, request: Request, response: HttpResponseBase, *args: Any, **kwargs: Any
    ) -> HttpResponseBase:
        """After the method: headers, and the answer kept for repetitions."""
        response = super().finalize_response(request, response, *args, **kwargs)
        if self._allowance is not None:
            for name, value in self._allowance.headers.items():
                response.headers.setdefault(name, value)
        response.headers.setdefault("Cache-Control", "no-store")
        # Not `request.auth`, which would judge a refused credential anew and raise.
        caller = getattr(request, "_auth", None)
        if self.is_open_to_pages and isinstance(caller, Principal):
            for name, value in cors.headers(caller, request.headers.get("Origin")).items():
                response.headers[name] = value
        elif self.is_open_to_pages and response.status_code == 401:
            for name, value in cors.refusal_headers(request.headers.get("Origin")).items():
                response.headers[name] = value
        if self._started is not None:
            self._keep(self._started, response)
        return response

    # Ours ---------------------------------------------------------------------------------------

    def _count(self, policy: str, subject: str) -> None:
        self._allowance = throttling.take(policy, subject)
        self._allowance.check()

    def _attempt(self) -> idempotency.Attempt | None:
        key = idempotency.read_key(self.request.headers)
        if key is None:
            return None
        data = self.request.data  # parsed here, so that a bad body is refused before anything is kept
        body = getattr(self.request, "json_bytes", b"") if data is not None else b""
        return idempotency.Attempt(
            caller=self.caller.subject,
            method=self.request.method or "",
            path=self.request.path.rstrip("/")[:600],
            key=key,
            body_digest=hashlib.sha256(body).digest(),
        )

    def _begin(self, request: Request) -> None:
        attempt = self._attempt()
        if attempt is None:
            return
        begun = idempotency.begin(attempt)
        if isinstance(begun, HttpResponse):
            raise _Replay(begun)
        self._started = begun

    def _keep(self, started: idempotency.Started, response: HttpResponseBase) -> None:
        if isinstance(response, Response) and not response.is_rendered:
            response.add_post_render_callback(lambda rendered: idempotency.finish(started, rendered))
        elif isinstance(response, HttpResponse):
            idempotency.finish(started, response)
        else:
            idempotency.abandon(started)


def _object(data: Any) -> Any:
    if not isinstance(data, Mapping):
        raise invalid(("body",), "Must be a JSON object.")
    return data
