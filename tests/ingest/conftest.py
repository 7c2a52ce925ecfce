"""A running ingest. Imports of Django's part wait until the run has set Django up."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from typing import Any

import pytest


@pytest.fixture
async def stored(transactional_db: None) -> AsyncIterator[None]:
    """A database whose rows are committed, with the days that metrics need."""
    from asgiref.sync import sync_to_async
    from django.db import connections

    from usability.partitions import ensure_partitions

    await sync_to_async(ensure_partitions)(dt.datetime.now(tz=dt.UTC).date())
    yield
    # The thread in which a test's queries ran keeps its connection otherwise, and the database could not be dropped.
    await sync_to_async(connections.close_all)()


@pytest.fixture
async def ingest(stored: None, settings: Any) -> AsyncIterator[Any]:
    """A running ingest on the test database and the test Redis."""
    from usability.ingest import endpoint

    running = endpoint.Ingest(endpoint._conninfo(), settings.GAIA.redis_url)
    yield running
    await running.close()
