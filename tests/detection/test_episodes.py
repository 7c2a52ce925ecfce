"""From signals to episodes: hold, hysteresis, cooldown, severity by persistence, and what closes one."""

import msgspec
import pytest

from tests.detection.lesson import START_MS, Pupil, run, story
from usability.detection import episodes
from usability.detection.classroom import EpisodeClosed, EpisodeOpened
from usability.detection.episodes import FamilyState, Subject
from usability.detection.kinds import SEVERITY_RANK, Severity, SignalFamily
from usability.detection.policy import DEFAULT, EpisodePolicy, from_dict
from usability.detection.signals import Evidence, Reason, Signal, Strength

ACCURACY = SignalFamily.ACCURACY
SUBJECT = Subject("pupil-1", "maths", ACCURACY, (), 1)
POLICY = EpisodePolicy()


def signal(
    at_s: float, *, raised=True, since_s=None, strength=Strength.WARN, name="error_streak", text="why"
):
    return Signal(
        detector=name,
        version=1,
        family=ACCURACY,
        raised=raised,
        at_ms=START_MS + round(at_s * 1000),
        since_ms=START_MS + round((at_s if since_s is None else since_s) * 1000),
        strength=strength,
        reason=Reason(name, text),
        evidence=Evidence(numbers={"n": at_s}),
    )


def play(*signals: Signal, until_s: float, policy: EpisodePolicy = POLICY, subject: Subject = SUBJECT):
    """What one family makes of signals: (second, change, severity)."""
    state, told = FamilyState(), []
    moments = [(each.at_ms, each) for each in signals] + [(START_MS + round(until_s * 1000), None)]
    for at_ms, each in moments:
        while (due := episodes.due_ms(state, policy, subject.family)) is not None and due <= at_ms:
            state, changes = episodes.on_time(state, due, policy, subject)
            told += changes
        if each is not None:
            state, changes = episodes.hear(state, [each], policy, subject)
            told += changes
    return [
        ((each.episode.changed_ms - START_MS) / 1000, each.change, each.episode.severity.value)
        for each in told
    ]


def test_a_condition_is_shown_after_it_has_held_for_25_seconds():
    assert play(signal(10), until_s=40) == [(35.0, "opened", "medium")]


def test_a_condition_that_has_held_long_enough_already_is_shown_at_once():
    assert play(signal(60, since_s=10), until_s=60) == [(60.0, "opened", "medium")]


@pytest.mark.parametrize("cleared_s", [11, 20, 34.999])
def test_a_condition_that_clears_within_the_hold_is_never_shown(cleared_s):
    assert play(signal(10), signal(cleared_s, raised=False), until_s=5000) == []


def test_clearing_what_was_not_raised_changes_nothing():
    assert play(signal(10, raised=False), until_s=500) == []


def test_the_clock_of_the_hold_starts_again_after_a_condition_has_cleared():
    told = play(signal(10), signal(20, raised=False), signal(30), until_s=60)

    assert told == [(55.0, "opened", "medium")]


def test_severity_grows_at_the_persistence_steps_and_never_skips_a_notice():
    assert play(signal(0, strength=Strength.STRONG), until_s=3600) == [
        (25.0, "opened", "high"),
        (300.0, "escalated", "critical"),
    ]
    assert play(signal(0), until_s=3600) == [(25.0, "opened", "medium"), (120.0, "escalated", "high")]
    assert play(signal(0, strength=Strength.WEAK), until_s=3600) == [
        (25.0, "opened", "low"),
        (120.0, "escalated", "medium"),
        (600.0, "escalated", "high"),
    ]


def test_an_open_episode_closes_ten_seconds_after_its_last_condition_cleared():
    told = play(signal(0), signal(50, raised=False), until_s=500)

    assert told == [(25.0, "opened", "medium"), (60.0, "closed", "medium")]


def test_an_episode_goes_on_when_a_condition_comes_back_at_once():
    told = play(signal(0), signal(50, raised=False), signal(55), signal(80, raised=False), until_s=500)

    assert [change for _, change, _ in told] == ["opened", "updated", "closed"]
    assert told[-1][0] == 90.0


def test_nothing_is_opened_within_five_minutes_of_a_close_and_what_still_holds_then_is():
    within = play(signal(0), signal(50, raised=False), signal(100), signal(200, raised=False), until_s=2000)
    beyond = play(signal(0), signal(50, raised=False), signal(100), until_s=361)

    assert [change for _, change, _ in within] == ["opened", "closed"]
    assert beyond[-1] == (220.0, "opened", "high")  # after two minutes it is worse than the medium one was


