"""What callers of the older system could ask of its storage for usability, each proved on real PostgreSQL."""

from __future__ import annotations

import datetime as dt
import json

import pytest
from django.utils import timezone
from usability_lessons import APP, Lesson

from usability import selectors, services
from usability.errors import Conflict, Invalid, NotFound
from usability.models import (
    ClassroomMetricsSnapshot,
    FrustrationEvent,
    Intervention,
    SatisfactionRating,
    TeacherDashboardAlert,
    UsabilityMetric,
)

pytestmark = pytest.mark.usefixtures("days")

HOUR = dt.timedelta(hours=1)


@pytest.fixture
def now():
    return timezone.now().replace(microsecond=0)


@pytest.fixture
def lesson(room, now):
    return Lesson(room, now - dt.timedelta(minutes=30))


def event_of(student_id="p1", **changed):
    fields = {
        "app_name": APP,
        "event_type": "accuracy",
        "severity": "high",
        "details": {"reason": "5 wrong answers in a row"},
        "detected_at": timezone.now(),
        **changed,
    }
    return services.record_event(student_id=student_id, **fields)


def rating_of(student_id="p1", rating=4, session_id="s1", **changed):
    return services.record_rating(
        student_id=student_id,
        app_name=changed.pop("app_name", APP),
        session_id=session_id,
        rating=rating,
        **changed,
    )


# ---------------------------------------------------------------- metrics


@pytest.mark.operation(53)
def test_metrics_are_validated_and_stored(room, now):
    good = {"student_id": "p1", "app_name": APP, "metric_type": "error", "metric_value": 1}
    bad = {**good, "metric_type": "mood"}

    recorded = services.record_metrics([good, bad])

    assert (recorded.accepted, [one.index for one in recorded.rejected]) == (1, [1])
    assert UsabilityMetric.objects.get().classroom_id == room.pk


@pytest.mark.operation(54)
def test_a_students_metrics_of_an_app_since_then_come_oldest_first(lesson):
    lesson.does(60, "p1", "error")
    lesson.does(30, "p1", "hint")
    lesson.does(30, "p1", "hint", app_name="other-app")
    lesson.does(30, "p2", "hint")
    lesson.does(-600, "p1", "error")
    lesson.store()

    rows = UsabilityMetric.objects.for_student("p1", APP, since=lesson.at(0))

    assert [row.metric_type for row in rows] == ["hint", "error"]


@pytest.mark.operation(55)
def test_classroom_metrics_count_enrolled_pupils_and_nobody_else(lesson, other_room, alice):
    lesson.answers("p1", "+--").answers("p2", "++")
    lesson.does(20, "p1", "backspace", 10)
    lesson.does(20, "p1", "keypress", 30)
    lesson.does(20, "q0", "backspace", 500)
    lesson.answers("q0", "-----")
    lesson.store()

    found = selectors.classroom_metrics(
        lesson.classroom.pk, who=alice, app_name=APP, since=lesson.begin, until=lesson.at(600)
    )

    assert (found.total_students, found.active_students) == (6, 2)
    assert found.counts["answer"] == 5
    assert found.error_rate == pytest.approx(2 / 5)
    assert found.correction_share == pytest.approx(10 / 40)


def test_rates_of_nothing_are_unknown_and_not_zero(room, alice, now):
    found = selectors.classroom_metrics(room.pk, who=alice, since=now - HOUR, until=now)

    assert found.active_students == 0
    assert found.error_rate is found.correction_share is found.completion_rate is None
    assert found.average_satisfaction_rating is None


@pytest.mark.operation(56)
def test_metrics_of_one_type_since_then(lesson):
    lesson.does(-600, "p1", "hint")
    lesson.does(10, "p1", "hint")
    lesson.does(20, "p2", "hint")
    lesson.does(15, "p1", "error")
    lesson.store()

    rows = UsabilityMetric.objects.of_type("hint", since=lesson.at(0))

    assert [row.student_id for row in rows] == ["p1", "p2"]


# ---------------------------------------------------------------- frustration events


