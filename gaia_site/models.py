"""Rows the API itself needs: keys that open it, and the first answers it has given."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import ClassVar

import uuid_utils
from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone


class Scope(models.TextChoices):
    """What a key may do."""

    AGENT = "agent", "Sessions, tasks and locks"
    METRICS_WRITE = "metrics:write", "Metrics and ratings of one app"
    METRICS_READ = "metrics:read", "Reading metrics"
    TEACHER = "teacher", "The owner's own classrooms"
    ADMIN = "admin", "Operating the system"


def new_id() -> uuid.UUID:
    """A UUIDv7: sorts by the time it was made."""
    return uuid.UUID(bytes=uuid_utils.uuid7().bytes)


class ApiKey(models.Model):
    """A key to the API. The secret is shown once and kept only as the SHA-256 of its 256 random bits."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    name = models.CharField(max_length=100, help_text="What or who uses it.")
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        related_name="api_keys",
        help_text="Acts for this person: their classrooms, their rights.",
    )
    prefix = models.CharField(max_length=16, unique=True, editable=False)
    digest = models.BinaryField(max_length=32, editable=False)
    scopes = ArrayField(models.CharField(max_length=20, choices=Scope.choices), size=8)
    app_name = models.CharField(
        max_length=50,
        blank=True,
        default="",
        validators=[RegexValidator(r"\A[A-Za-z0-9._:-]*\Z")],
        help_text="The one app a metrics:write key writes for; empty allows every app.",
    )
    allowed_origins = ArrayField(
        models.CharField(max_length=200),
        size=50,
        blank=True,
        default=list,
        help_text="Origins of pages that may use it from a browser, such as https://app.example; * allows all.",
    )
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name = "API key"
        ordering: ClassVar = ["-created_at", "id"]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(scopes__contained_by=Scope.values) & ~Q(scopes=[]),
                name="api_key_scopes_known",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["owner", "-created_at"], name="api_key_owner"),
            models.Index(fields=["-created_at", "id"], name="api_key_newest"),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix})"

    def is_usable(self, now: datetime | None = None) -> bool:
        """Neither revoked nor expired at `now`."""
        now = now or timezone.now()
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)


class IdempotencyRecord(models.Model):
    """The first answer to one Idempotency-Key of one caller at one address, kept for 24 hours.

    `answered_at` is null while the first request still runs (`started_at` says since when).
    """

    id = models.BigAutoField(primary_key=True)
    caller = models.CharField(max_length=200)
    method = models.CharField(max_length=8)
    path = models.CharField(max_length=600)
    key = models.CharField(max_length=255)
    body_digest = models.BinaryField(max_length=32)
    started_at = models.DateTimeField()
    answered_at = models.DateTimeField(null=True)
    status = models.PositiveSmallIntegerField(null=True)
    headers = models.JSONField(default=dict)
    body = models.BinaryField(default=bytes)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["caller", "key", "method", "path"], name="idempotency_key_once"),
            models.CheckConstraint(
                condition=Q(answered_at__isnull=True, status__isnull=True)
                | Q(answered_at__isnull=False, status__isnull=False),
                name="idempotency_answer_whole",
            ),
        ]
        indexes: ClassVar = [models.Index(fields=["started_at"], name="idempotency_age")]

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.key}"
