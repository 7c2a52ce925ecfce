"""The addresses of the site. Each part brings its own."""

from __future__ import annotations

from django.conf import settings
from django.contrib import admin
from django.urls import include, path, re_path

from coordination.api import agent
from gaia_site import health, needs_now

admin.autodiscover()

urlpatterns = [
    re_path(r"^healthz/?$", health.healthz),
    re_path(r"^readyz/?$", health.readyz),
    re_path(r"^metrics/?$", health.metrics),
    path("admin/needs-now/", admin.site.admin_view(needs_now.fragment), name="needs-now"),
    path("admin/", admin.site.urls),
    path("agent/gaia_agent.py", agent.download, name="agent-download"),
    path("api/", include("gaia_site.api.urls")),
]
if settings.GAIA.xapi_lrs_enabled:
    urlpatterns.append(path("xapi/", include("usability.xapi.urls")))
if settings.GAIA.teacher_dashboard_enabled:
    urlpatterns.append(path("", include("usability.portal.urls")))

# Errors outside a view: problems under /api/, pages elsewhere.
handler400 = "gaia_site.problems.bad_request"
handler403 = "gaia_site.problems.permission_denied"
handler404 = "gaia_site.problems.page_not_found"
handler500 = "gaia_site.problems.server_error"