@pytest.mark.operation(57)
def test_there_is_one_open_event_of_a_kind_and_the_worse_severity_stays(room):
    first = event_of(severity="high")
    milder = event_of(severity="low", details={"reason": "milder"})
    worse = event_of(severity="critical", details={"reason": "worse"})

    assert first.pk == milder.pk == worse.pk
    assert (worse.severity, worse.details["reason"]) == ("critical", "worse")
    assert worse.classroom_id == room.pk
    assert event_of(event_type="pace").pk != first.pk


def test_an_event_of_a_pupil_nobody_knows_is_refused(room):
    with pytest.raises(NotFound):
        event_of("nobody")


def test_an_event_of_an_unknown_severity_is_refused(room):
    with pytest.raises(Invalid):
        event_of(severity="terrible")


@pytest.mark.operation(58)
def test_unresolved_events_come_worst_and_oldest_first(room, alice, now):
    mild = event_of("p1", severity="low", detected_at=now - HOUR)
    late = event_of("p2", severity="critical", detected_at=now)
    early = event_of("p3", severity="critical", detected_at=now - HOUR)
    settled = event_of("p4", severity="critical")
    services.resolve_event(settled.pk, who=alice)

    assert list(FrustrationEvent.objects.unresolved()) == [early, late, mild]


@pytest.mark.operation(59)
def test_a_students_events_come_newest_first(room, now):
    old = event_of("p1", detected_at=now - HOUR)
    new = event_of("p1", event_type="pace", detected_at=now)
    event_of("p2")

    assert list(FrustrationEvent.objects.for_student("p1")) == [new, old]


@pytest.mark.operation(60)
def test_events_of_one_severity(room):
    high = event_of("p1", severity="high")
    event_of("p2", severity="low")

    assert list(FrustrationEvent.objects.with_severity("high")) == [high]


@pytest.mark.operation(61)
def test_the_first_who_acknowledges_an_event_is_remembered(room, alice, bob, now):
    event = event_of()

    services.acknowledge_event(event.pk, who=alice, now=now)
    again = services.acknowledge_event(event.pk, who=bob, now=now + HOUR)

    assert (again.acknowledged_at, again.acknowledged_by) == (now, alice)


@pytest.mark.operation(62)
def test_resolving_an_event_notes_time_and_person(room, alice, bob, now):
    event = services.resolve_event(event_of().pk, who=bob, now=now)
    again = services.resolve_event(event.pk, who=alice, now=now + HOUR)

    assert (again.resolved_at, again.resolved_by, again.acknowledged_by) == (now, bob, bob)
    assert not again.is_open


def test_another_teachers_event_is_not_found(room, other_room, charlie):
    event = event_of()
    for settle in (services.acknowledge_event, services.resolve_event):
        with pytest.raises(NotFound):
            settle(event.pk, who=charlie)


@pytest.mark.operation(63)
def test_old_resolved_events_are_deleted_and_open_ones_stay(room, alice, now):
    old = event_of("p1")
    services.resolve_event(old.pk, who=alice, now=now - dt.timedelta(days=10))
    fresh = event_of("p2")
    services.resolve_event(fresh.pk, who=alice, now=now)
    still_open = event_of("p3", detected_at=now - dt.timedelta(days=10))

    deleted = FrustrationEvent.objects.delete_older_than(dt.timedelta(days=7), now=now)

    assert deleted == 1
    assert set(FrustrationEvent.objects.all()) == {fresh, still_open}


# ---------------------------------------------------------------- ratings


@pytest.mark.operation(64)
def test_a_second_rating_of_the_same_sitting_replaces_the_first(room):
    rating_of(rating=2)
    rating_of(rating=5, feedback_text="better now")
    rating_of(rating=1, session_id="s2")

    kept = SatisfactionRating.objects.get(session_id="s1")
    assert (kept.rating, kept.feedback_text, kept.classroom_id) == (5, "better now", room.pk)
    assert SatisfactionRating.objects.count() == 2


@pytest.mark.parametrize("rating", [0, 6, -1, 2.5, True, "3"])
def test_a_rating_that_is_none_is_refused(room, rating):
    with pytest.raises(Invalid):
        rating_of(rating=rating)


