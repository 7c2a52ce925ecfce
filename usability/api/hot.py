"""The calls of this half that are answered in front of Django."""

from __future__ import annotations

from django.conf import settings

from gaia_site.hot import Route
from gaia_site.models import Scope
from usability.ingest import endpoint


def routes() -> tuple[Route, ...]:
    """Taking metrics in, while that part is switched on.

    It keeps its own record of repetitions, in the transaction that stores the rows.
    """
    if not settings.GAIA.usability_metrics_enabled:
        return ()
    return (
        Route(
            method="POST",
            path="/api/v1/usability/metrics",
            handler=endpoint.handle,
            scopes=(Scope.METRICS_WRITE,),
            is_open_to_pages=True,
            yields_to_django=False,
            keeps_answers=False,
        ),
    )
