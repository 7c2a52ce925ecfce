"""The words for rows on pages; no column changes. Runs before or after the code."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("coordination", "0001_initial"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="claudesession",
            options={"verbose_name": "session"},
        ),
        migrations.AlterModelOptions(
            name="distributedlock",
            options={"verbose_name": "lock"},
        ),
        migrations.AlterModelOptions(
            name="distributedtask",
            options={"verbose_name": "task"},
        ),
        migrations.AlterModelOptions(
            name="projectionstate",
            options={"verbose_name": "cluster", "verbose_name_plural": "cluster"},
        ),
        migrations.AlterModelOptions(
            name="sessionaffinity",
            options={"verbose_name": "affinity", "verbose_name_plural": "affinities"},
        ),
        migrations.AlterModelOptions(
            name="taskattempt",
            options={"ordering": ("task", "claim_token"), "verbose_name": "attempt"},
        ),
    ]
