"""The addresses of the site. Each part brings its own."""

from importlib.util import find_spec

from django.contrib import admin
from django.urls import include, path

from coordination.api import agent
from gaia_site import health


def _when_there(route, module):
    """Include a part that is still being built; every part is there before this function goes."""
    try:
        return [path(route, include(module))] if find_spec(module) else []
    except ModuleNotFoundError:
        return []


admin.autodiscover()

urlpatterns = [
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("metrics", health.metrics),
    path("admin/", admin.site.urls),
    path("agent/gaia_agent.py", agent.download, name="agent-download"),
    *_when_there("api/", "gaia_site.api.urls"),
    *_when_there("", "usability.portal.urls"),
]

# Errors outside a view: problems under /api/, pages elsewhere.
handler400 = "gaia_site.problems.bad_request"
handler403 = "gaia_site.problems.permission_denied"
handler404 = "gaia_site.problems.page_not_found"
handler500 = "gaia_site.problems.server_error"
