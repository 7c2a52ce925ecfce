"""The calls in front of Django keep every promise of the others."""

from __future__ import annotations

import json
import socket
import time

import pytest

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


def test_a_claim_of_somebody_who_hung_up_takes_no_task(site, name):
    session, kind = site.session(name("s")), name("t")
    body = json.dumps(
        {
            "session_name": session["session_name"],
            "lease_token": session["lease_token"],
            "task_types": [kind],
            "wait_s": 20,
        }
    ).encode()
    head = (
        f"POST /api/v1/tasks/claim HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {site.secrets['agent']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", site.web.port), 5) as gone:
        gone.sendall(head + body)
        time.sleep(0.7)  # until the claim waits at the node; nothing outside shows that moment

    made = site.task(kind)

    def is_free():
        seen = site.agent("GET", f"tasks/{made['id']}?consistency=linearizable").json()
        return seen["status"] == "pending"

    assert is_free()
    assert site.claimed(session, kind)["id"] == made["id"]


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