def test_what_is_no_worse_waits_for_the_end_of_the_cooldown():
    weak = {"strength": Strength.WEAK}
    told = play(
        signal(0, strength=Strength.STRONG), signal(50, raised=False), signal(100, **weak), until_s=400
    )

    assert told[-1] == (360.0, "opened", "medium")


def test_a_short_mild_episode_does_not_hide_a_worse_one_after_it():
    told = play(
        signal(0, strength=Strength.WEAK),
        signal(50, raised=False),
        signal(70, strength=Strength.STRONG),
        until_s=100,
    )

    assert told == [(25.0, "opened", "low"), (60.0, "closed", "low"), (95.0, "opened", "high")]


def test_an_onset_before_the_last_close_belongs_to_the_last_episode():
    state = FamilyState(closed_ms=START_MS + 60_000)

    state, _ = episodes.hear(state, [signal(400, since_s=10)], POLICY, SUBJECT)

    assert state.episode.onset_ms == START_MS + 60_000


def test_severity_never_falls_while_an_episode_is_open():
    told = play(
        signal(0, strength=Strength.STRONG),
        signal(30, strength=Strength.WEAK),
        signal(40, strength=Strength.WARN),
        until_s=100,
    )

    assert [severity for _, _, severity in told] == ["high", "high", "high"]


def test_two_conditions_of_a_family_are_one_episode_with_both_findings():
    state = FamilyState()
    for each in (
        signal(0, name="error_streak", text="streak"),
        signal(10, name="low_recent_success", text="few right", strength=Strength.STRONG),
    ):
        state, _ = episodes.hear(state, [each], POLICY, SUBJECT)
    state, changes = episodes.on_time(state, START_MS + 25_000, POLICY, SUBJECT)

    episode = changes[0].episode
    assert [finding.detector for finding in episode.findings] == ["error_streak", "low_recent_success"]
    assert episode.reason.text == "few right"

    state, changes = episodes.hear(
        state, [signal(30, raised=False, name="low_recent_success")], POLICY, SUBJECT
    )

    assert changes[0].change == "updated"
    assert changes[0].episode.reason.text == "streak"
    assert [finding.is_raised for finding in changes[0].episode.findings] == [True, False]
    assert changes[0].episode.revision == 2


def test_the_same_signal_again_changes_nothing():
    state, _ = episodes.hear(FamilyState(), [signal(30, since_s=0)], POLICY, SUBJECT)

    assert episodes.hear(state, [signal(30, since_s=0)], POLICY, SUBJECT) == (state, ())


def test_the_same_finding_later_is_no_news():
    state, _ = episodes.hear(FamilyState(), [signal(30, since_s=0)], POLICY, SUBJECT)
    later = msgspec.structs.replace(signal(30, since_s=0), at_ms=START_MS + 40_000)

    assert episodes.hear(state, [later], POLICY, SUBJECT)[1] == ()


def test_a_request_for_help_is_shown_at_once_also_in_the_cooldown_of_the_one_before():
    subject = msgspec.structs.replace(SUBJECT, family=SignalFamily.HELP)
    told = play(
        signal(0, strength=Strength.STRONG),
        signal(20, raised=False),
        signal(30, strength=Strength.STRONG),
        until_s=31,
        subject=subject,
    )

    assert told == [
        (0.0, "opened", "high"),
        (20.0, "closed", "high"),
        (30.0, "opened", "high"),
    ]


def test_time_changes_nothing_before_it_is_due():
    state, _ = episodes.hear(FamilyState(), [signal(0)], POLICY, SUBJECT)

    assert episodes.on_time(state, START_MS + 24_999, POLICY, SUBJECT) == (state, ())
    assert episodes.on_time(FamilyState(), START_MS, POLICY, SUBJECT) == (FamilyState(), ())


@pytest.mark.parametrize("strength", Strength)
@pytest.mark.parametrize("weight", [0.5, 1.0, 2.0])
def test_severity_is_monotone_in_persistence_and_strength(strength, weight):
    over_time = [
        SEVERITY_RANK[episodes.severity_of((signal(0, strength=strength),), at * 1000, weight)]
        for at in range(0, 900, 5)
    ]
    by_strength = [
        SEVERITY_RANK[episodes.severity_of((signal(0, strength=each),), 60_000, weight)] for each in Strength
    ]

    assert over_time == sorted(over_time)
    assert by_strength == sorted(by_strength)


