"""Steps taken with alerts, for undo and audit; revisions; the live workers. Runs before the code."""

import django.db.models.deletion
import django.utils.timezone
import uuid_utils.compat
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("usability", "0003_struggle_sql"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="DetectionWorker",
            fields=[
                ("name", models.CharField(max_length=100, primary_key=True, serialize=False)),
                ("started_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("until", models.DateTimeField(help_text="taken for dead after this")),
                ("backlog_s", models.FloatField(default=0, help_text="age of the oldest row not judged yet")),
            ],
            options={
                "ordering": ["name"],
            },
        ),
        migrations.AddField(
            model_name="frustrationevent",
            name="revision",
            field=models.PositiveIntegerField(default=0, help_text="decisions of detection written so far"),
        ),
        migrations.AddField(
            model_name="teacherdashboardalert",
            name="first_seq",
            field=models.BigIntegerField(default=0, help_text="the seq at which it was raised"),
        ),
        migrations.CreateModel(
            name="AlertStep",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "verb",
                    models.CharField(
                        choices=[
                            ("acknowledge", "Acknowledge"),
                            ("on_my_way", "On My Way"),
                            ("helped", "Helped"),
                            ("dismiss", "Dismiss"),
                            ("snooze", "Snooze"),
                            ("resolve", "Resolve"),
                        ],
                        max_length=20,
                    ),
                ),
                ("at", models.DateTimeField(default=django.utils.timezone.now)),
                ("before", models.JSONField(default=dict, help_text="the fields it changed, as they were")),
                ("undone_at", models.DateTimeField(blank=True, null=True)),
                (
                    "actor",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "alert",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="steps",
                        to="usability.teacherdashboardalert",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        condition=models.Q(("undone_at__isnull", True)),
                        fields=["verb", "-at"],
                        name="alert_step_of_verb",
                    )
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "verb__in",
                                ["acknowledge", "on_my_way", "helped", "dismiss", "snooze", "resolve"],
                            )
                        ),
                        name="alert_step_verb_known",
                    )
                ],
            },
        ),
    ]
