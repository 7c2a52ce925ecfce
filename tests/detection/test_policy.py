"""Profiles: what is accepted, what is refused and with which words, and that nothing is lost on the way."""

import pytest

from usability.detection.policy import (
    DEFAULT,
    REFERENCE,
    InvalidProfile,
    errors_of,
    from_dict,
    to_dict,
    with_detectors,
)
from usability.detection.registry import BY_NAME, DETECTORS


def test_an_empty_mapping_is_the_default_profile():
    assert from_dict({}) == DEFAULT
    assert from_dict({"detectors": {}}) == DEFAULT


def test_a_profile_survives_the_way_to_storage_and_back():
    profile = from_dict(
        {
            "name": "year 5",
            "version": 7,
            "late_s": 120,
            "detectors": {"error_streak": {"warn": 2, "strong": 4}, "reference": {"enabled": True}},
            "episodes": {"hold_s": 10, "weights": {"typing": 2.0}},
            "budget": {"interval_s": 300, "burst": 5},
            "class_stuck": {"minimum": 3},
            "quiet_hours": [{"start": "12:00", "end": "12:45", "days": [0, 1]}],
        }
    )

    assert from_dict(to_dict(profile)) == profile
    assert set(to_dict(profile)["detectors"]) == set(BY_NAME)
    assert hash(profile) == hash(from_dict(to_dict(profile)))


def test_some_parameters_can_be_changed_alone():
    profile = with_detectors(DEFAULT, idle={"warn_s": 60}, reference={"enabled": True})

    changed = to_dict(profile)["detectors"]
    assert changed["idle"]["warn_s"] == 60
    assert changed["reference"]["enabled"] is True
    assert changed["error_streak"] == to_dict(DEFAULT)["detectors"]["error_streak"]


@pytest.mark.parametrize(
    ("raw", "loc", "words"),
    [
        ({"detectors": {"error_streak": {"warn": 0}}}, ("detectors", "error_streak", "warn"), ">= 1"),
        ({"detectors": {"error_streak": {"warn": "3"}}}, ("detectors", "error_streak", "warn"), "`int`"),
        ({"detectors": {"error_streak": {"wrn": 3}}}, ("detectors", "error_streak"), "wrn"),
        ({"detectors": {"mood": {}}}, ("detectors", "mood"), "is not a detector"),
        ({"detectors": []}, ("detectors",), "must be an object"),
        ({"detectors": {"idle": 5}}, ("detectors", "idle"), "`object`"),
        ({"mood": 1}, ("mood",), "is not part of a profile"),
        ({"budget": {"burst": -1}}, ("budget", "burst"), ">= 0"),
        ({"late_s": 5}, ("late_s",), ">= 30"),
        ({"quiet_hours": [{"start": "25:00", "end": "06:00"}]}, ("quiet_hours", "0", "start"), "regex"),
        ({"episodes": {"weights": {"help": 11}}}, ("episodes", "weights", "help"), "<= 10"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(raw, loc, words):
    errors = errors_of(raw)

    assert [place for place, _ in errors] == [loc]
    assert words in errors[0][1]


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("error_streak", {"warn": 5, "strong": 5}, "strong must be greater than warn"),
        ("correction_burst", {"z": 1.0, "z_clear": 1.0}, "z_clear must be less than z"),
        ("hesitation", {"pause_s": 60, "long_s": 60}, "long_s must be greater than pause_s"),
        ("idle", {"warn_s": 300}, "strong_s must be greater than warn_s"),
        ("away", {"away_s": 300}, "strong_s must be greater than away_s"),
        ("low_recent_success", {"low": 5}, "very_low <= low < clear <= window must hold"),
        ("wheel_spin_risk", {"score_clear": 0.9}, "score_clear must not be greater than score"),
        ("rapid_guess", {"wrong": 6}, "wrong must not be greater than clip"),
        ("hint_rush", {"hints": 5}, "strong must be greater than hints"),
        ("recovered", {"dip": 8}, "dip < high <= window must hold"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(name, params, words):
    assert errors_of({"detectors": {name: params}}) == [(("detectors", name), words)]


def test_all_errors_are_told_together():
    with pytest.raises(InvalidProfile) as refused:
        from_dict({"version": 0, "detectors": {"mood": {}, "idle": {"warn_s": 1}}, "budget": 3})

    assert len(refused.value.errors) == 4
    assert "detectors.mood: is not a detector" in str(refused.value)


def test_an_acceptable_profile_has_no_errors():
    assert errors_of(to_dict(DEFAULT)) == []


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: detector.name)
def test_every_detector_can_be_turned_off(detector):
    off = to_dict(from_dict({"detectors": {detector.name: {"enabled": False}}}))

    assert off["detectors"][detector.name]["enabled"] is False


def test_the_reference_profile_has_the_old_thresholds_and_nothing_else():
    raw = to_dict(REFERENCE)

    assert [name for name, params in raw["detectors"].items() if params["enabled"]] == ["reference"]
    assert raw["name"] == "reference"
    assert raw["detectors"]["reference"]["errors_warn"] == 3
    assert from_dict(raw) == REFERENCE
