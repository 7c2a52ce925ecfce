"""The student page's timeline: one picture and the same facts as a table."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from usability.portal import charts
from usability.selectors.shapes import Bucket, Episode, StudentPage


@dataclass(frozen=True, slots=True)
class Span:
    """How far back the page looks."""

    key: str
    words: str
    length: timedelta


SPANS = (
    Span("hour", gettext_lazy("Last hour"), timedelta(hours=1)),
    Span("day", gettext_lazy("Last day"), timedelta(days=1)),
    Span("week", gettext_lazy("Last week"), timedelta(days=7)),
)


def span_of(key: str) -> Span:
    """The span of that key; the shortest where there is none."""
    return next((span for span in SPANS if span.key == key), SPANS[0])


@dataclass(frozen=True, slots=True)
class Bar:
    """An episode, a stretch or a bar on the chart."""

    x: float
    width: float
    y: float = 0.0
    height: float = 0.0
    kind: str = ""
    words: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """Everything on the picture, in its units; rows from top: episodes, answers, hints, corrections, help, rating."""

    title: str
    axis: charts.Axis
    episodes: tuple[Bar, ...]
    right: tuple[Bar, ...]
    wrong: tuple[Bar, ...]
    hints: tuple[float, ...]
    pauses: tuple[Bar, ...]
    corrections: str
    helps: tuple[Bar, ...]
    ratings: tuple[Bar, ...]
    now_x: float


ANSWERS_MIDDLE, ANSWERS_HALF = 86.0, 18.0
CORRECTIONS_FLOOR, CORRECTIONS_HEIGHT = 208.0, 56.0


def chart_of(page: StudentPage) -> Chart:
    """Place the page's facts on a chart 800 by 306 units."""
    axis = charts.axis(page.since, page.until)
    step = timedelta(seconds=page.bucket_s)
    most = max((max(bucket.right, bucket.attempts - bucket.right) for bucket in page.buckets), default=0)
    return Chart(
        title=page.pupil.name,
        axis=axis,
        episodes=tuple(
            _episode(axis, episode, page.until) for episode in page.episodes if _touches(page, episode)
        ),
        right=tuple(
            _answers(axis, bucket, step, bucket.right, most, up=True)
            for bucket in page.buckets
            if bucket.right
        ),
        wrong=tuple(
            _answers(axis, bucket, step, bucket.attempts - bucket.right, most, up=False)
            for bucket in page.buckets
            if bucket.attempts > bucket.right
        ),
        hints=tuple(axis.x(bucket.at + step / 2) for bucket in page.buckets if bucket.hints),
        pauses=tuple(_pause(axis, bucket, step) for bucket in page.buckets if bucket.hesitation_s > 0),
        corrections=_corrections(axis, page.buckets, step),
        helps=tuple(
            Bar(axis.x(help_given.at), 0.0, words=help_given.kind)
            for help_given in page.interventions
            if page.since <= help_given.at <= page.until
        ),
        ratings=tuple(
            Bar(axis.x(rating.at), 0.0, words=_("%(n)d of 5") % {"n": rating.rating})
            for rating in page.ratings
            if page.since <= rating.at <= page.until
        ),
        now_x=axis.x(page.until),
    )


def _touches(page: StudentPage, episode: Episode) -> bool:
    return episode.started_at <= page.until and (episode.ended_at or page.until) >= page.since


def _episode(axis: charts.Axis, episode: Episode, now: datetime) -> Bar:
    left, right = axis.x(episode.started_at), axis.x(episode.ended_at or now)
    kind = "c-ep" if episode.severity in {"high", "critical"} else "c-ep-med"
    return Bar(left, max(3.0, round(right - left, 1)), kind=kind, words=episode.severity)


def _answers(axis: charts.Axis, bucket: Bucket, step: timedelta, count: int, most: int, *, up: bool) -> Bar:
    left, right = axis.x(bucket.at), axis.x(bucket.at + step)
    height = round(ANSWERS_HALF * count / most, 1)
    width = max(2.0, round(right - left - 1, 1))
    return Bar(left, width, y=ANSWERS_MIDDLE - height if up else ANSWERS_MIDDLE, height=height)


def _pause(axis: charts.Axis, bucket: Bucket, step: timedelta) -> Bar:
    end = axis.x(bucket.at + step)
    start = axis.x(bucket.at + step - timedelta(seconds=bucket.hesitation_s))
    return Bar(start, max(2.0, round(end - start, 1)))


def _corrections(axis: charts.Axis, buckets: tuple[Bucket, ...], step: timedelta) -> str:
    """An SVG path of the share of corrections; it breaks where nothing was typed."""
    path: list[str] = []
    pen_down = False
    for bucket in buckets:
        if bucket.correction_share is None:
            pen_down = False
            continue
        y = round(CORRECTIONS_FLOOR - CORRECTIONS_HEIGHT * min(1.0, bucket.correction_share), 1)
        path.append(f"{'L' if pen_down else 'M'}{axis.x(bucket.at + step / 2)} {y}")
        pen_down = True
    return "".join(path)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table twin."""

    at: datetime
    until: datetime | None
    what: str
    detail: str
    severity: str = ""


def rows_of(page: StudentPage) -> tuple[Row, ...]:
    """The chart's facts in order of time, newest first."""
    step = timedelta(seconds=page.bucket_s)
    rows = [
        Row(
            episode.started_at, episode.ended_at or page.until, _("Episode"), episode.reason, episode.severity
        )
        for episode in page.episodes
        if _touches(page, episode)
    ]
    rows += [
        Row(bucket.at, bucket.at + step, _("Work"), _work(bucket)) for bucket in page.buckets if _work(bucket)
    ]
    rows += [
        Row(
            given.at,
            None,
            _("Help given"),
            f"{given.kind}, {given.by}" + (f": {given.note}" if given.note else ""),
        )
        for given in page.interventions
        if page.since <= given.at <= page.until
    ]
    rows += [
        Row(rating.at, None, _("Rating"), _("%(n)d of 5") % {"n": rating.rating})
        for rating in page.ratings
        if page.since <= rating.at <= page.until
    ]
    return tuple(sorted(rows, key=lambda row: row.at, reverse=True))


def _work(bucket: Bucket) -> str:
    """A bucket in words; empty where nothing happened."""
    said = []
    if bucket.attempts:
        said.append(
            _("%(right)d right, %(wrong)d wrong")
            % {"right": bucket.right, "wrong": bucket.attempts - bucket.right}
        )
    if bucket.hints:
        said.append(_("%(n)d hints") % {"n": bucket.hints})
    if bucket.hesitation_s:
        said.append(_("paused %(n)d s") % {"n": round(bucket.hesitation_s)})
    if bucket.correction_share is not None and bucket.keypresses + bucket.backspaces >= 10:
        said.append(_("%(n)d %% corrections") % {"n": round(100 * bucket.correction_share)})
    if bucket.late:
        said.append(_("%(n)d came late") % {"n": bucket.late})
    return ", ".join(said)
