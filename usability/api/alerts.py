"""Alerts of the caller's classrooms, and what a teacher does with them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, ClassVar

import django_filters
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from gaia_site.api.endpoint import StrictSerializer
from gaia_site.pagination import filtered, page
from gaia_site.schema import LIST_PARAMETERS, describes, list_parameters, page_of
from usability import access, services
from usability.api.endpoint import UsabilityEndpoint
from usability.api.fields import Flag, NoteField, SlugField, WholeNumberField, one_of
from usability.api.rows import AlertSerializer, InterventionSerializer
from usability.kinds import AlertSeverity, AlertState
from usability.models import TeacherDashboardAlert

TAG = "alerts"
TEACHERS = ("teacher", "admin")
ORDERINGS = ("-created_at", "seq", "updated_at")
NOTE_MOST = 1_000


class AlertFilter(django_filters.FilterSet):
    """Which alerts."""

    state = one_of(AlertState)
    severity = one_of(AlertSeverity)
    app_name = django_filters.CharFilter(max_length=100)
    student_id = django_filters.CharFilter(field_name="student_id", max_length=100)
    alert_type = django_filters.CharFilter(max_length=100)
    classroom_id = django_filters.UUIDFilter(field_name="classroom_id")
    unacknowledged = Flag(
        field_name="acknowledged_at", lookup_expr="isnull", help_text="Nobody has taken notice."
    )
    open = Flag(
        field_name="closed_at", lookup_expr="isnull", help_text="Neither resolved, dismissed nor expired."
    )
    after_seq = django_filters.NumberFilter(
        field_name="seq",
        lookup_expr="gt",
        min_value=0,
        max_value=2**63 - 1,
        help_text="Changed after this cursor.",
    )

    class Meta:
        model = TeacherDashboardAlert
        fields: tuple[str, ...] = ()


class RemarkSerializer(StrictSerializer):
    """What the teacher remarks, if anything."""

    note = NoteField(max_length=NOTE_MOST, required=False, default="")


class SnoozeSerializer(StrictSerializer):
    """For how long."""

    minutes = WholeNumberField(min_value=1, max_value=1_440, default=10)


class NewInterventionSerializer(StrictSerializer):
    """What the teacher did."""

    intervention_note = NoteField(max_length=NOTE_MOST, required=False, default="")
    kind = SlugField(
        default="other",
        help_text="Such as talked, explained, hinted, encouraged, paired, technical, other.",
    )


class Alerts(UsabilityEndpoint):
    """All alerts of the caller's classrooms."""

    scopes = {"GET": TEACHERS}

    @describes(
        tag=TAG,
        summary="List alerts",
        answers={200: page_of(AlertSerializer)},
        parameters=list_parameters(AlertFilter, ORDERINGS),
        operation_id="list_alerts",
    )
    def get(self, request: Request) -> Response:
        """One page, newest first."""
        rows = filtered(AlertFilter, request.query_params, access.visible_alerts(self.caller))
        found = page(request, rows.prefetch_related("interventions"), orderings=ORDERINGS)
        self.looked_at("list_alerts", *(alert.student_id for alert in found.rows if alert.student_id))
        return Response(found.as_json(AlertSerializer(found.rows, many=True).data))


class Alert(UsabilityEndpoint):
    """One alert."""

    scopes = {"GET": TEACHERS}

    @describes(
        tag=TAG, summary="One alert", answers={200: AlertSerializer}, errors=(404,), operation_id="get_alert"
    )
    def get(self, request: Request, alert_id: uuid.UUID) -> Response:
        """The alert with its interventions."""
        self.only()
        alert = access.get_alert(self.caller, alert_id)
        if alert.student_id:
            self.looked_at("view_alert", alert.student_id)
        return Response(AlertSerializer(alert).data)


class AlertStep(UsabilityEndpoint):
    """Something a teacher does with an alert; a subclass says what."""

    scopes = {"POST": TEACHERS}
    remark: ClassVar[type[serializers.Serializer]] = RemarkSerializer

    def done(self, step: Callable[..., Any], alert_id: uuid.UUID) -> Response:
        """The alert after the step."""
        self.only()
        given = self.body_if_any(self.remark)
        return Response(AlertSerializer(step(alert_id, who=self.caller, **given)).data)


