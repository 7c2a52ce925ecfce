import django.core.validators
import django.db.models.deletion
import django.db.models.functions.datetime
import django.utils.timezone
import uuid_utils.compat
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="School",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        default=django.utils.timezone.now,
                        editable=False,
                    ),
                ),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("name", models.CharField(max_length=200)),
                (
                    "time_zone",
                    models.CharField(
                        default="UTC",
                        help_text="IANA name; days and quiet hours are counted in it",
                        max_length=64,
                    ),
                ),
                (
                    "sourced_id",
                    models.CharField(
                        blank=True, help_text="OneRoster org", max_length=255, null=True, unique=True
                    ),
                ),
            ],
            options={
                "ordering": ["name", "id"],
            },
        ),
        migrations.CreateModel(
            name="StreamPartition",
            fields=[
                ("partition", models.PositiveSmallIntegerField(primary_key=True, serialize=False)),
                ("owner", models.CharField(blank=True, default="", max_length=100)),
                ("epoch", models.BigIntegerField(default=0)),
                ("until", models.DateTimeField(blank=True, null=True)),
                (
                    "cursor_received_at",
                    models.DateTimeField(blank=True, help_text="rows up to here are judged", null=True),
                ),
                ("cursor_id", models.UUIDField(blank=True, null=True)),
            ],
            options={
                "ordering": ["partition"],
            },
        ),
        migrations.CreateModel(
            name="App",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        default=django.utils.timezone.now,
                        editable=False,
                    ),
                ),
                ("updated_at", models.DateTimeField(auto_now=True)),
                (
                    "name",
                    models.CharField(
                        max_length=50,
                        unique=True,
                        validators=[
                            django.core.validators.RegexValidator(
                                "^[A-Za-z0-9._:/-]+\\Z", "Only letters, digits and . _ : / - are allowed."
                            )
                        ],
                    ),
                ),
                ("title", models.CharField(blank=True, default="", max_length=200)),
                (
                    "metric_types",
                    models.JSONField(blank=True, default=list, help_text="its own metric types"),
                ),
                (
                    "allowed_origins",
                    models.JSONField(blank=True, default=list, help_text="web origins that may send for it"),
                ),
            ],
            options={
                "ordering": ["name"],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("name__regex", "^[A-Za-z0-9._:/-]+$")), name="app_name_is_an_id"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="AppHealthCount",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("app_name", models.CharField(max_length=50)),
                ("hour", models.DateTimeField()),
                (
                    "measure",
                    models.CharField(
                        choices=[
                            ("accepted", "Accepted"),
                            ("late", "Late"),
                            ("rejected", "Rejected"),
                            ("sdk", "Sdk"),
                            ("dead_click", "Dead Click"),
                            ("rage_click", "Rage Click"),
                            ("error_click", "Error Click"),
                        ],
                        max_length=20,
                    ),
                ),
                (
                    "label",
                    models.CharField(
                        blank=True, default="", help_text="a reason, an item, a version", max_length=100
                    ),
                ),
                ("count", models.BigIntegerField(default=0)),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("app_name", "hour", "measure", "label"), name="app_health_counted_once"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "measure__in",
                                [
                                    "accepted",
                                    "late",
                                    "rejected",
                                    "sdk",
                                    "dead_click",
                                    "rage_click",
                                    "error_click",
                                ],
                            )
                        ),
                        name="app_health_measure_known",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="IngestBatch",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("scope", models.CharField(max_length=120)),
                ("batch_id", models.CharField(max_length=100)),
                (
                    "fingerprint",
                    models.BinaryField(
                        help_text="of the body: the same id may not carry another", max_length=16
                    ),
                ),
                (
                    "received_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        default=django.utils.timezone.now,
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["received_at"], name="batch_by_age")],
                "constraints": [
                    models.UniqueConstraint(fields=("scope", "batch_id"), name="batch_stored_once")
                ],
            },
        ),
        migrations.CreateModel(
            name="Classroom",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        default=django.utils.timezone.now,
                        editable=False,
                    ),
                ),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("name", models.CharField(max_length=200)),
                ("subject", models.CharField(blank=True, default="", max_length=100)),
                (
                    "sourced_id",
                    models.CharField(
                        blank=True, help_text="OneRoster class", max_length=255, null=True, unique=True
                    ),
                ),
                (
                    "app_names",
                    models.JSONField(
                        blank=True,
                        default=list,
                        help_text="apps used here; decides where a learner of several classes counts",
                    ),
                ),
                (
                    "alert_seq",
                    models.BigIntegerField(
                        default=0, editable=False, help_text="the last `seq` given to an alert"
                    ),
                ),
                (
                    "paused_until",
                    models.DateTimeField(blank=True, help_text="no alert interrupts before", null=True),
                ),
                ("is_archived", models.BooleanField(default=False)),
                (
                    "school",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="classrooms",
                        to="usability.school",
                    ),
                ),
            ],
            options={
                "ordering": ["name", "id"],
            },
        ),
        migrations.CreateModel(
            name="Student",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        default=django.utils.timezone.now,
                        editable=False,
                    ),
                ),
                ("updated_at", models.DateTimeField(auto_now=True)),
                (
                    "student_id",
                    models.CharField(
                        max_length=50,
                        unique=True,
                        validators=[
                            django.core.validators.RegexValidator(
                                "^[A-Za-z0-9._:/-]+\\Z", "Only letters, digits and . _ : / - are allowed."
                            )
                        ],
                    ),
                ),
                ("display_name", models.CharField(blank=True, default="", max_length=200)),
                (
                    "sourced_id",
                    models.CharField(
                        blank=True, help_text="OneRoster user", max_length=255, null=True, unique=True
                    ),
                ),
                (
                    "first_seen_app",
                    models.CharField(
                        blank=True,
                        default="",
                        help_text="the app that named this learner before any roster did",
                        max_length=50,
                    ),
                ),
                (
                    "school",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="students",
                        to="usability.school",
                    ),
                ),
            ],
            options={
                "ordering": ["student_id"],
            },
        ),
        migrations.CreateModel(
            name="SatisfactionRating",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        default=django.utils.timezone.now,
                        editable=False,
                    ),
                ),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("app_name", models.CharField(max_length=50)),
                ("session_id", models.CharField(max_length=100)),
                ("rating", models.PositiveSmallIntegerField()),
                ("feedback_text", models.CharField(blank=True, default="", max_length=1000)),
                (
                    "classroom",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="ratings",
                        to="usability.classroom",
                    ),
                ),
                (
                    "student",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="ratings",
                        to="usability.student",
                        to_field="student_id",
                    ),
                ),
            ],
            options={
                "db_table": "satisfaction_ratings",
            },
        ),
        migrations.CreateModel(
            name="FrustrationEvent",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        default=django.utils.timezone.now,
                        editable=False,
                    ),
                ),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("app_name", models.CharField(max_length=50)),
                ("event_type", models.CharField(help_text="the family of the episode", max_length=50)),
                (
                    "severity",
                    models.CharField(
                        choices=[
                            ("low", "Low"),
                            ("medium", "Medium"),
                            ("high", "High"),
                            ("critical", "Critical"),
                        ],
                        max_length=10,
                    ),
                ),
                (
                    "details",
                    models.JSONField(
                        default=dict, help_text="the evidence: numbers, threshold, observation ids"
                    ),
                ),
                ("detected_at", models.DateTimeField(help_text="event time at which the episode opened")),
                ("ended_at", models.DateTimeField(blank=True, null=True)),
                ("acknowledged_at", models.DateTimeField(blank=True, null=True)),
                ("resolved_at", models.DateTimeField(blank=True, null=True)),
                ("detector", models.CharField(blank=True, default="", max_length=50)),
                ("params_version", models.CharField(blank=True, default="", max_length=50)),
                (
                    "acknowledged_by",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "classroom",
                    models.ForeignKey(
                        blank=True,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="frustration_events",
                        to="usability.classroom",
                    ),
                ),
                (
                    "resolved_by",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "student",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="frustration_events",
                        to="usability.student",
                        to_field="student_id",
                    ),
                ),
            ],
            options={
                "db_table": "frustration_events",
            },
        ),
        migrations.CreateModel(
            name="Enrollment",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        default=django.utils.timezone.now,
                        editable=False,
                    ),
                ),
                ("updated_at", models.DateTimeField(auto_now=True)),
                (
                    "seat",
                    models.CharField(
                        blank=True,
                        default="",
                        max_length=4,
                        validators=[
                            django.core.validators.RegexValidator(
                                "^[A-Z]{1,2}[1-9][0-9]?\\Z",
                                "A seat is a column letter and a row number, such as C2.",
                            )
                        ],
                    ),
                ),
                (
                    "sourced_id",
                    models.CharField(
                        blank=True, help_text="OneRoster enrollment", max_length=255, null=True, unique=True
                    ),
                ),
                (
                    "snoozed_until",
                    models.DateTimeField(
                        blank=True, help_text="no alert about this learner before", null=True
                    ),
                ),
                ("ended_on", models.DateField(blank=True, null=True)),
                (
                    "classroom",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="enrollments",
                        to="usability.classroom",
                    ),
                ),
                (
                    "student",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="enrollments",
                        to="usability.student",
                        to_field="student_id",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="StudentAccess",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        default=django.utils.timezone.now,
                    ),
                ),
                (
                    "key_name",
                    models.CharField(
                        blank=True, default="", help_text="the API key, where one was used", max_length=100
                    ),
                ),
                ("student_id", models.CharField(max_length=50)),
                (
                    "action",
                    models.CharField(help_text="view_timeline, view_metrics, export, erase …", max_length=50),
                ),
                (
                    "user",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="TeacherDashboardAlert",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        default=django.utils.timezone.now,
                        editable=False,
                    ),
                ),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("app_name", models.CharField(max_length=50)),
                ("alert_type", models.CharField(max_length=50)),
                (
                    "severity",
                    models.CharField(
                        choices=[("info", "Info"), ("warning", "Warning"), ("critical", "Critical")],
                        max_length=10,
                    ),
                ),
                ("details", models.JSONField(default=dict, help_text="reason in words and its evidence")),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("new", "New"),
                            ("acknowledged", "Acknowledged"),
                            ("helping", "Helping"),
                            ("resolved", "Resolved"),
                            ("dismissed", "Dismissed"),
                            ("expired", "Expired"),
                        ],
                        default="new",
                        max_length=20,
                    ),
                ),
                ("seq", models.BigIntegerField()),
                (
                    "is_interrupting",
                    models.BooleanField(default=True, help_text="the alert budget let it call the teacher"),
                ),
                (
                    "detected_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now, help_text="event time of what it is about"
                    ),
                ),
                ("acknowledged_at", models.DateTimeField(blank=True, null=True)),
                ("helping_at", models.DateTimeField(blank=True, null=True)),
                (
                    "closed_at",
                    models.DateTimeField(blank=True, help_text="resolved, dismissed or expired", null=True),
                ),
                ("snoozed_until", models.DateTimeField(blank=True, null=True)),
                ("note", models.CharField(blank=True, default="", max_length=1000)),
                (
                    "acknowledged_by",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "classroom",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="alerts",
                        to="usability.classroom",
                    ),
                ),
                (
                    "closed_by",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "event",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="alerts",
                        to="usability.frustrationevent",
                    ),
                ),
                (
                    "helping_by",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "snoozed_by",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "student",
                    models.ForeignKey(
                        blank=True,
                        help_text="empty: about the whole class",
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="alerts",
                        to="usability.student",
                        to_field="student_id",
                    ),
                ),
                (
                    "teacher",
                    models.ForeignKey(
                        blank=True,
                        help_text="set: for this one alone",
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "db_table": "teacher_dashboard_alerts",
            },
        ),
        migrations.CreateModel(
            name="Intervention",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        default=django.utils.timezone.now,
                        editable=False,
                    ),
                ),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("kind", models.CharField(default="other", max_length=50)),
                ("note", models.CharField(blank=True, default="", max_length=1000)),
                ("at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "effect",
                    models.JSONField(
                        blank=True, help_text="{before, after, verdict}; filled later", null=True
                    ),
                ),
                (
                    "teacher",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="interventions",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "alert",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="interventions",
                        to="usability.teacherdashboardalert",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="HelpRequest",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("app_name", models.CharField(max_length=50)),
                ("requested_at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "classroom",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to="usability.classroom",
                    ),
                ),
                (
                    "student",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="help_requests",
                        to="usability.student",
                        to_field="student_id",
                    ),
                ),
                (
                    "alert",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="help_requests",
                        to="usability.teacherdashboardalert",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="ClassroomMetricsSnapshot",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        default=django.utils.timezone.now,
                        editable=False,
                    ),
                ),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("app_name", models.CharField(max_length=50)),
                ("window_start", models.DateTimeField()),
                ("window_end", models.DateTimeField()),
                ("student_count", models.PositiveIntegerField(default=0)),
                ("active_count", models.PositiveIntegerField(default=0)),
                ("struggling_student_count", models.PositiveIntegerField(default=0)),
                (
                    "average_frustration_level",
                    models.FloatField(help_text="mean severity of open events, 0 to 4", null=True),
                ),
                ("average_satisfaction_rating", models.FloatField(null=True)),
                ("error_rate", models.FloatField(help_text="wrong answers over answers", null=True)),
                ("correction_rate", models.FloatField(help_text="backspaces over key presses", null=True)),
                ("hint_rate", models.FloatField(help_text="hints over answers", null=True)),
                (
                    "completion_rate",
                    models.FloatField(help_text="completions a learner and minute", null=True),
                ),
                ("snapshot_data", models.JSONField(default=dict)),
                (
                    "classroom",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="snapshots",
                        to="usability.classroom",
                    ),
                ),
            ],
            options={
                "db_table": "classroom_metrics_snapshots",
                "indexes": [models.Index(fields=["window_end"], name="snapshot_by_age")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("classroom", "app_name", "window_start", "window_end"),
                        name="one_snapshot_a_window",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("window_end__gt", models.F("window_start"))),
                        name="snapshot_window_has_length",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("active_count__lte", models.F("student_count")),
                            ("struggling_student_count__lte", models.F("student_count")),
                        ),
                        name="snapshot_counts_fit",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="ClassroomTeacher",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        default=django.utils.timezone.now,
                        editable=False,
                    ),
                ),
                ("updated_at", models.DateTimeField(auto_now=True)),
                (
                    "role",
                    models.CharField(
                        choices=[("lead", "Lead"), ("co_teacher", "Co Teacher"), ("assistant", "Assistant")],
                        default="lead",
                        max_length=20,
                    ),
                ),
                (
                    "classroom",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="teachers",
                        to="usability.classroom",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="taught_classrooms",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("classroom", "user"), name="teaches_once"),
                    models.CheckConstraint(
                        condition=models.Q(("role__in", ["lead", "co_teacher", "assistant"])),
                        name="classroom_teacher_role_known",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="DetectorProfile",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        default=django.utils.timezone.now,
                        editable=False,
                    ),
                ),
                ("updated_at", models.DateTimeField(auto_now=True)),
                (
                    "app_name",
                    models.CharField(blank=True, default="", help_text="empty: every app", max_length=50),
                ),
                ("version", models.PositiveIntegerField(default=1)),
                ("is_active", models.BooleanField(default=True)),
                (
                    "parameters",
                    models.JSONField(blank=True, default=dict, help_text="{detector: {parameter: value}}"),
                ),
                (
                    "alerts_per_10_min",
                    models.FloatField(default=1.0, help_text="the alert budget, sustained"),
                ),
                (
                    "alert_burst",
                    models.PositiveSmallIntegerField(default=3, help_text="the alert budget, at once"),
                ),
                (
                    "quiet_hours",
                    models.JSONField(
                        blank=True,
                        default=list,
                        help_text='[{"days": [1..7], "from": "12:00", "until": "13:00"}], school\'s zone',
                    ),
                ),
                (
                    "classroom",
                    models.ForeignKey(
                        blank=True,
                        help_text="empty: every one",
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="profiles",
                        to="usability.classroom",
                    ),
                ),
                (
                    "created_by",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "ordering": ["app_name", "classroom_id", "-version"],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("app_name", "classroom", "version"),
                        name="profile_version_once",
                        nulls_distinct=False,
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("is_active", True)),
                        fields=("app_name", "classroom"),
                        name="one_active_profile",
                        nulls_distinct=False,
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("alerts_per_10_min__gte", 0), ("alert_burst__gte", 0)),
                        name="profile_budget_not_negative",
                    ),
                ],
            },
        ),
        migrations.AddConstraint(
            model_name="classroom",
            constraint=models.CheckConstraint(
                condition=models.Q(("alert_seq__gte", 0)), name="classroom_alert_seq_not_negative"
            ),
        ),
        migrations.AddIndex(
            model_name="student",
            index=models.Index(fields=["school", "student_id"], name="student_of_school"),
        ),
        migrations.AddConstraint(
            model_name="student",
            constraint=models.CheckConstraint(
                condition=models.Q(("student_id__regex", "^[A-Za-z0-9._:/-]+$")), name="student_id_is_an_id"
            ),
        ),
        migrations.AddIndex(
            model_name="satisfactionrating",
            index=models.Index(fields=["student", "-created_at"], name="rating_of_student"),
        ),
        migrations.AddIndex(
            model_name="satisfactionrating",
            index=models.Index(fields=["app_name", "-created_at"], name="rating_of_app"),
        ),
        migrations.AddIndex(
            model_name="satisfactionrating",
            index=models.Index(fields=["-created_at"], name="rating_by_time"),
        ),
        migrations.AddConstraint(
            model_name="satisfactionrating",
            constraint=models.UniqueConstraint(
                fields=("student", "app_name", "session_id"), name="one_rating_a_sitting"
            ),
        ),
        migrations.AddConstraint(
            model_name="satisfactionrating",
            constraint=models.CheckConstraint(
                condition=models.Q(("rating__gte", 1), ("rating__lte", 5)), name="rating_from_1_to_5"
            ),
        ),
        migrations.AddIndex(
            model_name="frustrationevent",
            index=models.Index(fields=["student", "-detected_at"], name="event_of_student"),
        ),
        migrations.AddIndex(
            model_name="frustrationevent",
            index=models.Index(fields=["classroom", "-detected_at"], name="event_of_classroom"),
        ),
        migrations.AddIndex(
            model_name="frustrationevent",
            index=models.Index(fields=["severity", "-detected_at"], name="event_of_severity"),
        ),
        migrations.AddIndex(
            model_name="frustrationevent",
            index=models.Index(
                condition=models.Q(("resolved_at__isnull", True)),
                fields=["detected_at"],
                name="event_unresolved",
            ),
        ),
        migrations.AddIndex(
            model_name="frustrationevent",
            index=models.Index(
                condition=models.Q(("resolved_at__isnull", False)),
                fields=["resolved_at"],
                name="event_resolved",
            ),
        ),
        migrations.AddConstraint(
            model_name="frustrationevent",
            constraint=models.UniqueConstraint(
                condition=models.Q(("ended_at__isnull", True), ("resolved_at__isnull", True)),
                fields=("student", "app_name", "event_type"),
                name="one_open_event",
            ),
        ),
        migrations.AddConstraint(
            model_name="frustrationevent",
            constraint=models.CheckConstraint(
                condition=models.Q(("severity__in", ["low", "medium", "high", "critical"])),
                name="event_severity_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="frustrationevent",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("ended_at__isnull", True), ("ended_at__gte", models.F("detected_at")), _connector="OR"
                ),
                name="event_ends_after_start",
            ),
        ),
        migrations.AddConstraint(
            model_name="enrollment",
            constraint=models.UniqueConstraint(
                condition=models.Q(("ended_on__isnull", True)),
                fields=("classroom", "student"),
                name="enrolled_once",
            ),
        ),
        migrations.AddConstraint(
            model_name="enrollment",
            constraint=models.UniqueConstraint(
                condition=models.Q(("ended_on__isnull", True), models.Q(("seat", ""), _negated=True)),
                fields=("classroom", "seat"),
                name="seat_taken_once",
            ),
        ),
        migrations.AddConstraint(
            model_name="enrollment",
            constraint=models.CheckConstraint(
                condition=models.Q(("seat__regex", "^([A-Z]{1,2}[1-9][0-9]?)?$")), name="seat_is_a_place"
            ),
        ),
        migrations.AddIndex(
            model_name="studentaccess",
            index=models.Index(fields=["student_id", "-at"], name="access_of_student"),
        ),
        migrations.AddIndex(
            model_name="studentaccess",
            index=models.Index(fields=["user", "-at"], name="access_by_user"),
        ),
        migrations.AddIndex(
            model_name="studentaccess",
            index=models.Index(fields=["at"], name="access_by_age"),
        ),
        migrations.AddIndex(
            model_name="teacherdashboardalert",
            index=models.Index(fields=["classroom", "-created_at"], name="alert_of_classroom"),
        ),
        migrations.AddIndex(
            model_name="teacherdashboardalert",
            index=models.Index(
                condition=models.Q(("closed_at__isnull", True)),
                fields=["classroom", "app_name"],
                name="alert_open",
            ),
        ),
        migrations.AddIndex(
            model_name="teacherdashboardalert",
            index=models.Index(
                condition=models.Q(("closed_at__isnull", False)), fields=["closed_at"], name="alert_closed"
            ),
        ),
        migrations.AddConstraint(
            model_name="teacherdashboardalert",
            constraint=models.UniqueConstraint(fields=("classroom", "seq"), name="one_alert_a_seq"),
        ),
        migrations.AddConstraint(
            model_name="teacherdashboardalert",
            constraint=models.CheckConstraint(
                condition=models.Q(("severity__in", ["info", "warning", "critical"])),
                name="alert_severity_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="teacherdashboardalert",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("state__in", ["new", "acknowledged", "helping", "resolved", "dismissed", "expired"])
                ),
                name="alert_state_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="teacherdashboardalert",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("closed_at__isnull", True), ("state__in", ("new", "acknowledged", "helping"))),
                    models.Q(
                        models.Q(("state__in", ("new", "acknowledged", "helping")), _negated=True),
                        ("closed_at__isnull", False),
                    ),
                    _connector="OR",
                ),
                name="alert_closed_has_a_time",
            ),
        ),
        migrations.AddIndex(
            model_name="intervention",
            index=models.Index(
                condition=models.Q(("effect__isnull", True)), fields=["at"], name="intervention_unmeasured"
            ),
        ),
        migrations.AddConstraint(
            model_name="intervention",
            constraint=models.CheckConstraint(
                condition=models.Q(("kind__regex", "^[a-z0-9_-]{1,50}$")), name="intervention_kind_is_a_slug"
            ),
        ),
        migrations.AddIndex(
            model_name="helprequest",
            index=models.Index(fields=["requested_at"], name="help_request_by_age"),
        ),
    ]