def test_an_episode_is_named_by_pupil_app_family_and_onset_without_collisions():
    name = episodes.episode_id("a:b", "c", ACCURACY, 1)

    assert name == episodes.episode_id("a:b", "c", ACCURACY, 1)
    assert name != episodes.episode_id("a", "b:c", ACCURACY, 1)
    assert name != episodes.episode_id("a:b", "c", ACCURACY, 2)


# Whole lessons


def test_five_wrong_answers_open_one_high_episode_and_right_ones_close_it():
    pupil = Pupil().answers("-----", item="8").answers("+++++", from_s=70, item="9")

    _, decisions = run(pupil, until_s=600)

    assert story(decisions, ACCURACY) == [
        (35.0, "EpisodeOpened", "medium"),
        (40.0, "EpisodeUpdated", "medium"),
        (50.0, "EpisodeEscalated", "high"),
        (80.0, "EpisodeClosed", "high"),
    ]


def test_an_episode_carries_words_evidence_and_the_strip_of_what_was_done():
    pupil = (
        Pupil().does(5, "keypress", 20).does(8, "backspace", 2).answers("-----", item="8", skill="fractions")
    )

    _, decisions = run(pupil, until_s=60)

    episode = [each.episode for each in decisions if getattr(each, "episode", None) is not None][-1]
    accuracy = [each.episode for each in decisions if each.episode.family == ACCURACY][-1]
    assert accuracy.reason.text == "5 wrong answers in a row on item 8, no hint opened"
    assert accuracy.reason.key == "error_streak"
    assert (accuracy.item, accuracy.skill) == ("8", "fractions")
    assert [(point.kind, point.value, point.corrections) for point in accuracy.strip] == [
        ("typing", 22.0, 2.0),
        *[("wrong", 1.0, 0.0)] * 5,
    ]
    assert episode.profile_version == 1


def test_the_strip_is_bounded_in_time_and_length():
    pupil = Pupil()
    for index in range(200):
        pupil.does(10 + index * 7, "error" if index % 3 else "answer", 1, item="1")
    for at_s in (1400, 1402, 1404, 1406):
        pupil.does(at_s, "hint", 1)
    pupil.does(1407, "pause", 4).does(1408, "completion").does(1409, "answer", 0).answers(
        "-" * 6, from_s=1410
    )

    _, decisions = run(pupil, until_s=1600)

    strip = [each.episode for each in decisions if isinstance(each, EpisodeOpened)][-1].strip
    assert len(strip) <= 40
    assert {"wrong", "hint", "pause", "completion", "error"} <= {point.kind for point in strip}
    old = Pupil().answers("-" * 9).answers("-" * 4, from_s=800)
    _, decisions = run(old, until_s=900)
    assert len([each.episode for each in decisions if isinstance(each, EpisodeOpened)][-1].strip) == 3


def test_an_episode_ends_when_nothing_is_received_for_a_quarter_of_an_hour():
    state, decisions = run(Pupil().does(5, "keypress").does(10, "blur"), until_s=3000)

    closed = [each.episode for each in decisions if isinstance(each, EpisodeClosed)]
    assert [(each.family, each.closed_by, each.closed_ms) for each in closed] == [
        (SignalFamily.AWAY, "left", START_MS + 910_000)
    ]
    assert state.desks["pupil-1", "maths"].student.has_left


def test_a_new_session_ends_what_was_open_but_not_a_request_for_help():
    pupil = Pupil(session_id="one").answers("-----").does(55, "help_request")
    pupil.session_id = "two"
    pupil.does(60, "keypress", 3)

    _, decisions = run(pupil, until_s=100)

    closed = [each.episode for each in decisions if isinstance(each, EpisodeClosed)]
    assert [(each.family, each.closed_by) for each in closed] == [(ACCURACY, "left")]


def test_a_profile_changes_the_hold_and_the_cooldown():
    quick = from_dict({"episodes": {"hold_s": 5, "cooldown_s": 20, "clear_s": 0}})
    pupil = Pupil().answers("---+", every_s=1).answers("---", from_s=40, every_s=1)

    _, decisions = run(pupil, until_s=60, profile=quick)
    _, usual = run(pupil, until_s=60, profile=DEFAULT)

    assert story(decisions, ACCURACY) == [(45.0, "EpisodeOpened", "medium")]
    assert story(usual, ACCURACY) == []


def test_a_family_without_weight_makes_no_more_than_low_episodes():
    mild = from_dict({"episodes": {"weights": {"accuracy": 0.0}}})

    _, decisions = run(Pupil().answers("-" * 8), until_s=500, profile=mild)

    assert {severity for _, _, severity in story(decisions, ACCURACY)} == {Severity.LOW.value}
