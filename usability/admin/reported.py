"""What apps report: metrics and ratings."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.core.paginator import Paginator
from django.db import connection
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.functional import cached_property

from usability.admin.window import Window, as_text
from usability.models import SatisfactionRating, UsabilityMetric

SPANS = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7)}
DEFAULT_SPAN = "hour"


class TimeFilter(admin.SimpleListFilter):
    """Always one stretch of time: without it a list would read every partition."""

    title = "time"
    parameter_name = "time"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("hour", "last hour"), ("day", "last day"), ("week", "last 7 days")]

    def choices(self, changelist: Any) -> Any:
        for key, words in self.lookup_choices:
            yield {
                "selected": key == (self.value() or DEFAULT_SPAN),
                "query_string": changelist.get_query_string({self.parameter_name: key}),
                "display": words,
            }

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        return queryset.filter(timestamp__gte=since(timezone.now(), self.value()))


def since(now: datetime, span: str | None) -> datetime:
    """The beginning of a span that ends now; an unknown span is the default one."""
    return now - SPANS.get(span or DEFAULT_SPAN, SPANS[DEFAULT_SPAN])


class EstimatingPaginator(Paginator):
    """Counts by the planner's estimate: an exact count of a hypertable takes longer than its page."""

    @cached_property
    def count(self) -> int:
        sql, params = self.object_list.query.sql_with_params()
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (FORMAT JSON) {sql}", params)
            plan = cursor.fetchone()[0]
        return int(plan[0]["Plan"]["Plan Rows"])


@admin.register(UsabilityMetric)
class UsabilityMetricAdmin(Window):
    list_display = [
        "timestamp",
        "student_id",
        "app_name",
        "metric_type",
        "metric_value",
        "session_id",
        "delay",
    ]
    list_filter = [TimeFilter, "metric_type"]
    search_fields = ["student_id__exact"]
    search_help_text = "The pseudonym of a pupil, whole."
    ordering = ["-timestamp"]
    paginator = EstimatingPaginator
    readonly_fields = ["delay", "stored"]
    fieldsets = [
        (
            "What was reported",
            {"fields": ["student_id", "app_name", "metric_type", "metric_value", "stored"]},
        ),
        ("When", {"fields": ["timestamp", "received_at", "delay"]}),
        ("Where", {"fields": ["classroom", "session_id"]}),
        ("As stored", {"fields": ["id"], "classes": ["collapse"]}),
    ]

    @admin.display(description="metadata")
    def stored(self, metric: UsabilityMetric) -> str:
        return as_text(metric.metadata)

    @admin.display(description="received after")
    def delay(self, metric: UsabilityMetric) -> str:
        return f"{(metric.received_at - metric.timestamp).total_seconds():.1f} s"

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Looks in the one day that the id tells, not in every partition."""
        try:
            return UsabilityMetric.objects.with_id(UUID(object_id))
        except (ValueError, UsabilityMetric.DoesNotExist):
            return None


@admin.register(SatisfactionRating)
class SatisfactionRatingAdmin(Window):
    list_display = ["created_at", "student_id", "app_name", "rating", "feedback_text", "classroom"]
    list_filter = ["rating", "app_name", "created_at"]
    list_select_related = ["classroom"]
    search_fields = ["student__student_id", "feedback_text"]
    ordering = ["-created_at"]
