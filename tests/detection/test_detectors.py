"""Each detector alone: what makes it speak, what does not, and what makes it stop."""

import pytest

from tests.detection.lesson import START_MS, Pupil, signals_of, told
from usability.detection.registry import BY_NAME, DETECTORS
from usability.detection.signals import Strength

ERROR_STREAK = BY_NAME["error_streak"]
CORRECTION_BURST = BY_NAME["correction_burst"]
HESITATION = BY_NAME["hesitation"]
IDLE = BY_NAME["idle"]
AWAY = BY_NAME["away"]
LOW_RECENT_SUCCESS = BY_NAME["low_recent_success"]
WHEEL_SPINNING = BY_NAME["wheel_spinning"]
WHEEL_SPIN_RISK = BY_NAME["wheel_spin_risk"]
RAPID_GUESS = BY_NAME["rapid_guess"]
HINT_RUSH = BY_NAME["hint_rush"]
ASKED_FOR_HELP = BY_NAME["asked_for_help"]
RECOVERED = BY_NAME["recovered"]
REFERENCE = BY_NAME["reference"]


# error_streak


def test_error_streak_speaks_at_three_wrong_answers_and_stops_at_a_right_one():
    pupil = Pupil().answers("---+", item="8")

    assert told(signals_of(ERROR_STREAK, pupil)) == [
        (30.0, "3 wrong answers in a row on item 8, no hint opened"),
        (40.0, "cleared"),
    ]


@pytest.mark.parametrize(
    "marks",
    ["--+--+--", "+++++", "--", "", "-+-+-+-+"],
)
def test_error_streak_is_silent_without_three_in_a_row(marks):
    assert signals_of(ERROR_STREAK, Pupil().answers(marks, item="8")) == []


def test_error_streak_is_strong_from_five_and_counts_hints_since_it_began():
    pupil = Pupil().does(5, "hint").answers("---", item="8").does(31, "hint")
    pupil.answers("--", from_s=40, item="8")

    signals = signals_of(ERROR_STREAK, pupil)

    assert [signal.strength for signal in signals] == [Strength.WARN, Strength.WARN, Strength.STRONG]
    assert signals[-1].reason.text == "5 wrong answers in a row on item 8, 1 hint opened"
    assert signals[-1].since_ms == START_MS + 10_000
    assert signals[-1].evidence.numbers == {"errors_in_a_row": 5, "hints": 1}
    assert signals[-1].evidence.observations == tuple(
        observation.id for observation in pupil.observations if observation.metric_type == "answer"
    )


def test_error_streak_takes_the_value_of_an_error_as_its_count():
    assert told(signals_of(ERROR_STREAK, Pupil().does(10, "error", 4))) == [
        (10.0, "4 errors in a row, no hint opened")
    ]


@pytest.mark.parametrize("value", [0, -3])
def test_error_streak_ignores_an_error_that_counts_nothing(value):
    assert signals_of(ERROR_STREAK, Pupil().does(10, "error", value), warn=1, strong=2) == []


def test_error_streak_over_several_items_names_none():
    pupil = Pupil().answers("--", item="7").answers("-", from_s=30, item="8")

    assert told(signals_of(ERROR_STREAK, pupil)) == [(30.0, "3 wrong answers in a row, no hint opened")]


def test_error_streak_ends_with_a_completion():
    pupil = Pupil().answers("---").does(35, "completion").answers("--", from_s=40)

    assert [signal.raised for signal in signals_of(ERROR_STREAK, pupil)] == [True, False]


def test_error_streak_is_forgotten_after_five_minutes_without_an_error():
    assert told(signals_of(ERROR_STREAK, Pupil().answers("---"), until_s=1000))[-1] == (330.0, "cleared")


def test_error_streak_below_its_threshold_is_forgotten_without_a_word():
    pupil = Pupil().answers("--").answers("-", from_s=400)

    assert signals_of(ERROR_STREAK, pupil, until_s=1000) == []


# correction_burst


def typing(pupil: Pupil, *, bins: int, corrections: int, from_s: float = 0.0, strokes: int = 40) -> Pupil:
    """`bins` half minutes of typing, one report of each kind in each."""
    for index in range(bins):
        pupil.does(from_s + index * 30, "keypress", strokes - corrections)
        pupil.does(from_s + index * 30 + 5, "backspace", corrections)
    return pupil


