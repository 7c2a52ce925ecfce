"""One learner: metrics, episodes, ratings, timeline. Every look is recorded."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from gaia_site.pagination import page
from gaia_site.problems import invalid
from gaia_site.schema import LIST_PARAMETERS, describes, page_of
from usability import access, selectors
from usability.api.endpoint import (
    APP_NAME,
    BUCKET_S,
    METRIC_TYPE,
    SINCE,
    UNTIL,
    UsabilityEndpoint,
    results,
)
from usability.api.fields import described
from usability.api.rows import FrustrationEventSerializer, MetricSerializer, RatingPage, RatingSerializer
from usability.selectors.explain import StudentWhy
from usability.selectors.shapes import Bucket, StudentPage

TAG = "students"
READERS = ("metrics:read", "teacher", "admin")
RATINGS_SPAN = dt.timedelta(days=365)

BucketSerializer = described(Bucket)
TimelineSerializer = described(StudentPage, name="Timeline")
ExplainedSerializer = described(StudentWhy, name="Explained")


class StudentFrustrationSerializer(serializers.Serializer):
    """A page of a learner's episodes; `last_metric_at` tells silence from calm."""

    next = serializers.URLField(allow_null=True)
    previous = serializers.URLField(allow_null=True)
    last_metric_at = serializers.DateTimeField(allow_null=True)
    open_count = serializers.IntegerField()
    results = FrustrationEventSerializer(many=True)


class StudentEndpoint(UsabilityEndpoint):
    """A question about one learner."""

    scopes = {"GET": READERS}

    def student(self, student_id: str, action: str) -> str:
        """The pseudonym, once it is sure that the caller may ask. Raises not-found."""
        access.get_student(self.caller, student_id)
        self.looked_at(action, student_id)
        return student_id


class StudentMetrics(StudentEndpoint):
    """What a learner did."""

    @describes(
        tag=TAG,
        summary="A learner's metrics",
        about="The stored metrics, oldest first; with `bucket_s`, counts by stretches of time instead.",
        answers={200: page_of(MetricSerializer)},
        parameters=[SINCE, UNTIL, APP_NAME, METRIC_TYPE, BUCKET_S, *LIST_PARAMETERS],
        errors=(404,),
        operation_id="list_student_metrics",
    )
    def get(self, request: Request, student_id: str) -> Response:
        """One page, or all stretches."""
        self.only("since", "until", "app_name", "metric_type", "bucket_s", "limit", "cursor", "ordering")
        since, until = self.span()
        app_name, metric_type = self.text("app_name"), self.text("metric_type")
        bucket_s = self.number("bucket_s", least=1, most=86_400)
        self.student(student_id, "view_metrics")
        if bucket_s is not None:
            return Response(results(self._buckets(student_id, since, until, bucket_s)))
        rows = access.visible_metrics(self.caller).for_student(student_id, app_name, since)
        rows = rows.filter(timestamp__lt=until)
        if metric_type is not None:
            rows = rows.filter(metric_type=metric_type)
        found = page(request, rows, orderings=("timestamp",))
        return Response(found.as_json(MetricSerializer(found.rows, many=True).data))

    def _buckets(
        self, student_id: str, since: dt.datetime, until: dt.datetime, bucket_s: int
    ) -> list[Bucket]:
        return selectors.student_buckets(
            student_id,
            who=self.caller,
            since=since,
            until=until,
            bucket_s=bucket_s,
            app_name=self.text("app_name"),
            metric_type=self.text("metric_type"),
        )


class StudentFrustration(StudentEndpoint):
    """A learner's episodes."""

    @describes(
        tag=TAG,
        summary="A learner's struggle signals",
        about="Newest first. `last_metric_at` is when the learner was last heard of at all. `metric_type` and "
        "`bucket_s` are the same as on the learner's other pages and narrow nothing here.",
        answers={200: StudentFrustrationSerializer},
        parameters=[SINCE, UNTIL, APP_NAME, METRIC_TYPE, BUCKET_S, *LIST_PARAMETERS],
        errors=(404,),
        operation_id="list_student_frustration",
    )
    def get(self, request: Request, student_id: str) -> Response:
        """One page."""
        self.only("since", "until", "app_name", "metric_type", "bucket_s", "limit", "cursor", "ordering")
        since, until = self.span(RATINGS_SPAN)
        self.number("bucket_s", least=1, most=86_400)
        self.student(student_id, "view_frustration")
        rows = access.visible_events(self.caller).filter(student_id=student_id, detected_at__lt=until)
        rows = rows.filter(detected_at__gte=since)
        if (app_name := self.text("app_name")) is not None:
            rows = rows.filter(app_name=app_name)
        found = page(request, rows, orderings=("-detected_at",))
        answer = found.as_json(FrustrationEventSerializer(found.rows, many=True).data)
        return Response(
            answer | {"open_count": rows.open().count(), "last_metric_at": self._last_metric_at(student_id)}
        )

    def _last_metric_at(self, student_id: str) -> dt.datetime | None:
        rows = access.visible_metrics(self.caller).filter(student_id=student_id)
        return rows.order_by("-timestamp").values_list("timestamp", flat=True).first()


