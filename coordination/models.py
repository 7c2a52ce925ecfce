"""Rows of the coordination half: what the projection of the replicated log writes and what reads read.

The state machine decides; these tables are its projection (`coordination.projection` is their only writer),
but for lessons' and projects' descriptions and for tasks' payloads and results, which live here alone.
"""

import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import uuid_utils.compat
from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Count, Exists, ExpressionWrapper, F, Func, OuterRef, Q
from django.db.models.functions import Coalesce, Least, Now
from django.utils import timezone

from coordination.machine import kinds

SESSION_NAME_PATTERN = r"^[A-Za-z0-9._:/-]+$"
TASK_DATA_BYTES_MAX = 256 * 1024
LIVE_CLAIM = ("assigned", "in_progress")
FINAL = ("completed", "failed", "cancelled")
TAKES_NO_TASK = ("paused", "draining", "failed", "offline")


def new_id() -> uuid.UUID:
    """A fresh UUIDv7, so that ids sort by time."""
    return uuid_utils.compat.uuid7()


def _choices(kind: type[StrEnum]) -> type[models.TextChoices]:
    """The machine's vocabulary as Django choices: one list of values for rules, rows and forms."""
    members = [(member.name, (member.value, member.value.replace("_", " "))) for member in kind]
    return models.TextChoices(kind.__name__, members, module=__name__)


Tier = _choices(kinds.Tier)
Provider = _choices(kinds.Provider)
SessionStatus = _choices(kinds.SessionStatus)
Health = _choices(kinds.Health)
TaskStatus = _choices(kinds.TaskStatus)
LessonStatus = _choices(kinds.LessonStatus)


DependencyPolicy = _choices(kinds.DependencyPolicy)
AttemptOutcome = models.TextChoices(
    "AttemptOutcome",
    [("RUNNING", ("running", "running"))]
    + [
        (kind.name, (kind.value, kind.value.replace("_", " "))) for kind in kinds.AttemptOutcome if kind.value
    ],
    module=__name__,
)


def _one_of(field: str, choices: type[models.TextChoices], name: str) -> models.CheckConstraint:
    return models.CheckConstraint(condition=Q(**{f"{field}__in": choices.values}), name=name)


def _known(value: str, choices: type[models.TextChoices]) -> str:
    """`value` if it is one of `choices`; ValueError names what is allowed otherwise."""
    if value not in choices.values:
        raise ValueError(f"{value!r} is not one of {', '.join(choices.values)}")
    return value


class Stamped(models.Model):
    """Identity and stamps every row has."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False, db_default=Now())
    updated_at = models.DateTimeField(auto_now=True, db_default=Now())

    class Meta:
        abstract = True


class Project(Stamped):
    """A grouping of lessons."""

    name = models.CharField(max_length=255, unique=True)

    class Meta:
        ordering = ("name",)
        constraints = (models.CheckConstraint(condition=~Q(name=""), name="project_has_a_name"),)

    def __str__(self) -> str:
        return self.name


class LessonQuerySet(models.QuerySet["Lesson"]):
    """Questions about lessons."""

    def by_id(self, lesson_id: uuid.UUID) -> "Lesson":
        """One lesson; Lesson.DoesNotExist where there is none."""
        return self.select_related("project").get(pk=lesson_id)

    def listed(self) -> "LessonQuerySet":
        """All, most important first, then the oldest."""
        return self.select_related("project").order_by("-priority", "created_at", "id")

    def for_project(self, project_id: uuid.UUID) -> "LessonQuerySet":
        """Those of one project."""
        return self.listed().filter(project_id=project_id)

    def with_status(self, status: str) -> "LessonQuerySet":
        """Those in one status; ValueError for a status that does not exist."""
        return self.listed().filter(status=_known(status, LessonStatus))

    def with_progress(self) -> "LessonQuerySet":
        """Each with counts of its tasks by status: `tasks_pending`, `tasks_running`, `tasks_cancelled`."""
        return self.annotate(
            tasks_pending=Count("tasks", filter=Q(tasks__status="pending")),
            tasks_running=Count("tasks", filter=Q(tasks__status__in=LIVE_CLAIM)),
            tasks_cancelled=Count("tasks", filter=Q(tasks__status="cancelled")),
        )

    def refresh_progress(self) -> int:
        """Count each lesson's tasks again and set counters and status by them; how many lessons drifted."""
        changed = 0
        counted = self.exclude(status="archived").annotate(
            counted_total=Count("tasks", filter=~Q(tasks__status="cancelled")),
            counted_completed=Count("tasks", filter=Q(tasks__status="completed")),
            counted_failed=Count("tasks", filter=Q(tasks__status="failed")),
            counted_begun=Count("tasks", filter=Q(tasks__claim_token__gt=0)),
        )
        for lesson in counted:
            status = status_by_counts(
                total=lesson.counted_total,
                done=lesson.counted_completed + lesson.counted_failed,
                begun=lesson.counted_begun,
            )
            counters = (lesson.counted_total, lesson.counted_completed, lesson.counted_failed, status)
            if counters == (lesson.tasks_total, lesson.tasks_completed, lesson.tasks_failed, lesson.status):
                continue
            changed += Lesson.objects.filter(pk=lesson.pk).update(
                tasks_total=counters[0],
                tasks_completed=counters[1],
                tasks_failed=counters[2],
                status=status,
                updated_at=timezone.now(),
            )
        return changed


