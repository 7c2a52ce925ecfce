"""Profiles get states in place of a flag; back-tests, shadow counts and moments without help get tables.

Runs before the code; a worker of the older code stops reading profiles until it is restarted.
"""

import django.db.models.deletion
import django.db.models.functions.datetime
import django.utils.timezone
import uuid_utils.compat
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("usability", "0007_names_in_words"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="BackTest",
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
                ("wish", models.JSONField(help_text="classes, app, stretch of time, profile and changes")),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("queued", "Queued"),
                            ("running", "Running"),
                            ("done", "Done"),
                            ("failed", "Failed"),
                        ],
                        default="queued",
                        max_length=10,
                    ),
                ),
                ("started_at", models.DateTimeField(blank=True, null=True)),
                ("ended_at", models.DateTimeField(blank=True, null=True)),
                (
                    "metrics_total",
                    models.BigIntegerField(
                        default=0, help_text="estimated before the replay, counted after it"
                    ),
                ),
                ("metrics_done", models.BigIntegerField(default=0)),
                ("result", models.JSONField(blank=True, null=True)),
                ("error", models.CharField(blank=True, default="", max_length=500)),
            ],
            options={
                "verbose_name": "back-test",
                "ordering": ["-created_at"],
            },
        ),
        migrations.CreateModel(
            name="ShadowCount",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("window_start", models.DateTimeField()),
                ("window_end", models.DateTimeField()),
                ("raised", models.PositiveIntegerField(help_text="by the profile in shadow")),
                (
                    "interrupting",
                    models.PositiveIntegerField(help_text="of those, how many would have interrupted"),
                ),
                (
                    "present_raised",
                    models.PositiveIntegerField(help_text="by the profile that holds, from the same rows"),
                ),
                ("present_interrupting", models.PositiveIntegerField()),
            ],
        ),
        migrations.CreateModel(
            name="UnhelpedMoment",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("family", models.CharField(max_length=50)),
                ("severity", models.CharField(max_length=10)),
                ("after_s", models.PositiveIntegerField()),
                ("at", models.DateTimeField()),
                ("measure", models.CharField(max_length=30)),
                ("before_good", models.FloatField()),
                ("before_n", models.PositiveIntegerField()),
                ("after_good", models.FloatField()),
                ("after_n", models.PositiveIntegerField()),
            ],
        ),
        migrations.RemoveConstraint(
            model_name="detectorprofile",
            name="one_active_profile",
        ),
        migrations.AddField(
            model_name="detectorprofile",
            name="note",
            field=models.CharField(
                blank=True, default="", help_text="why this version was made", max_length=200
            ),
        ),
        migrations.AddField(
            model_name="detectorprofile",
            name="state",
            field=models.CharField(
                choices=[
                    ("draft", "draft"),
                    ("shadow", "in shadow"),
                    ("active", "active"),
                    ("retired", "retired"),
                ],
                default="active",
                max_length=10,
            ),
        ),
        migrations.AddField(
            model_name="detectorprofile",
            name="state_at",
            field=models.DateTimeField(
                default=django.utils.timezone.now, help_text="since when it has been in this state"
            ),
        ),
        migrations.AddField(
            model_name="detectorprofile",
            name="state_by",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.RunSQL(
            "UPDATE usability_detectorprofile SET state = 'retired' WHERE NOT is_active",
            migrations.RunSQL.noop,
        ),
        # The constraint triggers of the rows just changed must have fired before the table changes again.
        migrations.RunSQL("SET CONSTRAINTS ALL IMMEDIATE", migrations.RunSQL.noop),
        migrations.RemoveField(
            model_name="detectorprofile",
            name="is_active",
        ),
        migrations.AddConstraint(
            model_name="detectorprofile",
            constraint=models.UniqueConstraint(
                condition=models.Q(("state", "active")),
                fields=("app_name", "classroom"),
                name="profile_active_once",
                nulls_distinct=False,
            ),
        ),
        migrations.AddConstraint(
            model_name="detectorprofile",
            constraint=models.UniqueConstraint(
                condition=models.Q(("state", "shadow")),
                fields=("app_name", "classroom"),
                name="profile_shadow_once",
                nulls_distinct=False,
            ),
        ),
        migrations.AddConstraint(
            model_name="detectorprofile",
            constraint=models.CheckConstraint(
                condition=models.Q(("state__in", ["draft", "shadow", "active", "retired"])),
                name="profile_state_known",
            ),
        ),
        migrations.AddField(
            model_name="backtest",
            name="created_by",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="shadowcount",
            name="classroom",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="shadow_counts",
                to="usability.classroom",
            ),
        ),
        migrations.AddField(
            model_name="shadowcount",
            name="profile",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="shadow_counts",
                to="usability.detectorprofile",
            ),
        ),
        migrations.AddField(
            model_name="unhelpedmoment",
            name="classroom",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="unhelped_moments",
                to="usability.classroom",
            ),
        ),
        migrations.AddField(
            model_name="unhelpedmoment",
            name="event",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="unhelped_moments",
                to="usability.frustrationevent",
            ),
        ),
        migrations.AddIndex(
            model_name="backtest",
            index=models.Index(
                condition=models.Q(("state__in", ["queued", "running"])),
                fields=["created_at"],
                name="back_test_unfinished",
            ),
        ),
        migrations.AddConstraint(
            model_name="backtest",
            constraint=models.CheckConstraint(
                condition=models.Q(("state__in", ["queued", "running", "done", "failed"])),
                name="back_test_state_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="shadowcount",
            constraint=models.UniqueConstraint(
                fields=("profile", "classroom", "window_start"), name="shadow_counted_once"
            ),
        ),
        migrations.AddIndex(
            model_name="unhelpedmoment",
            index=models.Index(fields=["classroom", "family", "-at"], name="unhelped_of_classroom"),
        ),
        migrations.AddConstraint(
            model_name="unhelpedmoment",
            constraint=models.UniqueConstraint(fields=("event", "after_s"), name="unhelped_measured_once"),
        ),
    ]
