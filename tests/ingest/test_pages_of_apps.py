"""What an app's page may do with the credential it holds: over real HTTP, with a token and with a write-only key."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connections

from gaia_site.keys import forget_keys, issue_key, revoke_key
from tests.api.live import Answer, Caller, Web
from tests.cluster import eventually
from tests.ingest.senders import metric
from usability.models import (
    AppHealthCount,
    HelpRequest,
    IngestBatch,
    SatisfactionRating,
    Student,
    UsabilityMetric,
)

pytestmark = pytest.mark.django_db(transaction=True)

ORIGIN = "https://maths.example"
ELSEWHERE = "https://elsewhere.example"


@pytest.fixture(scope="module")
def site(django_db_setup: None, django_db_blocker: Any) -> Iterator[Web]:
    with django_db_blocker.unblock():
        process = Web(SimpleNamespace(urls=["http://127.0.0.1:9"])).start()
    yield process
    process.close()


@pytest.fixture
def owner(transactional_db: None) -> Iterator[Any]:
    forget_keys()
    yield get_user_model().objects.create_user("apps")
    connections.close_all()
    forget_keys()


def a_key(owner: Any, *scopes: str, **more: Any) -> Any:
    told = {"app_name": "maths", "allowed_origins": [ORIGIN]} | more
    return issue_key(name="maths", owner=owner, scopes=scopes or ("metrics:write",), **told)


@pytest.fixture
def server(site: Web, owner: Any) -> Caller:
    """The app's own server."""
    return Caller(site.url, a_key(owner)[1])


def token_of(server: Caller, student_id: str = "ada", **more: Any) -> str:
    made = server("POST", "usability/sessions", {"student_id": student_id, "app_name": "maths", **more})
    assert made.status == 201, made.body
    return made.json()["token"]


def of_ada(**more: Any) -> dict[str, Any]:
    return metric(student_id="ada", **more)


# ---------------------------------------------------------------- tokens


def test_a_token_says_when_it_ends_and_ends_then(site: Web, server: Caller) -> None:
    page = Caller(site.url, token_of(server, ttl_s=1))
    assert page("POST", "usability/metrics", [of_ada()]).status == 202

    eventually(lambda: page("POST", "usability/metrics", [of_ada()]).status == 401, 5, what="the end")
    assert page("POST", "usability/ratings", {}).status == 401


def test_a_token_dies_with_its_key_within_a_second(site: Web, owner: Any) -> None:
    row, secret = a_key(owner)
    page = Caller(site.url, token_of(Caller(site.url, secret)))
    assert page("POST", "usability/metrics", [of_ada()]).status == 202

    revoke_key(row)

    eventually(lambda: page("POST", "usability/metrics", [of_ada()]).status == 401, 1.5, what="the refusal")


def test_a_token_whose_words_were_changed_is_none(site: Web, server: Caller) -> None:
    mark, prefix, rest = token_of(server).split("_", 2)
    claims, _, signature = rest.rpartition(".")
    said = json.loads(base64.urlsafe_b64decode(claims + "=="))
    for index, value in ((0, "ben"), (1, "piano"), (2, said[2] + 9_999)):
        changed = [*said[:index], value, *said[index + 1 :]]
        forged = base64.urlsafe_b64encode(json.dumps(changed).encode()).rstrip(b"=").decode()
        page = Caller(site.url, f"{mark}_{prefix}_{forged}.{signature}")

        assert page("POST", "usability/metrics", [of_ada()]).status == 401


def test_a_token_reads_nothing_but_its_own_requests_for_help(site: Web, server: Caller) -> None:
    page = Caller(site.url, token_of(server))
    page("POST", "usability/metrics", [of_ada()])

    for path in ("students/ada/metrics", "students/ada/timeline", "ratings", "ratings/summary", "apps/maths/health",
                 "classrooms", "alerts", "frustration-events"):  # fmt: skip
        assert page("GET", f"usability/{path}").status == 403, path
    assert page("POST", "usability/sessions", {"student_id": "ada", "app_name": "maths"}).status == 403
    assert page("GET", "sessions").status == 403


