"""The kept connections to a node: reused while good, ended when in doubt, and honest about what may have happened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from coordination.errors import NotAvailable, OutcomeUnknown
from coordination.log import protocol
from coordination.log.links import Links
from tests.running import free_port

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter


class Node:
    """Answers each request with what `say` writes; counts connections and their ends."""

    def __init__(self, say: Callable[[Writer], Awaitable[None]]) -> None:
        self._say = say
        self.opened = 0
        self.asked, self.ended = asyncio.Event(), asyncio.Event()
        self.requests: list[bytes] = []

    async def serve(self, reader: Reader, writer: Writer) -> None:
        self.opened += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                self.asked.set()
                await self._say(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.ended.set()
            writer.close()


@asynccontextmanager
async def node(say: Callable[[Writer], Awaitable[None]]) -> AsyncIterator[tuple[Node, str, Links]]:
    """A node, its address, and links to it."""
    one, links = Node(say), Links()
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    try:
        yield one, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", links
    finally:
        links.close()
        server.close()


def saying(answer: bytes, *, pieces: int = 1) -> Callable[[Writer], Awaitable[None]]:
    async def say(writer: Writer) -> None:
        step = -(-len(answer) // pieces)
        for begin in range(0, len(answer), step):
            writer.write(answer[begin : begin + step])
            await writer.drain()
            await asyncio.sleep(0)

    return say


async def say_nothing(writer: Writer) -> None:
    await asyncio.sleep(60)


async def ask(links: Links, url: str, body: bytes = b"", timeout_s: float = 5.0) -> tuple[int, bytes]:
    return await links.ask(url, "POST", "/commands", "GAIA 1.x", body, timeout_s)


@pytest.mark.parametrize("pieces", [1, 7, len(GOOD)])
async def test_one_connection_serves_one_request_after_another(pieces: int) -> None:
    async with node(saying(GOOD, pieces=pieces)) as (one, url, links):
        for number in range(3):
            assert await ask(links, url, b"x" * number) == (200, b"ok")

    assert one.opened == 1
    assert one.requests[2].startswith(b"POST /commands HTTP/1.1\r\n")
    assert b"Authorization: GAIA 1.x\r\n" in one.requests[2]
    assert one.requests[2].endswith(b"\r\n\r\nxx")


async def test_requests_at_once_have_connections_of_their_own() -> None:
    async with node(saying(GOOD)) as (one, url, links):
        answers = await asyncio.gather(*(ask(links, url) for _ in range(5)))

    assert (answers, one.opened) == ([(200, b"ok")] * 5, 5)


async def test_a_node_that_is_not_there_has_applied_nothing() -> None:
    with pytest.raises(NotAvailable, match="cannot connect"):
        await ask(Links(), f"http://127.0.0.1:{free_port()}")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (protocol.BODY_BYTES_MAX + 1)
        + b"x" * (protocol.BODY_BYTES_MAX + 1),
    ],
    ids=["nothing", "half", "nonsense", "no length", "too much"],
)
async def test_an_answer_that_breaks_off_leaves_the_outcome_unknown(answer: bytes) -> None:
    async def say(writer: Writer) -> None:
        writer.write(answer)
        await writer.drain()
        raise ConnectionError

    async with node(say) as (one, url, links):
        for _ in range(2):
            with pytest.raises(OutcomeUnknown, match="no answer"):
                await ask(links, url)

    assert one.opened == 2


async def test_no_answer_in_time_is_unknown_and_ends_the_connection() -> None:
    async with node(say_nothing) as (_, url, links):
        with pytest.raises(OutcomeUnknown, match="TimeoutError"):
            await ask(links, url, timeout_s=0.1)


async def test_who_gives_up_ends_the_connection_so_that_the_node_sees_it() -> None:
    seen = asyncio.Event()

    async def wait(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        seen.set()
        assert await reader.read() == b""
        writer.close()
        ended.set()

    ended = asyncio.Event()
    server = await asyncio.start_server(wait, "127.0.0.1", 0)
    asking = asyncio.create_task(ask(Links(), f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    async with asyncio.timeout(5):
        await seen.wait()
        asking.cancel()
        await ended.wait()
    server.close()


async def test_words_without_a_question_are_never_an_answer() -> None:
    async with node(saying(GOOD + GOOD.replace(b"ok", b"no"))) as (one, url, links):
        for _ in range(3):
            assert await ask(links, url) == (200, b"ok")

    assert one.opened == 3


async def test_a_node_that_asks_to_close_is_asked_anew() -> None:
    closing = b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    async with node(saying(closing)) as (one, url, links):
        assert await ask(links, url) == (503, b"")
        assert await ask(links, url) == (503, b"")

    assert one.opened == 2


async def test_a_connection_the_node_ended_meanwhile_is_not_used() -> None:
    async def say(writer: Writer) -> None:
        writer.write(GOOD)
        await writer.drain()
        raise ConnectionError

    async with node(say) as (one, url, links):
        for _ in range(3):
            one.ended.clear()
            assert await ask(links, url) == (200, b"ok")
            await asyncio.wait_for(one.ended.wait(), 5)
            await asyncio.sleep(0.05)  # until its end has come over the wire

    assert one.opened == 3


async def test_closing_ends_what_is_on_its_way_as_unknown() -> None:
    async with node(say_nothing) as (one, url, links):
        asking = asyncio.create_task(ask(links, url))
        await asyncio.wait_for(one.asked.wait(), 5)
        links.close()
        with pytest.raises(OutcomeUnknown):
            await asking


async def test_a_node_that_hangs_is_left_where_another_can_be_asked() -> None:
    async with node(say_nothing) as (one, url, links):
        asked = [
            asyncio.create_task(links.ask(url, "POST", "/commands", "", b"x", 30.0, may_leave=True))
            for _ in range(5)
        ]
        async with asyncio.timeout(10.0):
            left = await asyncio.gather(*asked, return_exceptions=True)

    assert all(isinstance(failure, OutcomeUnknown) for failure in left)
    assert sum(request.startswith(b"GET /healthz") for request in one.requests) == 1  # one look for all


async def test_a_node_that_is_only_slow_is_waited_for() -> None:
    looked = asyncio.Event()

    async def say(writer: Writer) -> None:
        if one.requests[-1].startswith(b"GET"):
            looked.set()
        else:
            await looked.wait()
        writer.write(GOOD)

    async with node(say) as (one, url, links):
        assert await links.ask(url, "POST", "/commands", "", b"x", 30.0, may_leave=True) == (200, b"ok")
