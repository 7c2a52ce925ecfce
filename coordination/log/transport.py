"""Sealed TCP connections between members, driven by one thread: no event loop, no thread of its own but a resolver.

A frame is a 4-byte length, checked before anything is allocated, and as many bytes: a hello until both sides have
proved themselves (`handshake`), then sealed ones. There is one current connection per peer: a new one that has proved
itself replaces the old, whose unread bytes are thrown away, so that order holds across connections. The member with
the smaller id dials; the other only when it has waited in vain, since its address may have changed. Links say something at least every `ping_s`, and a peer silent for `silence_s` is let go.
"""

import contextlib
import errno
import logging
import os
import random
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from coordination.log.contract import Peer
from coordination.log.handshake import (
    BAD_FRAME,
    MAX_HELLO_BYTES,
    MIN_SECRET_CHARACTERS,
    TAG_BYTES,
    Handshake,
    Refused,
    Session,
)

log = logging.getLogger(__name__)

LENGTH = struct.Struct("<I")
PING, MESSAGE = b"\x00", b"\x01"
MAX_FRAME_BYTES = 16 * 1024 * 1024
MAX_BACKLOG_BYTES = 64 * 1024 * 1024
READ_BYTES = 1024 * 1024
MAX_READ_PER_POLL_BYTES = 8 * 1024 * 1024
MAX_STRANGERS = 32
HANDSHAKE_S = 2.0
FIRST_RETRY_S, LAST_RETRY_S = 0.05, 0.5
LATE_S = 1.0
"""How long the member with the greater id leaves the dialling to the other."""
ACCEPT_PAUSE_S = 0.5
LOG_EVERY_S = 10.0


class Listener(Protocol):
    """Who is told about the links, in the polling thread."""

    def link_up(self, peer: str) -> None:
        """A connection with this peer is open and proved."""

    def link_down(self, peer: str) -> None:
        """It is gone."""

    def frame(self, peer: str, data: bytes) -> None:
        """One message arrived from this peer."""


@dataclass(slots=True, eq=False)
class _Link:
    """One TCP connection; `peer` is proved once `session` is there. `number` counts all connections of this process."""

    number: int
    socket: socket.socket
    handshake: Handshake
    dialled: str
    since: float
    is_connecting: bool = False
    is_closed: bool = False
    session: Session | None = None
    peer: str = ""
    inbound: bytearray = field(default_factory=bytearray)
    outbound: bytearray = field(default_factory=bytearray)
    heard: float = 0.0
    spoke: float = 0.0

    @property
    def frame_limit(self) -> int:
        return MAX_FRAME_BYTES if self.session else MAX_HELLO_BYTES


@dataclass(slots=True)
class _Dial:
    """When to try a peer next, how long to wait after a failure, and where its address stands. `is_late`: it is the
    other's turn to dial, so this one waits longer.
    """

    peer: Peer
    due: float
    is_late: bool
    wait_s: float = FIRST_RETRY_S
    resolving: "Future[tuple[int, object]] | None" = None


def split_address(address: str) -> tuple[str, int]:
    """`host:port`, with an IPv6 host in brackets. Raises ValueError."""
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise ValueError(f"expected host:port, found {address!r}")
    return host.strip("[]"), int(port)


def resolve(address: str) -> tuple[int, object]:
    """(address family, socket address). May take as long as the name server likes."""
    host, port = split_address(address)
    family, _, _, _, found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return family, found


