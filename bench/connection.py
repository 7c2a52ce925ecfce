"""One kept connection that speaks as much HTTP as is needed: the client of a benchmark shall cost little."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

TIMEOUT_S = 30.0


class Connection:
    """Posts JSON under one API key, one request at a time."""

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        self._head = (
            f" HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {key}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        ).encode()

    async def open(self) -> Connection:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    def close(self) -> None:
        self._writer.close()

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        async with asyncio.timeout(TIMEOUT_S):
            if self._reader.at_eof():  # the server keeps an idle connection for a minute
                await self.open()
            self._writer.write(
                b"POST " + path.encode() + self._head + str(len(body)).encode() + b"\r\n\r\n" + body
            )
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            return int(head[9:12]), await self._reader.readexactly(int(length.partition(b":")[2]))