@pytest.mark.operation(65)
def test_a_students_ratings_come_newest_first(room, now):
    old = rating_of(session_id="a", now=now - HOUR)
    new = rating_of(session_id="b", now=now)
    rating_of("p2")

    assert list(SatisfactionRating.objects.for_student("p1")) == [new, old]


@pytest.mark.operation(66)
def test_the_average_of_an_app_is_none_where_nobody_rated(room):
    assert SatisfactionRating.objects.average_for_app(APP) is None
    rating_of("p1", 2)
    rating_of("p2", 5)
    rating_of("p3", 1, app_name="other-app")

    assert SatisfactionRating.objects.average_for_app(APP) == pytest.approx(3.5)


@pytest.mark.operation(67)
def test_recent_ratings_come_newest_first_and_the_limit_is_positive(room, now):
    ratings = [rating_of(session_id=str(n), now=now - n * HOUR) for n in range(3)]

    assert list(SatisfactionRating.objects.recent(2)) == ratings[:2]
    with pytest.raises(ValueError, match="at least 1"):
        SatisfactionRating.objects.recent(0)


@pytest.mark.operation(68)
def test_a_students_recent_average_is_none_where_there_is_none(room, now):
    rating_of(rating=1, session_id="old", now=now - 3 * HOUR)
    assert SatisfactionRating.objects.recent_average_for_student("p1", now - HOUR) is None
    rating_of(rating=4, session_id="new", now=now)

    assert SatisfactionRating.objects.recent_average_for_student("p1", now - HOUR) == 4


@pytest.mark.operation(86)
def test_feedback_is_ratings_with_a_text_newest_first(room, now):
    old = rating_of(session_id="a", feedback_text="too fast", now=now - HOUR)
    new = rating_of(session_id="b", feedback_text="good", now=now)
    rating_of(session_id="c", now=now)
    rating_of(session_id="d", feedback_text="elsewhere", app_name="other-app", now=now)

    assert list(SatisfactionRating.objects.with_feedback(APP)[:10]) == [new, old]


# ---------------------------------------------------------------- alerts


@pytest.mark.operation(69)
def test_an_alert_is_routed_numbered_and_told_after_the_commit(
    room, monkeypatch, django_capture_on_commit_callbacks
):
    told = []
    monkeypatch.setattr("usability.push.send_hint", lambda classroom, seq, **_: told.append((classroom, seq)))

    with django_capture_on_commit_callbacks(execute=True):
        alert = services.raise_alert(
            student_id="p1", app_name=APP, alert_type="accuracy", severity="warning", details={"reason": "…"}
        )
        assert told == []
    later = services.raise_alert(
        student_id="p2", app_name=APP, alert_type="pace", severity="info", details={}
    )

    assert alert.classroom_id == room.pk
    assert told[0] == (room.pk, alert.seq)
    assert later.seq > alert.seq
    assert selectors.cursor_of(room.pk) == later.seq


def test_an_alert_nobody_can_be_told_is_refused(room):
    from usability.models import Student

    Student.objects.create(student_id="stray")
    for student_id, refusal in (("stray", Invalid), ("nobody", NotFound)):
        with pytest.raises(refusal):
            services.raise_alert(
                student_id=student_id, app_name=APP, alert_type="pace", severity="info", details={}
            )


@pytest.mark.operation(70)
def test_a_teacher_has_the_alerts_of_the_classes_this_teacher_has(
    room, other_room, alice, bob, charlie, raised
):
    mine = raised()

    assert list(TeacherDashboardAlert.objects.for_teacher(alice)) == [mine]
    assert list(TeacherDashboardAlert.objects.for_teacher(bob)) == [mine]
    assert list(TeacherDashboardAlert.objects.for_teacher(charlie)) == []


@pytest.mark.operation(71)
def test_unacknowledged_alerts_come_worst_first(alice, raised):
    mild, grave, seen = raised(severity="info"), raised("p2", severity="critical"), raised("p3")
    services.acknowledge_alert(seen.pk, who=alice)

    assert list(TeacherDashboardAlert.objects.unacknowledged()) == [grave, mild]


