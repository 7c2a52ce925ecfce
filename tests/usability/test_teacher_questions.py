"""The answers teachers read: the live picture, one pupil, trends, effects of help, health of apps."""

from __future__ import annotations

import datetime as dt

import pytest
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from usability_lessons import APP, Lesson

from usability import effects, selectors, services, snapshots
from usability.effects import verdict_of
from usability.errors import Invalid, NotFound
from usability.models import AppHealthCount, Intervention, TeacherDashboardAlert
from usability.proportions import Share, gap

MINUTE = dt.timedelta(minutes=1)


@pytest.fixture
def now(days):
    return timezone.now().replace(microsecond=0)


@pytest.fixture
def lesson(room, now):
    return Lesson(room, now - 10 * MINUTE)


# ---------------------------------------------------------------- live


def test_cards_stand_in_the_order_in_which_they_should_be_read(room, alice, raised, now):
    mild = raised("p0", details={"severity": "medium"}, detected_at=now - 30 * MINUTE)
    grave_new = raised("p1", details={"severity": "high"}, detected_at=now - 2 * MINUTE)
    grave_old = raised("p2", details={"severity": "high"}, detected_at=now - 9 * MINUTE)
    worst = raised("p3", details={"severity": "critical"}, severity="critical")
    whole_class = raised(None, alert_type="class_stuck", details={"severity": "high"})
    asked = raised("p4", alert_type="help", details={"severity": "medium"})

    picture = selectors.live_class(room.pk, who=alice, now=now)

    expected = [asked, whole_class, worst, grave_old, grave_new, mild]
    assert [one.alert_id for one in picture.signals] == [alert.pk for alert in expected]
    assert picture.cursor == asked.seq


def test_each_pupil_is_counted_once_in_the_gravest_condition(room, alice, raised, lesson, now):
    raised("p0", details={"severity": "high"})
    raised("p0", alert_type="pace", details={"severity": "low"})
    raised("p1", details={"severity": "medium"})
    raised("p2", alert_type="help", details={"severity": "high"})
    lesson.does(595, "p3", "keypress", 5)
    lesson.does(500, "p4", "focus")
    lesson.does(510, "p4", "blur")
    lesson.store()

    tally = selectors.live_class(room.pk, who=alice, now=now).tally

    assert (tally.needs_now, tally.rising, tally.asked_for_help) == (1, 1, 1)
    assert (tally.working, tally.away, tally.silent) == (1, 1, 1)


def test_the_room_keeps_its_shape_and_says_the_condition_of_each_seat(room, alice, raised, now):
    raised("p1", details={"severity": "high", "reason": "5 wrong answers in a row"})
    services.set_seats(room.pk, who=alice, seats={"p5": ""})

    seats = selectors.live_class(room.pk, who=alice, now=now).seats

    assert [seat.place for seat in seats] == ["A1", "B1", "C1", "A2", "B2", "C2"]
    assert [seat.state for seat in seats] == ["silent", "needs", "silent", "silent", "silent", "empty"]
    assert seats[1].words == "5 wrong answers in a row"


def test_the_quiet_ones_come_first_among_the_working(room, alice, raised, lesson, now):
    for student_id in ("p0", "p1", "p2"):
        lesson.does(595, student_id, "keypress", 5)
    lesson.store()
    services.helped(raised("p0").pk, who=alice, category="explained", now=now - 5 * MINUTE)
    services.helped(raised("p2").pk, who=alice, category="explained", now=now - 9 * MINUTE)

    working = selectors.live_class(room.pk, who=alice, now=now).working

    assert [one.pupil.student_id for one in working if one.last_seen] == ["p1", "p2", "p0"]


def test_no_data_late_data_and_live_data_are_told_apart(room, alice, lesson, now):
    states = [selectors.live_class(room.pk, who=alice, now=now).freshness.state]
    lesson.does(400, "p1", "keypress", 5)
    lesson.store()
    states.append(selectors.live_class(room.pk, who=alice, now=now).freshness.state)
    lesson.does(598, "p1", "keypress", 5)
    lesson.store()
    states.append(selectors.live_class(room.pk, who=alice, now=now).freshness.state)

    assert states == ["none", "late", "live"]


def test_the_strip_shows_what_was_done_in_the_last_ten_minutes(room, alice, raised, lesson, now):
    raised("p1")
    lesson.does(-5, "p1", "answer", 0)
    lesson.does(60, "p1", "answer", 1)
    lesson.does(120, "p1", "answer", 0)
    lesson.does(180, "p1", "hint")
    lesson.does(240, "p1", "hesitation", 45)
    lesson.does(300, "p1", "keypress", 20)
    lesson.does(301, "p1", "backspace", 20)
    lesson.store()

    strip = selectors.live_class(room.pk, who=alice, now=now).signals[0].strip

    assert [mark.kind for mark in strip.marks] == ["right", "wrong", "hint", "pause", "corrections"]
    assert strip.marks[-1].size == pytest.approx(0.5)
    assert strip.words == "Last 10 minutes: 1 right, 1 wrong, 1 hints, 1 pauses"


