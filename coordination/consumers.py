"""`/ws/coordination/`: coordination events as they happen, for admins and agents.

Rows are the truth and hints make it quick: after each hint, and every second anyway, the socket sends what
came after its cursor. A client that reconnects with `?after=CURSOR` (or `?after_index=CURSOR`, as the list calls
it) misses nothing and sees nothing twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import asdict
from typing import Any
from urllib.parse import parse_qs

import msgspec
from channels.generic.websocket import AsyncWebsocketConsumer
from django.db import Error as DatabaseError
from django.urls import path

from coordination import access, push, selectors
from coordination.api.events import EventSerializer, events_after
from gaia_site.background import in_database
from gaia_site.keys import Principal, bearer, principal_of_async, principal_of_user
from gaia_site.pagination import LIMIT_MOST
from gaia_site.problems import Problem

log = logging.getLogger("gaia.push")

NOT_AUTHENTICATED = 4401
NOT_ALLOWED = 4403
BAD_REQUEST = 4400
TRY_AGAIN_LATER = 1013
_CLOSE_CODES = {401: NOT_AUTHENTICATED, 503: TRY_AGAIN_LATER}


class CoordinationConsumer(AsyncWebsocketConsumer):
    """One socket."""

    async def connect(self) -> None:
        """Accepts, then closes with the reason where there is one: a refused handshake has no code."""
        await self.accept()
        self._sending: asyncio.Task[None] | None = None
        try:
            principal = await self._principal()
            after = self._after()
        except Problem as problem:
            await self.close(_CLOSE_CODES.get(problem.status, BAD_REQUEST))
            return
        if not access.may_use(principal):
            await self.close(NOT_ALLOWED)
            return
        self._sending = asyncio.create_task(self._send_while_possible(after))

    async def disconnect(self, code: int) -> None:
        """Ends the sending."""
        if self._sending is not None:
            self._sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sending

    async def _send_while_possible(self, after: int | None) -> None:
        """Sends until the client leaves; without the database it closes, and the client comes back later."""
        try:
            await self._send_from(after)
        except DatabaseError as error:
            log.warning("socket_closed", extra={"reason": type(error).__name__})
            await self.close(TRY_AGAIN_LATER)

    async def _send_from(self, after: int | None) -> None:
        async with push.hints() as hint:
            cursor = await in_database(selectors.projected_revision) if after is None else after
            state = asdict(await in_database(selectors.fleet))
            await self._say({"type": "hello", "cursor": cursor, "state": state})
            while True:
                cursor, has_more = await self._send_after(cursor)
                if not has_more:
                    await hint()
                if not await self._is_still_welcome():
                    await self.close(NOT_AUTHENTICATED)
                    return

    async def _send_after(self, cursor: int) -> tuple[int, bool]:
        """Sends the next events; the new cursor, and whether more wait."""
        found, has_more = await in_database(events_after, cursor, LIMIT_MOST)
        for row, shown in zip(found, EventSerializer(found, many=True).data, strict=True):
            await self._say({"type": "event", "cursor": row.raft_index, "event": shown})
        return (found[-1].raft_index if found else cursor), has_more

    async def _is_still_welcome(self) -> bool:
        """False once the key was revoked or is over."""
        try:
            await self._principal()
        except Problem as problem:
            return problem.status != 401
        return True

    async def _say(self, message: dict[str, Any]) -> None:
        await self.send(text_data=msgspec.json.encode(message).decode())

    async def _principal(self) -> Principal:
        headers = dict(self.scope["headers"])
        secret = bearer(headers.get(b"authorization", b"").decode("latin-1")) or self._query("key")
        if secret is not None:
            return await principal_of_async(secret)
        user = self.scope.get("user")
        if user is None or not user.is_authenticated:
            raise Problem("not-authenticated")
        return principal_of_user(user)

    def _after(self) -> int | None:
        text = self._query("after") or self._query("after_index")
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise Problem("validation-error", "after must be an index")
        return int(text)

    def _query(self, name: str) -> str | None:
        return parse_qs(self.scope["query_string"].decode("latin-1")).get(name, [None])[-1]


websocket_urlpatterns = [path(f"ws/coordination{end}", CoordinationConsumer.as_asgi()) for end in ("/", "")]