def status_by_counts(*, total: int, done: int, begun: int) -> str:
    """The status a lesson has by its tasks: completed when all are, in progress once one was claimed."""
    if total and done == total:
        return "completed"
    return "in_progress" if begun or done else "pending"


class Lesson(Stamped):
    """A group of tasks with one objective. Counters and status follow its tasks; no caller writes them.

    `tasks_total` counts live, completed and failed tasks; a cancelled one does not count.
    """

    project = models.ForeignKey(
        Project, null=True, blank=True, on_delete=models.PROTECT, related_name="lessons"
    )
    title = models.CharField(max_length=255)
    description = models.TextField(blank=True, default="", db_default="")
    status = models.CharField(
        max_length=20, choices=LessonStatus.choices, default="pending", db_default="pending"
    )
    priority = models.IntegerField(default=0, db_default=0)
    tasks_total = models.PositiveIntegerField(default=0, db_default=0)
    tasks_completed = models.PositiveIntegerField(default=0, db_default=0)
    tasks_failed = models.PositiveIntegerField(default=0, db_default=0)
    estimated_duration_minutes = models.PositiveIntegerField(null=True, blank=True)
    metadata = models.JSONField(default=dict, blank=True)

    objects = LessonQuerySet.as_manager()

    class Meta:
        constraints = (
            _one_of("status", LessonStatus, "lesson_status_known"),
            models.CheckConstraint(
                condition=Q(tasks_completed__lte=F("tasks_total") - F("tasks_failed")),
                name="lesson_counts_within_total",
            ),
        )
        indexes = (
            models.Index(F("priority").desc(), "created_at", "id", name="lesson_listing"),
            models.Index(fields=("project", "status"), name="lesson_by_project"),
            models.Index(fields=("status", "-priority"), name="lesson_by_status"),
        )

    def __str__(self) -> str:
        return self.title

    def progress_percentage(self) -> float:
        """Completed tasks in percent of all, 0 to 100; 0 where there are none."""
        if not self.tasks_total:
            return 0.0
        return min(100.0, 100.0 * self.tasks_completed / self.tasks_total)


class AnyWindowOpen(Func):
    """Whether a session's windows (see `machine.commands.TimeWindow`) let it work at `moment`; none: always."""

    output_field = models.BooleanField()
    template = """(jsonb_array_length(%(expressions)s) = 0 OR EXISTS (
        SELECT 1 FROM jsonb_array_elements(%(expressions)s) AS w
        WHERE ((w->>'start_ms')::bigint = 0 OR (w->>'start_ms')::bigint <= %(now_ms)d)
          AND ((w->>'end_ms')::bigint = 0 OR (w->>'end_ms')::bigint > %(now_ms)d)
          AND ((w->>'days')::int = 0 OR ((w->>'days')::int & %(day_bit)d) <> 0)
          AND (w->>'from_minute')::int <= %(minute)d AND (w->>'to_minute')::int > %(minute)d))"""

    def __init__(self, windows: str, *, moment: datetime) -> None:
        utc = moment.astimezone(UTC)
        super().__init__(
            F(windows),
            now_ms=int(utc.timestamp() * 1000),
            day_bit=1 << utc.weekday(),
            minute=utc.hour * 60 + utc.minute,
        )


