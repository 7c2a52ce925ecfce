"""Template tags shared by the portal's pages and the fragments pushed to them."""

from __future__ import annotations

from datetime import datetime, timedelta

from django import template
from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

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
        '<span class="sev sev-{}">{}{}</span>', level, icon(level), _(SEVERITY_WORDS.get(level, level.title()))
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
