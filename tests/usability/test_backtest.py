"""Back-tests: stored metrics once more through the fold of production, with other parameters."""

from __future__ import annotations

import datetime as dt
import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from usability_lessons import APP, Clock, Lesson, run_until, worker_at

from usability import services
from usability.backtest import queue, rows, shadow
from usability.backtest.compare import Label, difference, judged, matched
from usability.backtest.replay import Raised
from usability.backtest.run import CANDIDATE, PRESENT, TooLongError, run
from usability.backtest.wish import Wish, WishError, from_json, make_wish, parameters
from usability.errors import Conflict, Invalid
from usability.ingest.rows import rows_of_class
from usability.ingest.stream import observation_of
from usability.kinds import ProfileState, RunState
from usability.models import (
    BackTest,
    DetectorProfile,
    FrustrationEvent,
    ShadowCount,
    TeacherDashboardAlert,
)
from usability.policies import from_ms
from usability.services.profiles import save_candidate, save_version, set_state

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("days")]
MINUTE = dt.timedelta(minutes=1)


@pytest.fixture
def begin() -> dt.datetime:
    return dt.datetime.now(tz=dt.UTC).replace(microsecond=0) - 30 * MINUTE


@pytest.fixture
def lesson(room, begin) -> Lesson:
    """p0 answers wrong four times in a row and then right, p1 nine times; the others are right."""
    written = Lesson(room, begin)
    written.answers("p0", "+----++++++", item="item-1", every_s=20)
    written.answers("p1", "+---------+", item="item-2", every_s=20)
    for pupil in ("p2", "p3"):
        written.answers(pupil, "+++++++++++", every_s=20)
    written.store()
    return written


def wish_for(room, lesson, *changes: str, **more) -> Wish:
    return make_wish(
        classrooms=[str(room.pk)],
        since=lesson.begin - MINUTE,
        until=lesson.begin + 10 * MINUTE,
        changes=changes,
        **more,
    )


# ---------------------------------------------------------------- the same as the worker


def test_the_rows_are_those_the_worker_folds(room, lesson):
    read = [
        one
        for chunk in rows.observations(room.pk, lesson.begin - MINUTE, lesson.begin + 30 * MINUTE)
        for one in chunk
    ]
    stored = rows_of_class(
        room.pk,
        ["p0", "p1", "p2", "p3"],
        received_since=lesson.begin - MINUTE,
        event_since=lesson.begin - MINUTE,
        event_until=lesson.begin + 30 * MINUTE,
        limit=1000,
    )

    assert sorted(read, key=lambda one: one.id) == sorted(map(observation_of, stored), key=lambda one: one.id)
    assert rows.count_of(room.pk, lesson.begin - MINUTE, lesson.begin + 30 * MINUTE) == len(read) == 44


def test_the_present_profile_raises_what_the_worker_raised(room, lesson):
    clock = Clock(lesson.begin)
    worker = worker_at(clock)
    run_until(worker, clock, lesson.begin + 10 * MINUTE)

    found = run(wish_for(room, lesson))

    raised = TeacherDashboardAlert.objects.exclude(alert_type="recovered")
    assert raised.exists()
    assert found[PRESENT]["alerts"] == raised.count()
    assert found[PRESENT]["interrupting"] == raised.filter(is_interrupting=True).count()
    assert found["difference"] == {
        "kept": raised.count(),
        "moved": 0,
        "new": 0,
        "lost": 0,
        "starts_interrupting": 0,
        "stops_interrupting": 0,
    }


def test_nothing_is_written_and_nobody_is_alerted(room, lesson):
    run(wish_for(room, lesson, "error_streak.warn=2", "error_streak.strong=3"))

    assert not FrustrationEvent.objects.exists()
    assert not TeacherDashboardAlert.objects.exists()


# ---------------------------------------------------------------- what differs


def test_a_longer_hold_moves_what_lasts_and_loses_what_does_not(room, lesson):
    found = run(wish_for(room, lesson, "episodes.hold_s=120"))

    lost = {(one["student_id"], one["family"]) for one in found["examples"]["lost"]}
    assert ("p0", "accuracy") in lost
    assert found["difference"]["new"] == 0
    assert found[CANDIDATE]["alerts"] < found[PRESENT]["alerts"]


def test_a_lower_threshold_raises_more_and_shows_where(room, lesson):
    less = run(wish_for(room, lesson, "error_streak.enabled=false", "low_recent_success.enabled=false"))

    assert less["difference"]["lost"] >= 2
    example = less["examples"]["lost"][0]
    assert example["classroom"] == str(room.pk)
    assert example["reason"]
    assert lesson.begin.isoformat() <= example["at"] <= (lesson.begin + 10 * MINUTE).isoformat()


