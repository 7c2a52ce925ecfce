"""What every call of the usability half shares: spans of time, filters, and answers made of frozen data."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers

from gaia_site.api.endpoint import Endpoint
from gaia_site.pagination import check_parameters, whole_number
from gaia_site.problems import invalid
from usability import services

SPAN_DEFAULT = dt.timedelta(days=1)
SPAN_MOST = dt.timedelta(days=400)
TEXT_MOST = 100

SINCE = OpenApiParameter(
    "since", OpenApiTypes.DATETIME, description="From this moment; a day before `until` where left out."
)
UNTIL = OpenApiParameter(
    "until", OpenApiTypes.DATETIME, description="Before this moment; now where left out."
)
APP_NAME = OpenApiParameter("app_name", OpenApiTypes.STR, description="Of this app alone.")
METRIC_TYPE = OpenApiParameter("metric_type", OpenApiTypes.STR, description="Of this type alone.")
BUCKET_S = OpenApiParameter(
    "bucket_s",
    {"type": "integer", "minimum": 1, "maximum": 86_400},
    description="Count by stretches of so many seconds.",
)


class UsabilityEndpoint(Endpoint):
    """An address of the usability half."""

    def only(self, *parameters: str) -> None:
        """Refuses query parameters other than these."""
        check_parameters(self.request.query_params, parameters)

    def span(self, default: dt.timedelta = SPAN_DEFAULT) -> tuple[dt.datetime, dt.datetime]:
        """`since` and `until` of the query. Raises where they are no moments or the wrong way round."""
        until = self.moment("until") or timezone.now()
        since = self.moment("since") or until - default
        if not since < until:
            raise invalid(("query", "since"), "Must be before until.")
        if until - since > SPAN_MOST:
            raise invalid(("query", "since"), f"At most {SPAN_MOST.days} days before until.")
        return since, until

    def moment(self, name: str) -> dt.datetime | None:
        """A moment of the query, with its offset; None where it is not given."""
        text = self.request.query_params.get(name)
        if text is None:
            return None
        wrong = invalid(("query", name), "Must be RFC 3339 with an offset, such as 2026-01-31T12:00:00Z.")
        try:
            moment = dt.datetime.fromisoformat(text)
        except ValueError:
            raise wrong from None
        # The bounds keep every later reader, and the change of zone, within what it can hold.
        if moment.tzinfo is None or not 1970 <= moment.year <= 2999:
            raise wrong
        return moment.astimezone(dt.UTC)

    def text(self, name: str) -> str | None:
        """A short text of the query, None where it is not given."""
        text = self.request.query_params.get(name)
        if text is not None and not 0 < len(text) <= TEXT_MOST:
            raise invalid(("query", name), f"Must have 1 to {TEXT_MOST} characters.")
        return text

    def number(self, name: str, *, least: int, most: int) -> int | None:
        """A whole number of the query, None where it is not given."""
        return whole_number(self.request.query_params, name, least=least, most=most)

    def body_if_any(self, serializer: type[serializers.Serializer]) -> Any:
        """The validated body; one left out counts as an empty object."""
        if self.request.data != {}:
            return self.body(serializer)
        bound = serializer(data={})
        bound.is_valid(raise_exception=True)
        return bound.validated_data

    def looked_at(self, action: str, *student_ids: str) -> None:
        """Note that the caller has seen these learners' records."""
        services.record_looks(self.caller, student_ids=student_ids, action=action)

    @property
    def sees_names(self) -> bool:
        """Whether the caller may know who a pseudonym is: teachers and operators, never an app."""
        return self.caller.has_any("teacher", "admin")


def results(found: Sequence[Any]) -> dict[str, Any]:
    """A short list in the shape of every list."""
    return {"next": None, "previous": None, "results": list(found)}
