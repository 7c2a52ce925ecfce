"""The fleet: every session, the troubled ones first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib import admin
from django.db.models import Case, IntegerField, QuerySet, Value, When
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from coordination import selectors, services
from coordination.admin.window import Window, actor_of, badge
from coordination.models import ClaudeSession, SessionAffinity, SessionStatus, TaskAttempt

TROUBLE_FIRST = ("failed", "offline", "draining", "paused")
ATTEMPTS_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Count:
    """One counter of the overview, which is also a filter."""

    word: str
    number: int
    address: str
    is_current: bool
    is_bad: bool


def session_counts(status: str | None) -> list[Count]:
    """How many sessions there are in each state; `status` is the one looked at."""
    address = reverse("admin:coordination_claudesession_changelist")
    by_status = selectors.fleet().sessions_by_status
    counts = [Count("all", sum(by_status.values()), address, status is None, is_bad=False)]
    return counts + [
        Count(
            word,
            by_status.get(word, 0),
            f"{address}?status__exact={word}",
            status == word,
            is_bad=word == "failed" and by_status.get(word, 0) > 0,
        )
        for word in SessionStatus.values
    ]


class AffinityInline(admin.TabularInline):
    """What the session suits."""

    model = SessionAffinity
    fields = readonly_fields = (
        "lesson",
        "affinity_score",
        "time_window_start",
        "time_window_end",
        "last_used",
    )
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any) -> bool:
        """Through the API."""
        return False


class AttemptInline(admin.TabularInline):
    """What the session has done lately."""

    model = TaskAttempt
    fields = readonly_fields = ("task", "attempt_number", "started_at", "ended_at", "outcome", "error")
    extra = 0
    can_delete = False
    ordering = ("-started_at",)
    verbose_name_plural = "last attempts"

    def has_add_permission(self, request: HttpRequest, obj: Any) -> bool:
        """They follow from claims."""
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[TaskAttempt]:
        """The last ones of the session that is looked at."""
        match = request.resolver_match
        session_id = match.kwargs.get("object_id") if match else None
        last = TaskAttempt.objects.filter(session_id=session_id).order_by("-started_at")[:ATTEMPTS_SHOWN]
        return TaskAttempt.objects.filter(pk__in=list(last.values_list("pk", flat=True))).select_related(
            "task"
        )


@admin.register(ClaudeSession)
class SessionAdmin(Window):
    """Sessions with their leases, loads and failures."""

    list_display = (
        "session_name",
        "state",
        "health",
        "kind",
        "load_now",
        "lease",
        "failures",
        "lesson",
        "done",
    )
    list_filter = ("status", "health_status", "tier", "provider", "user")
    list_select_related = ("lesson",)
    search_fields = ("session_name", "lesson__title")
    search_help_text = "Name of the session or title of its lesson."
    actions = ("pause", "resume", "drain", "mark_failed")
    inlines = (AttemptInline, AffinityInline)
    change_list_template = "admin/coordination/fleet.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[ClaudeSession]:
        """Failed and leaving sessions first, then by name."""
        trouble = [When(status=status, then=Value(place)) for place, status in enumerate(TROUBLE_FIRST)]
        rank = Case(*trouble, default=Value(len(TROUBLE_FIRST)), output_field=IntegerField())
        return super().get_queryset(request).annotate(trouble=rank).order_by("trouble", "session_name")

    def get_urls(self) -> list[URLPattern]:
        """The counters alone, for refreshing them."""
        view = self.admin_site.admin_view(self.counts_view)
        return [path("counts/", view, name="coordination_fleet_counts"), *super().get_urls()]

    def counts_view(self, request: HttpRequest) -> HttpResponse:
        """The counters as a fragment."""
        if not self.has_view_permission(request):
            return HttpResponse(status=403)
        return TemplateResponse(request, "admin/coordination/_counts.html", self._overview(request))

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The list under its counters."""
        return super().changelist_view(
            request, {"title": "Fleet", **self._overview(request), **(extra_context or {})}
        )

    def _overview(self, request: HttpRequest) -> dict[str, Any]:
        status = request.GET.get("status__exact")
        return {
            "counts": session_counts(status),
            "fleet": selectors.fleet(),
            "counted_at": timezone.now(),
            "counts_query": f"?status__exact={status}" if status in SessionStatus.values else "",
        }

    @admin.display(description="status", ordering="status")
    def state(self, session: ClaudeSession) -> SafeString:
        """The status as a badge."""
        return badge(session.status)

    @admin.display(description="health", ordering="health_status")
    def health(self, session: ClaudeSession) -> SafeString:
        """The health as a badge."""
        return badge(session.health_status)

    @admin.display(description="tier, provider", ordering="tier")
    def kind(self, session: ClaudeSession) -> str:
        """Which kind of agent it is."""
        return f"{session.get_tier_display()}, {session.get_provider_display()}"

    @admin.display(description="load", ordering="current_task_count")
    def load_now(self, session: ClaudeSession) -> SafeString:
        """Places taken of all."""
        taken, places = session.current_task_count, session.max_concurrent_tasks
        return format_html(
            '<meter class="meter" min="0" max="{}" value="{}">{}</meter>{} of {}',
            places,
            taken,
            taken,
            taken,
            places,
        )

    @admin.display(description="lease", ordering="lease_expires_at")
    def lease(self, session: ClaudeSession) -> str:
        """How long it still runs."""
        return left(session.lease_expires_at, timezone.now())

    @admin.display(description="failures in a row", ordering="consecutive_failures")
    def failures(self, session: ClaudeSession) -> int:
        """Tasks failed since the last success."""
        return session.consecutive_failures

    @admin.display(description="done / failed", ordering="tasks_completed")
    def done(self, session: ClaudeSession) -> str:
        """Tasks over its life."""
        return f"{session.tasks_completed} / {session.tasks_failed}"

    @admin.action(description="Pause: keep tasks, take no more", permissions=["operate"])
    def pause(self, request: HttpRequest, sessions: QuerySet[ClaudeSession]) -> None:
        """Pause each."""
        actor = actor_of(request)
        self.perform(
            request,
            sessions,
            lambda row: services.pause_session(row.session_name, actor=actor),
            done="paused",
        )

    @admin.action(description="Resume: take tasks again", permissions=["operate"])
    def resume(self, request: HttpRequest, sessions: QuerySet[ClaudeSession]) -> None:
        """Resume each."""
        actor = actor_of(request)
        self.perform(
            request,
            sessions,
            lambda row: services.resume_session(row.session_name, actor=actor),
            done="resumed",
        )

    @admin.action(description="Drain: finish tasks, take no more", permissions=["operate"])
    def drain(self, request: HttpRequest, sessions: QuerySet[ClaudeSession]) -> None:
        """Drain each."""
        actor = actor_of(request)
        self.perform(
            request,
            sessions,
            lambda row: services.drain_session(row.session_name, actor=actor),
            done="told to drain",
        )

    @admin.action(description="Mark as failed: give its tasks to others", permissions=["operate"])
    def mark_failed(self, request: HttpRequest, sessions: QuerySet[ClaudeSession]) -> HttpResponse | None:
        """Fail each, with a reason."""
        reason = self.ask(
            request,
            sessions,
            action="mark_failed",
            title="Mark as failed?",
            warning="Their tasks go back to the queue now, with one try counted, and their locks are freed. "
            "They get no new tasks until resumed.",
            verb="Mark as failed",
        )
        if isinstance(reason, HttpResponse):
            return reason
        actor = actor_of(request)
        self.perform(
            request,
            sessions,
            lambda row: services.fail_session(row.session_name, reason, actor=actor),
            done="marked as failed",
        )
        return None


def left(until: datetime | None, now: datetime) -> str:
    """The time until a moment as an operator reads it."""
    if until is None:
        return "–"
    seconds = round((until - now).total_seconds())
    if seconds < 0:
        return f"over for {_span(-seconds)}"
    return f"{_span(seconds)} left"


def _span(seconds: int) -> str:
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h"
