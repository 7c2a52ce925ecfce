"""Why a pupil was not alerted about, from what is stored: every reason, and what can no longer be known."""

from __future__ import annotations

import datetime as dt

import pytest
from django.test import Client
from django.utils import timezone
from usability_lessons import APP, Clock, Lesson, run_until, worker_at

from gaia_site.keys import forget_keys
from usability import selectors, services
from usability.errors import Invalid, NotFound, UsabilityError
from usability.models import (
    Classroom,
    DetectorProfile,
    Enrollment,
    FrustrationEvent,
    StudentAccess,
    TeacherDashboardAlert,
)
from usability.selectors import explain as explaining
from usability.services.profiles import save_version

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("days")]


@pytest.fixture
def lesson(room) -> Lesson:
    """Begins a quarter of an hour ago, at a whole second."""
    return Lesson(room, (timezone.now() - dt.timedelta(minutes=15)).replace(microsecond=0))


def streak(lesson: Lesson, student_id: str = "p1", begin_s: float = 5, marks: str = "-----") -> None:
    lesson.answers(student_id, marks, begin_s=begin_s, every_s=8, item="8").store()


def in_class(lesson: Lesson, seconds: float, *, who, student_id: str = "p1", now_s: float = 900, **more):
    found = selectors.student_why(student_id, who=who, at=lesson.at(seconds), now=lesson.at(now_s), **more)
    (one,) = found.classes
    return one


def accuracy(found):
    """Where the wrong answers stood."""
    (one,) = [each for each in found.explanations if each.family == "accuracy" and each.status != "below"]
    return one


def below(found, detector: str):
    (one,) = [each for each in found.explanations if (each.status, each.detector) == ("below", detector)]
    return one


def worked(lesson: Lesson, seconds: float) -> None:
    clock = Clock(lesson.begin)
    run_until(worker_at(clock), clock, lesson.at(seconds), step_s=10)


# ---------------------------------------------------------------- the reasons


def test_of_a_pupil_who_sent_nothing_nothing_is_known(lesson, alice):
    streak(lesson, "p0")

    found = in_class(lesson, 60, who=alice)

    assert [one.status for one in found.explanations] == ["unknown"]
    assert found.rows == 5


def test_what_is_below_its_threshold_is_told_with_both_numbers(lesson, alice):
    streak(lesson, marks="--")

    one = below(in_class(lesson, 30, who=alice), "error_streak")

    assert (one.numbers, one.thresholds) == ({"errors_in_a_row": 2.0}, {"warn": 3.0})


def test_what_was_received_after_the_moment_is_not_used(lesson, alice):
    streak(lesson)

    one = below(in_class(lesson, 15, who=alice), "error_streak")

    assert one.numbers == {"errors_in_a_row": 2.0}


def test_held_before_it_counts(lesson, alice):
    streak(lesson, marks="---")

    one = accuracy(in_class(lesson, 26, who=alice))

    assert (one.status, one.since, one.until) == ("held", lesson.at(5), lesson.at(30))
    assert "3 wrong answers" in one.reason


def test_cooldown_after_an_episode(lesson, alice):
    lesson.answers("p1", "---", begin_s=10, every_s=10).does(60, "p1", "answer", 1.0)
    lesson.answers("p1", "---", begin_s=90, every_s=5).store()

    one = accuracy(in_class(lesson, 130, who=alice))

    assert one.status == "cooldown"
    assert one.until > lesson.at(130)


def test_it_interrupted(lesson, alice):
    streak(lesson)
    worked(lesson, 90)

    one = accuracy(in_class(lesson, 80, who=alice))

    assert one.status == "interrupted"
    assert one.recorded.interrupted
    assert one.recorded.alert_id == TeacherDashboardAlert.objects.get(alert_type="accuracy").pk


def test_nothing_stored_of_an_interruption_is_told_by_its_absence(lesson, alice):
    streak(lesson)

    one = accuracy(in_class(lesson, 80, who=alice))

    assert (one.status, one.recorded) == ("interrupted", None)


def test_the_budget_was_spent(lesson, alice, room):
    save_version(who=alice, classroom=room, changes={"alerts_per_10_min": 1.0, "alert_burst": 1})
    DetectorProfile.objects.update(state_at=lesson.begin)
    streak(lesson, "p0")
    streak(lesson, "p1", begin_s=20)
    worked(lesson, 120)

    one = accuracy(in_class(lesson, 110, who=alice))

    assert (one.status, one.held_back) == ("listed", "budget")
    assert not one.recorded.interrupted
    assert in_class(lesson, 110, who=alice).not_known == ("pauses",)


def test_quiet_hours_held(lesson, alice, room):
    hours = [{"days": [1, 2, 3, 4, 5, 6, 7], "from": "00:00", "until": "23:59"}]
    save_version(who=alice, classroom=room, changes={"quiet_hours": hours})
    DetectorProfile.objects.update(state_at=lesson.begin)
    streak(lesson)

    found = in_class(lesson, 80, who=alice)

    assert (accuracy(found).status, accuracy(found).held_back) == ("listed", "quiet_hours")
    assert found.resting == ("quiet_hours",)


