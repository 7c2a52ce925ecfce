"""Positions of the portal's inline SVG charts; the templates draw them.

Pure geometry: moments and values in, numbers out. Colours come from classes in the style sheet, never from here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

STRIP_SPAN = timedelta(minutes=10)
STRIP_LEFT, STRIP_RIGHT = 4.0, 268.0
TIMELINE_LEFT, TIMELINE_RIGHT = 112.0, 790.0


@dataclass(frozen=True, slots=True)
class Point:
    """Something a pupil did: `kind` is right, wrong, hint, pause, correction or help; `value` is seconds or a share."""

    at: datetime
    kind: str
    value: float = 0.0


@dataclass(frozen=True, slots=True)
class Mark:
    """A point placed on a chart; `width` is the length of a pause, `height` of a bar."""

    kind: str
    x: float
    width: float = 0.0
    height: float = 0.0


@dataclass(frozen=True, slots=True)
class Strip:
    """The last ten minutes of one pupil, oldest left; `label` says the same in words."""

    marks: tuple[Mark, ...]
    label: str


def strip(points: Sequence[Point], now: datetime) -> Strip:
    """Place what happened in the ten minutes before `now` on a strip 272 units wide."""
    recent = [point for point in points if now - STRIP_SPAN <= point.at <= now]
    scale = (STRIP_RIGHT - STRIP_LEFT) / STRIP_SPAN.total_seconds()
    start = now - STRIP_SPAN
    marks = []
    for point in recent:
        x = STRIP_LEFT + (point.at - start).total_seconds() * scale
        if point.kind == "pause":
            left = max(STRIP_LEFT, x - point.value * scale)
            marks.append(Mark("pause", round(left, 1), width=round(x - left, 1)))
        elif point.kind == "correction":
            marks.append(Mark("correction", round(x, 1), height=round(min(30.0, 60 * point.value), 1)))
        else:
            marks.append(Mark(point.kind, round(x, 1)))
    return Strip(tuple(marks), in_words(recent))


def in_words(points: Iterable[Point]) -> str:
    """What a strip shows, for those who do not see it."""
    counts: dict[str, int] = {}
    for point in points:
        counts[point.kind] = counts.get(point.kind, 0) + 1
    words = {
        "right": ("right answer", "right answers"),
        "wrong": ("wrong answer", "wrong answers"),
        "hint": ("hint", "hints"),
        "pause": ("pause", "pauses"),
        "correction": ("stretch of corrections", "stretches of corrections"),
        "help": ("help request", "help requests"),
    }
    said = [f"{counts[kind]} {pair[counts[kind] != 1]}" for kind, pair in words.items() if kind in counts]
    return "Last 10 minutes: " + (", ".join(said) if said else "nothing recorded")


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