def test_correction_burst_speaks_after_two_bins_far_over_the_pupils_own_usual_share():
    pupil = typing(Pupil(), bins=8, corrections=4)
    typing(pupil, bins=2, corrections=20, from_s=240)

    signals = signals_of(CORRECTION_BURST, pupil, until_s=310)

    assert told(signals) == [(300.0, "50 % of key presses are corrections, usual 7–17 %")]
    assert signals[0].since_ms == START_MS + 240_000
    assert signals[0].evidence.numbers["corrections"] == 20
    assert signals[0].evidence.numbers["bins"] == 2


@pytest.mark.parametrize("usual", [4, 12, 20])
def test_correction_burst_is_silent_while_a_pupil_types_as_usual_however_much_that_is(usual):
    assert signals_of(CORRECTION_BURST, typing(Pupil(), bins=30, corrections=usual), until_s=1000) == []


def test_correction_burst_is_silent_after_one_high_bin_alone():
    pupil = typing(Pupil(), bins=8, corrections=4)
    typing(pupil, bins=1, corrections=20, from_s=240)
    typing(pupil, bins=5, corrections=4, from_s=270)

    assert signals_of(CORRECTION_BURST, pupil, until_s=1000) == []


def test_correction_burst_knows_no_usual_share_before_six_bins():
    pupil = typing(Pupil(), bins=3, corrections=2)
    typing(pupil, bins=3, corrections=20, from_s=90)

    assert signals_of(CORRECTION_BURST, pupil, until_s=1000) == []


def test_correction_burst_does_not_judge_a_few_strokes():
    pupil = typing(Pupil(), bins=8, corrections=4)
    typing(pupil, bins=4, corrections=10, from_s=240, strokes=14)

    assert signals_of(CORRECTION_BURST, pupil, until_s=1000) == []


def test_correction_burst_needs_a_number_of_corrections_beside_the_share():
    pupil = typing(Pupil(), bins=20, corrections=0, strokes=20)
    typing(pupil, bins=3, corrections=4, from_s=600, strokes=20)

    assert signals_of(CORRECTION_BURST, pupil, until_s=2000) == []


def test_correction_burst_stops_with_a_usual_bin_and_gets_strong_with_four_high_ones():
    pupil = typing(Pupil(), bins=20, corrections=4)
    typing(pupil, bins=4, corrections=24, from_s=600)
    typing(pupil, bins=1, corrections=4, from_s=720)

    signals = signals_of(CORRECTION_BURST, pupil, until_s=760)

    assert [signal.raised for signal in signals] == [True, True, True, False]
    assert [signal.strength for signal in signals[:3]] == [Strength.WARN, Strength.WARN, Strength.STRONG]
    assert told(signals)[-1] == (750.0, "cleared")


def test_correction_burst_holds_on_between_its_two_limits():
    pupil = typing(Pupil(), bins=8, corrections=4)
    typing(pupil, bins=2, corrections=20, from_s=240)
    typing(pupil, bins=1, corrections=9, from_s=300)

    assert [signal.raised for signal in signals_of(CORRECTION_BURST, pupil, until_s=340)] == [True]


def test_correction_burst_is_forgotten_when_typing_stops():
    pupil = typing(Pupil(), bins=8, corrections=4)
    typing(pupil, bins=2, corrections=20, from_s=240)

    assert told(signals_of(CORRECTION_BURST, pupil, until_s=1000))[-1] == (395.0, "cleared")


def test_correction_burst_forgets_a_single_high_bin_when_typing_stops():
    pupil = typing(Pupil(), bins=8, corrections=4)
    typing(pupil, bins=1, corrections=20, from_s=240)
    typing(pupil, bins=1, corrections=20, from_s=600)

    assert signals_of(CORRECTION_BURST, pupil, until_s=640) == []


def test_correction_burst_ignores_reports_of_nothing():
    pupil = Pupil().does(1, "keypress", 0).does(2, "backspace", 0)

    assert signals_of(CORRECTION_BURST, pupil, until_s=100) == []


def test_correction_burst_keeps_the_usual_share_into_the_next_session():
    state = CORRECTION_BURST.start()
    params = CORRECTION_BURST.Params()
    for observation in typing(Pupil(), bins=8, corrections=4).observations:
        state, _ = CORRECTION_BURST.advance(state, observation, params)

    carried = CORRECTION_BURST.new_session(state)

    assert (carried.mean, carried.variance, carried.seen) == (state.mean, state.variance, state.seen)
    assert carried.bin_ms == 0


