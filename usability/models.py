"""The tables of the usability half: the roster, what apps report, what was detected, what teachers did.

A learner is known to apps by a pseudonym, `student_id`; the name is in `Student.display_name` and nowhere
else. Every model says what a delete does, every state is checked by the database, and every question the
portal, the admin or the API asks has an index.
"""

from __future__ import annotations

import uuid

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone
from uuid_utils.compat import uuid7

from usability import querysets
from usability.kinds import (
    OPEN_ALERT_STATES,
    AlertSeverity,
    AlertState,
    AlertVerb,
    EventSeverity,
    HealthMeasure,
    InterventionKind,
    ProfileState,
    RunState,
    TeacherRole,
)
from usability.xapi import models as xapi_models  # noqa: F401  Django finds its tables through this module

# What a pseudonym, a session or an item may look like: an id and never a text, for it has no blank.
ID_PATTERN = r"^[A-Za-z0-9._:/-]+\Z"
# PostgreSQL's own spelling of it, for CHECK constraints.
ID_PATTERN_SQL = r"^[A-Za-z0-9._:/-]+$"
SEAT_PATTERN = r"^[A-Z]{1,2}[1-9][0-9]?\Z"
SEAT_PATTERN_SQL = r"^([A-Z]{1,2}[1-9][0-9]?)?$"
SLUG_PATTERN_SQL = r"^[a-z0-9_-]{1,50}$"

valid_id = RegexValidator(ID_PATTERN, "Only letters, digits and . _ : / - are allowed.")
valid_seat = RegexValidator(SEAT_PATTERN, "A seat is a column letter and a row number, such as C2.")

USER = settings.AUTH_USER_MODEL


def _one_of(field: str, choices: type[models.TextChoices], name: str) -> models.CheckConstraint:
    return models.CheckConstraint(condition=Q(**{f"{field}__in": choices.values}), name=name)


