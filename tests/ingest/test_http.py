"""Taking metrics in as education apps meet it: a real daphne, real HTTP."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connections

from gaia_site.keys import forget_keys, issue_key, revoke_key
from tests.api.live import Caller, Web
from tests.ingest.senders import metric
from usability.models import AppHealthCount, SatisfactionRating, UsabilityMetric

pytestmark = pytest.mark.django_db(transaction=True)

ORIGIN = "https://maths.example"


@pytest.fixture(scope="module")
def site(django_db_setup: None, django_db_blocker: Any) -> Iterator[Web]:
    """One web process; the calls here need no node."""
    with django_db_blocker.unblock():
        process = Web(SimpleNamespace(urls=["http://127.0.0.1:9"])).start()
    yield process
    process.close()


@pytest.fixture
def key(transactional_db: None) -> Iterator[Any]:
    """Makes keys; each is of the app maths and may be used from the pages of ORIGIN."""
    forget_keys()
    owner = get_user_model().objects.create_user("apps")

    def make(*scopes: str, **more: Any) -> Any:
        return issue_key(
            name="maths",
            owner=owner,
            scopes=scopes,
            **{"app_name": "maths", "allowed_origins": [ORIGIN]} | more,
        )

    yield make
    connections.close_all()
    forget_keys()


@pytest.fixture
def app(site: Web, key: Any) -> Caller:
    return Caller(site.url, key("metrics:write")[1])


def counted(student_id: str = "stu-0001") -> int:
    return UsabilityMetric.objects.filter(student_id=student_id).count()


def test_every_shape_of_a_body_is_taken(app: Caller) -> None:
    one = metric()
    lines = "\n".join(json.dumps(metric()) for _ in range(3)).encode()

    assert app("POST", "usability/metrics", one).json() == {"accepted": 1, "rejected": [], "duplicate": False}
    assert app("POST", "usability/metrics/", [one, one]).json()["accepted"] == 2
    assert app("POST", "usability/metrics", {"batch_id": "b-1", "metrics": [one]}).json()["accepted"] == 1
    assert (
        app("POST", "usability/metrics", lines, Content_Type="application/x-ndjson").json()["accepted"] == 3
    )
    assert (
        app("POST", "usability/metrics", lines, Content_Type="application/x-ndjson; charset=utf-8").status
        == 202
    )
    packed = gzip.compress(json.dumps([one] * 4).encode())
    assert app("POST", "usability/metrics", packed, Content_Encoding="gzip").json()["accepted"] == 4
    assert counted() == 14


def test_a_beacon_carries_its_key_in_the_address(site: Web, key: Any) -> None:
    secret = key("metrics:write")[1]
    nobody = Caller(site.url)
    body = json.dumps([metric()]).encode()

    sent = nobody(
        "POST",
        f"usability/metrics?key={secret}",
        body,
        Content_Type="text/plain;charset=UTF-8",
        Origin=ORIGIN,
    )

    assert (sent.status, sent.headers["Access-Control-Allow-Origin"]) == (202, ORIGIN)
    assert counted() == 1


def test_a_page_of_another_origin_is_refused_and_a_preflight_is_answered(site: Web, key: Any) -> None:
    app = Caller(site.url, key("metrics:write")[1])
    asks = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization"}

    allowed = Caller(site.url)("OPTIONS", "usability/metrics", Origin=ORIGIN, **asks)
    foreign = app("POST", "usability/metrics", [metric()], Origin="https://elsewhere.example")

    assert allowed.status == 204
    assert foreign.status == 403
    assert counted() == 0


@pytest.mark.parametrize(
    ("scopes", "status"),
    [(("metrics:read",), 403), (("teacher",), 403), (("agent",), 403), (("admin",), 403)],
)
def test_only_a_key_that_writes_metrics_writes_metrics(
    site: Web, key: Any, scopes: tuple[str, ...], status: int
) -> None:
    assert (
        Caller(site.url, key(*scopes, app_name="")[1])("POST", "usability/metrics", [metric()]).status
        == status
    )


def test_nobody_and_a_key_that_is_none_are_not_known(site: Web, key: Any) -> None:
    assert Caller(site.url)("POST", "usability/metrics", [metric()]).status == 401
    assert Caller(site.url, "gaia_000000000000_x")("POST", "usability/metrics", [metric()]).status == 401


def test_a_revoked_key_is_refused_within_a_second(site: Web, key: Any) -> None:
    row, secret = key("metrics:write")
    app = Caller(site.url, secret)
    assert app("POST", "usability/metrics", [metric()]).status == 202

    revoke_key(row)

    end = time.monotonic() + 1.5
    while app("POST", "usability/metrics", [metric()]).status != 401:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_key_sends_for_its_own_app_alone(app: Caller) -> None:
    answer = app("POST", "usability/metrics", [metric(app_name="piano"), metric()])

    assert answer.json()["accepted"] == 1
    assert answer.json()["rejected"][0]["loc"] == ["body", 0, "app_name"]


def test_a_session_token_sends_for_its_own_learner_alone(site: Web, app: Caller) -> None:
    made = app("POST", "usability/sessions", {"student_id": "ada", "app_name": "maths", "ttl_s": 60})
    browser = Caller(site.url, made.json()["token"])

    answer = browser(
        "POST", "usability/metrics", [metric(student_id="ada"), metric(student_id="ben")], Origin=ORIGIN
    )

    assert (answer.status, answer.json()["accepted"]) == (202, 1)
    assert answer.json()["rejected"][0]["loc"] == ["body", 1, "student_id"]
    rating = {"student_id": "ada", "app_name": "maths", "session_id": "s-1", "rating": 5}
    assert browser("POST", "usability/ratings", rating, Origin=ORIGIN).status == 201
    assert SatisfactionRating.objects.get().student_id == "ada"


def test_a_request_for_help_can_be_followed_by_its_learner(site: Web, app: Caller) -> None:
    tokens = {
        name: app("POST", "usability/sessions", {"student_id": name, "app_name": "maths"}).json()["token"]
        for name in ("ada", "ben")
    }
    asked = Caller(site.url, tokens["ada"])(
        "POST", "usability/metrics", metric(student_id="ada", metric_type="help_request", metric_value=1)
    )
    (help_id,) = asked.json()["help_requests"]

    assert Caller(site.url, tokens["ada"])("GET", f"usability/help-requests/{help_id}").json() == {
        "state": "sent"
    }
    assert Caller(site.url, tokens["ben"])("GET", f"usability/help-requests/{help_id}").status == 404


def test_what_is_too_large_is_413_whatever_its_form(app: Caller) -> None:
    bomb = gzip.compress(b"[" + b" " * 20_000_000 + b"]")

    assert app("POST", "usability/metrics", [metric()] * 5_001).status == 413
    assert app("POST", "usability/metrics", b" " * (5 * 1024 * 1024 + 1)).status == 413
    assert app("POST", "usability/metrics", bomb, Content_Encoding="gzip").status == 413
    assert counted() == 0


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 60_000, b"7"])
def test_a_body_that_is_no_batch_is_a_problem_with_its_place(app: Caller, body: bytes) -> None:
    answer = app("POST", "usability/metrics", body)

    assert (answer.status, answer.headers["Content-Type"]) == (400, "application/problem+json")
    assert answer.json()["errors"][0]["loc"][0] == "body"


def test_another_media_type_is_415(app: Caller) -> None:
    assert app("POST", "usability/metrics", b"<a/>", Content_Type="text/xml").status == 415


def test_a_repeated_idempotency_key_answers_the_first_answer(app: Caller) -> None:
    first = app("POST", "usability/metrics", [metric(metric_value=1)] * 2, key="k-1")
    again = app("POST", "usability/metrics", json.loads(json.dumps([metric(metric_value=1)] * 2)), key="k-2")
    body = json.dumps([metric()]).encode()
    replays = [app("POST", "usability/metrics", body, key="k-3") for _ in range(2)]

    assert (first.status, again.status) == (202, 202)
    assert replays[0].body == replays[1].body
    assert replays[1].headers["Idempotent-Replayed"] == "true"
    assert app("POST", "usability/metrics", [metric(metric_value=9)], key="k-3").status == 422
    assert counted() == 5


def test_the_health_of_an_app_is_counted_from_what_it_sends(site: Web, key: Any) -> None:
    app = Caller(site.url, key("metrics:write", "metrics:read", app_name="piano")[1])
    good = {"app_name": "piano"}
    clicks = metric(
        metric_type="dead_click", metric_value=3, metadata={"item": "item-7", "sdk": "1.2.0"}, **good
    )
    bad = [metric(student_id="a b", **good), metric(metric_type="feeling", **good)]
    app("POST", "usability/metrics", [clicks, metric(**good), *bad])

    end = time.monotonic() + 20
    while not AppHealthCount.objects.filter(app_name="piano", measure="rejected").exists():
        assert time.monotonic() < end
        time.sleep(0.1)
    found = app("GET", "usability/apps/piano/health").json()

    assert (found["metrics"], found["rejected"]) == (2, {"bad_id": 1, "unknown_type": 1})
    assert (found["dead_clicks"], found["sdk_versions"]) == ([["item-7", 3]], {"1.2.0": 1})
