"""The questions of coordination, answered from the projected rows.

A read carries the watermark it was made at (`projected_revision`); `wait_until_projected` gives read your
writes, `linearizable_revision` the revision a linearizable read must wait for.
"""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from django.core.exceptions import ObjectDoesNotExist
from django.db.models import Avg, Count, F

from coordination.errors import NotAvailable, NotFound
from coordination.log.client import node_client
from coordination.models import (
    ClaudeSession,
    CoordinationEvent,
    CoordinationEventQuerySet,
    DistributedLock,
    DistributedTask,
    Lesson,
    ProjectionState,
    SessionAffinity,
    TaskAttempt,
)

PROJECTION_WAIT_S = 5.0
_POLL_S = 0.005

Row = TypeVar("Row")


# Consistency


def projected_revision() -> int:
    """The watermark: every row shows at least what had happened up to this revision."""
    return ProjectionState.objects.values_list("revision", flat=True).first() or 0


def wait_until_projected(revision: int, timeout_s: float = PROJECTION_WAIT_S) -> int:
    """The watermark once it is at least `revision`. Raises NotAvailable where that takes too long."""
    ends_s = time.monotonic() + timeout_s
    pause_s = _POLL_S
    while True:
        projected = projected_revision()
        if projected >= revision:
            return projected
        if time.monotonic() >= ends_s:
            raise NotAvailable(f"the rows show revision {projected}, asked for {revision}")
        time.sleep(pause_s)
        pause_s = min(0.05, pause_s * 1.5)


def linearizable_revision() -> int:
    """The revision at which a read started now sees every acknowledged write. Raises NotAvailable."""
    return node_client().read_index()


def wait_for_consistency(consistency: str = "", min_index: int = 0) -> int:
    """Wait as a reader asked to: `linearizable`, or until `min_index` is projected; the watermark then."""
    wanted = max(min_index, linearizable_revision() if consistency == "linearizable" else 0)
    return wait_until_projected(wanted) if wanted else projected_revision()


def _found(read: Callable[[], Row], kind: str, name: object) -> Row:
    """The row; one that was made a moment ago may not be projected yet, so a miss is looked at twice."""
    try:
        return read()
    except ObjectDoesNotExist:
        pass
    try:
        wait_until_projected(node_client().status()["revision"], timeout_s=1.0)
    except NotAvailable:
        raise NotFound(kind, name) from None
    try:
        return read()
    except ObjectDoesNotExist:
        raise NotFound(kind, name) from None


# Objects


def session(session_name: str) -> ClaudeSession:
    """One session by name. Raises NotFound."""
    query = ClaudeSession.objects.select_related("lesson", "user")
    return _found(lambda: query.all().by_name(session_name), "session", session_name)


def task(task_id: uuid.UUID) -> DistributedTask:
    """One task with its attempts, dependencies and sessions loaded. Raises NotFound."""
    query = DistributedTask.objects.select_related("claimed_by", "target_session", "lesson").prefetch_related(
        "attempts__session", "depends_on"
    )
    try:
        return query.by_id(task_id)
    except DistributedTask.DoesNotExist:
        raise NotFound("task", task_id) from None


def attempts(task_id: uuid.UUID) -> list[TaskAttempt]:
    """The history of a task, one a claim, oldest first."""
    return list(TaskAttempt.objects.filter(task_id=task_id).select_related("session").order_by("claim_token"))


def lesson(lesson_id: uuid.UUID) -> Lesson:
    """One lesson with its project. Raises NotFound."""
    try:
        return Lesson.objects.by_id(lesson_id)
    except Lesson.DoesNotExist:
        raise NotFound("lesson", lesson_id) from None


def lock(lock_key: str) -> DistributedLock:
    """One held lock. Raises NotFound where nobody holds it."""
    read = lambda: DistributedLock.objects.get(pk=lock_key)  # noqa: E731
    return _found(read, "lock", lock_key)


def affinity(affinity_id: uuid.UUID) -> SessionAffinity:
    """One affinity with its session and lesson. Raises NotFound."""
    query = SessionAffinity.objects.select_related("session", "lesson")
    return _found(lambda: query.all().get(pk=affinity_id), "affinity", affinity_id)


# Questions


@dataclass(frozen=True, slots=True)
class LessonProgress:
    """Counts of a lesson's tasks, the completed ones in percent, and when the rest may be done."""

    tasks_total: int
    tasks_completed: int
    tasks_failed: int
    tasks_pending: int
    tasks_running: int
    percent: float
    eta_s: float | None


def lesson_progress(lesson_id: uuid.UUID) -> LessonProgress:
    """How far a lesson is. Raises NotFound.

    The estimate: what is left, at the mean time of the attempts completed so far, shared by the sessions at
    work now (at least one); None before the first completion.
    """
    found = Lesson.objects.filter(pk=lesson_id).with_progress().first()
    if found is None:
        raise NotFound("lesson", lesson_id)
    left = found.tasks_pending + found.tasks_running
    return LessonProgress(
        tasks_total=found.tasks_total,
        tasks_completed=found.tasks_completed,
        tasks_failed=found.tasks_failed,
        tasks_pending=found.tasks_pending,
        tasks_running=found.tasks_running,
        percent=found.progress_percentage(),
        eta_s=_eta_s(lesson_id, left, found.tasks_running),
    )


def _eta_s(lesson_id: uuid.UUID, left: int, running: int) -> float | None:
    if not left:
        return 0.0
    done = TaskAttempt.objects.filter(task__lesson_id=lesson_id, outcome="completed", ended_at__isnull=False)
    mean: timedelta | None = done.aggregate(mean=Avg(F("ended_at") - F("started_at")))["mean"]
    return None if mean is None else left * mean.total_seconds() / max(1, running)


def events_after(revision: int, limit: int = 500) -> CoordinationEventQuerySet:
    """At most `limit` events of the history with a revision above `revision`, in order."""
    return CoordinationEvent.objects.after(revision, limit)


@dataclass(frozen=True, slots=True)
class Fleet:
    """Counts for an overview, as the rows show them at `revision`."""

    sessions_active: int
    sessions_available: int
    sessions_by_status: dict[str, int]
    tasks_by_status: dict[str, int]
    tasks_unknown_to_machine: int
    locks_held: int
    oldest_pending_s: float | None
    revision: int


def fleet(now: datetime | None = None) -> Fleet:
    """What goes on now."""
    now = now or datetime.now(UTC)
    oldest = (
        DistributedTask.objects.filter(status="pending")
        .order_by("created_at")
        .values_list("created_at", flat=True)
        .first()
    )
    return Fleet(
        sessions_active=ClaudeSession.objects.active(now).count(),
        sessions_available=ClaudeSession.objects.available(now).count(),
        sessions_by_status=_counts(ClaudeSession),
        tasks_by_status=_counts(DistributedTask),
        tasks_unknown_to_machine=DistributedTask.objects.filter(
            status="pending", enqueued_revision__isnull=True
        ).count(),
        locks_held=DistributedLock.objects.filter(expires_at__gt=now).count(),
        oldest_pending_s=(now - oldest).total_seconds() if oldest else None,
        revision=projected_revision(),
    )


def _counts(model: type[ClaudeSession] | type[DistributedTask]) -> dict[str, int]:
    rows = model.objects.order_by().values_list("status").annotate(n=Count("pk"))
    return {str(status): int(n) for status, n in rows}