class StudentRatings(StudentEndpoint):
    """A learner's ratings."""

    @describes(
        tag=TAG,
        summary="A learner's ratings",
        about="Newest first. `metric_type` and `bucket_s` are the same as on the learner's other pages and narrow "
        "nothing here.",
        answers={200: RatingPage},
        parameters=[SINCE, UNTIL, APP_NAME, METRIC_TYPE, BUCKET_S, *LIST_PARAMETERS],
        errors=(404,),
        operation_id="list_student_ratings",
    )
    def get(self, request: Request, student_id: str) -> Response:
        """One page, newest first."""
        self.only("since", "until", "app_name", "metric_type", "bucket_s", "limit", "cursor", "ordering")
        since, until = self.span(RATINGS_SPAN)
        self.number("bucket_s", least=1, most=86_400)
        self.student(student_id, "view_ratings")
        rows = access.visible_ratings(self.caller).filter(student_id=student_id)
        rows = rows.filter(created_at__gte=since, created_at__lt=until)
        if (app_name := self.text("app_name")) is not None:
            rows = rows.filter(app_name=app_name)
        found = page(request, rows, orderings=("-created_at",))
        return Response(found.as_json(RatingSerializer(found.rows, many=True).data))


class StudentTimeline(StudentEndpoint):
    """All about a learner in one stretch of time."""

    @describes(
        tag=TAG,
        summary="A learner's timeline",
        about="Counts by stretches, episodes, interventions and ratings between `since` and `until`; with `app_name` "
        "those of that app, and with `metric_type` the counts of that type alone.",
        answers={200: TimelineSerializer},
        parameters=[SINCE, UNTIL, APP_NAME, METRIC_TYPE, BUCKET_S],
        errors=(404,),
        operation_id="get_student_timeline",
    )
    def get(self, request: Request, student_id: str) -> Response:
        """The page."""
        self.only("since", "until", "app_name", "metric_type", "bucket_s")
        since, until = self.span()
        app_name, metric_type = self.text("app_name"), self.text("metric_type")
        bucket_s = self.number("bucket_s", least=1, most=86_400)
        self.student(student_id, "view_timeline")
        found = selectors.student_page(
            student_id,
            who=self.caller,
            since=since,
            until=until,
            bucket_s=bucket_s,
            app_name=app_name,
            metric_type=metric_type,
        )
        return Response(self._nameless(found))

    def _nameless(self, found: StudentPage) -> Any:
        """The page without the name where the caller knows the pseudonym alone."""
        if self.sees_names:
            return found
        pseudonym = dict.fromkeys(("name", "short_name"), found.pupil.student_id)
        return replace(found, pupil=replace(found.pupil, seat="", **pseudonym))


class StudentExplain(StudentEndpoint):
    """Why a learner was, or was not, on the teacher's screen at a moment."""

    scopes = {"GET": ("teacher", "admin")}

    @describes(
        tag=TAG,
        summary="Why a learner was, or was not, alerted about",
        about="The class's stored metrics of the two hours up to `at` are judged once more, and stored alerts go before "
        "what that comes to. By class, each explanation has a `status`: `interrupted`; `listed` (`held_back` says by "
        "what: info, budget, quiet_hours, snoozed, paused, class_card, comparison); `held` and `cooldown` (until "
        "`until`); `closing`; `below` (`numbers` against `thresholds`); `gone`; `unknown` (nothing stored). `not_known` "
        "names what of that moment is not stored: `pauses` of the class, the `profile` where it has been changed since "
        "(today's is used), `earlier_rows` where there were too many.",
        answers={200: ExplainedSerializer},
        parameters=[
            OpenApiParameter("at", OpenApiTypes.DATETIME, description="The moment; now where left out."),
            APP_NAME,
        ],
        errors=(404, 503),
        operation_id="explain_student",
    )
    def get(self, request: Request, student_id: str) -> Response:
        """The answer by class."""
        self.only("at", "app_name")
        now = timezone.now()
        at, app_name = self.moment("at") or now, self.text("app_name")
        if at > now:
            raise invalid(("query", "at"), "Must not be after now.")
        self.student(student_id, "view_explanation")
        return Response(selectors.student_why(student_id, who=self.caller, at=at, app_name=app_name, now=now))
