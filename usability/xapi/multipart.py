"""multipart/mixed: a body of statements with their attachments, taken apart and put together.

RFC 2046, section 5.1, with the headers of xAPI 1.0.3, part three, section 1.5.2. Bounded: a body is at most 5 MiB
before it comes here, and has at most `PARTS_LIMIT` parts.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

from usability.xapi.values import Wrong

PARTS_LIMIT = 500
HEADER_LIMIT_BYTES = 8_000

_BOUNDARY = re.compile(r"""boundary\s*=\s*(?:"([^"]{1,200})"|([^\s;"]{1,200}))""", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Part:
    """One part: headers with lower-case names, and its bytes."""

    content: bytes
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def content_type(self) -> str:
        """The media type without parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


def boundary_of(content_type: str) -> str:
    """The boundary a Content-Type names. Raises Wrong where it names none."""
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise Wrong(("header", "content-type"), "multipart/mixed needs a boundary")
    return found[1] or found[2]


def taken_apart(body: bytes, boundary: str) -> list[Part]:
    """The parts between the boundaries. Raises Wrong where the body is not what it says."""
    line = b"--" + boundary.encode("latin-1", "replace")
    pieces = (b"\r\n" + body).split(b"\r\n" + line)
    if len(pieces) < 3 or not pieces[-1].startswith(b"--"):
        raise Wrong(("body",), "the boundary of the Content-Type does not begin, divide and end the body")
    if len(pieces) - 2 > PARTS_LIMIT:
        raise Wrong(("body",), f"more than {PARTS_LIMIT} parts")
    return [_part(piece, ("body", index)) for index, piece in enumerate(pieces[1:-1])]


def _part(piece: bytes, loc: tuple[str | int, ...]) -> Part:
    rest = piece.lstrip(b" \t")
    if not rest.startswith(b"\r\n"):
        raise Wrong(loc, "there is no line break after the boundary")
    head, separator, content = rest.partition(b"\r\n\r\n")
    if not separator or len(head) > HEADER_LIMIT_BYTES:
        raise Wrong(loc, "a part needs headers, an empty line and its content")
    headers = {}
    for line in head.decode("latin-1").split("\r\n"):
        if line:
            name, colon, value = line.partition(":")
            if not colon:
                raise Wrong(loc, "a header line has no colon")
            headers[name.strip().lower()] = value.strip()
    return Part(content, headers)


def put_together(parts: Iterable[Part]) -> tuple[str, bytes]:
    """The Content-Type and the body of these parts."""
    boundary = secrets.token_hex(16)
    pieces: list[bytes] = []
    for part in parts:
        head = "".join(f"{name}: {value}\r\n" for name, value in part.headers.items())
        pieces.append(f"--{boundary}\r\n{head}\r\n".encode() + part.content + b"\r\n")
    pieces.append(f"--{boundary}--\r\n".encode())
    return f"multipart/mixed; boundary={boundary}", b"".join(pieces)
