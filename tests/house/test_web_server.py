"""What the web process bears from clients: slow ones, large ones, and such that say one thing and do another."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
import urllib3

from tests.running import free_port, status_of, wait_for

ROOT = Path(__file__).resolve().parents[2]
SERVER = """
    import socket
    import sys
    import uvloop
    from twisted.internet import asyncioreactor

    asyncioreactor.install(uvloop.new_event_loop())

    from gaia_site import web_server

    web_server.REQUEST_TIMEOUT_S = 1.0
    web_server.IDLE_TIMEOUT_S = 2.0
    web_server.LINGER_S = 0.5
    left = 0

    async def application(scope, receive, send):
        await {"http": http, "websocket": echo}[scope["type"]](scope, receive, send)

    async def http(scope, receive, send):
        global left
        body = b""
        if scope["path"] == "/refused":
            status = 413
        elif scope["path"] == "/left":
            status, body = 200, str(left).encode()
        else:
            status = 200
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    left += 1
                    return
                body += message["body"]
                more = message["more_body"]
            body = f"{len(body)} {scope['client'][0]} {scope['query_string'].decode()}".encode()
        if scope["path"] == "/headers":
            body = b",".join(name for name, _ in scope["headers"])
        if scope["path"] == "/wait":
            await receive()
            left += 1
            return
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def echo(scope, receive, send):
        global left
        await receive()
        if scope["path"] == "/no":
            await send({"type": "websocket.close", "code": 4403})
            return
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": scope["query_string"].decode() + " " + scope["client"][0]})
        while (message := await receive())["type"] == "websocket.receive":
            if message.get("text") == "end":
                await send({"type": "websocket.close", "code": 4403})
                return
            await send({"type": "websocket.send", "text": message.get("text")})
        left += 1

    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    web_server.WebServer(application, listener).run()
