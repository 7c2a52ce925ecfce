"""The edge of the API: addresses, methods, credentials, bodies and filters, before any noun has a say."""

import gzip
import re

import pytest

from gaia_site.api.docs import schema
from gaia_site.bodies import LIMIT_BYTES

pytestmark = pytest.mark.django_db


def is_problem(answer, status, slug):
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    body = answer.json()
    assert body["type"] == slug
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert body["instance"].startswith("/api/")
    return body


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT"])
def test_an_unknown_address_is_a_problem_for_every_method(api, method):
    is_problem(api()(method, "nothing/here"), 404, "not-found")


def test_a_wrong_method_is_405_and_names_the_right_ones(api):
    answer = api("agent")("PUT", "tasks")

    is_problem(answer, 405, "method-not-allowed")
    assert set(answer["Allow"].split(", ")) == {"GET", "HEAD", "POST", "OPTIONS"}


@pytest.mark.parametrize("path", ["tasks", "tasks/"])
def test_addresses_work_with_and_without_a_slash(api, path):
    assert api("agent")("GET", path).status_code == 200


def test_nobody_gets_401_with_a_challenge(api):
    answer = api()("GET", "tasks")

    is_problem(answer, 401, "not-authenticated")
    assert answer["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("header", ["Bearer", "Bearer nonsense", "Basic eDp5", "gaia_x"])
def test_a_bad_credential_is_401(api, header):
    is_problem(api()("GET", "tasks", Authorization=header), 401, "not-authenticated")


def test_a_missing_scope_is_403(api):
    body = is_problem(api("metrics:read")("GET", "tasks"), 403, "permission-denied")

    assert "agent" in body["detail"]


def test_a_browser_may_read_with_its_login_but_not_write_without_the_csrf_token(owner, client):
    owner.is_staff = True
    owner.save()
    client.force_login(owner)
    client.handler.enforce_csrf_checks = True

    assert client.get("/api/v1/tasks").status_code == 200
    is_problem(client.post("/api/v1/tasks", "{}", content_type="application/json"), 403, "permission-denied")


def test_unknown_filters_are_named(api):
    body = is_problem(api("agent")("GET", "tasks?colour=red&status=pending"), 400, "validation-error")

    assert [error["loc"] for error in body["errors"]] == [["query", "colour"]]


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("status=sleeping", "status"),
        ("lesson_id=7", "lesson_id"),
        ("priority_min=high", "priority_min"),
        ("created_after=yesterday", "created_after"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=ten", "limit"),
        ("ordering=colour", "ordering"),
        ("cursor=nonsense", "cursor"),
        ("min_index=-1", "min_index"),
        ("consistency=strong", "consistency"),
        ("status=pending&status=failed", "status"),
        ("task_type=%00", "task_type"),
    ],
)
def test_a_bad_filter_value_is_named(api, query, name):
    body = is_problem(api("agent")("GET", f"tasks?{query}"), 400, "validation-error")

    assert body["errors"][0]["loc"] == ["query", name]


def test_a_body_over_the_limit_is_413(api):
    is_problem(api("agent")("POST", "tasks", b" " * (LIMIT_BYTES + 1)), 413, "payload-too-large")


def test_a_bomb_is_413(api):
    bomb = gzip.compress(b" " * (20 * 1024 * 1024))

    is_problem(api("agent")("POST", "tasks", bomb, Content_Encoding="gzip"), 413, "payload-too-large")


def test_more_items_than_a_batch_may_have_is_413(api):
    is_problem(api("agent")("POST", "tasks", [{}] * 5001), 413, "payload-too-large")


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "multipart/form-data; boundary=x"])
def test_another_media_type_is_415(api, kind):
    is_problem(api("agent")("POST", "tasks", b"{}", Content_Type=kind), 415, "unsupported-media-type")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"NaN", b"null", b"3", b'"text"', b'{"a":"\\u0000"}', b"[" * 100_000]
)
def test_a_body_that_is_no_json_object_is_400(api, body):
    is_problem(api("agent")("POST", "tasks/claim", body), 400, "validation-error")


def test_unknown_fields_are_named(api):
    answer = api("agent")("POST", "tasks", {"idempotency_key": "k", "task_type": "t", "max_retires": 1})

    body = is_problem(answer, 400, "validation-error")
    assert body["errors"][0]["loc"] == ["body", "max_retires"]


def test_limits_are_told(api):
    answer = api("agent")("GET", "tasks")

    assert answer["RateLimit-Policy"] == '"default";q=60000;w=60'
    assert answer["RateLimit"].startswith('"default";r=')


def test_beyond_the_limit_is_429_with_the_time_to_wait(api, settings):
    settings.RATE_LIMITS = {"default": (2, 60)}
    call = api("agent")
    for _ in range(2):
        assert call("GET", "tasks").status_code == 200

    answer = call("GET", "tasks")

    is_problem(answer, 429, "rate-limited")
    assert 1 <= int(answer["Retry-After"]) <= 60
    assert answer["RateLimit"].startswith('"default";r=0')


def test_the_limit_counts_by_key(api, settings):
    settings.RATE_LIMITS = {"default": (1, 60)}

    assert api("agent")("GET", "tasks").status_code == 200
    assert api("agent")("GET", "tasks").status_code == 200


def test_the_schema_is_made_without_a_warning(capsys):
    schema.cache_clear()

    document = schema()

    assert document["openapi"].startswith("3.1")
    assert capsys.readouterr().err == ""


def test_the_documentation_page_needs_nothing_from_elsewhere(client):
    answer = client.get("/api/docs")

    assert answer.status_code == 200
    text = answer.content.decode()
    assert "/api/v1/tasks/claim" in text
    assert "<script" not in text
    assert "style=" not in text
    linked = re.findall(r'(?:src|href|action)="([^"]*)"|url\(([^)]*)\)', text)
    assert [one for pair in linked for one in pair if "//" in one and "//testserver" not in one] == []


def test_the_schema_is_served_as_json_and_yaml(client):
    assert client.get("/api/schema").json()["openapi"].startswith("3.1")
    assert client.get("/api/schema/?format=yaml").content.startswith(b"openapi: 3.1")
