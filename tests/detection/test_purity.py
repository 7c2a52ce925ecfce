"""Detection is pure: no clock, no chance, no I/O; its words speak of behaviour."""

import ast
import re
from pathlib import Path

import pytest

import usability.detection
from usability.detection.detector import Detector, Params
from usability.detection.kinds import ALERT_SEVERITY, AlertSeverity, MetricType, Severity, SignalFamily
from usability.detection.observations import Observation
from usability.detection.policy import Weights
from usability.detection.practice import NO_NORMS, NO_PRACTICE
from usability.detection.registry import DETECTORS
from usability.detection.skill_detector import SkillDetector, SkillParams, Standing

SOURCES = sorted(Path(usability.detection.__file__).parent.rglob("*.py"))
IMPURE = {
    "time",
    "datetime",
    "random",
    "secrets",
    "logging",
    "os",
    "django",
    "pathlib",
    "socket",
    "threading",
}
FEELINGS = re.compile(
    r"\b(frustrat|angry|bored|confus|anxious|sad|happy|emotion|lazy|distract)", re.IGNORECASE
)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_no_module_of_detection_imports_a_clock_chance_or_io(source):
    tree = ast.parse(source.read_text())
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }

    assert not imported & IMPURE


@pytest.mark.parametrize(
    "source", [path for path in SOURCES if path.parent.name == "detectors"], ids=lambda p: p.name
)
def test_no_sentence_names_a_feeling(source):
    literals = [
        node.value
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]

    assert not [literal for literal in literals if FEELINGS.search(literal)]


def test_every_detector_file_is_found():
    files = {path.stem for path in SOURCES if path.parent.name == "detectors"} - {"__init__"}

    assert {detector.name for detector in DETECTORS} == files
    assert len({detector.name for detector in DETECTORS}) == len(DETECTORS)


def test_every_severity_has_an_alert_severity_that_grows_with_it():
    ranks = [list(AlertSeverity).index(ALERT_SEVERITY[severity]) for severity in Severity]

    assert ranks == sorted(ranks)
    assert set(ALERT_SEVERITY) == set(Severity)


def test_every_family_of_a_detector_has_a_weight_or_makes_no_episode():
    without = {SignalFamily.RECOVERY, SignalFamily.APP_HEALTH, SignalFamily.RATING}

    assert all(Weights().of(family) > 0 for family in set(SignalFamily) - without)
    assert all(Weights().of(family) == 0 for family in without)


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: detector.name)
def test_time_alone_raises_nothing_before_anything_was_observed(detector):
    params = detector.Params()

    assert detector.due_ms(detector.start(), params) is None
    assert detector.on_time(detector.start(), 1 << 50, params) == (detector.start(), ())


def test_a_detector_without_timers_never_becomes_due():
    class Silent(Detector[int, Params]):
        State = int
        Params = Params

    silent = Silent()
    observation = Observation("1", "p", "a", MetricType.CLICK, 1.0, 1, 1)

    assert silent.due_ms(silent.start(), Params()) is None
    assert silent.on_time(0, 5, Params()) == (0, ())
    assert silent.new_session(4) == 0
    with pytest.raises(NotImplementedError):
        silent.advance(0, observation, Params())


def test_a_detector_of_practice_must_say_what_it_finds():
    class Silent(SkillDetector[SkillParams]):
        Params = SkillParams

    standing = Standing("s", NO_PRACTICE, NO_NORMS)

    with pytest.raises(NotImplementedError):
        Silent().found(standing, SkillParams(), is_raised=False)
    with pytest.raises(NotImplementedError):
        Silent().near_practice(standing, SkillParams())


def test_the_list_of_signals_is_complete():
    assert {detector.name for detector in DETECTORS} == {
        "asked_for_help",
        "away",
        "correction_burst",
        "dead_click",
        "doing_well",
        "error_click",
        "error_streak",
        "hesitation",
        "hint_avoid",
        "hint_rush",
        "idle",
        "low_rating",
        "low_recent_success",
        "pace_drop",
        "rage_click",
        "rapid_guess",
        "recovered",
        "reference",
        "shift",
        "wheel_spin_risk",
        "wheel_spinning",
    }