class ClaudeSessionQuerySet(models.QuerySet["ClaudeSession"]):
    """Questions about sessions. Each agrees with the method of the same meaning on the row."""

    def by_name(self, session_name: str) -> "ClaudeSession":
        """One session by its unique name; ClaudeSession.DoesNotExist where there is none."""
        return self.get(session_name=session_name)

    def by_id(self, session_id: uuid.UUID) -> "ClaudeSession":
        """One session by id; ClaudeSession.DoesNotExist where there is none."""
        return self.get(pk=session_id)

    def listed(self) -> "ClaudeSessionQuerySet":
        """All in a stable order, oldest first."""
        return self.order_by("created_at", "id")

    def with_status(self, status: str) -> "ClaudeSessionQuerySet":
        """Those in one status; ValueError for a status that does not exist."""
        return self.listed().filter(status=_known(status, SessionStatus))

    def of_tier(self, tier: str) -> "ClaudeSessionQuerySet":
        """Those of one tier; ValueError for a tier that does not exist."""
        return self.listed().filter(tier=_known(tier, Tier))

    def of_provider(self, provider: str) -> "ClaudeSessionQuerySet":
        """Those of one provider; ValueError for a provider that does not exist."""
        return self.listed().filter(provider=_known(provider, Provider))

    def for_lesson(self, lesson_id: uuid.UUID) -> "ClaudeSessionQuerySet":
        """Those bound to a lesson now."""
        return self.listed().filter(lesson_id=lesson_id)

    def active(self, now: datetime | None = None) -> "ClaudeSessionQuerySet":
        """Those whose lease runs and that are neither failed nor offline."""
        return self.filter(lease_expires_at__gt=now or timezone.now()).exclude(
            status__in=("failed", "offline")
        )

    def healthy(self) -> "ClaudeSessionQuerySet":
        """Those without a missed heartbeat and without a failure since their last success."""
        return self.filter(health_status="healthy", consecutive_failures=0)

    def available(self, now: datetime | None = None) -> "ClaudeSessionQuerySet":
        """Those that can take a task at `now`: the query form of `can_take_task`."""
        now = now or timezone.now()
        return (
            self.active(now)
            .filter(health_status="healthy")
            .exclude(status__in=TAKES_NO_TASK)
            .filter(current_task_count__lt=F("max_concurrent_tasks"))
            .filter(AnyWindowOpen("time_windows", moment=now))
        )

    def expired(self, now: datetime | None = None) -> "ClaudeSessionQuerySet":
        """Those whose lease is over but that are not yet offline or failed: due at the next tick."""
        return self.filter(lease_expires_at__lte=now or timezone.now()).exclude(
            status__in=("failed", "offline")
        )

    def recount_tasks(self) -> int:
        """Set `current_task_count` to the number of live claims where it drifted; how many rows did."""
        live = (
            DistributedTask.objects.filter(claimed_by=OuterRef("pk"), status__in=LIVE_CLAIM)
            .order_by()
            .values("claimed_by")
            .annotate(n=Count("pk"))
            .values("n")
        )
        counted = Least(
            Coalesce(models.Subquery(live, output_field=models.IntegerField()), 0), F("max_concurrent_tasks")
        )
        return (
            self.annotate(counted=counted)
            .exclude(current_task_count=F("counted"))
            .update(current_task_count=counted, updated_at=timezone.now())
        )


def _window_open_at(now: datetime) -> Q:
    begun = Q(time_window_start__isnull=True) | Q(time_window_start__lte=now)
    lasting = Q(time_window_end__isnull=True) | Q(time_window_end__gt=now)
    return begun & lasting


class Windowed(models.Model):
    """A span of time in which the row counts; an end that is null is open."""

    time_window_start = models.DateTimeField(null=True, blank=True)
    time_window_end = models.DateTimeField(null=True, blank=True)

    class Meta:
        abstract = True

    def window_is_open(self, now: datetime) -> bool:
        """Whether `now` lies in the window; the start belongs to it, the end does not."""
        if self.time_window_start is not None and now < self.time_window_start:
            return False
        return self.time_window_end is None or now < self.time_window_end


def _window_in_order(name: str) -> models.CheckConstraint:
    return models.CheckConstraint(
        condition=Q(time_window_start__isnull=True)
        | Q(time_window_end__isnull=True)
        | Q(time_window_start__lt=F("time_window_end")),
        name=name,
    )


