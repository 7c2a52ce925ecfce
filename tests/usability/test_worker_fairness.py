"""No class stalls the others: backlogs are folded in slices, and what a detector fails on is left out alone."""

from __future__ import annotations

import datetime as dt

import pytest
from django.utils import timezone
from usability_lessons import Clock, Lesson, arriving, run_until, worker_at

from usability import worker as worker_module
from usability.models import FrustrationEvent, RoomCheckpoint, StreamPartition

pytestmark = pytest.mark.usefixtures("days")


def begin_of_lesson() -> dt.datetime:
    return (timezone.now() - dt.timedelta(minutes=15)).replace(microsecond=0)


def told(**of: object) -> list[tuple]:
    return list(
        FrustrationEvent.objects.filter(**of)
        .order_by("id")
        .values_list("id", "student_id", "event_type", "severity", "detected_at", "ended_at", "revision")
    )


def begin_again(worker) -> None:
    """Nothing is detected yet, and nobody holds anything; the rows stay."""
    worker.stop()
    FrustrationEvent.objects.all().delete()
    RoomCheckpoint.objects.all().delete()
    StreamPartition.objects.all().delete()


def two_strugglers(room) -> Lesson:
    lesson = Lesson(room, begin_of_lesson())
    lesson.answers("p1", "+-------+++++++", every_s=9, item="8", skill="halves")
    lesson.answers("p2", "-+--------", every_s=12, item="3", skill="thirds")
    return lesson


def test_how_a_backlog_is_sliced_changes_nothing(room, monkeypatch):
    lesson = two_strugglers(room)
    stored = list(lesson.rows)
    lesson.store()
    clock = Clock(lesson.at(200))
    first = worker_at(clock)
    run_until(first, clock, lesson.at(240), step_s=2)
    expected = told()
    begin_again(first)
    monkeypatch.setattr(worker_module, "STEP_ROWS", 1)
    monkeypatch.setattr(worker_module, "SLICE_AT_LEAST", 3)
    clock = Clock(lesson.at(200))
    sliced = worker_at(clock, "w2")

    run_until(sliced, clock, lesson.at(240), step_s=1)

    assert len(stored) > 20
    assert len(expected) >= 2
    assert told() == expected


def test_a_class_with_a_flood_does_not_keep_the_others_waiting(room, other_room, monkeypatch):
    monkeypatch.setattr(worker_module, "STEP_ROWS", 400)
    flood = Lesson(room, begin_of_lesson())
    for number in range(6_000):
        flood.does(5 + number / 100, "p0", "keypress", 3)
    quiet = Lesson(other_room, flood.begin)
    quiet.answers("q0", "++------", every_s=2)
    flood.store()
    quiet.store()
    clock = Clock(flood.at(70))
    worker = worker_at(clock)

    told_after = None
    for step in range(40):
        clock.now += dt.timedelta(seconds=1)
        worker.step()
        if told_after is None and FrustrationEvent.objects.filter(student_id="q0").exists():
            told_after = step
    flooded = worker.rooms[room.pk]

    assert told_after is not None
    assert told_after <= 3
    assert flooded.waiting == []


def test_while_a_room_is_behind_its_partition_is_not_said_to_be_judged(room, monkeypatch):
    monkeypatch.setattr(worker_module, "STEP_ROWS", 1)
    monkeypatch.setattr(worker_module, "SLICE_AT_LEAST", 5)
    lesson = Lesson(room, begin_of_lesson())
    for number in range(50):
        lesson.does(number, "p0", "keypress", 3)
    lesson.store()
    clock = Clock(lesson.at(120))
    worker = worker_at(clock)

    for _ in range(4):
        clock.now += dt.timedelta(seconds=2.1)
        worker.step()
    behind = worker.rooms[room.pk]
    judged = StreamPartition.objects.get(partition=behind.partition).cursor_received_at

    assert behind.waiting
    assert judged < lesson.at(50)


def fail_on_item(monkeypatch: pytest.MonkeyPatch, item: str) -> None:
    """A detector that fails on what it reads: the fault that rows of this item bring out."""
    kind = type(next(one for one in worker_module.room_fold.DETECTORS if one.name == "error_streak"))
    advance = kind.advance

    def failing(self, state, observation, *rest, **named):
        if observation.item == item:
            raise ZeroDivisionError
        return advance(self, state, observation, *rest, **named)

    monkeypatch.setattr(kind, "advance", failing)


def test_an_observation_that_a_detector_fails_on_is_left_out_alone(room, monkeypatch):
    lesson = two_strugglers(room)
    clock = Clock(lesson.begin)
    first = worker_at(clock)
    run_until(first, clock, lesson.at(240), step_s=2, before_step=arriving(lesson.rows))
    expected = told(student_id__in=("p1", "p2"))
    begin_again(first)
    fail_on_item(monkeypatch, "poison")
    for second in (11, 33, 34, 90):
        lesson.does(second, "p0", "answer", 0.0, item="poison")
    poison = [row for row in lesson.rows if (row.metadata or {}).get("item") == "poison"]
    clock = Clock(lesson.begin)

    run_until(worker_at(clock, "w2"), clock, lesson.at(240), step_s=2, before_step=arriving(poison))

    assert len(expected) >= 2
    assert told(student_id__in=("p1", "p2")) == expected


def test_a_room_whose_state_cannot_be_folded_is_built_again_and_the_others_go_on(
    room, other_room, monkeypatch
):
    step = worker_module.room_fold.step
    broken = {"is": True}

    def failing(state, *rest, **named):
        if broken["is"] and state.classroom_id == str(room.pk):
            raise ZeroDivisionError
        return step(state, *rest, **named)

    monkeypatch.setattr(worker_module.room_fold, "step", failing)
    lesson, other = Lesson(room, begin_of_lesson()), Lesson(other_room, begin_of_lesson())
    lesson.answers("p1", "++------", every_s=4)
    other.answers("q0", "++------", every_s=4)
    clock = Clock(lesson.begin)
    worker = worker_at(clock)
    store = arriving([*lesson.rows, *other.rows])

    run_until(worker, clock, lesson.at(60), before_step=store)
    others_meanwhile = FrustrationEvent.objects.filter(student_id="q0", event_type="accuracy").count()
    broken["is"] = False
    run_until(worker, clock, lesson.at(160), before_step=store)

    assert others_meanwhile == 1
    assert FrustrationEvent.objects.filter(student_id="p1", event_type="accuracy").count() == 1
