"""A small real HTTP server that speaks the parts of the API an agent meets, and misbehaves on demand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import coordination

CLIENT = Path(coordination.__file__).parent / "agent" / "gaia_agent.py"

Reply = tuple[int, dict[str, str], Any]
GRANTED = {
    "session_name": "ann",
    "status": "idle",
    "lease_token": 7,
    "lease_expires_at": "2030-01-01T00:00:00Z",
    "heartbeat_interval_s": 0.15,
}
ALIVE = {"lease_expires_at": "2030-01-01T00:00:00Z", "status": "busy", "directives": []}


def problem(status: int, slug: str, **headers: str) -> Reply:
    body = {"type": slug, "title": slug, "status": status, "detail": f"{slug} it is"}
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, body


def task(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"t{number}",
        "task_type": "work",
        "task_data": {"n": number},
        "attempt": 1,
        "claim_token": 100 + number,
        "claim_expires_at": "2030-01-01T00:00:00Z",
        "lesson_id": None,
    } | more


class Request:
    """One request as it came in."""

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        self.verb = f"{handler.command} {handler.path.removeprefix('/api/v1/')}"
        self.headers = dict(handler.headers)
        raw = handler.rfile.read(length)
        self.body = json.loads(raw) if raw else None

    @property
    def key(self) -> str:
        return self.headers.get("Idempotency-Key", "")


class Server:
    """Answers from lists of replies by "METHOD path"; the last one is repeated, the rest of the API is 200 {}."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[Request] = []
        self._replies: dict[str, list[Reply | Callable[[Request], Reply]]] = {}
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                request = Request(self)
                status, headers, body = outer.reply_to(request)
                payload = json.dumps(body).encode() if not isinstance(body, bytes) else body
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            do_GET = do_POST = do_DELETE = handle_any  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def on(self, verb: str, *replies: Reply | dict[str, Any] | Callable[[Request], Reply]) -> Server:
        self._replies[verb] = [(200, {}, reply) if isinstance(reply, dict) else reply for reply in replies]
        return self

    def works(self, *tasks: dict[str, Any]) -> Server:
        """A server whose queue holds these tasks."""
        self.on("POST sessions", (201, {}, GRANTED))
        self.on("POST sessions/ann/heartbeat", ALIVE)
        claims: list[Any] = [{"tasks": [one]} for one in tasks]
        self.on("POST tasks/claim", *claims, self._nothing)
        for one in tasks:
            self.on(f"POST tasks/{one['id']}/fail", {"status": "pending", "retry_count": 1})
        return self

    @staticmethod
    def _nothing(request: Request) -> Reply:
        time.sleep(min(0.2, request.body["wait_s"]))
        return 200, {}, {"tasks": [], "reason": "nothing_pending"}

    def reply_to(self, request: Request) -> Reply:
        with self._lock:
            self.requests.append(request)
            replies = self._replies.get(request.verb, [(200, {}, {"status": "completed"})])
            reply = replies.pop(0) if len(replies) > 1 else replies[0]
        return reply(request) if callable(reply) else reply

    def heard(self, verb: str) -> list[Request]:
        with self._lock:
            return [request for request in self.requests if request.verb == verb]

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


class Agent:
    """The client as a program, against one server, with a memory of its own."""

    def __init__(self, url: str, folder: Path, *, name: str = "ann", key: str = "secret") -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "GAIA_URL": url,
            "GAIA_KEY": key,
            "GAIA_SESSION": name,
            "GAIA_STATE_DIR": str(folder / "state"),
        }

    def __call__(
        self, *words: str, given: str = "", timeout_s: float = 40.0
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(CLIENT), *words],
            env=self.environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def begin(self, *words: str) -> Running:
        return Running([sys.executable, str(CLIENT), *words], self.environment)

    def register(self) -> None:
        done = self("register")
        assert done.returncode == 0, done.stderr


class Running:
    """A client that was started and goes on."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def end(self, timeout_s: float = 20.0) -> tuple[int, str, str]:
        try:
            out, err = self.process.communicate(timeout=timeout_s)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.communicate()
        return self.process.returncode, out, err

    def events(self) -> list[dict[str, Any]]:
        """What a `run --json` told, once it has ended."""
        status, out, err = self.end()
        assert status == 0, (status, out, err)
        return [json.loads(line) for line in out.splitlines()]


def eventually(condition: Callable[[], Any], what: str, timeout_s: float = 15.0) -> Any:
    """The first true value of the condition; fails after the deadline."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {timeout_s} s: {what}")