def test_my_classes_cost_the_same_number_of_queries_however_many(
    room, alice, raised, django_assert_num_queries
):
    from usability.models import Classroom, ClassroomTeacher

    raised("p0", details={"severity": "high"})
    for number in range(5):
        more = Classroom.objects.create(school=room.school, name=f"9{number}")
        ClassroomTeacher.objects.create(classroom=more, user=alice)
    selectors.classrooms_of(alice)

    with django_assert_num_queries(5):
        cards = selectors.classrooms_of(alice)

    assert {card.name: card.needs_now for card in cards}["7B Maths"] == 1
    assert len(cards) == 6


def test_struggling_pupils_are_there_once_with_all_their_reasons(room, alice, raised, now):
    raised(
        "p1",
        details={"severity": "medium", "reason": "slower than usual", "family": "pace"},
        alert_type="pace",
    )
    raised("p1", details={"severity": "high", "reason": "5 wrong", "family": "accuracy"})
    raised("p2", details={"severity": "critical", "reason": "12 tries", "family": "progress"})
    raised("p3", alert_type="recovered", severity="info", details={"family": "recovery"})

    found = selectors.struggling(room.pk, who=alice, app_name=APP)

    assert [(one.pupil.student_id, one.severity, len(one.reasons)) for one in found] == [
        ("p2", "critical", 1),
        ("p1", "high", 2),
    ]
    assert selectors.struggling(room.pk, who=alice, app_name="other-app") == []


# ---------------------------------------------------------------- one pupil


def test_a_pupils_page_has_everything_of_that_stretch(room, alice, raised, lesson, now):
    lesson.answers("p1", "+--+").does(100, "p1", "hint", late=True)
    lesson.store()
    event = services.record_event(
        student_id="p1",
        app_name=APP,
        event_type="accuracy",
        severity="high",
        details={"reason": "5 wrong"},
        detected_at=lesson.at(60),
    )
    services.record_intervention(raised(event=event).pk, who=alice, kind="explained", now=lesson.at(120))
    services.record_rating(student_id="p1", app_name=APP, session_id="s", rating=2, now=lesson.at(200))

    page = selectors.student_page("p1", who=alice, since=lesson.begin, until=now, now=now)

    assert page.pupil.name == "Bartek Wolski"
    assert page.classroom_ids == (room.pk,)
    assert sum(bucket.attempts for bucket in page.buckets) == 4
    assert (sum(bucket.right for bucket in page.buckets), page.late_count) == (2, 1)
    assert [episode.reason for episode in page.episodes] == ["5 wrong"]
    assert [(one.kind, one.by, one.effect) for one in page.interventions] == [("explained", "Alice", None)]
    assert [rating.rating for rating in page.ratings] == [2]
    assert len(page.signals) == 1
    assert page.last_seen is not None


def test_buckets_are_aligned_whatever_is_asked(lesson, alice, now):
    lesson.answers("p1", "+" * 40, every_s=10)
    lesson.store()

    whole = selectors.student_buckets("p1", who=alice, since=lesson.begin, until=now, bucket_s=60)
    part = selectors.student_buckets("p1", who=alice, since=whole[2].at, until=now, bucket_s=60)

    assert part == whole[2:]
    assert all(bucket.at.second == 0 for bucket in whole)
    assert sum(bucket.attempts for bucket in whole) == 40


def test_more_buckets_than_anybody_can_look_at_are_refused(room, alice, now):
    with pytest.raises(Invalid):
        selectors.student_buckets("p1", who=alice, since=now - dt.timedelta(days=7), until=now, bucket_s=1)


# ---------------------------------------------------------------- effects


def test_an_effect_is_measured_when_its_time_has_passed(room, alice, raised, now):
    lesson = Lesson(room, now - 25 * MINUTE)
    lesson.answers("p1", "-" * 12, begin_s=10, every_s=20)
    lesson.answers("p1", "+" * 12, begin_s=310, every_s=20)
    lesson.answers("p2", "-" * 12, begin_s=310, every_s=20)
    lesson.store()
    early = services.record_intervention(raised().pk, who=alice, kind="explained", now=lesson.at(300))
    recent = services.record_intervention(raised("p2").pk, who=alice, kind="hinted", now=now - 2 * MINUTE)

    assert effects.measure_due(now=now) == 1
    assert effects.measure_due(now=now) == 0

    early.refresh_from_db()
    recent.refresh_from_db()
    assert early.effect["verdict"] == "better"
    assert (early.effect["before"]["n"], early.effect["after"]["n"]) == (12, 12)
    assert recent.effect is None


def test_little_data_is_called_that(raised, alice, now):
    services.record_intervention(raised().pk, who=alice, kind="explained", now=now - 30 * MINUTE)

    effects.measure_due(now=now)

    assert Intervention.objects.get().effect["verdict"] == "insufficient_data"


