"""Which calls are answered in front of Django; each part brings its own while it is switched on."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from gaia_site.hot import Route

PARTS = ("coordination.api.hot", "usability.api.hot")
"""Modules with `routes() -> tuple[Route, ...]`; a part that is switched off answers none."""


def hot_routes() -> tuple[Route, ...]:
    """All of them."""
    return tuple(route for part in PARTS if find_spec(part) for route in import_module(part).routes())