def _describes_step(
    summary: str, name: str, request: Any = RemarkSerializer, about: str | None = None
) -> Any:
    return describes(
        tag=TAG,
        summary=summary,
        about=about,
        request=request,
        answers={200: AlertSerializer},
        errors=(404, 409),
        operation_id=name,
    )


class AcknowledgeAlert(AlertStep):
    """Seen."""

    @_describes_step("Acknowledge an alert", "acknowledge_alert", about="The first one stays.")
    def post(self, request: Request, alert_id: uuid.UUID) -> Response:
        """The alert as it is now."""
        return self.done(services.acknowledge_alert, alert_id)


class ResolveAlert(AlertStep):
    """Dealt with."""

    @_describes_step("Resolve an alert", "resolve_alert")
    def post(self, request: Request, alert_id: uuid.UUID) -> Response:
        """The alert as it is now."""
        return self.done(services.resolve_alert, alert_id)


class DismissAlert(AlertStep):
    """Not a problem."""

    @_describes_step(
        "Dismiss an alert", "dismiss_alert", about="It was not a problem; back-tests learn from it."
    )
    def post(self, request: Request, alert_id: uuid.UUID) -> Response:
        """The alert as it is now."""
        return self.done(services.dismiss_alert, alert_id)


class EmptySerializer(StrictSerializer):
    """An empty object, or no body."""


class OnMyWay(AlertStep):
    """A teacher is going there."""

    remark = EmptySerializer

    @_describes_step("Say that you are on your way", "help_alert", EmptySerializer)
    def post(self, request: Request, alert_id: uuid.UUID) -> Response:
        """The alert as it is now."""
        return self.done(services.on_my_way, alert_id)


class UndoAlert(AlertStep):
    """Take the last step back."""

    remark = EmptySerializer

    @_describes_step("Undo your last step", "undo_alert", EmptySerializer, about="Within ten seconds.")
    def post(self, request: Request, alert_id: uuid.UUID) -> Response:
        """The alert as it was."""
        return self.done(services.undo, alert_id)


class SnoozeAlert(AlertStep):
    """Not now."""

    remark = SnoozeSerializer

    @_describes_step("Snooze an alert", "snooze_alert", SnoozeSerializer)
    def post(self, request: Request, alert_id: uuid.UUID) -> Response:
        """The alert as it is now."""
        return self.done(services.snooze_alert, alert_id)


class Interventions(UsabilityEndpoint):
    """What was done about an alert."""

    scopes = {"GET": TEACHERS, "POST": TEACHERS}

    @describes(
        tag=TAG,
        summary="List interventions",
        answers={200: page_of(InterventionSerializer)},
        parameters=LIST_PARAMETERS,
        errors=(404,),
        operation_id="list_interventions",
    )
    def get(self, request: Request, alert_id: uuid.UUID) -> Response:
        """One page, newest first, each with its effect once it is known."""
        self.only("limit", "cursor", "ordering")
        alert = access.get_alert(self.caller, alert_id)
        rows = access.visible_interventions(self.caller).filter(alert=alert)
        found = page(request, rows, orderings=("-at",))
        return Response(found.as_json(InterventionSerializer(found.rows, many=True).data))

    @describes(
        tag=TAG,
        summary="Record an intervention",
        about="Its effect, what was before and after it, is measured some minutes later.",
        request=NewInterventionSerializer,
        answers={201: InterventionSerializer},
        errors=(404,),
        operation_id="record_intervention",
    )
    def post(self, request: Request, alert_id: uuid.UUID) -> Response:
        """201 with what was stored."""
        self.only()
        given = self.body_if_any(NewInterventionSerializer)
        kept = services.record_intervention(
            alert_id, who=self.caller, kind=given["kind"], note=given["intervention_note"]
        )
        return Response(InterventionSerializer(kept).data, status=201)
