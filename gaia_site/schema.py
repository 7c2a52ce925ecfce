"""How the API describes itself: what every operation shares in the OpenAPI document.

The document is generated from the endpoints; here stand the parts that no single endpoint owns: how to
authenticate, the problem body, the parameters and headers of lists, reads and repetitions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import django_filters
from django_filters import FilterSet
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiParameter,
    OpenApiResponse,
    PolymorphicProxySerializer,
    extend_schema,
    inline_serializer,
)
from rest_framework import serializers

from gaia_site.pagination import LIMIT_DEFAULT, LIMIT_MOST
from gaia_site.problems import KINDS, MEDIA_TYPE

DESCRIPTION = """\
Sessions, tasks, locks and lessons of agents (coordination), and metrics, signals and alerts of classrooms
(usability).

Send `Authorization: Bearer <api key>`. Times are RFC 3339 in UTC, durations end in `_s`, sizes in `_bytes`.
Bodies are JSON of at most 5 MiB and 5,000 items, gzip or not; of two equal names in an object the last
counts. Unknown fields and filters are refused.

Errors are `application/problem+json` with a stable `type`. 409 and 412 are never worth a retry as they are;
429 and 503 always are, after `Retry-After`. A POST with an `Idempotency-Key` may be repeated for 24 hours:
the answer is the first one, marked `Idempotent-Replayed: true`.

