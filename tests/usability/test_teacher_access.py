"""Who sees what: Alice and Bob teach 7B, Charlie teaches 8C, apps see their own records, operators all."""

from __future__ import annotations

import datetime as dt

import pytest
from django.contrib.auth.models import AnonymousUser
from django.utils import timezone
from usability_lessons import APP, Lesson

from usability import access, selectors, services
from usability.errors import NotFound, NotPermitted
from usability.models import Enrollment, Student

pytestmark = pytest.mark.usefixtures("days")

SETS = {
    "classrooms": access.visible_classrooms,
    "students": access.visible_students,
    "metrics": access.visible_metrics,
    "events": access.visible_events,
    "ratings": access.visible_ratings,
    "alerts": access.visible_alerts,
    "interventions": access.visible_interventions,
    "snapshots": access.visible_snapshots,
}


@pytest.fixture
def everything(room, other_room, alice, raised):
    """One of each kind in 7B, about p1 and reported by the fractions lab."""
    now = timezone.now()
    lesson = Lesson(room, now - dt.timedelta(minutes=10))
    lesson.answers("p1", "+")
    lesson.store()
    services.record_event(
        student_id="p1", app_name=APP, event_type="accuracy", severity="high", details={}, detected_at=now
    )
    services.record_rating(student_id="p1", app_name=APP, session_id="s", rating=3)
    services.record_intervention(raised().pk, who=alice, kind="explained")
    services.take_snapshot(room, APP, lesson.begin, now)
    return room


@pytest.fixture
def callers(alice, bob, charlie, operator, key_of, everything):
    """Every kind of caller."""
    return {
        "alice": alice,
        "bob": bob,
        "charlie": charlie,
        "operator": operator,
        "nobody": AnonymousUser(),
        "none": None,
        "alice's teacher key": key_of(alice, "teacher"),
        "charlie's teacher key": key_of(charlie, "teacher"),
        "operator's teacher key": key_of(operator, "teacher"),
        "operator's admin key": key_of(operator, "admin"),
        "app's reading key": key_of(operator, "metrics:read", app_name=APP),
        "other app's reading key": key_of(operator, "metrics:read", app_name="other-app"),
        "app's writing key": key_of(operator, "metrics:write", app_name=APP),
        "agent key": key_of(alice, "agent"),
    }


def seen_by(who):
    """The kinds of which this caller sees the one that is in 7B."""
    return {
        name
        for name, rows in SETS.items()
        if (
            rows(who).filter(student_id="p1") if name == "students" else rows(who).exclude(pk__in=[])
        ).exists()
    }


ALL = set(SETS)
OF_AN_APP = {"students", "metrics", "events", "ratings"}
EXPECTED = {
    "alice": ALL,
    "bob": ALL,
    "charlie": {"classrooms"},
    "operator": ALL,
    "nobody": set(),
    "none": set(),
    "alice's teacher key": ALL,
    "charlie's teacher key": {"classrooms"},
    "operator's teacher key": set(),
    "operator's admin key": ALL,
    "app's reading key": OF_AN_APP,
    "other app's reading key": set(),
    "app's writing key": set(),
    "agent key": set(),
}


def test_each_caller_sees_its_own_and_nothing_else(callers):
    assert {name: seen_by(who) for name, who in callers.items()} == EXPECTED


def test_charlie_sees_only_8c(charlie, everything):
    assert [room.name for room in access.visible_classrooms(charlie)] == ["8C Science"]
    assert [card.name for card in selectors.classrooms_of(charlie)] == ["8C Science"]
    assert list(access.visible_students(charlie).values_list("student_id", flat=True)) == ["q0"]


