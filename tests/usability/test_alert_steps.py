"""What a teacher does with an alert: every step, its undo, and what a second tap or a co-teacher changes."""

from __future__ import annotations

import datetime as dt

import pytest
from django.utils import timezone

from usability import selectors, services
from usability.errors import Conflict, Invalid, NotFound
from usability.models import AlertStep, Enrollment, FrustrationEvent, Intervention, TeacherDashboardAlert
from usability.services.alerts import _RESTORED as RESTORED

pytestmark = pytest.mark.usefixtures("days")

SECOND = dt.timedelta(seconds=1)


@pytest.fixture
def now():
    return timezone.now().replace(microsecond=0)


def stored(alert):
    return TeacherDashboardAlert.objects.get(pk=alert.pk)


def test_on_my_way_is_shared_with_the_co_teacher(room, alice, bob, raised, now):
    alert = services.on_my_way(raised().pk, who=alice, now=now)

    picture = selectors.live_class(room.pk, who=bob)

    assert (alert.state, alert.helping_at, alert.acknowledged_by) == ("helping", now, alice)
    assert picture.signals[0].helpers == ("Alice",)
    assert (picture.tally.being_helped, picture.tally.needs_now) == (1, 0)


def test_the_first_on_the_way_stays_the_helper(alice, bob, raised, now):
    alert = raised()
    services.on_my_way(alert.pk, who=alice, now=now)
    services.on_my_way(alert.pk, who=bob, now=now + SECOND)

    assert stored(alert).helping_by == alice


def test_helped_resolves_and_keeps_the_help(alice, raised, now):
    alert = services.helped(raised().pk, who=alice, category="explained", note="with a drawing", now=now)

    kept = Intervention.objects.get()
    assert (alert.state, alert.closed_by, alert.closed_at) == ("resolved", alice, now)
    assert (kept.kind, kept.note, kept.teacher) == ("explained", "with a drawing", alice)


def test_help_after_the_pupil_recovered_is_kept_and_the_alert_stays_closed(alice, raised, now):
    alert = raised()
    TeacherDashboardAlert.objects.filter(pk=alert.pk).update(state="resolved", closed_at=now)

    services.helped(alert.pk, who=alice, category="hinted", now=now + SECOND)

    assert stored(alert).closed_at == now
    assert Intervention.objects.count() == 1


def test_not_a_problem_is_a_label(alice, raised):
    alert = services.dismiss_alert(raised().pk, who=alice)

    assert alert.state == "dismissed"
    assert AlertStep.objects.get(alert=alert).verb == "dismiss"


def test_a_click_never_ends_the_episode(alice, room, raised):
    event = services.record_event(
        student_id="p1",
        app_name="fractions-lab",
        event_type="accuracy",
        severity="high",
        details={},
        detected_at=timezone.now(),
    )
    services.helped(raised(event=event).pk, who=alice, category="explained")
    event.refresh_from_db()

    assert event.is_open
    assert event.acknowledged_by == alice


def test_a_snoozed_pupil_rests_and_the_alert_stays_open(room, alice, raised, now):
    alert = services.snooze_alert(raised().pk, who=alice, minutes=10, now=now)

    picture = selectors.live_class(room.pk, who=alice, now=now + SECOND)
    later = selectors.live_class(room.pk, who=alice, now=now + dt.timedelta(minutes=11))

    assert alert.is_open
    assert Enrollment.objects.get(student_id="p1").snoozed_until == now + dt.timedelta(minutes=10)
    assert ([one.alert_id for one in picture.snoozed], picture.signals) == ([alert.pk], ())
    assert [one.alert_id for one in later.signals] == [alert.pk]


@pytest.mark.parametrize("minutes", [0, -5, 24 * 60 + 1])
def test_a_snooze_of_no_sensible_length_is_refused(alice, raised, minutes):
    with pytest.raises(Invalid):
        services.snooze_alert(raised().pk, who=alice, minutes=minutes)


STEPS = {
    "acknowledge": lambda pk, who, now: services.acknowledge_alert(pk, who=who, note="n", now=now),
    "on_my_way": lambda pk, who, now: services.on_my_way(pk, who=who, now=now),
    "helped": lambda pk, who, now: services.helped(pk, who=who, category="explained", now=now),
    "dismiss": lambda pk, who, now: services.dismiss_alert(pk, who=who, now=now),
    "snooze": lambda pk, who, now: services.snooze_alert(pk, who=who, now=now),
    "resolve": lambda pk, who, now: services.resolve_alert(pk, who=who, now=now),
}


