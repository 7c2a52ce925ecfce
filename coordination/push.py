"""Hints that rows of coordination have changed, for sockets and streams of this process.

One watcher an event loop asks for the watermark a few times a second, however many listen, and only while
somebody does; each listener then reads what came after its own cursor. The watermark is the truth already,
so no broker carries the hints: one that is away costs nothing, and the nodes need to know nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from django.db import Error as DatabaseError

from coordination import selectors
from gaia_site.background import in_database

log = logging.getLogger("gaia.push")

WATCH_EVERY_S = 0.25
LOOK_ANYWAY_S = 1.0


@dataclass(slots=True)
class _Watch:
    """The listeners of one event loop and the task that watches for them."""

    listeners: set[asyncio.Event] = field(default_factory=set)
    task: asyncio.Task[None] | None = None


_watches: WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch] = WeakKeyDictionary()


@asynccontextmanager
async def hints(look_anyway_s: float = LOOK_ANYWAY_S) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """A wait that ends with the next change of the rows, and after `look_anyway_s` without one."""
    loop = asyncio.get_running_loop()
    watch = _watches.setdefault(loop, _Watch())
    changed = asyncio.Event()

    async def hint() -> None:
        try:
            await asyncio.wait_for(changed.wait(), look_anyway_s)
        except TimeoutError:
            return
        changed.clear()

    watch.listeners.add(changed)
    if watch.task is None:
        watch.task = loop.create_task(_watch(watch))
    try:
        yield hint
    finally:
        watch.listeners.discard(changed)


async def _watch(watch: _Watch) -> None:
    """Wakes the listeners when the watermark has moved; ends with the last of them."""
    seen = 0
    try:
        while watch.listeners:
            await asyncio.sleep(WATCH_EVERY_S)
            try:
                revision = await in_database(selectors.projected_revision)
            except DatabaseError as error:
                log.warning("watermark_unknown", extra={"reason": type(error).__name__})
                continue
            if revision != seen:
                seen = revision
                for changed in watch.listeners:
                    changed.set()
    finally:
        watch.task = None
