"""Why a pupil is, or is not, on the teacher's screen at a moment."""

from tests.detection.lesson import START_MS, Pupil, run
from usability.detection.budget import Controls
from usability.detection.explain import explain
from usability.detection.kinds import SignalFamily
from usability.detection.policy import DEFAULT, from_dict


def why(pupil, until_s, profile=DEFAULT, controls=None, **kwargs):
    state, _ = run(pupil, until_s=until_s, profile=profile, controls=controls, **kwargs)
    return explain(
        state,
        pupil.student_id,
        now_ms=START_MS + round(until_s * 1000),
        profile=profile,
        controls=controls,
        **kwargs,
    )


def of_family(found, family):
    (one,) = [each for each in found if each.family == family and each.status != "below"]
    return one


def below(found, detector):
    (one,) = [each for each in found if each.detector == detector and each.status == "below"]
    return one.evidence


def test_a_pupil_of_whom_nothing_came_is_unknown():
    state, _ = run(Pupil("other").does(1, "keypress"), until_s=10)

    assert [each.status for each in explain(state, "pupil-1", now_ms=START_MS)] == ["unknown"]


def test_what_is_below_its_threshold_is_told_with_the_numbers():
    found = why(Pupil().answers("--", item="7", skill="ratios"), 60)

    assert {each.status for each in found} == {"below"}
    assert below(found, "error_streak").numbers == {"errors_in_a_row": 2}
    assert below(found, "error_streak").thresholds == {"warn": 3}
    assert below(found, "low_recent_success").numbers["right"] == 8
    assert below(found, "idle").numbers["idle_s"] == 39
    assert below(found, "wheel_spinning").numbers["tries"] == 2
    assert 0 < below(found, "wheel_spin_risk").numbers["score"] < 0.67
    assert below(found, "away").numbers == {"away_s": 0}
    for name in ("rapid_guess", "hint_rush", "hint_avoid", "correction_burst", "pace_drop"):
        assert below(found, name).thresholds


def test_without_answers_nothing_is_said_of_skills():
    found = why(Pupil().does(10, "keypress").does(12, "blur"), 30)

    assert not [each for each in found if each.detector.startswith("wheel")]
    assert below(found, "away").numbers == {"away_s": 17}
    assert below(found, "idle").numbers == {"idle_s": 0, "item_open": False}


def test_what_is_raised_but_not_for_long_is_held():
    one = of_family(why(Pupil().answers("---", every_s=5), 30), SignalFamily.ACCURACY)

    assert (one.status, one.detector) == ("held", "error_streak")
    assert one.until_ms == START_MS + 35_000
    assert one.reason.text.startswith("3 wrong answers")


def test_what_comes_back_soon_after_an_episode_waits_for_the_cooldown():
    pupil = Pupil().answers("---").does(60, "answer", 1).answers("---", from_s=90, every_s=5)

    one = of_family(why(pupil, 130), SignalFamily.ACCURACY)

    assert one.status == "cooldown"
    assert one.until_ms > START_MS + 130_000


def test_what_has_interrupted_and_what_closes_is_told_as_such():
    pupil = Pupil().answers("-----").does(100, "answer", 1)

    assert of_family(why(pupil, 90), SignalFamily.ACCURACY).status == "interrupted"
    closing = of_family(why(pupil, 105), SignalFamily.ACCURACY)
    assert (closing.status, closing.until_ms) == ("closing", START_MS + 110_000)


def test_what_waits_in_the_list_says_what_holds_it_back():
    pupil = Pupil().answers("-----")
    no_budget = from_dict({"budget": {"burst": 0}})
    quiet = from_dict({"quiet_hours": [{"start": "00:00", "end": "23:59"}]})
    far_ms = START_MS + 10_000_000
    held = {
        "budget": {"profile": no_budget},
        "quiet_hours": {"profile": quiet},
        "paused": {"controls": Controls(paused_until_ms=far_ms)},
        "snoozed": {"controls": Controls(snoozed_until_ms={"pupil-1": far_ms})},
    }

    for held_back, given in held.items():
        one = of_family(why(pupil, 90, **given), SignalFamily.ACCURACY)
        assert (one.status, one.held_back) == ("listed", held_back)
    pause = of_family(why(Pupil().does(100, "hesitation", 45), 110), SignalFamily.PAUSE)
    assert (pause.status, pause.held_back) == ("listed", "info")


def test_a_pupil_who_has_gone_is_told_as_gone():
    assert "gone" in {each.status for each in why(Pupil().does(10, "keypress"), 2000)}


def test_an_app_may_have_its_own_profile():
    strict = from_dict({"detectors": {"error_streak": {"warn": 2, "strong": 3}}})

    found = why(Pupil().answers("--", every_s=5), 35, app_profiles={"maths": strict})

    assert of_family(found, SignalFamily.ACCURACY).status == "held"