def test_a_class_hour_is_counted_where_there_was_work(room, lesson):
    found = run(wish_for(room, lesson))

    assert found["class_hours"] in {round(1 / 12, 2), round(2 / 12, 2)}
    assert found["metrics"] == 44


def test_an_app_alone_can_be_replayed(room, lesson):
    lesson.answers("p4", "---------", app_name="other-app", every_s=20).store()

    of_app = run(wish_for(room, lesson, app_name="other-app"))

    assert of_app["metrics"] == 9


def test_only_dismissals_and_help_count_as_labels(room, lesson, alice):
    clock = Clock(lesson.begin)
    run_until(worker_at(clock), clock, lesson.begin + 10 * MINUTE)
    first = TeacherDashboardAlert.objects.get(student_id="p0", alert_type="accuracy")
    second = TeacherDashboardAlert.objects.get(student_id="p1", alert_type="accuracy")
    TeacherDashboardAlert.objects.filter(pk=first.pk).update(state="dismissed", closed_by=alice)
    TeacherDashboardAlert.objects.filter(pk=second.pk).update(acknowledged_by=alice)

    found = run(wish_for(room, lesson, "episodes.hold_s=120"))

    before, after = (found[side]["against_teachers"] for side in (PRESENT, CANDIDATE))
    assert (before["problems"], before["n"], before["precision"]) == (1, 2, 0.5)
    assert (after["problems"], after["n"]) == (1, 1)
    assert before["low"] < 0.5 < before["high"]
    assert found["labels"]["dismissals_spared"] == 1
    assert found["labels"]["problems_missed"] == 0


def raised(student_id: str, opened_s: float, *, closed_s: float = 0, key: str = "", **more) -> Raised:
    fields = {"app_name": APP, "family": "accuracy", "severity": "medium", "interrupts": False, **more}
    opened_ms = int(opened_s * 1000)
    return Raised(
        key=key or f"{student_id}-{opened_s}",
        student_id=student_id,
        onset_ms=opened_ms - 25_000,
        opened_ms=opened_ms,
        closed_ms=int(closed_s * 1000),
        reason="",
        **fields,
    )


def test_an_alert_within_a_hold_is_kept_and_one_beyond_it_has_moved():
    before = [raised("a", 1000), raised("b", 1000)]
    after = [raised("a", 1025), raised("b", 1026)]

    found = difference(before, after, hold_ms=25_000)

    assert [pair.before.student_id for pair in found.kept] == ["a"]
    assert [pair.before.student_id for pair in found.moved] == ["b"]
    assert found.new == found.lost == []


def test_alerts_of_other_pupils_families_or_times_are_new_and_lost():
    before = [raised("a", 1000)]
    after = [raised("b", 1000), raised("a", 1000, family="pause"), raised("a", 5000)]

    found = difference(before, after, hold_ms=25_000)

    assert len(found.new) == 3
    assert found.lost == before


def test_each_alert_is_paired_once():
    found = difference([raised("a", 1000)], [raised("a", 1000), raised("a", 1100)], hold_ms=25_000)

    assert (len(found.kept), len(found.new)) == (1, 1)


def test_a_label_nobody_gave_counts_for_nothing():
    labels = [
        Label("a", APP, "accuracy", 990_000, is_problem=True),
        Label("c", APP, "accuracy", 0, is_problem=False),
    ]

    found = judged(matched([raised("a", 1000), raised("b", 1000)], labels), labels)

    assert (found.right, found.n, found.dismissed) == (1, 1, 0)


@pytest.mark.django_db(transaction=True)
def test_several_processes_come_to_the_same_result(committed, room, lesson, monkeypatch):
    monkeypatch.setattr("usability.backtest.run.SMALL", 0)
    wish = wish_for(room, lesson, "episodes.hold_s=120")
    told: list[int] = []

    apart = run(wish, processes=2, tell=told.append)

    assert apart | {"elapsed_s": 0} == run(wish, processes=1) | {"elapsed_s": 0}
    assert told[-1] == 88


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("error_streek.warn=4", "error_streek is not a detector"),
        ("error_streak.worn=4", "error_streak has no parameter worn"),
        ("error_streak.warn=many", "error_streak.warn"),
        ("error_streak.warn=-3", "error_streak.warn"),
        ("error_streak.warn", "not of the form"),
        ("error_streak=4", "without a parameter"),
        ("episodes.weights=4", "episodes has no parameter weights"),
        ("episodes.hold_s=99999999", "episodes.hold_s"),
    ],
)
def test_a_wrong_change_is_refused_by_its_name(room, lesson, change, said):
    with pytest.raises(WishError) as refused:
        wish_for(room, lesson, change)

    assert [field for field, _ in refused.value.errors] == ["set"]
    assert said in str(refused.value)


