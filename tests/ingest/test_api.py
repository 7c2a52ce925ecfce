"""The usability calls that Django serves, from outside: who may ask, what comes back, what is left behind."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from gaia_site.keys import forget_keys, issue_key
from tests.ingest.senders import metric
from usability import services
from usability.models import (
    AppHealthCount,
    Classroom,
    ClassroomTeacher,
    Enrollment,
    HelpRequest,
    Intervention,
    SatisfactionRating,
    School,
    Student,
    StudentAccess,
    TeacherDashboardAlert,
    UsabilityMetric,
)
from usability.partitions import ensure_partitions

pytestmark = pytest.mark.django_db

NOW = dt.datetime.now(tz=dt.UTC)


class Caller:
    def __init__(self, secret: str | None) -> None:
        self._secret = secret

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        if self._secret:
            headers.setdefault("Authorization", f"Bearer {self._secret}")
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        content_type = headers.pop("Content_Type", "application/json")
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return Client().generic(method, f"/api/v1/usability/{path}", data, content_type, headers=named)


@dataclass
class World:
    """Rosa teaches Ada and Ben; Otto teaches Cleo. All use the app maths."""

    rosa: Caller
    otto: Caller
    app: Caller
    piano: Caller
    admin: Caller
    nobody: Caller
    room: Classroom
    other_room: Classroom


@pytest.fixture
def world(db: None) -> World:
    forget_keys()
    ensure_partitions(NOW.date())
    people = {name: get_user_model().objects.create_user(name) for name in ("rosa", "otto", "apps", "root")}
    school = School.objects.create(name="North")
    rooms = {}
    for teacher, room, students in (("rosa", "5a", ("ada", "ben")), ("otto", "5b", ("cleo",))):
        rooms[room] = Classroom.objects.create(school=school, name=room, app_names=["maths"])
        ClassroomTeacher.objects.create(classroom=rooms[room], user=people[teacher])
        for place, student_id in enumerate(students, 1):
            Student.objects.create(student_id=student_id, display_name=student_id.title() + " Secret")
            Enrollment.objects.create(classroom=rooms[room], student_id=student_id, seat=f"A{place}")

    def caller(owner: str, *scopes: str, **more: Any) -> Caller:
        return Caller(issue_key(name=f"{owner}'s", owner=people[owner], scopes=scopes, **more)[1])

    yield World(
        rosa=caller("rosa", "teacher"),
        otto=caller("otto", "teacher"),
        app=caller("apps", "metrics:write", "metrics:read", app_name="maths"),
        piano=caller("apps", "metrics:write", "metrics:read", app_name="piano"),
        admin=caller("root", "admin"),
        nobody=Caller(None),
        room=rooms["5a"],
        other_room=rooms["5b"],
    )
    forget_keys()


def recorded(student_id: str = "ada", **fields: Any) -> None:
    services.record_metrics([metric(student_id=student_id, **fields)])


def alerted(world: World, student_id: str = "ada") -> TeacherDashboardAlert:
    event = services.record_event(
        student_id=student_id,
        app_name="maths",
        event_type="accuracy",
        severity="high",
        details={"reason": "5 errors in a row"},
        detected_at=NOW,
        detector="error_streak",
        params_version="1",
    )
    return services.raise_alert(
        student_id=student_id,
        app_name="maths",
        alert_type="accuracy",
        severity="warning",
        details={"reason": "5 errors in a row"},
        event=event,
    )


# ---------------------------------------------------------------- who may ask

READS = (
    "students/ada/metrics",
    "students/ada/frustration",
    "students/ada/ratings",
    "students/ada/timeline",
    "classrooms/{room}/metrics",
    "classrooms/{room}/live",
    "classrooms/{room}/snapshots",
    "classrooms/{room}/struggling",
    "alerts/{alert}",
    "alerts/{alert}/interventions",
)
STEPS = (
    "alerts/{alert}/acknowledge",
    "alerts/{alert}/snooze",
    "alerts/{alert}/resolve",
    "alerts/{alert}/dismiss",
    "alerts/{alert}/on-my-way",
    "alerts/{alert}/interventions",
    "frustration-events/{event}/acknowledge",
    "frustration-events/{event}/resolve",
)


def filled(path: str, world: World, alert: TeacherDashboardAlert) -> str:
    return path.format(room=world.room.pk, alert=alert.pk, event=alert.event_id)


@pytest.mark.parametrize("path", READS)
def test_the_own_teacher_sees_it_another_does_not_find_it_and_nobody_is_asked_who_they_are(
    world: World, path: str
) -> None:
    path = filled(path, world, alerted(world))

    assert world.rosa("GET", path).status_code == 200
    assert world.admin("GET", path).status_code == 200
    refused = world.otto("GET", path)
    assert (refused.status_code, refused.json()["type"]) == (404, "not-found")
    assert world.nobody("GET", path).status_code == 401


@pytest.mark.parametrize("path", STEPS)
def test_only_the_own_teacher_can_act(world: World, path: str) -> None:
    path = filled(path, world, alerted(world))

    assert world.otto("POST", path, {}).status_code == 404
    assert world.app("POST", path, {}).status_code == 403
    assert world.nobody("POST", path, {}).status_code == 401
    assert world.rosa("POST", path, {}).status_code in (200, 201)


def test_lists_hold_the_callers_own_rows_alone(world: World) -> None:
    alerted(world, "ada")
    alerted(world, "cleo")

    for path in ("alerts", "frustration-events"):
        assert [row["student_id"] for row in world.rosa("GET", path).json()["results"]] == ["ada"]
        assert [row["student_id"] for row in world.otto("GET", path).json()["results"]] == ["cleo"]
        assert len(world.admin("GET", path).json()["results"]) == 2
    assert [room["name"] for room in world.rosa("GET", "classrooms").json()["results"]] == ["5a"]


def test_an_app_knows_pseudonyms_and_no_names(world: World) -> None:
    recorded()

    answer = world.app("GET", "students/ada/timeline")

    assert answer.status_code == 200
    assert b"Secret" not in answer.content
    assert b"Ada Secret" in world.rosa("GET", "students/ada/timeline").content


def test_an_app_reads_what_it_sent_and_not_what_others_sent(world: World) -> None:
    recorded()

    assert len(world.app("GET", "students/ada/metrics").json()["results"]) == 1
    assert world.piano("GET", "students/ada/metrics").status_code == 404


def test_every_look_at_one_learner_is_recorded(world: World) -> None:
    for view in ("metrics", "frustration", "ratings", "timeline"):
        world.rosa("GET", f"students/ada/{view}")
        world.otto("GET", f"students/ada/{view}")

    looks = list(StudentAccess.objects.order_by("id").values_list("user__username", "student_id", "action"))
    assert looks == [
        ("rosa", "ada", f"view_{view}") for view in ("metrics", "frustration", "ratings", "timeline")
    ]


def test_the_list_of_alerts_is_a_look_at_those_in_it(world: World) -> None:
    alerted(world)

    world.rosa("GET", "alerts")

    assert list(StudentAccess.objects.values_list("student_id", "action")) == [("ada", "list_alerts")]


# ---------------------------------------------------------------- what comes back


def test_the_four_views_of_a_learner_take_the_same_parameters(world: World) -> None:
    asked = "app_name=typing&metric_type=answer&bucket_s=3600"
    for view in ("metrics", "frustration", "ratings", "timeline"):
        assert world.rosa("GET", f"students/ada/{view}?{asked}").status_code == 200, view
        assert world.rosa("GET", f"students/ada/{view}?bucket_s=0").status_code == 400, view
        assert world.rosa("GET", f"students/ada/{view}?colour=red").status_code == 400, view


def test_an_unknown_student_is_not_found_rather_than_calm(world: World) -> None:
    for view in ("metrics", "frustration", "ratings", "timeline"):
        assert world.rosa("GET", f"students/nobody-of-that-name/{view}").status_code == 404


def test_metrics_of_a_student_come_oldest_first_and_by_pages(world: World) -> None:
    for age_s in (30, 20, 10):
        recorded(timestamp=(NOW - dt.timedelta(seconds=age_s)).isoformat(), metric_value=age_s)

    first = world.rosa("GET", "students/ada/metrics?limit=2").json()
    second = Client().get(first["next"], headers={"Authorization": f"Bearer {world.rosa._secret}"}).json()

    assert [row["metric_value"] for row in first["results"] + second["results"]] == [30, 20, 10]
    assert second["next"] is None


def test_metrics_can_be_counted_by_stretches_of_time(world: World) -> None:
    recorded(metric_type="keypress", metric_value=7)
    recorded(metric_type="backspace", metric_value=3)

    answer = world.rosa("GET", "students/ada/metrics?bucket_s=3600").json()

    assert sum(bucket["keypresses"] for bucket in answer["results"]) == 7
    assert sum(bucket["backspaces"] for bucket in answer["results"]) == 3


def test_a_timeline_can_be_of_one_app_and_one_type(world: World) -> None:
    for app_name in ("maths", "piano"):
        recorded(app_name=app_name, metric_type="keypress", metric_value=7)
        recorded(app_name=app_name, metric_type="error", metric_value=1)
    alerted(world)

    def counted(query: str) -> tuple[float, float, int]:
        page = world.rosa("GET", f"students/ada/timeline?bucket_s=60&{query}").json()
        (bucket,) = page["buckets"]
        return bucket["keypresses"], bucket["errors"], len(page["episodes"])

    assert counted("app_name=maths") == (7, 1, 1)
    assert counted("app_name=piano") == (7, 1, 0)
    assert counted("app_name=piano&metric_type=error") == (0, 1, 0)


@pytest.mark.parametrize(
    "query",
    [
        "since=yesterday",
        "since=2026-01-01T00:00:00",
        "since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z",
        "bucket_s=0",
        "bucket_s=x",
        "colour=red",
        "limit=501",
        "since=1970-01-02T00:00:00Z",
    ],
)
def test_a_wrong_or_unknown_parameter_is_named(world: World, query: str) -> None:
    answer = world.rosa("GET", f"students/ada/metrics?{query}")

    assert (answer.status_code, answer.json()["type"]) == (400, "validation-error")
    assert answer.json()["errors"][0]["loc"][0] == "query"


def test_silence_does_not_look_like_calm(world: World) -> None:
    assert world.rosa("GET", "students/ada/frustration").json()["last_metric_at"] is None

    recorded()

    assert world.rosa("GET", "students/ada/frustration").json()["last_metric_at"] is not None


def test_events_are_filtered(world: World) -> None:
    alert = alerted(world)

    def found(query: str) -> int:
        return len(world.rosa("GET", f"frustration-events?{query}").json()["results"])

    assert (found("severity=high"), found("severity=low"), found("unresolved=true")) == (1, 0, 1)
    assert (found("student_id=ada"), found("student_id=ben"), found("app_name=piano")) == (1, 0, 0)
    world.rosa("POST", f"frustration-events/{alert.event_id}/resolve")
    assert (found("unresolved=true"), found("unresolved=false")) == (0, 1)
    assert (found("unresolved=1"), found("unresolved=0")) == (0, 1)


def test_the_first_acknowledgement_stays(world: World) -> None:
    alert = alerted(world)

    first = world.rosa("POST", f"frustration-events/{alert.event_id}/acknowledge").json()["acknowledged_at"]
    second = world.rosa("POST", f"frustration-events/{alert.event_id}/acknowledge").json()["acknowledged_at"]

    assert first == second is not None


def test_a_teacher_takes_an_alert_through_its_states(world: World) -> None:
    path = f"alerts/{alerted(world).pk}"

    assert world.rosa("POST", f"{path}/acknowledge", {"note": "I see"}).json()["state"] == "acknowledged"
    assert world.rosa("POST", f"{path}/on-my-way").json()["state"] == "helping"
    assert world.rosa("POST", f"{path}/snooze", {"minutes": 5}).json()["snoozed_until"] is not None
    assert world.rosa("POST", f"{path}/resolve").json()["state"] == "resolved"
    assert world.rosa("POST", f"{path}/snooze").status_code == 409


def test_an_intervention_is_stored_and_shown(world: World) -> None:
    path = f"alerts/{alerted(world).pk}/interventions"

    made = world.rosa("POST", path, {"intervention_note": "we drew it", "kind": "explained"})

    assert made.status_code == 201
    assert (made.json()["kind"], made.json()["intervention_note"], made.json()["effect"]) == (
        "explained",
        "we drew it",
        None,
    )
    assert Intervention.objects.get().teacher.username == "rosa"
    assert [row["id"] for row in world.rosa("GET", path).json()["results"]] == [made.json()["id"]]


@pytest.mark.parametrize(
    "body", [[], 0, "text", {"kind": 3}, {"kind": "two words"}, {"intervention_note": 3}]
)
def test_an_intervention_of_another_shape_is_refused(world: World, body: Any) -> None:
    answer = world.rosa("POST", f"alerts/{alerted(world).pk}/interventions", body)

    assert (answer.status_code, answer.json()["type"]) == (400, "validation-error")
    assert not Intervention.objects.exists()


def test_the_same_key_records_one_intervention(world: World) -> None:
    path = f"alerts/{alerted(world).pk}/interventions"
    body = {"intervention_note": "we drew it", "kind": "explained"}

    first = world.rosa("POST", path, body, Idempotency_Key="tap-1")
    second = world.rosa("POST", path, body, Idempotency_Key="tap-1")

    assert first.content == second.content
    assert second.headers["Idempotent-Replayed"] == "true"
    assert Intervention.objects.count() == 1


def test_struggling_pupils_are_those_of_the_class_with_an_open_signal(world: World) -> None:
    alerted(world, "ada")
    alerted(world, "cleo")

    (one,) = world.rosa("GET", f"classrooms/{world.room.pk}/struggling").json()["results"]

    assert (one["pupil"]["student_id"], one["pupil"]["seat"]) == ("ada", "A1")
    assert world.rosa("GET", f"classrooms/{world.room.pk}/struggling?app_name=piano").json()["results"] == []


def test_numbers_of_a_class_count_its_pupils_alone(world: World) -> None:
    recorded("ada", metric_type="answer", metric_value=0)
    recorded("cleo", metric_type="answer", metric_value=0)

    found = world.rosa("GET", f"classrooms/{world.room.pk}/metrics").json()

    assert (found["total_students"], found["active_students"]) == (2, 1)


# ---------------------------------------------------------------- ratings, tokens, help, health


def rating(**fields: Any) -> dict[str, Any]:
    return {"student_id": "ada", "app_name": "maths", "session_id": "sitting-1", "rating": 4} | fields


def test_a_second_rating_of_a_sitting_replaces_the_first(world: World) -> None:
    assert world.app("POST", "ratings", rating()).status_code == 201
    assert world.app("POST", "ratings", rating(rating=2, feedback_text="hard")).status_code == 201

    assert list(SatisfactionRating.objects.values_list("rating", "feedback_text")) == [(2, "hard")]


@pytest.mark.parametrize(
    "wrong",
    [
        {"rating": 0},
        {"rating": 6},
        {"rating": 3.5},
        {"rating": "4"},
        {"rating": True},
        {"student_id": "not an id"},
        {"student_id": "x" * 51},
        {"session_id": ""},
        {"feedback_text": "x" * 1001},
        {"colour": "red"},
    ],
)
def test_a_wrong_rating_is_refused_by_its_field(world: World, wrong: dict[str, Any]) -> None:
    answer = world.app("POST", "ratings", rating(**wrong))

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["loc"] == ["body", next(iter(wrong))]
    assert not SatisfactionRating.objects.exists()


def test_an_app_rates_for_itself_alone(world: World) -> None:
    assert world.piano("POST", "ratings", rating()).status_code == 403
    assert world.rosa("POST", "ratings", rating()).status_code == 403


def test_the_mean_of_no_rating_is_not_zero(world: World) -> None:
    assert world.rosa("GET", "ratings/summary").json()["average"] is None

    world.app("POST", "ratings", rating(rating=4))
    world.app("POST", "ratings", rating(rating=1, session_id="sitting-2"))

    found = world.rosa("GET", "ratings/summary?app_name=maths").json()
    assert (found["average"], found["count"], found["counts"]["4"]) == (2.5, 2, 1)
    assert world.otto("GET", "ratings/summary").json()["count"] == 0


def test_a_session_token_writes_for_its_learner_alone(world: World) -> None:
    made = world.app("POST", "sessions", {"student_id": "ada", "app_name": "maths"})
    assert made.status_code == 201
    browser = Caller(made.json()["token"])

    assert browser("POST", "ratings", rating()).status_code == 201
    assert browser("POST", "ratings", rating(student_id="ben")).status_code == 403
    assert browser("GET", "ratings").status_code == 403
    assert browser("GET", "students/ada/metrics").status_code == 403
    assert browser("POST", "sessions", {"student_id": "ada", "app_name": "maths"}).status_code == 403


def test_a_token_is_made_by_the_apps_own_key(world: World) -> None:
    body = {"student_id": "ada", "app_name": "maths"}

    assert world.piano("POST", "sessions", body).status_code == 403
    assert world.rosa("POST", "sessions", body).status_code == 403
    for wrong in ({"ttl_s": 86_401}, {"ttl_s": 0}, {"student_id": "a b"}):
        assert world.app("POST", "sessions", body | wrong).status_code == 400


def test_the_learners_page_follows_its_request_for_help(world: World) -> None:
    token = world.app("POST", "sessions", {"student_id": "ada", "app_name": "maths"}).json()["token"]
    other = world.app("POST", "sessions", {"student_id": "ben", "app_name": "maths"}).json()["token"]
    recorded("ada", metric_type="help_request", metric_value=1)
    asked = HelpRequest.objects.get()
    path = f"help-requests/{asked.pk}"

    assert Caller(token)("GET", path).json() == {"state": "sent"}
    alert = alerted(world)
    HelpRequest.objects.update(alert=alert)
    for step, state in (("acknowledge", "seen"), ("on-my-way", "coming"), ("resolve", "done")):
        world.rosa("POST", f"alerts/{alert.pk}/{step}")
        assert Caller(token)("GET", path).json() == {"state": state}
    assert Caller(other)("GET", path).status_code == 404


def test_an_app_sees_its_health(world: World) -> None:
    hour = NOW.replace(minute=0, second=0, microsecond=0)
    for measure, label, count in (
        ("accepted", "", 8),
        ("late", "", 2),
        ("rejected", "bad_id", 3),
        ("dead_click", "item-7", 5),
        ("sdk", "1.2.0", 8),
    ):
        AppHealthCount.objects.create(app_name="maths", hour=hour, measure=measure, label=label, count=count)

    found = world.app("GET", "apps/maths/health").json()

    assert (found["metrics"], found["late_share"], found["rejected"]) == (8, 0.25, {"bad_id": 3})
    assert (found["dead_clicks"], found["sdk_versions"]) == ([["item-7", 5]], {"1.2.0": 8})
    assert world.piano("GET", "apps/maths/health").status_code == 404


def test_a_teacher_sees_the_health_of_an_app_that_reports_about_the_class(world: World) -> None:
    AppHealthCount.objects.create(
        app_name="puzzles", hour=NOW.replace(minute=0, second=0, microsecond=0), measure="accepted", count=1
    )
    assert world.rosa("GET", "apps/puzzles/health").status_code == 404
    recorded("ada", app_name="puzzles")

    assert world.rosa("GET", "apps/puzzles/health").json()["metrics"] == 1
    assert world.otto("GET", "apps/puzzles/health").status_code == 404


# ---------------------------------------------------------------- metrics by way of Django


def test_a_batch_id_is_known_to_the_slow_way_as_well(world: World) -> None:
    batch = {"batch_id": "b-9", "metrics": [metric(), metric(metric_type="nonsense")]}

    first = world.app("POST", "metrics", batch)
    second = world.app("POST", "metrics", batch)

    assert (first.status_code, first.json()["accepted"], len(first.json()["rejected"])) == (202, 1, 1)
    assert (first.json()["duplicate"], second.json()["duplicate"]) == (False, True)
    assert UsabilityMetric.objects.count() == 1


def test_the_slow_way_reads_lines_and_judges_without_storing(world: World) -> None:
    lines = "\n".join(json.dumps(metric()) for _ in range(3)).encode()

    answer = world.app("POST", "metrics?validate_only=1", lines, Content_Type="application/x-ndjson")

    assert (answer.status_code, answer.json()["accepted"]) == (200, 3)
    assert not UsabilityMetric.objects.exists()
    assert world.app("POST", "metrics", b"<a/>", Content_Type="text/xml").status_code == 415
