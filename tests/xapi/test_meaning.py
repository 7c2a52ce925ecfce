"""What statements and Caliper events mean for detection: the same metrics, the same alerts, and nothing typed."""

from __future__ import annotations

import datetime as dt
import json
import logging
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client

from tests.xapi.conftest import VERB, Store, statement
from usability.ingest.adapters import caliper, xapi
from usability.ingest.adapters.xapi import LeftOut
from usability.models import (
    AppHealthCount,
    Classroom,
    ClassroomTeacher,
    Enrollment,
    HelpRequest,
    SatisfactionRating,
    School,
    Student,
    TeacherDashboardAlert,
    UsabilityMetric,
)

NOW = dt.datetime.now(tz=dt.UTC)
SECRET = "xylophone quandary mother"


# ---------------------------------------------------------------- statements, one by one


@pytest.mark.parametrize(
    ("did", "changed", "expected"),
    [
        ("answered", {}, ("answer", 0.0)),
        ("attempted", {"result": {"success": True}}, ("answer", 1.0)),
        ("completed", {"result": None}, ("completion", 1.0)),
        ("requested-hint", {"result": None}, ("hint", 1.0)),
        ("asked_for_help", {"result": None}, ("help_request", 1.0)),
        ("initialized", {"result": None}, ("focus", 1.0)),
        ("experienced", {"result": None}, ("navigation", 1.0)),
    ],
)
def test_a_statement_is_a_metric(did: str, changed: dict[str, Any], expected: tuple[str, float]) -> None:
    made = xapi.metric_of(statement(did=did, **changed), app_name="maths")

    assert isinstance(made, dict)
    assert (made["metric_type"], made["metric_value"]) == expected
    assert (made["student_id"], made["app_name"]) == ("ada", "maths")


@pytest.mark.parametrize(
    ("reason", "changed"),
    [
        ("unknown_verb", {"verb": {"id": VERB + "laughed"}}),
        ("no_success", {"result": {"score": {"scaled": 1}}}),
        ("no_pseudonym", {"actor": {"mbox": "mailto:ada@school.example"}}),
        ("no_pseudonym", {"actor": {"account": {"homePage": "https://s.example", "name": "Ada Lovelace"}}}),
        ("no_pseudonym", {"actor": {"objectType": "Group", "member": [statement()["actor"]]}}),
        ("no_activity", {"object": {"objectType": "Agent", "mbox": "mailto:a@b.c"}}),
    ],
)
def test_a_statement_that_is_none_has_a_reason(reason: str, changed: dict[str, Any]) -> None:
    made = xapi.metric_of(statement(**changed), app_name="maths")

    assert isinstance(made, LeftOut)
    assert made.reason == reason


def test_place_and_pace_come_along() -> None:
    around = {
        "parent": [{"id": "https://maths.example/sets/3"}],
        "grouping": [
            {"id": "https://maths.example/skills/halves", "definition": {"type": "https://x.example/skill"}}
        ],
    }
    registration = "ec531277-b57b-4c15-8d91-d292c5b2b8f7"
    made = xapi.metric_of(
        statement(
            result={"success": True, "duration": "PT1M2.5S"},
            context={"registration": registration, "contextActivities": around},
        ),
        app_name="",
    )

    assert isinstance(made, dict)
    assert made["app_name"] == "maths.example"
    assert made["session_id"] == registration
    assert made["metadata"] == {
        "item": "maths.example/items/7",
        "skill": "maths.example/skills/halves",
        "correct": True,
        "duration_ms": 62_500,
    }


def test_an_item_whose_name_could_be_a_text_is_known_by_a_digest() -> None:
    made = xapi.metric_of(
        statement(object={"id": f"https://a.example/?q={SECRET.replace(' ', '%20')}"}), app_name="m"
    )

    assert isinstance(made, dict)
    assert made["metadata"]["item"].startswith("iri:")
    assert "xylophone" not in json.dumps(made)


# ---------------------------------------------------------------- stored


@pytest.mark.django_db
def test_a_statement_is_counted_once_however_often_it_is_sent(store: Store) -> None:
    sent = statement() | {"id": str(uuid.uuid4())}

    first = store(
        "POST", "statements", [sent, statement(did="laughed"), statement(actor={"mbox": "mailto:a@b.c"})]
    )
    again = store("POST", "statements", [sent])

    assert first.headers["X-Gaia-Metrics"] == "stored=1, no_pseudonym=1, unknown_verb=1"
    assert again.headers["X-Gaia-Metrics"] == "stored=0"
    assert UsabilityMetric.objects.count() == 1
    assert AppHealthCount.objects.get(app_name="maths", label="no_pseudonym").count == 1


