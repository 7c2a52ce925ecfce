"""Documents: states, and the profiles of activities and agents."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from django.db import connections

from tests.xapi.conftest import Store, statement
from usability.xapi.models import XapiDocument

pytestmark = pytest.mark.django_db

ADA = statement("ada")["actor"]
STATE = {"activityId": "https://maths.example/items/7", "agent": ADA, "stateId": "place"}
RESOURCES = {
    "activities/state": STATE,
    "activities/profile": {"activityId": "https://maths.example/items/7", "profileId": "place"},
    "agents/profile": {"agent": ADA, "profileId": "place"},
}
NEW = {"If-None-Match": "*"}


@pytest.mark.parametrize("resource", RESOURCES)
def test_a_document_lives(store: Store, resource: str) -> None:
    name = RESOURCES[resource]
    assert store("GET", resource, **name).status_code == 404

    assert (
        store("PUT", resource, b"\0any bytes", content_type="image/png", headers=NEW, **name).status_code
        == 204
    )
    found = store("GET", resource, **name)
    assert found.content == b"\0any bytes"
    assert found.headers["Content-Type"] == "image/png"
    assert found.headers["Last-Modified"]

    assert store("PUT", resource, {"x": 1}, headers={"If-Match": '"no"'}, **name).status_code == 412
    assert store("DELETE", resource, headers={"If-Match": found.headers["ETag"]}, **name).status_code == 204
    assert store("GET", resource, **name).status_code == 404


@pytest.mark.parametrize("resource", RESOURCES)
def test_objects_are_joined_one_level_deep(store: Store, resource: str) -> None:
    name = RESOURCES[resource]
    store("POST", resource, {"a": {"x": 1}, "b": 2}, **name)

    assert store("POST", resource, {"a": {"y": 1}, "c": 3}, **name).status_code == 204
    assert store("GET", resource, **name).json() == {"a": {"y": 1}, "b": 2, "c": 3}

    assert store("POST", resource, [1], **name).status_code == 400
    assert store("POST", resource, b"text", content_type="text/plain", **name).status_code == 400
    assert store("GET", resource, **name).json() == {"a": {"y": 1}, "b": 2, "c": 3}


def test_a_profile_is_never_replaced_blindly(store: Store) -> None:
    for resource in ("activities/profile", "agents/profile"):
        name = RESOURCES[resource]
        store("PUT", resource, {"a": 1}, headers=NEW, **name)

        answer = store("PUT", resource, {"a": 2}, **name)

        assert answer.status_code == 409
        assert "If-Match" in answer.json()["detail"]
        assert store("PUT", resource, {"a": 2}, headers=NEW, **name).status_code == 412


def test_a_state_may_be_replaced_blindly_in_1_0_3_and_not_in_2_0(key: Any) -> None:
    first, second = Store(key(), "1.0.3"), Store(key(), "2.0.0")
    assert first("PUT", "activities/state", {"a": 1}, **STATE).status_code == 204

    assert first("PUT", "activities/state", {"a": 2}, **STATE).status_code == 204
    assert second("PUT", "activities/state", {"a": 3}, **STATE).status_code == 409


def test_states_are_listed_and_deleted_together(store: Store) -> None:
    registration = "ec531277-b57b-4c15-8d91-d292c5b2b8f7"
    for name, more in (("a", {}), ("b", {"registration": registration})):
        store("PUT", "activities/state", {"x": 1}, **(STATE | {"stateId": name}), **more)
    of_learner = {one: STATE[one] for one in ("activityId", "agent")}

    assert sorted(store("GET", "activities/state", **of_learner).json()) == ["a", "b"]
    assert store("GET", "activities/state", registration=registration, **of_learner).json() == ["b"]
    assert store("GET", "activities/state", since="2999-01-01T00:00:00Z", **of_learner).json() == []
    assert store("DELETE", "activities/state", registration=registration, **of_learner).status_code == 204
    assert store("GET", "activities/state", **of_learner).json() == ["a"]


def test_what_is_said_to_be_json_is_json(store: Store) -> None:
    assert store("PUT", "activities/state", b"{", **STATE).status_code == 400
    assert store("PUT", "activities/state", [1, 2], **STATE).status_code == 204


def test_a_profile_is_not_deleted_without_its_name(store: Store) -> None:
    assert store("DELETE", "agents/profile", agent=ADA).status_code == 400


def test_a_document_of_one_agent_is_not_another_s(store: Store) -> None:
    store("PUT", "activities/state", {"x": 1}, **STATE)

    assert (
        store("GET", "activities/state", **(STATE | {"agent": statement("ben")["actor"]})).status_code == 404
    )


def test_a_document_cannot_act_as_a_page_of_ours(store: Store) -> None:
    store("PUT", "activities/state", b"<script>alert(1)</script>", content_type="text/html", **STATE)

    answer = store("GET", "activities/state", **STATE)

    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer.headers["Content-Security-Policy"]


@pytest.mark.django_db(transaction=True)
def test_of_many_who_make_or_join_at_once_none_is_lost(store: Store) -> None:
    statuses: list[int] = []

    def send(number: int) -> None:
        made = store("PUT", "agents/profile", {"n": number}, headers=NEW, agent=ADA, profileId="one")
        joined = store("POST", "agents/profile", {f"n{number}": 1}, agent=ADA, profileId="all")
        statuses.extend([made.status_code, joined.status_code])
        connections.close_all()

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert sorted(statuses) == [204] * 9 + [412] * 7
    kept = json.loads(bytes(XapiDocument.objects.get(document_id="all").content))
    assert kept == {f"n{number}": 1 for number in range(8)}
