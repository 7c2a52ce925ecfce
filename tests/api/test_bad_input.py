"""Bad input: the exact error, and nothing half-done."""

from __future__ import annotations

import gzip
import json

import pytest

NUL = "\u0000"
LONG = "x" * 256
NOBODY = "0192f0c1-5a3e-7c44-9b7a-6d1f0e2b3c4d"  # an id of nothing; fixed, so that every worker collects the same tests

TASK = {"idempotency_key": "bad-input", "task_type": "t"}
SESSION = {"session_name": "bad-input", "tier": "worker", "provider": "claude"}


def raw(text):
    return text.encode("utf-8", "surrogatepass")


BROKEN = {
    "broken JSON": b'{"idempotency_key": ',
    "not JSON": b"hello",
    "empty": b"",
    "trailing": b"{} {}",
    "NaN": b'{"idempotency_key":"k","task_type":"t","priority":NaN}',
    "infinity": b'{"idempotency_key":"k","task_type":"t","claim_ttl_s":Infinity}',
    "1e400": b'{"idempotency_key":"k","task_type":"t","claim_ttl_s":1e400}',
    "deep": b'{"idempotency_key":"k","task_type":"t","task_data":'
    + b'{"a":' * 100_000
    + b"1"
    + b"}" * 100_000
    + b"}",
    "deep list": b"[" * 100_000 + b"]" * 100_000,
    "NUL": b'{"idempotency_key":"k\\u0000","task_type":"t"}',
    "NUL inside": b'{"idempotency_key":"k","task_type":"t","task_data":{"a":["\\u0000"]}}',
    "lone surrogate": b'{"idempotency_key":"k","task_type":"t","task_data":{"a":"\\ud800"}}',
    "raw surrogate": b'{"idempotency_key":"\xed\xa0\x80","task_type":"t"}',
    "bad UTF-8": b'{"idempotency_key":"\xff","task_type":"t"}',
    "number": b"7",
    "text": b'"text"',
    "null": b"null",
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("path", ["tasks", "tasks/claim", "tasks/complete", "heartbeats"])
def test_a_body_that_cannot_be_read_is_400(site, path, body):
    answer = site.agent("POST", path, body)

    assert answer.status == 400, answer.body
    problem = answer.json()
    assert problem["type"] == "validation-error"
    assert problem["errors"][0]["loc"][0] == "body"
    assert site.agent("GET", "tasks?limit=1").json()["results"] == []


WRONG_TASKS = [
    ({"task_type": "t"}, ["idempotency_key"]),
    ({"idempotency_key": "k"}, ["task_type"]),
    (TASK | {"idempotency_key": 7}, ["idempotency_key"]),
    (TASK | {"idempotency_key": ""}, ["idempotency_key"]),
    (TASK | {"idempotency_key": LONG}, ["idempotency_key"]),
    (TASK | {"task_type": None}, ["task_type"]),
    (TASK | {"task_type": "x" * 101}, ["task_type"]),
    (TASK | {"task_data": []}, ["task_data"]),
    (TASK | {"task_data": "text"}, ["task_data"]),
    (TASK | {"task_data": {"a": "x" * (256 * 1024)}}, ["task_data"]),
    (TASK | {"priority": "high"}, ["priority"]),
    (TASK | {"priority": True}, ["priority"]),
    (TASK | {"priority": 1.5}, ["priority"]),
    (TASK | {"priority": 10**30}, ["priority"]),
    (TASK | {"lesson_id": "seven"}, ["lesson_id"]),
    (TASK | {"lesson_id": NOBODY}, ["lesson_id"]),
    (TASK | {"target_session": "no such session"}, ["target_session"]),
    (TASK | {"target_session": "nobody"}, ["target_session"]),
    (TASK | {"required_capabilities": "python"}, ["required_capabilities"]),
    (TASK | {"required_capabilities": [7]}, ["required_capabilities", 0]),
    (TASK | {"depends_on": ["seven"]}, ["depends_on", 0]),
    (TASK | {"depends_on": [NOBODY]}, ["depends_on"]),
    (TASK | {"run_after": "tomorrow"}, ["run_after"]),
    (TASK | {"run_after": "2026-01-01T00:00:00"}, ["run_after"]),
    (TASK | {"run_after": "0001-01-01T00:00:00Z"}, ["run_after"]),
    (TASK | {"run_after": "9999-12-31T23:59:59Z"}, ["run_after"]),
    (TASK | {"run_after": 7}, ["run_after"]),
    (TASK | {"max_retries": -1}, ["max_retries"]),
    (TASK | {"claim_ttl_s": 0}, ["claim_ttl_s"]),
    (TASK | {"claim_ttl_s": "10"}, ["claim_ttl_s"]),
    (TASK | {"timeout_s": -5}, ["timeout_s"]),
    (TASK | {"colour": "red"}, ["colour"]),
]


@pytest.mark.parametrize(("body", "loc"), WRONG_TASKS, ids=lambda value: json.dumps(value)[:60])
def test_a_wrong_task_is_named_by_its_place_alone_and_in_a_batch(site, body, loc):
    alone = site.agent("POST", "tasks", body)
    line = site.agent("POST", "tasks", [body]).json()[0]

    assert alone.status == 400, alone.body
    assert alone.json()["type"] == "validation-error"
    assert alone.json()["errors"][0]["loc"] == ["body", *loc], alone.body
    assert line["status"] == 400
    assert line["errors"][0]["loc"] == ["body", 0, *loc]
    assert site.agent("GET", "tasks?limit=1&consistency=linearizable").json()["results"] == []


WRONG_SESSIONS = [
    ({"tier": "worker", "provider": "claude"}, ["session_name"]),
    (SESSION | {"session_name": "two words"}, ["session_name"]),
    (SESSION | {"session_name": LONG}, ["session_name"]),
    (SESSION | {"session_name": 7}, ["session_name"]),
    (SESSION | {"session_name": "line\n"}, ["session_name"]),
    (SESSION | {"tier": "boss"}, ["tier"]),
    (SESSION | {"provider": "abacus"}, ["provider"]),
    (SESSION | {"max_concurrent_tasks": 0}, ["max_concurrent_tasks"]),
    (SESSION | {"max_concurrent_tasks": "5"}, ["max_concurrent_tasks"]),
    (SESSION | {"metadata": []}, ["metadata"]),
    (SESSION | {"metadata": {"a": "x" * 20_000}}, ["metadata"]),
    (SESSION | {"time_windows": [{"from_time": "25:00"}]}, ["time_windows", 0, "from_time"]),
    (
        SESSION | {"time_windows": [{"from_time": "10:00", "to_time": "09:00"}]},
        ["time_windows", 0, "to_time"],
    ),
    (SESSION | {"lesson_id": NOBODY}, ["lesson_id"]),
    (SESSION | {"lease_token": 2**63}, ["lease_token"]),
]


@pytest.mark.parametrize(("body", "loc"), WRONG_SESSIONS, ids=lambda value: json.dumps(value)[:60])
def test_a_wrong_session_is_named_by_its_place_and_not_registered(site, body, loc):
    answer = site.agent("POST", "sessions", body)

    assert answer.status == 400, answer.body
    assert answer.json()["errors"][0]["loc"] == ["body", *loc], answer.body
    assert site.agent("GET", "sessions/bad-input?consistency=linearizable").status == 404


WRONG_HOT = [
    ("tasks/claim", {"session_name": "s", "lease_token": "1"}, ["lease_token"]),
    ("tasks/claim", {"session_name": "two words", "lease_token": 1}, ["session_name"]),
    ("tasks/claim", {"session_name": "s", "lease_token": 1, "wait_s": 31}, ["wait_s"]),
    ("tasks/claim", {"session_name": "s", "lease_token": 1, "max": 0}, ["max"]),
    ("tasks/claim", {"session_name": "s", "lease_token": 1, "task_types": [7]}, ["task_types", 0]),
    ("tasks/claim", {"session_name": "s", "lease_token": -1}, ["lease_token"]),
    ("tasks/claim", {"session_name": "s", "lease_token": 2**63}, ["lease_token"]),
    (f"tasks/{NOBODY}/complete", {"claim_token": True}, ["claim_token"]),
    ("sessions/s/heartbeat", {"lease_token": 1, "load": "high"}, ["load"]),
    (
        "sessions/s/heartbeat",
        {"lease_token": 1, "progress": [{"task_id": "x", "claim_token": 1}]},
        ["progress", 0, "task_id"],
    ),
    ("heartbeats", {"heartbeats": 7}, ["heartbeats"]),
    ("heartbeats", {}, ["heartbeats"]),
    ("tasks/claim", {"session_name": "s"}, ["lease_token"]),
    ("tasks/claim", {"session_name": "s", "lease_token": 1, "max_tasks": 1}, ["max_tasks"]),
    (f"tasks/{NOBODY}/complete", {}, ["claim_token"]),
    (
        "sessions/s/heartbeat",
        {"lease_token": 1, "progress": [{"task_id": NOBODY}]},
        ["progress", 0, "claim_token"],
    ),
    ("locks/k/acquire", {"owner_id": "o"}, ["ttl_s"]),
]


@pytest.mark.parametrize(("path", "body", "loc"), WRONG_HOT, ids=lambda value: json.dumps(value)[:50])
def test_the_hot_calls_and_their_keyed_twins_name_the_same_place(site, name, path, body, loc):
    hot = site.agent("POST", path, body)
    keyed = site.agent("POST", path, body, key=name("key"))

    for answer in (hot, keyed):
        assert answer.status == 400, answer.body
        assert answer.json()["type"] == "validation-error"
        assert answer.json()["errors"][0]["loc"] == ["body", *loc], answer.body


@pytest.mark.parametrize("path", ["tasks/claim", "tasks", "heartbeats"])
def test_six_mebibytes_are_413_however_they_come(site, path):
    big = b"[" + b" " * (6 * 1024 * 1024) + b"]"

    plain = site.agent("POST", path, big)
    packed = site.agent("POST", path, gzip.compress(big), Content_Encoding="gzip")

    assert (plain.status, packed.status) == (413, 413)
    assert plain.json()["type"] == packed.json()["type"] == "payload-too-large"


def test_a_chunked_body_is_counted_too(site):
    import urllib3

    def chunks():
        for _ in range(7):
            yield b" " * (1024 * 1024)

    answer = urllib3.request(
        "POST",
        f"{site.url}/api/v1/tasks",
        body=chunks(),
        headers={"Authorization": f"Bearer {site.secrets['agent']}", "Content-Type": "application/json"},
        retries=False,
        timeout=30,
    )

    assert answer.status == 413


@pytest.mark.parametrize("path", ["tasks/claim", "tasks"])
def test_gzip_is_understood(site, path):
    body = gzip.compress(json.dumps({"session_name": "s", "lease_token": "x"}).encode())

    assert site.agent("POST", path, body, Content_Encoding="gzip").status == 400
    assert site.agent("POST", path, b"not gzip", Content_Encoding="gzip").status == 400
    assert site.agent("POST", path, body, Content_Encoding="br").status == 415


@pytest.mark.parametrize("path", ["tasks/claim", "tasks", "heartbeats"])
def test_another_media_type_is_415(site, path):
    assert site.agent("POST", path, b"{}", Content_Type="text/csv").status == 415


@pytest.mark.parametrize(
    "path",
    [
        "tasks/seven",
        "tasks/seven/complete",
        "lessons/seven",
        "affinities/7",
        "tasks/%00",
        "sessions/%00",
        "locks/%00",
    ],
)
def test_an_address_that_is_none_is_a_clean_refusal(site, path):
    answer = site.agent("GET", path)

    assert answer.status in (400, 404, 405), answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_batch_of_5001_is_413(site):
    assert site.agent("POST", "tasks", [{}] * 5001).status == 413
    assert site.agent("POST", "heartbeats", {"heartbeats": [{}] * 5001}).status == 413
    assert site.agent("POST", "tasks/complete", {"completions": [{}] * 5001}).status == 413


def test_an_unknown_query_parameter_is_400_on_every_kind_of_call(site):
    for method, path, body in (
        ("GET", "sessions?color=red", None),
        ("GET", "events?color=red", None),
        ("GET", "cluster?color=red", None),
        ("POST", "tasks?color=red", TASK),
        ("POST", "tasks/claim?color=red", {}),
    ):
        answer = site.agent(method, path, body)
        assert answer.status == 400, answer.body
        assert answer.json()["errors"][0]["loc"] == ["query", "color"]
