"""The fold of a classroom: order, lateness, class cards, rebuilding, snapshots."""

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.detection.lesson import START_MS, Pupil, observed, run, story
from usability.detection import classroom, engine
from usability.detection.classroom import (
    AppHealth,
    ClassStuckClosed,
    ClassStuckOpened,
    ClassStuckUpdated,
    EpisodeClosed,
    EpisodeOpened,
    Recovered,
)
from usability.detection.kinds import SEVERITY_RANK, Presence, SignalFamily
from usability.detection.observations import Observation
from usability.detection.policy import DEFAULT, from_dict
from usability.detection.practice import SkillNorm
from usability.detection.signals import Signal

ACCURACY = SignalFamily.ACCURACY


def words(decisions):
    """Decisions as plain data with event times relative to the start and without ids made from times."""
    return [_relative(decision, START_MS) for decision in decisions]


def _relative(value, start_ms):
    if isinstance(value, msgspec.Struct):
        value = msgspec.structs.asdict(value)
    if isinstance(value, dict):
        return {
            key: (
                each - start_ms
                if key.endswith("_ms") and isinstance(each, int) and each
                else _relative(each, start_ms)
            )
            for key, each in value.items()
            if key != "id"
        }
    return [_relative(each, start_ms) for each in value] if isinstance(value, list | tuple) else value


# Order and lateness


def test_an_observation_up_to_a_second_late_takes_its_place():
    pupil = Pupil().does(10, "answer", 0).does(20, "answer", 0)
    pupil.does(29.5, "answer", 1, delay_s=0.7).does(30, "answer", 0)

    assert story(run(pupil, until_s=100)[1], ACCURACY) == []


def test_an_observation_behind_one_already_folded_signals_nothing():
    pupil = Pupil().answers("---")
    late = Pupil("pupil-1").does(35, "answer", 1, delay_s=9)
    pupil.does(40, "answer", 0)
    observations = [*pupil.observations, msgspec.structs.replace(late.observations[0], id="late")]

    state, decisions = classroom.rebuild("room-1", observations, now_ms=START_MS + 50_000)

    assert [kind for _, kind, _ in story(decisions, ACCURACY)] == ["EpisodeOpened", "EpisodeUpdated"]
    assert state.late == 1


def test_a_batch_of_past_minutes_is_judged_by_its_own_times():
    pupil = Pupil()
    for index in range(5):
        pupil.does(10 + index * 10, "answer", 0, delay_s=60 - 10 - index * 10, item="8")

    _, decisions = run(pupil, until_s=60.5)

    assert story(decisions, ACCURACY)[0] == (35.0, "EpisodeOpened", "medium")
    assert story(decisions, ACCURACY)[-1] == (50.0, "EpisodeEscalated", "high")


@pytest.mark.parametrize("delay_s", [601, 86_400])
def test_what_is_older_than_ten_minutes_on_receipt_signals_nothing(delay_s):
    pupil = Pupil()
    for index in range(8):
        pupil.does(10 + index, "answer", 0, delay_s=delay_s)
    pupil.does(20, "help_request", delay_s=delay_s)

    state, decisions = run(pupil, until_s=delay_s + 2000)

    assert decisions == []
    assert state.late == 9
    assert state.desks == {}


def test_what_the_client_marks_as_late_signals_nothing():
    pupil = Pupil().answers("-----", late=True).does(60, "help_request", late=True)

    assert run(pupil, until_s=500)[1] == []


def test_a_stamp_in_the_future_is_cut_back_to_its_receipt():
    pupil = Pupil().does(310, "answer", 0, delay_s=-300)

    assert pupil.observations[0].at_ms == START_MS + 10_000


def test_a_help_request_is_told_on_receipt_even_when_newer_things_were_folded():
    pupil = Pupil().answers("+++").does(12, "help_request", delay_s=30)

    _, decisions = run(pupil, until_s=42)

    assert [(type(each), each.episode.onset_ms) for each in decisions] == [(EpisodeOpened, START_MS + 12_000)]