def test_every_wrong_field_is_told_at_once(begin):
    with pytest.raises(WishError) as refused:
        make_wish(classrooms=["7B"], since=begin, until=begin, profile="boldest", changes=["x"])

    assert [field for field, _ in refused.value.errors] == ["classroom", "until", "profile", "set"]


def test_every_parameter_named_for_people_can_be_changed(room, lesson):
    named = parameters()
    lines = [f"{one.name}={json.dumps(one.default)}" for one in named]

    assert {"error_streak.warn", "episodes.weights.pause", "budget.burst"} <= {one.name for one in named}
    for start in range(0, len(lines), 90):
        wish_for(room, lesson, *lines[start : start + 90])


def test_a_wish_is_read_again_as_it_was_written(room, lesson):
    wish = wish_for(room, lesson, "error_streak.warn=4", profile="later", app_name=APP)

    assert from_json(json.loads(json.dumps(wish.as_json()))) == wish


def test_a_run_that_takes_too_long_ends(room, lesson):
    with pytest.raises(TooLongError):
        run(wish_for(room, lesson), limit_s=-1)


# ---------------------------------------------------------------- the command


def command(*arguments: str) -> str:
    out = StringIO()
    call_command("backtest", *arguments, "--processes", "1", stdout=out)
    return out.getvalue()


def test_the_command_prints_one_json_object(room, lesson):
    found = json.loads(
        command(
            *("--classroom", str(room.pk), "--since", lesson.begin.isoformat()),
            *("--set", "episodes.hold_s=120", "--json"),
        )
    )

    assert found["metrics"] == 44
    assert found["difference"]["lost"] >= 1


def test_the_command_tells_a_person(room, lesson):
    said = command("--classroom", "all", "--since", lesson.begin.isoformat(), "--profile", "later")

    assert "alerts a class-hour" in said
    assert "44 metrics of 1 classes" in said


def test_the_command_names_the_option_that_is_wrong(room):
    with pytest.raises(CommandError, match=r"--since: a time such as") as refused:
        command("--classroom", str(room.pk), "--since", "yesterday", "--set", "nothing.here=1")

    assert "--set: nothing.here" in str(refused.value)


def test_the_command_saves_what_it_tried(room, lesson):
    command(
        *("--classroom", str(room.pk), "--since", lesson.begin.isoformat()),
        *("--set", "episodes.hold_s=120", "--set", "budget.burst=1", "--save", "shadow"),
    )

    row = DetectorProfile.objects.get()
    assert (row.classroom, row.state, row.alert_burst) == (room, "shadow", 1)
    assert row.parameters["episodes"]["hold_s"] == 120


# ---------------------------------------------------------------- in the admin's queue


def test_what_is_asked_for_is_run_and_its_result_kept(room, lesson, operator):
    row = queue.ask(wish_for(room, lesson), who=operator)

    assert queue.is_waiting(lesson.begin)
    assert queue.run_next(processes=1)

    row.refresh_from_db()
    assert (row.state, row.created_by, row.error) == (RunState.DONE, operator, "")
    assert row.result["metrics"] == 44
    assert row.metrics_done == row.metrics_total == 88
    assert not queue.run_next(processes=1)


def test_a_run_whose_process_has_gone_has_failed_and_the_next_begins(room, lesson, operator):
    gone = queue.ask(wish_for(room, lesson), who=operator)
    waiting = queue.ask(wish_for(room, lesson), who=operator)
    now = dt.datetime.now(tz=dt.UTC)
    BackTest.objects.filter(pk=gone.pk).update(state="running", updated_at=now - 2 * MINUTE)

    assert queue.is_waiting(now)

    gone.refresh_from_db()
    assert gone.state == RunState.FAILED
    assert "interrupted" in gone.error
    assert queue.run_next(processes=1)
    waiting.refresh_from_db()
    assert waiting.state == RunState.DONE


def test_two_are_not_run_at_once(room, lesson, operator):
    running = queue.ask(wish_for(room, lesson), who=operator)
    queue.ask(wish_for(room, lesson), who=operator)
    BackTest.objects.filter(pk=running.pk).update(state="running")

    assert not queue.is_waiting(dt.datetime.now(tz=dt.UTC))
    assert not queue.run_next(processes=1)


def test_more_than_ten_may_not_wait(room, lesson, operator):
    for _ in range(10):
        queue.ask(wish_for(room, lesson), who=operator)

    with pytest.raises(Conflict):
        queue.ask(wish_for(room, lesson), who=operator)


