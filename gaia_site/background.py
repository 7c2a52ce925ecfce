"""Database work for code that runs in the event loop outside Django's request handler.

There, `database_sync_to_async` gives one thread to the whole process, so one slow query stops every
socket. These threads are few, shared by all, and hand their connection back after each call: a thread
that kept one would starve the pool.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

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


Item = TypeVar("Item")
Result = TypeVar("Result")


class Folded(Generic[Item, Result]):
    """One call of `function` for all that waits, as a group commit: while one call runs, the next gathers.

    `function` takes a list of items and returns as many results in order. If it raises for several items
    together, each is tried alone, so that one bad item is refused alone.
    """

    def __init__(self, function: Callable[[list[Item]], Sequence[Result]], limit: int = 500) -> None:
        self._function = function
        self._limit = limit
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Gathering[Item, Result]] = (
            WeakKeyDictionary()
        )

    async def __call__(self, item: Item) -> Result:
        """The result for `item`."""
        loop = asyncio.get_running_loop()
        gathering = self._loops.get(loop)
        if gathering is None:
            gathering = self._loops[loop] = _Gathering()
        promise: asyncio.Future[Result] = loop.create_future()
        gathering.waiting.append((item, promise))
        if gathering.running is None:
            gathering.running = loop.create_task(self._work(gathering))
        return await promise

    async def _work(self, gathering: _Gathering[Item, Result]) -> None:
        try:
            while gathering.waiting:
                group = [gathering.waiting.popleft() for _ in range(min(self._limit, len(gathering.waiting)))]
                await self._settle([one for one in group if not one[1].done()])
        finally:
            gathering.running = None

    async def _settle(self, group: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await in_database(self._function, [item for item, _ in group]) if group else []
        except Exception as error:  # noqa: BLE001  the edge: whoever waits gets the error
            if len(group) > 1:
                for one in group:
                    await self._settle([one])
            elif not group[0][1].done():
                group[0][1].set_exception(error)
            return
        for (_, promise), result in zip(group, results, strict=True):
            if not promise.done():
                promise.set_result(result)


@dataclass(slots=True)
class _Gathering(Generic[Item, Result]):
    """What waits in one event loop, and the task that works on it."""

    waiting: deque[tuple[Item, asyncio.Future[Result]]] = field(default_factory=deque)
    running: asyncio.Task[None] | None = None