@pytest.mark.django_db
def test_a_refused_request_leaves_no_metric(store: Store) -> None:
    statement_id = str(uuid.uuid4())
    store.put(statement() | {"id": statement_id})

    store("POST", "statements", [statement("ben"), statement("cleo") | {"id": statement_id}])

    assert set(UsabilityMetric.objects.values_list("student_id", flat=True)) == {"ada"}


@pytest.mark.django_db
def test_an_old_statement_is_kept_and_makes_no_metric(store: Store) -> None:
    answer = store("POST", "statements", statement(timestamp="2020-01-01T00:00:00Z"))

    assert answer.headers["X-Gaia-Metrics"] == "stored=0, too_old=1"
    assert len(store.ids()) == 1
    assert not UsabilityMetric.objects.exists()


@pytest.mark.django_db
def test_without_the_store_statements_become_metrics_and_nothing_of_them_is_kept(
    key: Callable[..., str], settings: Any
) -> None:
    import dataclasses

    from usability.xapi.models import XapiStatement

    settings.GAIA = dataclasses.replace(settings.GAIA, xapi_lrs_enabled=False)
    sent = statement() | {"id": str(uuid.uuid4())}
    for _ in range(2):
        answer = posted("xapi/statements", [sent], key())
        assert answer.status_code == 200

    assert UsabilityMetric.objects.count() == 1
    assert not XapiStatement.objects.exists()


def posted(path: str, body: Any, secret: str, **headers: str) -> Any:
    return Client().post(
        f"/api/v1/usability/{path}",
        json.dumps(body),
        content_type="application/json",
        headers={"Authorization": f"Bearer {secret}", **headers},
    )


@pytest.mark.django_db
def test_the_address_in_the_api_takes_the_same_statements(key: Callable[..., str]) -> None:
    secret = key()

    answer = posted("xapi/statements", statement(), secret)
    wrong = posted("xapi/statements", [statement(), {}], secret)

    assert answer.status_code == 200
    assert answer.headers["X-Experience-API-Version"] == "2.0.0"
    assert Store(secret).ids() == answer.json()
    assert wrong.json()["errors"][0]["loc"] == ["body", 1, "actor"]


@pytest.mark.django_db(transaction=True)
def test_what_a_learner_typed_is_in_no_metric_and_no_log(
    store: Store, key: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    typed = {"en": SECRET}
    sent = statement(
        actor=statement()["actor"] | {"name": SECRET},
        verb={"id": VERB + "answered", "display": typed},
        object={"id": "https://maths.example/items/7", "definition": {"name": typed, "description": typed}},
        result={"success": False, "response": SECRET, "extensions": {"https://x.example/note": SECRET}},
        context={"platform": SECRET, "revision": SECRET, "extensions": {"https://x.example/note": SECRET}},
    )
    store.put(sent)
    assert store("POST", "statements", sent | {"timestamp": SECRET}).status_code == 400
    posted(
        "caliper", envelope(graded(object=attempt() | {"name": SECRET, "extensions": {"x": SECRET}})), key()
    )
    posted("caliper", envelope(graded(eventTime=SECRET), {"type": SECRET}), key())

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
            " AND table_type = 'BASE TABLE' AND table_name NOT LIKE 'xapi\\_%'"
        )
        tables = [row[0] for row in cursor.fetchall()]
        holding = []
        for table in tables:
            cursor.execute(f'SELECT count(*) FROM "{table}" t WHERE t::text LIKE %s', [f"%{SECRET}%"])
            holding += [table] * cursor.fetchone()[0]
    assert UsabilityMetric.objects.count() == 2
    assert holding == []
    assert SECRET not in caplog.text


# ---------------------------------------------------------------- to an alert


@pytest.fixture
def room(db: None) -> Classroom:
    school = School.objects.create(name="North")
    room = Classroom.objects.create(school=school, name="5a", app_names=["maths"])
    ClassroomTeacher.objects.create(classroom=room, user=get_user_model().objects.create_user("rosa"))
    Student.objects.create(student_id="ada", school=school)
    Enrollment.objects.create(classroom=room, student_id="ada")
    return room


