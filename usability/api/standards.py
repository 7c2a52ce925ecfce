"""Two vocabularies of others, taken in like metrics: xAPI statements and Caliper events."""

from __future__ import annotations

import datetime as dt
from typing import ClassVar

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response

from gaia_site.problems import FieldError, Problem, invalid, validation
from gaia_site.schema import describes
from usability.api.endpoint import UsabilityEndpoint
from usability.api.metrics import AnyBody, BytesParser, RejectedMetricSerializer
from usability.services.caliper import record_envelope
from usability.xapi import receiving, taking, versions
from usability.xapi.values import Wrong
from usability.xapi.versions import Version


class EnvelopeSerializer(serializers.Serializer):
    """A Caliper 1.2 envelope."""

    sensor = serializers.CharField(help_text="The IRI of what sends.")
    sendTime = serializers.DateTimeField(  # noqa: N815
        help_text="The sender's clock at the moment of sending; corrects eventTime."
    )
    dataVersion = serializers.CharField(help_text="http://purl.imsglobal.org/ctx/caliper/v1p2")  # noqa: N815
    data = serializers.ListField(child=serializers.JSONField(), help_text="Events, at most 5,000.")


class TakenEventsSerializer(serializers.Serializer):
    """What became of an envelope."""

    accepted = serializers.IntegerField(help_text="Events that became a metric or a rating.")
    rejected = RejectedMetricSerializer(many=True)
    duplicate = serializers.BooleanField(help_text="The same events were known; nothing was stored again.")


class XapiStatements(UsabilityEndpoint):
    """Statements, as /xapi/statements takes them by POST."""

    scopes = {"POST": ("metrics:write",)}
    parser_classes: ClassVar[list[type[BaseParser]]] = [BytesParser]
    content_negotiation_class = AnyBody

    @describes(
        tag="metrics",
        summary="Send xAPI statements",
        about="One statement or a list of at most 500, of xAPI 1.0.3 or 2.0, with attachments as multipart/mixed. All are "
        "stored or none; the same statement again is acknowledged. The answer is their ids; `X-Gaia-Metrics` says how "
        "many metrics were made of them and why others were not. The whole record store is at /xapi/.",
        request={"application/json": OpenApiTypes.ANY, "multipart/mixed": OpenApiTypes.BINARY},
        answers={200: serializers.ListSerializer(child=serializers.UUIDField())},
        parameters=[
            OpenApiParameter(
                versions.HEADER,
                OpenApiTypes.STR,
                OpenApiParameter.HEADER,
                description="The version of the statements; 2.0.0 where it is left out.",
            ),
        ],
        errors=(409,),
        operation_id="send_xapi_statements",
    )
    def post(self, request: Request) -> Response:
        """The ids."""
        self.only()
        told = request.headers.get(versions.HEADER)
        version = Version.V2 if told is None else versions.asked_for(told)
        if version is None:
            raise invalid(("header", versions.HEADER), f"must be one of {', '.join(versions.SPOKEN)}")
        sender = receiving.sender_of(self.caller, request.build_absolute_uri("/xapi/"), version)
        try:
            body = taking.body_of(request.content_type or "", request.data)
        except Wrong as wrong:
            if wrong.loc[:1] == ("header",):
                raise Problem("unsupported-media-type", wrong.msg) from wrong
            raise validation([FieldError(wrong.loc, wrong.msg)]) from wrong
        found = receiving.receive(body, sender, request._request)  # noqa: SLF001  DRF has no other name for it
        headers = {versions.HEADER: version.value, **receiving.headers_of(found)}
        return Response(found.ids, headers=headers)


class CaliperEvents(UsabilityEndpoint):
    """Events of Caliper sensors."""

    scopes = {"POST": ("metrics:write",)}

    @describes(
        tag="metrics",
        summary="Send Caliper events",
        about="An envelope of Caliper 1.2. Events that mean something for detection become metrics, a ranking becomes a "
        "rating; every other event is named in `rejected` with its reason and is not kept. The same events again are "
        "acknowledged and not stored again.",
        request=EnvelopeSerializer,
        answers={202: TakenEventsSerializer},
        operation_id="send_caliper_events",
    )
    def post(self, request: Request) -> Response:
        """202, once what was taken is durable."""
        self.only()
        app_name = self.caller.app_name
        try:
            recorded = record_envelope(
                request.data,
                app_name=app_name,
                owner=f"app:{app_name}" if app_name else self.caller.subject,
                received_at=dt.datetime.now(tz=dt.UTC),
                committed=receiving.handing_over(request._request),  # noqa: SLF001  DRF has no other name for it
            )
        except Wrong as wrong:
            raise validation([FieldError(wrong.loc, wrong.msg)]) from wrong
        answer = {
            "accepted": recorded.accepted,
            "rejected": [one.as_json() for one in recorded.rejected],
            "duplicate": recorded.duplicate,
        }
        return Response(answer, status=202)
