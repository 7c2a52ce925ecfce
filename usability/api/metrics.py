"""Taking metrics in, as Django serves it: the description, and the same door without the buffer.

In a running site the hot route answers these calls before Django sees them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import IO, Any, ClassVar

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response

from gaia_site.api.parsers import read
from gaia_site.schema import describes, one_or_many
from usability.api.endpoint import UsabilityEndpoint
from usability.ingest import direct, health
from usability.ingest.decode import METRIC_TYPES, Rules
from usability.ingest.endpoint import asks_for_trial, judged
from usability.services.metrics import own_types

ID_REGEX = r"^[A-Za-z0-9._:/-]+$"


class MetadataSerializer(serializers.Serializer):
    """All that may stand beside a metric; nothing of it is free text."""

    item = serializers.RegexField(ID_REGEX, max_length=100, required=False)
    skill = serializers.RegexField(ID_REGEX, max_length=100, required=False)
    element = serializers.RegexField(ID_REGEX, max_length=100, required=False)
    correct = serializers.BooleanField(required=False)
    similar = serializers.BooleanField(required=False)
    is_bottom = serializers.BooleanField(required=False)
    late = serializers.BooleanField(required=False)
    hint_level = serializers.FloatField(min_value=0, required=False)
    attempt = serializers.FloatField(min_value=0, required=False)
    duration_ms = serializers.FloatField(min_value=0, required=False)
    bucket_ms = serializers.FloatField(min_value=0, required=False)
    age_ms = serializers.FloatField(min_value=0, required=False)
    seq = serializers.FloatField(min_value=0, required=False)
    sdk = serializers.CharField(max_length=32, required=False, help_text="A version, such as 1.4.2.")


class NewMetricSerializer(serializers.Serializer):
    """One metric."""

    student_id = serializers.RegexField(ID_REGEX, max_length=50)
    app_name = serializers.RegexField(ID_REGEX, max_length=50)
    metric_type = serializers.RegexField(
        ID_REGEX,
        max_length=100,
        help_text=f"{', '.join(sorted(METRIC_TYPES))}, or a type the app has registered.",
    )
    metric_value = serializers.FloatField()
    timestamp = serializers.DateTimeField(required=False, allow_null=True, help_text="With an offset.")
    session_id = serializers.RegexField(ID_REGEX, max_length=100, required=False, allow_null=True)
    metadata = MetadataSerializer(required=False, allow_null=True)


class RejectedMetricSerializer(serializers.Serializer):
    """A metric that was refused, and why."""

    index = serializers.IntegerField()
    loc = serializers.ListField(child=serializers.JSONField())
    msg = serializers.CharField()


class StoredSerializer(serializers.Serializer):
    """What became of a batch."""

    accepted = serializers.IntegerField()
    rejected = RejectedMetricSerializer(many=True)
    duplicate = serializers.BooleanField(help_text="The batch_id was known; nothing was stored again.")
    help_requests = serializers.ListField(
        child=serializers.UUIDField(), required=False, help_text="Ids of the help_request metrics among them."
    )


class BytesParser(BaseParser):
    """The inflated bytes; the batch is read from them behind the door."""

    media_type = "*/*"

    def parse(
        self, stream: IO[bytes], media_type: str | None, parser_context: Mapping[str, Any] | None
    ) -> Any:
        """The bytes, also left for the comparison of repeated calls."""
        request = (parser_context or {})["request"]
        request.json_bytes = read(stream, request)
        return request.json_bytes


class AnyBody:
    """Every media type is read as bytes; which are allowed is decided behind the door."""

    def select_parser(self, request: Request, parsers: list[BaseParser]) -> BaseParser:
        """The one parser."""
        return parsers[0]

    def select_renderer(
        self, request: Request, renderers: list[Any], format_suffix: str | None = None
    ) -> Any:
        """JSON."""
        return renderers[0], renderers[0].media_type


class Metrics(UsabilityEndpoint):
    """Metrics of apps."""

    scopes = {"POST": ("metrics:write",)}
    is_open_to_pages = True
    parser_classes: ClassVar[list[type[BaseParser]]] = [BytesParser]
    content_negotiation_class = AnyBody

    @describes(
        tag="metrics",
        summary="Send metrics",
        about="One metric, a JSON list, an envelope `{batch_id, sent_at, metrics}`, or lines of JSON "
        "(application/x-ndjson); text/plain with `?key=` for sendBeacon. Good ones of a mixed batch are kept; each "
        "refused one is named. 202 means durable. A `batch_id` seen before is acknowledged and not stored again.",
        request={
            "application/json": one_or_many(NewMetricSerializer),
            "application/x-ndjson": OpenApiTypes.STR,
            "text/plain": OpenApiTypes.STR,
        },
        answers={202: StoredSerializer, 200: StoredSerializer},
        parameters=[
            OpenApiParameter(
                "validate_only",
                OpenApiTypes.STR,
                enum=["1", "true", "0", "false"],
                description="Judge and store nothing; answers 200.",
            ),
            OpenApiParameter("key", OpenApiTypes.STR, description="The key, where a header cannot be set."),
        ],
        operation_id="send_metrics",
    )
    def post(self, request: Request) -> Response:
        """202, or 200 for a judgement alone."""
        self.only("validate_only", "key")
        is_trial = asks_for_trial(request.query_params.get("validate_only"))
        received_at = dt.datetime.now(tz=dt.UTC)
        rules = Rules(self.caller.app_name, self.caller.student_id, own_types)
        media_type = (request.content_type or "").partition(";")[0].strip().lower()
        decoded = judged(media_type, request.data, received_at=received_at, rules=rules)
        key = (f"b:{self.caller.subject}", decoded.batch_id) if decoded.batch_id else None
        is_known = False if is_trial else direct.store(decoded, received_at=received_at, batch_key=key)
        if not is_trial and not is_known:
            health.count(decoded, {}, app_name=self.caller.app_name, received_at=received_at)
        answer = {
            "accepted": len(decoded.metrics),
            "rejected": [rejection.as_json() for rejection in decoded.rejected],
            "duplicate": is_known,
        }
        return Response(answer, status=200 if is_trial else 202)