"""
HEAD = b"POST /any?q=1 HTTP/1.1\r\nHost: x\r\n"
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MTIzNDU2Nzg5MDEyMzQ1Ng==\r\n\r\n"
)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A web server of short patience; its application tells how long the body was."""
    folder = tmp_path_factory.mktemp("web")
    (folder / "server.py").write_text(textwrap.dedent(SERVER))
    number = free_port()
    process = subprocess.Popen(
        [sys.executable, "server.py", str(number)], cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    wait_for(lambda: status_of(f"http://127.0.0.1:{number}/") == 200, "the server", 30)
    yield number
    process.kill()
    process.wait()


def said(port: int, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """All that a server answers before it ends the connection."""
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        try:
            for part in parts:
                client.sendall(part)
                time.sleep(pause_s)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has ended the connection; what it said is read below
        answer = b""
        try:
            while chunk := client.recv(65536):
                answer += chunk
        except ConnectionResetError:
            pass
        return answer


def left(port: int) -> int:
    return int(urllib3.request("GET", f"http://127.0.0.1:{port}/left").data)


def test_a_body_is_streamed_and_counted(port: int) -> None:
    answer = urllib3.request("POST", f"http://127.0.0.1:{port}/any?q=1", body=b"x" * 3_000_000)

    assert answer.data == b"3000000 127.0.0.1 q=1"
    assert "date" in answer.headers
    assert "server" not in answer.headers


def test_a_chunked_body_is_one_body(port: int) -> None:
    answer = said(
        port, HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n", b"0\r\n\r\n"
    )

    assert answer.endswith(b"3 127.0.0.1 q=1")


@pytest.mark.parametrize(
    "more",
    [
        b"Content-Length: 3\r\nContent-Length: 4\r\n",
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 3x\r\n",
        b"No colon\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
    ],
)
def test_a_head_with_two_readings_is_refused_and_ends_the_connection(port: int, more: bytes) -> None:
    assert said(port, HEAD + more + b"\r\nabc").startswith(b"HTTP/1.1 400")


def test_a_head_beyond_the_bound_is_refused(port: int) -> None:
    for head in (
        HEAD + b"X: " + b"x" * 40_000 + b"\r\n\r\n",
        HEAD + b"".join(b"X%d: x\r\n" % number for number in range(1100)) + b"\r\n",
        b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\n\r\n",
    ):
        assert said(port, head).startswith(b"HTTP/1.1 400")


def test_a_head_without_an_end_is_not_kept(port: int) -> None:
    assert said(port, HEAD + b"X: ", *[b"x" * 20_000] * 20).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("begun", [b"", HEAD, HEAD + b"Content-Length: 10\r\n\r\n123"])
def test_who_does_not_finish_a_request_is_cut_off(port: int, begun: bytes) -> None:
    started_s = time.monotonic()

    assert said(port, begun) == b""
    assert 0.5 < time.monotonic() - started_s < 6


def test_drops_of_a_body_do_not_stretch_its_time(port: int) -> None:
    started_s = time.monotonic()

    said(port, HEAD + b"Content-Length: 100\r\n\r\n", *[b"x"] * 30, pause_s=0.1)

    assert time.monotonic() - started_s < 6


def test_the_rest_of_a_refused_body_is_not_read_for_ever(port: int) -> None:
    head = b"POST /refused HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"
    started_s = time.monotonic()

    answer = said(port, head, *[b"x" * 1000] * 100, pause_s=0.05)

    assert answer.startswith(b"HTTP/1.1 413")
    assert time.monotonic() - started_s < 8


def test_requests_sent_together_are_answered_in_order(port: int) -> None:
    one = b"POST /any?q=%d HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n%s\r\nx"

    answer = said(port, one % (1, b"") + one % (2, b"") + one % (3, b"Connection: close\r\n"))

    assert [answer.count(b"q=%d" % number) for number in (1, 2, 3)] == [1, 1, 1]
    assert answer.index(b"q=1") < answer.index(b"q=2") < answer.index(b"q=3")


def test_what_follows_a_body_is_no_header(port: int) -> None:
    head = HEAD.replace(b"/any", b"/headers") + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"

    answer = said(port, head + b"3\r\nabc\r\n0\r\nAuthorization: Bearer x\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"host,transfer-encoding,connection")


@pytest.mark.parametrize("next_one", [b"no request\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", UPGRADE])
def test_a_bad_request_behind_a_good_one_takes_no_answer_of_it(port: int, next_one: bytes) -> None:
    answer = said(port, HEAD + b"Content-Length: 3\r\n\r\nabc" + next_one)

    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"3 127.0.0.1 q=1")


def test_a_bad_body_is_refused_as_its_own_request(port: int) -> None:
    assert said(port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"zz\r\n").startswith(b"HTTP/1.1 400")


def test_the_application_learns_that_a_client_hung_up(port: int) -> None:
    before = left(port)
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.2)  # until it waits; nothing outside shows that moment

    wait_for(lambda: left(port) == before + 1, "the application to be told", 5)


@pytest.mark.parametrize("size", [1, 200, 70_000, 500_000])
async def test_a_socket_carries_messages_both_ways(port: int, size: int) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(f"http://127.0.0.1:{port}/?key=a%20b", max_msg_size=0) as link,
    ):
        assert await link.receive_str(timeout=5) == "key=a%20b 127.0.0.1"
        for text in ("é" * size, "x" * size):
            await link.send_str(text)
            assert await link.receive_str(timeout=5) == text
        await link.ping()
        await link.send_str("end")
        message = await link.receive(timeout=5)
        assert (message.type, link.close_code) == (aiohttp.WSMsgType.CLOSE, 4403)


async def test_a_message_beyond_the_bound_ends_the_socket(port: int) -> None:
    before = left(port)
    async with aiohttp.ClientSession() as http, http.ws_connect(f"http://127.0.0.1:{port}/") as link:
        await link.receive_str(timeout=5)
        await link.send_str("x" * 1_100_000)
        assert (await link.receive(timeout=5)).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)

    wait_for(lambda: left(port) == before + 1, "the application to be told", 10)


async def test_a_refused_socket_is_403(port: int) -> None:
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(f"http://127.0.0.1:{port}/no")

    assert refused.value.status == 403


async def test_a_socket_whose_client_vanishes_is_over_for_the_application(port: int) -> None:
    before = left(port)
    async with aiohttp.ClientSession() as http:
        link = await http.ws_connect(f"http://127.0.0.1:{port}/")
        await link.receive_str(timeout=5)
        link._response.connection.transport.abort()

    wait_for(lambda: left(port) == before + 1, "the application to be told", 10)


async def test_a_socket_outlives_the_deadlines_of_http(port: int) -> None:
    async with aiohttp.ClientSession() as http, http.ws_connect(f"http://127.0.0.1:{port}/") as link:
        await link.receive_str(timeout=5)
        with pytest.raises(TimeoutError):
            await link.receive(timeout=3)  # longer than every deadline above
        await link.send_str("still there")
        assert await link.receive_str(timeout=5) == "still there"