def test_wilsons_interval_is_the_one_of_the_paper():
    low, high = Share(81, 263).interval()

    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


def test_the_interval_of_a_difference_is_newcombes():
    """56/70 against 48/80: 0.2, from 0.0524 to 0.3339 (Newcombe 1998, table II, method 10)."""
    found = gap(Share(48, 80), Share(56, 70))

    assert (round(found.low, 4), round(found.high, 4)) == (0.0524, 0.3339)


@given(st.integers(5, 200), st.data())
def test_a_verdict_turned_round_is_its_opposite(n, data):
    before, after = (Share(data.draw(st.integers(0, n)), n) for _ in range(2))
    opposite = {"better": "worse", "worse": "better", "unclear": "unclear"}

    assert verdict_of(after, before) == opposite[verdict_of(before, after)]
    low, high = before.interval()
    assert 0 <= low <= before.value <= high <= 1


# ---------------------------------------------------------------- trends, apps


def test_the_last_whole_window_is_taken_once_for_each_app_in_use(room, now):
    end = snapshots.window_before(now)[1]
    lesson = Lesson(room, end - 3 * MINUTE)
    lesson.does(0, "p1", "keypress", 10)
    lesson.does(0, "p1", "keypress", 10, app_name="other-app")
    lesson.store()

    assert snapshots.take_due([room.pk], now=now) == 2
    assert snapshots.take_due([room.pk], now=now) == 0


def test_trends_leave_out_groups_that_would_name_a_pupil(room, alice, raised, now):
    for number in range(6):
        services.record_event(
            student_id=f"p{number % 3}",
            app_name=APP,
            event_type=("accuracy", "pace")[number % 2],
            severity="high",
            details={},
            detected_at=now - dt.timedelta(days=8),
        )
    for kind, times in (("explained", 5), ("hinted", 4)):
        for _ in range(times):
            services.record_intervention(raised().pk, who=alice, kind=kind, now=now - dt.timedelta(days=7))
    Intervention.objects.update(
        effect={"before": {"share": 0.2, "n": 10}, "after": {"share": 0.8, "n": 10}, "verdict": "better"}
    )

    found = selectors.trends(room.pk, who=alice, since=now - dt.timedelta(weeks=4), until=now)

    assert [week.with_signal for week in found.spans if week.with_signal] == [3]
    busy = next(week for week in found.spans if week.with_signal)
    assert busy.share == pytest.approx(0.5)
    assert busy.low < busy.share < busy.high
    assert all(week.share is None for week in found.spans if not week.with_signal)
    assert [(kind.kind, kind.times, kind.effect.verdict) for kind in found.help_kinds] == [
        ("explained", 5, "better")
    ]
    assert {family.family: family.signals for family in found.families} == {"accuracy": 3, "pace": 3}


def test_an_apps_health_is_what_was_counted(room, alice, charlie, other_room, now):
    hour = now.replace(minute=0, second=0)
    for measure, label, count in (
        ("accepted", "", 200),
        ("late", "", 10),
        ("rejected", "unknown_type", 3),
        ("rage_click", "submit", 7),
        ("sdk", "1.2.0", 200),
    ):
        AppHealthCount.objects.create(app_name=APP, hour=hour, measure=measure, label=label, count=count)

    found = selectors.app_health(APP, who=alice, since=now - dt.timedelta(hours=1), until=now + MINUTE)

    assert (found.metrics, found.late_share) == (200, 0.05)
    assert found.rejected == {"unknown_type": 3}
    assert found.rage_clicks == (("submit", 7),)
    assert found.sdk_versions == {"1.2.0": 200}
    with pytest.raises(NotFound):
        selectors.app_health(APP, who=charlie, since=hour, until=now)


def test_a_summary_of_ratings_counts_each_star(room, alice, charlie, other_room):
    for number, stars in enumerate((5, 5, 2)):
        services.record_rating(student_id=f"p{number}", app_name=APP, session_id="s", rating=stars)

    found = selectors.ratings_summary(who=alice, app_name=APP)

    assert (found.count, found.counts) == (3, {1: 0, 2: 1, 3: 0, 4: 0, 5: 2})
    assert found.average == pytest.approx(4)
    assert selectors.ratings_summary(who=charlie).average is None


def test_changes_after_a_cursor_come_in_the_order_of_change(room, alice, raised):
    first, second, third = raised("p0"), raised("p1"), raised("p2")
    services.on_my_way(first.pk, who=alice)

    changes = selectors.alerts_after(room.pk, first.seq)

    assert [change.signal.alert_id for change in changes] == [second.pk, third.pk, first.pk]
    assert [change.type_for(first.seq) for change in changes] == ["alert", "alert", "alert.updated"]
    assert selectors.alerts_after(room.pk, changes[-1].cursor) == []
    assert TeacherDashboardAlert.objects.values("seq").distinct().count() == 3
