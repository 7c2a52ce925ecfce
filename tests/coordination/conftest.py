"""Fixtures of the coordination tests."""

import itertools
from collections.abc import Callable

import pytest

from tests.cluster import committed_database, live_node, node_process

__all__ = ["committed_database", "live_node", "name", "node_process"]

_numbers = itertools.count(1)


@pytest.fixture
def name() -> Callable[[str], str]:
    """A name nobody used before in this run: the shared node remembers."""
    return lambda kind: f"{kind}-{next(_numbers)}"