QUESTIONS = {
    "live": lambda room, who, span: selectors.live_class(room, who=who),
    "metrics": lambda room, who, span: selectors.classroom_metrics(room, who=who, **span),
    "struggling": lambda room, who, span: selectors.struggling(room, who=who),
    "snapshots": lambda room, who, span: selectors.snapshots(room, who=who, **span),
    "trends": lambda room, who, span: selectors.trends(room, who=who, **span),
    "student": lambda room, who, span: selectors.student_page("p1", who=who, **span),
    "buckets": lambda room, who, span: selectors.student_buckets("p1", who=who, bucket_s=60, **span),
    "pause": lambda room, who, span: services.pause_class(room, who=who, minutes=5),
    "resume": lambda room, who, span: services.resume_class(room, who=who),
    "budget": lambda room, who, span: services.set_budget(room, who=who, alerts=2),
    "quiet": lambda room, who, span: services.set_quiet_hours(
        room, who=who, starts_at="12:00", ends_at="13:00"
    ),
    "profile": lambda room, who, span: services.set_profile(room, who=who),
    "seats": lambda room, who, span: services.set_seats(room, who=who, seats={"p1": "D9"}),
}


def answered(room, who) -> set[str]:
    """The questions and settings of that class that this caller is not refused."""
    span = {"since": timezone.now() - dt.timedelta(hours=1), "until": timezone.now()}
    found = set()
    for name, ask in QUESTIONS.items():
        try:
            ask(room.pk, who, span)
        except NotFound:
            continue
        found.add(name)
    return found


def test_a_foreign_class_is_not_found(callers, everything):
    strangers = ("charlie", "nobody", "charlie's teacher key", "agent key", "app's writing key")
    assert {who: answered(everything, callers[who]) for who in strangers} == {
        name: set() for name in strangers
    }


def test_ones_own_class_is_answered(callers, everything):
    known = ("alice", "bob", "operator", "alice's teacher key")
    assert {who: answered(everything, callers[who]) for who in known} == {
        name: set(QUESTIONS) for name in known
    }


def test_an_app_reads_its_own_records_of_a_pupil_and_no_class(callers, everything):
    assert answered(everything, callers["app's reading key"]) == {"student", "buckets"}


def test_a_class_that_does_not_exist_is_refused_in_the_same_words(alice, charlie, everything):
    words = set()
    for classroom_id, who in (
        ("01890000-0000-7000-8000-000000000000", alice),
        ("no uuid at all", alice),
        (everything.pk, charlie),
    ):
        with pytest.raises(NotFound) as refused:
            selectors.live_class(classroom_id, who=who)
        words.add(refused.value.detail)
    assert len(words) == 1


def test_a_pupil_who_left_the_class_is_seen_no_more(alice, everything):
    Enrollment.objects.filter(student_id="p1").update(ended_on=dt.date(2026, 1, 1))

    with pytest.raises(NotFound):
        access.get_student(alice, "p1")


def test_a_teacher_who_was_deactivated_sees_nothing(alice, everything):
    alice.is_active = False
    alice.save()

    assert not access.visible_classrooms(alice).exists()


def test_a_pupils_token_sees_its_own_help_request_and_no_more(room, operator, key_of):
    from gaia_site.keys import principal_of
    from usability.models import HelpRequest

    key = key_of(operator, "metrics:write", app_name=APP)
    mine = HelpRequest.objects.create(student_id="p1", app_name=APP)
    others = HelpRequest.objects.create(student_id="p2", app_name=APP)
    token = services.issue_session_token(who=key, student_id="p1", app_name=APP).token
    pupil = principal_of(token)

    assert selectors.help_request_state(mine.pk, who=pupil) == "sent"
    with pytest.raises(NotFound):
        selectors.help_request_state(others.pk, who=pupil)
    assert not access.visible_students(pupil).exists()
    assert selectors.help_request_state(others.pk, who=key) == "sent"


def test_a_session_token_is_made_by_the_apps_own_writing_key_alone(alice, operator, key_of, room):
    for who in (alice, key_of(alice, "teacher"), key_of(operator, "metrics:write", app_name="other-app")):
        with pytest.raises(NotPermitted):
            services.issue_session_token(who=who, student_id="p1", app_name=APP)


def test_an_unassigned_pupil_is_seen_by_operators_alone(alice, operator, everything):
    Student.objects.create(student_id="stray")

    assert access.get_student(operator, "stray")
    with pytest.raises(NotFound):
        access.get_student(alice, "stray")
