"""Kept connections from web to the nodes, with as much HTTP/1.1 as the two speak.

One request at a time on each; as many connections as requests are on their way, of which a few are kept. A general
client took a fifth of the web process's time for commands.
"""

import asyncio
import time
from collections import deque
from urllib.parse import urlsplit

import httptools

from coordination.errors import NotAvailable, OutcomeUnknown
from coordination.log import protocol

KEPT_MAX = 64
KEPT_S = 60.0
"""Shorter than a node keeps an idle connection (75 s)."""
CONNECT_TIMEOUT_S = 1.0

SILENT_S = 0.3
"""After so long without an answer a node is looked at, if what it was asked may be asked of another."""
LOOK_TIMEOUT_S = 0.5
LOOK_EVERY_S = 0.5
LOOK_PATH = "/healthz"
"""Answered by the node's event loop alone: whoever is silent here hangs, or cannot be reached."""

Answer = tuple[int, bytes]
"""Status and body."""


class Links:
    """The connections of one event loop."""

    def __init__(self) -> None:
        self._idle: dict[str, deque[_Link]] = {}
        self._open: set[_Link] = set()
        self._silent: dict[str, set[_Link]] = {}
        self._looking: dict[str, asyncio.Task[None]] = {}

    async def ask(
        self,
        url: str,
        method: str,
        path: str,
        authorization: str,
        body: bytes,
        timeout_s: float,
        *,
        may_leave: bool = False,
    ) -> Answer:
        """What the node at `url` answers. Raises NotAvailable where it was not reached, OutcomeUnknown where it may
        have been and did not answer in time. When cancelled, the node sees the connection end.

        `may_leave`: another node can be asked the same, so a node that hangs is not waited for.
        """
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + timeout_s
        link = self._kept(url) or await self._connect(url, min(CONNECT_TIMEOUT_S, timeout_s))
        doubt = loop.call_later(SILENT_S, self._doubt, url, link) if may_leave else None
        try:
            async with asyncio.timeout_at(ends_s):
                answer = await link.ask(method, path, authorization, body)
        except (OSError, TimeoutError) as error:
            raise OutcomeUnknown(f"no answer ({type(error).__name__})") from error
        finally:
            if doubt is not None:
                doubt.cancel()
                self._silent.get(url, set()).discard(link)
            self._give_back(url, link)
        return answer

    def _doubt(self, url: str, link: "_Link") -> None:
        """It is silent on this connection: one look at a time, whoever waits for it."""
        self._silent.setdefault(url, set()).add(link)
        if url not in self._looking:
            self._looking[url] = asyncio.get_running_loop().create_task(self._look(url))

    async def _look(self, url: str) -> None:
        """While anybody waits for this node: as soon as it answers nothing at all, they wait no longer."""
        silent = self._silent[url]
        try:
            while silent:
                try:
                    await self.ask(url, "GET", LOOK_PATH, "", b"", LOOK_TIMEOUT_S)
                except (NotAvailable, OutcomeUnknown):
                    for link in tuple(silent):
                        link.give_up()
                    silent.clear()
                else:
                    await asyncio.sleep(LOOK_EVERY_S)
        finally:
            del self._looking[url]

    def close(self) -> None:
        """End all connections; what is on its way ends as unknown."""
        for look in tuple(self._looking.values()):
            look.cancel()
        for link in tuple(self._open):
            link.end()
        self._open.clear()
        self._idle.clear()

    def _kept(self, url: str) -> "_Link | None":
        idle = self._idle.get(url)
        while idle:
            link = idle.pop()  # the last used: the others may grow old
            if link.is_usable and time.monotonic() - link.used_s < KEPT_S:
                return link
            self._forget(link)
        return None

    async def _connect(self, url: str, timeout_s: float) -> "_Link":
        parts = urlsplit(url)
        is_secure = parts.scheme == "https"
        port = parts.port or (443 if is_secure else 80)
        try:
            async with asyncio.timeout(timeout_s):
                _, link = await asyncio.get_running_loop().create_connection(
                    lambda: _Link(parts.netloc), parts.hostname, port, ssl=is_secure or None
                )
        except (OSError, TimeoutError) as error:
            raise NotAvailable(f"cannot connect ({type(error).__name__})") from error
        self._open.add(link)
        return link

    def _give_back(self, url: str, link: "_Link") -> None:
        idle = self._idle.setdefault(url, deque())
        if link.is_usable and len(idle) < KEPT_MAX:
            link.used_s = time.monotonic()
            idle.append(link)
        else:
            self._forget(link)

    def _forget(self, link: "_Link") -> None:
        link.end()
        self._open.discard(link)


class _Link(asyncio.Protocol):
    """One connection. `is_good`: nothing is on its way, and another request may follow."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._answer: asyncio.Future[Answer] | None = None
        self._parts: list[bytes] = []
        self._size_bytes = 0
        self.is_good = True
        self.used_s = 0.0

    @property
    def is_usable(self) -> bool:
        """Whether it is good and the node has not begun to end it."""
        return self.is_good and not self._transport.is_closing()

    def ask(self, method: str, path: str, authorization: str, body: bytes) -> "asyncio.Future[Answer]":
        """Send one request; its answer, or ConnectionError."""
        self.is_good = False
        self._parts, self._size_bytes = [], 0
        self._answer = asyncio.get_running_loop().create_future()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nAuthorization: {authorization}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._transport.write(head.encode("ascii") + body)
        return self._answer

    def end(self) -> None:
        """End the connection at once."""
        self.is_good = False
        self._transport.abort()

    def give_up(self) -> None:
        """Whoever waits learns that this node hangs."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionAbortedError("the node hangs"))

    # what asyncio calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Ready for the first request."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """A part of the answer; one that nobody asked for ends the connection."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits learns it."""
        self.is_good = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError("the node ended the connection"))

    # what the parser calls

    def on_message_begin(self) -> None:
        """Only an answer to what was asked."""
        if self._answer is None:
            raise ValueError("an answer without a question")

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._size_bytes += len(body)
        if self._size_bytes > protocol.BODY_BYTES_MAX:
            raise ValueError("the answer is too large")
        self._parts.append(body)

    def on_message_complete(self) -> None:
        """All of it is here."""
        answer, self._answer = self._answer, None
        self.is_good = self._parser.should_keep_alive()
        if answer is not None and not answer.done():
            body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            answer.set_result((self._parser.get_status_code(), body))
