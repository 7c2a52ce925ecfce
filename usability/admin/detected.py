"""What was detected and what teachers did about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.timesince import timesince

from usability import services
from usability.admin.app_filter import AppFilter
from usability.admin.window import Window, as_text, numbers_in_words
from usability.errors import UsabilityError
from usability.models import (
    ClassroomMetricsSnapshot,
    FrustrationEvent,
    HelpRequest,
    Intervention,
    TeacherDashboardAlert,
)
from usability.selectors.students import effect_of
from usability.templatetags import gaia


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
    readonly_fields = ["lasted", "reason", "found", "explained", "stored", "by_detector"]
    fieldsets = [
        (
            "What was seen",
            {"fields": ["student", "app_name", "event_type", "severity", "reason", "found", "explained"]},
        ),
        ("When and where", {"fields": ["classroom", "detected_at", "ended_at", "lasted"]}),
        (
            "What was done",
            {"fields": [("acknowledged_at", "acknowledged_by"), ("resolved_at", "resolved_by")]},
        ),
        ("By which rule", {"fields": ["by_detector", "params_version", "revision"]}),
        ("As stored", {"fields": ["id", "created_at", "updated_at", "stored"], "classes": ["collapse"]}),
    ]

    @admin.display(description="why")
    def reason(self, event: FrustrationEvent) -> str:
        return str(event.details.get("reason", "–"))

    @admin.display(description="found")
    def found(self, event: FrustrationEvent) -> str:
        return numbers_in_words(event.details)

    @admin.display(description="what else stood there")
    def explained(self, event: FrustrationEvent) -> str:
        if event.classroom_id is None:
            return "–"
        page = reverse("portal:student", args=[event.classroom_id, event.student_id])
        minute = event.created_at.strftime("%Y-%m-%dT%H:%MZ")
        return format_html('<a href="{}?why={}#why">Explain that minute</a>', page, minute)

    @admin.display(description="details")
    def stored(self, event: FrustrationEvent) -> str:
        return as_text(event.details)

    @admin.display(description="detector")
    def by_detector(self, event: FrustrationEvent) -> str:
        return event.detector.replace("_", " ") or "by hand"

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
    fields = ["at", "teacher", "kind", "note", "what_came_after"]
    readonly_fields = ["what_came_after"]

    @admin.display(description="what came after")
    def what_came_after(self, intervention: Intervention) -> str:
        return effect_in_words(intervention)

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
    ]
    list_filter = [OpenFilter, "severity", "state", "alert_type", "is_interrupting", "created_at"]
    list_select_related = ["classroom"]
    search_fields = ["student__student_id", "classroom__name"]
    date_hierarchy = "created_at"
    ordering = ["-created_at"]
    inlines = [InterventionInline]
    readonly_fields = ["reason", "found", "held_back", "stored", "about"]
    fieldsets = [
        ("What it says", {"fields": ["about", "app_name", "alert_type", "severity", "reason", "found"]}),
        ("Who was told", {"fields": ["classroom", "teacher", "is_interrupting", "held_back"]}),
        ("When", {"fields": [("detected_at", "created_at")]}),
        (
            "What was done",
            {
                "fields": [
                    "state",
                    ("acknowledged_at", "acknowledged_by"),
                    ("helping_at", "helping_by"),
                    ("snoozed_until", "snoozed_by"),
                    ("closed_at", "closed_by"),
                    "note",
                ]
            },
        ),
        (
            "As stored",
            {
                "fields": ["id", "event", ("first_seq", "seq"), "updated_at", "stored"],
                "classes": ["collapse"],
            },
        ),
    ]
    actions = ["resolve", "dismiss"]

    @admin.display(description="pupil")
    def about(self, alert: TeacherDashboardAlert) -> str:
        return alert.student_id or "the whole class"

    @admin.display(description="why")
    def reason(self, alert: TeacherDashboardAlert) -> str:
        return str(alert.details.get("reason", "–"))

    @admin.display(description="found")
    def found(self, alert: TeacherDashboardAlert) -> str:
        return numbers_in_words(alert.details)

    @admin.display(description="why it did not interrupt")
    def held_back(self, alert: TeacherDashboardAlert) -> str:
        return str(alert.details.get("held_back") or "–").replace("_", " ")

    @admin.display(description="details")
    def stored(self, alert: TeacherDashboardAlert) -> str:
        return as_text(alert.details)

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

    readonly_fields = ["student", "before_and_after", "without_help", "stored"]
    fieldsets = [
        ("What was done", {"fields": ["student", "teacher", "kind", "note", "at"]}),
        (
            "What came after",
            {
                "fields": ["before_and_after", "without_help"],
                "description": "What came after is not proof of what helped: help comes when things are worst, "
                "and the worst mostly gets better by itself.",
            },
        ),
        ("As stored", {"fields": ["id", "alert", "stored"], "classes": ["collapse"]}),
    ]

    @admin.display(description="pupil")
    def student(self, intervention: Intervention) -> str:
        return intervention.alert.student_id or "whole class"

    @admin.display(description="what came after")
    def verdict(self, intervention: Intervention) -> str:
        found = effect_of(intervention)
        return gaia.verdict(found) if found else "not measured yet"

    @admin.display(description="before and after")
    def before_and_after(self, intervention: Intervention) -> str:
        return effect_in_words(intervention)

    @admin.display(description="beside moments without help")
    def without_help(self, intervention: Intervention) -> str:
        found = effect_of(intervention)
        return (gaia.beside_unhelped(found) if found else "") or "–"

    @admin.display(description="effect")
    def stored(self, intervention: Intervention) -> str:
        return as_text(intervention.effect)


def effect_in_words(intervention: Intervention) -> str:
    """What came after one intervention, with its counts."""
    found = effect_of(intervention)
    return gaia.in_words(found) if found else "not measured yet"


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
    list_filter = [("app_name", AppFilter), "window_start"]
    list_select_related = ["classroom"]
    search_fields = ["classroom__name"]
    date_hierarchy = "window_start"
    ordering = ["-window_start"]
    readonly_fields = ["stored"]
    fieldsets = [
        ("Which window", {"fields": ["classroom", "app_name", ("window_start", "window_end")]}),
        ("Pupils", {"fields": [("student_count", "active_count", "struggling_student_count")]}),
        ("Signals and ratings", {"fields": ["average_frustration_level", "average_satisfaction_rating"]}),
        (
            "Rates",
            {"fields": [("error_rate", "hint_rate"), ("correction_rate", "completion_rate")]},
        ),
        ("As stored", {"fields": ["id", "updated_at", "stored"], "classes": ["collapse"]}),
    ]

    @admin.display(description="counts")
    def stored(self, snapshot: ClassroomMetricsSnapshot) -> str:
        return as_text(snapshot.snapshot_data)
