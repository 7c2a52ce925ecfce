"""Rules about pace, hints left alone, clicks that lead nowhere, ratings and good news, each alone."""

import random

import pytest

from tests.detection.lesson import START_MS, Pupil, run, signals_of, story, told
from usability.detection.classroom import AppHealth, EpisodeOpened, EpisodeUpdated
from usability.detection.classroom import Recovered as GoodNews
from usability.detection.kinds import SignalFamily
from usability.detection.policy import DEFAULT, InvalidProfile, with_detectors
from usability.detection.registry import BY_NAME
from usability.detection.signals import Strength

HINT_AVOID = BY_NAME["hint_avoid"]
PACE_DROP = BY_NAME["pace_drop"]
SHIFT = BY_NAME["shift"]
LOW_RATING = BY_NAME["low_rating"]
DOING_WELL = BY_NAME["doing_well"]
CLICKS = [BY_NAME[name] for name in ("rage_click", "dead_click", "error_click")]


# hint_avoid


def with_hints() -> Pupil:
    return Pupil().does(1, "hint", item="0")


def test_hint_avoid_speaks_at_three_wrong_on_an_item_with_few_right_and_no_hint():
    pupil = with_hints().answers("--", item="7").answers("---", from_s=100, item="8")

    assert told(signals_of(HINT_AVOID, pupil)) == [
        (120.0, "3 wrong answers on item 8 and no hint opened; 0 of the last 5 answers right")
    ]


@pytest.mark.parametrize("marks", ["-----", "--+--+--+", "++++++++++---", "+++++", "--"])
def test_hint_avoid_is_silent_without_hints_with_success_and_early(marks):
    begun = Pupil() if marks == "-----" else with_hints()

    assert signals_of(HINT_AVOID, begun.answers(marks, item="8")) == []


@pytest.mark.parametrize(("metric_type", "value"), [("hint", 1), ("answer", 1), ("completion", 1)])
def test_hint_avoid_stops_with_a_hint_a_right_answer_and_a_completion(metric_type, value):
    pupil = with_hints().answers("-----", item="8").does(70, metric_type, value, item="8")

    assert told(signals_of(HINT_AVOID, pupil))[-1] == (70.0, "cleared")


def test_hint_avoid_stops_with_another_item_and_is_forgotten():
    elsewhere = with_hints().answers("-----", item="8").does(70, "answer", 0, item="9")
    left = with_hints().answers("-----", item="8")

    assert told(signals_of(HINT_AVOID, elsewhere))[-1] == (70.0, "cleared")
    assert told(signals_of(HINT_AVOID, left, until_s=900))[-1] == (350.0, "cleared")


def test_hint_avoid_knows_in_the_next_session_that_the_app_has_hints():
    state, _ = HINT_AVOID.advance(HINT_AVOID.start(), with_hints().observations[0], HINT_AVOID.Params())

    assert HINT_AVOID.new_session(state).has_hints


# pace_drop and shift


def paced(seconds, *, mark: float = 1.0, item: str = "3") -> Pupil:
    pupil = Pupil()
    for index, took_s in enumerate(seconds):
        pupil.does(100 + index * 200, "answer", mark, item=item, duration_ms=round(took_s * 1000))
    return pupil


USUAL = [20, 24, 18, 22, 26, 19, 21, 23, 20, 25]


def test_pace_drop_speaks_at_two_very_slow_answers_in_a_row():
    signals = signals_of(PACE_DROP, paced([*USUAL, 90, 100]))

    assert told(signals) == [
        (2300.0, "The last 2 answers took much longer than usual on item 3: 100 s, usual 21 s")
    ]
    assert signals[0].since_ms == START_MS + 2_100_000 - 90_000
    assert signals[0].strength == Strength.WEAK


@pytest.mark.parametrize(
    "seconds",
    [[20] * 7 + [90, 90], [*USUAL, 90, 20, 90, 20], [*USUAL, 40, 40, 40], USUAL * 3, [], [90, 90]],
)
def test_pace_drop_is_silent_early_at_single_slow_answers_and_at_somewhat_slow_ones(seconds):
    assert signals_of(PACE_DROP, paced(seconds), until_s=9000) == []


def test_pace_drop_holds_between_its_limits_grows_and_stops():
    going_on = signals_of(PACE_DROP, paced([*USUAL, 90, 100, 50, 110, 22]), forget_s=3600)
    left = signals_of(PACE_DROP, paced([*USUAL, 90, 100]), until_s=9000)

    assert [(each.raised, each.strength) for each in going_on] == [
        (True, Strength.WEAK),
        (True, Strength.WARN),
        (False, Strength.WARN),
    ]
    assert told(left)[-1] == (2600.0, "cleared")


