"""What was wrong in the engine whose names we keep. Each test is one of its defects, and that we do not have it."""

import random

import pytest

from tests.detection.lesson import START_MS, Pupil, observed, run, signals_of, story
from usability.detection import classroom
from usability.detection.classroom import EpisodeOpened
from usability.detection.kinds import SEVERITY_RANK, SignalFamily
from usability.detection.policy import DEFAULT, from_dict, with_detectors
from usability.detection.registry import BY_NAME
from usability.detection.signals import Strength

ACCURACY = SignalFamily.ACCURACY
WITH_REFERENCE = with_detectors(DEFAULT, reference={"enabled": True})


def episodes_of(decisions, family):
    return [each.episode for each in decisions if hasattr(each, "episode") and each.episode.family == family]


def test_more_evidence_does_not_mean_less_severity():
    """Four errors were high, and with twelve backspaces beside them medium."""
    errors = Pupil().does(10, "error", 4)
    both = Pupil().does(10, "error", 4).does(11, "backspace", 12)

    worst = [
        max(
            SEVERITY_RANK[each.severity]
            for each in episodes_of(run(pupil, until_s=60, profile=WITH_REFERENCE)[1], family)
        )
        for pupil in (errors, both)
        for family in (SignalFamily.REFERENCE, ACCURACY)
    ]

    assert worst[2:] >= worst[:2]


def test_names_of_thresholds_and_what_they_lead_to_agree():
    """The threshold called critical led to high."""
    params = BY_NAME["reference"].Params()
    at = [params.corrections_warn, params.corrections_strong]

    strengths = [
        signals_of(BY_NAME["reference"], Pupil().does(10, "backspace", count))[0].strength for count in at
    ]

    assert strengths == [Strength.WARN, Strength.STRONG]


def test_a_long_pause_is_over_when_work_goes_on():
    """A long pause was never cleared, so that every later metric raised an event."""
    pupil = Pupil().does(60, "hesitation", 45)
    for at_s in range(61, 900, 5):
        pupil.does(at_s, "keypress", 4)

    _, decisions = run(pupil, until_s=900)

    assert story(decisions, SignalFamily.PAUSE) == [
        (60.0, "EpisodeOpened", "low"),
        (130.0, "EpisodeClosed", "low"),
    ]


def test_metrics_above_a_threshold_do_not_flood():
    """Every metric of any type raised an event while a count was above its threshold, mouse movements too."""
    pupil = Pupil().answers("-----")
    for at_s in range(52, 300):
        pupil.does(at_s, "mouse_movement", 200)

    _, decisions = run(pupil, until_s=300)

    assert len([each for each in decisions if isinstance(each, EpisodeOpened)]) == 1
    assert len(decisions) <= 4


@pytest.mark.parametrize("first_s", range(0, 60, 7))
def test_no_boundary_of_a_window_splits_what_belongs_together(first_s):
    """Four errors astride the boundary of a tumbling minute counted as two and two."""
    pupil = Pupil().does(1, "error")
    for index in range(4):
        pupil.does(61 + first_s + index * 15, "error")

    signals = signals_of(BY_NAME["reference"], pupil)

    assert max(signal.evidence.numbers["errors"] for signal in signals) == 4


def test_evidence_of_each_signal_is_kept_apart():
    """Five errors and one pause became a critical 'prolonged hesitation'."""
    pupil = Pupil().does(10, "error", 5).does(80, "hesitation", 40)

    _, decisions = run(pupil, until_s=90)

    accuracy, pause = episodes_of(decisions, ACCURACY)[-1], episodes_of(decisions, SignalFamily.PAUSE)[-1]
    assert accuracy.reason.text == "5 errors in a row, no hint opened"
    assert set(accuracy.findings[0].evidence.numbers) == {"errors_in_a_row", "hints"}
    assert (pause.severity.value, pause.findings[0].detector) == ("low", "hesitation")