def test_a_run_of_a_profile_that_has_gone_says_so(room, lesson, operator):
    profile = save_version(who=operator, classroom=room, state="draft", changes={})
    row = queue.ask(wish_for(room, lesson, profile=str(profile.pk)), who=operator)
    profile.delete()

    queue.run_next(processes=1)

    row.refresh_from_db()
    assert row.state == RunState.FAILED
    assert "profile" in row.error


# ---------------------------------------------------------------- versions of profiles


def test_a_new_version_takes_the_place_of_the_active_one(room, alice):
    first = save_version(who=alice, classroom=room, changes={"alert_burst": 2})
    draft = save_version(who=alice, classroom=room, state="draft", changes={"alert_burst": 1})
    first.refresh_from_db()
    assert (first.state, draft.version) == ("active", 2)

    set_state(draft.pk, ProfileState.ACTIVE, who=alice)

    first.refresh_from_db()
    draft.refresh_from_db()
    assert (first.state, draft.state, draft.state_by) == ("retired", "active", alice)


def test_an_active_version_does_not_become_a_draft(room, alice):
    row = save_version(who=alice, classroom=room, changes={})

    with pytest.raises(Conflict):
        set_state(row.pk, ProfileState.DRAFT, who=alice)


def test_a_version_that_detection_would_refuse_is_not_stored(room, alice):
    with pytest.raises(Invalid, match=r"detectors\.error_streak\.warn"):
        save_version(who=alice, classroom=room, changes={"parameters": {"error_streak": {"warn": -1}}})

    assert not DetectorProfile.objects.exists()


def test_a_candidate_is_saved_with_the_changes_on_what_holds(room, alice, lesson):
    services.set_profile(room.pk, who=alice, preset="later")
    wish = wish_for(room, lesson, "error_streak.warn=4", "budget.interval_s=300")

    row = save_candidate(wish, who=alice, classroom_id=room.pk, state="draft")

    assert row.parameters["episodes"]["hold_s"] == 60
    assert row.parameters["detectors"]["error_streak"]["warn"] == 4
    assert row.alerts_per_10_min == 2.0
    assert row.version == 2


def test_the_worker_takes_a_new_version_within_seconds_and_events_name_it(room, alice, begin):
    lesson = Lesson(room, begin)
    clock = Clock(begin)
    worker = worker_at(clock)
    run_until(worker, clock, begin + MINUTE)
    save_version(who=alice, classroom=room, changes={})
    save_version(who=alice, classroom=room, changes={"parameters": {"episodes": {"hold_s": 5}}})

    clock.now += dt.timedelta(seconds=2)
    worker.step()
    lesson.answers("p0", "-----", begin_s=65, every_s=5).store()
    run_until(worker, clock, begin + 3 * MINUTE)

    event = FrustrationEvent.objects.get(student_id="p0", event_type="accuracy")
    assert event.params_version == "2"


# ---------------------------------------------------------------- in shadow


def test_a_profile_in_shadow_is_counted_and_alerts_nobody(room, alice, lesson):
    bold = {
        "parameters": {
            "detectors": {"error_streak": {"enabled": False}, "low_recent_success": {"enabled": False}}
        }
    }
    profile = save_version(who=alice, classroom=room, state="shadow", changes=bold)
    DetectorProfile.objects.filter(pk=profile.pk).update(state_at=lesson.begin)
    now = lesson.begin + 45 * MINUTE

    assert shadow.is_due(now)
    shadow.count_due(now)

    counts = ShadowCount.objects.filter(profile=profile)
    assert sum(one.present_raised for one in counts) > sum(one.raised for one in counts)
    assert not shadow.is_due(now)
    assert not TeacherDashboardAlert.objects.exists()


def test_a_window_is_counted_once_and_silence_takes_one_row(room, alice, begin):
    profile = save_version(who=alice, classroom=None, state="shadow", changes={})
    DetectorProfile.objects.filter(pk=profile.pk).update(state_at=begin)

    for minutes in (45, 45, 61, 77):
        shadow.count_due(begin + minutes * MINUTE)

    assert ShadowCount.objects.filter(profile=profile, classroom=room).count() == 1


def test_a_profile_for_every_class_is_no_shadow_of_a_class_with_its_own(room, alice, begin):
    save_version(who=alice, classroom=room, changes={})
    common = save_version(who=alice, classroom=None, state="shadow", changes={})
    DetectorProfile.objects.filter(pk=common.pk).update(state_at=begin)

    assert not shadow.is_due(begin + 60 * MINUTE)


def test_times_in_examples_are_moments(room, lesson):
    found = run(wish_for(room, lesson, "error_streak.enabled=false"))

    for example in found["examples"]["lost"]:
        assert dt.datetime.fromisoformat(example["at"]) > from_ms(0)
