"""Hints that something happened in coordination: the one place here that touches the channel layer.

A hint says "look", never what: whoever is told asks the rows, and asks them now and then anyway, so a lost
hint costs time and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer

log = logging.getLogger("gaia.push")

GROUP = "coordination"
LOOK_ANYWAY_S = 1.0
CHANGED = {"type": "coordination.changed"}


def events_projected() -> None:
    """Says that rows have changed. For `on_commit`: a broker that is away is logged, never raised."""
    layer = get_channel_layer()
    if layer is None:
        return
    try:
        async_to_sync(layer.group_send)(GROUP, CHANGED)
    except Exception as error:  # noqa: BLE001  the edge: a hint is worth nothing beside the rows
        log.warning("hint_lost", extra={"reason": type(error).__name__})


@asynccontextmanager
async def hints(look_anyway_s: float = LOOK_ANYWAY_S) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """A wait that ends with the next hint, and after `look_anyway_s` without one."""
    layer = get_channel_layer()
    channel = await _joined(layer)

    async def hint() -> None:
        if channel is None:
            await asyncio.sleep(look_anyway_s)
            return
        try:
            await asyncio.wait_for(layer.receive(channel), look_anyway_s)
        except TimeoutError:
            return
        except Exception as error:  # noqa: BLE001  the edge: without the broker the rows are asked by the clock
            log.warning("hints_away", extra={"reason": type(error).__name__})
            await asyncio.sleep(look_anyway_s)

    try:
        yield hint
    finally:
        if channel is not None:
            try:
                await layer.group_discard(GROUP, channel)
            except Exception as error:  # noqa: BLE001  the edge: the broker forgets us by itself
                log.info("hints_not_left", extra={"reason": type(error).__name__})


async def _joined(layer: object) -> str | None:
    if layer is None:
        return None
    try:
        channel = await layer.new_channel()
        await layer.group_add(GROUP, channel)
    except Exception as error:  # noqa: BLE001  the edge: polling does
        log.warning("hints_away", extra={"reason": type(error).__name__})
        return None
    return channel
