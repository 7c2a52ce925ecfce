"""`/ws/classrooms/{id}/`: a classroom as it changes, for its teachers' pages and keys.

First comes `hello` with the whole state; then each alert that is new or has changed after the socket's
cursor, in the order of change, then what is new from moment to moment. A client that reconnects with
`?after=CURSOR` misses nothing and sees nothing twice. Hints make it quick; the rows make it complete.

A client that is not signed in is closed with 4401, one that asks for another's classroom with 4403, a
malformed cursor with 4400. While rows cannot be read, or too many look on, sockets close with 1013.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import msgspec
from channels.generic.websocket import AsyncWebsocketConsumer
from django.contrib.sessions.models import Session
from django.db import Error as DatabaseError
from django.template.loader import render_to_string
from django.urls import path
from django.utils import timezone

from gaia_site.background import in_database
from gaia_site.keys import Principal, bearer, principal_of_async, principal_of_user
from gaia_site.models import Scope
from gaia_site.problems import Problem
from usability import access, push, selectors, watching
from usability.errors import NotFound
from usability.selectors.signals import CHANGES_LIMIT

if TYPE_CHECKING:
    import uuid
    from collections.abc import Sequence

    from usability.selectors.shapes import AlertChange, LiveClass, Seat, Signal
    from usability.selectors.watch import News

BAD_REQUEST = 4400
NOT_AUTHENTICATED = 4401
NOT_ALLOWED = 4403
TRY_AGAIN_LATER = 1013

# Browsers cannot set headers on a socket; a key may come as the second of two subprotocols.
SUBPROTOCOL = "gaia.bearer"
CHECK_EVERY_S = 1.0
HELD_LIMIT = 50


class ClassroomConsumer(AsyncWebsocketConsumer):
    """One socket on one classroom. Until its state is sent, what it is told is held."""

    async def connect(self) -> None:
        """Accepts, then closes with the reason where there is one: a refused handshake has no code."""
        self._watch: watching.Watch | None = None
        self._held: list[News] | None = []
        self._telling = asyncio.Lock()
        await self.accept(SUBPROTOCOL if SUBPROTOCOL in self.scope.get("subprotocols", ()) else None)
        try:
            self._principal = await self._who()
            after = self._after()
        except Problem as problem:
            await self.close(NOT_AUTHENTICATED if problem.status == 401 else BAD_REQUEST)
            return
        self._classroom_id: uuid.UUID = self.scope["url_route"]["kwargs"]["classroom_id"]
        self._checked_s = time.monotonic()
        try:
            await self._begin(after)
        except NotFound:
            await self.close(NOT_ALLOWED)
        except (watching.TooMany, DatabaseError):
            await self.close(TRY_AGAIN_LATER)

    async def disconnect(self, code: int) -> None:
        """Looks away."""
        if self._watch is not None:
            await push.leave(self._classroom_id, self.channel_name)
            await watching.look_away(self._watch, self)

    async def classroom_hint(self, message: dict[str, Any]) -> None:
        """A hint from the channel layer: the rows have news."""
        if self._watch is not None:
            self._watch.nudge()

    # ------------------------------------------------------------ the beginning

    async def _begin(self, after: int | None) -> None:
        """Look on first, then read: whatever is not in what is read will be told."""
        await in_database(access.get_classroom, self._principal, self._classroom_id)
        if not self._principal.has_any(Scope.TEACHER, Scope.ADMIN):
            raise NotFound
        self._watch = await watching.look_on(self._classroom_id, self)
        await push.join(self._classroom_id, self.channel_name)
        picture = await in_database(self._picture)
        is_known = after is not None and after <= picture.cursor
        self._cursor = after if is_known else picture.cursor
        await self._say({"type": "hello", "cursor": self._cursor, "state": state_json(picture)})
        if is_known:
            await self._catch_up(picture.cursor)
        async with self._telling:
            held, self._held = self._held or [], None
            for news in held:
                await self._tell(news)

    def _picture(self) -> LiveClass:
        return selectors.live_class(self._classroom_id, who=self._principal)

    async def _catch_up(self, until: int) -> None:
        """Send what the client has missed; one alert once, however often it changed meanwhile."""
        known = self._cursor
        while self._cursor < until:
            changes = await in_database(selectors.alerts_after, self._classroom_id, self._cursor)
            await self._send_changes(changes, known)
            if len(changes) < CHANGES_LIMIT:
                self._cursor = max(self._cursor, until)
                return

    # ------------------------------------------------------------ what comes

    async def deliver(self, news: News) -> None:
        """Pass on what is new to this socket, in order; closes where the caller may no longer look."""
        if not await self._may_stay():
            await self.close(NOT_ALLOWED)
            return
        async with self._telling:
            if self._held is None:
                await self._tell(news)
            elif len(self._held) < HELD_LIMIT:
                self._held.append(news)
            else:
                await self.close(TRY_AGAIN_LATER)

    async def give_up(self) -> None:
        """The rows cannot be read: let the client poll and come again."""
        await self.close(TRY_AGAIN_LATER)

    async def _tell(self, news: News) -> None:
        await self._send_changes(news.changes, self._cursor)
        self._cursor = max(self._cursor, news.cursor)
        for seat in news.seats:
            await self._say({"type": "student", "cursor": self._cursor, "student": seat_json(seat)})
        if news.snapshot is not None:
            await self._say(
                {"type": "snapshot", "cursor": self._cursor, "snapshot": snapshot_json(news.snapshot)}
            )

    async def _send_changes(self, changes: Sequence[AlertChange], known: int) -> None:
        """Send each once; `known` is the cursor of which the client knows everything."""
        for change in changes:
            if change.cursor <= self._cursor:
                continue
            if change.teacher_id is None or self._is_for_me(change.teacher_id):
                message = {
                    "type": change.type_for(known),
                    "cursor": change.cursor,
                    "alert": alert_json(change.signal),
                }
                if self._query("html") == "1":
                    message["html"] = await in_database(card_html, self._classroom_id, change.signal)
                await self._say(message)
            self._cursor = change.cursor

    def _is_for_me(self, teacher_id: int) -> bool:
        return self._principal.is_admin or getattr(self._principal.user, "pk", None) == teacher_id

    # ------------------------------------------------------------ who

    async def _who(self) -> Principal:
        secret = self._secret()
        if secret is not None:
            return await principal_of_async(secret)
        user = self.scope.get("user")
        if user is None or not user.is_authenticated:
            raise Problem("not-authenticated")
        return principal_of_user(user)

    def _secret(self) -> str | None:
        offered = self.scope.get("subprotocols") or []
        if len(offered) == 2 and offered[0] == SUBPROTOCOL:
            return offered[1]
        headers = dict(self.scope["headers"])
        return bearer(headers.get(b"authorization", b"").decode("latin-1")) or self._query("key")

    async def _may_stay(self) -> bool:
        """Whether the key or login still holds and the classroom is still this person's; asked once a second."""
        if time.monotonic() - self._checked_s < CHECK_EVERY_S:
            return True
        self._checked_s = time.monotonic()
        try:
            if self._principal.kind == "key":
                self._principal = await principal_of_async(self._secret() or "")
            await in_database(_check, self._principal, self._classroom_id, self._session_key())
        except Problem:
            return False
        return True

    def _session_key(self) -> str | None:
        session = self.scope.get("session")
        return session.session_key if session is not None and self._principal.kind == "browser" else None

    # ------------------------------------------------------------ parts

    def _after(self) -> int | None:
        text = self._query("after")
        if not text:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise Problem("validation-error", "after must be a cursor, a whole number")
        return int(text)

    def _query(self, name: str) -> str | None:
        return parse_qs(self.scope["query_string"].decode("latin-1")).get(name, [None])[-1]

    async def _say(self, message: dict[str, Any]) -> None:
        await self.send(text_data=msgspec.json.encode(message).decode())