class ClaudeSession(Stamped, Windowed):
    """One worker known to the cluster, of whatever provider.

    `time_windows` says when it works; `time_window_start` and `time_window_end` are the hull of their spans.
    """

    session_name = models.CharField(
        max_length=255, unique=True, validators=[RegexValidator(SESSION_NAME_PATTERN)]
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="agent_sessions",
    )
    tier = models.CharField(max_length=20, choices=Tier.choices)
    provider = models.CharField(max_length=20, choices=Provider.choices)
    status = models.CharField(max_length=20, choices=SessionStatus.choices, default="idle", db_default="idle")
    health_status = models.CharField(
        max_length=20, choices=Health.choices, default="healthy", db_default="healthy"
    )
    lesson = models.ForeignKey(
        Lesson, null=True, blank=True, on_delete=models.SET_NULL, related_name="sessions"
    )
    last_heartbeat = models.DateTimeField(default=timezone.now, db_default=Now())
    consecutive_failures = models.PositiveIntegerField(default=0, db_default=0)
    max_concurrent_tasks = models.PositiveIntegerField(default=5, db_default=5)
    current_task_count = models.PositiveIntegerField(default=0, db_default=0)
    capabilities = models.JSONField(default=list, blank=True)
    time_windows = models.JSONField(default=list, blank=True)
    load = models.FloatField(null=True, blank=True)
    metadata = models.JSONField(default=dict, blank=True)
    accepts_push = models.BooleanField(default=False, db_default=False)
    lease_token = models.BigIntegerField(default=0, db_default=0)
    lease_expires_at = models.DateTimeField(null=True, blank=True)
    tasks_completed = models.PositiveIntegerField(default=0, db_default=0)
    tasks_failed = models.PositiveIntegerField(default=0, db_default=0)
    avg_task_s = models.FloatField(null=True, blank=True)

    objects = ClaudeSessionQuerySet.as_manager()

    class Meta:
        verbose_name = "session"
        constraints = (
            _one_of("tier", Tier, "session_tier_known"),
            _one_of("provider", Provider, "session_provider_known"),
            _one_of("status", SessionStatus, "session_status_known"),
            _one_of("health_status", Health, "session_health_known"),
            _window_in_order("session_window_in_order"),
            models.CheckConstraint(
                condition=Q(session_name__regex=SESSION_NAME_PATTERN), name="session_name_characters"
            ),
            models.CheckConstraint(
                condition=Q(max_concurrent_tasks__gte=1), name="session_takes_at_least_one"
            ),
        )
        indexes = (
            models.Index(fields=("created_at", "id"), name="session_listing"),
            models.Index(fields=("status", "created_at"), name="session_by_status"),
            models.Index(fields=("tier", "created_at"), name="session_by_tier"),
            models.Index(fields=("provider", "created_at"), name="session_by_provider"),
            models.Index(fields=("health_status", "created_at"), name="session_by_health"),
            models.Index(
                fields=("lease_expires_at",),
                name="session_living",
                condition=~Q(status__in=("failed", "offline")),
            ),
        )

    def __str__(self) -> str:
        return self.session_name

    def is_active(self, now: datetime | None = None) -> bool:
        """Whether the last heartbeat is younger than the lease and the session neither failed nor left."""
        if self.lease_expires_at is None or self.status in ("failed", "offline"):
            return False
        return self.lease_expires_at > (now or timezone.now())

    def is_healthy(self) -> bool:
        """Whether no heartbeat was missed and no task failed since the last success."""
        return self.health_status == "healthy" and self.consecutive_failures == 0

    def can_take_task(self, now: datetime | None = None) -> bool:
        """Whether it is active, healthy, has room, is in its time window, and not paused or draining.

        The machine's own rule (`machine.scoring.why_unavailable`); task failures count once they reach the
        threshold, when the status is failed.
        """
        now = now or timezone.now()
        return (
            self.is_active(now)
            and self.health_status == "healthy"
            and self.status not in TAKES_NO_TASK
            and self.current_task_count < self.max_concurrent_tasks
            and self.any_window_open(now)
        )

    def any_window_open(self, now: datetime) -> bool:
        """Whether one of `time_windows` is open at `now`; a session without windows always works."""
        utc = now.astimezone(UTC)
        now_ms, day_bit, minute = int(utc.timestamp() * 1000), 1 << utc.weekday(), utc.hour * 60 + utc.minute
        return not self.time_windows or any(
            (not window["start_ms"] or window["start_ms"] <= now_ms)
            and (not window["end_ms"] or now_ms < window["end_ms"])
            and (not window["days"] or window["days"] & day_bit)
            and window["from_minute"] <= minute < window["to_minute"]
            for window in self.time_windows
        )


