"""What the two addresses that take statements share: refusals as problems, detection told, the outcome as headers."""

from __future__ import annotations

from collections.abc import Sequence

from asgiref.sync import async_to_sync
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest

from gaia_site.keys import Principal
from gaia_site.problems import FieldError, Problem, validation
from usability.ingest.copy import Row
from usability.ingest.endpoint import hand_over
from usability.xapi import store, taking
from usability.xapi.taking import Body, Committed, Sender, SeveralWrong, Taken
from usability.xapi.values import Wrong
from usability.xapi.versions import Version

METRICS = "X-Gaia-Metrics"


def sender_of(caller: Principal, base_url: str, version: Version) -> Sender:
    """Who sends with this key; the authority of its statements is the key."""
    account = {"homePage": base_url, "name": f"key:{caller.key_id}"}
    return Sender(caller.app_name, {"objectType": "Agent", "account": account}, version)


def receive(body: Body, sender: Sender, request: HttpRequest) -> Taken:
    """Judge and store what a request brought. Raises a Problem that names every place that is wrong."""
    try:
        arrivals = taking.judged(body, sender.version)
        return taking.take(arrivals, body, sender, handing_over(request))
    except SeveralWrong as several:
        raise validation([FieldError(wrong.loc, wrong.msg) for wrong in several.wrongs]) from several
    except Wrong as wrong:
        raise validation([FieldError(wrong.loc, wrong.msg)]) from wrong
    except store.Conflict as conflict:
        place = (*body.place(conflict.index), "id")
        raise Problem(
            "conflict",
            "Another statement with this id is stored; nothing of this request was.",
            errors=[FieldError(place, "known with another content")],
        ) from conflict


def handing_over(request: HttpRequest) -> Committed | None:
    """How detection learns at once of metrics that were stored; without an event loop it finds them as rows."""
    if not isinstance(request, ASGIRequest):
        return None

    def told(rows: Sequence[Row], received_us: int) -> None:
        async_to_sync(hand_over)(rows, received_us)

    return told


def headers_of(found: Taken) -> dict[str, str]:
    """What became of the new statements for detection: how many metrics, and why others made none."""
    left_out = [f"{reason}={count}" for reason, count in sorted(found.left_out.items())]
    return {METRICS: ", ".join([f"stored={found.metrics}", *left_out])}
