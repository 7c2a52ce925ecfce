"""Why somebody was, or was not, on the screen at a minute: the answer as sentences a teacher reads."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from usability.portal import words
from usability.selectors.explain import ClassWhy, Why

# What does not interrupt by its nature is told apart from what something held back.
HELD_BACK = {
    "info": gettext_lazy("It is too slight to interrupt; it waits in the list."),
    "budget": gettext_lazy("The class’s alert budget was spent; it waits in the list."),
    "quiet_hours": gettext_lazy("Quiet hours held interruptions back; it waits in the list."),
    "snoozed": gettext_lazy("The pupil was snoozed; it waits in the list."),
    "paused": gettext_lazy("Alerts of the class were paused; it waits in the list."),
    "class_card": gettext_lazy("Several had the same trouble, so one card about the class was shown."),
    "already_told": gettext_lazy("You had been told before."),
}

RESTING = {
    "quiet_hours": gettext_lazy("Quiet hours held at that minute."),
    "paused": gettext_lazy("Alerts of the class are paused."),
    "snoozed": gettext_lazy("The pupil was snoozed at that minute."),
}

NOT_KNOWN = {
    "pauses": gettext_lazy(
        "When the class was paused is not stored. A pause shows here only where an alert was held back by it."
    ),
    "profile": gettext_lazy(
        "The settings of signals or alerts have been changed since. This is judged by those of today."
    ),
    "earlier_rows": gettext_lazy(
        "There was too much to read all of the two hours before; the newest was read."
    ),
}

CLOSED_AS = {
    "dismissed": gettext_lazy("It had been marked as not a problem."),
    "resolved": gettext_lazy("It had been marked as done."),
}

# Each rule's numbers (n_…) beside its thresholds (t_…).
BELOW = {
    "away": gettext_lazy("out of sight for %(n_away_s)s s; counts from %(t_away_s)s s"),
    "correction_burst": gettext_lazy(
        "%(n_high_bins)s half minutes of far more corrections than usual; counts from %(t_bins)s"
    ),
    "error_streak": gettext_lazy("%(n_errors_in_a_row)s in a row; counts from %(t_warn)s"),
    "hint_avoid": gettext_lazy("%(n_wrong)s wrong answers without a hint; counts from %(t_wrong)s"),
    "hint_rush": gettext_lazy("%(n_hints)s hints opened that fast; counts from %(t_hints)s"),
    "idle": gettext_lazy("nothing for %(n_idle_s)s s with an item open; counts from %(t_warn_s)s s"),
    "low_recent_success": gettext_lazy(
        "%(n_right)s of the last answers right; counts from %(t_low)s or fewer"
    ),
    "pace_drop": gettext_lazy(
        "%(n_slow_answers)s answers in a row slower than usual; slower means %(t_times)s times"
    ),
    "rapid_guess": gettext_lazy("%(n_fast_wrong)s fast wrong answers; counts from %(t_wrong)s"),
    "wheel_spin_risk": gettext_lazy("risk %(n_score)s after %(n_tries)s tries; counts from %(t_score)s"),
    "wheel_spinning": gettext_lazy("%(n_tries)s tries at the skill; counts from %(t_opportunities)s"),
}

# What a teacher could see comes first, then what was on its way, then what was not there.
_ORDER = ("interrupted", "listed", "closing", "cooldown", "held", "gone", "unknown", "below")
_FOR_COMPARISON = "reference"


SYMBOLS = {"bad": "critical", "warn": "medium", "calm": "info"}


@dataclass(frozen=True, slots=True)
class Answer:
    """One thing that was there, in words; `tone` is bad, warn or calm, as the page's notes are."""

    title: str
    sentences: tuple[str, ...]
    tone: str = "calm"

    @property
    def symbol(self) -> str:
        """The icon beside it: the tone is not told by colour alone."""
        return SYMBOLS[self.tone]


@dataclass(frozen=True, slots=True)
class Below:
    """A rule that found too little: what it found and from where it counts."""

    rule: str
    found: str
    app_name: str


@dataclass(frozen=True, slots=True)
class Answers:
    """What the page says about a minute."""

    answers: tuple[Answer, ...]
    below: tuple[Below, ...]
    resting: tuple[str, ...]
    not_known: tuple[str, ...]