# hesitation


def test_hesitation_speaks_of_a_reported_long_pause_that_has_ended():
    signals = signals_of(HESITATION, Pupil().does(100, "hesitation", 45, item="3"))

    assert told(signals) == [(100.0, "Paused for 45 s on item 3, then went on")]
    assert signals[0].since_ms == START_MS + 55_000
    assert signals[0].strength == Strength.WEAK


@pytest.mark.parametrize("seconds", [0, 5, 29.9, -40])
def test_hesitation_is_silent_on_a_usual_pause(seconds):
    assert signals_of(HESITATION, Pupil().does(100, "pause", seconds), until_s=1000) == []


def test_hesitation_finds_the_pause_itself_where_the_app_reports_none():
    pupil = Pupil().does(10, "keypress", 5, item="3").does(50, "keypress", 2, item="3")

    assert told(signals_of(HESITATION, pupil)) == [(50.0, "Paused for 40 s on item 3, then went on")]


def test_hesitation_leaves_pauses_to_an_app_that_reports_them():
    pupil = Pupil().does(5, "hesitation", 1).does(10, "keypress", 5).does(50, "keypress", 2)

    assert signals_of(HESITATION, pupil) == []


@pytest.mark.parametrize("ending", ["completion", "blur"])
def test_hesitation_does_not_count_a_pause_without_an_open_item_in_front(ending):
    pupil = Pupil().does(10, "keypress").does(11, ending).does(60, "keypress")

    assert signals_of(HESITATION, pupil) == []


def test_hesitation_does_not_count_the_thinking_before_a_right_answer():
    pupil = Pupil().does(10, "keypress").does(60, "answer", 1)

    assert signals_of(HESITATION, pupil) == []


def test_hesitation_ignores_reports_of_nothing_as_activity():
    pupil = Pupil().does(10, "keypress").does(30, "mouse_movement", 0).does(50, "keypress")

    assert len(signals_of(HESITATION, pupil)) == 1


def test_hesitation_does_not_take_an_absence_of_hours_for_a_pause():
    assert signals_of(HESITATION, Pupil().does(10, "keypress").does(7300, "keypress")) == []


def test_hesitation_grows_with_repetition_and_length():
    twice = Pupil().does(100, "hesitation", 40).does(200, "hesitation", 40)
    long = Pupil().does(100, "hesitation", 70)
    very_long = Pupil().does(200, "hesitation", 150)

    assert signals_of(HESITATION, twice)[-1].strength == Strength.WARN
    assert signals_of(HESITATION, long)[-1].strength == Strength.WARN
    assert signals_of(HESITATION, very_long)[-1].strength == Strength.STRONG
    assert signals_of(HESITATION, twice, settle_s=300)[-1].reason.text == (
        "2 long pauses within 5 min, the longest 40 s"
    )


def test_hesitation_forgets_pauses_that_are_long_ago():
    pupil = Pupil().does(100, "hesitation", 40).does(500, "hesitation", 40)

    assert signals_of(HESITATION, pupil)[-1].strength == Strength.WEAK


def test_hesitation_stops_with_a_right_answer_or_a_minute_of_work():
    by_answer = Pupil().does(100, "hesitation", 40).does(110, "answer", 1)
    by_time = Pupil().does(100, "hesitation", 40)

    assert told(signals_of(HESITATION, by_answer))[-1] == (110.0, "cleared")
    assert told(signals_of(HESITATION, by_time, until_s=400))[-1] == (160.0, "cleared")


# idle


def test_idle_speaks_after_two_minutes_on_an_open_item_and_says_the_minutes():
    assert told(signals_of(IDLE, Pupil().does(10, "keypress"), until_s=200)) == [
        (130.0, "Nothing typed or tapped for 2 min"),
        (190.0, "Nothing typed or tapped for 3 min"),
    ]


def test_idle_is_strong_at_once_after_a_wrong_answer_and_otherwise_after_five_minutes():
    wrong = signals_of(IDLE, Pupil().does(10, "answer", 0, item="7"), until_s=140)
    slow = signals_of(IDLE, Pupil().does(10, "keypress"), until_s=320)

    assert told(wrong) == [(130.0, "Nothing typed or tapped for 2 min after a wrong answer")]
    assert (wrong[0].strength, wrong[0].item) == (Strength.STRONG, "7")
    assert [signal.strength for signal in slow] == [Strength.WARN] * 3 + [Strength.STRONG]