def test_a_help_request_delivered_twice_is_told_once():
    pupil = Pupil().does(12, "help_request")

    _, decisions = classroom.rebuild("room-1", pupil.observations * 3, now_ms=START_MS + 90_000)

    assert len(decisions) == 1


def test_a_pupil_who_sends_more_than_may_wait_is_folded_early(monkeypatch):
    monkeypatch.setattr(classroom, "PENDING_LIMIT", 5)
    pupil = Pupil()
    for index in range(40):
        pupil.does(10 + index / 1000, "keypress")

    state, _ = run(pupil, until_s=10.05)

    assert len(state.desks["pupil-1", "maths"].pending) == 5


def test_an_observation_waits_for_its_batch():
    pupil = Pupil().does(20, "answer", 0, delay_s=5).does(10, "answer", 0, delay_s=15)
    first, second = pupil.observations

    state, _ = classroom.step(classroom.start("room-1"), [first], now_ms=START_MS + 25_100)
    state, _ = classroom.step(state, [second], now_ms=START_MS + 26_000)

    assert state.late == 0


# Whole sequences


def test_a_wrong_right_wrong_lesson_is_told_from_beginning_to_end():
    pupil = Pupil().answers("+++-----", item="8", skill="s1")
    pupil.answers("+" * 9, from_s=130, item="9", skill="s2")

    _, decisions = run(pupil, until_s=400)

    assert story(decisions) == [
        (65.0, "EpisodeOpened", "medium"),
        (70.0, "EpisodeUpdated", "medium"),
        (80.0, "EpisodeEscalated", "high"),
        (140.0, "EpisodeClosed", "high"),
    ]


def test_a_calm_class_is_left_alone():
    pupils = [Pupil(f"pupil-{index}") for index in range(20)]
    for index, pupil in enumerate(pupils):
        for minute in range(15):
            at_s = minute * 60 + index
            pupil.does(at_s + 5, "keypress", 30, item=f"{minute}").does(at_s + 6, "backspace", 3)
            pupil.does(at_s + 30, "mouse_movement", 900).does(at_s + 40, "click", 2)
            pupil.does(
                at_s + 50, "answer", (minute + index) % 4 != 0, item=f"{minute}", skill=f"s{minute // 5}"
            )

    assert run(*pupils, until_s=900)[1] == []


def test_recovery_is_told_only_after_an_episode_and_never_as_one():
    struggled = Pupil("one").answers("-" * 6).answers("+" * 12, from_s=100)
    slipped = Pupil("two").answers("-+--+-" + "+" * 12)

    _, decisions = run(struggled, slipped, until_s=400)

    recovered = [each for each in decisions if isinstance(each, Recovered)]
    assert [(each.student_id, each.reason.text) for each in recovered] == [
        ("one", "8 of the last 10 answers right again")
    ]


def test_two_apps_of_one_pupil_are_two_states_and_a_profile_may_differ_by_app():
    maths, music = Pupil().answers("--"), Pupil(app_name="music").answers("--")
    strict = from_dict({"detectors": {"error_streak": {"warn": 2, "strong": 3}}})

    state, decisions = run(maths, music, until_s=60, app_profiles={"music": strict})

    assert sorted(state.desks) == [("pupil-1", "maths"), ("pupil-1", "music")]
    assert [each.episode.app_name for each in decisions] == ["music"]


def test_a_silent_pupil_is_forgotten_after_two_hours():
    state, _ = run(Pupil().answers("+"), until_s=7100)
    assert len(state.desks) == 1

    state, _ = run(Pupil().answers("+"), until_s=7300)
    assert state.desks == {}