Lists answer `{"next", "previous", "results"}`; follow `next` until it is null.
"""


class ProblemSerializer(serializers.Serializer):
    """RFC 9457."""

    type = serializers.ChoiceField(choices=sorted(KINDS))
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    instance = serializers.CharField(required=False)
    errors = inline_serializer(
        "ProblemError",
        {
            "loc": serializers.ListField(
                child=serializers.JSONField(),
                help_text="Where: body, query, path or header, then names and indexes.",
            ),
            "msg": serializers.CharField(),
        },
        many=True,
        required=False,
    )


class BatchLineSerializer(serializers.Serializer):
    """One line of a batch's answer: the code its item alone would have got, and that answer's members.

    An object with a status of its own shows it as `state`; a refusal has the members of a problem.
    """

    status = serializers.IntegerField()
    state = serializers.CharField(required=False)
    type = serializers.CharField(required=False)
    detail = serializers.CharField(required=False)


IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description="Makes the call safe to repeat for 24 hours; another body with the same key is 422.",
)
LIST_PARAMETERS = (
    OpenApiParameter(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": LIMIT_MOST, "default": LIMIT_DEFAULT},
        description="Most results of a page.",
    ),
    OpenApiParameter("cursor", OpenApiTypes.STR, description="From `next` or `previous`."),
)
READ_PARAMETERS = (
    OpenApiParameter(
        "consistency",
        OpenApiTypes.STR,
        enum=["replica", "linearizable"],
        description="`linearizable`: not older than any answer given before this call.",
    ),
    OpenApiParameter(
        "min_index",
        {"type": "integer", "minimum": 0},
        description="Wait until this X-Raft-Index is applied here: read your own writes.",
    ),
)
MEANINGS = {
    400: "The request is not valid; `errors` says where.",
    401: "No valid credentials.",
    403: "A scope is missing.",
    404: "No such object, or somebody else's.",
    409: "Conflict with the present state; repeating changes nothing.",
    412: "The token is no longer the current one; nothing was changed.",
    413: "More than 5 MiB or 5,000 items.",
    415: "Not JSON, or an unknown Content-Encoding.",
    422: "The Idempotency-Key came before with another body.",
    429: "Too many requests; wait for Retry-After.",
    503: "Overloaded or without a leader; nothing is lost by trying again after Retry-After.",
}


def describes(
    *,
    tag: str,
    summary: str,
    request: Any = None,
    answers: dict[int, Any] | None = None,
    parameters: Iterable[OpenApiParameter] = (),
    errors: Sequence[int] = (),
    about: str | None = None,
    operation_id: str | None = None,
    reads_coordination: bool = False,
    **more: Any,
) -> Any:
    """The decorator of one method of an endpoint: what it takes and answers, errors included.

    401, 403, 429 and 503 are added to all, 400 too; 413, 415 and 422 to what has a body.
    """
    statuses = {400, 401, 403, 429, 503, *errors} | ({413, 415, 422} if request is not None else set())
    responses: dict[Any, Any] = {
        status: answer if answer is not None else OpenApiResponse(description="Done; no body.")
        for status, answer in (answers or {}).items()
    }
    for status in sorted(statuses):
        responses[(status, MEDIA_TYPE)] = OpenApiResponse(ProblemSerializer, description=MEANINGS[status])
    extra = READ_PARAMETERS if reads_coordination else ()
    return extend_schema(
        tags=[tag],
        summary=summary,
        description=about,
        request=request,
        responses=responses,
        parameters=[*parameters, *extra],
        operation_id=operation_id,
        **more,
    )


def filter_parameters(filterset: type[FilterSet]) -> list[OpenApiParameter]:
    """The query parameters a filter set understands."""
    return [
        OpenApiParameter(
            name, _filter_type(one), description=str(one.extra.get("help_text", "")), enum=_filter_values(one)
        )
        for name, one in filterset.base_filters.items()
    ]


def list_parameters(filterset: type[FilterSet], orderings: Sequence[str]) -> list[OpenApiParameter]:
    """Filters, order and page of a list; the first of `orderings` is its default."""
    names = sorted({name.lstrip("-") for name in orderings})
    ordering = OpenApiParameter(
        "ordering",
        {
            "type": "string",
            "enum": [sign + name for name in names for sign in ("", "-")],
            "default": orderings[0],
        },
        description="A minus in front: descending.",
    )
    return [*filter_parameters(filterset), *LIST_PARAMETERS, ordering]


def page_of(serializer: type[serializers.Serializer]) -> Any:
    """The serializer of a page of those rows, for the document."""
    name = serializer.__name__.removesuffix("Serializer")
    return inline_serializer(
        f"{name}Page",
        {
            "next": serializers.URLField(allow_null=True),
            "previous": serializers.URLField(allow_null=True),
            "results": serializer(many=True),
        },
    )


def one_or_many(serializer: type[serializers.Serializer]) -> Any:
    """A body that is one object or a list of such objects."""
    name = serializer.__name__.removesuffix("Serializer")
    return PolymorphicProxySerializer(
        component_name=f"{name}OrList",
        serializers=[serializer, serializer(many=True)],
        resource_type_field_name=None,
        many=False,
    )


def one_or_lines(serializer: type[serializers.Serializer]) -> Any:
    """An answer that is one object, or the lines of a batch."""
    name = serializer.__name__.removesuffix("Serializer")
    return PolymorphicProxySerializer(
        component_name=f"{name}OrLines",
        serializers=[serializer, BatchLineSerializer(many=True)],
        resource_type_field_name=None,
        many=False,
    )


def _filter_type(one: django_filters.Filter) -> Any:
    if isinstance(one, django_filters.UUIDFilter):
        return OpenApiTypes.UUID
    if isinstance(one, django_filters.NumberFilter):
        return OpenApiTypes.INT
    if isinstance(one, django_filters.IsoDateTimeFilter):
        return OpenApiTypes.DATETIME
    return OpenApiTypes.STR


def _filter_values(one: django_filters.Filter) -> list[str] | None:
    choices = one.extra.get("choices")
    return [value for value, _ in choices] if choices else None


class EndpointSchema(AutoSchema):
    """Adds what every POST has."""

    def get_override_parameters(self) -> list[OpenApiParameter]:
        """The Idempotency-Key of what creates or changes."""
        is_keyed = self.method == "POST" and getattr(self.view, "is_idempotent", False)
        return [IDEMPOTENCY_KEY] if is_keyed else []


class KeyScheme(OpenApiAuthenticationExtension):
    """Bearer keys."""

    target_class = "gaia_site.keys.KeyAuthentication"
    name = "key"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        """An API key, or a session token where the call says so."""
        return {"type": "http", "scheme": "bearer", "bearerFormat": "API key"}


class BrowserScheme(OpenApiAuthenticationExtension):
    """The browser's login."""

    target_class = "gaia_site.keys.BrowserAuthentication"
    name = "browser"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        """Django's session cookie; writes need the CSRF token too."""
        return {"type": "apiKey", "in": "cookie", "name": "sessionid"}


def complete(result: dict[str, Any], generator: Any, request: Any, public: Any) -> dict[str, Any]:
    """drf-spectacular's last hook: headers that every answer of an operation carries."""
    for path, item in result.get("paths", {}).items():
        for verb, operation in item.items():
            if isinstance(operation, dict) and "responses" in operation:
                _add_headers(path, verb, operation)
    return result


def _add_headers(path: str, verb: str, operation: dict[str, Any]) -> None:
    for status, answer in operation["responses"].items():
        headers = answer.setdefault("headers", {})
        if status in ("429", "503"):
            headers["Retry-After"] = {"description": "Seconds to wait.", "schema": {"type": "integer"}}
        if status not in ("401", "413", "415"):
            for name in ("RateLimit", "RateLimit-Policy"):
                headers[name] = {"schema": {"type": "string"}}
        if verb == "post" and status.startswith("2"):
            headers["Idempotent-Replayed"] = {
                "description": "true where this is a repetition.",
                "schema": {"type": "string"},
            }
        if not path.startswith("/api/v1/usability") and status.startswith("2"):
            headers["X-Raft-Index"] = {
                "description": "The state this answer is about.",
                "schema": {"type": "integer"},
            }
