"""Statements as clients send and ask for them."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.xapi.conftest import VERB, Store, statement
from usability.xapi.models import XapiStatement

pytestmark = pytest.mark.django_db


def new_id() -> str:
    return str(uuid.uuid4())


def ref(statement_id: str) -> dict[str, str]:
    return {"objectType": "StatementRef", "id": statement_id}


def voiding(statement_id: str) -> dict[str, Any]:
    return statement("teacher", "voided", object=ref(statement_id), result=None)


def test_what_was_put_is_read_with_what_the_store_adds(store: Store) -> None:
    statement_id = new_id()
    sent = statement(timestamp="2026-03-01T12:00:00+02:00")

    answer = store("PUT", "statements", sent, statementId=statement_id)
    found = store("GET", "statements", statementId=statement_id)

    assert answer.status_code == 204
    whole = found.json()
    assert whole["id"] == statement_id
    assert whole["timestamp"] == "2026-03-01T10:00:00.000Z"
    assert whole["version"] == "1.0.0"
    assert whole["authority"]["account"]["name"].startswith("key:")
    assert {name: whole[name] for name in ("actor", "verb", "object", "result")} == {
        name: sent[name] for name in ("actor", "verb", "object", "result")
    }
    assert found.headers["Last-Modified"]


def test_the_same_statement_again_is_acknowledged_and_another_is_a_conflict(store: Store) -> None:
    statement_id = new_id()
    sent = statement() | {"id": statement_id}
    store.put(sent)

    again = store("POST", "statements", sent)
    other = store(
        "POST", "statements", [statement("ben") | {"id": new_id()}, sent | {"result": {"success": True}}]
    )

    assert again.status_code == 200
    assert other.status_code == 409
    assert other.json()["errors"][0]["loc"] == ["body", 1, "id"]
    assert XapiStatement.objects.count() == 1


def test_another_timestamp_makes_another_statement_and_none_does_not(store: Store) -> None:
    sent = statement(timestamp="2026-03-01T12:00:00Z") | {"id": new_id()}
    store.put(sent)

    assert store("POST", "statements", sent | {"timestamp": "2026-03-01T13:00:00+01:00"}).status_code == 200
    assert store("POST", "statements", sent | {"timestamp": "2026-03-01T12:00:01Z"}).status_code == 409
    del sent["timestamp"]
    assert store("POST", "statements", sent).status_code == 200


def test_of_a_batch_all_are_stored_or_none_and_every_wrong_one_is_named(store: Store) -> None:
    batch = [statement(), statement(verb={"id": "no iri"}), statement(), statement(actor={"name": "x"})]

    answer = store("POST", "statements", batch)

    assert answer.status_code == 400
    assert [error["loc"] for error in answer.json()["errors"]] == [
        ["body", 1, "verb", "id"],
        ["body", 3, "actor"],
    ]
    assert answer.headers["X-Experience-API-Consistent-Through"]
    assert not XapiStatement.objects.exists()


def test_two_statements_of_one_batch_may_not_share_an_id(store: Store) -> None:
    twice = statement() | {"id": new_id()}

    assert store("POST", "statements", [twice, twice]).json()["errors"][0]["loc"] == ["body", 1, "id"]


def test_a_batch_is_bounded(store: Store) -> None:
    assert store("POST", "statements", [statement()] * 501).status_code == 400


def test_a_batch_of_500_is_stored_in_a_handful_of_queries(
    store: Store, django_assert_max_num_queries: Any
) -> None:
    with django_assert_max_num_queries(30):
        ids = store.put([statement(did="saw") for _ in range(500)])

    assert len(set(ids)) == 500


def test_the_order_of_a_batch_is_the_order_of_the_store(store: Store) -> None:
    ids = store.put([statement() for _ in range(20)])

    assert store.ids(ascending="true") == ids
    assert store.ids() == ids[::-1]


@pytest.mark.parametrize("ascending", ["true", "false"])
def test_pages_show_every_statement_once(store: Store, ascending: str) -> None:
    ids = store.put([statement() for _ in range(23)])
    seen: list[str] = []
    answer = store("GET", "statements", limit="5", ascending=ascending)
    while True:
        page = answer.json()
        seen += [one["id"] for one in page["statements"]]
        assert len(page["statements"]) <= 5
        if not page["more"]:
            break
        store.put(statement("late"))  # what comes meanwhile disturbs no page
        answer = store("GET", page["more"])

    wanted = ids if ascending == "true" else ids[::-1]
    assert [one for one in seen if one in ids] == wanted
    assert len(seen) == len(set(seen))


def test_a_page_ends_at_its_size(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from usability.xapi import query

    monkeypatch.setattr(query, "PAGE_BYTES", 5_000)
    store.put([statement(result={"response": "x" * 2_000}) for _ in range(5)])
    store.put(statement(result={"response": "x" * 9_000}))

    first = store("GET", "statements").json()

    assert len(first["statements"]) == 1  # a single one may be larger
    assert len(store("GET", first["more"]).json()["statements"]) == 2


FILTERS = {
    "agent": (
        {"agent": {"account": {"homePage": "https://school.example", "name": "ada"}}},
        {"ada", "group", "about"},
    ),
    "verb": ({"verb": VERB + "completed"}, {"done"}),
    "activity": ({"activity": "https://maths.example/items/9"}, {"nine"}),
    "registration": ({"registration": "ec531277-b57b-4c15-8d91-d292c5b2b8f7"}, {"registered"}),
    "related activities": (
        {"activity": "https://maths.example/items/9", "related_activities": "true"},
        {"nine", "beside", "inner"},
    ),
    "related agents": (
        {"agent": {"mbox": "mailto:t@school.example"}, "related_agents": "true"},
        {"taught", "inner"},
    ),
    "both": ({"verb": VERB + "answered", "activity": "https://maths.example/items/9"}, {"nine"}),
}


def various() -> dict[str, dict[str, Any]]:
    teacher = {"mbox": "mailto:t@school.example"}
    ada = statement()["actor"]
    nine = {"id": "https://maths.example/items/9"}
    group = {"objectType": "Group", "member": [ada, teacher]}
    inner = {"objectType": "SubStatement"} | statement("ben", object=nine, context={"instructor": teacher})
    return {
        "ada": statement(),
        "group": statement(actor=group | {"member": [ada]}),
        "about": statement("ben", "met", object=ada | {"objectType": "Agent"}, result=None),
        "done": statement("ben", "completed"),
        "nine": statement("ben", object=nine),
        "registered": statement("ben", context={"registration": "EC531277-b57b-4c15-8d91-d292c5b2b8f7"}),
        "beside": statement("ben", context={"contextActivities": {"grouping": nine}}),
        "taught": statement("ben", context={"instructor": teacher}),
        "inner": statement("ben", "planned", object=inner, result=None),
    }


@pytest.mark.parametrize("named", FILTERS)
def test_a_filter_finds_what_it_names_and_nothing_else(store: Store, named: str) -> None:
    filters, expected = FILTERS[named]
    told = various()
    names = dict(zip(store.put(list(told.values())), told, strict=True))

    assert {names[found] for found in store.ids(**filters)} == expected


def test_since_leaves_its_moment_out_and_until_keeps_it(store: Store) -> None:
    ids = store.put([statement() for _ in range(3)])
    stored = store("GET", "statements", statementId=ids[1]).json()["stored"]

    assert store.ids(since=stored) == [ids[2]]
    assert store.ids(until=stored) == [ids[1], ids[0]]


def test_a_voided_statement_is_told_only_to_who_asks_for_it(store: Store) -> None:
    (wrong,) = store.put([statement()])
    (void,) = store.put([voiding(wrong)])

    assert store("GET", "statements", statementId=wrong).status_code == 404
    assert store("GET", "statements", voidedStatementId=wrong).json()["id"] == wrong
    assert store("GET", "statements", voidedStatementId=void).status_code == 404
    assert store.ids() == [void]
    assert store.ids(agent=statement()["actor"]) == [void]  # what points to it is found by it


def test_it_is_voided_as_well_when_the_voiding_statement_came_first(store: Store) -> None:
    later = new_id()
    store.put(voiding(later))
    store.put(statement() | {"id": later})

    assert store("GET", "statements", statementId=later).status_code == 404


def test_a_voiding_statement_cannot_be_voided(store: Store) -> None:
    (wrong,) = store.put([statement()])
    (void,) = store.put([voiding(wrong)])
    store.put(voiding(void))

    assert store("GET", "statements", statementId=void).status_code == 200
    assert store("GET", "statements", statementId=wrong).status_code == 404


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_along_a_chain_of_pointers_all_are_found_by_the_end_of_it(
    store: Store, order: tuple[int, ...]
) -> None:
    ids = [new_id() for _ in range(3)]
    chain = [
        statement(did="scored") | {"id": ids[0]},
        statement("x", "liked", object=ref(ids[0]), result=None) | {"id": ids[1]},
        statement("y", "shared", object=ref(ids[1]), result=None) | {"id": ids[2]},
    ]
    for place in order:
        store.put(chain[place])

    assert set(store.ids(verb=VERB + "scored")) == set(ids)
    assert set(store.ids(verb=VERB + "liked")) == {ids[1], ids[2]}


def test_pointers_in_a_circle_end(store: Store) -> None:
    ids = [new_id(), new_id()]
    store.put([statement("x", f"v{n}", object=ref(ids[1 - n]), result=None) | {"id": ids[n]} for n in (0, 1)])

    assert set(store.ids(verb=VERB + "v0")) == set(ids)


def test_what_is_known_of_an_activity_is_gathered(store: Store) -> None:
    item = "https://maths.example/items/7"
    for definition in (
        {"name": {"en": "Seven"}, "type": "a:b"},
        {"name": {"de": "Sieben"}},
        {"name": {"en": "No 7"}},
    ):
        store.put(statement(object={"id": item, "definition": definition}))

    known = store("GET", "activities", activityId=item).json()
    canonical = store(
        "GET", "statements", limit="1", format="canonical", headers={"Accept-Language": "de"}
    ).json()

    assert known["definition"] == {"name": {"en": "No 7", "de": "Sieben"}, "type": "a:b"}
    assert canonical["statements"][0]["object"]["definition"]["name"] == {"de": "Sieben"}


def test_a_person_is_what_the_question_says_and_no_more(store: Store) -> None:
    store.put(statement(actor=statement()["actor"] | {"name": "Ada Lovelace"}))

    person = store("GET", "agents", agent=statement()["actor"]).json()

    assert person == {"objectType": "Person", "account": [statement()["actor"]["account"]]}


@pytest.mark.parametrize(
    "wrong",
    [
        {"foo": "bar"},
        {"StatementId": "fd41c918-b88b-4b20-a0a5-a4c32391aaa0"},
        {"limit": "-1"},
        {"format": "short"},
        {"ascending": "yes"},
        {"agent": "ada"},
        {"since": "yesterday"},
        {"cursor": "x"},
        {"statementId": "fd41c918-b88b-4b20-a0a5-a4c32391aaa0", "verb": "a:b"},
    ],
)
def test_a_question_that_cannot_be_understood_is_refused_by_its_parameter(
    store: Store, wrong: dict[str, str]
) -> None:
    answer = store("GET", "statements", **wrong)

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["loc"][0] == "query"


def test_head_is_get_without_a_body(store: Store) -> None:
    store.put(statement())

    answer = store("HEAD", "statements")

    assert answer.status_code == 200
    assert answer.content == b""
    assert int(answer.headers["Content-Length"]) > 100


def test_what_is_older_than_it_is_kept_goes(store: Store) -> None:
    import datetime as dt

    from usability.xapi.store import delete_older_than

    ids = store.put([statement(), statement()])
    now = dt.datetime.now(tz=dt.UTC)
    XapiStatement.objects.filter(statement_id=ids[0]).update(stored=now - dt.timedelta(days=400))

    assert delete_older_than(now - dt.timedelta(days=365)) == 1
    assert store.ids() == [ids[1]]


def test_a_learner_is_erased_by_the_pseudonym(store: Store) -> None:
    from usability.xapi.store import delete_student

    store.put([statement("ada"), statement("ben")])
    store(
        "PUT", "activities/state", {"at": 3}, activityId="a:b", agent=statement("ada")["actor"], stateId="s"
    )

    assert delete_student("ada") == 2
    assert len(store.ids()) == 1
