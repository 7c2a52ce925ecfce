"""The apps, and what those who make them have to put right: refused metrics by reason, clicks that did nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html

from usability import selectors
from usability.admin.window import Window
from usability.errors import NotFound
from usability.models import App, AppHealthCount

SPANS = {"day": timedelta(days=1), "week": timedelta(days=7), "month": timedelta(days=30)}
DEFAULT_SPAN = "day"

# What a reason means, and what an app does about it.
ADVICE = {
    "bad_id": "An id has a blank, a sign that ids do not have, or is too long. Send ids, never text.",
    "bad_value": "metric_value is no number of its range; an answer is 1 or 0.",
    "missing": "A required field is not there: student_id, app_name, metric_type, metric_value.",
    "not_json": "A line or a text is not JSON in UTF-8.",
    "too_new": "The time is more than 5 minutes after receipt. Send age_ms, or sent_at beside the times.",
    "too_old": "The time is more than 7 days before receipt. Use replay_metrics --import for old records.",
    "unknown_key": "A field or a key of metadata that the API does not know. There is none for text.",
    "unknown_type": "A metric type that is not common and not registered for this app.",
    "wrong_type": "A value has another type than its field, such as a text for a number.",
}


@admin.register(App)
class AppAdmin(admin.ModelAdmin):
    list_display = ["name", "title", "metric_types", "allowed_origins", "health"]
    search_fields = ["name", "title"]

    @admin.display(description="health")
    def health(self, app: App) -> str:
        return format_html(
            '<a href="{}">last day</a>', reverse("admin:usability_app_health", args=[app.name])
        )


@admin.register(AppHealthCount)
class AppHealthCountAdmin(Window):
    change_list_template = "admin/usability/apphealthcount/list.html"
    list_display = ["hour", "app_name", "measure", "label", "count"]
    list_filter = ["measure", "app_name", "hour"]
    search_fields = ["app_name", "label"]
    ordering = ["-hour", "app_name", "measure", "-count"]

    def get_urls(self) -> list[URLPattern]:
        """Our pages before Django's."""
        wrap = self.admin_site.admin_view
        return [
            path("apps/", wrap(self.apps_view), name="usability_apps_health"),
            path("apps/<path:app_name>/", wrap(self.app_view), name="usability_app_health"),
            *super().get_urls(),
        ]

    def apps_view(self, request: HttpRequest) -> HttpResponse:
        """Every app with its counts, those with refused metrics first."""
        span, since, until = self._span(request)
        apps = selectors.health_of_apps(who=request.user, since=since, until=until)
        title = "Health of the apps"
        return self._page(request, "apps", {"title": title, "apps": apps, "span": span, "since": since})

    def app_view(self, request: HttpRequest, app_name: str) -> HttpResponse:
        """One app: what was refused, hour by hour and with advice, and where clicks did nothing."""
        span, since, until = self._span(request)
        try:
            health = selectors.app_health(app_name, who=request.user, since=since, until=until)
        except NotFound as error:
            raise Http404 from error
        refused = selectors.refusals(app_name, who=request.user, since=since, until=until)
        context = {
            "title": f"Health of {app_name}",
            "health": health,
            "reasons": [(reason, count, ADVICE.get(reason, "")) for reason, count in health.rejected.items()],
            "refusals": refused,
            "clicks": [
                ("Dead clicks: nothing changed within 2.5 s", health.dead_clicks),
                ("Rage clicks: three within a second at one place", health.rage_clicks),
                ("Error clicks: a script failed within 0.1 s", health.error_clicks),
            ],
            "span": span,
            "since": since,
        }
        return self._page(request, "app", context)

    def _span(self, request: HttpRequest) -> tuple[str, Any, Any]:
        if not self.has_view_permission(request):
            raise PermissionDenied
        asked = request.GET.get("span", "")
        span = asked if asked in SPANS else DEFAULT_SPAN
        until = timezone.now()
        return span, until - SPANS[span], until

    def _page(self, request: HttpRequest, name: str, context: dict[str, Any]) -> HttpResponse:
        shared = {**self.admin_site.each_context(request), "opts": self.opts, "spans": list(SPANS)}
        return TemplateResponse(request, f"admin/usability/apphealthcount/{name}.html", {**shared, **context})