class DistributedTaskQuerySet(models.QuerySet["DistributedTask"]):
    """Questions about tasks."""

    def by_id(self, task_id: uuid.UUID) -> "DistributedTask":
        """One task; DistributedTask.DoesNotExist where there is none."""
        return self.get(pk=task_id)

    def by_idempotency_key(self, idempotency_key: str) -> "DistributedTask":
        """One task by the key its creator gave; DistributedTask.DoesNotExist where there is none."""
        return self.get(idempotency_key=idempotency_key)

    def listed(self) -> "DistributedTaskQuerySet":
        """All, newest first."""
        return self.select_related("claimed_by", "target_session").order_by("-created_at", "-id")

    def with_status(self, status: str) -> "DistributedTaskQuerySet":
        """Those in one status; ValueError for a status that does not exist."""
        return self.listed().filter(status=_known(status, TaskStatus))

    def pending(self, limit: int, now: datetime | None = None) -> "DistributedTaskQuerySet":
        """At most `limit` claimable ones, most important first, then the oldest.

        Claimable: pending, `run_after` reached, every task it depends on completed.
        """
        if limit <= 0:
            raise ValueError(f"limit is {limit}, must be at least 1")
        waiting = DistributedTask.depends_on.through.objects.filter(
            from_distributedtask_id=OuterRef("pk")
        ).exclude(to_distributedtask__status="completed")
        due = Q(run_after__isnull=True) | Q(run_after__lte=now or timezone.now())
        return self.filter(due, ~Exists(waiting), status="pending").order_by("-priority", "created_at", "id")[
            :limit
        ]

    def for_lesson(self, lesson_id: uuid.UUID) -> "DistributedTaskQuerySet":
        """Those of one lesson."""
        return self.listed().filter(lesson_id=lesson_id)

    def for_session(self, session_id: uuid.UUID) -> "DistributedTaskQuerySet":
        """Live claims of one session; what it finished is in the attempts."""
        return self.listed().filter(claimed_by_id=session_id, status__in=LIVE_CLAIM)

    def unknown_to_machine(self, limit: int) -> "DistributedTaskQuerySet":
        """At most `limit` pending rows the log never took, in the order it shall take them."""
        return self.filter(status="pending", enqueued_revision__isnull=True).order_by(
            "-priority", "created_at", "id"
        )[:limit]

    def expired_claims(self, now: datetime | None = None) -> "DistributedTaskQuerySet":
        """Live claims past their time: due at the next tick."""
        return self.filter(status__in=LIVE_CLAIM, claim_expires_at__lte=now or timezone.now())

    def release_expired_claims(self, now: datetime | None = None, grace_s: float = 60.0) -> int:
        """Repair rows whose live claim ended more than `grace_s` ago and was never projected; how many.

        The machine releases claims itself at its ticks; a row that still shows one so long after its end
        has drifted. Final rows are never touched, and the lost claim counts as a retry.
        """
        due = (now or timezone.now()) - timedelta(seconds=grace_s)
        return self.expired_claims(due).update(
            status="pending",
            retry_count=Least(F("retry_count") + 1, F("max_retries")),
            claimed_by=None,
            claimed_at=None,
            claim_expires_at=None,
            enqueued_revision=None,
            updated_at=timezone.now(),
        )


