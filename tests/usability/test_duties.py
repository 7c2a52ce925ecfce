"""What workers do besides detecting: each duty in its turn, by one worker, safe to repeat."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys

import pytest
from django.utils import timezone
from usability_lessons import APP, Lesson

from usability import ownership, services
from usability.duties import Duties, upkeep
from usability.management.commands import usability_worker
from usability.models import (
    AppHealthCount,
    ClassroomMetricsSnapshot,
    DetectionWorker,
    IngestBatch,
    Intervention,
    StreamPartition,
    StudentAccess,
)
from usability.snapshots import window_before

pytestmark = pytest.mark.usefixtures("days")


def all_turns(duties, room, now, *, held):
    return [duties.step(held=held, classroom_ids=[room.pk], now=now) for _ in range(6)]


def test_each_duty_that_is_due_is_done_once(room, alice, raised):
    now = timezone.now()
    lesson = Lesson(room, window_before(now)[0])
    lesson.does(5, "p1", "keypress", 10, app_name=APP)
    lesson.store()
    services.record_intervention(raised().pk, who=alice, kind="explained", now=now - dt.timedelta(minutes=20))
    duties = Duties(now)

    all_turns(duties, room, now, held=[0])

    assert ClassroomMetricsSnapshot.objects.count() == 1
    assert Intervention.objects.get().effect is not None
    assert duties.step(held=[0], classroom_ids=[room.pk], now=now) is False


def test_who_does_not_hold_the_first_partition_leaves_the_rest_to_its_holder(room, alice, raised):
    now = timezone.now()
    services.record_intervention(raised().pk, who=alice, kind="explained", now=now - dt.timedelta(minutes=20))

    all_turns(Duties(now), room, now, held=[3])

    assert Intervention.objects.get().effect is None


def test_upkeep_forgets_old_batch_ids_and_keeps_the_others(db):
    now = timezone.now()
    for batch_id, age in (("old", 49), ("new", 1)):
        IngestBatch.objects.create(
            scope="s", batch_id=batch_id, fingerprint=b"", received_at=now - dt.timedelta(hours=age)
        )

    upkeep(now)

    assert [batch.batch_id for batch in IngestBatch.objects.all()] == ["new"]


def test_upkeep_drops_each_kind_of_row_when_its_time_is_over(db):
    now = timezone.now()
    for days in (729, 731):
        StudentAccess.objects.create(
            student_id="s-1", action="view_timeline", at=now - dt.timedelta(days=days)
        )
    for days in (89, 91):
        hour = (now - dt.timedelta(days=days)).replace(minute=0, second=0, microsecond=0)
        AppHealthCount.objects.create(app_name="fractions-lab", hour=hour, measure="accepted", count=1)

    upkeep(now)

    assert [(now - one.at).days for one in StudentAccess.objects.all()] == [729]
    assert AppHealthCount.objects.get().hour > now - dt.timedelta(days=90)


def test_what_a_dead_worker_of_this_machine_held_is_free_at_once(db):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    now = timezone.now()
    names = [f"here-{ended.pid}", f"here-{os.getpid()}", "here-by-name", f"elsewhere-{ended.pid}"]
    for name in names:
        ownership.renew(name, (), now=now)

    usability_worker._release_dead("here")

    assert set(DetectionWorker.objects.values_list("name", flat=True)) == set(names[1:])
    assert not StreamPartition.objects.filter(owner=names[0]).exists()