def test_success_relaxes_and_a_pause_elsewhere_does_not_count():
    """Completion, focus and blur were not considered."""
    completed = Pupil().answers("---").does(32, "completion")
    elsewhere = Pupil().does(10, "keypress").does(12, "blur").does(60, "focus").does(61, "keypress")

    assert run(completed, until_s=300)[1] == []
    assert run(elsewhere, until_s=100)[1] == []


def test_event_time_decides_so_a_replay_gives_the_same_events():
    """Late metrics fell into the present window, a stamp in the future kept it open, detection was stamped now."""
    pupil = Pupil().answers("-----")
    ahead = Pupil().does(320, "error", 1, delay_s=-300)
    first = run(pupil, until_s=500)[1]

    again = run(pupil, until_s=90_000)[1]

    assert again[: len(first)] == first
    assert ahead.observations[0].at_ms == START_MS + 20_000


@pytest.mark.parametrize(
    ("metric_type", "value", "number"), [("error", 4, "errors"), ("backspace", 15, "corrections")]
)
def test_the_value_of_a_folded_metric_is_its_count(metric_type, value, number):
    """A client that sent four errors as one metric was counted once."""
    folded = signals_of(BY_NAME["reference"], Pupil().does(10, metric_type, value))

    assert folded[0].evidence.numbers[number] == value


def test_no_number_pretends_to_be_a_confidence():
    """Each branch had a constant confidence: 0.95, 0.85, 0.70."""
    pupil = (
        Pupil().answers("-" * 12, skill="s", every_s=2).does(60, "help_request").does(70, "hesitation", 50)
    )

    _, decisions = run(pupil, until_s=400)

    for each in decisions:
        for finding in each.episode.findings:
            assert not {"confidence", "probability", "p"} & finding.evidence.numbers.keys()
            assert finding.evidence.observations


def test_each_pupil_has_a_usual_share_of_their_own_and_each_app_a_profile():
    """One limit held for all ages, apps and pupils."""
    careful, fluent = Pupil("careful"), Pupil("fluent")
    for index in range(20):
        careful.does(index * 30 + 1, "keypress", 28).does(index * 30 + 5, "backspace", 12)
        fluent.does(index * 30 + 1, "keypress", 39).does(index * 30 + 5, "backspace", 1 if index < 17 else 12)

    _, decisions = run(careful, fluent, until_s=640)

    assert {each.student_id for each in episodes_of(decisions, SignalFamily.TYPING)} == {"fluent"}
    assert (
        run(careful, until_s=640, profile=from_dict({"detectors": {"correction_burst": {"z": 6.0}}}))[1] == []
    )


def test_state_survives_a_lost_process_and_ids_do_not_collide():
    """State was lost with the process, never evicted, and `student:app` collided where an id held a colon."""
    first, second = Pupil("a:b", "c").answers("--"), Pupil("a", "b:c").answers("-", from_s=30)
    rng = random.Random(1)
    rows = observed(first, second)
    rng.shuffle(rows)

    state, decisions = classroom.rebuild("room-1", rows, now_ms=START_MS + 60_000)

    assert decisions == []
    assert len(state.desks) == 2
    assert classroom.rebuild("room-1", rows, now_ms=START_MS + 90_000_000)[0].desks == {}


@pytest.mark.parametrize("way", ["answers", "single errors", "one folded error"])
def test_one_rule_set_gives_one_severity_for_three_errors(way):
    """Four rules called three errors high, medium, low or unknown; "consecutive" meant per window."""
    pupil = Pupil()
    if way == "answers":
        pupil.answers("---", every_s=1)
    elif way == "single errors":
        pupil.does(10, "error").does(11, "error").does(12, "error")
    else:
        pupil.does(10, "error", 3)
    interrupted = Pupil().answers("--+-", every_s=1)

    assert story(run(pupil, until_s=60)[1], ACCURACY) == [(35.0, "EpisodeOpened", "medium")]
    assert story(run(interrupted, until_s=60)[1], ACCURACY) == []
