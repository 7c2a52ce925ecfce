"""What the API's tests share: people, keys and clients that speak JSON."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from gaia_site.keys import forget_keys, issue_key


@pytest.fixture(autouse=True)
def _fresh_memory_of_keys():
    forget_keys()
    yield
    forget_keys()


@pytest.fixture
def owner(db):
    """A person whom keys act for."""
    return get_user_model().objects.create_user("rosa", password="a long pass phrase")


@pytest.fixture
def secret_of(owner):
    """A fresh key with the given scopes."""

    def make(*scopes: str, **more: Any) -> str:
        return issue_key(name="-".join(scopes).replace(":", "-"), owner=owner, scopes=scopes, **more)[1]

    return make


class Api:
    """A caller of the API inside this process."""

    def __init__(self, secret: str | None = None) -> None:
        self._client = Client()
        self._secret = secret

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        if self._secret:
            headers.setdefault("Authorization", f"Bearer {self._secret}")
        data = {} if body is None else {"data": body, "content_type": "application/json"}
        if isinstance(body, bytes):
            data["content_type"] = headers.pop("Content_Type", "application/json")
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._client.generic(method, f"/api/v1/{path}", **_encoded(data), headers=named)


def _encoded(data: dict[str, Any]) -> dict[str, Any]:
    import json

    if "data" in data and not isinstance(data["data"], bytes):
        data["data"] = json.dumps(data["data"])
    return data


@pytest.fixture
def api(secret_of):
    """A caller with the given scopes; without any, nobody."""

    def make(*scopes: str, **more: Any) -> Api:
        return Api(secret_of(*scopes, **more) if scopes else None)

    return make
