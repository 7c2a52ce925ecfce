"""The charts of the trends page: places in SVG units, and the finding each is titled with.

Geometry and sentences; no colour and no query.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from usability.portal import words
from usability.proportions import Share, gap
from usability.selectors.shapes import Effect
from usability.selectors.trends import DAY, WEEK, Ratings, SignalFamily, Trends, Week

LEFT, RIGHT, TOP, FLOOR = 44.0, 600.0, 24.0, 200.0
SPANS_AT_LEAST = 3
BARS_LEFT, BARS_RIGHT = 190.0, 560.0


@dataclass(frozen=True, slots=True)
class Period:
    """How far back the page looks, and by days or weeks."""

    key: str
    words: str
    length: dt.timedelta
    step: str


PERIODS = (
    Period("days", gettext_lazy("2 weeks, by day"), dt.timedelta(days=13), DAY),
    Period("weeks", gettext_lazy("8 weeks"), dt.timedelta(weeks=7), WEEK),
    Period("year", gettext_lazy("School year"), dt.timedelta(weeks=43), WEEK),
)


def period_of(key: str) -> Period:
    """The period of that key; eight weeks where there is none."""
    return next((one for one in PERIODS if one.key == key), PERIODS[1])


@dataclass(frozen=True, slots=True)
class Dot:
    """One share with its interval on the chart."""

    x: float
    y: float
    low_y: float
    high_y: float
    words: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A line of the grid with its label."""

    at: float
    words: str


@dataclass(frozen=True, slots=True)
class ShareChart:
    """The share of pupils with a signal over days or weeks. `lines` break where nobody worked."""

    finding: str
    caution: str
    dots: tuple[Dot, ...]
    lines: tuple[str, ...]
    rows: tuple[Tick, ...]
    columns: tuple[Tick, ...]


