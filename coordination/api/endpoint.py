"""What every call of the coordination half shares: its errors, and how fresh its reads are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.http.response import HttpResponseBase
from rest_framework import serializers
from rest_framework.response import Response

from coordination import selectors
from coordination.api.refusals import INDEX_HEADER, item, problem_of
from coordination.errors import NotAvailable
from gaia_site.api.endpoint import Endpoint
from gaia_site.pagination import check_parameters, whole_number
from gaia_site.problems import FieldError, Problem, field_errors, invalid

MIN_INDEX_WAIT_S = 5.0


class CoordinationEndpoint(Endpoint):
    """An address of the coordination half."""

    def handle_exception(self, exc: Exception) -> HttpResponseBase:
        """Coordination's own errors become problems first."""
        return super().handle_exception(problem_of(exc))

    def only(self, *parameters: str) -> None:
        """Refuses query parameters other than these."""
        check_parameters(self.request.query_params, parameters)

    def read_index(self) -> int:
        """Waits until rows are as fresh as `consistency` and `min_index` ask; the index they cover.

        Raises no-leader where a linearizable read is not to be had, overloaded where the replica does not
        catch up in time.
        """
        query = self.request.query_params
        least = whole_number(query, "min_index") or 0
        consistency = query.get("consistency", "replica")
        if consistency not in ("replica", "linearizable"):
            raise invalid(("query", "consistency"), "Must be replica or linearizable.")
        if consistency == "linearizable":
            least = max(least, selectors.linearizable_revision())
        if not least:
            return selectors.projected_revision()
        try:
            return selectors.wait_until_projected(least, MIN_INDEX_WAIT_S)
        except NotAvailable as error:
            raise Problem("overloaded", f"Not caught up yet: {error.detail}.") from error

    def index_of_rows(self) -> int:
        """The index the rows cover now, for an answer that changed nothing in the log."""
        return selectors.projected_revision()

    def answer(self, body: Any, *, revision: int, status: int = 200) -> Response:
        """A body with the index it is about."""
        return Response(body, status=status, headers={INDEX_HEADER: str(revision)})

    def check_items(
        self, items: list[Any], serializer: type[serializers.Serializer]
    ) -> tuple[dict[int, Any], dict[int, dict[str, Any]]]:
        """The items of a batch that are valid by their place, and the refusals of the others."""
        good: dict[int, Any] = {}
        bad: dict[int, dict[str, Any]] = {}
        for place, one in enumerate(items):
            bound = serializer(data=one)
            if bound.is_valid():
                good[place] = bound.validated_data
            else:
                errors = list(field_errors(bound.errors, ("body", place)))
                bad[place] = item(Problem("validation-error", _first(errors), errors=errors))
        return good, bad


def _first(errors: list[FieldError]) -> str:
    return f"{'.'.join(map(str, errors[0].loc))}: {errors[0].msg}"


def in_order(*parts: Mapping[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """The answers of a batch in the order of its items."""
    merged = {place: one for part in parts for place, one in part.items()}
    return [merged[place] for place in sorted(merged)]
