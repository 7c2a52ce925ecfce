"""The rules of a statement's data: what is refused is named by its place, and the value is never repeated."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.xapi.conftest import VERB, statement
from usability.xapi import sameness, shapes, values
from usability.xapi.references import keys_of
from usability.xapi.statement import statement as judged
from usability.xapi.values import Wrong
from usability.xapi.versions import Version

ACCOUNT = {"homePage": "https://school.example", "name": "ada"}
ITEM = {"id": "https://maths.example/items/7"}


def refusal(value: Any, version: Version = Version.V1) -> tuple[Any, ...]:
    with pytest.raises(Wrong) as caught:
        judged(value, ("body",), version)
    return caught.value.loc


@pytest.mark.parametrize(
    ("place", "changed"),
    [
        (("actor",), {"actor": None}),
        (("actor",), {"actor": {"name": "Ada"}}),
        (("actor",), {"actor": {"mbox": "mailto:a@b.c", "openid": "https://a.example"}}),
        (("actor", "mbox"), {"actor": {"mbox": "a@b.c"}}),
        (("actor", "member"), {"actor": {"objectType": "Group"}}),
        (("actor", "account", "extra"), {"actor": {"account": ACCOUNT | {"extra": 1}}}),
        (("verb", "id"), {"verb": {"id": "answered"}}),
        (("verb", "display", "not_a_tag"), {"verb": {"id": VERB + "x", "display": {"not_a_tag": "x"}}}),
        (("object", "objectType"), {"object": ITEM | {"objectType": "activity"}}),
        (("object", "definition", "choices"), {"object": ITEM | {"definition": {"choices": []}}}),
        (("result", "score", "scaled"), {"result": {"score": {"scaled": 1.01}}}),
        (("result", "score", "raw"), {"result": {"score": {"raw": 11, "min": 0, "max": 10}}}),
        (("result", "success"), {"result": {"success": "yes"}}),
        (("result", "duration"), {"result": {"duration": "4 minutes"}}),
        (("context", "registration"), {"context": {"registration": "seven"}}),
        (("context", "extensions", "no iri"), {"context": {"extensions": {"no iri": 1}}}),
        (("context", "contextAgents"), {"context": {"contextAgents": []}}),
        (("timestamp",), {"timestamp": "2026-01-31T12:00:00-00:00"}),
        (("id",), {"id": "not-a-uuid"}),
        (("Result",), {"Result": {}}),
        (("object", "objectType"), {"verb": {"id": VERB + "voided"}}),
    ],
)
def test_what_breaks_a_rule_is_named_by_its_place(place: tuple[Any, ...], changed: dict[str, Any]) -> None:
    assert refusal(statement(**changed)) == ("body", *place)


def test_null_is_refused_everywhere_but_in_extensions() -> None:
    fine = statement(context={"extensions": {"https://x.example/y": None}})

    assert judged(fine, ("body",), Version.V1) == fine
    assert refusal(statement() | {"context": None}) == ("body", "context")


def test_context_agents_belong_to_version_2() -> None:
    agents = [{"objectType": "contextAgent", "agent": {"account": ACCOUNT}}]

    assert judged(statement(context={"contextAgents": agents}), ("body",), Version.V2)


def test_a_substatement_holds_no_other_and_no_id() -> None:
    inner = statement() | {"objectType": "SubStatement"}

    assert judged(statement(object=inner), ("body",), Version.V1)
    assert refusal(statement(object=inner | {"id": "x"})) == ("body", "object", "id")
    assert refusal(statement(object=inner | {"object": inner})) == ("body", "object", "object", "objectType")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
PARTS = [
    "actor",
    "verb",
    "object",
    "result",
    "context",
    "timestamp",
    "attachments",
    "authority",
    "version",
    "id",
]


@given(st.sampled_from(PARTS), JSON)
def test_no_value_in_any_part_does_more_than_be_refused(part: str, value: Any) -> None:
    try:
        found = judged(statement() | {part: value}, ("body",), Version.V2)
    except Wrong:
        return
    assert keys_of(found)
    assert len(sameness.digest(found)) == 32


DEEP = statement(
    context={
        "contextActivities": {"parent": ITEM, "grouping": [{"id": "a:b"}, {"id": "a:c"}]},
        "team": {"objectType": "Group", "member": [{"mbox": "mailto:a@b.c"}, {"mbox": "mailto:d@e.f"}]},
    },
    result={"duration": "PT1.234S", "success": True},
)


@pytest.mark.parametrize(
    "changed",
    [
        {"stored": "2026-01-01T00:00:00Z", "version": "1.0.0", "id": "fd41c918-b88b-4b20-a0a5-a4c32391aaa0"},
        {"verb": {"id": VERB + "answered", "display": {"en": "answered"}}},
        {"object": ITEM | {"objectType": "Activity", "definition": {"name": {"en": "Seven"}}}},
        {"result": {"duration": "PT1.239S", "success": True}},
        {
            "context": {
                "contextActivities": {"grouping": [{"id": "a:c"}, {"id": "a:b"}], "parent": [ITEM]},
                "team": {
                    "objectType": "Group",
                    "member": [{"mbox": "mailto:d@e.f"}, {"mbox": "mailto:a@b.c"}],
                },
            }
        },
    ],
)
def test_what_may_change_leaves_a_statement_the_same(changed: dict[str, Any]) -> None:
    assert sameness.digest(DEEP | changed) == sameness.digest(DEEP)


@pytest.mark.parametrize("part", ["actor", "verb", "object", "result", "context"])
def test_what_is_said_makes_a_statement_another(part: str) -> None:
    others = {
        "actor": {"mbox": "mailto:x@y.z"},
        "verb": {"id": VERB + "attempted"},
        "object": {"id": "https://maths.example/items/8"},
        "result": {"duration": "PT1.25S", "success": True},
        "context": {},
    }

    assert sameness.digest(DEEP | {part: others[part]}) != sameness.digest(DEEP)


@given(st.datetimes(min_value=values.dt.datetime(1900, 1, 1), timezones=st.just(values.dt.UTC)))
def test_a_moment_is_read_as_it_was_written(at: Any) -> None:
    if at.year < 9999:
        assert values.moment(values.moment_text(at), ()) == at


@pytest.mark.parametrize("text", ["P3Y6M4DT12H30M5S", "PT0.5S", "P1W", "P0D", "PT36H", "P0.5Y"])
def test_durations_of_iso_8601_are_read(text: str) -> None:
    assert values.duration_s(text, ()) >= 0


@pytest.mark.parametrize("text", ["", "P", "PT", "P1S", "PT1H1Y", "1H", "P1WT1H", "P-1D"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(Wrong):
        values.duration_s(text, ())


def test_ids_only_names_and_no_more() -> None:
    whole = shapes.arranged(
        statement(
            actor={"account": ACCOUNT, "name": "Ada"},
            object=ITEM | {"objectType": "Activity", "definition": {"name": {"en": "Seven"}}},
            context={"contextActivities": {"parent": ITEM | {"definition": {"type": "a:b"}}}},
        )
    )

    small = shapes.ids_only(whole)

    assert "Seven" not in json.dumps(small)
    assert small["actor"] == {"account": ACCOUNT}
    assert small["context"] == {"contextActivities": {"parent": [ITEM]}}


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("de", "de"),
        ("de-AT, en;q=0.5", "de"),
        ("fr, en;q=0.1", "en-GB"),
        ("fr", "en-GB"),
        ("*", "en-GB"),
        ("", "en-GB"),
    ],
)
def test_one_language_is_chosen_as_the_reader_asks(asked: str, found: str) -> None:
    whole = statement(verb={"id": VERB + "answered", "display": {"en-GB": "answered", "de": "antwortete"}})

    told = shapes.canonical(whole, {}, shapes.languages_of(asked))

    assert list(told["verb"]["display"]) == [found]
