"""Template tags shared by the portal's pages and the fragments pushed to them."""

from __future__ import annotations

from datetime import datetime, timedelta

from django import template
from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from usability.portal import charts, words
from usability.selectors.shapes import Effect, Strip

register = template.Library()

SEVERITY_WORDS = {"low": "Low", "medium": "Medium", "high": "High", "critical": "Critical"}


@register.simple_tag
def icon(name: str) -> SafeString:
    """An icon of the sprite; always decorative, the word stands beside it."""
    return format_html(
        '<svg class="icon" aria-hidden="true"><use href="{}#i-{}"/></svg>', static("look/icons.svg"), name
    )


@register.simple_tag
def severity(level: str) -> SafeString:
    """Shape, word and colour of a severity."""
    return format_html(
        '<span class="sev sev-{}">{}{}</span>',
        level,
        icon(level),
        _(SEVERITY_WORDS.get(level, level.title())),
    )


@register.filter
def minutes(span: timedelta | float | None) -> str:
    """A duration as a teacher reads it: `40 s`, `9 min`, `2 h 5 min`; an unknown one is a dash."""
    if span is None:
        return "–"
    seconds = max(0, int(span.total_seconds() if isinstance(span, timedelta) else span))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


@register.filter
def since(moment: datetime | None, now: datetime | None = None) -> timedelta | None:
    """How long ago `moment` was."""
    return None if moment is None else (now or timezone.now()) - moment


@register.simple_tag
def strip_marks(strip: Strip) -> tuple[charts.Placed, ...]:
    """The marks of an evidence strip, placed."""
    return charts.placed_on_strip(strip)


@register.simple_tag
def strip_band(strip: Strip) -> tuple[float, float] | None:
    """The pupil's usual range of corrections on an evidence strip."""
    return charts.band_on_strip(strip)


@register.simple_tag
def seat_corner(place: str) -> tuple[int, int] | None:
    """Upper left corner of seat `C2` on the locator, a grid of dots 5 units apart."""
    if len(place) < 2 or not place[0].isalpha() or not place[1:].isdigit():
        return None
    return 5 * (ord(place[0].upper()) - ord("A")) - 1, 5 * (int(place[1:]) - 1) - 1


# What a measure counts, before and after; more is better in each.
EFFECT_FACTS = {
    "right_answers": gettext_lazy(
        "%(before)d %% right before (%(before_n)d answers), %(after)d %% after (%(after_n)d)"
    ),
    "working": gettext_lazy(
        "at work in %(before)d %% of the half minutes before (%(before_n)d), in %(after)d %% after (%(after_n)d)"
    ),
    "uncorrected_typing": gettext_lazy(
        "%(before)d %% typed without correcting before (%(before_n)d half minutes), %(after)d %% after (%(after_n)d)"
    ),
}
EFFECT_VERDICTS = {
    "right_answers": {
        "better": gettext_lazy("more right after"),
        "worse": gettext_lazy("fewer right after"),
    },
    "working": {"better": gettext_lazy("more at work after"), "worse": gettext_lazy("less at work after")},
    "uncorrected_typing": {
        "better": gettext_lazy("fewer corrections after"),
        "worse": gettext_lazy("more corrections after"),
    },
}


@register.filter
def verdict(effect: Effect) -> str:
    """The verdict alone, in the words of its measure."""
    if effect.verdict == "insufficient_data" or effect.before is None or effect.after is None:
        return _("too little data to say")
    found = EFFECT_VERDICTS.get(effect.measure, {}).get(effect.verdict)
    return str(found) if found else _("no clear change")


@register.filter
def in_words(effect: Effect) -> str:
    """What came after help, with its counts; never a claim that the help did it."""
    said = verdict(effect)
    if effect.verdict == "insufficient_data" or effect.before is None or effect.after is None:
        return said
    template = str(EFFECT_FACTS.get(effect.measure, EFFECT_FACTS["right_answers"]))
    facts = template % {
        "before": round(100 * effect.before),
        "before_n": effect.before_n,
        "after": round(100 * effect.after),
        "after_n": effect.after_n,
    }
    return f"{said}: {facts}"


@register.filter
def beside_unhelped(effect: Effect) -> str:
    """How that compares with moments of the same kind in which nobody helped; empty where there is no verdict."""
    if effect.verdict == "insufficient_data":
        return ""
    if effect.unhelped_before is None or effect.unhelped_after is None:
        return _("Too few moments without help to compare with.")
    facts = {
        "n": effect.unhelped_episodes,
        "before": round(100 * effect.unhelped_before),
        "after": round(100 * effect.unhelped_after),
    }
    said = {
        "more_than_without_help": _(
            "More than in %(n)d such moments without help (%(before)d %% to %(after)d %%)."
        ),
        "less_than_without_help": _(
            "Less than in %(n)d such moments without help (%(before)d %% to %(after)d %%)."
        ),
        "like_without_help": _(
            "Not clearly other than in %(n)d such moments without help (%(before)d %% to %(after)d %%)."
        ),
    }
    template = said.get(
        effect.compared, _("Too little data to compare with %(n)d such moments without help.")
    )
    return template % facts


@register.filter
def share(value: float | None) -> str:
    """A share in whole per cent; an unknown one is a dash."""
    return "–" if value is None else _("%(n)d %%") % {"n": round(100 * value)}


@register.simple_tag
def interval(low: float | None, high: float | None) -> str:
    """An interval of shares in whole per cent."""
    return (
        "–"
        if low is None or high is None
        else _("%(low)d–%(high)d %%")
        % {
            "low": round(100 * low),
            "high": round(100 * high),
        }
    )


@register.filter
def family_words(name: str) -> str:
    """A family of signals as a teacher calls it."""
    return words.family(name)


@register.filter
def measure_words(name: str) -> str:
    """What an effect is measured by."""
    return words.measure(name)


@register.filter
def kind_words(name: str) -> str:
    """A kind of help as a teacher calls it."""
    return words.help_kind(name)


@register.simple_tag
def rating_boxes(rating: int) -> SafeString:
    """Five boxes, `rating` of them filled; the number stands beside them."""
    boxes = format_html_join(
        "",
        '<rect class="{}" x="{}" y="1" width="12" height="12" rx="2"/>',
        (("r-on" if place < rating else "r-off", 1 + 16 * place) for place in range(5)),
    )
    return format_html('<svg viewBox="0 0 80 14" aria-hidden="true">{}</svg>', boxes)
