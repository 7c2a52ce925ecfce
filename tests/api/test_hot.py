"""The calls in front of Django keep every promise of the others."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from gaia_site import hot
from gaia_site.bodies import LIMIT_BYTES
from gaia_site.problems import Problem
from tests.api.live import Caller
from tests.cluster import eventually

CLAIM = {"session_name": "nobody", "lease_token": 1}


def test_hot_and_cold_addresses_mind_no_slash(site):
    assert (
        site.agent("POST", "tasks/claim/", CLAIM).status
        == site.agent("POST", "tasks/claim", CLAIM).status
        == 404
    )


def test_hot_calls_tell_their_limits(site):
    answer = site.agent("POST", "tasks/claim", CLAIM)

    assert answer.headers["RateLimit-Policy"].startswith('"hot";q=')
    assert answer.headers["RateLimit"].startswith('"hot";r=')


def test_the_wrong_method_at_a_hot_address_is_405(site):
    answer = site.agent("GET", "tasks/claim")

    assert answer.status == 405
    assert answer.json()["type"] == "method-not-allowed"


def test_a_hot_session_name_may_hold_slashes(site, name):
    session = site.session(name("team/a"))

    answer = site.agent(
        "POST", f"sessions/{session['session_name']}/heartbeat", {"lease_token": session["lease_token"]}
    )
    encoded = site.agent(
        "POST",
        f"sessions/{session['session_name'].replace('/', '%2F')}/heartbeat/",
        {"lease_token": session["lease_token"]},
    )

    assert (answer.status, encoded.status) == (200, 200)


def hang_up(site, path, body, *, key=None):
    """Ask for something that waits, and go away while it does."""
    content = json.dumps(body).encode()
    head = (
        f"POST /api/v1/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {site.secrets['agent']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        + (f"Idempotency-Key: {key}\r\n" if key else "")
        + "\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", site.web.port), 5) as gone:
        gone.sendall(head + content)
        time.sleep(0.7)  # until it waits at the node; nothing outside shows that moment


@pytest.mark.parametrize("has_key", [False, True])
def test_a_claim_of_somebody_who_hung_up_takes_no_task(site, name, has_key):
    session, kind = site.session(name("s")), name("t")
    body = {
        "session_name": session["session_name"],
        "lease_token": session["lease_token"],
        "task_types": [kind],
        "wait_s": 20,
    }
    key = name("key") if has_key else None
    hang_up(site, "tasks/claim", body, key=key)

    made = site.task(kind)

    seen = site.agent("GET", f"tasks/{made['id']}?consistency=linearizable").json()
    assert seen["status"] == "pending"
    (again,) = site.agent("POST", "tasks/claim", body, key=key).json()["tasks"]
    assert again["id"] == made["id"]


@pytest.mark.parametrize("has_key", [False, True])
def test_a_lock_is_not_handed_to_somebody_who_hung_up(site, name, has_key):
    path = f"locks/{name('lock')}"
    held = site.agent("POST", f"{path}/acquire", {"owner_id": "first", "ttl_s": 60}).json()
    body = {"owner_id": "gone", "ttl_s": 60, "wait_s": 20}
    hang_up(site, f"{path}/acquire", body, key=name("key") if has_key else None)

    proof = {"owner_id": "first", "fencing_token": held["fencing_token"]}
    assert site.agent("POST", f"{path}/release", proof).status == 200

    assert site.agent("GET", f"{path}?consistency=linearizable").status == 404
    assert site.agent("POST", f"{path}/acquire", {"owner_id": "third", "ttl_s": 1}).status == 200


def test_long_polls_with_keys_leave_the_database_to_others(site, name):
    """Each held a connection while it waited: a dozen of them closed the API."""
    session = site.session(name("s"))
    body = {
        "session_name": session["session_name"],
        "lease_token": session["lease_token"],
        "task_types": [name("none")],
        "wait_s": 3,
    }
    with ThreadPoolExecutor(24) as pool:
        polls = [pool.submit(site.agent, "POST", "tasks/claim", body, key=name("key")) for _ in range(24)]
        time.sleep(0.7)  # until they wait
        began_s = time.monotonic()
        answer = site.admin("GET", "sessions?limit=1")
        took_s = time.monotonic() - began_s
        statuses = {poll.result().status for poll in polls}

    assert (answer.status, statuses) == (200, {200})
    assert took_s < 2


@pytest.fixture
def page_key(site):
    """A key meant for pages of one app."""
    key, secret = site.passing_key("metrics:write", allowed_origins=["https://app.example"])
    eventually(
        lambda: preflight(site, "https://app.example").headers.get("Access-Control-Allow-Origin"),
        5,
        what="origin",
    )
    yield secret
    key.delete()


def preflight(site, origin):
    return site.nobody("OPTIONS", "usability/metrics", Origin=origin, Access_Control_Request_Method="POST")


def test_a_page_of_a_listed_origin_may_ask_and_others_may_not(site, page_key):
    allowed = preflight(site, "https://app.example")
    other = preflight(site, "https://evil.example")

    assert allowed.status == 204
    assert "Authorization" in allowed.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Origin" not in other.headers


def test_a_key_used_from_a_foreign_page_is_refused(site, page_key):
    answer = Caller(site.url, page_key)("POST", "usability/metrics", [], Origin="https://evil.example")

    assert answer.status == 403
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_an_error_too_can_be_read_by_the_page(site, page_key):
    answer = Caller(site.url, page_key)("POST", "usability/metrics", b"{", Origin="https://app.example")

    assert answer.status == 400
    assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"


def test_a_beacon_brings_its_key_in_the_query(site, page_key):
    refused = site.nobody("POST", "usability/metrics?key=nonsense", b"[]", Content_Type="text/plain")
    answer = site.nobody(
        "POST", f"usability/metrics?key={page_key}&validate_only=1", b"[]", Content_Type="text/plain"
    )

    assert refused.status == 401
    assert answer.status not in (401, 403, 415), answer.body


def test_an_agents_key_may_not_write_metrics(site):
    assert site.agent("POST", "usability/metrics", []).status == 403


async def all_of(receive):
    """Read a body to its end."""
    while (message := await receive())["more_body"]:
        assert message["body"]


async def test_a_body_that_comes_in_drops_is_given_up_for_django_too(monkeypatch):
    monkeypatch.setattr(hot, "BODY_TIMEOUT_S", 0.2)

    async def drop():
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    with pytest.raises(Problem, match="longer than") as refused:
        await asyncio.wait_for(all_of(hot._bounded(drop)), 5)

    assert refused.value.status == 408


async def test_a_body_beyond_the_limit_is_refused_while_it_comes():
    taken = 0

    async def flood():
        nonlocal taken
        taken += 1_000_000
        return {"type": "http.request", "body": b"x" * 1_000_000, "more_body": True}

    with pytest.raises(Problem) as refused:
        await all_of(hot._bounded(flood))

    assert refused.value.status == 413
    assert taken <= LIMIT_BYTES + 1_000_000