@pytest.mark.parametrize(
    ("metric_type", "value"),
    [("completion", 1), ("answer", 1), ("blur", 1)],
)
def test_idle_is_silent_when_no_item_is_open_in_front(metric_type, value):
    assert signals_of(IDLE, Pupil().does(5, "keypress").does(10, metric_type, value), until_s=1000) == []


def test_idle_is_silent_while_a_pupil_reads_and_scrolls():
    pupil = Pupil()
    for at_s in range(10, 900, 100):
        pupil.does(at_s, "scrolling", 3)

    assert signals_of(IDLE, pupil, until_s=900) == []


def test_idle_does_not_take_an_empty_report_for_activity():
    pupil = Pupil().does(10, "keypress").does(60, "mouse_movement", 0)

    assert told(signals_of(IDLE, pupil, until_s=131)) == [(130.0, "Nothing typed or tapped for 2 min")]


@pytest.mark.parametrize("metric_type", ["keypress", "blur", "hint", "completion"])
def test_idle_stops_with_anything_the_pupil_does(metric_type):
    pupil = Pupil().does(10, "keypress").does(150, metric_type)

    assert told(signals_of(IDLE, pupil))[-1] == (150.0, "cleared")


# away


def test_away_speaks_when_the_app_has_been_hidden_for_a_minute():
    signals = signals_of(AWAY, Pupil().does(10, "blur"), until_s=320)

    assert told(signals)[0] == (70.0, "The app has not been in front for 60 s")
    assert [signal.strength for signal in signals] == [Strength.WARN] * 4 + [Strength.STRONG]


@pytest.mark.parametrize("back", ["focus", "keypress", "answer"])
def test_away_is_silent_when_the_pupil_is_back_in_time(back):
    assert signals_of(AWAY, Pupil().does(10, "blur").does(60, back), until_s=1000) == []


def test_away_is_silent_without_blur_however_long_nothing_happens():
    assert signals_of(AWAY, Pupil().does(10, "keypress"), until_s=10_000) == []


def test_away_counts_from_the_first_of_several_blurs_and_stops_on_return():
    pupil = Pupil().does(10, "blur").does(50, "blur").does(80, "focus")

    assert told(signals_of(AWAY, pupil)) == [
        (70.0, "The app has not been in front for 60 s"),
        (80.0, "cleared"),
    ]


def test_away_does_not_take_an_empty_report_for_a_return():
    assert len(signals_of(AWAY, Pupil().does(10, "blur").does(20, "click", 0), until_s=75)) == 1


# low_recent_success


def test_low_recent_success_speaks_at_seven_wrong_of_ten():
    pupil = Pupil().answers("-+-+-+----", skill="fractions")

    assert told(signals_of(LOW_RECENT_SUCCESS, pupil)) == [
        (100.0, "3 of the last 10 answers right at fractions")
    ]


@pytest.mark.parametrize("marks", ["-+-+-+-+-+-+", "------", "++++++++++------", ""])
def test_low_recent_success_is_silent_at_half_or_early_on(marks):
    assert signals_of(LOW_RECENT_SUCCESS, Pupil().answers(marks)) == []


def test_low_recent_success_clears_only_at_five_right():
    pupil = Pupil().answers("-------" + "+++++++++")

    signals = signals_of(LOW_RECENT_SUCCESS, pupil)

    assert [signal.raised for signal in signals] == [True] * 5 + [False]
    assert signals[-1].at_ms == START_MS + 120_000


def test_low_recent_success_is_strong_when_nearly_all_is_wrong():
    assert signals_of(LOW_RECENT_SUCCESS, Pupil().answers("-" * 9))[-1].strength == Strength.STRONG


# wheel_spinning and its risk


def test_wheel_spinning_speaks_at_ten_tries_without_three_right_in_a_row():
    pupil = Pupil().answers("++-++-++-+", skill="common-denominator")

    assert told(signals_of(WHEEL_SPINNING, pupil)) == [
        (100.0, "10 tries at common-denominator, never three right in a row")
    ]


