"""Hints to open sockets that a classroom has news. The only module of usability that touches the channel layer.

A hint is at most once and may be lost: it says where to look and nothing else, and every socket also asks
the rows on its own. It leaves after the commit that wrote the rows, and its failure is counted and forgotten.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.db import transaction
from prometheus_client import Counter
from redis.exceptions import RedisError

if TYPE_CHECKING:
    import uuid

log = logging.getLogger("gaia.push")

SEND_TIMEOUT_S = 1.0
HINTS = Counter("gaia_usability_hints_total", "Hints sent to classroom sockets", ["outcome"])


def group_of(classroom_id: uuid.UUID | str) -> str:
    """The channel group of one classroom's sockets."""
    return f"classroom.{classroom_id}"


def hint_after_commit(classroom_id: uuid.UUID | str, seq: int, *, kind: str = "alert") -> None:
    """Tell the classroom's sockets, once the present transaction has committed, that rows up to `seq` exist."""
    transaction.on_commit(partial(send_hint, classroom_id, seq, kind=kind), robust=True)


def send_hint(classroom_id: uuid.UUID | str, seq: int, *, kind: str = "alert") -> None:
    """Send one hint now: `{type, classroom, seq, kind}`. Never raises: sockets find the rows without it."""
    message = {"type": "classroom.hint", "classroom": str(classroom_id), "seq": seq, "kind": kind}
    try:
        async_to_sync(_send)(group_of(classroom_id), message)
    except (OSError, TimeoutError, RuntimeError, RedisError) as error:
        HINTS.labels("failed").inc()
        log.warning("hint_not_sent", extra={"classroom": str(classroom_id), "error": type(error).__name__})
    else:
        HINTS.labels("sent").inc()


async def _send(group: str, message: dict[str, object]) -> None:
    async with asyncio.timeout(SEND_TIMEOUT_S):
        await get_channel_layer().group_send(group, message)


async def join(classroom_id: uuid.UUID | str, channel_name: str) -> bool:
    """Subscribe a socket's channel to its classroom; False where the broker does not answer (it polls then)."""
    return await _quietly(get_channel_layer().group_add(group_of(classroom_id), channel_name))


async def leave(classroom_id: uuid.UUID | str, channel_name: str) -> None:
    """Undo `join`; a broker that does not answer has forgotten the socket already."""
    await _quietly(get_channel_layer().group_discard(group_of(classroom_id), channel_name))


async def _quietly(call: object) -> bool:
    try:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await call  # type: ignore[misc]
    except (OSError, TimeoutError, RedisError):
        return False
    return True