def detected(room: Classroom) -> list[str]:
    """The kinds of alerts that a worker raises of what is stored, 40 s from now."""
    from usability.worker import Worker

    class Clock:
        now = dt.datetime.now(tz=dt.UTC)

        def __call__(self) -> dt.datetime:
            return self.now

        def monotonic_s(self) -> float:
            return self.now.timestamp()

    clock = Clock()
    worker = Worker("w1", redis_url=None, clock=clock, monotonic_s=clock.monotonic_s, block_ms=1)
    for _ in range(60):
        worker.step()
        clock.now += dt.timedelta(seconds=1)
    return list(TeacherDashboardAlert.objects.filter(classroom=room).values_list("alert_type", flat=True))


@pytest.mark.django_db
def test_wrong_answers_in_statements_alert_the_teacher(room: Classroom, store: Store) -> None:
    now = dt.datetime.now(tz=dt.UTC)
    moments = [(now - dt.timedelta(seconds=8 * place)).isoformat() for place in range(7, 0, -1)]
    store.put([statement(timestamp=moment) for moment in moments])

    assert "accuracy" in detected(room)


@pytest.mark.django_db
def test_right_answers_in_statements_alert_nobody(room: Classroom, store: Store) -> None:
    now = dt.datetime.now(tz=dt.UTC)
    moments = [(now - dt.timedelta(seconds=8 * place)).isoformat() for place in range(7, 0, -1)]
    store.put([statement(timestamp=moment, result={"success": True}) for moment in moments])

    assert "accuracy" not in detected(room)


@pytest.mark.django_db
def test_wrong_answers_in_caliper_events_alert_the_teacher(room: Classroom, key: Callable[..., str]) -> None:
    now = dt.datetime.now(tz=dt.UTC)
    events = [
        graded(id=f"urn:uuid:{uuid.uuid4()}", eventTime=(now - dt.timedelta(seconds=8 * place)).isoformat())
        for place in range(7, 0, -1)
    ]

    assert posted("caliper", envelope(*events), key()).json()["accepted"] == 7
    assert "accuracy" in detected(room)


@pytest.mark.django_db
def test_who_asks_for_help_by_a_statement_is_seen(room: Classroom, store: Store) -> None:
    store.put(statement(did="requested-help", result=None))

    assert HelpRequest.objects.filter(student_id="ada", classroom=room).exists()
    assert detected(room)


# ---------------------------------------------------------------- Caliper


def attempt(**fields: Any) -> dict[str, Any]:
    return {
        "id": "https://maths.example/attempts/1",
        "type": "Attempt",
        "assignee": {"id": "https://maths.example/users/ada", "type": "Person"},
        "assignable": {"id": "https://maths.example/items/7", "type": "AssessmentItem"},
        "count": 2,
    } | fields


def graded(**fields: Any) -> dict[str, Any]:
    return {
        "id": f"urn:uuid:{uuid.uuid4()}",
        "type": "GradeEvent",
        "actor": {"id": "https://maths.example/grader", "type": "SoftwareApplication"},
        "action": "Graded",
        "object": attempt(),
        "generated": {"type": "Score", "maxScore": 2, "scoreGiven": 1},
        "eventTime": dt.datetime.now(tz=dt.UTC).isoformat(),
        "session": "https://maths.example/sessions/s-1",
    } | fields


def envelope(*events: Any, **fields: Any) -> dict[str, Any]:
    return {
        "sensor": "https://maths.example/sensor",
        "sendTime": dt.datetime.now(tz=dt.UTC).isoformat(),
        "dataVersion": "http://purl.imsglobal.org/ctx/caliper/v1p2",
        "data": list(events),
    } | fields


def simple(kind: str, action: str) -> dict[str, Any]:
    return {
        "type": kind,
        "action": action,
        "actor": "https://maths.example/users/ada",
        "object": "https://maths.example/pages/1",
        "eventTime": "2026-03-01T12:00:00.000Z",
    }


@pytest.mark.parametrize(
    ("kind", "action"), [pair for pair in caliper._MAKERS if pair[0] not in ("GradeEvent", "FeedbackEvent")]
)
def test_an_event_is_a_metric_of_its_actor(kind: str, action: str) -> None:
    made = caliper.meaning_of(simple(kind, action), app_name="maths")

    assert isinstance(made, dict)
    assert made["student_id"] == "ada"
    assert made["metadata"] == {"item": "maths.example/pages/1"}