def share_chart(found: Trends) -> ShareChart:
    """The chart of `found.spans`."""
    top_share = max([0.1, *(one.high for one in found.spans if one.high is not None)])
    top = next(
        step for step in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0) if step >= min(1.0, top_share) - 1e-9
    )
    count = max(1, len(found.spans) - 1)
    places = [round(LEFT + 26 + (RIGHT - LEFT - 52) * index / count, 1) for index in range(len(found.spans))]

    def y(value: float) -> float:
        return round(FLOOR - (FLOOR - TOP) * min(1.0, value / top), 1)

    dots, lines, line = [], [], []
    for x, span in zip(places, found.spans, strict=True):
        if span.share is None or span.low is None or span.high is None:
            lines, line = ([*lines, _path(line)] if len(line) > 1 else lines), []
            continue
        dots.append(Dot(x, y(span.share), y(span.low), y(span.high), f"{round(100 * span.share)} %"))
        line.append((x, y(span.share)))
    lines = [*lines, _path(line)] if len(line) > 1 else lines
    finding, caution = _share_finding([one for one in found.spans if one.share is not None], found.step)
    every = max(1, -(-len(found.spans) // 9))
    return ShareChart(
        finding=finding,
        caution=caution,
        dots=tuple(dots),
        lines=tuple(lines),
        rows=tuple(Tick(y(top * part / 4), f"{round(100 * top * part / 4)} %") for part in range(5)),
        columns=tuple(
            Tick(x, _span_words(span.starts_on))
            for index, (x, span) in enumerate(zip(places, found.spans, strict=True))
            if (len(found.spans) - 1 - index) % every == 0
        ),
    )


def _path(points: list[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x} {y}" for x, y in points)


def _span_words(day: dt.date) -> str:
    return date_format(day, "j M")


def _share_finding(spans: list[Week], step: str) -> tuple[str, str]:
    """A title that says no more than the intervals allow, and why."""
    if len(spans) < SPANS_AT_LEAST:
        return _("Too little data for a trend"), _(
            "A trend needs at least three of them with work in the app."
        )
    first, last = spans[0], spans[-1]
    change = gap(Share(first.with_signal, first.pupils), Share(last.with_signal, last.pupils))
    facts = {
        "first": round(100 * (first.share or 0)),
        "last": round(100 * (last.share or 0)),
        "when": _span_words(first.starts_on),
    }
    if change is not None and change.high < 0:
        return (
            _("Fewer pupils had a signal than at first"),
            _("From %(first)d %% (%(when)s) to %(last)d %%: more than chance between these two.") % facts,
        )
    if change is not None and change.low > 0:
        return (
            _("More pupils had a signal than at first"),
            _("From %(first)d %% (%(when)s) to %(last)d %%: more than chance between these two.") % facts,
        )
    return (
        _("No clear change in how many pupils had a signal"),
        _("From %(first)d %% (%(when)s) to %(last)d %%: the difference may be chance.") % facts,
    )


# ---------------------------------------------------------------- before and after help


@dataclass(frozen=True, slots=True)
class Pair:
    """One kind of help on the chart: before and after, each a point with its interval."""

    label: str
    count: str
    y: float
    before: tuple[float, float, float]
    after: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class HelpChart:
    """All pairs of one measure, the moments without help last."""

    measure: str
    finding: str
    title: str
    pairs: tuple[Pair, ...]
    columns: tuple[Tick, ...]
    height: float
    rule_y: float | None


MEASURE_TITLES = {
    "right_answers": gettext_lazy("Share of right answers in the 10 minutes before and after"),
    "working": gettext_lazy("Share of half minutes at work in the 10 minutes before and after"),
    "uncorrected_typing": gettext_lazy(
        "Share of typing without corrections in the 10 minutes before and after"
    ),
}
# Findings by measure: all kinds did more than without help, one kind did, it went up, nothing clear.
FINDINGS = {
    "right_answers": (
        gettext_lazy("After help more answers were right, more so than without"),
        gettext_lazy("After “%(kind)s” more answers were right, more so than without help"),
        gettext_lazy("More answers were right after help, not clearly more than without"),
        gettext_lazy("No clear change in right answers after help"),
    ),
    "working": (
        gettext_lazy("After help pupils were more at work, more so than without"),
        gettext_lazy("After “%(kind)s” pupils were more at work, more so than without help"),
        gettext_lazy("Pupils were more at work after help, not clearly more than without"),
        gettext_lazy("No clear change in time at work after help"),
    ),
    "uncorrected_typing": (
        gettext_lazy("After help less was corrected, more so than without"),
        gettext_lazy("After “%(kind)s” less was corrected, more so than without help"),
        gettext_lazy("Less was corrected after help, not clearly more than without"),
        gettext_lazy("No clear change in corrections after help"),
    ),
}
PAIR_HEIGHT = 44.0


def help_charts(found: Trends) -> tuple[HelpChart, ...]:
    """One chart a measure that has enough help to show."""
    charts = []
    for measure, title in MEASURE_TITLES.items():
        kinds = [one for one in found.help_kinds if one.effect.measure == measure and _is_whole(one.effect)]
        if not kinds:
            continue
        pairs = [
            Pair(
                words.help_kind(one.kind),
                _("%(n)d times") % {"n": one.times},
                34 + PAIR_HEIGHT * index,
                _points(one.effect.before, one.effect.before_low, one.effect.before_high),
                _points(one.effect.after, one.effect.after_low, one.effect.after_high),
            )
            for index, one in enumerate(kinds)
        ]
        rule_y = None
        for other in found.unhelped:
            if other.measure == measure:
                rule_y = 34 + PAIR_HEIGHT * len(pairs) - 20
                pairs.append(
                    Pair(
                        _("No help (similar moments)"),
                        _("%(n)d times") % {"n": other.episodes},
                        rule_y + 24,
                        _points_of(other.before),
                        _points_of(other.after),
                    )
                )
        height = 34 + PAIR_HEIGHT * len(pairs) + 10
        charts.append(
            HelpChart(
                measure=measure,
                finding=_help_finding(measure, [(words.help_kind(one.kind), one.effect) for one in kinds]),
                title=str(title),
                pairs=tuple(pairs),
                columns=tuple(Tick(_x(part / 4), f"{25 * part} %") for part in range(5)),
                height=height,
                rule_y=rule_y,
            )
        )
    return tuple(charts)


def _is_whole(effect: Effect) -> bool:
    return effect.before is not None and effect.after is not None


def _x(share: float) -> float:
    return round(BARS_LEFT + (BARS_RIGHT - BARS_LEFT) * share, 1)


def _points(value: float | None, low: float | None, high: float | None) -> tuple[float, float, float]:
    return _x(value or 0.0), _x(low or 0.0), _x(1.0 if high is None else high)


def _points_of(share: Share) -> tuple[float, float, float]:
    low, high = share.interval() or (0.0, 1.0)
    return _points(share.value, low, high)


def _help_finding(measure: str, kinds: list[tuple[str, Effect]]) -> str:
    """A title that says no more than the intervals and the comparison allow."""
    of_all, of_one, went_up, unclear = FINDINGS[measure]
    more = [label for label, effect in kinds if effect.compared == "more_than_without_help"]
    if more and len(more) == len(kinds) > 1:
        return str(of_all)
    if more:
        return str(of_one) % {"kind": more[0]}
    return str(went_up if any(effect.verdict == "better" for _label, effect in kinds) else unclear)


# ---------------------------------------------------------------- kinds of signals, ratings


@dataclass(frozen=True, slots=True)
class Bar:
    """One horizontal bar with its label and value."""

    label: str
    value: str
    y: float
    width: float


@dataclass(frozen=True, slots=True)
class Bars:
    """A chart of bars."""

    bars: tuple[Bar, ...]
    height: float


def _bars(rows: list[tuple[str, float, str]], row_height: float, widest: float) -> Bars:
    most = max((value for _label, value, _said in rows), default=0.0)
    return Bars(
        tuple(
            Bar(
                label,
                said,
                8 + row_height * index,
                round(widest * value / most, 1) if most else 0.0,
            )
            for index, (label, value, said) in enumerate(rows)
        ),
        16 + row_height * len(rows),
    )


def family_bars(families: tuple[SignalFamily, ...]) -> Bars:
    """Minutes with a signal, by kind."""
    return _bars(
        [
            (words.family(one.family), one.minutes, _("%(n)d min") % {"n": round(one.minutes)})
            for one in families
        ],
        30.0,
        300.0,  # beside the longest name of a kind
    )


def rating_bars(ratings: Ratings) -> Bars:
    """How many gave each of 5 to 1."""
    return _bars(
        [
            (_("%(n)d of 5") % {"n": stars}, float(ratings.counts[stars - 1]), str(ratings.counts[stars - 1]))
            for stars in range(5, 0, -1)
        ],
        26.0,
        340.0,
    )
