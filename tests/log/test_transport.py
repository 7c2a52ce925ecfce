"""Links over real sockets: who gets in, what is refused before it is read, and that order holds across connections."""

import os
import pickle
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from coordination.log import wire
from coordination.log.contract import Peer
from coordination.log.handshake import MAX_HELLO_BYTES, Handshake
from coordination.log.transport import MAX_FRAME_BYTES, MESSAGE, PeerLinks
from tests.log.net import free_ports

SECRET = "a secret that all members share"


class Heard:
    """Remembers what the links report."""

    def __init__(self) -> None:
        self.up: list[str] = []
        self.down: list[str] = []
        self.frames: list[bytes] = []

    def link_up(self, peer: str) -> None:
        self.up.append(peer)

    def link_down(self, peer: str) -> None:
        self.down.append(peer)

    def frame(self, peer: str, data: bytes) -> None:
        self.frames.append(data)


class End:
    def __init__(
        self,
        node_id: str,
        ports: dict[str, int],
        secret: str = SECRET,
        silence_s: float = 5.0,
        others: tuple[Peer, ...] = (),
    ) -> None:
        peers = tuple(Peer(other, f"127.0.0.1:{port}") for other, port in ports.items() if other != node_id)
        peers += others
        self.heard = Heard()
        self.links = PeerLinks(
            node_id=node_id,
            secret=secret,
            bind=f"127.0.0.1:{ports[node_id]}",
            peers=peers,
            ping_s=silence_s / 4,
            silence_s=silence_s,
        )
        self.links.listener = self.heard


