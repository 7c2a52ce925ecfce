"""Everything under /api/: the calls of version 1, the schema and the page that explains it."""

from __future__ import annotations

from importlib.util import find_spec

from django.urls import include, path, re_path

from gaia_site.api.docs import DocumentationView, SchemaView
from gaia_site.api.missing import nothing_here

PARTS = ("coordination.api.urls", "usability.api.urls")

urlpatterns = [
    *(path("v1/", include(part)) for part in PARTS if find_spec(part)),
    re_path(r"^schema/?$", SchemaView.as_view(), name="schema"),
    re_path(r"^docs/?$", DocumentationView.as_view(), name="api-docs"),
    re_path(r"^.*$", nothing_here),
]