class PeerLinks:
    """All connections of one member. Only `wake` may be called from another thread."""

    def __init__(
        self,
        *,
        node_id: str,
        secret: str,
        bind: str,
        peers: tuple[Peer, ...],
        ping_s: float,
        silence_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if bind and len(secret) < MIN_SECRET_CHARACTERS:
            raise ValueError(f"CLUSTER_SECRET must have at least {MIN_SECRET_CHARACTERS} characters")
        if any(peer.node_id == node_id for peer in peers) or len({p.node_id for p in peers}) != len(peers):
            raise ValueError("each peer has a node id of its own, other than this member's")
        self._node_id, self._secret, self._clock = node_id, secret, clock
        self._ping_s, self._silence_s = ping_s, silence_s
        self._dials: dict[str, _Dial] = {}
        self._links: set[_Link] = set()
        self._current: dict[str, _Link] = {}
        self._count = 0
        self.counters: dict[str, int] = {}
        self._logged: dict[tuple[str, str], float] = {}
        self.listener: Listener
        self._selector = selectors.DefaultSelector()
        self._wake_lock = threading.Lock()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._wake, selectors.EVENT_READ, None)
        self._resolver: ThreadPoolExecutor | None = None
        self._listening: socket.socket | None = self._listen(bind) if bind else None
        self._accept_from = 0.0
        for peer in peers:
            self.meet(peer.node_id, peer.address)

    def _listen(self, bind: str) -> socket.socket:
        family, address = resolve(bind)
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setblocking(False)
        listening.bind(address)  # type: ignore[arg-type]
        listening.listen(64)
        self._selector.register(listening, selectors.EVENT_READ, None)
        return listening

    # ---- what the outbox and the replica use

    def meet(self, peer: str, address: str) -> None:
        """Keep a connection with this peer from now on, at this address if we are the one to dial."""
        if self._listening is None or not address:
            return
        dial = self._dials.get(peer)
        if dial is not None:
            dial.peer = Peer(peer, address)
            return
        is_late = peer < self._node_id
        due = self._clock() + (LATE_S * random.uniform(1.0, 2.0) if is_late else 0.0)
        self._dials[peer] = _Dial(Peer(peer, address), due, is_late)

    def forget(self, peer: str) -> None:
        """Dial this peer no more. An open connection stays, so that it can still be told something."""
        self._dials.pop(peer, None)

    def send(self, peer: str, frame: bytes) -> bool:
        """Seal and queue a frame; False if there is no open connection or it had to be closed."""
        link = self._current.get(peer)
        if link is None or link.session is None:
            return False
        if len(frame) + 1 + TAG_BYTES > MAX_FRAME_BYTES:
            raise AssertionError(f"a frame of {len(frame)} bytes is over the limit of {MAX_FRAME_BYTES}")
        self._put(link, link.session.seal(MESSAGE + frame))
        if len(link.outbound) > MAX_BACKLOG_BYTES:
            self._close(link, "it does not read what it is sent")
        return not link.is_closed

    def backlog(self, peer: str) -> int:
        """Bytes the network has not accepted yet."""
        link = self._current.get(peer)
        return len(link.outbound) if link else 0

    def drop(self, peer: str, reason: str) -> None:
        """Close the current connection with this peer."""
        link = self._current.get(peer)
        if link is not None:
            self._close(link, reason)

    def wake(self) -> None:
        """Let a poll in progress return. Safe from any thread, also after `close`."""
        with self._wake_lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    # ---- the poll

    def poll(self, timeout_s: float) -> None:
        """Wait for the network, a wake-up or the time-out; deliver what arrived; then look after the links."""
        timeout_s = max(0.0, min(timeout_s, self._next_timer() - self._clock()))
        for key, events in self._selector.select(timeout_s):
            if key.fileobj is self._listening:
                self._accept()
            elif key.fd == self._wake:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._wake)
            elif not key.data.is_closed:
                self._ready(key.data, events)
        self._look_after(self._clock())

    def _ready(self, link: _Link, events: int) -> None:
        try:
            if link.is_connecting and not self._connected(link):
                return
            if events & selectors.EVENT_WRITE:
                self._write(link)
            if events & selectors.EVENT_READ and not link.is_closed:
                self._read(link)
        except Refused as refused:
            self._refuse(link, refused)
        except OSError as error:
            self._close(link, str(error))

    def _next_timer(self) -> float:
        timers = [dial.due for dial in self._dials.values() if self._wants(dial)]
        for link in self._links:
            if link.session is None:
                timers.append(link.since + HANDSHAKE_S)
            else:
                timers.append(min(link.spoke + self._ping_s, link.heard + self._silence_s))
        if self._accept_from:
            timers.append(self._accept_from)
        return min(timers, default=float("inf"))

    def _look_after(self, now: float) -> None:
        """Judges silence only after everything that has arrived was read."""
        for link in list(self._links):
            if link.session is None:
                if now - link.since > HANDSHAKE_S:
                    self._close(link, "no proof within the time limit")
            elif now - link.heard > self._silence_s:
                self._close(link, "silent for too long")
            elif now - link.spoke >= self._ping_s:
                self._put(link, link.session.seal(PING))
        for dial in self._dials.values():
            if self._wants(dial) and dial.due <= now:
                self._dial(dial, now)
        if self._accept_from and self._accept_from <= now and self._listening is not None:
            self._accept_from = 0.0
            self._selector.register(self._listening, selectors.EVENT_READ, None)

    # ---- connecting

    def _wants(self, dial: _Dial) -> bool:
        is_trying = any(link.dialled == dial.peer.node_id for link in self._links)
        return not is_trying and dial.peer.node_id not in self._current

    def _dial(self, dial: _Dial, now: float) -> None:
        """Resolve aside, then connect; the next try is due after a growing, jittered pause."""
        if self._resolver is None:
            self._resolver = ThreadPoolExecutor(1, "resolver")
        if dial.resolving is None:
            dial.resolving = self._resolver.submit(resolve, dial.peer.address)
            dial.resolving.add_done_callback(lambda _: self.wake())
        if not dial.resolving.done():
            dial.due = now + LAST_RETRY_S
            return
        resolving, dial.resolving = dial.resolving, None
        dial.due = now + (LATE_S if dial.is_late else dial.wait_s) * random.uniform(0.5, 1.0)
        dial.wait_s = min(dial.wait_s * 2, LAST_RETRY_S)
        try:
            family, address = resolving.result()
            self._connect(dial.peer.node_id, family, address, now)
        except (OSError, ValueError) as error:
            # A name that no resolver takes is a ValueError. The log may hold such an address, and must not end us.
            self._note("unreachable", dial.peer.node_id, str(error))

    def _connect(self, peer: str, family: int, address: object, now: float) -> None:
        connecting = socket.socket(family, socket.SOCK_STREAM)
        connecting.setblocking(False)
        code = connecting.connect_ex(address)  # type: ignore[arg-type]
        if code not in (0, errno.EINPROGRESS):
            connecting.close()
            raise OSError(code, os.strerror(code))
        handshake = Handshake(self._secret, self._node_id, dials=peer)
        link = self._add(connecting, handshake, peer, now)
        link.is_connecting = True
        self._selector.modify(connecting, selectors.EVENT_WRITE, link)

    def _connected(self, link: _Link) -> bool:
        code = link.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._close(link, os.strerror(code))
            return False
        link.is_connecting = False
        self._selector.modify(link.socket, selectors.EVENT_READ, link)
        self._put(link, link.handshake.hello())
        return True

    def _accept(self) -> None:
        assert self._listening is not None, "only a listening member accepts"
        try:
            while True:
                accepted, _ = self._listening.accept()
                strangers = sum(1 for link in self._links if link.session is None and not link.dialled)
                if strangers >= MAX_STRANGERS:
                    accepted.close()
                    self._note(
                        "too_many_strangers", "", f"{strangers} connections have not proved themselves"
                    )
                    continue
                accepted.setblocking(False)
                self._add(accepted, Handshake(self._secret, self._node_id), "", self._clock())
        except BlockingIOError:
            return
        except OSError as error:
            # Out of descriptors, for one: a listener that stays readable would keep the loop busy.
            self._note("accept_failed", "", str(error))
            self._selector.unregister(self._listening)
            self._accept_from = self._clock() + ACCEPT_PAUSE_S

    def _add(self, connection: socket.socket, handshake: Handshake, dialled: str, now: float) -> _Link:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._count += 1
        link = _Link(self._count, connection, handshake, dialled, now)
        self._links.add(link)
        self._selector.register(connection, selectors.EVENT_READ, link)
        return link

    # ---- bytes

    def _put(self, link: _Link, frame: bytes) -> None:
        link.spoke = self._clock()
        was_empty = not link.outbound
        link.outbound += LENGTH.pack(len(frame)) + frame
        if was_empty:
            try:
                self._write(link)
            except OSError as error:
                self._close(link, str(error))

    def _write(self, link: _Link) -> None:
        if link.outbound:
            with contextlib.suppress(BlockingIOError):
                sent = link.socket.send(link.outbound)
                del link.outbound[:sent]
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.outbound else 0)
        if self._selector.get_key(link.socket).events != wanted:
            self._selector.modify(link.socket, wanted, link)

    def _read(self, link: _Link) -> None:
        taken = 0
        while taken < MAX_READ_PER_POLL_BYTES and not link.is_closed:
            try:
                data = link.socket.recv(READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                self._close(link, "it closed the connection")
                return
            link.inbound += data
            taken += len(data)
            link.heard = self._clock()
            self._take_frames(link)
            if len(data) < READ_BYTES:
                return

    def _take_frames(self, link: _Link) -> None:
        at = 0
        while not link.is_closed and len(link.inbound) - at >= LENGTH.size:
            (size,) = LENGTH.unpack_from(link.inbound, at)
            if size > link.frame_limit:
                raise Refused(BAD_FRAME, f"a frame of {size} bytes is over the limit of {link.frame_limit}")
            if len(link.inbound) - at < LENGTH.size + size:
                break
            frame = bytes(link.inbound[at + LENGTH.size : at + LENGTH.size + size])
            at += LENGTH.size + size
            self._take(link, frame)
        del link.inbound[:at]

    def _take(self, link: _Link, frame: bytes) -> None:
        if link.session is None:
            answer = link.handshake.receive(frame)
            if answer is not None:
                self._put(link, answer)
            if link.handshake.session is not None and not link.is_closed:
                self._open(link)
            return
        plain = link.session.open(frame)
        if plain[:1] == MESSAGE:
            self.listener.frame(link.peer, plain[1:])
        elif plain != PING:
            raise Refused(BAD_FRAME, f"unknown kind of frame {plain[:1]!r}")

    # ---- the life of a link

    def _open(self, link: _Link) -> None:
        link.session, link.peer = link.handshake.session, link.handshake.peer
        old = self._current.get(link.peer)
        if old is not None:
            self._close(old, "a newer connection took its place")
        self._current[link.peer] = link
        link.heard = self._clock()
        if link.peer in self._dials:
            self._dials[link.peer].wait_s = FIRST_RETRY_S
        log.info("peer_connected", extra={"peer": link.peer, "connection": link.number})
        self.listener.link_up(link.peer)

    def _refuse(self, link: _Link, refused: Refused) -> None:
        self._note(refused.reason, link.peer or link.handshake.peer, refused.detail)
        self._close(link, str(refused))

    def _note(self, reason: str, peer: str, detail: str) -> None:
        """Count each, log each kind once in a while: a misconfigured peer tries several times a second."""
        self.counters[reason] = self.counters.get(reason, 0) + 1
        now = self._clock()
        if now - self._logged.get((reason, peer), float("-inf")) >= LOG_EVERY_S:
            if len(self._logged) > 1000:
                self._logged.clear()
            self._logged[(reason, peer)] = now
            log.warning("peer_refused", extra={"reason": reason, "peer": peer, "detail": detail})

    def _close(self, link: _Link, reason: str) -> None:
        if link.is_closed:
            return
        link.is_closed = True
        self._links.discard(link)
        self._selector.unregister(link.socket)
        link.socket.close()
        if link.session is None and link.handshake.peer and not link.dialled:
            # One with another secret finds out first, by our proof, and leaves: it must be seen here as well.
            self._note(
                "unproved", link.handshake.peer, f"it left without proving that it holds the secret: {reason}"
            )
        if self._current.get(link.peer) is link:
            del self._current[link.peer]
            log.info(
                "peer_disconnected", extra={"peer": link.peer, "connection": link.number, "reason": reason}
            )
            dial = self._dials.get(link.peer)
            if dial is not None and dial.is_late:
                dial.due = self._clock() + LATE_S * random.uniform(1.0, 2.0)
            self.listener.link_down(link.peer)

    def close(self) -> None:
        """Close everything without telling the listener."""
        for link in self._links:
            link.socket.close()
        self._links.clear()
        self._current.clear()
        if self._listening is not None:
            self._listening.close()
        if self._resolver is not None:
            self._resolver.shutdown(wait=False, cancel_futures=True)
        self._selector.close()
        with self._wake_lock:
            os.close(self._wake)
            self._wake = -1
