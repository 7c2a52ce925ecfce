"""Checkpoints of detection, so that a take-over need not read hours of rows. Runs before the code."""

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("usability", "0004_alert_steps"),
    ]

    operations = [
        migrations.CreateModel(
            name="RoomCheckpoint",
            fields=[
                (
                    "classroom",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="checkpoint",
                        serialize=False,
                        to="usability.classroom",
                    ),
                ),
                ("clock_ms", models.BigIntegerField(help_text="unix ms up to which the state has seen")),
                ("state", models.BinaryField()),
                ("saved_at", models.DateTimeField(default=django.utils.timezone.now)),
            ],
        ),
    ]
