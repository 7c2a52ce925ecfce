"""The worker, stepped by hand: from stored metrics to events and alerts, and what a crash changes (nothing)."""

from __future__ import annotations

import datetime as dt

import pytest
from django.utils import timezone
from usability_lessons import Clock, Lesson, arriving, run_until, worker_at

from usability.models import FrustrationEvent, TeacherDashboardAlert

pytestmark = pytest.mark.usefixtures("days")


def begin_of_lesson(minutes: float = 15) -> dt.datetime:
    """A quarter of an hour ago, at a whole second."""
    return (timezone.now() - dt.timedelta(minutes=minutes)).replace(microsecond=0)


def outcome() -> list[tuple]:
    """Everything detection wrote, without what may differ between two runs (numbers, row stamps)."""
    events = FrustrationEvent.objects.order_by("id").values_list(
        "id", "student_id", "event_type", "severity", "detected_at", "ended_at", "revision"
    )
    alerts = TeacherDashboardAlert.objects.order_by("id").values_list(
        "id", "student_id", "alert_type", "severity", "state", "is_interrupting", "detected_at"
    )
    return [*events, *alerts]


def test_wrong_answers_in_a_row_become_one_event_and_one_alert(room):
    lesson = Lesson(room, begin_of_lesson())
    lesson.answers("p1", "++------", item="8")
    clock = Clock(lesson.begin)

    run_until(worker_at(clock), clock, lesson.at(120), before_step=arriving(lesson.rows))

    event = FrustrationEvent.objects.get(event_type="accuracy")
    alert = TeacherDashboardAlert.objects.get(event=event)
    assert event.student_id == "p1"
    assert alert.classroom_id == room.pk
    assert alert.seq > 0
    assert "wrong" in alert.details["reason"]


def test_right_answers_raise_nothing(room):
    lesson = Lesson(room, begin_of_lesson())
    lesson.answers("p1", "+++++++++")
    clock = Clock(lesson.begin)

    run_until(worker_at(clock), clock, lesson.at(120), before_step=arriving(lesson.rows))

    assert not FrustrationEvent.objects.exists()


def classwork(room) -> Lesson:
    """A lesson with several struggles, some that overlap, a request for help and a recovery."""
    lesson = Lesson(room, begin_of_lesson())
    lesson.answers("p0", "++++++++++++", every_s=15, item="1", skill="adding")
    lesson.answers("p1", "+-------+++++++", every_s=9, item="8", skill="halves")
    lesson.answers("p2", "-+--------", every_s=12, item="3", skill="thirds")
    for second in range(5, 200, 5):
        lesson.does(second, "p3", "keypress", 20)
        lesson.does(second + 0.1, "p3", "backspace", 2 if second < 90 else 15)
    lesson.does(70, "p4", "help_request", item="9")
    lesson.answers("p4", "--+++", begin_s=80, every_s=10, item="9")
    lesson.does(20, "p5", "focus")
    lesson.does(60, "p5", "blur")
    return lesson


def undisturbed(lesson: Lesson) -> list[tuple]:
    """What one worker makes of the lesson; the database is as before afterwards."""
    from django.db import transaction

    clock = Clock(lesson.begin)
    with transaction.atomic():
        run_until(worker_at(clock), clock, lesson.at(240), step_s=2, before_step=arriving(lesson.rows))
        found = outcome()
        transaction.set_rollback(True)
    for row in lesson.rows:
        row._state.adding = True
    return found


@pytest.mark.parametrize("dies_at_s", [31, 118, 163])
def test_a_worker_that_dies_leaves_no_trace_in_what_is_written(room, dies_at_s):
    lesson = classwork(room)
    expected = undisturbed(lesson)
    clock = Clock(lesson.begin)
    store = arriving(lesson.rows)
    first = worker_at(clock, "first")
    run_until(first, clock, lesson.at(dies_at_s), step_s=2, before_step=store)

    # It is gone without a word; for four seconds rows come and nobody reads them.
    let_leases_pass()
    clock.now += dt.timedelta(seconds=4)
    store(clock.now)
    second = worker_at(clock, "second")
    run_until(second, clock, lesson.at(240), step_s=2, before_step=store)

    assert len(expected) > 6
    assert outcome() == expected


@pytest.mark.parametrize("dies_at_s", [74])
def test_without_checkpoints_the_rows_alone_give_the_same(room, dies_at_s):
    from usability.models import RoomCheckpoint

    lesson = classwork(room)
    expected = undisturbed(lesson)
    clock = Clock(lesson.begin)
    store = arriving(lesson.rows)
    run_until(worker_at(clock, "first"), clock, lesson.at(dies_at_s), before_step=store)
    let_leases_pass()
    RoomCheckpoint.objects.all().delete()
    run_until(worker_at(clock, "second"), clock, lesson.at(240), step_s=2, before_step=store)

    assert outcome() == expected


def let_leases_pass() -> None:
    """As if the lease's time had gone by, of partitions and of workers alike."""
    from usability.models import DetectionWorker, StreamPartition

    long_ago = timezone.now() - dt.timedelta(minutes=1)
    StreamPartition.objects.update(until=long_ago)
    DetectionWorker.objects.update(until=long_ago)


