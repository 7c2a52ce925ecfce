"""Locks that are held."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from coordination import services
from coordination.admin.sessions import left
from coordination.admin.window import Window, actor_of
from coordination.models import DistributedLock


@admin.register(DistributedLock)
class LockAdmin(Window):
    """Who holds what, and until when."""

    change_list_template = "admin/coordination/list.html"
    list_display = ("lock_key", "owner_id", "ends", "fencing_token", "renewed_count", "acquired_at")
    search_fields = ("lock_key", "owner_id")
    search_help_text = "Key or owner."
    list_filter = ("acquired_at",)
    ordering = ("expires_at",)
    actions = ("force_release",)

    @admin.display(description="ends", ordering="expires_at")
    def ends(self, lock: DistributedLock) -> str:
        """How long it is held still."""
        return left(lock.expires_at, timezone.now())

    @admin.action(description="Force release", permissions=["operate"])
    def force_release(self, request: HttpRequest, locks: QuerySet[DistributedLock]) -> HttpResponse | None:
        """Free each, whoever holds it, with a reason."""
        reason = self.ask(
            request,
            locks,
            action="force_release",
            title="Take these locks from their holders?",
            warning="The holders are not asked and may still be at work: only what checks the fencing token is safe. "
            "The next waiter gets the lock at once.",
            verb="Force release",
        )
        if isinstance(reason, HttpResponse):
            return reason
        actor = actor_of(request)
        self.perform(
            request,
            locks,
            lambda row: services.force_release_lock(row.lock_key, reason, actor=actor),
            done="freed",
        )
        return None
