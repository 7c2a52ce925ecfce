"""What interrupts a teacher, and why the rest waits in the list."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.detection.lesson import START_MS, Pupil, run
from usability.detection.budget import Controls, decide, full, is_quiet
from usability.detection.classroom import EpisodeEscalated, EpisodeOpened
from usability.detection.kinds import AlertSeverity, SignalFamily
from usability.detection.policy import BudgetPolicy, QuietHours, from_dict

POLICY = BudgetPolicy()
MONDAY_NOON = int(datetime(2025, 9, 1, 12, 0, tzinfo=UTC).timestamp() * 1000)


def ask(budget, now_ms=MONDAY_NOON, severity=AlertSeverity.WARNING, family=SignalFamily.ACCURACY, **kwargs):
    options = {
        "student_id": "pupil-1",
        "is_in_class_card": False,
        "policy": POLICY,
        "quiet_hours": (),
        "controls": Controls(),
    }
    return decide(budget, now_ms=now_ms, severity=severity, family=family, **(options | kwargs))


def verdicts(at_s: list[float], **kwargs) -> list[str]:
    budget, found = full(POLICY), []
    for each in at_s:
        budget, verdict = ask(budget, MONDAY_NOON + round(each * 1000), **kwargs)
        found.append("interrupts" if verdict.interrupts else verdict.held_back)
    return found


def test_three_interrupt_at_once_and_the_fourth_waits():
    assert verdicts([0, 1, 2, 3]) == ["interrupts"] * 3 + ["budget"]


def test_one_more_interrupts_every_ten_minutes():
    assert verdicts([0, 0, 0, 599, 600, 601, 1200]) == [
        *["interrupts"] * 3,
        "budget",
        "interrupts",
        "budget",
        "interrupts",
    ]


def test_saved_up_time_is_no_more_than_the_burst():
    assert verdicts([0, 100_000, 100_000, 100_000, 100_000]) == ["interrupts"] * 4 + ["budget"]


@given(st.lists(st.integers(0, 7200), max_size=60))
def test_never_more_than_the_burst_and_one_in_ten_minutes(seconds):
    told = verdicts(sorted(seconds))
    at = [each for each, verdict in zip(sorted(seconds), told, strict=True) if verdict == "interrupts"]

    for index, begin in enumerate(at):
        for last in range(index, len(at)):
            assert last - index + 1 <= 3 + (at[last] - begin) / 600


def test_information_never_interrupts_and_costs_nothing():
    assert verdicts([0] * 9, severity=AlertSeverity.INFO) == ["info"] * 9


@pytest.mark.parametrize(
    ("severity", "family"),
    [(AlertSeverity.WARNING, SignalFamily.HELP), (AlertSeverity.CRITICAL, SignalFamily.PROGRESS)],
)
def test_help_and_critical_pass_the_budget_and_cost_nothing(severity, family):
    budget = full(POLICY)
    for _ in range(20):
        budget, verdict = ask(budget, severity=severity, family=family)
        assert verdict.interrupts
    assert budget == full(POLICY)


def test_comparison_signals_never_interrupt():
    assert verdicts([0], severity=AlertSeverity.CRITICAL, family=SignalFamily.REFERENCE) == ["comparison"]


def test_a_snoozed_pupil_waits_and_others_do_not():
    controls = Controls(snoozed_until_ms={"pupil-1": MONDAY_NOON + 1000})

    assert verdicts([0], controls=controls) == ["snoozed"]
    assert verdicts([1], controls=controls) == ["interrupts"]
    assert verdicts([0], controls=controls, student_id="pupil-2") == ["interrupts"]
    assert verdicts([0], controls=controls, family=SignalFamily.HELP) == ["interrupts"]
    assert verdicts([0], controls=controls, severity=AlertSeverity.CRITICAL) == ["interrupts"]


def test_a_paused_class_lets_only_help_requests_through():
    controls = Controls(paused_until_ms=MONDAY_NOON + 1000)

    assert verdicts([0], controls=controls) == ["paused"]
    assert verdicts([0], controls=controls, severity=AlertSeverity.CRITICAL) == ["paused"]
    assert verdicts([0], controls=controls, family=SignalFamily.HELP) == ["interrupts"]
    assert verdicts([1], controls=controls) == ["interrupts"]


def test_nothing_interrupts_in_quiet_hours():
    quiet = (QuietHours(start="11:00", end="13:00"),)

    assert verdicts([0], quiet_hours=quiet, family=SignalFamily.HELP) == ["quiet_hours"]
    assert verdicts([3600], quiet_hours=quiet) == ["interrupts"]


def test_one_in_a_class_card_waits():
    assert verdicts([0], is_in_class_card=True) == ["class_card"]


@pytest.mark.parametrize(
    ("hour", "minute", "day", "expected"),
    [
        (20, 59, 1, False),
        (21, 0, 1, True),
        (23, 59, 1, True),
        (6, 59, 2, True),  # Monday's night ends on Tuesday
        (7, 0, 2, False),
        (21, 0, 2, False),  # Tuesday has no quiet hours of its own
        (6, 0, 1, False),  # nor has Sunday
    ],
)
def test_quiet_hours_over_midnight_belong_to_the_day_they_begin_on(hour, minute, day, expected):
    at_ms = int(datetime(2025, 9, day, hour, minute, tzinfo=UTC).timestamp() * 1000)

    assert is_quiet(at_ms, (QuietHours(start="21:00", end="07:00", days=(0,)),), 0) is expected


def test_quiet_hours_are_local():
    hours = (QuietHours(start="14:00", end="15:00", days=(0,)),)

    assert not is_quiet(MONDAY_NOON, hours, 0)
    assert is_quiet(MONDAY_NOON, hours, 120)


def test_no_burst_means_that_only_help_and_critical_interrupt():
    none = BudgetPolicy(burst=0)
    budget, verdict = ask(full(none), policy=none)

    assert verdict.held_back == "budget"
    assert ask(budget, policy=none, severity=AlertSeverity.CRITICAL)[1].interrupts


# In a lesson


def test_the_fourth_pupil_of_a_lesson_waits_in_the_list():
    pupils = [
        Pupil(f"pupil-{index}").answers("---", from_s=10 + index * 20, item=f"{index}") for index in range(4)
    ]

    _, decisions = run(*pupils, until_s=100)

    opened = [each for each in decisions if isinstance(each, EpisodeOpened)]
    assert [(each.interrupts, each.held_back) for each in opened] == [(True, "")] * 3 + [(False, "budget")]


def test_an_episode_interrupts_once_and_again_when_it_gets_critical():
    _, decisions = run(Pupil().answers("-" * 6, item="8", every_s=20), until_s=600)

    loud = [
        (type(each), each.episode.severity.value) for each in decisions if getattr(each, "interrupts", False)
    ]
    assert loud == [(EpisodeOpened, "medium"), (EpisodeOpened, "high"), (EpisodeEscalated, "critical")]
    assert {each.held_back for each in decisions if not getattr(each, "interrupts", True)} == {"already_told"}


def test_a_request_for_help_in_an_empty_budget_interrupts_on_receipt():
    none = from_dict({"budget": {"burst": 0}})
    pupil = Pupil().answers("----").does(60, "help_request", delay_s=0.2)

    state, decisions = run(pupil, until_s=60.2, profile=none)

    assert [(each.episode.family, each.interrupts) for each in decisions] == [
        (SignalFamily.ACCURACY, False),
        (SignalFamily.ACCURACY, False),
        (SignalFamily.HELP, True),
    ]
    assert state.clock_ms == START_MS + 60_200