def test_presence_follows_what_the_pupil_does():
    state, _ = run(Pupil().does(10, "keypress"), until_s=12)
    student = state.desks["pupil-1", "maths"].student

    assert engine.presence(student, START_MS + 12_000) == Presence.ACTIVE
    assert engine.presence(student, START_MS + 31_000) == Presence.IDLE
    away, _ = engine.advance(student, Pupil().does(40, "blur").observations[0], DEFAULT)
    assert engine.presence(away, START_MS + 41_000) == Presence.AWAY
    gone, happenings = engine.advance_time(away, START_MS + 1_000_000, DEFAULT)
    assert engine.presence(gone, START_MS + 1_000_000) == Presence.GONE
    assert {happening.change for happening in happenings} == {"opened", "updated", "escalated", "closed"}
    assert not student.has_left


def test_metrics_of_unknown_types_change_no_decision():
    pupil = Pupil().answers("---")
    for at_s in range(10, 90, 7):
        pupil.does(at_s + 0.5, "eye_gaze", 3)

    assert story(run(pupil, until_s=100)[1]) == story(run(Pupil().answers("---"), until_s=100)[1])


# Class cards


def stuck(count: int, *, item: str = "7", every_s: float = 3, skill: str = "") -> list[Pupil]:
    metadata = {"skill": skill} if skill else {"item": item}
    return [
        Pupil(f"stuck-{index}").answers("---", from_s=100 + index, every_s=every_s, **metadata)
        for index in range(count)
    ]


def working(count: int) -> list[Pupil]:
    return [Pupil(f"busy-{index}").answers("+" * 8, every_s=20, item=f"{index}") for index in range(count)]


def test_four_pupils_on_one_item_make_one_card_and_no_single_interruptions():
    state, decisions = run(*stuck(4), *working(4), until_s=150)

    cards = [each for each in decisions if isinstance(each, ClassStuckOpened)]
    singles = [each for each in decisions if isinstance(each, EpisodeOpened)]
    assert [(each.card.topic.kind, each.card.topic.name, each.interrupts) for each in cards] == [
        ("item", "7", True)
    ]
    assert cards[0].card.reason.text == "4 of 8 pupils have a struggle signal on item 7"
    assert cards[0].card.students == ("stuck-0", "stuck-1", "stuck-2", "stuck-3")
    assert [each.held_back for each in singles] == ["class_card"] * 4
    assert len(state.cards) == 1


def test_a_skill_makes_a_card_where_the_items_differ():
    pupils = [
        Pupil(f"stuck-{index}").answers("---", from_s=100, every_s=3, item=f"{index}", skill="fractions")
        for index in range(4)
    ]

    _, decisions = run(*pupils, until_s=150)

    cards = [each for each in decisions if isinstance(each, ClassStuckOpened)]
    assert [each.card.reason.text for each in cards] == ["4 of 4 pupils have a struggle signal at fractions"]


@pytest.mark.parametrize(
    "pupils",
    [
        stuck(3),
        [*stuck(4), *working(20)],  # a quarter of 24 is six
        [pupil for index in range(4) for pupil in stuck(1, item=f"{index}")],
    ],
    ids=["three pupils", "four of twenty-four", "four items"],
)
def test_too_few_pupils_on_one_item_make_no_card(pupils):
    _, decisions = run(*pupils, until_s=150)

    assert not [each for each in decisions if isinstance(each, ClassStuckOpened)]


def test_only_enrolled_pupils_count_as_active_where_there_is_a_roster():
    pupils = [*stuck(4), *working(20)]

    _, decisions = run(*pupils, until_s=150, roster=frozenset(f"stuck-{index}" for index in range(4)))

    assert [each.card.active_pupils for each in decisions if isinstance(each, ClassStuckOpened)] == [4]


def test_a_request_for_help_interrupts_beside_a_class_card():
    pupils = stuck(4)
    pupils[0].does(140, "help_request", item="7")

    _, decisions = run(*pupils, until_s=150)

    opened = [each for each in decisions if isinstance(each, EpisodeOpened)]
    assert [each.episode.family for each in opened if each.interrupts] == [SignalFamily.HELP]


