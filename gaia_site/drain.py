"""A web process that ends without cutting anybody off, and tells how long its answers took.

daphne stops at once on SIGTERM: whoever is being answered gets an empty reply. Here the signal first makes
`/readyz` answer 503, so that a balancer sends nobody new, then waits for open requests, then stops daphne.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any

import structlog
from daphne import server  # noqa: F401 - puts the reactor over asyncio in place, before anybody takes another
from twisted.internet import reactor

from gaia_site.telemetry import REQUEST_SECONDS, REQUESTS, REQUESTS_OPEN

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Message = MutableMapping[str, Any]
    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Application = Callable[[Scope, Receive, Send], Awaitable[None]]

DRAIN_MOST_S = 10.0
POLL_S = 0.05
PROBE = "/readyz"
"""Who asks it several times a second is told what is missing; the log need not say it too."""

log = structlog.get_logger("gaia.web")


class Drain:
    """ASGI application in front of another: counts open HTTP requests and ends the process politely."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._open = 0
        self._is_draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on one connection."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
        elif self._is_draining and scope["path"] == PROBE:
            await _say_draining(send)
        else:
            await self._counted(scope, receive, send)

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status = time.perf_counter(), 0

        async def noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._open += 1
        REQUESTS_OPEN.inc()
        try:
            await self._application(scope, receive, noting_status)
        finally:
            self._open -= 1
            REQUESTS_OPEN.dec()
            took_s = time.perf_counter() - began
            REQUESTS.labels(scope["method"], str(status)).inc()
            REQUEST_SECONDS.labels(scope["method"]).observe(took_s)
            if status >= 500 and scope["path"] != PROBE:
                log.warning("request_failed", method=scope["method"], path=scope["path"], status=status)

    def end_on_signals(self) -> None:
        """Replace the reactor's own signal handlers, once it runs: it puts them in place while it starts."""
        reactor.callWhenRunning(reactor.callLater, 0, self._take_signals)

    def _take_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: reactor.callFromThread(self._begin))

    def _begin(self) -> None:
        if self._is_draining:
            reactor.stop()  # asked twice: at once
            return
        self._is_draining = True
        log.info("draining", open_requests=self._open)
        self._stop_when_empty(time.monotonic() + DRAIN_MOST_S)

    def _stop_when_empty(self, deadline: float) -> None:
        if self._open and time.monotonic() < deadline:
            reactor.callLater(POLL_S, self._stop_when_empty, deadline)
        else:
            reactor.stop()


async def _say_draining(send: Send) -> None:
    body = b'{"status": "missing", "missing": ["draining"]}'
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
