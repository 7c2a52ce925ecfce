"""A list that can be read and acted on, and not written by hand: its rows follow from the replicated log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.templatetags.static import static
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst

from coordination.errors import CoordinationError, NotAvailable, OutcomeUnknown, RejectedError

REASON_MOST = 500

BADGES = {
    "idle": ("badge-calm", "check"),
    "busy": ("badge-info", "play"),
    "paused": ("badge-warn", "pause"),
    "draining": ("badge-warn", "down"),
    "failed": ("badge-needs-now", "cross"),
    "offline": ("", "offline"),
    "healthy": ("badge-calm", "check"),
    "degraded": ("badge-warn", "medium"),
    "unhealthy": ("badge-needs-now", "alert"),
    "pending": ("", "clock"),
    "assigned": ("badge-info", "user"),
    "in_progress": ("badge-info", "play"),
    "completed": ("badge-calm", "check"),
    "cancelled": ("", "pause"),
    "archived": ("", "download"),
    "running": ("badge-info", "play"),
    "expired": ("badge-warn", "clock"),
    "session_lost": ("badge-warn", "offline"),
    "handed_back": ("", "undo"),
    "leader": ("badge-calm", "leader"),
    "follower": ("", "node"),
    "candidate": ("badge-warn", "refresh"),
    "learner": ("badge-info", "download"),
    "joining": ("badge-warn", "download"),
    "removed": ("badge-warn", "offline"),
}


def icon(name: str) -> SafeString:
    """An icon of the sprite; decorative, the word stands beside it."""
    return format_html(
        '<svg class="icon" aria-hidden="true"><use href="{}#i-{}"/></svg>', static("look/icons.svg"), name
    )


def badge(state: str) -> SafeString:
    """Shape, word and colour of a state."""
    kind, shape = BADGES.get(state, ("", "dot"))
    return format_html('<span class="badge {}">{}{}</span>', kind, icon(shape), state.replace("_", " "))


def actor_of(request: HttpRequest) -> str:
    """How the history names an operator who acts here."""
    return f"admin:{request.user.get_username()}"


class Window(admin.ModelAdmin):
    """Read-only, with verbs."""

    show_full_result_count = False
    list_per_page = 50

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The list under the plural of what it lists."""
        title = capfirst(self.opts.verbose_name_plural)
        return super().changelist_view(request, {"title": title, **(extra_context or {})})

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody adds by hand."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody changes by hand."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody deletes by hand."""
        return False

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Whether the actions of this page are for this person."""
        return request.user.has_perm(f"{self.opts.app_label}.change_{self.opts.model_name}")

    def perform(
        self, request: HttpRequest, rows: Sequence[Model], verb: Callable[[Any], object], *, done: str
    ) -> None:
        """`verb` for each row; says how many were `done` ("paused") and why others were not.

        Stops at the first failure of the log itself: the others would wait for it one by one.
        """
        changed = 0
        for row in rows:
            try:
                verb(row)
                changed += 1
            except (NotAvailable, OutcomeUnknown) as error:
                known = (
                    "nothing more was changed"
                    if isinstance(error, NotAvailable)
                    else f"{row} may have changed"
                )
                messages.error(request, f"No answer from the cluster: {known}. Try again in a moment.")
                break
            except RejectedError as error:
                messages.warning(request, f"{row}: {error.detail}.")
            except CoordinationError as error:
                messages.warning(request, f"{row}: {error}.")
        if changed:
            name = self.opts.verbose_name if changed == 1 else self.opts.verbose_name_plural
            messages.success(request, f"{changed} {name} {'was' if changed == 1 else 'were'} {done}.")

    def ask(
        self, request: HttpRequest, rows: QuerySet[Any], *, action: str, title: str, warning: str, verb: str
    ) -> str | HttpResponse:
        """The reason an operator gave for a verb that cannot be undone, or the page that asks for it."""
        reason = request.POST.get("reason", "").replace("\0", "").strip()[:REASON_MOST]
        if request.POST.get("confirmed") and reason:
            return reason
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": title,
            "warning": warning,
            "verb": verb,
            "action": action,
            "rows": rows[:100],
            "count": rows.count(),
            "checkbox_name": ACTION_CHECKBOX_NAME,
            "is_missing": bool(request.POST.get("confirmed")),
            "reason_most": REASON_MOST,
        }
        return TemplateResponse(request, "admin/coordination/ask.html", context)