@pytest.mark.parametrize("marks", ["-" * 9, "+++" + "-" * 12, "------+++---", "+" * 30])
def test_wheel_spinning_is_silent_early_and_after_mastery(marks):
    assert signals_of(WHEEL_SPINNING, Pupil().answers(marks, skill="fractions")) == []


@pytest.mark.parametrize("detector", [WHEEL_SPINNING, WHEEL_SPIN_RISK])
def test_wheel_spinning_says_nothing_without_a_skill(detector):
    assert signals_of(detector, Pupil().answers("-" * 20, item="1")) == []


def test_wheel_spinning_counts_each_skill_by_itself():
    pupil = Pupil()
    for index in range(9):
        pupil.does(10 + index * 20, "answer", 0, skill="a").does(20 + index * 20, "answer", 0, skill="b")

    assert signals_of(WHEEL_SPINNING, pupil) == []


def test_wheel_spinning_stops_with_mastery_or_another_skill():
    mastered = Pupil().answers("-" * 10 + "+++", skill="a")
    elsewhere = Pupil().answers("-" * 10, skill="a").answers("+", from_s=110, skill="b")

    assert [signal.raised for signal in signals_of(WHEEL_SPINNING, mastered)] == [True, True, True, False]
    assert [signal.raised for signal in signals_of(WHEEL_SPINNING, elsewhere)] == [True, False]


def test_wheel_spin_risk_speaks_of_five_wrong_tries_and_hands_over_at_the_tenth():
    signals = signals_of(WHEEL_SPIN_RISK, Pupil().answers("-" * 10, skill="fractions"))

    assert told(signals)[0] == (50.0, "0 of 5 tries at fractions right so far, not three in a row")
    assert [signal.raised for signal in signals] == [True] * 5 + [False]


@pytest.mark.parametrize("marks", ["---", "+++------", "-+-+-+", "+-++-+"])
def test_wheel_spin_risk_is_silent_early_when_mastered_and_when_answers_are_mixed(marks):
    assert signals_of(WHEEL_SPIN_RISK, Pupil().answers(marks, skill="fractions")) == []


def test_wheel_spin_risk_clears_under_its_lower_limit_and_with_another_skill():
    better = signals_of(WHEEL_SPIN_RISK, Pupil().answers("-----++", skill="a"))
    elsewhere = signals_of(
        WHEEL_SPIN_RISK, Pupil().answers("-----", skill="a").answers("-", from_s=60, skill="b")
    )

    assert [signal.raised for signal in better] == [True, True, False]
    assert [signal.raised for signal in elsewhere] == [True, False]


# rapid_guess


def test_rapid_guess_speaks_at_three_fast_wrong_answers_of_five():
    pupil = Pupil().answers("----", every_s=3, item="4")

    signals = signals_of(RAPID_GUESS, pupil)

    assert told(signals) == [(19.0, "3 of the last 4 answers wrong on item 4, each within 5 s")]


@pytest.mark.parametrize(
    ("marks", "every_s"),
    [("-----", 6), ("+++++", 2), ("-++-+", 2), ("---", 3)],
)
def test_rapid_guess_is_silent_on_slow_or_right_answers(marks, every_s):
    assert signals_of(RAPID_GUESS, Pupil().answers(marks, every_s=every_s)) == []


def test_rapid_guess_trusts_the_apps_own_duration():
    fast = Pupil().answers("---", every_s=60, duration_ms=2000, similar=True)
    slow = Pupil().answers("-----", every_s=2, duration_ms=20_000)

    assert signals_of(RAPID_GUESS, fast)[0].evidence.numbers["similar"] == 3
    assert signals_of(RAPID_GUESS, slow) == []


def test_rapid_guess_gets_strong_and_clears_when_answers_take_their_time():
    pupil = Pupil().answers("------", every_s=2).answers("+++++", from_s=60, every_s=20)

    signals = signals_of(RAPID_GUESS, pupil)

    assert max(signal.strength for signal in signals) == Strength.STRONG
    assert [signal.raised for signal in signals].count(False) == 1
    assert not signals[-1].raised


# hint_rush


def test_hint_rush_speaks_at_three_hints_clicked_through():
    pupil = Pupil().does(10, "hint", 1, item="2").does(12, "hint", 2, item="2")
    pupil.does(14, "hint", 3, item="2", is_bottom=True)

    signals = signals_of(HINT_RUSH, pupil)

    assert told(signals) == [(14.0, "3 hints opened on item 2, each within 3 s")]
    assert signals[0].evidence.numbers == {"hints": 3, "last_hint_seen": 1}


