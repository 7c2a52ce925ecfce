"""The ordered log of coordination events: pages for catching up, and a live stream on the same address."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from django.http import StreamingHttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework import serializers
from rest_framework.request import Request

from coordination import push, selectors
from coordination.api.endpoint import CoordinationEndpoint
from coordination.models import CoordinationEvent
from gaia_site.background import in_database
from gaia_site.pagination import LIMIT_DEFAULT, LIMIT_MOST, whole_number
from gaia_site.problems import invalid
from gaia_site.schema import READ_PARAMETERS, describes

EVENT_STREAM = "text/event-stream"
COMMENT_EVERY_S = 15.0
STREAM_LIFE_S = 3_600.0


class EventSerializer(serializers.Serializer):
    """One fact."""

    index = serializers.IntegerField(source="raft_index")
    sequence = serializers.IntegerField(help_text="Order among the events of one index.")
    kind = serializers.CharField()
    subject = serializers.CharField(
        help_text="A session's name, the id of a task or lesson, a lock's key, or cluster."
    )
    actor = serializers.CharField()
    at = serializers.DateTimeField(source="occurred_at")
    data = serializers.DictField()


class EventPageSerializer(serializers.Serializer):
    """Events of whole indexes: an index is never cut in two."""

    next = serializers.URLField(allow_null=True)
    previous = serializers.URLField(allow_null=True)
    results = EventSerializer(many=True)
    last_index = serializers.IntegerField(help_text="Send it as after_index to go on.")


def events_after(index: int, limit: int) -> tuple[list[CoordinationEvent], bool]:
    """Events of whole indexes after `index`, about `limit` of them, and whether there are more."""
    rows = list(selectors.events_after(index, limit + 1))
    if len(rows) <= limit:
        return rows, False
    cut = rows[limit].raft_index
    whole = [row for row in rows if row.raft_index < cut]
    if not whole:
        whole = list(CoordinationEvent.objects.filter(raft_index=cut).order_by("sequence"))
    return whole, True


class Events(CoordinationEndpoint):
    """The history."""

    scopes = {"GET": ("agent", "admin")}

    @describes(
        tag="events",
        summary="Events after an index, or live",
        about="With `Accept: text/event-stream` the answer goes on: each event with `id` = its index, `event` = its kind, "
        "`data` = the event; `Last-Event-ID` resumes. `ws /ws/coordination/` sends the same.",
        answers={
            200: EventPageSerializer,
            (200, EVENT_STREAM): OpenApiResponse(str, description="Events as they happen."),
        },
        parameters=[
            OpenApiParameter(
                "after_index",
                {"type": "integer", "minimum": 0, "default": 0},
                description="Only what came after this X-Raft-Index.",
            ),
            OpenApiParameter(
                "limit", {"type": "integer", "minimum": 1, "maximum": LIMIT_MOST, "default": LIMIT_DEFAULT}
            ),
        ],
        reads_coordination=True,
        operation_id="list_events",
    )
    def get(self, request: Request) -> HttpResponseBase:
        """A page, or the stream."""
        self.only("after_index", "limit", *(parameter.name for parameter in READ_PARAMETERS))
        after = whole_number(request.query_params, "after_index")
        if EVENT_STREAM in request.headers.get("Accept", ""):
            return _stream(self._resume_at(after))
        limit = whole_number(request.query_params, "limit", least=1, most=LIMIT_MOST) or LIMIT_DEFAULT
        revision = self.read_index()
        found, has_more = events_after(after or 0, limit)
        last = found[-1].raft_index if found else (after or 0)
        body = {
            "next": _address(request, last, limit) if has_more else None,
            "previous": None,
            "results": EventSerializer(found, many=True).data,
            "last_index": last,
        }
        return self.answer(body, revision=revision)

    def _resume_at(self, after: int | None) -> int:
        """Where a stream begins: after the last event the client saw, else now."""
        last_seen = self.request.headers.get("Last-Event-ID")
        if last_seen is not None:
            if not re.fullmatch(r"\d{1,19}", last_seen):
                raise invalid(("header", "last-event-id"), "Must be an index.")
            return int(last_seen)
        return self.index_of_rows() if after is None else after


def _address(request: Request, last: int, limit: int) -> str:
    return request.build_absolute_uri(f"{request.path}?after_index={last}&limit={limit}")


def _stream(after: int) -> StreamingHttpResponse:
    return StreamingHttpResponse(
        _messages(after),
        content_type=f"{EVENT_STREAM}; charset=utf-8",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _messages(after: int) -> AsyncIterator[bytes]:
    """Server-sent events from the rows; hints only make it faster. Ends after an hour: clients reconnect."""
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + STREAM_LIFE_S
    yield b": connected\n\n"
    said_s = loop.time()
    async with push.hints() as hint:
        while loop.time() < ends_s:
            found, has_more = await in_database(events_after, after, LIMIT_MOST)
            if found:
                yield _block(found)
                after, said_s = found[-1].raft_index, loop.time()
            elif loop.time() - said_s > COMMENT_EVERY_S:
                yield b": still here\n\n"
                said_s = loop.time()
            if not has_more:
                await hint()


def _block(found: list[CoordinationEvent]) -> bytes:
    lines = []
    for row, shown in zip(found, EventSerializer(found, many=True).data, strict=True):
        data: Any = msgspec.json.encode(shown).decode()
        lines.append(f"id: {row.raft_index}\nevent: {row.kind}\ndata: {data}\n\n")
    return "".join(lines).encode()