class DistributedTask(Stamped):
    """One unit of work. Its payload and result live here, its ownership in the machine."""

    idempotency_key = models.CharField(max_length=255, unique=True)
    body_digest = models.BinaryField(max_length=32, editable=False, default=b"")
    task_type = models.CharField(max_length=100)
    task_data = models.JSONField(default=dict)
    priority = models.IntegerField(default=0, db_default=0)
    lesson = models.ForeignKey(Lesson, null=True, blank=True, on_delete=models.SET_NULL, related_name="tasks")
    target_session = models.ForeignKey(
        ClaudeSession, null=True, blank=True, on_delete=models.SET_NULL, related_name="targeted_tasks"
    )
    required_capabilities = models.JSONField(default=list, blank=True)
    required_tier = models.CharField(
        max_length=20, choices=Tier.choices, blank=True, default="", db_default=""
    )
    depends_on = models.ManyToManyField("self", symmetrical=False, blank=True, related_name="dependants")
    status = models.CharField(
        max_length=20, choices=TaskStatus.choices, default="pending", db_default="pending"
    )
    claimed_by = models.ForeignKey(
        ClaudeSession, null=True, blank=True, on_delete=models.SET_NULL, related_name="claimed_tasks"
    )
    claimed_at = models.DateTimeField(null=True, blank=True)
    claim_expires_at = models.DateTimeField(null=True, blank=True)
    claim_token = models.BigIntegerField(default=0, db_default=0)  # the last one granted; it stays
    on_dependency_failure = models.CharField(
        max_length=20, choices=DependencyPolicy.choices, default="fail", db_default="fail"
    )
    claim_ttl_s = models.FloatField(null=True, blank=True)
    run_after = models.DateTimeField(null=True, blank=True)
    retry_count = models.PositiveIntegerField(default=0, db_default=0)
    max_retries = models.PositiveIntegerField(default=3, db_default=3)
    timeout_s = models.FloatField(null=True, blank=True)
    progress = models.FloatField(default=0.0, db_default=0.0)
    progress_note = models.CharField(max_length=255, blank=True, default="", db_default="")
    result = models.JSONField(null=True, blank=True)
    error_message = models.TextField(blank=True, default="", db_default="")
    completed_at = models.DateTimeField(null=True, blank=True)
    created_by = models.CharField(max_length=255, blank=True, default="", db_default="")
    enqueued_revision = models.BigIntegerField(null=True, blank=True, editable=False)

    objects = DistributedTaskQuerySet.as_manager()

    class Meta:
        verbose_name = "task"
        constraints = (
            _one_of("status", TaskStatus, "task_status_known"),
            models.CheckConstraint(
                condition=Q(required_tier="") | Q(required_tier__in=Tier.values), name="task_tier_known"
            ),
            models.CheckConstraint(
                condition=Q(retry_count__lte=F("max_retries")), name="task_retries_bounded"
            ),
            models.CheckConstraint(
                condition=Q(progress__gte=0, progress__lte=100), name="task_progress_is_percent"
            ),
            models.CheckConstraint(
                condition=Q(status__in=LIVE_CLAIM) | Q(claim_expires_at__isnull=True),
                name="task_expiry_only_while_claimed",
            ),
        )
        indexes = (
            models.Index(F("created_at").desc(), F("id").desc(), name="task_listing"),
            models.Index(fields=("status", "-created_at"), name="task_by_status"),
            models.Index(
                F("priority").desc(),
                "created_at",
                "id",
                name="task_pending_order",
                condition=Q(status="pending"),
            ),
            models.Index(
                F("priority").desc(),
                "created_at",
                "id",
                name="task_unknown_to_machine",
                condition=Q(status="pending", enqueued_revision__isnull=True),
            ),
            models.Index(
                fields=("claim_expires_at",), name="task_claims_due", condition=Q(status__in=LIVE_CLAIM)
            ),
            models.Index(fields=("task_type", "-created_at"), name="task_by_type"),
            models.Index(fields=("lesson", "status"), name="task_by_lesson"),
        )

    def __str__(self) -> str:
        return f"{self.task_type} {self.pk}"

    def is_expired(self, now: datetime | None = None) -> bool:
        """Whether a live claim is past its time."""
        return self.claim_expires_at is not None and self.claim_expires_at <= (now or timezone.now())

    def is_final(self) -> bool:
        """Whether it is completed, failed or cancelled, and so never changes by itself again."""
        return self.status in FINAL


class TaskResult(models.Model):
    """What a holder of a claim handed in, stored before the log is asked whether the claim still counts."""

    pk = models.CompositePrimaryKey("task_id", "claim_token")
    task = models.ForeignKey(DistributedTask, on_delete=models.CASCADE, related_name="+", db_index=False)
    claim_token = models.BigIntegerField()
    result = models.JSONField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False, db_default=Now())


class TaskAttempt(Stamped):
    """One claim of a task: who had it, when, and how it ended."""

    task = models.ForeignKey(DistributedTask, on_delete=models.CASCADE, related_name="attempts")
    session = models.ForeignKey(
        ClaudeSession, null=True, blank=True, on_delete=models.SET_NULL, related_name="attempts"
    )
    attempt_number = models.PositiveIntegerField()
    claim_token = models.BigIntegerField()
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)
    outcome = models.CharField(
        max_length=20, choices=AttemptOutcome.choices, default="running", db_default="running"
    )
    error = models.TextField(blank=True, default="", db_default="")

    class Meta:
        verbose_name = "attempt"
        ordering = ("task", "claim_token")
        constraints = (
            models.UniqueConstraint(fields=("task", "claim_token"), name="attempt_once_a_token"),
            _one_of("outcome", AttemptOutcome, "attempt_outcome_known"),
        )
        indexes = (models.Index(fields=("session", "-started_at"), name="attempt_by_session"),)

    def __str__(self) -> str:
        return f"attempt {self.attempt_number} of {self.task_id}"