def poll_until(condition, *ends: End, limit_s: float = 10.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, [
            (end.heard.up, end.heard.down, end.links.counters) for end in ends
        ]
        for end in ends:
            end.links.poll(0.005)


@contextmanager
def two(secret: str = SECRET, silence_s: float = 5.0) -> Iterator[tuple[End, End]]:
    ports = dict(zip(("n1", "n2"), free_ports(2), strict=True))
    first, second = End("n1", ports, silence_s=silence_s), End("n2", ports, secret, silence_s=silence_s)
    try:
        yield first, second
    finally:
        first.links.close()
        second.links.close()


@contextmanager
def stranger(end: End) -> Iterator[socket.socket]:
    """A raw connection to this end."""
    with socket.create_connection(end.links._listening.getsockname(), timeout=5) as connection:
        connection.setblocking(False)
        yield connection


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_two_members_find_each_other_and_talk_in_order() -> None:
    with two() as (first, second):
        poll_until(lambda: first.heard.up and second.heard.up, first, second)

        for number in range(300):
            assert first.links.send("n2", b"%d" % number * 50)
        poll_until(lambda: len(second.heard.frames) == 300, first, second)

        assert second.heard.frames == [b"%d" % number * 50 for number in range(300)]


def test_a_frame_of_many_megabytes_arrives() -> None:
    with two() as (first, second):
        poll_until(lambda: first.heard.up and second.heard.up, first, second)
        big = os.urandom(MAX_FRAME_BYTES - 100)

        first.links.send("n2", big)
        poll_until(lambda: bool(second.heard.frames), first, second)

        assert second.heard.frames == [big]


def test_another_secret_is_refused_and_counted() -> None:
    with two(secret="not the secret of the others") as (first, second):
        poll_until(lambda: first.links.counters.get("wrong_secret", 0) >= 2, first, second)

        assert first.heard.up == second.heard.up == []
        assert not first.links.send("n2", b"nothing leaves")


def test_a_pickle_bomb_is_refused_unread(tmp_path) -> None:
    trace = tmp_path / "exploded"

    class Bomb:
        def __reduce__(self):
            return os.system, (f"touch {trace}",)

    bomb = pickle.dumps(Bomb())
    with two() as (first, _), stranger(first) as connection:
        connection.send(struct.pack("<I", len(bomb)) + bomb)
        poll_until(lambda: is_closed(connection), first)

        assert first.links.counters["bad_frame"] == 1
        assert first.heard.frames == []
    with pytest.raises(wire.Malformed):
        wire.decode(bomb)
    assert not trace.exists()


def test_an_oversized_frame_is_refused_by_its_length_alone() -> None:
    with two() as (first, _), stranger(first) as connection:
        connection.send(struct.pack("<I", MAX_HELLO_BYTES + 1))
        poll_until(lambda: is_closed(connection), first)

        assert first.links.counters["bad_frame"] == 1


def test_a_sealed_connection_is_closed_when_its_bytes_are_changed() -> None:
    ports = dict(zip(("n1", "n2"), free_ports(2), strict=True))
    acceptor = End("n2", ports)
    try:
        with stranger(acceptor) as connection:
            dialer = Handshake(SECRET, "n1", dials="n2")
            _prove(connection, dialer, acceptor)
            sealed = bytearray(dialer.session.seal(MESSAGE + b"true"))
            sealed[3] ^= 1

            connection.send(struct.pack("<I", len(sealed)) + sealed)
            poll_until(lambda: is_closed(connection), acceptor)

            assert acceptor.links.counters["bad_frame"] == 1
            assert (acceptor.heard.frames, acceptor.heard.down) == ([], ["n1"])
    finally:
        acceptor.links.close()


def _prove(connection: socket.socket, dialer: Handshake, acceptor: End) -> None:
    hello, got = dialer.hello(), bytearray()
    connection.send(struct.pack("<I", len(hello)) + hello)

    def answered() -> bool:
        try:
            got.extend(connection.recv(4096))
        except BlockingIOError:
            return False
        return len(got) >= 4 and len(got) >= 4 + struct.unpack_from("<I", got)[0]

    poll_until(answered, acceptor)
    proof = dialer.receive(bytes(got[4:]))
    connection.send(struct.pack("<I", len(proof)) + proof)
    poll_until(lambda: bool(acceptor.heard.up), acceptor)


def test_a_newer_connection_takes_the_place_of_the_old_one() -> None:
    ports = dict(zip(("n1", "n2"), free_ports(2), strict=True))
    acceptor = End("n2", ports)
    try:
        with stranger(acceptor) as old, stranger(acceptor) as new:
            _prove(old, Handshake(SECRET, "n1", dials="n2"), acceptor)
            acceptor.heard.up.clear()

            _prove(new, Handshake(SECRET, "n1", dials="n2"), acceptor)
            poll_until(lambda: is_closed(old), acceptor)

            assert (acceptor.heard.down, acceptor.heard.up) == (["n1"], ["n1"])
    finally:
        acceptor.links.close()


def test_links_come_back_after_a_reset() -> None:
    with two() as (first, second):
        poll_until(lambda: first.heard.up and second.heard.up, first, second)

        second.links.drop("n1", "for the test")
        poll_until(lambda: len(first.heard.up) == len(second.heard.up) == 2, first, second)

        assert (first.heard.down, second.heard.down) == (["n2"], ["n1"])


def test_idle_links_stay_and_a_silent_peer_is_let_go() -> None:
    with two(silence_s=0.3) as (first, second):
        poll_until(lambda: first.heard.up and second.heard.up, first, second)
        idle_until = time.monotonic() + 0.8
        poll_until(lambda: time.monotonic() > idle_until, first, second)
        assert (first.heard.down, second.heard.down) == ([], [])

        poll_until(lambda: first.heard.down == ["n2"], first)  # the second is not polled: it says nothing


def test_a_peer_that_does_not_read_is_let_go_when_its_buffer_is_full() -> None:
    with two() as (first, second):
        poll_until(lambda: first.heard.up and second.heard.up, first, second)
        frame = bytes(8 * 1024 * 1024)

        taken = [first.links.send("n2", frame) for _ in range(12)]

        assert taken[0]
        assert not taken[-1]
        assert first.heard.down == ["n2"]


def test_connections_that_prove_nothing_are_few_and_short(monkeypatch) -> None:
    monkeypatch.setattr("coordination.log.transport.HANDSHAKE_S", 0.3)
    monkeypatch.setattr("coordination.log.transport.MAX_STRANGERS", 2)
    with two() as (first, _), stranger(first) as a, stranger(first) as b, stranger(first) as c:
        poll_until(lambda: is_closed(c), first)
        assert first.links.counters["too_many_strangers"] == 1

        poll_until(lambda: is_closed(a) and is_closed(b), first)


@pytest.mark.parametrize("address", ["nonsense", "a..b:7400", "127.0.0.1:99999", "127.0.0.1:²", ":7400"])
def test_an_address_that_can_be_none_is_noted_and_ends_nobody(address: str) -> None:
    # The smaller id dials, so this one is dialled.
    end = End("n1", {"n1": free_ports(1)[0]}, others=(Peer("n9", address),))
    try:
        poll_until(lambda: end.links.counters.get("unreachable", 0) >= 2, end)
    finally:
        end.links.close()


def test_a_short_secret_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="at least 16 characters"):
        End("n1", {"n1": 1, "n2": 2}, secret="short")
