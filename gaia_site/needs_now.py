"""What needs an operator now, over both halves: the first thing on the admin's index."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone

from coordination import selectors, services
from coordination.admin.cluster import sentence_of
from coordination.errors import NotAvailable
from usability.models import Student, TeacherDashboardAlert

ADDRESS = "admin:{}_changelist"


@dataclass(frozen=True, slots=True)
class Need:
    """One counter, which leads to the rows it counts; `is_bad` once somebody should look."""

    number: int
    word: str
    address: str
    is_bad: bool


def picture(user: Any) -> dict[str, Any]:
    """The state of the cluster in a sentence and the counters of what this person may see."""
    cluster = None
    with suppress(NotAvailable):  # the sentence says that nobody answers
        cluster = services.cluster_status()
    return {
        "sentence": sentence_of(cluster),
        "is_healthy": cluster is not None and cluster.healthy,
        "may_see_cluster": user.has_perm("coordination.view_projectionstate"),
        "needs": [*_coordination(user), *_usability(user)],
        "counted_at": timezone.now(),
    }


def fragment(request: HttpRequest) -> HttpResponse:
    """The same alone, for refreshing it."""
    return TemplateResponse(request, "admin/_needs_now.html", picture(request.user))


def _coordination(user: Any) -> list[Need]:
    fleet = selectors.fleet()
    sessions, tasks = fleet.sessions_by_status, fleet.tasks_by_status
    found = []
    if user.has_perm("coordination.view_claudesession"):
        found.append(
            _need(sessions.get("failed", 0), "sessions failed", "coordination_claudesession", "failed")
        )
    if user.has_perm("coordination.view_distributedtask"):
        found.append(
            _need(tasks.get("failed", 0), "tasks failed for good", "coordination_distributedtask", "failed")
        )
        waiting = tasks.get("pending", 0)
        stuck = waiting > 0 and fleet.sessions_available == 0
        address = _address("coordination_distributedtask", "status__exact=pending")
        found.append(Need(waiting, "tasks wait, nobody is free" if stuck else "tasks wait", address, stuck))
    if user.has_perm("coordination.view_distributedlock"):
        found.append(
            Need(fleet.locks_held, "locks held", _address("coordination_distributedlock"), is_bad=False)
        )
    return found


def _usability(user: Any) -> list[Need]:
    found = []
    if user.has_perm("usability.view_teacherdashboardalert"):
        critical = TeacherDashboardAlert.objects.open().filter(severity="critical").count()
        query = "open=yes&severity__exact=critical"
        found.append(
            Need(
                critical,
                "critical alerts open",
                _address("usability_teacherdashboardalert", query),
                critical > 0,
            )
        )
    if user.has_perm("usability.view_student"):
        unplaced = Student.objects.unassigned().count()
        address = _address("usability_student", "roster=unassigned")
        found.append(Need(unplaced, "pupils on no roster", address, is_bad=unplaced > 0))
    return found


def _need(number: int, word: str, page: str, status: str) -> Need:
    return Need(number, word, _address(page, f"status__exact={status}"), is_bad=number > 0)


def _address(page: str, query: str = "") -> str:
    return reverse(ADDRESS.format(page)) + (f"?{query}" if query else "")