def test_a_worker_that_was_stopped_and_wakes_up_writes_nothing(room):
    lesson = classwork(room)
    clock = Clock(lesson.begin)
    store = arriving(lesson.rows)
    stopped = worker_at(clock, "stopped")
    run_until(stopped, clock, lesson.at(40), before_step=store)
    let_leases_pass()
    run_until(worker_at(clock, "successor"), clock, lesson.at(120), before_step=store)
    before = outcome()

    # It believes that its lease was renewed a moment ago.
    stopped._renewed_s = clock.monotonic_s() + 60
    clock.now += dt.timedelta(seconds=1)
    stopped.step()

    assert stopped.held == {}
    assert outcome() == before


def test_rows_that_come_late_are_stored_and_alert_nobody(room):
    lesson = Lesson(room, begin_of_lesson())
    for number in range(8):
        lesson.does(number * 8, "p1", "answer", 0.0, delay_s=700)
    clock = Clock(lesson.at(690))

    run_until(worker_at(clock), clock, lesson.at(830), before_step=arriving(lesson.rows))

    assert not FrustrationEvent.objects.exists()


def test_a_row_that_was_committed_late_is_found_by_the_sweep(room):
    lesson = Lesson(room, begin_of_lesson())
    asked = lesson.does(10, "p1", "help_request", item="9")
    clock = Clock(lesson.begin)
    worker = worker_at(clock)
    run_until(worker, clock, lesson.at(19))

    asked.save(force_insert=True)
    run_until(worker, clock, lesson.at(26))

    assert TeacherDashboardAlert.objects.get().alert_type == "help"


def test_a_request_for_help_is_told_at_once_and_tied_to_the_pupils_request(room, alice):
    from usability import selectors, services
    from usability.models import HelpRequest

    lesson = Lesson(room, begin_of_lesson())
    asked = lesson.does(10, "p1", "help_request", item="9")
    HelpRequest.objects.create(id=asked.pk, student_id="p1", classroom=room, app_name="fractions-lab")
    clock = Clock(lesson.begin)

    run_until(worker_at(clock), clock, lesson.at(12), before_step=arriving(lesson.rows))
    alert = TeacherDashboardAlert.objects.get()
    states = [HelpRequest.objects.get().state]
    services.acknowledge_alert(alert.pk, who=alice)
    states.append(HelpRequest.objects.get().state)
    services.on_my_way(alert.pk, who=alice)
    states.append(selectors.help_request_state(asked.pk, who=alice))
    services.helped(alert.pk, who=alice, category="explained")
    states.append(selectors.help_request_state(asked.pk, who=alice))

    assert alert.is_interrupting
    assert states == ["sent", "seen", "coming", "done"]


def test_a_pupil_who_asks_again_after_help_is_told_again(room, alice):
    from usability import services
    from usability.models import HelpRequest

    lesson = Lesson(room, begin_of_lesson())
    asked = [lesson.does(second, "p1", "help_request", item="9") for second in (10, 60)]
    for one in asked:
        HelpRequest.objects.create(id=one.pk, student_id="p1", classroom=room, app_name="fractions-lab")
    clock = Clock(lesson.begin)
    store = arriving(lesson.rows)
    worker = worker_at(clock)
    run_until(worker, clock, lesson.at(20), before_step=store)
    services.helped(TeacherDashboardAlert.objects.get().pk, who=alice, category="explained")

    run_until(worker, clock, lesson.at(65), before_step=store)

    assert TeacherDashboardAlert.objects.get(alert_type="help").state == "new"
    # The first request was answered and stays so; only the second waits.
    assert [HelpRequest.objects.get(pk=one.pk).state for one in asked] == ["done", "sent"]


def test_what_a_teacher_dismissed_stays_dismissed_while_the_episode_grows(room, alice):
    from usability import services

    lesson = Lesson(room, begin_of_lesson())
    lesson.answers("p1", "-" * 40, every_s=9, item="8", skill="halves")
    clock = Clock(lesson.begin)
    store = arriving(lesson.rows)
    worker = worker_at(clock)
    run_until(worker, clock, lesson.at(75), before_step=store)
    alerts = list(TeacherDashboardAlert.objects.filter(student_id="p1"))
    for alert in alerts:
        services.dismiss_alert(alert.pk, who=alice)

    run_until(worker, clock, lesson.at(300), step_s=2, before_step=store)

    assert alerts
    again = TeacherDashboardAlert.objects.filter(pk__in=[alert.pk for alert in alerts])
    assert {alert.state for alert in again} <= {"dismissed"}
    assert any(alert.event.revision > 1 for alert in again.select_related("event"))


def test_what_is_beyond_the_budget_waits_in_the_list(room, alice):
    from usability import services

    services.set_budget(room.pk, who=alice, alerts=0)
    lesson = Lesson(room, begin_of_lesson())
    lesson.answers("p1", "++------", item="8")
    clock = Clock(lesson.begin)

    run_until(worker_at(clock), clock, lesson.at(80), before_step=arriving(lesson.rows))

    alert = TeacherDashboardAlert.objects.filter(student_id="p1").first()
    assert not alert.is_interrupting
    assert alert.details["held_back"] in ("budget", "info")


def test_two_workers_share_the_partitions_and_take_over_from_each_other(room):
    from usability.stream_partition import PARTITIONS

    clock = Clock(timezone.now())
    one, two = worker_at(clock, "one"), worker_at(clock, "two")
    for _ in range(4):
        clock.now += dt.timedelta(seconds=1.1)
        one.step()
        two.step()
    shared = (len(one.held), len(two.held), set(one.held) & set(two.held))
    two.stop()
    clock.now += dt.timedelta(seconds=1.1)
    one.step()

    assert shared == (PARTITIONS // 2, PARTITIONS // 2, set())
    assert len(one.held) == PARTITIONS