def test_the_class_is_paused_now(lesson, alice, room):
    Classroom.objects.filter(pk=room.pk).update(paused_until=lesson.at(600))
    streak(lesson)

    found = in_class(lesson, 80, who=alice, now_s=80)

    assert (accuracy(found).status, accuracy(found).held_back) == ("listed", "paused")
    assert (found.resting, found.not_known) == (("paused",), ())


def test_a_pause_of_the_past_is_told_where_an_alert_remembers_it(lesson, alice, room):
    Classroom.objects.filter(pk=room.pk).update(paused_until=lesson.at(600))
    streak(lesson)
    worked(lesson, 90)
    Classroom.objects.filter(pk=room.pk).update(paused_until=None)

    found = in_class(lesson, 80, who=alice)

    assert (accuracy(found).status, accuracy(found).held_back) == ("listed", "paused")
    assert found.not_known == ("pauses",)


def test_a_pause_that_holds_now_is_not_taken_for_one_of_then(lesson, alice, room):
    Classroom.objects.filter(pk=room.pk).update(paused_until=lesson.at(2000))
    streak(lesson)

    found = in_class(lesson, 80, who=alice)

    assert accuracy(found).status == "interrupted"
    assert (found.resting, found.not_known) == ((), ("pauses",))


def test_a_snooze_of_the_past_is_known_by_the_steps_taken(lesson, alice, raised):
    first = raised("p1", alert_type="progress")
    services.snooze_alert(first.pk, who=alice, minutes=5, now=lesson.at(10))
    streak(lesson)

    held = in_class(lesson, 80, who=alice)
    before = in_class(lesson, 8, who=alice)
    after = in_class(lesson, 400, who=alice)

    assert held.resting == ("snoozed",)
    assert (accuracy(held).status, accuracy(held).held_back) == ("listed", "snoozed")
    assert (before.resting, after.resting) == ((), ())


def test_a_longer_snooze_later_does_not_lengthen_the_one_before(lesson, alice, raised):
    first = raised("p1", alert_type="progress")
    services.snooze_alert(first.pk, who=alice, minutes=2, now=lesson.at(10))
    services.snooze_alert(first.pk, who=alice, minutes=30, now=lesson.at(300))

    assert in_class(lesson, 60, who=alice).resting == ("snoozed",)
    assert in_class(lesson, 200, who=alice).resting == ()
    assert in_class(lesson, 400, who=alice).resting == ("snoozed",)


def test_a_snooze_that_was_undone_ended_then(lesson, alice, raised):
    first = raised("p1", alert_type="progress")
    services.snooze_alert(first.pk, who=alice, minutes=30, now=lesson.at(10))
    services.undo(first.pk, who=alice, now=lesson.at(15))

    assert in_class(lesson, 12, who=alice).resting == ("snoozed",)
    assert in_class(lesson, 20, who=alice).resting == ()


def test_an_episode_that_a_teacher_closed_says_so(lesson, alice):
    streak(lesson)
    worked(lesson, 80)
    alert = TeacherDashboardAlert.objects.get(alert_type="accuracy")
    services.dismiss_alert(alert.pk, who=alice, now=lesson.at(85))

    assert accuracy(in_class(lesson, 88, who=alice)).recorded.closed_as == "dismissed"
    assert accuracy(in_class(lesson, 83, who=alice)).recorded.closed_as == ""


def test_a_signal_recorded_by_hand_is_told_too(lesson, alice, raised):
    event = services.record_event(
        student_id="p1",
        app_name=APP,
        event_type="progress",
        severity="high",
        details={},
        detected_at=lesson.at(10),
    )
    alert = raised("p1", alert_type="progress", event=event)
    TeacherDashboardAlert.objects.filter(pk=alert.pk).update(
        created_at=lesson.at(11), detected_at=lesson.at(10)
    )

    (one,) = in_class(lesson, 60, who=alice).explanations

    assert (one.status, one.family) == ("interrupted", "progress")


# ---------------------------------------------------------------- limits, and what is said of them


def test_rules_changed_since_are_told(lesson, alice, room):
    save_version(who=alice, classroom=room, changes={"alert_burst": 1})
    streak(lesson)

    assert in_class(lesson, 60, who=alice).not_known == ("pauses", "profile")


def test_the_newest_rows_are_read_and_it_is_told_that_there_were_more(lesson, alice, monkeypatch):
    monkeypatch.setattr(explaining, "ROWS_LIMIT", 4)
    monkeypatch.setattr(explaining, "SLICE_ROWS", 3)
    streak(lesson)

    found = in_class(lesson, 60, who=alice)

    assert (found.rows, found.not_known) == (4, ("pauses", "earlier_rows"))
    assert found.rows_since > lesson.at(10)


