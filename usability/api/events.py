"""Frustration events: the list, and what a person says about one."""

from __future__ import annotations

import uuid

import django_filters
from django.db.models import QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from gaia_site.api.endpoint import StrictSerializer
from gaia_site.pagination import filtered, page
from gaia_site.schema import describes, list_parameters, page_of
from usability import access, services
from usability.api.endpoint import UsabilityEndpoint
from usability.api.fields import Flag, one_of
from usability.api.rows import FrustrationEventSerializer
from usability.kinds import EventSeverity
from usability.models import FrustrationEvent

TAG = "frustration-events"
ORDERINGS = ("-detected_at", "created_at")


class EventFilter(django_filters.FilterSet):
    """Which events."""

    severity = one_of(EventSeverity)
    app_name = django_filters.CharFilter(max_length=100)
    student_id = django_filters.CharFilter(field_name="student_id", max_length=100)
    event_type = django_filters.CharFilter(max_length=100)
    classroom_id = django_filters.UUIDFilter(field_name="classroom_id")
    unresolved = Flag(field_name="resolved_at", lookup_expr="isnull", help_text="Nobody has resolved it.")
    since = django_filters.IsoDateTimeFilter(field_name="detected_at", lookup_expr="gte")
    until = django_filters.IsoDateTimeFilter(field_name="detected_at", lookup_expr="lt")

    class Meta:
        model = FrustrationEvent
        fields: tuple[str, ...] = ()


class NothingSerializer(StrictSerializer):
    """An empty object, or no body."""


class FrustrationEvents(UsabilityEndpoint):
    """All events the caller may see."""

    scopes = {"GET": ("metrics:read", "teacher", "admin")}

    @describes(
        tag=TAG,
        summary="List frustration events",
        answers={200: page_of(FrustrationEventSerializer)},
        parameters=list_parameters(EventFilter, ORDERINGS),
        operation_id="list_frustration_events",
    )
    def get(self, request: Request) -> Response:
        """One page, newest first."""
        rows: QuerySet[FrustrationEvent] = filtered(
            EventFilter, request.query_params, access.visible_events(self.caller)
        )
        found = page(request, rows, orderings=ORDERINGS)
        self.looked_at("list_frustration", *(event.student_id for event in found.rows))
        return Response(found.as_json(FrustrationEventSerializer(found.rows, many=True).data))


class AcknowledgeEvent(UsabilityEndpoint):
    """Seen."""

    scopes = {"POST": ("teacher", "admin")}

    @describes(
        tag=TAG,
        summary="Acknowledge an event",
        about="The first one stays.",
        request=NothingSerializer,
        answers={200: FrustrationEventSerializer},
        errors=(404,),
        operation_id="acknowledge_frustration_event",
    )
    def post(self, request: Request, event_id: uuid.UUID) -> Response:
        """The event as it is now."""
        self.only()
        self.body_if_any(NothingSerializer)
        return Response(
            FrustrationEventSerializer(services.acknowledge_event(event_id, who=self.caller)).data
        )


class ResolveEvent(UsabilityEndpoint):
    """Settled by a person."""

    scopes = {"POST": ("teacher", "admin")}

    @describes(
        tag=TAG,
        summary="Resolve an event",
        request=NothingSerializer,
        answers={200: FrustrationEventSerializer},
        errors=(404,),
        operation_id="resolve_frustration_event",
    )
    def post(self, request: Request, event_id: uuid.UUID) -> Response:
        """The event as it is now."""
        self.only()
        self.body_if_any(NothingSerializer)
        return Response(FrustrationEventSerializer(services.resolve_event(event_id, who=self.caller)).data)
