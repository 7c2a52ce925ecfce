"""Positions of the portal's inline SVG charts; the templates draw them.

Pure geometry: moments and values in, numbers out. Colours come from classes in the style sheet, never from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from usability.selectors.shapes import Strip

STRIP_LEFT, STRIP_RIGHT = 4.0, 268.0
STRIP_FLOOR, STRIP_BAR = 31.0, 60.0
TIMELINE_LEFT, TIMELINE_RIGHT = 112.0, 790.0


@dataclass(frozen=True, slots=True)
class Placed:
    """A mark on a chart: `x` is its middle (a pause: its left end), `width` a pause's length, `height` a bar's."""

    kind: str
    x: float
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0


def placed_on_strip(strip: Strip) -> tuple[Placed, ...]:
    """Where the marks of an evidence strip lie; the strip is 272 units wide, its end on the right."""
    scale = (STRIP_RIGHT - STRIP_LEFT) / strip.length_s
    has_answers = any(mark.kind in {"right", "wrong"} for mark in strip.marks)
    places = []
    for mark in strip.marks:
        x = round(STRIP_RIGHT - mark.at_s * scale, 1)
        if x < STRIP_LEFT:
            continue
        if mark.kind == "pause":
            left = max(STRIP_LEFT, x - mark.size * scale)
            places.append(Placed("pause", round(left, 1), width=round(x - left, 1)))
        elif mark.kind == "corrections":
            height = round(min(STRIP_FLOOR - 1, STRIP_BAR * mark.size), 1)
            kind = "over" if strip.usual_high is not None and mark.size > strip.usual_high else "fill"
            if kind == "over" or not has_answers:  # usual corrections would only hide the answers
                places.append(Placed(kind, x, y=STRIP_FLOOR - height, height=height))
        else:
            places.append(Placed(mark.kind, x))
    return tuple(places)


def band_on_strip(strip: Strip) -> tuple[float, float] | None:
    """Top and height of the pupil's usual range of corrections, where it is known."""
    if strip.usual_low is None or strip.usual_high is None:
        return None
    top = STRIP_FLOOR - min(STRIP_FLOOR - 1, STRIP_BAR * strip.usual_high)
    return round(top, 1), round(STRIP_FLOOR - STRIP_BAR * strip.usual_low - top, 1)


@dataclass(frozen=True, slots=True)
class Axis:
    """A time axis: ticks as (x, moment), and where a moment lies."""

    start: datetime
    end: datetime
    ticks: tuple[tuple[float, datetime], ...]

    def x(self, moment: datetime) -> float:
        """The place of `moment`, kept inside the chart."""
        span = (self.end - self.start).total_seconds()
        share = (moment - self.start).total_seconds() / span
        return round(TIMELINE_LEFT + min(1.0, max(0.0, share)) * (TIMELINE_RIGHT - TIMELINE_LEFT), 1)


TICK_STEPS = [timedelta(minutes=m) for m in (1, 2, 5, 10, 15, 30, 60, 120, 240, 480, 1440)]


def axis(start: datetime, end: datetime) -> Axis:
    """An axis with at most ten round ticks between `start` and `end`."""
    step = next((step for step in TICK_STEPS if (end - start) / step <= 10), TICK_STEPS[-1])
    first = datetime.fromtimestamp(
        -(-start.timestamp() // step.total_seconds()) * step.total_seconds(), tz=start.tzinfo
    )
    moments = []
    while first <= end and len(moments) < 40:
        moments.append(first)
        first += step
    plain = Axis(start, end, ())
    return Axis(start, end, tuple((plain.x(moment), moment) for moment in moments))
