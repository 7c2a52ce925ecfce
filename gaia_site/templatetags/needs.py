"""`{% needs_now %}`: what needs an operator now."""

from __future__ import annotations

from typing import Any

from django import template

from gaia_site.needs_now import picture

register = template.Library()


@register.inclusion_tag("admin/_needs_now.html", takes_context=True)
def needs_now(context: dict[str, Any]) -> dict[str, Any]:
    """The sentence about the cluster and the counters, as they are at this moment."""
    return picture(context["request"].user)
