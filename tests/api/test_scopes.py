"""Who may call what: every role at every coordination address, by every verb it has."""

from __future__ import annotations

import time

import pytest
from django.contrib.auth import get_user_model

from gaia_site.keys import issue_key
from gaia_site.models import ApiKey
from tests.api.live import Caller
from tests.cluster import eventually

SOME_ID = (
    "0192f0c1-5a3e-7c44-9b7a-6d1f0e2b3c4d"  # of nothing; fixed, so that every worker collects the same tests
)
TOKEN = {"claim_token": 1}

AGENTS = ("agent", "admin")
ADMINS = ("admin",)
ROLES = ("agent", "admin", "teacher", "metrics", "writer", "reader")

CALLS = [
    ("GET", "sessions", None, AGENTS),
    ("POST", "sessions", {}, AGENTS),
    ("GET", "sessions/nobody", None, AGENTS),
    ("PATCH", "sessions/nobody", {}, AGENTS),
    ("DELETE", "sessions/nobody", None, AGENTS),
    ("POST", "sessions/nobody/heartbeat", {"lease_token": 1}, AGENTS),
    ("POST", "sessions/nobody/pause", {}, AGENTS),
    ("POST", "sessions/nobody/resume", {}, AGENTS),
    ("POST", "sessions/nobody/drain", {}, AGENTS),
    ("POST", "sessions/nobody/fail", {}, AGENTS),
    ("POST", "heartbeats", {"heartbeats": []}, AGENTS),
    ("GET", "lessons", None, AGENTS),
    ("POST", "lessons", {}, AGENTS),
    ("GET", f"lessons/{SOME_ID}", None, AGENTS),
    ("PATCH", f"lessons/{SOME_ID}", {}, AGENTS),
    ("DELETE", f"lessons/{SOME_ID}", None, AGENTS),
    ("GET", f"lessons/{SOME_ID}/progress", None, AGENTS),
    ("GET", "tasks", None, AGENTS),
    ("POST", "tasks", {}, AGENTS),
    ("POST", "tasks/claim", {}, AGENTS),
    ("POST", "tasks/complete", {"completions": []}, AGENTS),
    ("GET", f"tasks/{SOME_ID}", None, AGENTS),
    ("PATCH", f"tasks/{SOME_ID}", {}, ADMINS),
    ("DELETE", f"tasks/{SOME_ID}", None, ADMINS),
    ("POST", f"tasks/{SOME_ID}/start", TOKEN, AGENTS),
    ("POST", f"tasks/{SOME_ID}/renew", TOKEN, AGENTS),
    ("POST", f"tasks/{SOME_ID}/complete", TOKEN, AGENTS),
    ("POST", f"tasks/{SOME_ID}/fail", TOKEN, AGENTS),
    ("POST", f"tasks/{SOME_ID}/cancel", {}, ADMINS),
    ("POST", f"tasks/{SOME_ID}/retry", {}, ADMINS),
    ("GET", f"tasks/{SOME_ID}/explain", None, AGENTS),
    ("GET", "locks", None, AGENTS),
    ("GET", "locks/free", None, AGENTS),
    ("POST", "locks/free/acquire", {}, AGENTS),
    ("POST", "locks/free/renew", {}, AGENTS),
    ("POST", "locks/free/release", {}, AGENTS),
    ("GET", "affinities", None, AGENTS),
    ("POST", "affinities", {}, AGENTS),
    ("GET", f"affinities/{SOME_ID}", None, AGENTS),
    ("PATCH", f"affinities/{SOME_ID}", {}, AGENTS),
    ("DELETE", f"affinities/{SOME_ID}", None, AGENTS),
    ("GET", "cluster", None, AGENTS),
    ("POST", "cluster/members", {}, ADMINS),
    ("DELETE", "cluster/members/nobody", None, ADMINS),
    ("POST", "cluster/transfer-leadership", {"node_id": "nobody at all"}, ADMINS),
    ("GET", "events", None, AGENTS),
]


@pytest.mark.parametrize(("method", "path", "body", "allowed"), CALLS, ids=lambda value: str(value)[:40])
def test_each_role_gets_in_or_403_and_nobody_401(site, method, path, body, allowed):
    refused = site.nobody(method, path, body)
    assert refused.status == 401
    assert refused.json()["type"] == "not-authenticated"

    for role in ROLES:
        answer = getattr(site, role)(method, path, body)
        if role in allowed:
            assert answer.status not in (401, 403, 500), (role, answer.body)
        else:
            assert answer.status == 403, (role, answer.status, answer.body)
            assert answer.json()["type"] == "permission-denied"


def test_the_matrix_knows_every_call(site):
    document = site.nobody("GET", "/api/schema").json()
    described = {
        (
            verb.upper(),
            path.count("/"),
            path.rstrip("/").rpartition("/")[2] if not path.endswith("}") else "{}",
        )
        for path, item in document["paths"].items()
        for verb in item
        if not path.startswith("/api/v1/usability")
    }

    assert len(described) <= len(CALLS)
    assert sum(
        len(item) for path, item in document["paths"].items() if not path.startswith("/api/v1/usability")
    ) == len(CALLS)


def test_an_agent_changes_a_session_with_its_lease_or_its_owners_key_only(
    site, name, secrets, django_db_blocker
):
    session = site.session(name("s"))
    stranger = get_user_model().objects.create_user(name("stranger"))
    _, secret = issue_key(name="stranger", owner=stranger, scopes=["agent"])
    other = Caller(site.url, secret)
    address = f"sessions/{session['session_name']}"

    without = other("POST", f"{address}/pause", {})
    wrong = other("POST", f"{address}/pause", {"lease_token": session["lease_token"] + 1})
    leaving = other("DELETE", address)
    right = other("POST", f"{address}/pause", {"lease_token": session["lease_token"]})

    assert without.status == 403
    assert (wrong.status, wrong.json()["type"]) == (409, "lease-expired")
    assert leaving.status == 403
    assert right.status == 200, right.body
    stranger.delete()


def test_a_revoked_key_is_refused_by_the_running_site_within_a_second(site):
    key, secret = site.passing_key("agent")
    call = Caller(site.url, secret)
    assert call("GET", "tasks").status == 200
    ApiKey.objects.filter(pk=key.pk).update(revoked_at=key.created_at)
    revoked_s = time.monotonic()

    eventually(lambda: call("GET", "tasks").status == 401, 5, what="refusal")

    assert time.monotonic() - revoked_s < 1.5  # one second, and the calls themselves on a busy machine
