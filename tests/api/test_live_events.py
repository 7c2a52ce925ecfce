"""Events as they happen: the socket and the stream, complete by their cursor."""

from __future__ import annotations

import asyncio
import json

import pytest
import urllib3
import websockets

from gaia_site.background import in_database
from gaia_site.keys import revoke_key


async def receive_until(socket, kind, subject):
    """The messages up to the event of that kind about that subject."""
    seen = []
    async with asyncio.timeout(15):
        while True:
            message = json.loads(await socket.recv())
            seen.append(message)
            event = message.get("event", {})
            if event.get("kind") == kind and event.get("subject") == subject:
                return seen


async def receive_all(socket):
    """Everything until the socket closes, which it raises."""
    while True:
        await socket.recv()


def connect(site, secret="agent", query=""):
    headers = {"Authorization": f"Bearer {site.secrets[secret]}"} if secret else {}
    return websockets.connect(
        site.url.replace("http", "ws") + f"/ws/coordination/{query}", additional_headers=headers
    )


async def register(site, name):
    return await asyncio.to_thread(site.session, name)


async def test_a_socket_says_hello_and_then_what_happens(site, name):
    session_name = name("s")

    async with connect(site) as socket:
        hello = json.loads(await socket.recv())
        await register(site, session_name)
        (event,) = [
            message
            for message in await receive_until(socket, "session_registered", session_name)
            if message.get("event", {}).get("subject") == session_name
        ]

    assert hello["type"] == "hello"
    assert hello["cursor"] >= 0
    assert "sessions_by_status" in hello["state"]
    assert event["type"] == "event"
    assert event["cursor"] == event["event"]["index"]


@pytest.mark.parametrize("parameter", ["after", "after_index"])
async def test_who_comes_back_with_a_cursor_misses_nothing_and_sees_nothing_twice(site, name, parameter):
    first, second = name("s"), name("s")
    async with connect(site) as socket:
        await register(site, first)
        cursor = (await receive_until(socket, "session_registered", first))[-1]["cursor"]

    await register(site, second)
    async with connect(site, query=f"?{parameter}={cursor}") as socket:
        seen = await receive_until(socket, "session_registered", second)

    subjects = [message["event"]["subject"] for message in seen if message["type"] == "event"]
    assert subjects.count(second) == 1
    assert first not in subjects


@pytest.mark.parametrize(
    ("secret", "query", "code"),
    [(None, "", 4401), ("teacher", "", 4403), ("agent", "?after=x", 4400), (None, "?key=gaia_x", 4401)],
)
async def test_who_may_not_listen_is_closed_with_the_reason(site, secret, query, code):
    async with connect(site, secret, query) as socket:
        with pytest.raises(websockets.ConnectionClosed) as caught:
            await asyncio.wait_for(socket.recv(), 10)

    assert caught.value.rcvd.code == code


async def test_an_address_without_a_socket_is_refused_and_a_slash_less_is_none(site):
    base = site.url.replace("http", "ws", 1)
    for address in ("/ws/classrooms/no-uuid/", "/ws/nothing", "/healthz"):
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with websockets.connect(base + address):
                pass
        assert refused.value.response.status_code == 403

    async with websockets.connect(f"{base}/ws/coordination?key={site.secrets['agent']}") as socket:
        assert json.loads(await asyncio.wait_for(socket.recv(), 10))["type"] == "hello"


async def test_a_revoked_key_loses_its_socket(site):
    key, secret = await in_database(site.passing_key, "agent")
    async with connect(site, None, f"?key={secret}") as socket:
        await socket.recv()
        await in_database(revoke_key, key)
        with pytest.raises(websockets.ConnectionClosed) as caught:
            await asyncio.wait_for(receive_all(socket), 15)

    assert caught.value.rcvd.code == 4401


def test_a_stream_goes_on_and_resumes_after_the_last_event_id(site, name):
    start = site.agent("GET", "events?limit=1&consistency=linearizable").index
    session_name = name("s")
    site.session(session_name)

    def stream(**headers):
        return urllib3.request(
            "GET",
            f"{site.url}/api/v1/events",
            headers={
                "Authorization": f"Bearer {site.secrets['agent']}",
                "Accept": "text/event-stream",
                **headers,
            },
            preload_content=False,
            timeout=urllib3.Timeout(connect=5, read=20),
            retries=False,
        )

    answer = stream(**{"Last-Event-ID": str(start)})
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    blocks = b""
    while session_name.encode() not in blocks:
        blocks += answer.read1(65536)
    answer.close()

    block = next(part for part in blocks.decode().split("\n\n") if session_name in part)
    fields = dict(line.split(": ", 1) for line in block.split("\n"))
    assert int(fields["id"]) > start
    assert fields["event"] == "session_registered"
    assert json.loads(fields["data"])["subject"] == session_name
