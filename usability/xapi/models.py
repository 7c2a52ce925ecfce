"""The tables of the learning record store. Each app has a store of its own: `app_name` is part of every key.

Statements and documents hold what learners typed where an app sends it (`result.response`): they are kept for
`XAPI_KEPT`, read by the app's own keys alone, and nothing of them is ever copied into a metric.
"""

from __future__ import annotations

import uuid

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import Q
from django.utils import timezone

# Rather than null, so that "none" is unique as well.
NO_REGISTRATION = uuid.UUID(int=0)


class DocumentKind(models.TextChoices):
    """Which of the three document resources."""

    STATE = "state"
    ACTIVITY_PROFILE = "activity_profile"
    AGENT_PROFILE = "agent_profile"


class XapiStatement(models.Model):
    """A statement as it is answered. The order of the store is (stored, id)."""

    id = models.BigAutoField(primary_key=True)
    app_name = models.CharField(max_length=50, blank=True, default="")
    statement_id = models.UUIDField()
    stored = models.DateTimeField()
    student_id = models.CharField(
        max_length=50, blank=True, default="", help_text="the pseudonym: the actor's account name"
    )
    verb = models.TextField()
    body = models.JSONField()
    digest = models.BinaryField(
        max_length=32, help_text="of its canonical form: what comes again must be the same"
    )
    timestamp_given = models.DateTimeField(null=True, help_text="the client's own timestamp")
    keys = ArrayField(models.UUIDField(), help_text="what it is found by, that of its targets included")
    target_id = models.UUIDField(null=True, help_text="the statement its object points to")
    is_voiding = models.BooleanField(default=False)
    attachments = ArrayField(models.CharField(max_length=128), default=list, help_text="their SHA-2 digests")
    size_bytes = models.PositiveBigIntegerField()

    class Meta:
        verbose_name = "xAPI statement"
        db_table = "xapi_statement"
        constraints = [
            models.UniqueConstraint(fields=["app_name", "statement_id"], name="statement_stored_once"),
        ]
        indexes = [
            models.Index(fields=["app_name", "stored", "id"], name="statement_by_time"),
            models.Index(fields=["stored"], name="statement_by_age"),
            GinIndex(fields=["keys"], name="statement_by_key", fastupdate=False),
            models.Index(
                fields=["app_name", "target_id"],
                condition=Q(target_id__isnull=False),
                name="statement_by_target",
            ),
            models.Index(
                fields=["student_id", "stored"], condition=~Q(student_id=""), name="statement_of_student"
            ),
        ]

    def __str__(self) -> str:
        return str(self.statement_id)


class XapiAttachment(models.Model):
    """The bytes of an attachment, once an app however many statements bring them."""

    id = models.BigAutoField(primary_key=True)
    app_name = models.CharField(max_length=50, blank=True, default="")
    sha2 = models.CharField(max_length=128)
    content = models.BinaryField()
    used_at = models.DateTimeField(default=timezone.now, help_text="when a statement last brought it")

    class Meta:
        verbose_name = "xAPI attachment"
        db_table = "xapi_attachment"
        constraints = [models.UniqueConstraint(fields=["app_name", "sha2"], name="attachment_stored_once")]
        indexes = [models.Index(fields=["used_at"], name="attachment_by_age")]

    def __str__(self) -> str:
        return self.sha2


class XapiActivity(models.Model):
    """What is known of an activity: its definitions joined, the newest word counting."""

    id = models.BigAutoField(primary_key=True)
    app_name = models.CharField(max_length=50, blank=True, default="")
    key = models.UUIDField(help_text="of its IRI, which may be too long for an index")
    iri = models.TextField()
    definition = models.JSONField()
    updated_at = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name = "xAPI activity"
        verbose_name_plural = "xAPI activities"
        db_table = "xapi_activity"
        constraints = [models.UniqueConstraint(fields=["app_name", "key"], name="activity_known_once")]

    def __str__(self) -> str:
        return self.iri


class XapiDocument(models.Model):
    """A document an app left: a learner's state in an activity, a profile of an activity or of an agent."""

    Kind = DocumentKind

    id = models.BigAutoField(primary_key=True)
    app_name = models.CharField(max_length=50, blank=True, default="")
    kind = models.CharField(max_length=20, choices=DocumentKind.choices)
    owner_key = models.UUIDField(help_text="of activity and agent, as the kind has them")
    registration = models.UUIDField(default=NO_REGISTRATION)
    document_id = models.CharField(max_length=500)
    activity = models.TextField(blank=True, default="")
    student_id = models.CharField(max_length=50, blank=True, default="", help_text="the agent's account name")
    content_type = models.CharField(max_length=255)
    content = models.BinaryField()
    etag = models.CharField(max_length=40, help_text="SHA-1 of the content in hexadecimal digits")
    updated_at = models.DateTimeField()

    class Meta:
        verbose_name = "xAPI document"
        db_table = "xapi_document"
        constraints = [
            models.UniqueConstraint(
                fields=["app_name", "kind", "owner_key", "registration", "document_id"],
                name="document_stored_once",
            ),
            models.CheckConstraint(condition=Q(kind__in=DocumentKind.values), name="document_kind_known"),
        ]
        indexes = [
            models.Index(fields=["updated_at"], name="document_by_age"),
            models.Index(fields=["student_id"], condition=~Q(student_id=""), name="document_of_student"),
        ]

    def __str__(self) -> str:
        return self.document_id
