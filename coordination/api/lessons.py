"""Lessons: groups of tasks with one objective."""

from __future__ import annotations

import uuid
from typing import Any

import django_filters
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from coordination import access, selectors, services
from coordination.api.endpoint import CoordinationEndpoint
from coordination.api.fields import ObjectField, StrictBooleanField, StrictCharField, StrictIntegerField
from coordination.api.filters import choices_filter
from coordination.errors import NotFound
from coordination.models import Lesson, LessonStatus
from coordination.services.sessions import METADATA_BYTES_MAX
from gaia_site.api.endpoint import StrictSerializer
from gaia_site.pagination import filtered, page
from gaia_site.problems import invalid
from gaia_site.schema import describes, list_parameters, page_of

TAG = "lessons"
ORDERINGS = ("-created_at", "priority", "updated_at")
AGENTS = ("agent", "admin")
PRIORITY_MOST = 1_000
DESCRIPTION_MOST = 20_000
MINUTES_MOST = 1_000_000


class LessonSerializer(serializers.ModelSerializer):
    """A group of tasks. Counters and status follow its tasks."""

    project = serializers.SlugRelatedField(slug_field="name", read_only=True, allow_null=True)
    project_id = serializers.UUIDField(allow_null=True, read_only=True)
    percent = serializers.FloatField(source="progress_percentage", read_only=True)

    class Meta:
        model = Lesson
        fields = (
            "id",
            "project",
            "project_id",
            "title",
            "description",
            "status",
            "priority",
            "tasks_total",
            "tasks_completed",
            "tasks_failed",
            "percent",
            "estimated_duration_minutes",
            "metadata",
            "created_at",
            "updated_at",
        )
        read_only_fields = fields


class NewLessonSerializer(StrictSerializer):
    """What a lesson is."""

    project = StrictCharField(
        max_length=255,
        required=False,
        allow_null=True,
        allow_blank=True,
        default=None,
        help_text="Name of the grouping, made if new, or its id.",
    )
    title = StrictCharField(max_length=255)
    description = StrictCharField(max_length=DESCRIPTION_MOST, allow_blank=True, default="")
    priority = StrictIntegerField(min_value=-PRIORITY_MOST, max_value=PRIORITY_MOST, default=0)
    estimated_duration_minutes = StrictIntegerField(
        min_value=0, max_value=MINUTES_MOST, required=False, allow_null=True, default=None
    )
    metadata = ObjectField(bytes_most=METADATA_BYTES_MAX, default=dict)


class ChangedLessonSerializer(StrictSerializer):
    """What may be changed."""

    project = StrictCharField(max_length=255, required=False, allow_null=True, allow_blank=True)
    title = StrictCharField(max_length=255, required=False)
    description = StrictCharField(max_length=DESCRIPTION_MOST, allow_blank=True, required=False)
    priority = StrictIntegerField(min_value=-PRIORITY_MOST, max_value=PRIORITY_MOST, required=False)
    estimated_duration_minutes = StrictIntegerField(
        min_value=0, max_value=MINUTES_MOST, required=False, allow_null=True
    )
    metadata = ObjectField(bytes_most=METADATA_BYTES_MAX, required=False)
    archived = StrictBooleanField(required=False, help_text="true archives it, false opens it again.")


class ProgressSerializer(serializers.Serializer):
    """How far a lesson is."""

    tasks_total = serializers.IntegerField()
    tasks_completed = serializers.IntegerField()
    tasks_failed = serializers.IntegerField()
    tasks_pending = serializers.IntegerField()
    tasks_running = serializers.IntegerField()
    percent = serializers.FloatField()
    eta_s = serializers.FloatField(allow_null=True, help_text="Null before the first completion.")


class LessonFilter(django_filters.FilterSet):
    """Which lessons."""

    status = choices_filter(LessonStatus)
    project = django_filters.CharFilter(field_name="project__name", help_text="The project's name.")

    class Meta:
        model = Lesson
        fields: tuple[str, ...] = ()


