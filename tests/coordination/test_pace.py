"""The projection's pace: at once while little happens, in larger transactions under load, and never standing still."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coordination.node.duties import PROJECT_AT_ONCE_EVENTS, PROJECT_PERIOD_S, Pace


def test_a_few_events_are_written_at_once():
    pace = Pace()
    pace.note(1, 100.0)

    assert pace.rest_s(100.0) == 0.0


def test_many_events_gather_for_one_period():
    pace = Pace()
    pace.note(50 * PROJECT_AT_ONCE_EVENTS, 100.0)

    assert pace.rest_s(100.0) == PROJECT_PERIOD_S
    assert pace.rest_s(100.0 + PROJECT_PERIOD_S) < 1e-9


def test_after_a_quiet_time_events_are_written_at_once_again():
    pace = Pace()
    pace.note(50 * PROJECT_AT_ONCE_EVENTS, 100.0)

    pace.note(1, 1_000.0)

    assert pace.rest_s(1_000.0) == 0.0


@given(st.lists(st.tuples(st.integers(0, 10_000), st.floats(0.0, 5.0)), max_size=30), st.floats(0.0, 5.0))
def test_it_never_rests_longer_than_one_period(steps, later_s):
    pace, now_s = Pace(), 100.0
    for events, passed_s in steps:
        now_s += passed_s
        pace.note(events, now_s)

    assert 0.0 <= pace.rest_s(now_s + later_s) <= PROJECT_PERIOD_S
