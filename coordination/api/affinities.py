"""Affinities: how well a session suits a lesson."""

from __future__ import annotations

import uuid

import django_filters
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from coordination import access, selectors, services
from coordination.api.endpoint import CoordinationEndpoint
from coordination.api.fields import MomentField, SessionNameField, StrictFloatField
from coordination.api.sessions import check_lesson
from coordination.models import SessionAffinity
from gaia_site.api.endpoint import StrictSerializer
from gaia_site.pagination import filtered, page
from gaia_site.schema import describes, list_parameters, page_of

TAG = "affinities"
ORDERINGS = ("-affinity_score", "created_at", "updated_at")
AGENTS = ("agent", "admin")


class AffinitySerializer(serializers.ModelSerializer):
    """How well a session suits a lesson, within a time window if it has one."""

    session_name = serializers.CharField(source="session.session_name")
    lesson_id = serializers.UUIDField(allow_null=True)

    class Meta:
        model = SessionAffinity
        fields = (
            "id",
            "session_name",
            "lesson_id",
            "time_window_start",
            "time_window_end",
            "affinity_score",
            "last_used",
            "created_at",
            "updated_at",
        )
        read_only_fields = fields


class ChangedAffinitySerializer(StrictSerializer):
    """What may be changed."""

    time_window_start = MomentField(required=False, allow_null=True)
    time_window_end = MomentField(required=False, allow_null=True)
    affinity_score = StrictFloatField(min_value=0, max_value=1, required=False)


class NewAffinitySerializer(ChangedAffinitySerializer):
    """Which session, which lesson, how well."""

    session_name = SessionNameField()
    lesson_id = serializers.UUIDField(required=False, allow_null=True)


class SavedAffinitySerializer(serializers.Serializer):
    """The affinity as it is now."""

    id = serializers.UUIDField()
    session_name = serializers.CharField()
    lesson_id = serializers.UUIDField(allow_null=True)
    time_window_start = serializers.DateTimeField(allow_null=True)
    time_window_end = serializers.DateTimeField(allow_null=True)
    affinity_score = serializers.FloatField()


class AffinityFilter(django_filters.FilterSet):
    """Which affinities."""

    session_name = django_filters.CharFilter(field_name="session__session_name")
    lesson_id = django_filters.UUIDFilter(field_name="lesson_id")

    class Meta:
        model = SessionAffinity
        fields: tuple[str, ...] = ()


class Affinities(CoordinationEndpoint):
    """All affinities."""

    scopes = {"GET": AGENTS, "POST": AGENTS}

    @describes(
        tag=TAG,
        summary="List affinities",
        answers={200: page_of(AffinitySerializer)},
        parameters=list_parameters(AffinityFilter, ORDERINGS),
        reads_coordination=True,
        operation_id="list_affinities",
    )
    def get(self, request: Request) -> Response:
        """One page."""
        known = access.affinities(self.caller).select_related("session")
        rows = filtered(AffinityFilter, request.query_params, known)
        revision = self.read_index()
        found = page(request, rows, orderings=ORDERINGS)
        return self.answer(found.as_json(AffinitySerializer(found.rows, many=True).data), revision=revision)

    @describes(
        tag=TAG,
        summary="Set the affinity of a session for a lesson",
        about="A pair that has one already is changed. Without a lesson it is for any work, and counts where the"
        " session has no affinity for the task's lesson.",
        request=NewAffinitySerializer,
        answers={201: SavedAffinitySerializer},
        errors=(404,),
        operation_id="set_affinity",
    )
    def post(self, request: Request) -> Response:
        """The affinity."""
        self.only()
        wish = self.body(NewAffinitySerializer)
        if wish.get("lesson_id"):
            check_lesson(wish["lesson_id"])
        shown = {
            "lesson_id": None,
            "time_window_start": None,
            "time_window_end": None,
            "affinity_score": 1.0,
        } | wish
        affinity_id, revision = services.set_affinity(
            wish["session_name"],
            shown["lesson_id"],
            shown["affinity_score"],
            actor=self.caller.actor,
            time_window_start=shown["time_window_start"],
            time_window_end=shown["time_window_end"],
            request_id=self.command_id,
        )
        return self.answer({"id": affinity_id, **shown}, revision=revision, status=201)


class Affinity(CoordinationEndpoint):
    """One affinity."""

    scopes = {"GET": AGENTS, "PATCH": AGENTS, "DELETE": AGENTS}

    @describes(
        tag=TAG,
        summary="One affinity",
        answers={200: AffinitySerializer},
        errors=(404,),
        reads_coordination=True,
        operation_id="get_affinity",
    )
    def get(self, request: Request, affinity_id: uuid.UUID) -> Response:
        """The affinity."""
        self.only("consistency", "min_index")
        revision = self.read_index()
        return self.answer(AffinitySerializer(selectors.affinity(affinity_id)).data, revision=revision)

    @describes(
        tag=TAG,
        summary="Change an affinity",
        request=ChangedAffinitySerializer,
        answers={200: AffinitySerializer},
        errors=(404,),
        operation_id="update_affinity",
    )
    def patch(self, request: Request, affinity_id: uuid.UUID) -> Response:
        """The affinity as it is now."""
        self.only()
        change = self.body(ChangedAffinitySerializer)
        row = selectors.affinity(affinity_id)
        start = change.get("time_window_start", row.time_window_start)
        end = change.get("time_window_end", row.time_window_end)
        _, revision = services.update_affinity(
            affinity_id,
            actor=self.caller.actor,
            affinity_score=change.get("affinity_score"),
            time_window=(start, end),
            request_id=self.command_id,
        )
        return self.answer(AffinitySerializer(row).data | change, revision=revision)

    @describes(
        tag=TAG,
        summary="Delete an affinity",
        answers={204: None},
        errors=(404,),
        operation_id="delete_affinity",
    )
    def delete(self, request: Request, affinity_id: uuid.UUID) -> Response:
        """Nothing."""
        self.only()
        selectors.affinity(affinity_id)
        revision = services.delete_affinity(affinity_id, actor=self.caller.actor, request_id=self.command_id)
        return self.answer(None, revision=revision, status=204)
