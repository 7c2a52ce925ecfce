"""Callers, metrics and requests the tests send."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

from uuid_utils.compat import uuid7

from gaia_site.hot import HotRequest, HotResponse
from gaia_site.keys import Principal
from usability.ingest import endpoint


def app_key(app_name: str = "", **more: Any) -> Principal:
    """A caller with a metrics:write key; each has batch ids of its own."""
    key_id = str(uuid7())
    return Principal(
        kind="key",
        subject=f"key:{key_id}",
        name="a key",
        scopes=frozenset({"metrics:write"}),
        user=None,
        key_id=key_id,
        app_name=app_name,
        **more,
    )


def metric(**fields: Any) -> dict[str, Any]:
    """A metric that is fine, with some fields changed; a field set to None is left out."""
    whole = {
        "student_id": "stu-0001",
        "app_name": "maths",
        "metric_type": "keypress",
        "metric_value": 3,
        "timestamp": dt.datetime.now(tz=dt.UTC).isoformat(),
        "session_id": "sitting-1",
    } | fields
    return {name: value for name, value in whole.items() if value is not None}


def request(
    body: Any,
    *,
    principal: Principal | None = None,
    content_type: str = "application/json",
    query: dict[str, str] | None = None,
    **headers: str,
) -> HotRequest:
    """What the hot route hands on: authenticated, inflated."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HotRequest(
        method="POST",
        path="/api/v1/usability/metrics",
        query=query or {},
        headers={"content-type": content_type, **named},
        body=body if isinstance(body, bytes) else json.dumps(body).encode(),
        principal=principal or app_key(),
    )


async def sent(ingest: endpoint.Ingest, body: Any, **more: Any) -> HotResponse:
    return await ingest.take(request(body, **more))