def test_a_card_follows_its_pupils_and_closes_when_too_few_are_left():
    pupils = stuck(4)
    for index in range(3):
        pupils[index].does(150 + index * 10, "answer", 1, item="7")

    state, decisions = run(*pupils, until_s=300)

    told = [each for each in decisions if isinstance(each, ClassStuckUpdated | ClassStuckClosed)]
    counts = [len(each.card.students) for each in told if isinstance(each, ClassStuckUpdated)]
    assert counts == [3, 2]
    assert isinstance(told[-1], ClassStuckClosed)
    assert state.cards == {}
    assert len(state.cards_closed_ms) == 1


def test_a_card_does_not_come_back_within_its_cooldown():
    first, second = stuck(4), []
    for index, pupil in enumerate(first):
        pupil.does(150, "answer", 1, item="7")
        second.append(Pupil(f"more-{index}").answers("---", from_s=200, every_s=3, item="7"))

    _, decisions = run(*first, *second, until_s=260)

    assert len([each for each in decisions if isinstance(each, ClassStuckOpened)]) == 1


# Signals that make no episode


def test_app_health_is_told_as_such_and_a_rating_joins_what_is_open(monkeypatch):
    def heard(family, at_s):
        return Signal(
            "extra", 1, family, raised=True, at_ms=START_MS + at_s * 1000, since_ms=START_MS + at_s * 1000
        )

    pupil = Pupil().answers("---")
    state, _ = run(pupil, until_s=60)
    student = state.desks["pupil-1", "maths"].student
    ready = engine.plan(DEFAULT)

    joined = engine._heard(student, [heard(SignalFamily.RATING, 60)], ready)
    health = engine._heard(student, [heard(SignalFamily.APP_HEALTH, 60)], ready)
    nobody = engine.new_student("x", "y")
    engine.run_timers(nobody, 0, ready)
    alone = engine._heard(nobody, [heard(SignalFamily.RATING, 60)], ready)

    assert [finding.detector for finding in joined[0].episode.findings] == ["error_streak", "extra"]
    assert health[0].family == SignalFamily.APP_HEALTH
    assert alone == []
    room = classroom._Room(state, frozenset(), DEFAULT, {}, classroom.Controls())
    room._tell(state.desks["pupil-1", "maths"], health)
    assert [type(each) for each in room.decisions] == [AppHealth]


# Rebuilding and snapshots


def kept(state):
    """The state without the times of timers, which are found again from the rest."""
    desks = {
        key: msgspec.structs.replace(desk, student=desk.student.kept()) for key, desk in state.desks.items()
    }
    return msgspec.structs.replace(state, desks=desks)


def test_the_state_given_to_a_step_is_left_alone():
    before, _ = run(Pupil().answers("--"), until_s=25)
    copy = classroom.encode(before)

    classroom.step(before, Pupil().does(30, "answer", 0).observations, now_ms=START_MS + 500_000)

    assert classroom.encode(before) == copy


def test_a_snapshot_gives_the_same_state_and_the_same_future():
    pupils = [*stuck(5), *working(3), Pupil("typist").does(5, "keypress", 40).does(6, "blur")]
    state, _ = run(*pupils, until_s=135)

    restored = classroom.decode(classroom.encode(state))

    assert kept(restored) == kept(state)
    now_ms = START_MS + 1_500_000
    (again, told_again), (after, told) = (
        classroom.step(each, [], now_ms=now_ms) for each in (restored, state)
    )
    assert told_again == told
    assert kept(again) == kept(after)


def test_a_snapshot_of_another_format_is_refused(monkeypatch):
    payload = classroom.encode(run(Pupil().answers("---"), until_s=60)[0])
    monkeypatch.setattr(classroom, "FORMAT", 99)

    assert classroom.decode(payload) is None