class DistributedLockQuerySet(models.QuerySet["DistributedLock"]):
    """Questions about locks."""

    def listed(self) -> "DistributedLockQuerySet":
        """All rows by key, also those past their time."""
        return self.order_by("lock_key")

    def expired(self, now: datetime | None = None) -> "DistributedLockQuerySet":
        """Those past their time: due at the next tick."""
        return self.filter(expires_at__lte=now or timezone.now())

    def is_locked(self, lock_key: str, now: datetime | None = None) -> bool:
        """Whether somebody holds the lock."""
        return self.filter(lock_key=lock_key, expires_at__gt=now or timezone.now()).exists()

    def owner_of(self, lock_key: str, now: datetime | None = None) -> str | None:
        """Who holds the lock; None where nobody does."""
        live = self.filter(lock_key=lock_key, expires_at__gt=now or timezone.now())
        return live.values_list("owner_id", flat=True).first()

    def release_expired(self, now: datetime | None = None, grace_s: float = 60.0) -> int:
        """Delete rows of locks over for more than `grace_s` and never projected; how many.

        The machine frees locks itself at its ticks; a row left so long has drifted. The key's last token
        stays in LockToken.
        """
        count, _ = self.expired((now or timezone.now()) - timedelta(seconds=grace_s)).delete()
        return count


class DistributedLock(models.Model):
    """A held lock; a released one has no row, only its last token in LockToken."""

    lock_key = models.CharField(max_length=255, primary_key=True)
    owner_id = models.CharField(max_length=255)
    acquired_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    renewed_count = models.PositiveIntegerField(default=0, db_default=0)
    fencing_token = models.BigIntegerField()
    metadata = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False, db_default=Now())
    updated_at = models.DateTimeField(auto_now=True, db_default=Now())

    objects = DistributedLockQuerySet.as_manager()

    class Meta:
        verbose_name = "lock"
        constraints = (
            models.CheckConstraint(
                condition=~Q(lock_key="") & ~Q(owner_id=""), name="lock_has_key_and_owner"
            ),
            models.CheckConstraint(
                condition=Q(expires_at__gte=F("acquired_at")), name="lock_ends_after_it_begins"
            ),
        )
        indexes = (
            models.Index(fields=("expires_at",), name="lock_due"),
            models.Index(fields=("owner_id",), name="lock_by_owner"),
        )

    def __str__(self) -> str:
        return self.lock_key

    def is_expired(self, now: datetime | None = None) -> bool:
        """Whether its time is over; a lock ends at its expiry, not after it."""
        return self.expires_at <= (now or timezone.now())


class LockToken(models.Model):
    """The last fencing token each lock key had, kept after its release so that tokens never go back."""

    lock_key = models.CharField(max_length=255, primary_key=True)
    fencing_token = models.BigIntegerField()

    def __str__(self) -> str:
        return f"{self.lock_key} {self.fencing_token}"


class SessionAffinityQuerySet(models.QuerySet["SessionAffinity"]):
    """Questions about affinities."""

    def for_session(self, session_id: uuid.UUID) -> "SessionAffinityQuerySet":
        """Rows of a session, best score first."""
        return self.filter(session_id=session_id).order_by("-affinity_score", "id")

    def for_lesson(self, lesson_id: uuid.UUID) -> "SessionAffinityQuerySet":
        """Rows of a lesson, best score first."""
        return self.filter(lesson_id=lesson_id).order_by("-affinity_score", "id")

    def open_at(self, moment: datetime) -> "SessionAffinityQuerySet":
        """Rows whose window is open at `moment` or absent."""
        return self.filter(_window_open_at(moment)).order_by("-affinity_score", "id")

    def best_session_for_lesson(
        self, lesson_id: uuid.UUID, now: datetime | None = None
    ) -> "ClaudeSession | None":
        """The available session with the highest score for a lesson; None where there is none.

        Ties go to the least loaded, then the most recently used, then the first by name.
        """
        now = now or timezone.now()
        load = ExpressionWrapper(
            F("session__current_task_count") * 1.0 / F("session__max_concurrent_tasks"),
            output_field=models.FloatField(),
        )
        best = (
            self.filter(_window_open_at(now), lesson_id=lesson_id)
            .filter(session__in=ClaudeSession.objects.available(now))
            .annotate(load=load)
            .order_by(
                "-affinity_score", "load", F("last_used").desc(nulls_last=True), "session__session_name"
            )
            .select_related("session")
            .first()
        )
        return best.session if best else None


