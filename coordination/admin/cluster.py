"""The cluster and its history.

The page stands at the projection's watermark, for that is the row that says how far the rows follow. Events
have a key of two columns, which Django's lists cannot show; their page is our own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from coordination import selectors, services
from coordination.admin.window import Window, badge
from coordination.errors import CoordinationError, NotAvailable
from coordination.models import CoordinationEvent, ProjectionState

EVENTS_SHOWN = 100
_NODE_ID = re.compile(r"[A-Za-z0-9._-]{1,255}")
_ADDRESS = re.compile(r"[A-Za-z0-9.\[\]:_-]{1,249}:\d{1,5}")


@admin.register(ProjectionState)
class ClusterAdmin(Window):
    """Members, roles, lag; add, remove, hand over; and the audit log."""

    def get_urls(self) -> list[URLPattern]:
        """Our pages before Django's."""
        wrap = self.admin_site.admin_view
        return [
            path("transfer/", wrap(self.transfer_view), name="coordination_cluster_transfer"),
            path("add/", wrap(self.add_member_view), name="coordination_cluster_add"),
            path("remove/", wrap(self.remove_member_view), name="coordination_cluster_remove"),
            path("events/", wrap(self.events_view), name="coordination_events"),
            *super().get_urls(),
        ]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The cluster in one sentence, its members, and how far each is."""
        self._check_view(request)
        status = None
        try:
            status = services.cluster_status()
        except NotAvailable as error:
            messages.error(request, f"No answer from the cluster: {error.detail}.")
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Cluster",
            "status": status,
            "sentence": sentence_of(status),
            "members": [(member, badge(member.role)) for member in status.members] if status else [],
            "projected": ProjectionState.objects.first(),
            "may_operate": self.has_operate_permission(request),
        }
        return TemplateResponse(request, "admin/coordination/cluster.html", context)

    def transfer_view(self, request: HttpRequest) -> HttpResponse:
        """Hands leadership to the member that was chosen."""
        if not self.has_operate_permission(request):
            raise PermissionDenied
        node_id = request.POST.get("node_id", "")
        if request.method == "POST" and _NODE_ID.fullmatch(node_id):
            try:
                services.transfer_leadership(node_id)
                messages.success(request, f"{node_id} leads now.")
            except CoordinationError as error:
                messages.error(request, f"Leadership was not handed over: {error}.")
        return HttpResponseRedirect(reverse("admin:coordination_projectionstate_changelist"))

    def add_member_view(self, request: HttpRequest) -> HttpResponse:
        """Takes the member in that the form names."""
        if not self.has_operate_permission(request):
            raise PermissionDenied
        node_id, address = (request.POST.get(name, "").strip() for name in ("node_id", "address"))
        if request.method == "POST":
            if not _NODE_ID.fullmatch(node_id) or not _ADDRESS.fullmatch(address):
                messages.error(request, "A member has an id of A-Z a-z 0-9 . _ - and an address HOST:PORT.")
            else:
                self._change(
                    request,
                    lambda: services.add_member(node_id, address),
                    f"{node_id} is a member: it learns first and votes once it keeps up.",
                )
        return HttpResponseRedirect(reverse("admin:coordination_projectionstate_changelist"))

    def remove_member_view(self, request: HttpRequest) -> HttpResponse:
        """Asks once more, then sends the chosen member away."""
        if not self.has_operate_permission(request):
            raise PermissionDenied
        node_id = request.POST.get("node_id", "")
        if request.method == "POST" and _NODE_ID.fullmatch(node_id):
            if not request.POST.get("confirmed"):
                context = {
                    **self.admin_site.each_context(request),
                    "opts": self.opts,
                    "title": f"Remove {node_id}?",
                    "node_id": node_id,
                }
                return TemplateResponse(request, "admin/coordination/cluster_remove.html", context)
            self._change(
                request, lambda: services.remove_member(node_id), f"{node_id} is no member any more."
            )
        return HttpResponseRedirect(reverse("admin:coordination_projectionstate_changelist"))

    def _change(self, request: HttpRequest, change: Callable[[], object], done: str) -> None:
        try:
            change()
            messages.success(request, done)
        except CoordinationError as error:
            messages.error(request, f"The members were not changed: {error}.")

    def events_view(self, request: HttpRequest) -> HttpResponse:
        """The audit log, newest first, by kind, subject or actor."""
        self._check_view(request)
        asked = {
            name: request.GET.get(name, "").replace("\0", "").strip()[:300]
            for name in ("kind", "subject", "actor")
        }
        before = request.GET.get("before", "")
        rows = CoordinationEvent.objects.filter(**{name: value for name, value in asked.items() if value})
        if before.isascii() and before.isdigit() and len(before) < 19:
            rows = rows.filter(raft_index__lt=int(before))
        found = list(rows.order_by("-raft_index", "-sequence")[:EVENTS_SHOWN])
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Audit log",
            "asked": asked,
            "events": [(event, _data(event.data)) for event in found],
            "older": found[-1].raft_index if len(found) == EVENTS_SHOWN else None,
            "watermark": selectors.projected_revision(),
        }
        return TemplateResponse(request, "admin/coordination/events.html", context)

    def _check_view(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied


def _data(data: dict[str, Any]) -> str:
    """The facts of an event in a line: names and values, the empty ones left out."""
    facts = {name: value for name, value in data.items() if value not in (None, "", [], {})}
    return " · ".join(
        f"{name} {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in facts.items()
    )


def sentence_of(status: services.ClusterStatus | None) -> str:
    """Healthy or not, and how many failures are left."""
    if status is None:
        return "No node answers: nothing can be registered, claimed or completed."
    if not status.leader:
        return "No leader: nothing can be changed until one is elected."
    voters = sum(member.role != "learner" for member in status.members)
    spare = (voters - 1) // 2
    left = "one node, none may fail" if voters <= 1 else f"{spare} of {voters} may fail"
    return f"{'Healthy' if status.healthy else 'In trouble'}: {status.leader} leads, {left}."