@pytest.mark.parametrize("verb", STEPS)
def test_every_step_can_be_undone_within_ten_seconds(alice, raised, now, verb):
    alert = raised()
    before = {name: getattr(stored(alert), name) for name in RESTORED}
    changed = STEPS[verb](alert.pk, alice, now)

    undone = services.undo(alert.pk, who=alice, now=now + 10 * SECOND)

    assert {name: getattr(stored(alert), name) for name in RESTORED} == before
    assert undone.seq > changed.seq
    assert not Intervention.objects.exists()
    assert Enrollment.objects.get(student_id="p1").snoozed_until is None


@pytest.mark.parametrize("verb", sorted(set(STEPS) - {"on_my_way"}))
def test_after_that_it_is_too_late(alice, raised, now, verb):
    alert = raised()
    STEPS[verb](alert.pk, alice, now)
    with pytest.raises(Conflict):
        services.undo(alert.pk, who=alice, now=now + 60 * SECOND)


def test_being_on_the_way_can_be_taken_back_at_any_time(alice, raised, now):
    alert = raised()
    services.on_my_way(alert.pk, who=alice, now=now)

    services.undo(alert.pk, who=alice, now=now + 300 * SECOND)

    assert stored(alert).state == "new"


def test_nobody_undoes_another_persons_step(alice, bob, raised, now):
    alert = raised()
    services.dismiss_alert(alert.pk, who=alice, now=now)
    with pytest.raises(Conflict):
        services.undo(alert.pk, who=bob, now=now)


def test_undo_goes_back_step_by_step(alice, raised, now):
    alert = raised()
    services.on_my_way(alert.pk, who=alice, now=now)
    services.helped(alert.pk, who=alice, category="explained", now=now + SECOND)

    states = [services.undo(alert.pk, who=alice, now=now + 2 * SECOND).state for _ in range(2)]

    assert states == ["helping", "new"]


@pytest.mark.parametrize("verb", sorted(set(STEPS) - {"snooze"}))
def test_a_tap_that_was_sent_twice_changes_nothing_the_second_time(alice, raised, now, verb):
    alert = raised()
    first = STEPS[verb](alert.pk, alice, now)
    STEPS[verb](alert.pk, alice, now + SECOND)

    assert stored(alert).seq == first.seq
    assert AlertStep.objects.count() == 1
    assert Intervention.objects.count() <= 1


@pytest.mark.parametrize("verb", STEPS)
def test_somebody_elses_alert_is_not_found(other_room, charlie, raised, now, verb):
    alert = raised()
    with pytest.raises(NotFound):
        STEPS[verb](alert.pk, charlie, now)
    assert stored(alert).state == "new"


def test_alerts_that_nothing_touched_for_an_hour_expire(alice, raised, now):
    stale, fresh = raised(), raised("p2")
    TeacherDashboardAlert.objects.filter(pk=stale.pk).update(updated_at=now - dt.timedelta(minutes=61))

    assert services.expire_alerts(now=now) == 1
    assert (stored(stale).state, stored(fresh).state) == ("expired", "new")


def test_an_alert_of_an_episode_that_goes_on_does_not_expire(raised, room, now):
    event = services.record_event(
        student_id="p1",
        app_name="fractions-lab",
        event_type="accuracy",
        severity="high",
        details={},
        detected_at=now,
    )
    alert = raised(event=event)
    TeacherDashboardAlert.objects.filter(pk=alert.pk).update(updated_at=now - dt.timedelta(minutes=61))

    assert services.expire_alerts(now=now) == 0


# ---------------------------------------------------------------- class settings


def test_a_pause_and_its_end(room, alice, now):
    services.pause_class(room.pk, who=alice, minutes=15, now=now)
    paused = selectors.live_class(room.pk, who=alice, now=now).pause
    services.resume_class(room.pk, who=alice)

    assert (paused.why, paused.until) == ("paused", now + dt.timedelta(minutes=15))
    assert selectors.live_class(room.pk, who=alice, now=now).pause is None


def test_a_budget_is_a_new_version_and_the_old_one_stays(room, alice):
    from usability.models import DetectorProfile
    from usability.policies import room_policies

    services.set_budget(room.pk, who=alice, alerts=1)
    services.set_budget(room.pk, who=alice, alerts=2, per_minutes=10, burst=5)

    versions = DetectorProfile.objects.filter(classroom=room).order_by("version")
    budget = room_policies([room.pk], timezone.now())[room.pk].profile.budget
    assert [(row.version, row.is_active) for row in versions] == [(1, False), (2, True)]
    assert (budget.interval_s, budget.burst) == (300, 5)


