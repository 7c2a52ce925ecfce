"""Lessons, their projects, and which sessions suit them."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from coordination import services
from coordination.admin.window import Window, actor_of, badge
from coordination.models import Lesson, Project, SessionAffinity


@admin.register(Lesson)
class LessonAdmin(Window):
    """Lessons and how far they are."""

    change_list_template = "admin/coordination/list.html"
    list_display = ("title", "project", "state", "priority", "progress", "failed", "created_at")
    list_filter = ("status", "project", "created_at")
    list_select_related = ("project",)
    search_fields = ("title", "project__name")
    search_help_text = "Title or project."
    ordering = ("-priority", "created_at")
    actions = ("archive", "open_again")

    @admin.display(description="status", ordering="status")
    def state(self, lesson: Lesson) -> SafeString:
        """The status as a badge."""
        return badge(lesson.status)

    @admin.display(description="progress", ordering="tasks_completed")
    def progress(self, lesson: Lesson) -> SafeString:
        """Completed tasks of all."""
        return format_html(
            '<meter class="meter" min="0" max="{}" value="{}">{} %</meter>{} of {}',
            max(1, lesson.tasks_total),
            lesson.tasks_completed,
            round(lesson.progress_percentage()),
            lesson.tasks_completed,
            lesson.tasks_total,
        )

    @admin.display(description="failed", ordering="tasks_failed")
    def failed(self, lesson: Lesson) -> int:
        """Tasks in the dead letter."""
        return lesson.tasks_failed

    @admin.action(description="Archive", permissions=["operate"])
    def archive(self, request: HttpRequest, lessons: QuerySet[Lesson]) -> None:
        """Archive each."""
        actor = actor_of(request)
        self.perform(
            request, lessons, lambda row: services.archive_lesson(row.pk, actor=actor), done="archived"
        )

    @admin.action(description="Open again", permissions=["operate"])
    def open_again(self, request: HttpRequest, lessons: QuerySet[Lesson]) -> None:
        """Take each out of the archive."""
        actor = actor_of(request)
        self.perform(
            request,
            lessons,
            lambda row: services.archive_lesson(row.pk, actor=actor, archived=False),
            done="opened again",
        )


@admin.register(Project)
class ProjectAdmin(Window):
    """Groupings of lessons."""

    list_display = ("name", "lessons_count", "created_at")
    search_fields = ("name",)
    ordering = ("name",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Project]:
        """With the number of lessons."""
        return super().get_queryset(request).annotate(n=Count("lessons"))

    @admin.display(description="lessons", ordering="n")
    def lessons_count(self, project: Project) -> int:
        """How many lessons."""
        return project.n


@admin.register(SessionAffinity)
class AffinityAdmin(Window):
    """Which session suits which lesson."""

    list_display = (
        "session",
        "lesson",
        "affinity_score",
        "time_window_start",
        "time_window_end",
        "last_used",
    )
    list_select_related = ("session", "lesson")
    search_fields = ("session__session_name", "lesson__title")
    search_help_text = "Name of the session or title of the lesson."
    ordering = ("session__session_name", "-affinity_score")
    actions = ("forget",)

    @admin.action(description="Forget", permissions=["operate"])
    def forget(self, request: HttpRequest, affinities: QuerySet[SessionAffinity]) -> None:
        """Delete each."""
        actor = actor_of(request)
        self.perform(
            request, affinities, lambda row: services.delete_affinity(row.pk, actor=actor), done="forgotten"
        )