def test_a_token_of_another_app_or_pupil_stores_nothing_elsewhere(site: Web, server: Caller) -> None:
    page = Caller(site.url, token_of(server))
    body = [of_ada(app_name="piano"), metric(student_id="ben"), of_ada()]

    answer = page("POST", "usability/metrics", body).json()

    assert [one["loc"][-1] for one in answer["rejected"]] == ["app_name", "student_id"]
    assert set(UsabilityMetric.objects.values_list("student_id", "app_name")) == {("ada", "maths")}
    rating = {"student_id": "ada", "app_name": "maths", "session_id": "s", "rating": 3}
    assert page("POST", "usability/ratings", rating | {"student_id": "ben"}).status == 403
    assert page("POST", "usability/ratings", rating | {"app_name": "piano"}).status == 403
    assert not SatisfactionRating.objects.exists()


def test_a_write_only_key_reads_nothing(site: Web, server: Caller) -> None:
    server("POST", "usability/metrics", [of_ada()])

    for path in ("students/ada/metrics", "ratings", "apps/maths/health", "alerts"):
        assert server("GET", f"usability/{path}").status == 403, path


# ---------------------------------------------------------------- origins


def asked(site: Web, path: str, method: str, origin: str) -> Answer:
    return Caller(site.url)(
        "OPTIONS",
        path,
        Origin=origin,
        Access_Control_Request_Method=method,
        Access_Control_Request_Headers="authorization,content-type",
    )


OPEN = [("usability/metrics", "POST"), ("usability/ratings", "POST"),
        ("usability/help-requests/01890000-0000-7000-8000-000000000000", "GET")]  # fmt: skip


@pytest.mark.parametrize(("path", "method"), OPEN, ids=["metrics", "ratings", "help"])
def test_what_a_page_calls_answers_its_question_first(
    site: Web, server: Caller, path: str, method: str
) -> None:
    def allowed() -> str | None:
        return asked(site, path, method, ORIGIN).headers.get("Access-Control-Allow-Origin")

    eventually(lambda: allowed() == ORIGIN, 5, what="the origin of a new key")
    answer = asked(site, path, method, ORIGIN)
    assert answer.status == 204
    assert method in answer.headers["Access-Control-Allow-Methods"]
    assert {"Authorization", "Content-Type"} <= set(
        answer.headers["Access-Control-Allow-Headers"].split(", ")
    )
    assert "Access-Control-Allow-Origin" not in asked(site, path, method, ELSEWHERE).headers


def test_a_question_about_what_no_page_calls_is_not_answered(site: Web, server: Caller) -> None:
    for path, method in (("usability/sessions", "POST"), ("usability/alerts", "GET"), ("tasks", "POST")):
        assert "Access-Control-Allow-Origin" not in asked(site, path, method, ORIGIN).headers, path


def test_a_token_is_good_in_the_pages_of_its_keys_origins_alone(site: Web, server: Caller) -> None:
    page = Caller(site.url, token_of(server))
    rating = {"student_id": "ada", "app_name": "maths", "session_id": "s", "rating": 3}

    assert page("POST", "usability/metrics", [of_ada()], Origin=ELSEWHERE).status == 403
    assert page("POST", "usability/ratings", rating, Origin=ELSEWHERE).status == 403
    assert not UsabilityMetric.objects.exists()
    answer = page("POST", "usability/metrics", [of_ada()], Origin=ORIGIN)
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (202, ORIGIN)
    assert answer.headers["Vary"] == "Origin"


def test_a_page_can_read_that_its_credential_is_none(site: Web, server: Caller) -> None:
    page = Caller(site.url, "gaiat_000000000000_x.y")
    paths = (("POST", "usability/metrics", []), ("GET", OPEN[2][0], None), ("POST", "usability/ratings", {}))
    eventually(
        lambda: asked(site, "usability/metrics", "POST", ORIGIN).headers.get("Access-Control-Allow-Origin"), 5
    )

    for method, path, body in paths:
        known = page(method, path, body, Origin=ORIGIN)
        assert (known.status, known.headers.get("Access-Control-Allow-Origin")) == (401, ORIGIN), path
        other = page(method, path, body, Origin=ELSEWHERE)
        assert (other.status, other.headers.get("Access-Control-Allow-Origin")) == (401, None), path


def test_a_beacon_brings_a_token_in_its_address(site: Web, server: Caller) -> None:
    token = token_of(server)
    body = json.dumps({"batch_id": "b-1", "metrics": [of_ada()]}).encode()

    sent = [
        Caller(site.url)(
            "POST",
            f"usability/metrics?key={token}",
            body,
            Content_Type="text/plain;charset=UTF-8",
            Origin=origin,
        ).status
        for origin in (ORIGIN, ORIGIN, ELSEWHERE)
    ]

    assert sent == [202, 202, 403]
    assert UsabilityMetric.objects.count() == 1