class Lessons(CoordinationEndpoint):
    """All lessons."""

    scopes = {"GET": AGENTS, "POST": AGENTS}

    @describes(
        tag=TAG,
        summary="List lessons",
        answers={200: page_of(LessonSerializer)},
        parameters=list_parameters(LessonFilter, ORDERINGS),
        reads_coordination=True,
        operation_id="list_lessons",
    )
    def get(self, request: Request) -> Response:
        """One page."""
        rows = filtered(
            LessonFilter, request.query_params, access.lessons(self.caller).select_related("project")
        )
        revision = self.read_index()
        found = page(request, rows, orderings=ORDERINGS)
        return self.answer(found.as_json(LessonSerializer(found.rows, many=True).data), revision=revision)

    @describes(
        tag=TAG,
        summary="Create a lesson",
        request=NewLessonSerializer,
        answers={201: LessonSerializer},
        operation_id="create_lesson",
    )
    def post(self, request: Request) -> Response:
        """The lesson."""
        self.only()
        wish = self.body(NewLessonSerializer)
        lesson = _with_known_project(services.create_lesson, **wish)
        return self.answer(LessonSerializer(lesson).data, revision=self.index_of_rows(), status=201)


class OneLesson(CoordinationEndpoint):
    """One lesson."""

    scopes = {"GET": AGENTS, "PATCH": AGENTS, "DELETE": AGENTS}

    @describes(
        tag=TAG,
        summary="One lesson",
        answers={200: LessonSerializer},
        errors=(404,),
        reads_coordination=True,
        operation_id="get_lesson",
    )
    def get(self, request: Request, lesson_id: uuid.UUID) -> Response:
        """The lesson."""
        self.only("consistency", "min_index")
        revision = self.read_index()
        return self.answer(LessonSerializer(selectors.lesson(lesson_id)).data, revision=revision)

    @describes(
        tag=TAG,
        summary="Change a lesson",
        request=ChangedLessonSerializer,
        answers={200: LessonSerializer},
        errors=(404,),
        operation_id="update_lesson",
    )
    def patch(self, request: Request, lesson_id: uuid.UUID) -> Response:
        """The lesson as it is now."""
        self.only()
        change = self.body(ChangedLessonSerializer)
        archived = change.pop("archived", None)
        selectors.lesson(lesson_id)
        lesson = _with_known_project(services.update_lesson, lesson_id, **change)
        shown, revision = LessonSerializer(lesson).data, self.index_of_rows()
        if archived is not None:
            status, revision = services.archive_lesson(
                lesson_id, actor=self.caller.actor, archived=archived, request_id=self.command_id
            )
            shown["status"] = status
        return self.answer(shown, revision=revision)

    @describes(
        tag=TAG,
        summary="Delete a lesson",
        about="Its tasks stay, without lesson.",
        answers={204: None},
        errors=(404,),
        operation_id="delete_lesson",
    )
    def delete(self, request: Request, lesson_id: uuid.UUID) -> Response:
        """Nothing."""
        self.only()
        revision = services.delete_lesson(lesson_id, actor=self.caller.actor, request_id=self.command_id)
        return self.answer(None, revision=revision, status=204)


class Progress(CoordinationEndpoint):
    """How far a lesson is."""

    scopes = {"GET": AGENTS}

    @describes(
        tag=TAG,
        summary="Progress of a lesson",
        answers={200: ProgressSerializer},
        errors=(404,),
        reads_coordination=True,
        operation_id="get_lesson_progress",
    )
    def get(self, request: Request, lesson_id: uuid.UUID) -> Response:
        """Counts, percent and an estimate."""
        self.only("consistency", "min_index")
        revision = self.read_index()
        progress = selectors.lesson_progress(lesson_id)
        return self.answer(ProgressSerializer(progress).data, revision=revision)


def _with_known_project(service: Any, *arguments: Any, **values: Any) -> Lesson:
    """The service's lesson; a project id that does not exist is an error of the body."""
    try:
        return service(*arguments, **values)
    except NotFound as error:
        if error.kind != "project":
            raise
        raise invalid(("body", "project"), f"There is no project {error.name}.") from error
