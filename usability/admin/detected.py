"""What was detected and what teachers did about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.timesince import timesince

from usability import services
from usability.admin.window import Window
from usability.errors import UsabilityError
from usability.models import (
    ClassroomMetricsSnapshot,
    FrustrationEvent,
    HelpRequest,
    Intervention,
    TeacherDashboardAlert,
)


class OpenFilter(admin.SimpleListFilter):
    title = "open"
    parameter_name = "open"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "open"), ("no", "closed")]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        if self.value() == "yes":
            return queryset.open()
        if self.value() == "no":
            return queryset.exclude(pk__in=queryset.open().values("pk"))
        return queryset


def each(request: HttpRequest, rows: QuerySet, verb: Callable[..., Any], done: str) -> None:
    """Call a service for each chosen row and say how many it took; a refused one is told by its reason."""
    taken = 0
    for row in rows:
        try:
            verb(row.pk, who=request.user)
            taken += 1
        except UsabilityError as refusal:
            messages.warning(request, f"{row}: {refusal.detail}")
    if taken:
        messages.success(request, f"{taken} {done}.")


@admin.register(FrustrationEvent)
class FrustrationEventAdmin(Window):
    list_display = [
        "detected_at",
        "student_id",
        "app_name",
        "event_type",
        "severity",
        "lasted",
        "classroom",
        "resolved_by",
    ]
    list_filter = [OpenFilter, "severity", "event_type", "app_name", "detected_at"]
    list_select_related = ["classroom", "resolved_by"]
    search_fields = ["student__student_id"]
    date_hierarchy = "detected_at"
    ordering = ["-detected_at"]
    actions = ["acknowledge", "resolve"]

    @admin.display(description="lasted")
    def lasted(self, event: FrustrationEvent) -> str:
        end = event.ended_at or event.resolved_at
        return timesince(event.detected_at, end) if end else "open"

    @admin.action(description="Acknowledge", permissions=["view"])
    def acknowledge(self, request: HttpRequest, queryset: QuerySet) -> None:
        each(request, queryset, services.acknowledge_event, "acknowledged")

    @admin.action(description="Resolve", permissions=["view"])
    def resolve(self, request: HttpRequest, queryset: QuerySet) -> None:
        each(request, queryset, services.resolve_event, "resolved")


class InterventionInline(admin.TabularInline):
    model = Intervention
    extra = 0
    can_delete = False
    fields = ["at", "teacher", "kind", "note", "effect"]

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(TeacherDashboardAlert)
class TeacherDashboardAlertAdmin(Window):
    list_display = [
        "created_at",
        "classroom",
        "student_id",
        "alert_type",
        "severity",
        "state",
        "is_interrupting",
        "seq",
    ]
    list_filter = [OpenFilter, "severity", "state", "alert_type", "is_interrupting", "created_at"]
    list_select_related = ["classroom"]
    search_fields = ["student__student_id", "classroom__name"]
    date_hierarchy = "created_at"
    ordering = ["-created_at"]
    inlines = [InterventionInline]
    actions = ["resolve", "dismiss"]

    @admin.action(description="Resolve", permissions=["view"])
    def resolve(self, request: HttpRequest, queryset: QuerySet) -> None:
        each(request, queryset, services.resolve_alert, "resolved")

    @admin.action(description="Dismiss as not a problem", permissions=["view"])
    def dismiss(self, request: HttpRequest, queryset: QuerySet) -> None:
        each(request, queryset, services.dismiss_alert, "dismissed")


@admin.register(Intervention)
class InterventionAdmin(Window):
    list_display = ["at", "teacher", "kind", "student", "verdict", "note"]
    list_filter = ["kind", "at"]
    list_select_related = ["teacher", "alert"]
    search_fields = ["alert__student__student_id", "teacher__username"]
    ordering = ["-at"]

    @admin.display(description="pupil")
    def student(self, intervention: Intervention) -> str:
        return intervention.alert.student_id or "whole class"

    @admin.display(description="what came after")
    def verdict(self, intervention: Intervention) -> str:
        return (intervention.effect or {}).get("verdict", "not measured yet")


@admin.register(HelpRequest)
class HelpRequestAdmin(Window):
    list_display = ["requested_at", "student_id", "app_name", "classroom", "state"]
    list_filter = ["app_name", "requested_at"]
    list_select_related = ["classroom", "alert"]
    search_fields = ["student__student_id"]
    ordering = ["-requested_at"]


@admin.register(ClassroomMetricsSnapshot)
class ClassroomMetricsSnapshotAdmin(Window):
    list_display = [
        "window_start",
        "classroom",
        "app_name",
        "student_count",
        "active_count",
        "struggling_student_count",
        "average_frustration_level",
        "average_satisfaction_rating",
    ]
    list_filter = ["app_name", "window_start"]
    list_select_related = ["classroom"]
    search_fields = ["classroom__name"]
    date_hierarchy = "window_start"
    ordering = ["-window_start"]
