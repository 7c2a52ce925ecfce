"""Callers of the record store and statements they send."""

from __future__ import annotations

import base64
import datetime as dt
import json
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest

VERB = "http://adlnet.gov/expapi/verbs/"


def statement(student: str = "ada", did: str = "answered", **fields: Any) -> dict[str, Any]:
    """A statement that is fine, with some fields changed; a field set to None is left out."""
    whole = {
        "actor": {"account": {"homePage": "https://school.example", "name": student}},
        "verb": {"id": VERB + did},
        "object": {"id": "https://maths.example/items/7"},
        "result": {"success": False},
    } | fields
    return {name: value for name, value in whole.items() if value is not None}


class Store:
    """A client of /xapi/ with one key, by HTTP Basic."""

    def __init__(self, secret: str, version: str = "1.0.3") -> None:
        self._secret = secret
        self._version = version

    def __call__(
        self,
        method: str,
        resource: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        **more: Any,
    ) -> Any:
        from django.test import Client

        headers = more.pop("headers", {})
        named = {"X-Experience-API-Version": self._version} | headers
        if "Authorization" not in named:
            named["Authorization"] = "Basic " + base64.b64encode(f"any:{self._secret}".encode()).decode()
        told = {
            name: json.dumps(value) if isinstance(value, dict) else value
            for name, value in more.items()
            if value is not None
        }
        address = resource if resource.startswith("/") else f"/xapi/{resource}"
        if told:
            address += "?" + urlencode(told)
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        return Client().generic(
            method,
            address,
            data,
            content_type,
            headers={name: value for name, value in named.items() if value},
        )

    def put(self, body: dict[str, Any], **more: Any) -> str:
        """Send statements; the ids. It must be accepted."""
        answer = self("POST", "statements", body, **more)
        assert answer.status_code == 200, answer.content
        return answer.json()

    def ids(self, **filters: Any) -> list[str]:
        """The ids of a page of statements."""
        answer = self("GET", "statements", **filters)
        assert answer.status_code == 200, answer.content
        return [one["id"] for one in answer.json()["statements"]]


@pytest.fixture
def key(db: None) -> Callable[..., str]:
    """A new key of an app, by default one that writes and reads."""
    from django.contrib.auth import get_user_model

    from gaia_site.keys import forget_keys, issue_key
    from usability.partitions import ensure_partitions

    forget_keys()
    ensure_partitions(dt.datetime.now(tz=dt.UTC).date())
    owner = get_user_model().objects.create_user(f"owner-{uuid.uuid4().hex[:8]}")

    def make(*scopes: str, app_name: str = "maths", **more: Any) -> str:
        wanted = scopes or ("metrics:write", "metrics:read")
        return issue_key(name="lrs", owner=owner, scopes=wanted, app_name=app_name, **more)[1]

    yield make
    forget_keys()


@pytest.fixture
def store(key: Callable[..., str]) -> Store:
    """The store of the app maths."""
    return Store(key())


@pytest.fixture
def other(key: Callable[..., str]) -> Store:
    """The store of another app."""
    return Store(key(app_name="piano"))