def test_slices_change_nothing(lesson, alice, monkeypatch):
    for pupil in ("p0", "p1", "p2"):
        streak(lesson, pupil, marks="--+---+--")
    whole = in_class(lesson, 90, who=alice)
    monkeypatch.setattr(explaining, "SLICE_ROWS", 1)

    assert in_class(lesson, 90, who=alice) == whole


def test_a_class_that_takes_too_long_is_refused_for_now(lesson, alice, monkeypatch):
    monkeypatch.setattr(explaining, "FOLD_LIMIT_S", -1.0)
    streak(lesson)

    with pytest.raises(UsabilityError) as refused:
        in_class(lesson, 60, who=alice)
    assert refused.value.slug == "overloaded"


def test_it_comes_to_what_the_worker_wrote(lesson, alice):
    for number, marks in enumerate(("-----", "+---+--", "--+----", "++++")):
        streak(lesson, f"p{number}", begin_s=5 + number, marks=marks)
    worked(lesson, 100)

    for number in range(4):
        found = in_class(lesson, 99, who=alice, student_id=f"p{number}").explanations
        told = {one.family for one in found if one.status in ("interrupted", "listed", "closing")}
        stored = set(
            FrustrationEvent.objects.open()
            .filter(student_id=f"p{number}")
            .values_list("event_type", flat=True)
        )
        assert told == stored


def test_an_app_that_is_asked_for_is_answered_alone(lesson, alice):
    streak(lesson)
    lesson.does(20, "p1", "keypress", 3, app_name="typing")
    lesson.store()

    found = in_class(lesson, 60, who=alice, app_name="typing")

    assert {one.app_name for one in found.explanations} == {"typing"}


def test_a_moment_to_come_is_refused(lesson, alice):
    with pytest.raises(Invalid, match="at: not after now"):
        selectors.student_why("p1", who=alice, at=lesson.at(60), now=lesson.at(50))


def test_it_asks_the_database_a_fixed_number_of_times(lesson, alice, django_assert_max_num_queries):
    for pupil in ("p0", "p1", "p2", "p3"):
        streak(lesson, pupil)

    with django_assert_max_num_queries(16):
        in_class(lesson, 60, who=alice)


def test_nobody_elses_pupil(lesson, charlie, other_room):
    with pytest.raises(NotFound):
        in_class(lesson, 60, who=charlie)


def test_a_class_of_somebody_else_is_left_out(lesson, alice, charlie, other_room):
    Enrollment.objects.create(student_id="p1", classroom=other_room)
    streak(lesson)

    found = selectors.student_why("p1", who=charlie, at=lesson.at(60), now=lesson.at(900))

    assert [one.classroom_id for one in found.classes] == [other_room.pk]
    assert [one.status for one in found.classes[0].explanations] == ["unknown"]


# ---------------------------------------------------------------- by the API


@pytest.fixture
def ask(secret_of):
    forget_keys()

    def asked(owner, *scopes: str, student_id: str = "p1", **query: str):
        headers = {"Authorization": f"Bearer {secret_of(owner, *scopes)}"} if scopes else {}
        return Client().get(f"/api/v1/usability/students/{student_id}/explain", query, headers=headers)

    return asked


def test_who_may_ask(lesson, ask, alice, bob, charlie, operator, other_room):
    assert ask(alice, "teacher").status_code == 200
    assert ask(bob, "teacher").status_code == 200
    assert ask(operator, "admin").status_code == 200
    refused = ask(charlie, "teacher")
    assert (refused.status_code, refused.json()["type"]) == (404, "not-found")
    assert ask(alice, "teacher", student_id="nobody").status_code == 404
    assert ask(alice, "metrics:write").status_code == 403
    assert ask(alice, "metrics:read").status_code == 403
    assert ask(None).status_code == 401


def test_the_answer_of_a_moment(lesson, ask, alice, room):
    streak(lesson, marks="--")

    answer = ask(alice, "teacher", at=lesson.at(30).isoformat(), app_name=APP).json()

    (found,) = answer["classes"]
    assert answer["student_id"] == "p1"
    assert dt.datetime.fromisoformat(answer["at"]) == lesson.at(30)
    assert (found["classroom_id"], found["rows"], found["not_known"]) == (str(room.pk), 2, ["pauses"])
    told = {one["detector"]: one for one in found["explanations"]}
    assert told["error_streak"]["numbers"] == {"errors_in_a_row": 2.0}
    assert told["error_streak"]["thresholds"] == {"warn": 3.0}


@pytest.mark.parametrize(
    "query", [{"at": "10:42"}, {"at": "2999-01-01T00:00:00Z"}, {"colour": "red"}, {"app_name": ""}]
)
def test_what_cannot_be_asked_is_refused(ask, alice, room, query):
    answer = ask(alice, "teacher", **query)

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["loc"][0] == "query"


def test_each_look_is_recorded(ask, alice, charlie, other_room):
    ask(alice, "teacher")
    ask(charlie, "teacher")

    looks = StudentAccess.objects.values_list("user__username", "student_id", "action")
    assert list(looks) == [("alice", "p1", "view_explanation")]