def _check(principal: Principal, classroom_id: uuid.UUID, session_key: str | None) -> None:
    """Raises `NotFound` where the caller may no longer see the classroom, or has signed out."""
    if (
        session_key is not None
        and not Session.objects.filter(session_key=session_key, expire_date__gt=timezone.now()).exists()
    ):
        raise NotFound
    if principal.kind == "browser":
        principal.user.refresh_from_db(fields=["is_active", "is_staff"])
        if not principal.user.is_active:
            raise NotFound
        principal = principal_of_user(principal.user)
    access.get_classroom(principal, classroom_id)


# ---------------------------------------------------------------- messages


def state_json(picture: LiveClass) -> dict[str, Any]:
    """The live class as the socket and the API show it."""
    return {
        "classroom_id": str(picture.classroom_id),
        "name": picture.name,
        "at": picture.at,
        "cursor": picture.cursor,
        "alerts": [alert_json(signal) for signal in picture.signals],
        "snoozed": [alert_json(signal) for signal in picture.snoozed],
        "tally": picture.tally,
        "seats": [seat_json(seat) for seat in picture.seats],
        "working": picture.working,
        "freshness": picture.freshness,
        "pause": picture.pause,
    }


def alert_json(signal: Signal) -> dict[str, Any]:
    """One alert in a message."""
    return {
        "id": str(signal.alert_id),
        "seq": signal.seq,
        "kind": signal.kind,
        "state": signal.state,
        "severity": signal.alert_severity,
        "event_severity": signal.severity,
        "alert_type": signal.alert_type,
        "family": signal.family,
        "app_name": signal.app_name,
        "student_id": signal.pupil.student_id if signal.pupil else None,
        "pupil": signal.pupil,
        "reason": signal.reason,
        "evidence": signal.evidence,
        "details": signal.details,
        "detected_at": signal.since,
        "updated_at": signal.updated_at,
        "interrupts": signal.interrupts,
        "snoozed_until": signal.snoozed_until,
        "helpers": signal.helpers,
        "closed_at": signal.closed_at,
        "event_id": str(signal.event_id) if signal.event_id else None,
    }


