"""Tasks and the attempts at them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from coordination import selectors, services
from coordination.admin.window import Window, actor_of, badge
from coordination.errors import NotAvailable, NotFound
from coordination.models import DistributedTask, TaskAttempt

KEY_SHOWN = 40
"""Characters of a key in the list."""


class AttemptInline(admin.TabularInline):
    """The history of a task."""

    model = TaskAttempt
    fields = readonly_fields = (
        "attempt_number",
        "session",
        "claim_token",
        "started_at",
        "ended_at",
        "outcome",
        "error",
    )
    extra = 0
    can_delete = False
    ordering = ("claim_token",)

    def has_add_permission(self, request: HttpRequest, obj: Any) -> bool:
        """They follow from claims."""
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[TaskAttempt]:
        """With the sessions' names."""
        return super().get_queryset(request).select_related("session")


@admin.register(DistributedTask)
class TaskAdmin(Window):
    """Tasks, newest first."""

    change_list_template = "admin/coordination/list.html"
    list_display = (
        "name",
        "task_type",
        "state",
        "priority",
        "claimed_by",
        "tries",
        "lesson",
        "created_at",
        "why",
    )
    list_filter = ("status", "task_type", "created_at", "lesson__project")
    list_select_related = ("claimed_by", "lesson")
    search_fields = ("idempotency_key", "claimed_by__session_name", "lesson__title", "id__exact")
    search_help_text = "Key, id, lesson, or name of the claiming session."
    date_hierarchy = "created_at"
    ordering = ("-created_at", "-id")
    actions = ("requeue", "cancel")
    inlines = (AttemptInline,)

    def get_urls(self) -> list[URLPattern]:
        """The page that explains."""
        view = self.admin_site.admin_view(self.explain_view)
        return [path("<uuid:task_id>/explain/", view, name="coordination_task_explain"), *super().get_urls()]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[DistributedTask], search_term: str
    ) -> tuple[QuerySet[DistributedTask], bool]:
        """By id only where the term is one: PostgreSQL refuses to compare a UUID with other text."""
        try:
            return queryset.filter(pk=UUID(search_term.strip())), False
        except ValueError:
            return super().get_search_results(request, queryset, search_term)

    @admin.display(description="key", ordering="idempotency_key")
    def name(self, task: DistributedTask) -> str:
        """The key, its beginning left out where it is long: the end tells tasks apart."""
        key = task.idempotency_key
        return key if len(key) <= KEY_SHOWN else f"…{key[-KEY_SHOWN:]}"

    @admin.display(description="status", ordering="status")
    def state(self, task: DistributedTask) -> SafeString:
        """The status as a badge."""
        return badge(task.status)

    @admin.display(description="tries", ordering="retry_count")
    def tries(self, task: DistributedTask) -> str:
        """Retries of those allowed."""
        return f"{task.retry_count} of {task.max_retries}"

    @admin.display(description="why")
    def why(self, task: DistributedTask) -> SafeString | str:
        """The way to the explanation while there is something to explain."""
        if task.is_final():
            return "–"
        return format_html(
            '<a href="{}">explain</a>', reverse("admin:coordination_task_explain", args=[task.pk])
        )

    def explain_view(self, request: HttpRequest, task_id: Any) -> HttpResponse:
        """Why the task is, or is not, with the session it is with."""
        if not self.has_view_permission(request):
            return HttpResponse(status=403)
        try:
            task = selectors.task(task_id)
        except NotFound as error:
            raise Http404(str(error)) from error
        explained: dict[str, Any] | None = None
        try:
            explained = services.explain_task(task_id)
        except NotAvailable as error:
            messages.error(request, f"No answer from the cluster: {error.detail}.")
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"Why {task.idempotency_key} is {task.get_status_display()}",
            "task": task,
            "state": badge(task.status),
            "explained": explained,
            "facts": _facts(explained or {}),
            "candidates": _candidates(explained or {}),
        }
        return TemplateResponse(request, "admin/coordination/explain.html", context)

    @admin.action(description="Requeue: try again, retries counted anew", permissions=["operate"])
    def requeue(self, request: HttpRequest, tasks: QuerySet[DistributedTask]) -> None:
        """Retry each."""
        actor = actor_of(request)
        self.perform(request, tasks, lambda row: services.retry(row.pk, actor=actor), done="requeued")

    @admin.action(description="Cancel", permissions=["operate"])
    def cancel(self, request: HttpRequest, tasks: QuerySet[DistributedTask]) -> HttpResponse | None:
        """Cancel each, with a reason."""
        reason = self.ask(
            request,
            tasks,
            action="cancel",
            title="Cancel these tasks?",
            warning="Who holds one is told with the next heartbeat and cannot hand in a result any more. "
            "Tasks that depend on it fail or are released, as they ask.",
            verb="Cancel tasks",
        )
        if isinstance(reason, HttpResponse):
            return reason
        actor = actor_of(request)
        self.perform(
            request, tasks, lambda row: services.cancel(row.pk, actor=actor, reason=reason), done="cancelled"
        )
        return None


def _facts(explained: dict[str, Any]) -> list[tuple[str, str]]:
    """What an explanation says of the task itself, in words."""
    if not explained:
        return []
    obstacles = [_words(reason) for reason in explained["obstacles"]]
    facts = [
        ("Status", _words(explained["status"])),
        ("Waits for", f"{explained['waited_ms'] / 1000:.1f} s"),
        ("In its way", ", ".join(obstacles) or "nothing of its own"),
    ]
    return facts + ([("With", explained["session_name"])] if explained["session_name"] else [])


def _candidates(explained: dict[str, Any]) -> list[tuple[str, str, dict[str, str]]]:
    """The sessions that were considered, best first: name, finding, and the score with its parts from 0 to 1."""
    return [
        (
            one["session_name"],
            ", ".join(_words(reason) for reason in one["reasons"]) or "suits",
            {part: f"{value / 1000:.2f}" for part, value in (one["score"] or {}).items()},
        )
        for one in explained.get("candidates", ())
    ]


def _words(reason: str) -> str:
    return reason.replace("_", " ")


@admin.register(TaskAttempt)
class AttemptAdmin(Window):
    """Every claim of every task."""

    list_display = ("started_at", "task", "attempt_number", "session", "state", "lasted", "error")
    list_filter = ("outcome", "started_at")
    list_select_related = ("task", "session")
    search_fields = ("session__session_name", "task__idempotency_key")
    search_help_text = "Name of the session or key of the task."
    ordering = ("-started_at",)

    @admin.display(description="outcome", ordering="outcome")
    def state(self, attempt: TaskAttempt) -> SafeString:
        """The outcome as a badge."""
        return badge(attempt.outcome)

    @admin.display(description="lasted")
    def lasted(self, attempt: TaskAttempt) -> str:
        """From claim to end."""
        if attempt.ended_at is None:
            return "–"
        return f"{(attempt.ended_at - attempt.started_at).total_seconds():.1f} s"
