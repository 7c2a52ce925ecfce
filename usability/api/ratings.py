"""What learners say about an app."""

from __future__ import annotations

import django_filters
from rest_framework.request import Request
from rest_framework.response import Response

from gaia_site.api.endpoint import StrictSerializer
from gaia_site.keys import Principal
from gaia_site.pagination import filtered, page
from gaia_site.problems import Problem
from gaia_site.schema import describes, list_parameters
from usability import access, selectors, services
from usability.api.endpoint import APP_NAME, SINCE, UsabilityEndpoint
from usability.api.fields import IdField, NoteField, WholeNumberField, described
from usability.api.rows import RatingPage, RatingSerializer
from usability.models import SatisfactionRating
from usability.selectors import RatingsSummary
from usability.xapi.receiving import handing_over

TAG = "ratings"
ORDERINGS = ("-created_at", "rating")
FEEDBACK_MOST = 1_000

RatingsSummarySerializer = described(RatingsSummary)


class NewRatingSerializer(StrictSerializer):
    """A rating of one sitting; a second one of the same sitting replaces the first."""

    student_id = IdField(max_length=50)
    app_name = IdField(max_length=50)
    session_id = IdField(max_length=100)
    rating = WholeNumberField(min_value=1, max_value=5)
    feedback_text = NoteField(max_length=FEEDBACK_MOST, required=False, default="")


class RatingFilter(django_filters.FilterSet):
    """Which ratings."""

    student_id = django_filters.CharFilter(field_name="student_id", max_length=100)
    app_name = django_filters.CharFilter(max_length=100)
    session_id = django_filters.CharFilter(max_length=100)
    rating = django_filters.NumberFilter(min_value=1, max_value=5)
    since = django_filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="gte")
    until = django_filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="lt")

    class Meta:
        model = SatisfactionRating
        fields: tuple[str, ...] = ()


class Ratings(UsabilityEndpoint):
    """All ratings the caller may see."""

    scopes = {"GET": ("metrics:read", "teacher", "admin"), "POST": ("metrics:write",)}
    is_open_to_pages = True

    @describes(
        tag=TAG,
        summary="List ratings",
        answers={200: RatingPage},
        parameters=list_parameters(RatingFilter, ORDERINGS),
        operation_id="list_ratings",
    )
    def get(self, request: Request) -> Response:
        """One page, newest first."""
        rows = filtered(RatingFilter, request.query_params, access.visible_ratings(self.caller))
        found = page(request, rows, orderings=ORDERINGS)
        self.looked_at("list_ratings", *(rating.student_id for rating in found.rows))
        return Response(found.as_json(RatingSerializer(found.rows, many=True).data))

    @describes(
        tag=TAG,
        summary="Rate a sitting",
        request=NewRatingSerializer,
        answers={201: RatingSerializer},
        operation_id="record_rating",
    )
    def post(self, request: Request) -> Response:
        """201 with what is stored now."""
        self.only()
        given = self.body(NewRatingSerializer)
        check_own(self.caller, app_name=given["app_name"], student_id=given["student_id"])
        committed = handing_over(request._request)  # noqa: SLF001  DRF has no other name for it
        kept = services.record_rating(**given, committed=committed)
        return Response(RatingSerializer(kept).data, status=201)


def check_own(caller: Principal, *, app_name: str, student_id: str) -> None:
    """Refuses what belongs to another app than the key's, or to another learner than the token's."""
    if caller.app_name and caller.app_name != app_name:
        raise Problem("permission-denied", "The key belongs to another app.")
    if caller.student_id and caller.student_id != student_id:
        raise Problem("permission-denied", "The token belongs to another student.")


class RatingsSummaryView(UsabilityEndpoint):
    """Mean and spread."""

    scopes = {"GET": ("metrics:read", "teacher", "admin")}

    @describes(
        tag=TAG,
        summary="Mean and spread of ratings",
        about="`average` is null where there is no rating: 0 is not one.",
        answers={200: RatingsSummarySerializer},
        parameters=[APP_NAME, SINCE],
        operation_id="get_ratings_summary",
    )
    def get(self, request: Request) -> Response:
        """Of the ratings the caller may see."""
        self.only("app_name", "since")
        found = selectors.ratings_summary(
            who=self.caller, app_name=self.text("app_name"), since=self.moment("since")
        )
        return Response(found)