class Stamped(models.Model):
    """A UUIDv7 key, which sorts by time, and the two stamps."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    created_at = models.DateTimeField(default=timezone.now, db_default=Now(), editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True


# ---------------------------------------------------------------- the roster


class School(Stamped):
    """Where classrooms are, and the zone its days are counted in."""

    name = models.CharField(max_length=200)
    time_zone = models.CharField(
        max_length=64, default="UTC", help_text="IANA name; days and quiet hours are counted in it"
    )
    sourced_id = models.CharField(
        max_length=255, null=True, blank=True, unique=True, help_text="OneRoster org"
    )

    class Meta:
        ordering = ["name", "id"]

    def __str__(self) -> str:
        return self.name


class Classroom(Stamped):
    """A class; its alerts are numbered by `alert_seq`."""

    school = models.ForeignKey(School, on_delete=models.PROTECT, related_name="classrooms")
    name = models.CharField(max_length=200)
    subject = models.CharField(max_length=100, blank=True, default="")
    sourced_id = models.CharField(
        max_length=255, null=True, blank=True, unique=True, help_text="OneRoster class"
    )
    app_names = models.JSONField(
        default=list,
        blank=True,
        help_text="apps used here; decides where a learner of several classes counts",
    )
    alert_seq = models.BigIntegerField(
        default=0, editable=False, help_text="the last `seq` given to an alert"
    )
    paused_until = models.DateTimeField(null=True, blank=True, help_text="no alert interrupts before")
    is_archived = models.BooleanField(default=False)

    objects = querysets.ClassroomQuerySet.as_manager()

    class Meta:
        ordering = ["name", "id"]
        constraints = [
            models.CheckConstraint(condition=Q(alert_seq__gte=0), name="classroom_alert_seq_not_negative"),
        ]

    def __str__(self) -> str:
        return self.name


class Student(Stamped):
    """A learner. Apps, metrics and logs know the pseudonym alone."""

    student_id = models.CharField(max_length=50, unique=True, validators=[valid_id])
    display_name = models.CharField(max_length=200, blank=True, default="")
    school = models.ForeignKey(
        School, null=True, blank=True, on_delete=models.SET_NULL, related_name="students"
    )
    sourced_id = models.CharField(
        max_length=255, null=True, blank=True, unique=True, help_text="OneRoster user"
    )
    first_seen_app = models.CharField(
        max_length=50,
        blank=True,
        default="",
        help_text="the app that named this learner before any roster did",
    )

    objects = querysets.StudentQuerySet.as_manager()

    class Meta:
        ordering = ["student_id"]
        indexes = [models.Index(fields=["school", "student_id"], name="student_of_school")]
        constraints = [
            models.CheckConstraint(condition=Q(student_id__regex=ID_PATTERN_SQL), name="student_id_is_an_id"),
        ]

    def __str__(self) -> str:
        return self.display_name or self.student_id


class Enrollment(Stamped):
    """A learner in a class, and the seat there; over once `ended_on` is set."""

    student = models.ForeignKey(
        Student, to_field="student_id", on_delete=models.CASCADE, related_name="enrollments"
    )
    classroom = models.ForeignKey(Classroom, on_delete=models.CASCADE, related_name="enrollments")
    seat = models.CharField(max_length=4, blank=True, default="", validators=[valid_seat])
    sourced_id = models.CharField(
        max_length=255, null=True, blank=True, unique=True, help_text="OneRoster enrollment"
    )
    snoozed_until = models.DateTimeField(
        null=True, blank=True, help_text="no alert about this learner before"
    )
    ended_on = models.DateField(null=True, blank=True)

    objects = querysets.EnrollmentQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["classroom", "student"], condition=Q(ended_on__isnull=True), name="enrolled_once"
            ),
            models.UniqueConstraint(
                fields=["classroom", "seat"],
                condition=Q(ended_on__isnull=True) & ~Q(seat=""),
                name="seat_taken_once",
            ),
            models.CheckConstraint(condition=Q(seat__regex=SEAT_PATTERN_SQL), name="seat_is_a_place"),
        ]

    def __str__(self) -> str:
        return f"{self.student_id} in {self.classroom_id}"


class ClassroomTeacher(Stamped):
    """Who teaches a class, and so sees it."""

    Role = TeacherRole

    classroom = models.ForeignKey(Classroom, on_delete=models.CASCADE, related_name="teachers")
    user = models.ForeignKey(USER, on_delete=models.CASCADE, related_name="taught_classrooms")
    role = models.CharField(max_length=20, choices=Role.choices, default=Role.LEAD)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["classroom", "user"], name="teaches_once"),
            _one_of("role", TeacherRole, "classroom_teacher_role_known"),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} of {self.classroom_id}"


# ---------------------------------------------------------------- what apps report


class App(Stamped):
    """An education app, and what it may send beyond the types every app may send."""

    name = models.CharField(max_length=50, unique=True, validators=[valid_id])
    title = models.CharField(max_length=200, blank=True, default="")
    metric_types = models.JSONField(default=list, blank=True, help_text="its own metric types")
    allowed_origins = models.JSONField(default=list, blank=True, help_text="web origins that may send for it")

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(condition=Q(name__regex=ID_PATTERN_SQL), name="app_name_is_an_id")
        ]

    def __str__(self) -> str:
        return self.title or self.name


class UsabilityMetric(models.Model):
    """One report of an app about one learner.

    In the database the key is `(timestamp, id)`, for the table is divided by time; Django knows `id` alone,
    because the admin cannot serve a composite key. Look one up with `objects.with_id`.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    timestamp = models.DateTimeField()
    received_at = models.DateTimeField(default=timezone.now, db_default=Now())
    metric_value = models.FloatField()
    classroom = models.ForeignKey(
        Classroom,
        null=True,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="+",
        help_text="where the learner sat at receipt; empty: on no roster",
    )
    student_id = models.CharField(max_length=50)
    app_name = models.CharField(max_length=50)
    metric_type = models.CharField(max_length=100)
    # Null rather than "": most metrics of some apps have none, and a null takes no room.
    session_id = models.CharField(max_length=100, null=True)  # noqa: DJ001
    metadata = models.JSONField(null=True)

    objects = querysets.UsabilityMetricQuerySet.as_manager()

    class Meta:
        verbose_name = "metric"
        db_table = "usability_metrics"

    def __str__(self) -> str:
        return f"{self.metric_type} of {self.student_id} in {self.app_name}"


class IngestBatch(models.Model):
    """A batch id that has been stored; inserted in the transaction that stores the batch."""

    # Whose batch ids these are: the app of a key, the app and learner of a session token.
    scope = models.CharField(max_length=120)
    batch_id = models.CharField(max_length=100)
    fingerprint = models.BinaryField(
        max_length=16, help_text="of the body: the same id may not carry another"
    )
    received_at = models.DateTimeField(default=timezone.now, db_default=Now())

    class Meta:
        verbose_name = "ingest batch"
        verbose_name_plural = "ingest batches"
        constraints = [models.UniqueConstraint(fields=["scope", "batch_id"], name="batch_stored_once")]
        indexes = [models.Index(fields=["received_at"], name="batch_by_age")]

    def __str__(self) -> str:
        return f"{self.scope} {self.batch_id}"


