"""Who may call, in which version, by which syntax."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest

from gaia_site.keys import issue_session_token, principal_of
from tests.xapi.conftest import Store, statement

pytestmark = pytest.mark.django_db

ABSENT: dict[str, Any] = {"headers": {"Authorization": ""}}


def test_nobody_is_told_how_to_say_who_they_are(store: Store) -> None:
    answer = store("GET", "statements", **ABSENT)

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")


@pytest.mark.parametrize(
    "wrong", ["Basic !!", "Basic " + base64.b64encode(b"no colon").decode(), "Bearer x", "Digest x"]
)
def test_what_is_no_key_is_refused(store: Store, wrong: str) -> None:
    assert store("GET", "statements", headers={"Authorization": wrong}).status_code == 401


def test_a_key_is_taken_as_bearer_too(key: Callable[..., str]) -> None:
    secret = key()

    assert (
        Store(secret)("GET", "statements", headers={"Authorization": f"Bearer {secret}"}).status_code == 200
    )


def test_a_key_does_what_its_scopes_say(key: Callable[..., str]) -> None:
    writer, reader = Store(key("metrics:write")), Store(key("metrics:read"))

    assert writer("POST", "statements", statement()).status_code == 200
    assert writer("GET", "statements").status_code == 403
    assert reader("GET", "statements").status_code == 200
    assert reader("POST", "statements", statement()).status_code == 403
    assert (
        reader("DELETE", "activities/state", activityId="a:b", agent=statement()["actor"]).status_code == 403
    )
    assert Store(key("agent"))("GET", "statements").status_code == 403


def test_the_store_of_one_app_is_closed_to_another(store: Store, other: Store) -> None:
    (known,) = store.put(statement(object={"id": "https://a.example/x", "definition": {"name": {"en": "X"}}}))
    place = {"activityId": "a:b", "agent": statement()["actor"], "stateId": "s"}
    store("PUT", "activities/state", {"a": 1}, **place)

    assert other("GET", "statements", statementId=known).status_code == 404
    assert other.ids() == []
    assert other("GET", "activities/state", **place).status_code == 404
    assert "definition" not in other("GET", "activities", activityId="https://a.example/x").json()
    # The same id there is another statement.
    assert other("PUT", "statements", statement("ben"), statementId=known).status_code == 204


def test_keys_of_one_app_share_its_store(store: Store, key: Callable[..., str]) -> None:
    ids = store.put([statement()])

    assert Store(key()).ids() == ids


def test_a_session_token_opens_nothing_here(key: Callable[..., str]) -> None:
    token, _ = issue_session_token(principal_of(key()), student_id="ada", app_name="maths", ttl_s=60)

    assert Store(token)("POST", "statements", statement()).status_code == 403


def test_anybody_may_ask_what_is_spoken(store: Store) -> None:
    answer = store("GET", "about", headers={"Authorization": "", "X-Experience-API-Version": ""})

    assert answer.status_code == 200
    assert {"1.0.3", "2.0.0"} <= set(answer.json()["version"])


@pytest.mark.parametrize(
    ("asked", "status", "told"),
    [
        ("1.0", 200, "1.0.3"),
        ("1.0.1", 200, "1.0.3"),
        ("2.0", 200, "2.0.0"),
        ("2.0.1", 200, "2.0.0"),
        ("", 400, "1.0.3"),
        ("0.95", 400, "1.0.3"),
        ("3.0.0", 400, "1.0.3"),
    ],
)
def test_the_answer_is_in_the_version_that_was_asked_for(
    store: Store, asked: str, status: int, told: str
) -> None:
    answer = store("GET", "statements", headers={"X-Experience-API-Version": asked})

    assert answer.status_code == status
    assert answer.headers["X-Experience-API-Version"] == told


def test_who_names_no_version_is_refused_in_the_one_they_spoke_last(store: Store) -> None:
    store("GET", "statements", headers={"X-Experience-API-Version": "2.0.0"})

    answer = store("GET", "statements", headers={"X-Experience-API-Version": ""})

    assert answer.status_code == 400
    assert answer.headers["X-Experience-API-Version"] == "2.0.0"


def test_the_alternate_syntax_carries_all_in_a_form(key: Callable[..., str]) -> None:
    secret, statement_id = key(), str(uuid.uuid4())
    import json

    form = {
        "statementId": statement_id,
        "content": json.dumps(statement()),
        "X-Experience-API-Version": "1.0.3",
        "Authorization": "Basic " + base64.b64encode(f"x:{secret}".encode()).decode(),
    }
    answer = Store(secret)(
        "POST",
        "/xapi/statements?method=PUT",
        urlencode(form).encode(),
        content_type="application/x-www-form-urlencoded",
        headers={"Authorization": "", "X-Experience-API-Version": ""},
    )

    assert answer.status_code == 204
    assert Store(secret)("GET", "statements", statementId=statement_id).status_code == 200


def test_version_2_has_no_alternate_syntax(key: Callable[..., str]) -> None:
    store = Store(key(), "2.0.0")

    form = "application/x-www-form-urlencoded"
    assert store("POST", "/xapi/statements?method=GET", b"limit=1", content_type=form).status_code == 400


def test_a_method_that_is_not_there_is_refused_with_those_that_are(store: Store) -> None:
    answer = store("DELETE", "statements")

    assert answer.status_code == 405
    assert answer.headers["Allow"] == "PUT, POST, GET"


def test_too_many_parameters_are_refused(store: Store) -> None:
    assert store("GET", "/xapi/statements?" + "&".join(f"p{n}=1" for n in range(100))).status_code == 400


def test_a_page_may_call_with_a_key_that_lists_it(key: Callable[..., str]) -> None:
    store = Store(key(allowed_origins=["https://maths.example"]))
    asked = {"Origin": "https://maths.example", "Access-Control-Request-Method": "POST"}

    before = store("OPTIONS", "statements", headers={"Authorization": "", **asked})
    answer = store("POST", "statements", statement(), headers={"Origin": "https://maths.example"})
    stranger = store("POST", "statements", statement(), headers={"Origin": "https://evil.example"})

    assert "X-Experience-API-Version" in before.headers["Access-Control-Allow-Headers"]
    assert answer.headers["Access-Control-Allow-Origin"] == "https://maths.example"
    assert stranger.status_code == 403


def test_the_admin_lists_the_store_and_a_look_at_a_learner_is_recorded(
    store: Store, admin_client: Any
) -> None:
    from usability.models import Student, StudentAccess
    from usability.xapi.models import XapiStatement

    Student.objects.get_or_create(student_id="ada")
    store.put(statement(result={"response": "what she typed"}))
    row = XapiStatement.objects.get()

    listed = admin_client.get("/admin/usability/xapistatement/")
    shown = admin_client.get(f"/admin/usability/xapistatement/{row.pk}/change/")
    posted = admin_client.post(f"/admin/usability/xapistatement/{row.pk}/change/", {})

    assert b"what she typed" not in listed.content
    assert b"what she typed" in shown.content
    assert posted.status_code == 403
    assert StudentAccess.objects.filter(student_id="ada", action="view_xapi").exists()
    assert admin_client.get("/admin/usability/xapidocument/").status_code == 200
    assert admin_client.get("/admin/usability/xapiactivity/").status_code == 200
