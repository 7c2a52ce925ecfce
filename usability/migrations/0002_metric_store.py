"""The metrics: a hypertable where TimescaleDB is there, else native day partitions. Runs before the code.

Django's state knows `id` as the key; the database's key is (timestamp, id), because both stores want the
time in it.
"""

import datetime as dt

import django.db.models.deletion
import django.db.models.functions.datetime
import django.utils.timezone
import uuid_utils.compat
from django.db import migrations, models

from usability import partitions


def create_store(apps, schema_editor):
    db = schema_editor.connection
    timescale = partitions.is_timescale_ready(db)
    with db.cursor() as cursor:
        for statement in partitions.store_statements(timescale=timescale):
            cursor.execute(statement)
        cursor.execute("SELECT current_setting('timescaledb.license', true)")
        for statement in partitions.policy_statements(cursor.fetchone()[0]):
            cursor.execute(statement)
    partitions.ensure_partitions(dt.datetime.now(tz=dt.UTC).date(), db=db)


def drop_store(apps, schema_editor):
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS {partitions.TABLE}")


class Migration(migrations.Migration):
    # Some calls of TimescaleDB refuse a transaction block.
    atomic = False

    dependencies = [("usability", "0001_initial")]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.CreateModel(
                    name="UsabilityMetric",
                    fields=[
                        (
                            "id",
                            models.UUIDField(
                                default=uuid_utils.compat.uuid7,
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        ("timestamp", models.DateTimeField()),
                        (
                            "received_at",
                            models.DateTimeField(
                                db_default=django.db.models.functions.datetime.Now(),
                                default=django.utils.timezone.now,
                            ),
                        ),
                        ("metric_value", models.FloatField()),
                        ("student_id", models.CharField(max_length=50)),
                        ("app_name", models.CharField(max_length=50)),
                        ("metric_type", models.CharField(max_length=100)),
                        ("session_id", models.CharField(max_length=100, null=True)),
                        ("metadata", models.JSONField(null=True)),
                        (
                            "classroom",
                            models.ForeignKey(
                                db_constraint=False,
                                db_index=False,
                                help_text="where the learner sat at receipt; empty: on no roster",
                                null=True,
                                on_delete=django.db.models.deletion.DO_NOTHING,
                                related_name="+",
                                to="usability.classroom",
                            ),
                        ),
                    ],
                    options={"db_table": "usability_metrics"},
                )
            ],
            database_operations=[migrations.RunPython(create_store, drop_store)],
        )
    ]
