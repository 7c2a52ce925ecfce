"""Classrooms of the caller: numbers, the live picture, snapshots, who struggles."""

from __future__ import annotations

import datetime as dt
import uuid

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from gaia_site.pagination import page
from gaia_site.schema import LIST_PARAMETERS, describes, page_of
from usability import selectors
from usability.api.endpoint import APP_NAME, SINCE, UNTIL, UsabilityEndpoint, results
from usability.api.fields import described
from usability.models import ClassroomMetricsSnapshot
from usability.selectors.shapes import ClassCard, ClassroomMetrics, LiveClass, Struggling

TAG = "classrooms"
READERS = ("teacher", "admin")
METRICS_SPAN = dt.timedelta(hours=1)

ClassroomSerializer = described(ClassCard, name="Classroom")
ClassroomMetricsSerializer = described(ClassroomMetrics)
LiveClassSerializer = described(LiveClass)
StrugglingSerializer = described(Struggling)


class SnapshotSerializer(serializers.ModelSerializer):
    """One class and app in one window of time; a rate of nothing is null."""

    classroom_id = serializers.UUIDField()

    class Meta:
        model = ClassroomMetricsSnapshot
        fields = (
            "id",
            "classroom_id",
            "app_name",
            "window_start",
            "window_end",
            "student_count",
            "active_count",
            "struggling_student_count",
            "average_frustration_level",
            "average_satisfaction_rating",
            "error_rate",
            "correction_rate",
            "hint_rate",
            "completion_rate",
            "snapshot_data",
        )
        read_only_fields = fields


class ClassroomEndpoint(UsabilityEndpoint):
    """A question about the caller's own classrooms."""

    scopes = {"GET": READERS}


class Classrooms(ClassroomEndpoint):
    """All of them."""

    @describes(
        tag=TAG,
        summary="My classrooms",
        answers={200: page_of(ClassroomSerializer)},
        operation_id="list_classrooms",
    )
    def get(self, request: Request) -> Response:
        """Each with what needs attention now."""
        self.only()
        return Response(results(selectors.classrooms_of(self.caller)))


class ClassroomMetricsView(ClassroomEndpoint):
    """Numbers of a class."""

    @describes(
        tag=TAG,
        summary="Counts and rates of a class",
        about="Of the pupils now enrolled; the last hour where no span is given.",
        answers={200: ClassroomMetricsSerializer},
        parameters=[SINCE, UNTIL, APP_NAME],
        errors=(404,),
        operation_id="get_classroom_metrics",
    )
    def get(self, request: Request, classroom_id: uuid.UUID) -> Response:
        """The numbers."""
        self.only("since", "until", "app_name")
        since, until = self.span(METRICS_SPAN)
        found = selectors.classroom_metrics(
            classroom_id, who=self.caller, since=since, until=until, app_name=self.text("app_name")
        )
        return Response(found)


class ClassroomLive(ClassroomEndpoint):
    """A class now."""

    @describes(
        tag=TAG,
        summary="A class as it is now",
        about="`cursor` continues at the socket /ws/classrooms/{id}/?after=.",
        answers={200: LiveClassSerializer},
        errors=(404,),
        operation_id="get_classroom_live",
    )
    def get(self, request: Request, classroom_id: uuid.UUID) -> Response:
        """Signals, seats, tally and freshness."""
        self.only()
        return Response(selectors.live_class(classroom_id, who=self.caller))


class ClassroomSnapshots(ClassroomEndpoint):
    """A class by windows of time."""

    @describes(
        tag=TAG,
        summary="Snapshots of a class",
        answers={200: page_of(SnapshotSerializer)},
        parameters=[SINCE, UNTIL, APP_NAME, *LIST_PARAMETERS],
        errors=(404,),
        operation_id="list_classroom_snapshots",
    )
    def get(self, request: Request, classroom_id: uuid.UUID) -> Response:
        """One page, oldest first."""
        self.only("since", "until", "app_name", "limit", "cursor", "ordering")
        since, until = self.span()
        rows = selectors.snapshots(
            classroom_id, who=self.caller, since=since, until=until, app_name=self.text("app_name")
        )
        found = page(request, rows, orderings=("window_start",))
        return Response(found.as_json(SnapshotSerializer(found.rows, many=True).data))


class ClassroomStruggling(ClassroomEndpoint):
    """Who struggles."""

    @describes(
        tag=TAG,
        summary="Pupils with an open signal",
        about="The gravest first, among equals the longest.",
        answers={200: page_of(StrugglingSerializer)},
        parameters=[APP_NAME],
        errors=(404,),
        operation_id="list_classroom_struggling",
    )
    def get(self, request: Request, classroom_id: uuid.UUID) -> Response:
        """All of them."""
        self.only("app_name")
        return Response(
            results(selectors.struggling(classroom_id, who=self.caller, app_name=self.text("app_name")))
        )