def test_hint_rush_is_silent_on_hints_that_are_read():
    pupil = Pupil().does(10, "hint", 1).does(20, "hint", 2).does(30, "hint", 3)
    told_by_app = Pupil()
    for at_s in (10, 11, 12, 13):
        told_by_app.does(at_s, "hint", duration_ms=9000)

    assert signals_of(HINT_RUSH, pupil) == []
    assert signals_of(HINT_RUSH, told_by_app) == []


def test_hint_rush_stops_with_an_answer_or_a_minute_later():
    rush = [(10, 1), (11, 2), (12, 3)]
    by_answer, by_time, without = Pupil(), Pupil(), Pupil().does(10, "hint").does(11, "answer", 0)
    for at_s, level in rush:
        by_answer.does(at_s, "hint", level)
        by_time.does(at_s, "hint", level)
    by_answer.does(20, "answer", 0)

    assert told(signals_of(HINT_RUSH, by_answer))[-1] == (20.0, "cleared")
    assert told(signals_of(HINT_RUSH, by_time, until_s=100))[-1] == (72.0, "cleared")
    assert signals_of(HINT_RUSH, without) == []


def test_hint_rush_is_strong_at_five():
    pupil = Pupil()
    for at_s in range(10, 15):
        pupil.does(at_s, "hint")

    assert signals_of(HINT_RUSH, pupil)[-1].strength == Strength.STRONG