def test_a_grade_is_an_answer_of_who_attempted() -> None:
    wrong = caliper.meaning_of(graded(), app_name="maths")
    right = caliper.meaning_of(graded(generated={"maxScore": 2, "scoreGiven": 2}), app_name="")

    assert isinstance(wrong, dict)
    assert isinstance(right, dict)
    assert (wrong["student_id"], wrong["metric_value"], wrong["session_id"]) == ("ada", 0.0, "s-1")
    assert wrong["metadata"] == {"item": "maths.example/items/7", "correct": False, "attempt": 2}
    assert (right["metric_value"], right["app_name"]) == (1.0, "caliper")


@pytest.mark.parametrize(
    ("reason", "event"),
    [
        ("wrong_type", 7),
        ("no_event", {"type": "Person", "id": "x"}),
        ("unknown_event", simple("ThreadEvent", "MarkedAsRead")),
        ("bad_time", simple("ViewEvent", "Viewed") | {"eventTime": "yesterday"}),
        ("no_pseudonym", simple("ViewEvent", "Viewed") | {"actor": "https://x.example/users/Ada%20L"}),
        ("no_score", graded(generated={})),
        ("no_item", graded(object=attempt(assignable={"id": "a:b", "type": "Assessment"}))),
        ("no_scale", simple("FeedbackEvent", "Ranked")),
    ],
)
def test_an_event_that_is_kept_out_has_a_reason(reason: str, event: Any) -> None:
    made = caliper.meaning_of(event, app_name="maths")

    assert isinstance(made, LeftOut)
    assert made.reason == reason


@pytest.mark.django_db
def test_an_envelope_is_taken_once_and_says_what_was_kept_out(key: Callable[..., str]) -> None:
    sent = envelope(graded(), {"type": "Person"}, graded(eventTime="2020-01-01T00:00:00Z"))
    secret = key()

    first, again = (
        posted("caliper", sent | {"sendTime": dt.datetime.now(tz=dt.UTC).isoformat()}, secret) for _ in "ab"
    )

    assert first.status_code == 202
    assert first.json()["accepted"] == 1
    assert [entry["loc"] for entry in first.json()["rejected"]] == [["body", "data", 1], ["body", "data", 2]]
    assert again.json()["duplicate"]
    assert UsabilityMetric.objects.count() == 1


@pytest.mark.django_db
def test_the_clock_of_a_sensor_is_corrected(key: Callable[..., str]) -> None:
    slow = dt.datetime.now(tz=dt.UTC) - dt.timedelta(days=30)

    answer = posted("caliper", envelope(graded(eventTime=slow.isoformat()), sendTime=slow.isoformat()), key())

    assert answer.json()["accepted"] == 1
    assert abs(UsabilityMetric.objects.get().timestamp - dt.datetime.now(tz=dt.UTC)) < dt.timedelta(
        seconds=30
    )


@pytest.mark.django_db
def test_a_ranking_is_a_rating_from_1_to_5(key: Callable[..., str]) -> None:
    scale = {"type": "LikertScale", "itemValues": ["1", "2", "3"]}
    ranked = simple("FeedbackEvent", "Ranked") | {
        "session": "https://maths.example/sessions/s-9",
        "generated": {"type": "Rating", "question": {"scale": scale}, "selections": ["3"]},
        "eventTime": dt.datetime.now(tz=dt.UTC).isoformat(),
    }

    assert posted("caliper", envelope(ranked), key()).json()["accepted"] == 1
    assert SatisfactionRating.objects.get().rating == 5


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("loc", "body"),
    [
        (["body"], []),
        (["body", "sendTime"], {"sensor": "x", "dataVersion": "x", "data": []}),
        (["body", "dataVersion"], envelope(dataVersion="http://purl.imsglobal.org/ctx/caliper/v9")),
        (["body", "sendTime"], envelope(sendTime="noon")),
        (["body", "data"], envelope(data={})),
    ],
)
def test_what_is_no_envelope_is_refused_by_its_place(
    key: Callable[..., str], loc: list[Any], body: Any
) -> None:
    answer = posted("caliper", body, key())

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["loc"] == loc
