"""A web process that is asked to end answers whom it began to answer."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

ROOT = Path(__file__).resolve().parents[2]
APPLICATION = """
    import asyncio
    from gaia_site.drain import Drain

    async def slow(scope, receive, send):
        if scope["type"] == "http":
            await asyncio.sleep(float(scope["query_string"] or 0))
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
            await send({"type": "http.response.body", "body": b"done"})

    application = Drain(slow)
    application.end_on_signals()
"""
OURS = """
    import socket
    import sys
    import uvloop
    from twisted.internet import asyncioreactor

    asyncioreactor.install(uvloop.new_event_loop())

    from slow_site import application
    from gaia_site.web_server import WebServer

    WebServer(application, socket.socket(fileno=int(sys.argv[2]))).run()
"""


@pytest.fixture(params=["our server", "daphne alone"])
def web(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server with an application whose answers take as many seconds as the query says."""
    (tmp_path / "slow_site.py").write_text(textwrap.dedent(APPLICATION))
    (tmp_path / "ours.py").write_text(textwrap.dedent(OURS))
    command = {
        "our server": ["ours.py"],
        "daphne alone": ["-m", "daphne", "-v", "0", "slow_site:application"],
    }[request.param]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        os.set_inheritable(listener.fileno(), True)
        process = subprocess.Popen(
            [sys.executable, *command, "--fd", str(listener.fileno())],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            pass_fds=[listener.fileno()],
        )
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert urllib3.request("GET", url, timeout=30.0).data == b"done"
        yield process, url
    if process.poll() is None:
        process.kill()
    process.wait()


def test_an_open_request_is_answered_before_it_ends(web: tuple[subprocess.Popen[bytes], str]) -> None:
    process, url = web
    answers: list[bytes] = []
    asking = threading.Thread(
        target=lambda: answers.append(urllib3.request("GET", f"{url}/?2", timeout=20.0, retries=False).data)
    )
    asking.start()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and urllib3.request("GET", f"{url}/?0", timeout=5.0).status != 200:
        time.sleep(0.02)

    process.send_signal(signal.SIGTERM)
    statuses = []
    while process.poll() is None and time.monotonic() < deadline:
        try:
            statuses.append(urllib3.request("GET", f"{url}/readyz", timeout=2.0, retries=False).status)
        except urllib3.exceptions.HTTPError:
            break
        time.sleep(0.05)
    asking.join(20)

    assert answers == [b"done"]
    assert 503 in statuses
    assert process.wait(10) == 0


def test_with_nothing_open_it_ends_at_once(web: tuple[subprocess.Popen[bytes], str]) -> None:
    process, _ = web
    began = time.monotonic()

    process.send_signal(signal.SIGTERM)

    assert process.wait(10) == 0
    assert time.monotonic() - began < 5


def test_asked_twice_it_waits_for_nobody(web: tuple[subprocess.Popen[bytes], str]) -> None:
    process, url = web
    address = url.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1]))) as client:
        client.sendall(b"GET /?60 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert urllib3.request("GET", f"{url}/?0", timeout=5.0).status == 200
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 8
        while process.poll() is None and time.monotonic() < deadline:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.2)

    assert process.poll() is not None
