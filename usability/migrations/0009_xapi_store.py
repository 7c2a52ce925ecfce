"""The tables of the learning record store. Runs before or after the code."""

import uuid

import django.contrib.postgres.fields
import django.contrib.postgres.indexes
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("usability", "0008_profile_states_and_back_tests"),
    ]

    operations = [
        migrations.CreateModel(
            name="XapiActivity",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("app_name", models.CharField(blank=True, default="", max_length=50)),
                ("key", models.UUIDField(help_text="of its IRI, which may be too long for an index")),
                ("iri", models.TextField()),
                ("definition", models.JSONField()),
                ("updated_at", models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={
                "verbose_name": "xAPI activity",
                "verbose_name_plural": "xAPI activities",
                "db_table": "xapi_activity",
                "constraints": [
                    models.UniqueConstraint(fields=("app_name", "key"), name="activity_known_once")
                ],
            },
        ),
        migrations.CreateModel(
            name="XapiAttachment",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("app_name", models.CharField(blank=True, default="", max_length=50)),
                ("sha2", models.CharField(max_length=128)),
                ("content", models.BinaryField()),
                (
                    "used_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now, help_text="when a statement last brought it"
                    ),
                ),
            ],
            options={
                "verbose_name": "xAPI attachment",
                "db_table": "xapi_attachment",
                "indexes": [models.Index(fields=["used_at"], name="attachment_by_age")],
                "constraints": [
                    models.UniqueConstraint(fields=("app_name", "sha2"), name="attachment_stored_once")
                ],
            },
        ),
        migrations.CreateModel(
            name="XapiDocument",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("app_name", models.CharField(blank=True, default="", max_length=50)),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("state", "State"),
                            ("activity_profile", "Activity Profile"),
                            ("agent_profile", "Agent Profile"),
                        ],
                        max_length=20,
                    ),
                ),
                ("owner_key", models.UUIDField(help_text="of activity and agent, as the kind has them")),
                ("registration", models.UUIDField(default=uuid.UUID("00000000-0000-0000-0000-000000000000"))),
                ("document_id", models.CharField(max_length=500)),
                ("activity", models.TextField(blank=True, default="")),
                (
                    "student_id",
                    models.CharField(
                        blank=True, default="", help_text="the agent's account name", max_length=50
                    ),
                ),
                ("content_type", models.CharField(max_length=255)),
                ("content", models.BinaryField()),
                (
                    "etag",
                    models.CharField(help_text="SHA-1 of the content in hexadecimal digits", max_length=40),
                ),
                ("updated_at", models.DateTimeField()),
            ],
            options={
                "verbose_name": "xAPI document",
                "db_table": "xapi_document",
                "indexes": [
                    models.Index(fields=["updated_at"], name="document_by_age"),
                    models.Index(
                        condition=models.Q(("student_id", ""), _negated=True),
                        fields=["student_id"],
                        name="document_of_student",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("app_name", "kind", "owner_key", "registration", "document_id"),
                        name="document_stored_once",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("kind__in", ["state", "activity_profile", "agent_profile"])),
                        name="document_kind_known",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="XapiStatement",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("app_name", models.CharField(blank=True, default="", max_length=50)),
                ("statement_id", models.UUIDField()),
                ("stored", models.DateTimeField()),
                (
                    "student_id",
                    models.CharField(
                        blank=True,
                        default="",
                        help_text="the pseudonym: the actor's account name",
                        max_length=50,
                    ),
                ),
                ("verb", models.TextField()),
                ("body", models.JSONField()),
                (
                    "digest",
                    models.BinaryField(
                        help_text="of its canonical form: what comes again must be the same", max_length=32
                    ),
                ),
                ("timestamp_given", models.DateTimeField(help_text="the client's own timestamp", null=True)),
                (
                    "keys",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.UUIDField(),
                        help_text="what it is found by, that of its targets included",
                        size=None,
                    ),
                ),
                ("target_id", models.UUIDField(help_text="the statement its object points to", null=True)),
                ("is_voiding", models.BooleanField(default=False)),
                (
                    "attachments",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=128),
                        default=list,
                        help_text="their SHA-2 digests",
                        size=None,
                    ),
                ),
                ("size_bytes", models.PositiveBigIntegerField()),
            ],
            options={
                "verbose_name": "xAPI statement",
                "db_table": "xapi_statement",
                "indexes": [
                    models.Index(fields=["app_name", "stored", "id"], name="statement_by_time"),
                    models.Index(fields=["stored"], name="statement_by_age"),
                    django.contrib.postgres.indexes.GinIndex(
                        fastupdate=False, fields=["keys"], name="statement_by_key"
                    ),
                    models.Index(
                        condition=models.Q(("target_id__isnull", False)),
                        fields=["app_name", "target_id"],
                        name="statement_by_target",
                    ),
                    models.Index(
                        condition=models.Q(("student_id", ""), _negated=True),
                        fields=["student_id", "stored"],
                        name="statement_of_student",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("app_name", "statement_id"), name="statement_stored_once")
                ],
            },
        ),
    ]
