"""Where things lie on the portal's charts, and how they are said in words."""

from __future__ import annotations

import datetime as dt

import pytest
from django.template import Context, Template

from usability.portal import charts, timeline
from usability.selectors.shapes import Effect, Mark, Strip

NOON = dt.datetime(2026, 11, 24, 12, 0, tzinfo=dt.UTC)


def strip(*marks: Mark, usual: tuple[float, float] | None = None) -> Strip:
    low, high = usual or (None, None)
    return Strip(ends_at=NOON, length_s=600, marks=marks, usual_low=low, usual_high=high)


def test_the_end_of_a_strip_is_on_the_right_and_ten_minutes_ago_on_the_left():
    placed = charts.placed_on_strip(strip(Mark("right", 0), Mark("wrong", 600)))

    assert [(one.kind, one.x) for one in placed] == [("right", 268.0), ("wrong", 4.0)]


def test_what_is_older_than_the_strip_is_left_out():
    assert charts.placed_on_strip(strip(Mark("wrong", 601))) == ()


def test_a_pause_ends_where_it_ended_and_never_begins_before_the_strip():
    (inside,) = charts.placed_on_strip(strip(Mark("pause", 60, 120)))
    (over,) = charts.placed_on_strip(strip(Mark("pause", 540, 300)))

    assert inside.x + inside.width == pytest.approx(268 - 60 * 0.44, abs=0.2)
    assert inside.width == pytest.approx(120 * 0.44, abs=0.2)
    assert over.x == 4.0


def test_corrections_above_the_usual_are_drawn_beside_answers_and_usual_ones_are_not():
    usual = strip(Mark("right", 10), Mark("corrections", 30, 0.1), usual=(0.05, 0.2))
    above = strip(Mark("right", 10), Mark("corrections", 30, 0.5), usual=(0.05, 0.2))

    assert [one.kind for one in charts.placed_on_strip(usual)] == ["right"]
    assert [one.kind for one in charts.placed_on_strip(above)] == ["right", "over"]


def test_the_band_of_the_usual_is_drawn_where_it_is_known():
    top, height = charts.band_on_strip(strip(usual=(0.1, 0.2)))

    assert (top, height) == (19.0, 6.0)
    assert charts.band_on_strip(strip()) is None


@pytest.mark.parametrize(("hours", "step"), [(1, 10), (24, 240), (24 * 7, 1440)])
def test_an_axis_has_at_most_ten_round_ticks(hours, step):
    axis = charts.axis(NOON - dt.timedelta(hours=hours, minutes=7), NOON)

    assert 2 <= len(axis.ticks) <= 10
    assert all(moment.timestamp() % (step * 60) == 0 for _, moment in axis.ticks)
    assert [x for x, _ in axis.ticks] == sorted(x for x, _ in axis.ticks)


def test_a_moment_outside_an_axis_stays_on_its_edge():
    axis = charts.axis(NOON - dt.timedelta(hours=1), NOON)

    assert axis.x(NOON - dt.timedelta(days=1)) == charts.TIMELINE_LEFT
    assert axis.x(NOON + dt.timedelta(days=1)) == charts.TIMELINE_RIGHT


def test_an_unknown_span_is_the_shortest():
    assert timeline.span_of("century").key == "hour"


def rendered(template: str, **values: object) -> str:
    return Template("{% load gaia %}" + template).render(Context(values))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, "–"), (40, "40 s"), (60, "1 min"), (3599, "59 min"), (7500, "2 h 5 min"), (-3, "0 s")],
)
def test_a_duration_is_said_as_a_teacher_reads_it(seconds, said):
    assert rendered("{{ span|minutes }}", span=seconds) == said


@pytest.mark.parametrize(
    ("place", "corner"), [("A1", "(-1, -1)"), ("C2", "(9, 4)"), ("", "None"), ("22", "None")]
)
def test_a_seat_has_its_place_on_the_locator(place, corner):
    assert rendered("{% seat_corner place as corner %}{{ corner }}", place=place) == corner


def effect(verdict: str, before: float | None = 0.4, after: float | None = 0.8) -> Effect:
    return Effect(verdict, before, 10, 0.2, 0.6, after, 5, 0.5, 0.9, 600)


def test_what_came_after_help_is_said_with_its_counts():
    said = rendered("{{ effect|in_words }}", effect=effect("better"))

    assert said == "more right after: 40 % right before (10 answers), 80 % after (5)"


def test_too_little_data_says_so():
    assert (
        rendered("{{ effect|in_words }}", effect=effect("unclear", before=None)) == "too little data to say"
    )
    assert rendered("{{ effect|in_words }}", effect=effect("insufficient_data")) == "too little data to say"
