"""A list that can be read and acted on, and not written by hand."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst


class Window(admin.ModelAdmin):
    """Rows come from the system; a change by hand would contradict it. Actions go through the services."""

    show_full_result_count = False
    list_per_page = 50

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The list under the plural of what it lists."""
        title = capfirst(self.opts.verbose_name_plural)
        return super().changelist_view(request, {"title": title, **(extra_context or {})})

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def as_text(stored: Any) -> SafeString | str:
    """Stored JSON, one value a line; a dash where there is nothing."""
    if not stored:
        return "–"
    return format_html("<pre>{}</pre>", json.dumps(stored, indent=2, ensure_ascii=False, sort_keys=True))


def numbers_in_words(details: dict[str, Any]) -> str:
    """What each detector found of an episode, with the thresholds it was held against."""
    said = []
    for finding in details.get("findings", ()):
        thresholds = finding.get("thresholds", {})
        numbers = ", ".join(
            f"{name.replace('_', ' ')} {value:g}"
            + (f" (threshold {thresholds[name]:g})" if name in thresholds else "")
            for name, value in finding.get("numbers", {}).items()
        )
        detector = str(finding.get("detector", "")).replace("_", " ")
        said.append(f"{detector}: {finding.get('reason', '')}" + (f" – {numbers}" if numbers else ""))
    return "; ".join(said) or "–"