def seat_json(seat: Seat) -> dict[str, Any]:
    """One pupil's condition in a message."""
    return {
        "student_id": seat.pupil.student_id if seat.pupil else None,
        "name": seat.pupil.short_name if seat.pupil else "",
        "seat": seat.place,
        "state": seat.state,
        "since": seat.since,
        "words": seat.words,
    }


def snapshot_json(row: Any) -> dict[str, Any]:
    """One snapshot in a message."""
    return {
        "id": str(row.pk),
        "app_name": row.app_name,
        "window_start": row.window_start,
        "window_end": row.window_end,
        "student_count": row.student_count,
        "active_count": row.active_count,
        "struggling_student_count": row.struggling_student_count,
        "average_frustration_level": row.average_frustration_level,
        "average_satisfaction_rating": row.average_satisfaction_rating,
        "error_rate": row.error_rate,
        "correction_rate": row.correction_rate,
        "hint_rate": row.hint_rate,
        "completion_rate": row.completion_rate,
    }


def card_html(classroom_id: uuid.UUID, signal: Signal) -> str:
    """The card as the page shows it; without a CSRF token, which the page adds to what it sends."""
    context = {"signal": signal, "classroom": {"id": classroom_id}, "now": timezone.now(), "primary": False}
    # Plain text: the encoder refuses Django's marked kind of string.
    return render_to_string("portal/_signal.html", context) + ""


websocket_urlpatterns = [
    path(f"ws/classrooms/<uuid:classroom_id>{end}", ClassroomConsumer.as_asgi()) for end in ("/", "")
]
