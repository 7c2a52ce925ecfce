"""The one JSON parser and the one JSON renderer of the API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

import msgspec
from django.utils.functional import Promise
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from gaia_site.bodies import LIMIT_BYTES, check_declared_size, decode_json, inflate


class StrictJSONParser(BaseParser):
    """`application/json`, gzip or not, within the limits of :mod:`gaia_site.bodies`.

    Leaves the bytes as they were before compression in `request.json_bytes`: idempotency compares them.
    """

    media_type = "application/json"

    def parse(
        self, stream: IO[bytes], media_type: str | None, parser_context: Mapping[str, Any] | None
    ) -> Any:
        """The decoded value."""
        request = (parser_context or {})["request"]
        body = read(stream, request)
        request.json_bytes = body
        return decode_json(body)


def read(stream: IO[bytes], request: Request) -> bytes:
    """The inflated body; never reads more than the limit and one byte."""
    check_declared_size(request.META.get("CONTENT_LENGTH"))
    raw = stream.read(LIMIT_BYTES + 1)
    return inflate(raw, request.META.get("HTTP_CONTENT_ENCODING", ""))


def _plain(value: Any) -> Any:
    if isinstance(value, Promise):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


class FastJSONRenderer(BaseRenderer):
    """Compact UTF-8 JSON; times as RFC 3339 with Z."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        """The bytes; an empty body where there is nothing to say."""
        if data is None and (renderer_context or {})["response"].status_code == 204:
            return b""
        return msgspec.json.encode(data, enc_hook=_plain)


class JSONWhateverIsAccepted(BaseContentNegotiation):
    """Answers are JSON; a client that asks for something else gets JSON rather than a riddle."""

    def select_parser(self, request: Request, parsers: list[BaseParser]) -> BaseParser | None:
        """The parser of the body's media type; a body without one is JSON."""
        declared = (request.content_type or "application/json").partition(";")[0].strip().lower()
        return next((parser for parser in parsers if parser.media_type == declared), None)

    def select_renderer(
        self, request: Request, renderers: list[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """The first renderer."""
        return renderers[0], renderers[0].media_type
