"""What speaks to clients: uvicorn's HTTP and daphne's WebSockets at one address, in one event loop.

Twisted's HTTP costs three times what a hot call costs; uvicorn's parser is in C. WebSockets stay daphne's, behind
a transport that Twisted's protocols accept. Both call the same ASGI application, which
`daphne gaia_site.asgi:application` serves as well.
"""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from daphne import http_protocol, server
from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress, ITransport
from twisted.python.failure import Failure
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState
from zope.interface import implementer

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

HEAD_BYTES_MAX = 32 * 1024
"""Request line and headers; a header counts for its name, its value and 32 bytes of keeping it (RFC 9113, 6.5.2)."""

REQUEST_TIMEOUT_S = 60.0
"""For a whole request to arrive, and for the first one of a connection to begin."""

IDLE_TIMEOUT_S = 60.0
"""How long a connection is kept between two requests."""

LINGER_S = 5.0
"""How long the rest of a body nobody wants is read, so that the client reads the refusal before the end."""

BACKLOG = 1024


class Http(HttpToolsProtocol):
    """uvicorn's protocol with a bound on the size of a head and on the time a request takes to arrive."""

    _head_bytes = 0
    _unparsed_bytes = 0
    _has_head = False
    _is_whole = False
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first request has to come."""
        super().connection_made(transport)
        self._end_in(REQUEST_TIMEOUT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """No deadline outlives its connection."""
        self._no_end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse; what has begun by then has to be whole in time."""
        super().data_received(data)
        if self._is_whole:
            self._no_end()
            return
        if not self._has_head:
            self._unparsed_bytes += len(data)
            if self._unparsed_bytes > 2 * HEAD_BYTES_MAX and not self.transport.is_closing():
                self.send_400_response("The head of the request is too large.")
                return
        if self._deadline is None:
            self._end_in(REQUEST_TIMEOUT_S)

    def on_message_begin(self) -> None:
        """A new request."""
        super().on_message_begin()
        self._head_bytes = self._unparsed_bytes = 0
        self._has_head = self._is_whole = False

    def on_url(self, url: bytes) -> None:
        """A part of the address."""
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; what follows a body is none (RFC 9110, 6.5.1), or it would pass what a proxy takes out."""
        self._count_head(len(name) + len(value) + 32)
        if not self._has_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The application begins."""
        self._has_head = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Nothing is missing any more."""
        self._is_whole = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Answered; where the body still comes, it is not read for ever."""
        if not self._is_whole:
            self._no_end()
            self._end_in(LINGER_S)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what came; where an earlier request is not answered yet, give that answer and end instead."""
        if self._is_answer_owed():
            self._end_after_answers()
        else:
            super().send_400_response(msg)

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over, unless the answer to an earlier request would come among the frames."""
        if self._is_answer_owed():
            self._end_after_answers()
        else:
            super().handle_websocket_upgrade()

    def _is_answer_owed(self) -> bool:
        if self.cycle is None or self.cycle.response_complete:
            return False
        is_earlier = self._is_whole or not self._has_head or self.parser.should_upgrade()
        return is_earlier or bool(self.pipeline) or self.cycle.response_started

    def _end_after_answers(self) -> None:
        if self.cycle.response_started:  # it may be an endless one
            self.transport.close()
        self.cycle.keep_alive = False
        self.flow.pause_reading()

    def _count_head(self, more: int) -> None:
        self._head_bytes += more
        if self._head_bytes > HEAD_BYTES_MAX:
            raise ValueError("the head of the request is too large")  # the parser makes a 400 of it

    def _end_in(self, seconds: float) -> None:
        self._deadline = self.loop.call_later(seconds, self.transport.close)

    def _no_end(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


@implementer(ITransport)
class SocketTransport(asyncio.Protocol):
    """One connection that became a WebSocket: asyncio's protocol on one side, Twisted's transport on the other."""

    def __init__(self, factory: server.WebSocketFactory) -> None:
        self._factory = factory
        self._transport: asyncio.Transport
        self._protocol: Any = None
        self._is_lost = False

    # what asyncio calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection over from HTTP."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """The head of the request first, then frames."""
        if self._protocol is None:
            self._protocol = self._factory.buildProtocol(self.getPeer())
            target = data.split(b" ", 2)[1]
            self._protocol._raw_query_string = target.partition(b"?")[2]  # noqa: SLF001  as daphne's HTTP does
            self._protocol.makeConnection(self)
        self._protocol.dataReceived(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the protocol how it ended."""
        self._is_lost = True
        if self._protocol is not None:
            self._protocol.connectionLost(
                Failure(ConnectionDone() if exc is None else ConnectionLost(str(exc)))
            )

    # what Twisted calls

    def write(self, data: bytes) -> None:
        """Send, or keep until it can be sent; nothing after the end."""
        if not self._is_lost and not self._transport.is_closing():
            self._transport.write(data)

    def writeSequence(self, data: list[bytes]) -> None:  # noqa: N802  Twisted's name
        """Send all of it."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:  # noqa: N802
        """End when all is sent."""
        self._transport.close()

    def abortConnection(self) -> None:  # noqa: N802
        """End now."""
        self._transport.abort()

    def getPeer(self) -> IAddress:  # noqa: N802
        """The client's address."""
        return _address(self._transport.get_extra_info("peername"))

    def getHost(self) -> IAddress:  # noqa: N802
        """Our address."""
        return _address(self._transport.get_extra_info("sockname"))

    def unregisterProducer(self) -> None:  # noqa: N802
        """Called before an end in any case; nothing here registers one."""

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: N802, FBT001
        """Both event loops send at once as it is."""


def _address(name: Any) -> IAddress:
    if not isinstance(name, tuple):
        return UNIXAddress(name or None)
    return (IPv6Address if len(name) == 4 else IPv4Address)("TCP", name[0], name[1])


class WebServer(server.Server):  # type: ignore[misc]  daphne is untyped
    """daphne without its own HTTP: `listener` is served by `Http`, and by daphne from an upgrade on."""

    def __init__(self, application: Callable[..., Any], listener: socket.socket) -> None:
        super().__init__(
            application, endpoints=["none"], signal_handlers=False, ready_callable=self._arrange, verbosity=0
        )
        self.endpoints = []  # it refuses to be made without one
        self._listener = listener
        self._state = ServerState()
        self._accepting: asyncio.Server | None = None

    def _arrange(self) -> None:
        reactor.callWhenRunning(lambda: asyncio.ensure_future(self._listen()))
        reactor.addSystemEventTrigger("before", "shutdown", self._close)

    async def _listen(self) -> None:
        config = Config(
            self.application,
            interface="asgi3",
            lifespan="off",
            ws=lambda **_: SocketTransport(self.ws_factory),  # type: ignore[arg-type]
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=round(IDLE_TIMEOUT_S),
        )
        config.load()
        self._tell_date()
        loop = asyncio.get_running_loop()
        self._accepting = await loop.create_server(
            lambda: Http(config, self._state, {}, loop), sock=self._listener, backlog=BACKLOG
        )

    def _tell_date(self) -> None:
        """Each answer says the time (RFC 9110, 6.6.1); it is written down once a second."""
        self._state.default_headers = [(b"date", formatdate(time.time(), usegmt=True).encode())]
        reactor.callLater(1, self._tell_date)

    def _close(self) -> None:
        if self._accepting is not None:
            self._accepting.close()
        for connection in tuple(self._state.connections):
            connection.transport.close()


class _Request(http_protocol.WebRequest):  # type: ignore[misc]
    """A request of daphne's own HTTP whose body is left alone: Django parses forms where one is wanted."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, parsePOSTFormSubmission=False)


class _Factory(http_protocol.HTTPFactory):  # type: ignore[misc]
    """Connections whose requests are such, without an access log, which would show keys in `?key=`."""

    def buildProtocol(self, addr: Any) -> Any:  # noqa: N802  Twisted's name
        """One connection."""
        protocol = super().buildProtocol(addr)
        protocol.requestFactory = _Request
        return protocol

    def log(self, request: Any) -> None:
        """Nothing: our own log says what failed, and metrics what was answered."""


def arrange() -> None:
    """Let a daphne that is started by itself use these."""
    server.HTTPFactory = _Factory
