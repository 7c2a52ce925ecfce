"""Database work for code that runs in the event loop outside Django's request handler.

There, `database_sync_to_async` gives one thread to the whole process, so one slow query stops every
socket. These threads are few, shared by all, and hand their connection back after each call: a thread
that kept one would starve the pool.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from django.db import connections

THREADS = 4

P = ParamSpec("P")
R = TypeVar("R")

_POOL = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="gaia-database")


def _returning_connection(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    try:
        return function(*args, **kwargs)
    finally:
        connections.close_all()


async def in_database(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """The result of `function`, run in one of a few threads that may use the ORM."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_POOL, lambda: _returning_connection(function, *args, **kwargs))
