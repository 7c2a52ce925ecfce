"""Template tags shared by the portal's pages and the fragments pushed to them."""

from __future__ import annotations

from datetime import datetime, timedelta

from django import template
from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from usability.portal import charts
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


@register.filter
def in_words(effect: Effect) -> str:
    """What came after help, with its counts; never a claim that the help did it."""
    if effect.verdict == "too_little_data" or effect.before is None or effect.after is None:
        return _("too little data to say")
    facts = _("%(before)d %% right before (%(before_n)d answers), %(after)d %% after (%(after_n)d)") % {
        "before": round(100 * effect.before),
        "before_n": effect.before_n,
        "after": round(100 * effect.after),
        "after_n": effect.after_n,
    }
    words = {
        "better": _("more right after"),
        "worse": _("fewer right after"),
        "unclear": _("no clear change"),
    }
    return f"{words.get(effect.verdict, effect.verdict)}: {facts}"


@register.simple_tag
def rating_boxes(rating: int) -> SafeString:
    """Five boxes, `rating` of them filled; the number stands beside them."""
    boxes = format_html_join(
        "",
        '<rect class="{}" x="{}" y="1" width="12" height="12" rx="2"/>',
        (("r-on" if place < rating else "r-off", 1 + 16 * place) for place in range(5)),
    )
    return format_html('<svg viewBox="0 0 80 14" aria-hidden="true">{}</svg>', boxes)