def minute_of(text: str) -> datetime | None:
    """The end of the minute in a form's field (in the page's time zone), or a moment with its offset; else None.

    The whole minute is looked at, so that what began within it is in the answer.
    """
    try:
        found = parse_datetime(text)
    except ValueError:
        return None
    if found is None or not 1970 <= found.year <= 2999:
        return None
    aware = timezone.make_aware(found) if timezone.is_naive(found) else found
    return aware.replace(second=59, microsecond=999_000)


def field_of(moment: datetime) -> str:
    """The moment's minute as the form's field holds it."""
    return f"{timezone.localtime(moment):%Y-%m-%dT%H:%M}"


def answers_of(found: ClassWhy) -> Answers:
    """The answer of a class in words."""
    shown = [one for one in found.explanations if one.family != _FOR_COMPARISON]
    ordered = sorted(shown, key=lambda one: _ORDER.index(one.status))
    return Answers(
        answers=tuple(_answer(one) for one in ordered if one.status != "below"),
        below=tuple(
            Below(words.detector(one.detector), _found(one), one.app_name)
            for one in ordered
            if one.status == "below"
        ),
        resting=tuple(str(RESTING[one]) for one in found.resting),
        not_known=tuple(str(NOT_KNOWN[one]) for one in found.not_known),
    )


def _answer(one: Why) -> Answer:
    if one.status == "unknown":
        return Answer(
            _("Nothing was known"),
            (_("No report of this pupil in the two hours before is stored: not started, or on paper."),),
        )
    if one.status == "gone":
        last = {"since": _clock(one.since)}
        return Answer(
            _("Not working"),
            (_("Nothing came after %(since)s, so this pupil counted as gone.") % last,),
        )
    title = words.family(one.family)
    seen = (one.reason,) if one.reason else ()
    said = tuple(sentence for sentence in (*seen, *_status(one), *_recorded(one)) if sentence)
    return Answer(f"{title} ({one.app_name})", said, _tone(one))


def _tone(one: Why) -> str:
    if one.status == "interrupted":
        return "bad"
    return "warn" if one.status == "listed" else "calm"


def _status(one: Why) -> tuple[str, ...]:
    times = {"since": _clock(one.since), "until": _clock(one.until)}
    match one.status:
        case "interrupted":
            return (_("It interrupted. It had been there since %(since)s.") % times,)
        case "listed":
            return (
                _("It was in the list, there since %(since)s, and did not interrupt.") % times,
                str(HELD_BACK.get(one.held_back, "")),
            )
        case "closing":
            return (_("It was about to end, at %(until)s: the pupil had got going again.") % times,)
        case "cooldown":
            return (
                _("It came back soon after one of the same kind. Such a one is not shown before %(until)s.")
                % times,
            )
        case _:
            return (_("It had not lasted long enough to be shown: that would be from %(until)s.") % times,)


def _recorded(one: Why) -> tuple[str, ...]:
    if one.status not in ("interrupted", "listed", "closing"):
        return ()
    if one.recorded is None:
        return (_("No alert about it is stored: this is what the rules come to from the reports."),)
    closed = CLOSED_AS.get(one.recorded.closed_as)
    return (
        _("Stored as an alert at %(at)s.") % {"at": _clock(one.recorded.raised_at)},
        str(closed) if closed else "",
    )


def _clock(moment: datetime | None) -> str:
    return f"{timezone.localtime(moment):%H:%M:%S}" if moment else "–"


def _found(one: Why) -> str:
    sentence = BELOW.get(one.detector)
    values: dict[str, Any] = {f"n_{name}": _number(value) for name, value in one.numbers.items()}
    values |= {f"t_{name}": _number(value) for name, value in one.thresholds.items()}
    try:
        return str(sentence) % values if sentence else _plain(one)
    except KeyError:
        return _plain(one)


def _plain(one: Why) -> str:
    """The numbers by their names: for a rule that has no sentence."""
    numbers = ", ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in one.numbers.items())
    limits = ", ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in one.thresholds.items())
    return _("%(numbers)s; counts by %(limits)s") % {"numbers": numbers, "limits": limits}


def _number(value: float) -> str:
    return f"{value:g}"
