"""What keeps detection exactly once, and the record of who looked at whom."""

from __future__ import annotations

from django.contrib import admin

from usability.admin.window import Window
from usability.models import IngestBatch, StreamPartition, StudentAccess


@admin.register(StreamPartition)
class StreamPartitionAdmin(Window):
    list_display = ["partition", "owner", "epoch", "until", "cursor_received_at"]
    ordering = ["partition"]


@admin.register(IngestBatch)
class IngestBatchAdmin(Window):
    list_display = ["received_at", "scope", "batch_id"]
    list_filter = ["received_at"]
    search_fields = ["batch_id__exact", "scope"]
    ordering = ["-received_at"]


@admin.register(StudentAccess)
class StudentAccessAdmin(Window):
    list_display = ["at", "user", "key_name", "student_id", "action"]
    list_filter = ["action", "at"]
    list_select_related = ["user"]
    search_fields = ["student_id", "user__username"]
    date_hierarchy = "at"
    ordering = ["-at"]
