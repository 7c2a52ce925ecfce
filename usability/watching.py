"""One watch a classroom and process: reads what is new in the rows and hands it to the sockets that look on.

However many sockets there are, a classroom costs one short query a poll. A hint makes the next poll come at
once; without hints, because the broker is away, the poll comes every few seconds and nothing is missed.
Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from django.db import Error as DatabaseError
from prometheus_client import Gauge

from gaia_site.background import in_database
from usability import selectors
from usability.selectors.watch import News, news_after

if TYPE_CHECKING:
    import uuid
    from collections.abc import Awaitable, Callable

    from usability.selectors.shapes import Seat

log = logging.getLogger("gaia.push")

POLL_EVERY_S = 3.0
# Hints that come together are one poll.
GATHER_S = 0.03
REST_S = 0.1
SOCKETS_LIMIT = 500
FAILURES_LIMIT = 5

SOCKETS = Gauge("gaia_usability_sockets", "Open classroom sockets of this process")


class Looker(Protocol):
    """A socket, as the watch sees it."""

    async def deliver(self, news: News) -> None:
        """Pass on what is new to this socket."""
        ...

    async def give_up(self) -> None:
        """Close: the rows cannot be read."""
        ...


class TooMany(Exception):
    """The classroom has as many sockets as it may have in this process."""


@dataclass(eq=False)
class Watch:
    """The sockets of one classroom. `cursor` is the number up to which all of them have been told."""

    classroom_id: uuid.UUID
    cursor: int
    lookers: set[Looker] = field(default_factory=set)
    seats: dict[str, Seat] = field(default_factory=dict)
    newest_snapshot: uuid.UUID | None = None
    _nudged: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None

    def nudge(self) -> None:
        """Poll now: somebody says there is news."""
        self._nudged.set()

    def start(self) -> None:
        """Begin to poll."""
        self._task = asyncio.create_task(self._poll_for_ever(), name=f"watch-{self.classroom_id}")

    async def stop(self) -> None:
        """End the polling."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _poll_for_ever(self) -> None:
        failures = 0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_EVERY_S):
                    await self._nudged.wait()
            await asyncio.sleep(GATHER_S)
            self._nudged.clear()
            try:
                await self._poll()
                failures = 0
            except Exception as error:
                # Whatever it is: a watch that ended would leave its sockets open and deaf.
                failures += 1
                is_expected = isinstance(error, DatabaseError)
                log.warning(
                    "watch_without_database" if is_expected else "watch_failed",
                    extra={"error": type(error).__name__, "failures": failures},
                    exc_info=None if is_expected else error,
                )
                if failures >= FAILURES_LIMIT:
                    await self._tell_all(lambda looker: looker.give_up())
            await asyncio.sleep(REST_S)

    async def _poll(self) -> None:
        news = await in_database(news_after, self.classroom_id, self.cursor, self.seats, self.newest_snapshot)
        self.cursor, self.seats, self.newest_snapshot = news.cursor, news.all_seats, news.newest_snapshot
        # Also when nothing is new: each socket looks whether it may still be there.
        await self._tell_all(lambda looker: looker.deliver(news))
        if news.has_more:
            self.nudge()

    async def _tell_all(self, tell: Callable[[Looker], Awaitable[None]]) -> None:
        answers = await asyncio.gather(
            *(tell(looker) for looker in list(self.lookers)), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, Exception):
                log.error("socket_not_told", exc_info=answer)


_watches: dict[tuple[int, uuid.UUID], Watch] = {}


async def look_on(classroom_id: uuid.UUID, looker: Looker) -> Watch:
    """Let the looker be told of what comes from now on. Raises `TooMany`.

    What the looker reads afterwards includes everything up to the watch's present cursor, so nothing can
    fall between its own reading and what it is told.
    """
    key = (id(asyncio.get_running_loop()), classroom_id)
    watch = _watches.get(key)
    if watch is None:
        cursor = await in_database(selectors.cursor_of, classroom_id)
        watch = _watches.get(key)
        if watch is None:
            watch = _watches[key] = Watch(classroom_id, cursor)
            watch.start()
    if len(watch.lookers) >= SOCKETS_LIMIT:
        raise TooMany
    watch.lookers.add(looker)
    SOCKETS.inc()
    return watch


async def look_away(watch: Watch, looker: Looker) -> None:
    """Forget the looker; the last one ends the watch."""
    if looker not in watch.lookers:
        return
    watch.lookers.discard(looker)
    SOCKETS.dec()
    if not watch.lookers:
        key = (id(asyncio.get_running_loop()), watch.classroom_id)
        if _watches.get(key) is watch:
            del _watches[key]
        await watch.stop()
