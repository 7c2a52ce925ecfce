"""What the API's tests share: people, keys and clients that speak JSON."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connections
from django.test import Client

from gaia_site.keys import forget_keys, issue_key
from gaia_site.models import ApiKey
from tests.api.live import Caller, Web
from tests.cluster import (
    Cluster,
    committed_database,
    empty_tables,
    node_process,
    pointed_at,
    projected,
    quieten,
)

__all__ = ["committed_database", "node_process"]

SCOPES = {
    "agent": ("agent",),
    "admin": ("admin",),
    "teacher": ("teacher",),
    "metrics": ("metrics:write", "metrics:read"),
    "writer": ("metrics:write",),
    "reader": ("metrics:read",),
}


@pytest.fixture(autouse=True)
def _fresh_memory_of_keys():
    forget_keys()
    yield
    forget_keys()


@pytest.fixture
def owner(db):
    """A person whom keys act for."""
    return get_user_model().objects.create_user("rosa")


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


# The live system -----------------------------------------------------------------------------------

_numbers = itertools.count(1)


@pytest.fixture
def name() -> Callable[[str], str]:
    """A name nobody used before in this run."""
    return lambda kind: f"{kind}-{next(_numbers)}-{id(_numbers)}"


@pytest.fixture(scope="session")
def web(node_process: Cluster, django_db_blocker: Any) -> Iterator[Web]:
    """One web process for the run of this test process."""
    with django_db_blocker.unblock():
        process = Web(node_process).start()
    yield process
    process.close()


@pytest.fixture(scope="module")
def secrets(node_process: Cluster, django_db_blocker: Any) -> Iterator[dict[str, str]]:
    """A key of each kind; when the module has run, its rows and those of its calls are gone again.

    The person goes last: a session that is still to be projected names them.
    """
    with django_db_blocker.unblock(), pointed_at(node_process):
        person = get_user_model().objects.create_user(f"rosa-{next(_numbers)}")
        yield {name: issue_key(name=name, owner=person, scopes=scopes)[1] for name, scopes in SCOPES.items()}
        client = node_process.client()
        quieten(client)
        projected(client)
        empty_tables()
        person.delete()
        connections.close_all()


class Site:
    """The live site with a caller for every kind of key."""

    def __init__(self, web: Web, cluster: Cluster, secrets: dict[str, str]) -> None:
        self.web = web
        self.cluster = cluster
        self.url = web.url
        self.secrets = secrets
        self.nobody = Caller(web.url)
        self.agent, self.admin, self.teacher, self.metrics, self.writer, self.reader = (
            Caller(web.url, secrets[name]) for name in SCOPES
        )

    def passing_key(self, *scopes: str, **more: Any) -> tuple[ApiKey, str]:
        """A key of one test alone, to be ended by it: the site remembers for a moment what it knew of a key."""
        owner = ApiKey.objects.select_related("owner").get(prefix=self.secrets["agent"].split("_")[1]).owner
        return issue_key(name="passing", owner=owner, scopes=scopes, **more)

    def session(self, session_name: str, **more: Any) -> dict[str, Any]:
        """A registered session."""
        body = {"session_name": session_name, "tier": "worker", "provider": "claude"} | more
        answer = self.agent("POST", "sessions", body)
        assert answer.status == 201, answer.body
        return answer.json()

    def task(self, key: str, **more: Any) -> dict[str, Any]:
        """An enqueued task."""
        answer = self.agent("POST", "tasks", {"idempotency_key": key, "task_type": key} | more)
        assert answer.status == 201, answer.body
        return answer.json()

    def claimed(self, session: dict[str, Any], task_type: str) -> dict[str, Any]:
        """The one task of that type, claimed by the session."""
        body = {
            "session_name": session["session_name"],
            "lease_token": session["lease_token"],
            "task_types": [task_type],
            "wait_s": 5,
        }
        answer = self.agent("POST", "tasks/claim", body)
        assert answer.status == 200, answer.body
        (task,) = answer.json()["tasks"]
        return task


@pytest.fixture
def site(web: Web, node_process: Cluster, secrets: dict[str, str], django_db_blocker: Any) -> Iterator[Site]:
    """The live site, with a key of each kind."""
    with django_db_blocker.unblock(), pointed_at(node_process):
        yield Site(web, node_process, secrets)
        connections.close_all()