@pytest.mark.operation(72)
def test_acknowledging_notes_time_person_and_note(alice, bob, raised, now):
    event = event_of()
    alert = raised(event=event)

    services.acknowledge_alert(alert.pk, who=alice, note="looking", now=now)
    again = services.acknowledge_alert(alert.pk, who=bob, now=now + HOUR)
    event.refresh_from_db()

    assert (again.acknowledged_at, again.acknowledged_by, again.note) == (now, alice, "looking")
    assert again.state == "acknowledged"
    assert event.acknowledged_by == alice


@pytest.mark.operation(73)
def test_struggling_students_of_an_app_are_distinct(alice, raised):
    raised("p2")
    raised("p2", alert_type="pace")
    services.resolve_alert(raised("p3").pk, who=alice)
    raised("p1")

    assert list(TeacherDashboardAlert.objects.struggling_students(APP)) == ["p1", "p2"]
    assert list(TeacherDashboardAlert.objects.struggling_students("other-app")) == []


@pytest.mark.operation(74)
def test_old_closed_alerts_are_deleted_and_open_ones_stay(alice, raised, now):
    old, fresh, still_open = raised(), raised("p2"), raised("p3")
    services.resolve_alert(old.pk, who=alice, now=now - dt.timedelta(days=10))
    services.resolve_alert(fresh.pk, who=alice, now=now)

    deleted = TeacherDashboardAlert.objects.delete_older_than(dt.timedelta(days=7), now=now)

    assert deleted == 1
    assert set(TeacherDashboardAlert.objects.all()) == {fresh, still_open}


@pytest.mark.operation(87)
def test_an_intervention_is_stored_with_who_what_and_when(alice, raised, now):
    alert = raised()

    kept = services.record_intervention(alert.pk, who=alice, kind="explained", note="with a drawing", now=now)

    stored = Intervention.objects.get()
    assert stored == kept
    assert (stored.alert, stored.teacher, stored.kind, stored.note, stored.at) == (
        alert,
        alice,
        "explained",
        "with a drawing",
        now,
    )
    assert stored.effect is None
    assert TeacherDashboardAlert.objects.get().seq > alert.seq


@pytest.mark.parametrize("kind", ["", "Two Words", "x" * 51, "é"])
def test_an_intervention_of_a_malformed_kind_is_refused(alice, raised, kind):
    with pytest.raises(Invalid):
        services.record_intervention(raised().pk, who=alice, kind=kind)


# ---------------------------------------------------------------- snapshots


@pytest.mark.operation(85)
def test_a_snapshot_is_one_a_class_app_and_window(lesson, alice, now):
    lesson.answers("p1", "+---").answers("p2", "++")
    lesson.store()
    event_of("p1", severity="high", detected_at=lesson.at(20))
    rating_of("p1", 2, now=lesson.at(100))
    window = (lesson.begin, lesson.at(300))

    first = services.take_snapshot(lesson.classroom, APP, *window)
    lesson.answers("p3", "+")
    lesson.store()
    second = services.take_snapshot(lesson.classroom, APP, *window)

    assert ClassroomMetricsSnapshot.objects.count() == 1
    assert first.pk == second.pk
    assert (first.student_count, first.active_count, second.active_count) == (6, 2, 3)
    assert first.struggling_student_count == 1
    assert first.average_frustration_level == pytest.approx(3 / 2)
    assert first.average_satisfaction_rating == 2
    assert first.error_rate == pytest.approx(3 / 6)
    assert json.loads(json.dumps(first.snapshot_data))["attempts"] == 6


def test_a_snapshot_of_nothing_has_no_rates(room, now):
    row = services.take_snapshot(room, APP, now - HOUR, now)

    assert (row.student_count, row.active_count) == (6, 0)
    assert row.error_rate is row.average_frustration_level is row.completion_rate is None


def test_a_step_on_a_closed_alert_is_a_conflict(alice, raised):
    alert = raised()
    services.resolve_alert(alert.pk, who=alice)
    with pytest.raises(Conflict):
        services.on_my_way(alert.pk, who=alice)
