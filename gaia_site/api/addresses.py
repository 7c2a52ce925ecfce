"""Addresses of the API: each works with and without a slash at its end, and the schema shows one."""

from __future__ import annotations

from typing import Any

from django.urls.resolvers import RoutePattern, URLPattern
from rest_framework.views import APIView


class OptionalSlash(RoutePattern):
    """Django's route, which does not mind one slash at its end."""

    def match(self, path: str) -> Any:
        """As Django's, of the path without that slash."""
        return super().match(path.removesuffix("/"))


def address(route: str, view: type[APIView], name: str | None = None) -> URLPattern:
    """`django.urls.path` for an endpoint class, indifferent to a final slash."""
    return URLPattern(OptionalSlash(route, name=name, is_endpoint=True), view.as_view(), name=name)
