"""Request bodies: size, compression and JSON, judged in one place for every way into the API.

Nothing here knows a framework. Refusals are :class:`~gaia_site.problems.Problem`.
"""

from __future__ import annotations

import re
import zlib
from typing import Any

import msgspec

from gaia_site.problems import Problem, invalid

LIMIT_BYTES = 5 * 1024 * 1024
"""Largest body, as sent and after inflating."""

BATCH_LIMIT = 5_000
"""Most items of one batch."""

DEPTH_LIMIT = 64
"""Deepest nesting of arrays and objects. Deeper JSON is legal and useless, and every later
reader (PostgreSQL, a browser, a recursive encoder) has a limit of its own."""

_ESCAPED_NUL = re.compile(rb"\\u0000")
_GZIP_WBITS = 31


def too_large(what: str = "The body", limit: str = "5 MiB") -> Problem:
    """The 413 of a body or a batch beyond its bound."""
    return Problem("payload-too-large", f"{what} is larger than {limit}; send less at a time.")


def check_declared_size(content_length: str | None, limit_bytes: int = LIMIT_BYTES) -> None:
    """Refuses by the Content-Length alone, before a byte is read."""
    if not content_length:
        return
    if not content_length.isascii() or not content_length.isdigit():
        raise invalid(("header", "content-length"), "Must be a number of bytes.")
    if int(content_length) > limit_bytes:
        raise too_large()


def inflate(raw: bytes, content_encoding: str, limit_bytes: int = LIMIT_BYTES) -> bytes:
    """The body as it was before compression; at most `limit_bytes`, whatever it would inflate to."""
    if len(raw) > limit_bytes:
        raise too_large()
    encoding = content_encoding.strip().lower()
    if encoding in ("", "identity"):
        return raw
    if encoding not in ("gzip", "x-gzip"):
        raise Problem(
            "unsupported-media-type",
            f"Content-Encoding {encoding[:40]!r} is not supported; send gzip or none.",
            headers={"Accept-Encoding": "gzip"},
        )
    stream = zlib.decompressobj(_GZIP_WBITS)
    try:
        body = stream.decompress(raw, limit_bytes + 1)
    except zlib.error as error:
        raise invalid(("body",), f"Not valid gzip: {error}.") from error
    if len(body) > limit_bytes or stream.unconsumed_tail:
        raise too_large("The inflated body")
    if not stream.eof or stream.unused_data:
        raise invalid(("body",), "Not valid gzip: cut off, or bytes after its end.")
    return body


def decode_json(raw: bytes) -> Any:
    """The value of a JSON body: strict UTF-8, no NaN, no lone surrogates, no NUL, bounded depth.

    Of two equal keys in one object the last counts.
    """
    try:
        value = msgspec.json.decode(raw)
    except RecursionError as error:
        raise invalid(("body",), f"Nested deeper than {DEPTH_LIMIT} levels.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise invalid(("body",), f"Not valid JSON: {error}.") from error
    check_text(raw, value)
    return value


def check_text(raw: bytes, value: Any) -> None:
    """Refuses NUL characters and deep nesting; walks the value only where the bytes can hold either."""
    if raw.count(b"[") + raw.count(b"{") > DEPTH_LIMIT or _ESCAPED_NUL.search(raw):
        _walk(value)


def _walk(value: Any) -> None:
    """Looks at every part of a decoded value with a stack of our own, not the interpreter's."""
    pending: list[tuple[Any, tuple[str | int, ...]]] = [(value, ("body",))]
    while pending:
        part, loc = pending.pop()
        if len(loc) > DEPTH_LIMIT and isinstance(part, dict | list):
            raise invalid(("body",), f"Nested deeper than {DEPTH_LIMIT} levels.")
        if isinstance(part, str):
            if "\0" in part:
                raise invalid(loc, "Must not contain the NUL character.")
        elif isinstance(part, dict):
            for name, inner in part.items():
                if "\0" in name:
                    raise invalid(loc, "A name must not contain the NUL character.")
                pending.append((inner, (*loc, name)))
        elif isinstance(part, list):
            pending.extend((inner, (*loc, index)) for index, inner in enumerate(part))