class AppHealthCount(models.Model):
    """How often something happened in an app within an hour: the health of the app, of no one learner."""

    Measure = HealthMeasure

    app_name = models.CharField(max_length=50)
    hour = models.DateTimeField()
    measure = models.CharField(max_length=20, choices=Measure.choices)
    label = models.CharField(max_length=100, blank=True, default="", help_text="a reason, an item, a version")
    count = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["app_name", "hour", "measure", "label"], name="app_health_counted_once"
            ),
            _one_of("measure", HealthMeasure, "app_health_measure_known"),
        ]

    def __str__(self) -> str:
        return f"{self.app_name} {self.measure} {self.label}: {self.count}"


class SatisfactionRating(Stamped):
    """What a learner thought of one sitting in an app."""

    student = models.ForeignKey(
        Student, to_field="student_id", on_delete=models.CASCADE, related_name="ratings", db_index=False
    )
    classroom = models.ForeignKey(
        Classroom, null=True, blank=True, on_delete=models.SET_NULL, related_name="ratings"
    )
    app_name = models.CharField(max_length=50)
    session_id = models.CharField(max_length=100)
    rating = models.PositiveSmallIntegerField()
    feedback_text = models.CharField(max_length=1000, blank=True, default="")

    objects = querysets.SatisfactionRatingQuerySet.as_manager()

    class Meta:
        db_table = "satisfaction_ratings"
        constraints = [
            models.UniqueConstraint(
                fields=["student", "app_name", "session_id"], name="one_rating_a_sitting"
            ),
            models.CheckConstraint(condition=Q(rating__gte=1, rating__lte=5), name="rating_from_1_to_5"),
        ]
        indexes = [
            models.Index(fields=["student", "-created_at"], name="rating_of_student"),
            models.Index(fields=["app_name", "-created_at"], name="rating_of_app"),
            models.Index(fields=["-created_at"], name="rating_by_time"),
        ]

    def __str__(self) -> str:
        return f"{self.rating} by {self.student_id} for {self.app_name}"


# ---------------------------------------------------------------- what was detected