def test_what_a_class_finds_hard_is_learned_when_a_pupils_day_is_over():
    pupil = Pupil().answers("-" * 11, skill="ratios").answers("+++", from_s=200, skill="sums")
    pupil.answers("-+", from_s=300, skill="both")
    during, _ = run(pupil, until_s=400)
    after, _ = run(pupil, until_s=7_600)

    assert during.norms == {}
    assert after.desks == {}
    assert after.norms["maths"].skills == {
        "ratios": SkillNorm(10, 0, 1, 0, 1, 1, 1),
        "sums": SkillNorm(3, 3, 1, 1, 1, 0),
        "both": SkillNorm(2, 1, 1, 0, 0, 0),
    }
    assert classroom.decode(classroom.encode(after)).norms == after.norms


def test_a_pupil_who_answered_nothing_teaches_nothing():
    state, _ = run(Pupil().does(10, "keypress"), until_s=7_600)

    assert (state.desks, state.norms) == ({}, {})


def test_a_snapshot_of_other_detectors_is_refused(monkeypatch):
    state, _ = run(Pupil().answers("---"), until_s=60)
    payload = classroom.encode(state)
    monkeypatch.setattr(type(classroom.DETECTORS[0]), "version", 99)

    assert classroom.decode(payload) is None


@pytest.mark.parametrize("payload", [b"", b"\x00", msgspec.msgpack.encode({"detectors": [], "room": 1})])
def test_a_snapshot_that_cannot_be_read_is_refused(payload):
    assert classroom.decode(payload) is None


def test_open_episodes_are_listed_longest_first():
    state, _ = run(Pupil("b").answers("---", from_s=20), Pupil("a").answers("---"), until_s=100)

    assert [episode.student_id for episode in classroom.open_episodes(state)] == ["a", "b"]


KINDS = st.sampled_from(
    [
        ("answer", 0.0),
        ("answer", 0.0),
        ("answer", 1.0),
        ("error", 2.0),
        ("keypress", 25.0),
        ("backspace", 12.0),
        ("hint", 1.0),
        ("hesitation", 45.0),
        ("blur", 1.0),
        ("focus", 1.0),
        ("completion", 1.0),
        ("mouse_movement", 0.0),
        ("navigation", 1.0),
        ("rage_click", 2.0),
        ("dead_click", 1.0),
        ("rating", 1.0),
    ]
)


@st.composite
def lessons(draw, kinds=KINDS, most=60):
    """A lesson of up to three pupils with pauses between 0.1 s and some minutes."""
    pupils = [Pupil(f"pupil-{index}", session_id="s") for index in range(3)]
    at_s = 10.0
    for _ in range(draw(st.integers(1, most))):
        at_s += draw(st.sampled_from([0.1, 1.0, 4.0, 12.0, 31.0, 140.0]))
        metric_type, value = draw(kinds)
        pupil = draw(st.sampled_from(pupils))
        pupil.does(at_s, metric_type, value, item=draw(st.sampled_from(["7", "8"])), skill="s")
    return sorted(observed(*pupils), key=lambda each: each.at_ms)


END_MS = START_MS + 12_000_000
SEEDS = st.integers(0, 10_000)


@settings(max_examples=40, deadline=None)
@given(lessons(), SEEDS)
def test_rebuilding_gives_the_undisturbed_state_however_the_lesson_was_cut_into_steps(lesson, seed):
    rng = random.Random(seed)
    whole_state, whole = classroom.rebuild("room-1", lesson, now_ms=END_MS)
    state, decisions = classroom.start("room-1"), []
    rest = list(lesson)
    while rest:
        taken = rng.randint(1, 4)
        batch, rest = rest[:taken], rest[taken:]
        rng.shuffle(batch)
        until_ms = batch[0].received_ms if not rest else rest[0].received_ms - rng.randint(0, 90)
        now_ms = max(until_ms, *(each.received_ms for each in batch))
        state, more = classroom.step(state, batch, now_ms=now_ms)
        decisions += more
    while state.clock_ms < END_MS:
        state, more = classroom.step(
            state, [], now_ms=min(END_MS, state.clock_ms + rng.randint(1, 2_000_000))
        )
        decisions += more

    assert decisions == whole
    assert classroom.encode(state) == classroom.encode(whole_state)