class SessionAffinity(Stamped, Windowed):
    """How well a session suits a lesson, within a time window if it has one."""

    session = models.ForeignKey(ClaudeSession, on_delete=models.CASCADE, related_name="affinities")
    lesson = models.ForeignKey(
        Lesson, null=True, blank=True, on_delete=models.CASCADE, related_name="affinities"
    )
    affinity_score = models.FloatField(
        default=1.0, db_default=1.0, validators=[MinValueValidator(0.0), MaxValueValidator(1.0)]
    )
    last_used = models.DateTimeField(null=True, blank=True)

    objects = SessionAffinityQuerySet.as_manager()

    class Meta:
        verbose_name = "affinity"
        verbose_name_plural = "affinities"
        constraints = (
            models.UniqueConstraint(
                fields=("session", "lesson"), nulls_distinct=False, name="affinity_once_a_lesson"
            ),
            models.CheckConstraint(
                condition=Q(affinity_score__gte=0.0, affinity_score__lte=1.0), name="affinity_score_is_share"
            ),
            _window_in_order("affinity_window_in_order"),
        )
        indexes = (
            models.Index(fields=("session", "-affinity_score"), name="affinity_by_session"),
            models.Index(fields=("lesson", "-affinity_score"), name="affinity_by_lesson"),
            models.Index(fields=("time_window_start", "time_window_end"), name="affinity_by_window"),
        )

    def __str__(self) -> str:
        return f"{self.session_id} for {self.lesson_id}"


class CoordinationEventQuerySet(models.QuerySet["CoordinationEvent"]):
    """Questions about the ordered history."""

    def after(self, revision: int, limit: int) -> "CoordinationEventQuerySet":
        """At most `limit` events with a revision above `revision`, in the order they happened."""
        return self.filter(raft_index__gt=revision).order_by("raft_index", "sequence")[:limit]

    def about(self, subjects: Iterable[str]) -> "CoordinationEventQuerySet":
        """Events about any of these subjects, newest first."""
        return self.filter(subject__in=list(subjects)).order_by("-raft_index", "-sequence")


class CoordinationEvent(models.Model):
    """One fact, as decided by the log: the ordered audit history."""

    pk = models.CompositePrimaryKey("raft_index", "sequence")
    raft_index = models.BigIntegerField()
    sequence = models.IntegerField()
    kind = models.CharField(max_length=64)
    subject = models.CharField(max_length=300)
    actor = models.CharField(max_length=255, blank=True, default="", db_default="")
    data = models.JSONField(default=dict)
    occurred_at = models.DateTimeField()

    objects = CoordinationEventQuerySet.as_manager()

    class Meta:
        indexes = (
            models.Index(fields=("subject", "-raft_index"), name="event_by_subject"),
            models.Index(fields=("kind", "-raft_index"), name="event_by_kind"),
            models.Index(fields=("occurred_at",), name="event_by_time"),
        )

    def __str__(self) -> str:
        return f"{self.raft_index}.{self.sequence} {self.kind}"


class ProjectionState(models.Model):
    """The watermark: the last revision written to these tables, by whom, and in which cluster."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    cluster_id = models.CharField(max_length=64, blank=True, default="", db_default="")
    revision = models.BigIntegerField(default=0, db_default=0)
    term = models.BigIntegerField(default=0, db_default=0)
    node_id = models.CharField(max_length=255, blank=True, default="", db_default="")
    clock_ms = models.BigIntegerField(default=0, db_default=0)
    reconciled_count = models.PositiveIntegerField(default=0, db_default=0)
    updated_at = models.DateTimeField(auto_now=True, db_default=Now())

    class Meta:
        verbose_name = "cluster"
        verbose_name_plural = "cluster"
        constraints = (models.CheckConstraint(condition=Q(id=1), name="projection_state_is_one_row"),)

    def __str__(self) -> str:
        return f"revision {self.revision}"