def test_quiet_hours_are_the_schools_own(room, alice):
    room.school.time_zone = "Asia/Tokyo"
    room.school.save()
    services.set_quiet_hours(room.pk, who=alice, starts_at="12:00", ends_at="13:00")
    noon_in_tokyo = dt.datetime(2026, 6, 1, 3, 30, tzinfo=dt.UTC)

    inside = selectors.live_class(room.pk, who=alice, now=noon_in_tokyo).pause
    outside = selectors.live_class(room.pk, who=alice, now=noon_in_tokyo + dt.timedelta(hours=1)).pause

    assert (inside.why, inside.until) == ("quiet_hours", dt.datetime(2026, 6, 1, 4, tzinfo=dt.UTC))
    assert outside is None


def test_quiet_hours_over_midnight_belong_to_the_day_they_begin_on(room, alice):
    services.set_quiet_hours(room.pk, who=alice, starts_at="22:00", ends_at="06:00", days=(1,))
    tuesday_early = dt.datetime(2026, 6, 2, 3, tzinfo=dt.UTC)

    assert selectors.live_class(room.pk, who=alice, now=tuesday_early).pause.why == "quiet_hours"
    assert selectors.live_class(room.pk, who=alice, now=tuesday_early + dt.timedelta(days=1)).pause is None


def test_a_profile_turns_detectors_off(room, alice):
    from usability.detection.registry import DETECTORS
    from usability.policies import room_policies

    services.set_profile(room.pk, who=alice, preset="later", switches={"idle": False})

    profile = room_policies([room.pk], timezone.now())[room.pk].profile
    by_name = {detector.name: params for detector, params in zip(DETECTORS, profile.detectors, strict=True)}
    assert profile.episodes.hold_s == 60
    assert not by_name["idle"].enabled
    assert by_name["error_streak"].enabled


@pytest.mark.parametrize(
    "change",
    [
        lambda room, who: services.set_budget(room, who=who, alerts=21),
        lambda room, who: services.set_quiet_hours(room, who=who, starts_at="25:00", ends_at="06:00"),
        lambda room, who: services.set_profile(room, who=who, preset="wild"),
        lambda room, who: services.set_profile(room, who=who, switches={"mood": True}),
        lambda room, who: services.pause_class(room, who=who, minutes=0),
        lambda room, who: services.set_seats(room, who=who, seats={"p1": "12"}),
        lambda room, who: services.set_seats(room, who=who, seats={"p1": "A1"}),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_and_changes_nothing(room, alice, change):
    from usability.models import DetectorProfile

    with pytest.raises(Invalid):
        change(room.pk, alice)
    assert not DetectorProfile.objects.exists()
    assert Enrollment.objects.get(student_id="p1").seat == "B1"


def test_two_pupils_change_places(room, alice):
    plan = services.set_seats(room.pk, who=alice, seats={"p0": "B1", "p1": "A1"})

    assert (plan["p0"], plan["p1"]) == ("B1", "A1")
    assert Enrollment.objects.get(student_id="p0").seat == "B1"


def test_undo_leaves_closed_what_evidence_has_closed_since(alice, raised, now):
    alert = raised()
    services.acknowledge_alert(alert.pk, who=alice, now=now)
    TeacherDashboardAlert.objects.filter(pk=alert.pk).update(state="resolved", closed_at=now + SECOND)

    services.undo(alert.pk, who=alice, now=now + 2 * SECOND)

    assert (stored(alert).state, stored(alert).closed_at) == ("resolved", now + SECOND)
    assert stored(alert).acknowledged_at is None


def test_undo_opens_no_alert_whose_episode_ended_meanwhile(alice, raised, now):
    event = services.record_event(
        student_id="p1",
        app_name="fractions-lab",
        event_type="accuracy",
        severity="high",
        details={},
        detected_at=now - 60 * SECOND,
    )
    alert = raised(event=event)
    services.dismiss_alert(alert.pk, who=alice, now=now)
    FrustrationEvent.objects.filter(pk=event.pk).update(ended_at=now + SECOND)

    services.undo(alert.pk, who=alice, now=now + 2 * SECOND)

    assert (stored(alert).state, stored(alert).closed_at) == ("resolved", now + SECOND)
