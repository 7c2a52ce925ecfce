"""The named questions of the usability tables.

They only read and delete; what changes a row is in ``services``. None of them asks who may see the rows:
that is ``access``.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

from django.db import models
from django.db.models import Avg, Case, IntegerField, Q, Value, When
from django.utils import timezone

if TYPE_CHECKING:
    from usability.models import UsabilityMetric

EVENT_SEVERITY_RANK = {"low": 1, "medium": 2, "high": 3, "critical": 4}
ALERT_SEVERITY_RANK = {"info": 1, "warning": 2, "critical": 3}

# A metric's timestamp lies within this distance of its receipt (usability.ingest.decode holds the door);
# its id carries the receipt. Together they name the partitions that can hold a row known by its id alone.
TIMESTAMP_BEFORE_RECEIPT = dt.timedelta(days=7)
TIMESTAMP_AFTER_RECEIPT = dt.timedelta(minutes=5)
# A row that did not come through the door may have got its id a little apart from its receipt.
CLOCKS_APART = dt.timedelta(seconds=30)


def severity_rank(ranks: dict[str, int]) -> Case:
    """An expression that is higher for a worse severity."""
    return Case(
        *(When(severity=name, then=Value(rank)) for name, rank in ranks.items()),
        default=Value(0),
        output_field=IntegerField(),
    )


def moment_of(metric_id: uuid.UUID) -> dt.datetime:
    """The moment in a UUIDv7, to the millisecond (RFC 9562, section 5.7)."""
    return dt.datetime.fromtimestamp((metric_id.int >> 80) / 1000, tz=dt.UTC)


class StudentQuerySet(models.QuerySet):
    """Questions about learners."""

    def unassigned(self) -> Self:
        """Students that no current enrollment places in a classroom."""
        return self.exclude(enrollments__ended_on__isnull=True, enrollments__isnull=False)

    def ensure(self, student_ids: Iterable[str], *, app_name: str = "") -> None:
        """Give each of these pseudonyms a row. One of a roster keeps what it has."""
        rows = [self.model(student_id=name, first_seen_app=app_name) for name in sorted(set(student_ids))]
        self.bulk_create(rows, ignore_conflicts=True)


class EnrollmentQuerySet(models.QuerySet):
    """Questions about who sits where."""

    def current(self) -> Self:
        """Enrollments that have not ended."""
        return self.filter(ended_on__isnull=True)


class ClassroomQuerySet(models.QuerySet):
    """Questions about classes."""

    def for_teacher(self, teacher: Any) -> Self:
        """Classes this teacher has."""
        return self.filter(teachers__user=teacher)


class UsabilityMetricQuerySet(models.QuerySet):
    """Questions about what apps reported."""

    def for_student(
        self, student_id: str, app_name: str | None = None, since: dt.datetime | None = None
    ) -> Self:
        """The student's metrics (in that app, since then), oldest first."""
        rows = self.filter(student_id=student_id)
        if app_name is not None:
            rows = rows.filter(app_name=app_name)
        if since is not None:
            rows = rows.filter(timestamp__gte=since)
        return rows.order_by("timestamp", "id")

    def of_type(self, metric_type: str, since: dt.datetime | None = None) -> Self:
        """Metrics of one type (since then), oldest first. Without `since` every partition is read."""
        rows = self.filter(metric_type=metric_type)
        if since is not None:
            rows = rows.filter(timestamp__gte=since)
        return rows.order_by("timestamp", "id")

    def of_session(self, student_id: str, session_id: str) -> Self:
        """What the student did in one sitting, oldest first."""
        return self.filter(student_id=student_id, session_id=session_id).order_by("timestamp", "id")

    def with_id(self, metric_id: uuid.UUID) -> UsabilityMetric:
        """The metric of that id. Raises `DoesNotExist`.

        No index begins with the id, so `get(pk=…)` would read every partition; the time of receipt in the id
        narrows it to the days that can hold the row, and to the pages received about then.
        """
        received = moment_of(metric_id)
        return self.get(
            id=metric_id,
            received_at__gte=received - CLOCKS_APART,
            received_at__lte=received + CLOCKS_APART,
            timestamp__gte=received - TIMESTAMP_BEFORE_RECEIPT - dt.timedelta(seconds=1),
            timestamp__lte=received + TIMESTAMP_AFTER_RECEIPT + dt.timedelta(seconds=1),
        )