def test_pace_is_taken_from_what_was_shown_where_the_app_sends_no_durations():
    pupil = Pupil()
    for index in range(10):
        pupil.does(100 * index + 10, "navigation", item="3").does(100 * index + 30, "answer", 1, item="3")
    pupil.does(1010, "navigation", item="3").does(1120, "answer", 1, item="3")
    pupil.does(1130, "navigation", item="3").does(1250, "answer", 1, item="3")

    assert told(signals_of(PACE_DROP, pupil))[0][0] == 1250.0


@pytest.mark.parametrize("detector", [PACE_DROP, SHIFT], ids=lambda each: each.name)
def test_time_out_of_sight_and_absences_do_not_count_as_slow(detector):
    pupil = paced(USUAL * 2)
    for index in range(20):
        at_s = 6000 + index * 4000
        pupil.does(at_s, "navigation").does(at_s + 1, "blur").does(at_s + 900, "answer", 1)
        pupil.does(at_s + 3000, "answer", 1)

    assert signals_of(detector, pupil) == []


@pytest.mark.parametrize("detector", [PACE_DROP, SHIFT], ids=lambda each: each.name)
def test_the_usual_pace_outlives_the_session(detector):
    state, params = detector.start(), detector.Params()
    for observation in paced(USUAL * 2).observations:
        state, _ = detector.advance(state, observation, params)
    carried = detector.new_session(state)
    found = []
    for observation in paced([120] * 7).observations:
        carried, signals = detector.advance(carried, observation, params)
        found += signals

    assert found


def test_shift_speaks_of_many_somewhat_slow_answers_that_pace_drop_does_not_see():
    seconds = [*USUAL, *USUAL, *[42] * 8]

    assert signals_of(PACE_DROP, paced(seconds)) == []
    signals = signals_of(SHIFT, paced(seconds))
    assert signals[0].reason.text.startswith("Answers have been slower than usual for ")
    assert 8 <= signals[0].evidence.numbers["cusum"] <= 16
    assert signals[0].since_ms == START_MS + 100_000 + 20 * 200_000 - 42_000


@pytest.mark.parametrize("seconds", [USUAL * 4, [*USUAL, 200, 200], [*USUAL, *USUAL, 60, *USUAL], []])
def test_shift_is_silent_at_the_usual_pace_early_and_after_one_slow_answer(seconds):
    assert signals_of(SHIFT, paced(seconds), until_s=20_000) == []


def test_shift_stops_when_the_pace_is_back_and_when_work_ends():
    back = signals_of(SHIFT, paced([*USUAL, *USUAL, *[60] * 6, *[18] * 12]), forget_s=3600)
    quick = signals_of(SHIFT, paced([*USUAL, *USUAL, *[60] * 6, 1]), forget_s=3600)
    left = signals_of(SHIFT, paced([*USUAL, *USUAL, *[60] * 6]), until_s=9000)

    assert [each.raised for each in back].count(False) == 1
    assert not back[-1].raised
    assert not quick[-1].raised
    assert told(left)[-1] == (5400.0, "cleared")


def test_shift_raises_seldom_where_nothing_shifts():
    rng = random.Random(4)
    pupil = paced([20 * rng.lognormvariate(0, 0.5) for _ in range(3000)])

    signals = signals_of(SHIFT, pupil, forget_s=3600)

    assert [each.raised for each in signals].count(False) <= 6


# clicks


@pytest.mark.parametrize("detector", CLICKS, ids=lambda each: each.name)
def test_a_click_that_leads_nowhere_speaks_once_of_its_element_and_of_the_app(detector):
    pupil = Pupil().does(10, detector.name, element="go", item="4").does(400, detector.name, element="go")

    (signal,) = signals_of(detector, pupil)

    assert signal.family == SignalFamily.APP_HEALTH
    assert signal.reason.text.endswith("on item 4")


@pytest.mark.parametrize("detector", CLICKS, ids=lambda each: each.name)
def test_a_repeated_click_that_leads_nowhere_is_a_weak_signal_of_the_pupil_too(detector):
    pupil = Pupil()
    for at_s in (10, 20, 30):
        pupil.does(at_s, detector.name, element="go", item="4")

    signals = [each for each in signals_of(detector, pupil, until_s=200) if each.family != "app_health"]

    assert told(signals) == [
        (30.0, f"{detector.what} on item 4, 3 times within 120 s"),
        (90.0, "cleared"),
    ]
    assert {(each.family, each.detector) for each in signals} == {
        (SignalFamily.ACCURACY, f"{detector.name}.repeated")
    }
    assert signals[0].since_ms == START_MS + 10_000