@settings(max_examples=40, deadline=None)
@given(lessons(), st.integers(-10_000_000_000, 10_000_000_000))
def test_a_shift_of_all_times_changes_nothing_but_the_times(lesson, shift_ms):
    shifted = [
        msgspec.structs.replace(each, at_ms=each.at_ms + shift_ms, received_ms=each.received_ms + shift_ms)
        for each in lesson
    ]

    _, decisions = classroom.rebuild("room-1", lesson, now_ms=END_MS)
    _, moved = classroom.rebuild("room-1", shifted, now_ms=END_MS + shift_ms)

    assert [_relative(each, START_MS + shift_ms) for each in moved] == words(decisions)


@settings(max_examples=40, deadline=None)
@given(lessons(), SEEDS)
def test_duplicates_change_nothing(lesson, seed):
    rng = random.Random(seed)
    repeated = [each for each in lesson for _ in range(rng.choice([1, 1, 2, 3]))]

    state, decisions = classroom.rebuild("room-1", lesson, now_ms=END_MS)
    again, told = classroom.rebuild("room-1", repeated, now_ms=END_MS)

    assert told == decisions
    again.late = state.late
    assert classroom.encode(again) == classroom.encode(state)


@settings(max_examples=40, deadline=None)
@given(lessons(), SEEDS)
def test_delays_within_the_bound_change_nothing(lesson, seed):
    rng = random.Random(seed)
    delayed = [
        msgspec.structs.replace(
            each, received_ms=each.at_ms + rng.randint(0, classroom.REORDER_MS - classroom.GATHER_MS)
        )
        for each in lesson
    ]
    rng.shuffle(delayed)

    assert (
        classroom.rebuild("room-1", delayed, now_ms=END_MS)[1]
        == classroom.rebuild("room-1", lesson, now_ms=END_MS)[1]
    )


WITHOUT_SUCCESS = st.sampled_from(
    [("answer", 0.0), ("error", 1.0), ("error", 3.0), ("keypress", 20.0), ("backspace", 8.0)]
)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_more_evidence_of_errors_never_lowers_severity(data):
    def played(observations: list[Observation]) -> int:
        _, decisions = classroom.rebuild("room-1", observations, now_ms=START_MS + 240_000)
        found = [each.episode for each in decisions if hasattr(each, "episode")]
        ranks = [SEVERITY_RANK[episode.severity] for episode in found if episode.family == ACCURACY]
        return max(ranks, default=-1)

    pupil = Pupil()
    for at_s in sorted(data.draw(st.lists(st.integers(10, 200), max_size=12))):
        pupil.does(at_s, *data.draw(WITHOUT_SUCCESS))
    extra = Pupil()
    extra.observations = list(pupil.observations)
    for at_s in data.draw(st.lists(st.integers(10, 200), min_size=1, max_size=6)):
        extra.does(at_s, "error", 1)

    assert played(extra.observations) >= played(pupil.observations)


def test_a_random_class_hour_keeps_its_bounds():
    rng = random.Random(4)
    pupil = Pupil()
    for index in range(3000):
        pupil.does(
            10 + index,
            rng.choice(["answer", "hint", "error", "keypress", "backspace", "pause", "help_request", "blur"]),
            rng.choice([0, 1, 40]),
            skill=f"skill-{rng.randint(0, 60)}",
            item=f"{index // 4}",
        )

    state, decisions = run(pupil, until_s=3100)

    desk = state.desks["pupil-1", "maths"]
    assert len(classroom.encode(state)) < 40_000
    assert len(desk.at_once_ids) <= classroom.AT_ONCE_IDS
    closed = {each.episode.id for each in decisions if isinstance(each, EpisodeClosed)}
    opened = [each.episode.id for each in decisions if isinstance(each, EpisodeOpened)]
    assert len(opened) == len(set(opened))
    assert closed <= set(opened)
    assert state.told.keys() <= set(opened) - closed