# ---------------------------------------------------------------- judging alone


def test_a_judgement_alone_stores_nothing_at_all(site: Web, server: Caller) -> None:
    body = {
        "batch_id": "b-1",
        "metrics": [
            of_ada(),
            of_ada(metric_type="help_request", metric_value=1),
            of_ada(metric_type="feeling"),
        ],
    }

    answers = [server("POST", "usability/metrics?validate_only=1", body) for _ in range(2)]
    late = server("POST", "usability/metrics", [metric(student_id="bo")])

    for answer in answers:
        assert (answer.status, answer.json()["accepted"], answer.json()["duplicate"]) == (200, 2, False)
        assert [one["loc"] for one in answer.json()["rejected"]] == [["body", "metrics", 2, "metric_type"]]
        assert "help_requests" not in answer.json()
    assert late.status == 202
    eventually(lambda: AppHealthCount.objects.filter(measure="accepted").exists(), 20, what="the counts")
    assert list(UsabilityMetric.objects.values_list("student_id", flat=True)) == ["bo"]
    assert not AppHealthCount.objects.filter(measure="rejected").exists()
    assert not IngestBatch.objects.filter(batch_id="b-1").exists()
    assert not HelpRequest.objects.exists()
    assert not Student.objects.filter(student_id="ada").exists()
    assert server("POST", "usability/metrics", body).json()["duplicate"] is False


# ---------------------------------------------------------------- health


def test_health_counts_what_an_app_sends_over_its_span(site: Web, owner: Any) -> None:
    def of_drums(**more: Any) -> dict[str, Any]:
        return of_ada(app_name="drums", **more)

    # An app of its own: counts of other tests may still wait in the process.
    app = Caller(site.url, a_key(owner, "metrics:write", "metrics:read", app_name="drums")[1])
    clicks = [
        of_drums(metric_type=kind, metric_value=count, metadata={"item": item, "sdk": "1.0.0"})
        for kind, count, item in (("dead_click", 2, "item-7"), ("dead_click", 1, "item-7"), ("rage_click", 1, "item-8"), ("error_click", 4, "item-9"))
    ]  # fmt: skip
    late = {"student_id": "ada", "app_name": "drums", "metric_type": "answer", "metric_value": 1,
            "metadata": {"age_ms": 600_000}}  # fmt: skip
    app(
        "POST",
        "usability/metrics",
        [*clicks, late, of_drums(note="x"), of_drums(metric_value="x"), of_drums(metric_value=-1)],
    )

    def health(query: str = "") -> dict[str, Any]:
        return app("GET", f"usability/apps/drums/health{query}").json()

    eventually(lambda: health()["metrics"] == 5, 20, what="the counts")
    found = health()
    assert found["rejected"] == {"unknown_key": 1, "wrong_type": 1, "bad_value": 1}
    assert found["dead_clicks"] == [["item-7", 3]]
    assert (found["rage_clicks"], found["error_clicks"]) == ([["item-8", 1]], [["item-9", 4]])
    assert (found["late_share"], found["sdk_versions"]) == (0.2, {"1.0.0": 4})
    assert health("?until=2020-01-01T00:00:00Z")["metrics"] == 0
    assert app("GET", "usability/apps/drums/health?since=yesterday").status == 400
    assert app("GET", "usability/apps/piano/health").status == 404


def test_a_trial_is_asked_for_in_words_that_mean_one_thing(server: Any) -> None:
    answer = server("POST", "usability/metrics?validate_only=yes", {"metrics": []})

    assert answer.status == 400


def test_an_app_of_which_everything_is_refused_does_not_look_well(site: Web, owner: Any) -> None:
    # A key of no app, as the server of several has: only what is refused says which app it is.
    anyone = Caller(site.url, a_key(owner, app_name="", allowed_origins=[])[1])
    reader = Caller(site.url, a_key(owner, "metrics:read", app_name="flutes")[1])

    answer = anyone(
        "POST",
        "usability/metrics",
        [
            of_ada(app_name="flutes", metric_value=9, metric_type="answer"),
            of_ada(app_name="flutes", note="x"),
        ],
    )

    assert answer.json()["accepted"] == 0

    def refused() -> Any:
        return reader("GET", "usability/apps/flutes/health").json().get("rejected")

    eventually(lambda: refused() == {"bad_value": 1, "unknown_key": 1}, 20, what="the counts")
