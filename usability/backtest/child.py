"""How a process of a back-test begins. Knows no models: Django is not set up when it is imported."""

from __future__ import annotations

import gc
from multiprocessing.sharedctypes import Synchronized
from typing import Any

import django
from django.db import connections

# The count of metrics folded by all processes of one run, set by `begin`.
counter: Synchronized[int] | None = None


def begin(database: str, shared: Any) -> None:
    """Set Django up in a fresh process, on the database the parent uses."""
    global counter  # noqa: PLW0603 - a process has one, given at its beginning
    django.setup()
    connections["default"].settings_dict["NAME"] = database
    counter = shared
    # The fold makes no cycles; looking for them takes a tenth of its time.
    gc.disable()