class FrustrationEventQuerySet(models.QuerySet):
    """Questions about episodes."""

    def worst_first(self) -> Self:
        """The most severe first, among equals the oldest."""
        return self.order_by(severity_rank(EVENT_SEVERITY_RANK).desc(), "detected_at", "id")

    def open(self) -> Self:
        """Events whose episode goes on and that nobody has resolved."""
        return self.filter(ended_at__isnull=True, resolved_at__isnull=True)

    def unresolved(self) -> Self:
        """Events without `resolved_at`, worst and oldest first."""
        return self.filter(resolved_at__isnull=True).worst_first()

    def for_student(self, student_id: str) -> Self:
        """The learner's events, newest first."""
        return self.filter(student_id=student_id).order_by("-detected_at", "-id")

    def with_severity(self, severity: str) -> Self:
        """Events of one severity, newest first."""
        return self.filter(severity=severity).order_by("-detected_at", "-id")

    def delete_older_than(self, age: dt.timedelta, *, now: dt.datetime | None = None) -> int:
        """Delete resolved events whose resolution is older than `age`; how many. Unresolved ones stay."""
        before = (now or timezone.now()) - age
        return self.filter(resolved_at__lt=before).delete()[1].get(self.model._meta.label, 0)  # noqa: SLF001


class SatisfactionRatingQuerySet(models.QuerySet):
    """Questions about ratings."""

    def for_student(self, student_id: str) -> Self:
        """The learner's ratings, newest first."""
        return self.filter(student_id=student_id).order_by("-created_at", "-id")

    def average_for_app(self, app_name: str) -> float | None:
        """The mean rating of an app, None where there is none: 0 is not a rating."""
        return self.filter(app_name=app_name).aggregate(mean=Avg("rating"))["mean"]

    def recent(self, limit: int) -> Self:
        """The newest `limit` ratings, newest first. Raises ValueError for a limit below 1."""
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        return self.order_by("-created_at", "-id")[:limit]

    def recent_average_for_student(self, student_id: str, since: dt.datetime) -> float | None:
        """The student's mean rating since then, None where there is none."""
        return self.filter(student_id=student_id, created_at__gte=since).aggregate(mean=Avg("rating"))["mean"]

    def with_feedback(self, app_name: str | None = None) -> Self:
        """Ratings that carry a text, newest first."""
        rows = self.exclude(feedback_text="")
        if app_name is not None:
            rows = rows.filter(app_name=app_name)
        return rows.order_by("-created_at", "-id")


class TeacherDashboardAlertQuerySet(models.QuerySet):
    """Questions about alerts."""

    def for_teacher(self, teacher: Any) -> Self:
        """Alerts of the classrooms this teacher has, newest first. `teacher` is a user or a user's key.

        An alert addressed to one teacher is seen by that teacher alone.
        """
        return (
            self.filter(classroom__teachers__user=teacher)
            .filter(Q(teacher__isnull=True) | Q(teacher=teacher))
            .order_by("-created_at", "-id")
        )

    def worst_first(self) -> Self:
        """The most severe first, among equals the oldest."""
        return self.order_by(severity_rank(ALERT_SEVERITY_RANK).desc(), "detected_at", "id")

    def open(self) -> Self:
        """Alerts on which a teacher can still act."""
        return self.filter(state__in=self.model.OPEN_STATES)

    def closed(self) -> Self:
        """Alerts that are resolved, dismissed or expired."""
        return self.exclude(state__in=self.model.OPEN_STATES)

    def after(self, seq: int) -> Self:
        """What changed after the cursor, in the order of change."""
        return self.filter(seq__gt=seq).order_by("seq")

    def unacknowledged(self) -> Self:
        """Alerts nobody has taken notice of, worst and oldest first."""
        return self.filter(acknowledged_at__isnull=True).open().worst_first()

    def struggling_students(self, app_name: str) -> Self:
        """The pseudonyms of students with an open alert in that app, each once, in order."""
        return (
            self.open()
            .filter(app_name=app_name, student__isnull=False)
            .order_by("student_id")
            .values_list("student_id", flat=True)
            .distinct()
        )

    def delete_older_than(self, age: dt.timedelta, *, now: dt.datetime | None = None) -> int:
        """Delete closed alerts that last changed longer than `age` ago; how many. Open ones stay."""
        before = (now or timezone.now()) - age
        return self.closed().filter(closed_at__lt=before).delete()[1].get(self.model._meta.label, 0)  # noqa: SLF001


class ClassroomMetricsSnapshotQuerySet(models.QuerySet):
    """Questions about snapshots."""

    def for_classroom(self, classroom: Any, since: dt.datetime | None = None) -> Self:
        """Snapshots of a classroom (that began since then), oldest first."""
        rows = self.filter(classroom=classroom)
        if since is not None:
            rows = rows.filter(window_start__gte=since)
        return rows.order_by("window_start", "app_name")
