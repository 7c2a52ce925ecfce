"""Idempotency-Key: the first answer is the answer, also after a restart and for two at once."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import OperationalError
from django.http import HttpResponse
from django.utils import timezone

from gaia_site import idempotency
from gaia_site.idempotency import Attempt, Started, begin, finish
from gaia_site.models import IdempotencyRecord
from gaia_site.problems import Problem, response


def register(name):
    return {"session_name": name, "tier": "worker", "provider": "claude"}


def replayed(answer):
    return answer.headers.get("Idempotent-Replayed") == "true"


def test_the_same_key_with_the_same_body_is_answered_as_the_first_time(site, name):
    body, key = register(name("s")), name("key")

    first = site.agent("POST", "sessions", body, key=key)
    second = site.agent("POST", "sessions", body, key=key)

    assert (first.status, second.status) == (201, 201)
    assert second.body == first.body
    assert second.index == first.index
    assert not replayed(first)
    assert replayed(second)


def test_another_body_is_refused(site, name):
    key = name("key")
    site.agent("POST", "sessions", register(name("s")), key=key)

    answer = site.agent("POST", "sessions", register(name("s")), key=key)

    assert answer.status == 422
    assert answer.json()["type"] == "idempotency-mismatch"


def test_a_key_belongs_to_its_caller_and_address(site, name):
    key, session_name = name("key"), name("s")
    site.agent("POST", "sessions", register(session_name), key=key)

    other_caller = site.admin("POST", "sessions", register(name("s")), key=key)
    other_address = site.agent("POST", "lessons", {"title": "A"}, key=key)

    assert (other_caller.status, other_address.status) == (201, 201)


def test_a_refusal_is_kept_too(site, name):
    session = site.session(name("s"))
    key = name("key")
    body = register(session["session_name"])

    first = site.agent("POST", "sessions", body, key=key)
    site.agent("DELETE", f"sessions/{session['session_name']}")
    second = site.agent("POST", "sessions", body, key=key)

    assert (first.status, second.status) == (409, 409)
    assert replayed(second)


def test_a_quoted_key_is_the_same_key(site, name):
    key, body = name("key"), {"title": "A"}

    first = site.agent("POST", "lessons", body, key=key)
    second = site.agent("POST", "lessons", body, key=f'"{key}"')

    assert second.json()["id"] == first.json()["id"]


@pytest.mark.parametrize("key", ["two words", "x" * 256, '""'])
def test_a_key_that_is_none_is_refused(site, key):
    answer = site.agent("POST", "lessons", {"title": "A"}, key=key)

    assert answer.status == 400
    assert answer.json()["errors"][0]["loc"] == ["header", "idempotency-key"]


def test_a_claim_repeated_after_a_lost_answer_gets_the_same_task(site, name):
    session, kind = site.session(name("s")), name("t")
    site.task(kind)
    site.agent("POST", "tasks", {"idempotency_key": name("t"), "task_type": kind})
    body = {
        "session_name": session["session_name"],
        "lease_token": session["lease_token"],
        "task_types": [kind],
    }

    first = site.agent("POST", "tasks/claim", body, key="claim-1")
    second = site.agent("POST", "tasks/claim", body, key="claim-1")

    assert first.json() == second.json()
    assert len(first.json()["tasks"]) == 1


def test_equal_requests_at_once_come_to_one_effect(site, name):
    key, body = name("key"), {"title": name("lesson")}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: site.agent("POST", "lessons", body, key=key), range(4)))

    assert {answer.status for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum(not replayed(answer) for answer in answers) == 1


def test_the_answer_outlives_the_process_that_gave_it(site, name):
    body, key = register(name("s")), name("key")
    first = site.agent("POST", "sessions", body, key=key)

    site.web.end(signal.SIGKILL)
    site.web.start()
    second = site.agent("POST", "sessions", body, key=key)

    assert second.body == first.body
    assert replayed(second)


# The record itself


def attempt(**more):
    return Attempt(
        **({"caller": "key:1", "method": "POST", "path": "/x", "key": "k", "body_digest": b"a" * 32} | more)
    )


@pytest.mark.django_db
def test_the_request_id_is_the_same_for_the_same_key_and_no_other():
    ids = {
        attempt().request_id,
        attempt(body_digest=b"b" * 32).request_id,
        attempt(key="other").request_id,
        attempt(caller="key:2").request_id,
        attempt(path="/y").request_id,
    }

    assert len(ids) == 4
    assert {len(one) for one in ids} == {16}


@pytest.mark.django_db
def test_a_failure_of_ours_is_not_kept():
    started = begin(attempt())

    finish(started, response(Problem("no-leader")))

    assert isinstance(begin(attempt()), Started)


@pytest.mark.django_db
def test_a_process_that_died_at_work_is_succeeded():
    begin(attempt())
    IdempotencyRecord.objects.update(started_at=timezone.now() - idempotency.RUNNING_LIMIT)

    assert isinstance(begin(attempt()), Started)
    assert IdempotencyRecord.objects.count() == 1


@pytest.mark.django_db
def test_the_successor_of_a_dead_process_must_bring_the_same_body():
    begin(attempt())
    IdempotencyRecord.objects.update(started_at=timezone.now() - idempotency.RUNNING_LIMIT)

    with pytest.raises(Problem) as caught:
        begin(attempt(body_digest=b"b" * 32))

    assert caught.value.slug == "idempotency-mismatch"


@pytest.mark.django_db
def test_after_a_day_a_key_is_new_and_old_records_go():
    started = begin(attempt())
    finish(started, response(Problem("conflict")))
    IdempotencyRecord.objects.update(started_at=timezone.now() - idempotency.KEPT - timedelta(seconds=1))

    assert isinstance(begin(attempt(body_digest=b"b" * 32)), Started)
    IdempotencyRecord.objects.update(started_at=timezone.now() - idempotency.KEPT - timedelta(seconds=1))
    assert idempotency.delete_old(timezone.now()) == 1


@pytest.mark.django_db
def test_one_who_waits_in_vain_may_try_again(monkeypatch):
    begin(attempt())
    monkeypatch.setattr(idempotency, "WAIT_S", 0.1)

    with pytest.raises(Problem) as caught:
        begin(attempt())

    assert caught.value.slug == "overloaded"
    assert caught.value.retry_after_s


@pytest.mark.django_db
def test_what_nobody_can_ask_for_any_more_goes_by_itself(monkeypatch):
    begin(attempt(key="old"))
    IdempotencyRecord.objects.update(started_at=timezone.now() - idempotency.KEPT - timedelta(seconds=1))
    monkeypatch.setattr(idempotency, "_tidy_at_s", float("-inf"))

    begin(attempt(key="new"))

    assert set(IdempotencyRecord.objects.values_list("key", flat=True)) == {attempt(key="new").kept_key}


@pytest.mark.django_db
def test_an_answer_that_postgresql_could_not_take_is_kept_by_whoever_asks_next(monkeypatch):
    """The work is done: the client gets its answer, and the key does not look as if it still ran."""
    started = begin(attempt())
    write = idempotency._write

    def away(outcome):
        raise OperationalError("the connection is closed")

    monkeypatch.setattr(idempotency, "_write", away)
    finish(started, HttpResponse(b"done", status=201))
    monkeypatch.setattr(idempotency, "_write", write)

    answer = begin(attempt())

    assert (answer.status_code, answer.content) == (201, b"done")
    assert not idempotency._unwritten


@pytest.mark.django_db
def test_a_failure_while_postgresql_was_away_leaves_the_key_free(monkeypatch):
    started = begin(attempt())
    write = idempotency._write

    def away(outcome):
        raise OperationalError("the connection is closed")

    monkeypatch.setattr(idempotency, "_write", away)
    finish(started, response(Problem("overloaded")))
    monkeypatch.setattr(idempotency, "_write", write)

    assert isinstance(begin(attempt()), Started)