@pytest.mark.parametrize("detector", CLICKS, ids=lambda each: each.name)
@pytest.mark.parametrize("times", [[], [10], [10, 20], [10, 200, 400, 600]])
def test_a_few_clicks_that_lead_nowhere_are_no_signal_of_the_pupil(detector, times):
    pupil = Pupil()
    for at_s in times:
        pupil.does(at_s, detector.name, element="go").does(at_s + 1, detector.name, 0, element="go")

    signals = signals_of(detector, pupil, until_s=900)

    assert [each for each in signals if each.family != SignalFamily.APP_HEALTH] == []


def test_a_completion_ends_what_was_repeated_and_nothing_else():
    dead = BY_NAME["dead_click"]
    pupil = (
        Pupil().does(5, "completion").does(10, "dead_click", 3).does(20, "completion").does(30, "completion")
    )

    assert told(signals_of(dead, pupil))[-1] == (20.0, "cleared")


def test_clicks_reach_the_card_only_when_repeated():
    once = Pupil().does(10, "rage_click", element="go")
    often = Pupil()
    for at_s in range(10, 100, 10):
        often.does(at_s, "rage_click", element="go")

    assert [type(each) for each in run(once, until_s=300)[1]] == [AppHealth]
    decisions = run(often, until_s=300)[1]
    opened = [each for each in decisions if isinstance(each, EpisodeOpened)]
    assert [each.episode.family for each in opened] == [SignalFamily.ACCURACY]
    assert opened[0].alert == "info"


# low_rating


def test_low_rating_joins_the_open_episode_and_does_not_keep_it_open():
    pupil = Pupil().answers("-----").does(80, "rating", 1).does(95, "answer", 1)

    decisions = run(pupil, until_s=300)[1]

    joined = [
        each.episode
        for each in decisions
        if isinstance(each, EpisodeUpdated)
        and any(finding.detector == "low_rating" for finding in each.episode.findings)
    ]
    assert joined
    assert joined[0].reason.text.startswith("5 wrong answers")
    assert story(decisions, SignalFamily.ACCURACY)[-1] == (105.0, "EpisodeClosed", "high")


def test_low_rating_opens_nothing_by_itself():
    assert run(Pupil().does(10, "rating", 1).does(20, "rating", 2), until_s=600)[1] == []


@pytest.mark.parametrize("value", [0, 3, 4, 5, -1])
def test_low_rating_is_silent_on_other_ratings(value):
    assert signals_of(LOW_RATING, Pupil().does(10, "rating", value), until_s=100) == []


# doing_well


def test_doing_well_speaks_once_and_again_after_it_was_otherwise():
    pupil = Pupil().answers("+" * 12 + "-" * 6 + "+" * 12)

    assert [at_s for at_s, _ in told(signals_of(DOING_WELL, pupil))] == [100.0, 260.0]


@pytest.mark.parametrize("marks", ["+" * 9, "+-" * 10, "-" * 20, "+++++++---" * 3])
def test_doing_well_is_silent_early_and_with_mixed_answers(marks):
    assert signals_of(DOING_WELL, Pupil().answers(marks)) == []


def test_doing_well_is_told_only_where_it_is_turned_on_and_after_an_episode():
    pupil = Pupil().answers("-----").answers("+" * 12, from_s=80)
    profile = with_detectors(DEFAULT, doing_well={"enabled": True}, recovered={"enabled": False})

    assert [type(each) for each in run(pupil, until_s=400, profile=profile)[1]].count(GoodNews) == 1
    calm = Pupil().answers("+" * 12)
    assert run(calm, until_s=400, profile=profile)[1] == []


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("hint_avoid", {"low": 10}),
        ("pace_drop", {"z_clear": 3.0}),
        ("pace_drop", {"warm_up": 30}),
        ("doing_well", {"again_under": 9}),
        ("wheel_spin_risk", {"score_clear": 0.9}),
        ("rage_click", {"repeated": 1}),
        ("shift", {"h": 0}),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(name, values):
    with pytest.raises(InvalidProfile, match=name):
        with_detectors(DEFAULT, **{name: values})