class FrustrationEvent(Stamped):
    """The stored record of an episode: observed behaviour with its evidence, no claim about a feeling."""

    Severity = EventSeverity

    student = models.ForeignKey(
        Student,
        to_field="student_id",
        on_delete=models.CASCADE,
        related_name="frustration_events",
        db_index=False,
    )
    classroom = models.ForeignKey(
        Classroom,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="frustration_events",
        db_index=False,
    )
    app_name = models.CharField(max_length=50)
    event_type = models.CharField(max_length=50, help_text="the family of the episode")
    severity = models.CharField(max_length=10, choices=Severity.choices)
    details = models.JSONField(default=dict, help_text="the evidence: numbers, threshold, observation ids")
    detected_at = models.DateTimeField(help_text="event time at which the episode opened")
    ended_at = models.DateTimeField(null=True, blank=True)
    acknowledged_at = models.DateTimeField(null=True, blank=True)
    acknowledged_by = models.ForeignKey(
        USER, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolved_by = models.ForeignKey(USER, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    revision = models.PositiveIntegerField(default=0, help_text="decisions of detection written so far")
    detector = models.CharField(max_length=50, blank=True, default="")
    params_version = models.CharField(max_length=50, blank=True, default="")

    objects = querysets.FrustrationEventQuerySet.as_manager()

    class Meta:
        verbose_name = "struggle signal"
        db_table = "frustration_events"
        constraints = [
            models.UniqueConstraint(
                fields=["student", "app_name", "event_type"],
                condition=Q(ended_at__isnull=True, resolved_at__isnull=True),
                name="one_open_event",
            ),
            _one_of("severity", EventSeverity, "event_severity_known"),
            models.CheckConstraint(
                condition=Q(ended_at__isnull=True) | Q(ended_at__gte=F("detected_at")),
                name="event_ends_after_start",
            ),
        ]
        indexes = [
            models.Index(fields=["student", "-detected_at"], name="event_of_student"),
            models.Index(fields=["classroom", "-detected_at"], name="event_of_classroom"),
            models.Index(fields=["severity", "-detected_at"], name="event_of_severity"),
            models.Index(
                fields=["detected_at"], condition=Q(resolved_at__isnull=True), name="event_unresolved"
            ),
            models.Index(
                fields=["resolved_at"], condition=Q(resolved_at__isnull=False), name="event_resolved"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.event_type} ({self.severity}) of {self.student_id}"

    @property
    def is_open(self) -> bool:
        """Whether the episode goes on and nobody has resolved it."""
        return self.ended_at is None and self.resolved_at is None


class TeacherDashboardAlert(Stamped):
    """What a teacher sees about an episode.

    `seq` is the classroom's number of the alert's latest change, taken from `Classroom.alert_seq`; a page
    that knows a cursor asks for what is after it.
    """

    Severity = AlertSeverity

    State = AlertState

    OPEN_STATES = OPEN_ALERT_STATES

    classroom = models.ForeignKey(Classroom, on_delete=models.CASCADE, related_name="alerts", db_index=False)
    teacher = models.ForeignKey(
        USER,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="set: for this one alone",
    )
    student = models.ForeignKey(
        Student,
        to_field="student_id",
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="alerts",
        help_text="empty: about the whole class",
    )
    event = models.ForeignKey(
        FrustrationEvent, null=True, blank=True, on_delete=models.SET_NULL, related_name="alerts"
    )
    app_name = models.CharField(max_length=50)
    alert_type = models.CharField(max_length=50)
    severity = models.CharField(max_length=10, choices=Severity.choices)
    details = models.JSONField(default=dict, help_text="reason in words and its evidence")
    state = models.CharField(max_length=20, choices=State.choices, default=State.NEW)
    seq = models.BigIntegerField()
    first_seq = models.BigIntegerField(default=0, help_text="the seq at which it was raised")
    is_interrupting = models.BooleanField(default=True, help_text="the alert budget let it call the teacher")
    detected_at = models.DateTimeField(default=timezone.now, help_text="event time of what it is about")
    acknowledged_at = models.DateTimeField(null=True, blank=True)
    acknowledged_by = models.ForeignKey(
        USER, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    helping_at = models.DateTimeField(null=True, blank=True)
    helping_by = models.ForeignKey(USER, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    closed_at = models.DateTimeField(null=True, blank=True, help_text="resolved, dismissed or expired")
    closed_by = models.ForeignKey(USER, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    snoozed_until = models.DateTimeField(null=True, blank=True)
    snoozed_by = models.ForeignKey(USER, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    note = models.CharField(max_length=1000, blank=True, default="")

    objects = querysets.TeacherDashboardAlertQuerySet.as_manager()

    class Meta:
        verbose_name = "alert"
        db_table = "teacher_dashboard_alerts"
        constraints = [
            models.UniqueConstraint(fields=["classroom", "seq"], name="one_alert_a_seq"),
            _one_of("severity", AlertSeverity, "alert_severity_known"),
            _one_of("state", AlertState, "alert_state_known"),
            models.CheckConstraint(
                condition=Q(state__in=OPEN_ALERT_STATES, closed_at__isnull=True)
                | (~Q(state__in=OPEN_ALERT_STATES) & Q(closed_at__isnull=False)),
                name="alert_closed_has_a_time",
            ),
        ]
        indexes = [
            models.Index(fields=["classroom", "-created_at"], name="alert_of_classroom"),
            models.Index(
                fields=["classroom", "app_name"], condition=Q(closed_at__isnull=True), name="alert_open"
            ),
            models.Index(fields=["closed_at"], condition=Q(closed_at__isnull=False), name="alert_closed"),
        ]

    def __str__(self) -> str:
        return f"{self.alert_type} ({self.severity}) {self.state}"

    @property
    def is_open(self) -> bool:
        """Whether a teacher can still act on it."""
        return self.state in self.OPEN_STATES


class AlertStep(models.Model):
    """One step somebody took with an alert, and what the alert was before it: for undo, audit and back-test."""

    Verb = AlertVerb

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    alert = models.ForeignKey(TeacherDashboardAlert, on_delete=models.CASCADE, related_name="steps")
    actor = models.ForeignKey(USER, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    verb = models.CharField(max_length=20, choices=Verb.choices)
    at = models.DateTimeField(default=timezone.now)
    before = models.JSONField(default=dict, help_text="the fields it changed, as they were")
    undone_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [_one_of("verb", AlertVerb, "alert_step_verb_known")]
        indexes = [
            models.Index(
                fields=["verb", "-at"], condition=Q(undone_at__isnull=True), name="alert_step_of_verb"
            )
        ]

    def __str__(self) -> str:
        return f"{self.verb} at {self.at:%Y-%m-%d %H:%M}"


class HelpRequest(models.Model):
    """A learner asked for help. Its id is the id of the `help_request` metric, which the app was told."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    student = models.ForeignKey(
        Student, to_field="student_id", on_delete=models.CASCADE, related_name="help_requests"
    )
    classroom = models.ForeignKey(
        Classroom, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    app_name = models.CharField(max_length=50)
    alert = models.ForeignKey(
        TeacherDashboardAlert, null=True, blank=True, on_delete=models.SET_NULL, related_name="help_requests"
    )
    requested_at = models.DateTimeField(default=timezone.now)
    done_at = models.DateTimeField(
        null=True,
        blank=True,
        help_text="set when its alert comes back for another request: this one stays done",
    )

    class Meta:
        indexes = [models.Index(fields=["requested_at"], name="help_request_by_age")]

    def __str__(self) -> str:
        return f"help for {self.student_id} in {self.app_name}"

    @property
    def state(self) -> str:
        """What the learner's page shows: sent, seen, coming or done."""
        if self.done_at is not None:
            return "done"
        if self.alert is None or self.alert.state == TeacherDashboardAlert.State.NEW:
            return "sent"
        if self.alert.state == TeacherDashboardAlert.State.ACKNOWLEDGED:
            return "seen"
        if self.alert.state == TeacherDashboardAlert.State.HELPING:
            return "coming"
        return "done"


class Intervention(Stamped):
    """What a teacher did about an alert, and what came after it."""

    Kind = InterventionKind

    alert = models.ForeignKey(TeacherDashboardAlert, on_delete=models.CASCADE, related_name="interventions")
    teacher = models.ForeignKey(
        USER, null=True, blank=True, on_delete=models.SET_NULL, related_name="interventions"
    )
    kind = models.CharField(max_length=50, default=Kind.OTHER)
    note = models.CharField(max_length=1000, blank=True, default="")
    at = models.DateTimeField(default=timezone.now)
    effect = models.JSONField(null=True, blank=True, help_text="{before, after, verdict}; filled later")

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(kind__regex=SLUG_PATTERN_SQL), name="intervention_kind_is_a_slug"
            )
        ]
        indexes = [
            models.Index(fields=["at"], condition=Q(effect__isnull=True), name="intervention_unmeasured"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} at {self.at:%Y-%m-%d %H:%M}"


class UnhelpedMoment(models.Model):
    """How it went on with a pupil whose episode had lasted `after_s` seconds and whom nobody came to help.

    The yardstick of effects: the same measure over the same lengths of time as around a teacher's help. `good` of
    `n` before and after; `good` may be a fraction where the measure is a mean share.
    """

    event = models.ForeignKey(FrustrationEvent, on_delete=models.CASCADE, related_name="unhelped_moments")
    classroom = models.ForeignKey(
        Classroom, on_delete=models.CASCADE, related_name="unhelped_moments", db_index=False
    )
    family = models.CharField(max_length=50)
    severity = models.CharField(max_length=10)
    after_s = models.PositiveIntegerField()
    at = models.DateTimeField()
    measure = models.CharField(max_length=30)
    before_good = models.FloatField()
    before_n = models.PositiveIntegerField()
    after_good = models.FloatField()
    after_n = models.PositiveIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["event", "after_s"], name="unhelped_measured_once"),
        ]
        indexes = [models.Index(fields=["classroom", "family", "-at"], name="unhelped_of_classroom")]

    def __str__(self) -> str:
        return f"{self.family} after {self.after_s} s without help"


class ClassroomMetricsSnapshot(Stamped):
    """One classroom and app in one window of time. A rate or mean of nothing is empty, not 0."""

    classroom = models.ForeignKey(
        Classroom, on_delete=models.CASCADE, related_name="snapshots", db_index=False
    )
    app_name = models.CharField(max_length=50)
    window_start = models.DateTimeField()
    window_end = models.DateTimeField()
    student_count = models.PositiveIntegerField(default=0)
    active_count = models.PositiveIntegerField(default=0)
    struggling_student_count = models.PositiveIntegerField(default=0)
    average_frustration_level = models.FloatField(null=True, help_text="mean severity of open events, 0 to 4")
    average_satisfaction_rating = models.FloatField(null=True)
    error_rate = models.FloatField(null=True, help_text="wrong answers over answers")
    correction_rate = models.FloatField(null=True, help_text="backspaces over key presses")
    hint_rate = models.FloatField(null=True, help_text="hints over answers")
    completion_rate = models.FloatField(null=True, help_text="completions a learner and minute")
    snapshot_data = models.JSONField(default=dict)

    objects = querysets.ClassroomMetricsSnapshotQuerySet.as_manager()

    class Meta:
        verbose_name = "class snapshot"
        db_table = "classroom_metrics_snapshots"
        constraints = [
            models.UniqueConstraint(
                fields=["classroom", "app_name", "window_start", "window_end"], name="one_snapshot_a_window"
            ),
            models.CheckConstraint(
                condition=Q(window_end__gt=F("window_start")), name="snapshot_window_has_length"
            ),
            models.CheckConstraint(
                condition=Q(active_count__lte=F("student_count"))
                & Q(struggling_student_count__lte=F("student_count")),
                name="snapshot_counts_fit",
            ),
        ]
        indexes = [models.Index(fields=["window_end"], name="snapshot_by_age")]

    def __str__(self) -> str:
        return f"{self.classroom_id} {self.app_name} {self.window_start:%Y-%m-%d %H:%M}"


class DetectorProfile(Stamped):
    """Versioned parameters of detection. The most specific active one holds: classroom, app, neither.

    A draft does nothing. One in shadow is replayed over what comes in and alerts nobody (`ShadowCount`).
    """

    State = ProfileState

    app_name = models.CharField(max_length=50, blank=True, default="", help_text="empty: every app")
    classroom = models.ForeignKey(
        Classroom,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="profiles",
        help_text="empty: every one",
    )
    version = models.PositiveIntegerField(default=1)
    state = models.CharField(max_length=10, choices=State.choices, default=State.ACTIVE)
    state_at = models.DateTimeField(default=timezone.now, help_text="since when it has been in this state")
    state_by = models.ForeignKey(USER, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    parameters = models.JSONField(default=dict, blank=True, help_text="{detector: {parameter: value}}")
    alerts_per_10_min = models.FloatField(default=1.0, help_text="the alert budget, sustained")
    alert_burst = models.PositiveSmallIntegerField(default=3, help_text="the alert budget, at once")
    quiet_hours = models.JSONField(
        default=list,
        blank=True,
        help_text='[{"days": [1..7], "from": "12:00", "until": "13:00"}], school\'s zone',
    )
    note = models.CharField(max_length=200, blank=True, default="", help_text="why this version was made")
    created_by = models.ForeignKey(USER, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")

    class Meta:
        ordering = ["app_name", "classroom_id", "-version"]
        constraints = [
            models.UniqueConstraint(
                fields=["app_name", "classroom", "version"], nulls_distinct=False, name="profile_version_once"
            ),
            models.UniqueConstraint(
                fields=["app_name", "classroom"],
                condition=Q(state="active"),
                nulls_distinct=False,
                name="profile_active_once",
            ),
            models.UniqueConstraint(
                fields=["app_name", "classroom"],
                condition=Q(state="shadow"),
                nulls_distinct=False,
                name="profile_shadow_once",
            ),
            _one_of("state", ProfileState, "profile_state_known"),
            models.CheckConstraint(
                condition=Q(alerts_per_10_min__gte=0) & Q(alert_burst__gte=0),
                name="profile_budget_not_negative",
            ),
        ]

    def __str__(self) -> str:
        where = self.classroom.name if self.classroom_id else "every class"
        return f"{self.app_name or 'every app'}, {where}, version {self.version}"

    @property
    def is_active(self) -> bool:
        """Whether detection goes by it."""
        return self.state == ProfileState.ACTIVE


class ShadowCount(models.Model):
    """How many alerts a profile in shadow would have raised in one class and stretch of time, and how many were."""

    profile = models.ForeignKey(DetectorProfile, on_delete=models.CASCADE, related_name="shadow_counts")
    classroom = models.ForeignKey(
        Classroom, on_delete=models.CASCADE, related_name="shadow_counts", db_index=False
    )
    window_start = models.DateTimeField()
    window_end = models.DateTimeField()
    raised = models.PositiveIntegerField(help_text="by the profile in shadow")
    interrupting = models.PositiveIntegerField(help_text="of those, how many would have interrupted")
    present_raised = models.PositiveIntegerField(help_text="by the profile that holds, from the same rows")
    present_interrupting = models.PositiveIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["profile", "classroom", "window_start"], name="shadow_counted_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.raised} in shadow against {self.present_raised}, {self.window_start:%Y-%m-%d %H:%M}"


class BackTest(Stamped):
    """A replay of stored metrics through other parameters: what was asked, how far it is, what came out."""

    State = RunState

    created_by = models.ForeignKey(USER, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    wish = models.JSONField(help_text="classes, app, stretch of time, profile and changes")
    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    started_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    metrics_total = models.BigIntegerField(
        default=0, help_text="estimated before the replay, counted after it"
    )
    metrics_done = models.BigIntegerField(default=0)
    result = models.JSONField(null=True, blank=True)
    error = models.CharField(max_length=500, blank=True, default="")

    class Meta:
        verbose_name = "back-test"
        ordering = ["-created_at"]
        constraints = [_one_of("state", RunState, "back_test_state_known")]
        indexes = [
            models.Index(
                fields=["created_at"],
                condition=Q(state__in=["queued", "running"]),
                name="back_test_unfinished",
            )
        ]

    def __str__(self) -> str:
        return f"back-test of {self.created_at:%Y-%m-%d %H:%M}"


# ---------------------------------------------------------------- bookkeeping


class StreamPartition(models.Model):
    """Who detects in a partition of the stream, and how far it has come.

    Ownership is taken by one UPDATE that finds `until` passed and raises `epoch`; every write of detection
    checks the epoch in its own transaction, so an owner that was away too long writes nothing.
    """

    partition = models.PositiveSmallIntegerField(primary_key=True)
    owner = models.CharField(max_length=100, blank=True, default="")
    epoch = models.BigIntegerField(default=0)
    until = models.DateTimeField(null=True, blank=True)
    cursor_received_at = models.DateTimeField(null=True, blank=True, help_text="rows up to here are judged")
    cursor_id = models.UUIDField(null=True, blank=True)

    class Meta:
        ordering = ["partition"]

    def __str__(self) -> str:
        return f"partition {self.partition} of {self.owner or 'nobody'}"


class RoomCheckpoint(models.Model):
    """The state of detection for one classroom at one moment: a take-over goes on from it with the rows since.

    Nothing is lost without it: the state is then rebuilt from the rows alone.
    """

    classroom = models.OneToOneField(
        Classroom, primary_key=True, on_delete=models.CASCADE, related_name="checkpoint"
    )
    clock_ms = models.BigIntegerField(help_text="unix ms up to which the state has seen")
    state = models.BinaryField()
    saved_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"checkpoint of {self.classroom_id}"


class DetectionWorker(models.Model):
    """A worker that detects, while it lives: the others give it its share of the partitions."""

    name = models.CharField(max_length=100, primary_key=True)
    started_at = models.DateTimeField(default=timezone.now)
    until = models.DateTimeField(help_text="taken for dead after this")
    backlog_s = models.FloatField(default=0, help_text="age of the oldest row not judged yet")

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class StudentAccess(models.Model):
    """Somebody looked at one learner, or acted on one. Written once, never changed."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    at = models.DateTimeField(default=timezone.now, db_default=Now())
    user = models.ForeignKey(USER, null=True, on_delete=models.SET_NULL, related_name="+")
    key_name = models.CharField(
        max_length=100, blank=True, default="", help_text="the API key, where one was used"
    )
    # Not a foreign key: the record of a look outlives the learner's data.
    student_id = models.CharField(max_length=50)
    action = models.CharField(max_length=50, help_text="view_timeline, view_metrics, export, erase …")

    class Meta:
        verbose_name = "look at a pupil"
        verbose_name_plural = "looks at pupils"
        indexes = [
            models.Index(fields=["student_id", "-at"], name="access_of_student"),
            models.Index(fields=["user", "-at"], name="access_by_user"),
            models.Index(fields=["at"], name="access_by_age"),
        ]

    def __str__(self) -> str:
        return f"{self.action} of {self.student_id}"


def new_id() -> uuid.UUID:
    """A fresh UUIDv7, as rows get one by themselves."""
    return uuid7()
