"""Text of the API's document as a page shows it: lines wrapped in the source run on, `names` stand in code."""

from __future__ import annotations

import re

from django import template
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

register = template.Library()

_BLANK_LINE = re.compile(r"\n\s*\n")
_NAME = re.compile(r"`([^`]+)`")


@register.filter
def words(text: str) -> SafeString:
    """One run of text, escaped."""
    run = _NAME.sub(r'<code class="mono">\1</code>', str(escape(" ".join(text.split()))))
    return mark_safe(run)  # noqa: S308 - escaped above; what is added is ours


@register.filter
def prose(text: str) -> SafeString:
    """Paragraphs, divided by blank lines."""
    found = [words(part) for part in _BLANK_LINE.split(text.strip()) if part]
    return mark_safe("".join(f"<p>{part}</p>" for part in found))  # noqa: S308 - of escaped parts
