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
