"""Database work for code that runs in the event loop outside Django's request handler.

There, `database_sync_to_async` gives one thread to the whole process, so one slow query stops every
socket. These threads are few, shared by all, and hand their connection back after each call: a thread
that kept one would starve the pool.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Generic, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from django.db import connections

THREADS = 4
HOLD_S = 0.5
"""How long folded work keeps its connection after the last call: handing it back and taking one that has to be
checked again costs more than a small query."""

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


class _HoldingThread:
    """One thread, started at its first work, that hands its connection back when nothing came for HOLD_S."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None

    async def result_of(self, function: Callable[[], R]) -> R:
        """What `function` returns or raises in the thread; a failure costs it the connection."""
        loop = asyncio.get_running_loop()
        promise: asyncio.Future[R] = loop.create_future()

        def tell(settle: Callable[[Any], None], value: object) -> None:
            with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
                loop.call_soon_threadsafe(_settle_open, promise, settle, value)

        def job() -> None:
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001  the edge of the thread: whoever waits gets it
                connections.close_all()
                tell(promise.set_exception, error)
            else:
                tell(promise.set_result, result)

        self._start()
        self._jobs.put(job)
        return await promise

    def _start(self) -> None:
        with self._guard:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="gaia-folded", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        wait_s: float | None = None
        while True:
            try:
                job = self._jobs.get(timeout=wait_s)
            except Empty:
                connections.close_all()
                wait_s = None
            else:
                job()
                wait_s = HOLD_S


def _settle_open(promise: asyncio.Future[Any], settle: Callable[[Any], None], value: object) -> None:
    if not promise.done():
        settle(value)


Item = TypeVar("Item")
Result = TypeVar("Result")


class Folded(Generic[Item, Result]):
    """One call of `function` for all that waits, as a group commit: while one call runs, the next gathers.

    `function` takes a list of items and returns as many results in order. If it raises for several items
    together, each is tried alone, so that one bad item is refused alone. A thread of its own keeps its database
    connection while calls follow one another within HOLD_S.
    """

    def __init__(self, function: Callable[[list[Item]], Sequence[Result]], limit: int = 500) -> None:
        self._function = function
        self._limit = limit
        self._thread = _HoldingThread()
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
            items = [item for item, _ in group]
            results = await self._thread.result_of(lambda: self._function(items)) if items else []
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