@pytest.mark.parametrize(
    ("detector", "pupil"),
    [
        (LOW_RECENT_SUCCESS, Pupil().answers("-" * 7)),
        (WHEEL_SPINNING, Pupil().answers("-" * 10, skill="a")),
        (WHEEL_SPIN_RISK, Pupil().answers("-" * 5, skill="a")),
        (RAPID_GUESS, Pupil().answers("-----", every_s=2)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_answers_have_raised_is_forgotten_five_minutes_after_the_last(detector, pupil):
    last_s = (pupil.observations[-1].at_ms - START_MS) / 1000

    signals = signals_of(detector, pupil, until_s=3000)

    assert told(signals)[-1] == (last_s + 300, "cleared")
    assert [signal.raised for signal in signals].count(False) == 1


@pytest.mark.parametrize(
    ("detector", "pupil"),
    [(LOW_RECENT_SUCCESS, Pupil().answers("-" * 8)), (RAPID_GUESS, Pupil().answers("-----", every_s=2))],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_right_answer_does_not_bring_back_what_was_forgotten_and_a_wrong_one_does(detector, pupil):
    pupil.does(1000, "answer", 1).does(1001, "answer", 0)

    signals = [signal for signal in signals_of(detector, pupil) if signal.at_ms >= START_MS + 1_000_000]

    assert [(signal.at_ms, signal.since_ms) for signal in signals] == [(START_MS + 1_001_000,) * 2]


# asked_for_help


def test_asked_for_help_speaks_at_once_and_counts_repeats():
    pupil = Pupil().does(10, "help_request", item="5").does(60, "help_request", item="5")

    assert told(signals_of(ASKED_FOR_HELP, pupil)) == [
        (10.0, "Asked for help on item 5"),
        (60.0, "Asked for help 2 times on item 5"),
    ]


@pytest.mark.parametrize("marks", ["-----", "+++++", "-+-+"])
def test_asked_for_help_is_silent_while_nobody_asks(marks):
    pupil = Pupil().answers(marks).does(100, "completion").does(110, "help_request", 0)

    assert signals_of(ASKED_FOR_HELP, pupil, until_s=5000) == []


def test_asked_for_help_stops_when_taken_back_completed_mastered_or_long_ago():
    taken_back = Pupil().does(10, "help_request").does(20, "help_request", 0)
    completed = Pupil().does(10, "help_request").does(30, "completion")
    mastered = Pupil().does(10, "help_request").answers("+-+++", from_s=20)
    long_ago = Pupil().does(10, "help_request")

    assert told(signals_of(ASKED_FOR_HELP, taken_back))[-1] == (20.0, "cleared")
    assert told(signals_of(ASKED_FOR_HELP, completed))[-1] == (30.0, "cleared")
    assert told(signals_of(ASKED_FOR_HELP, mastered))[-1] == (60.0, "cleared")
    assert told(signals_of(ASKED_FOR_HELP, long_ago, until_s=2000))[-1] == (910.0, "cleared")


def test_asked_for_help_is_not_answered_by_what_was_done_before_it():
    state, params = ASKED_FOR_HELP.start(), ASKED_FOR_HELP.Params()
    request = Pupil().does(10, "help_request").observations[0]
    earlier = Pupil().does(9, "completion").observations[0]

    state, _ = ASKED_FOR_HELP.advance(state, request, params)
    state, signals = ASKED_FOR_HELP.advance(state, earlier, params)

    assert signals == ()
    assert state.since_ms


# recovered


def test_recovered_speaks_once_when_answers_go_well_again():
    pupil = Pupil().answers("-----" + "+" * 12)

    assert told(signals_of(RECOVERED, pupil)) == [(130.0, "8 of the last 10 answers right again")]


@pytest.mark.parametrize("marks", ["+" * 20, "-" * 20, "-+" * 10, "---+++++++"])
def test_recovered_is_silent_without_a_dip_or_without_success(marks):
    assert signals_of(RECOVERED, Pupil().answers(marks)) == []


# reference


def test_what_would_speak_too_often_is_off_unless_a_profile_turns_it_on():
    off = {detector.name for detector in DETECTORS if not detector.Params().enabled}

    assert off == {"reference", "doing_well", "shift"}


def test_reference_speaks_at_the_old_thresholds_and_stops_when_its_minute_is_over():
    pupil = Pupil()
    for at_s in (10, 20, 30):
        pupil.does(at_s, "error")

    assert told(signals_of(REFERENCE, pupil, until_s=200)) == [
        (30.0, "3 errors within 60 s"),
        (70.0, "cleared"),
    ]


@pytest.mark.parametrize(
    ("metric_type", "value", "times"),
    [("error", 1, 2), ("backspace", 1, 9), ("hesitation", 30, 3), ("error", 0, 9), ("keypress", 50, 9)],
)
def test_reference_is_silent_below_the_old_thresholds(metric_type, value, times):
    pupil = Pupil()
    for index in range(times):
        pupil.does(10 + index, metric_type, value)

    assert signals_of(REFERENCE, pupil, until_s=500) == []


def test_reference_keeps_its_conditions_apart():
    pupil = Pupil().does(10, "error", 5).does(10.2, "backspace", 12).does(10.4, "hesitation", 31)

    signals = signals_of(REFERENCE, pupil)
    last = {signal.detector: signal for signal in signals}

    assert sorted(last) == ["reference.corrections", "reference.errors", "reference.hesitation"]
    assert last["reference.errors"].strength == Strength.STRONG
    assert last["reference.corrections"].strength == Strength.WARN
    assert last["reference.hesitation"].strength == Strength.WEAK
    assert last["reference.errors"].evidence.thresholds == {"warn": 3, "strong": 5}


def test_reference_clears_one_condition_while_another_holds():
    pupil = Pupil().does(10, "error", 3).does(50, "backspace", 10)

    assert told(signals_of(REFERENCE, pupil, until_s=200))[-2:] == [(70.0, "cleared"), (110.0, "cleared")]


# all of them


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: detector.name)
def test_each_detector_documents_its_rule_and_its_source(detector):
    doc = __import__(type(detector).__module__, fromlist=["DETECTOR"]).__doc__

    assert doc.startswith(f"{detector.name}:")
    assert "Rule:" in doc
    assert "Source:" in doc
    assert detector.version >= 1


@pytest.mark.parametrize(
    "detector",
    [detector for detector in DETECTORS if detector.name != "doing_well"],
    ids=lambda detector: detector.name,
)
def test_no_detector_speaks_of_a_calm_pupil(detector):
    pupil = Pupil()
    for minute in range(20):
        at_s = minute * 60
        pupil.does(at_s + 5, "keypress", 30, item=f"{minute}", skill="s").does(at_s + 10, "backspace", 3)
        pupil.does(at_s + 25, "scrolling", 4).does(at_s + 40, "keypress", 12).does(at_s + 45, "backspace", 1)
        pupil.does(at_s + 55, "answer", minute % 4 != 3, item=f"{minute}", skill=f"s{minute // 8}")

    assert [signal for signal in signals_of(detector, pupil) if signal.raised] == []
