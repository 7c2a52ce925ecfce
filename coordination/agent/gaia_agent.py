#!/usr/bin/env python3
"""gaia-agent: an agent's side of GAIA in one file; Python 3.9 or newer on Linux or macOS, standard library only.

    gaia-agent register                       get a lease on a session name, or resume it
    gaia-agent run -- CMD [ARG…]              work: claim, run CMD for each task, report, again
    gaia-agent claim | complete | fail        the same steps by hand
    gaia-agent lock KEY -- CMD [ARG…]         run CMD while holding a lock
    gaia-agent lock acquire|renew|release KEY
    gaia-agent heartbeat | status | goodbye
    gaia-agent hook settings | EVENT          hooks of a coding assistant

Where and who: GAIA_URL and GAIA_KEY (a key with the scope agent), or --url and --key. The session's name is
--name, else GAIA_SESSION, else this host's. What must be known at the next call (lease and claim tokens) is
kept in GAIA_STATE_DIR, by default ~/.local/state/gaia-agent, readable by its owner only.

`run` gives CMD the task as JSON on its standard input, and in its environment GAIA_TASK_ID, GAIA_TASK_TYPE,
GAIA_TASK_ATTEMPT, GAIA_CLAIM_TOKEN, GAIA_LESSON_ID, GAIA_SESSION and GAIA_PROGRESS_FILE, to which it may write
lines such as "40 half of it is done". Exit status 0 completes the task: what CMD wrote to standard output is
the result, as JSON if it parses, else as {"output": the end of it}. Exit status 100 fails it for good, any
other fails it with a retry. On SIGTERM or SIGINT `run` claims no more, lets running tasks finish for
--drain-s seconds, stops what is left, hands it back, and says goodbye; a second signal does not wait.

Calls are repeated with the same Idempotency-Key while the server cannot be reached or says "later", for
--retry-s seconds. With --json every command prints JSON (`run`: one object a line).

Exit status: 0 done · 1 something unexpected · 2 wrong usage · 3 nothing to claim · 4 refused: name or lock is
taken, or the state forbids it · 5 lease or token is no longer valid · 6 key missing, wrong or without the scope ·
7 server not reached in time · 8 no such thing · 9 the server finds the values invalid. `lock KEY -- CMD` exits
with CMD's status, or 5 if the lock was lost while it ran.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

VERSION = "1"

DONE, UNEXPECTED, USAGE, NOTHING, REFUSED, STALE, DENIED, UNREACHED, MISSING, INVALID = range(10)
PERMANENT_FAILURE = 100  # CMD's way to say that another attempt is of no use

CALL_TIMEOUT_S = 30.0
BACKOFF_FIRST_S = 0.2
BACKOFF_MOST_S = 15.0
SERVER_ERRORS_MOST = 3  # a 500 may be a bug: repeating it for a minute helps nobody
LATER = (429, 502, 503, 504)
OUTPUT_BYTES_MOST = 4 * 2**20  # of a command's standard output, the end of it
TEXT_RESULT_MOST = 64_000  # characters
ERROR_TEXT_MOST = 4_000
LONG_POLL_S = 20.0
HOOK_RETRY_S = 3.0


class AgentError(Exception):
    """Why a command ends without success; `code` is the exit status."""

    def __init__(self, code: int, detail: str, *, slug: str = "", status: int = 0, body: Any = None) -> None:
        super().__init__(detail)
        self.code = code
        self.slug = slug
        self.status = status
        self.body = body

    def as_json(self) -> dict[str, Any]:
        """The error for --json."""
        told = {"type": self.slug, "status": self.status, "detail": str(self), "exit": self.code}
        return {"error": told, "problem": self.body}


# Calls ---------------------------------------------------------------------------------------------------


class Client:
    """JSON over HTTP with the manners the API asks for: keys for writes, patience, one deadline."""

    def __init__(self, url: str, key: str, *, retry_s: float, log: Callable[..., None]) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise AgentError(USAGE, f"GAIA_URL must be http://… or https://…, not {url!r}")
        self.url = url.rstrip("/")
        self._parts = parts
        self._host = parts.hostname
        self._key = key
        self._retry_s = retry_s
        self._log = log

    def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        retry_s: float | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
        stop: Callable[[], bool] = lambda: False,
    ) -> dict[str, Any]:
        """The answer's JSON object; raises AgentError for a refusal, and when the patience is over.

        A write carries one Idempotency-Key through all its repetitions, so it is done once.
        """
        headers = {"Accept": "application/json", "User-Agent": f"gaia-agent/{VERSION}"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        if method != "GET":
            headers["Idempotency-Key"] = uuid.uuid4().hex
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            headers["Content-Type"] = "application/json"
        patience = Patience(self._retry_s if retry_s is None else retry_s)
        while True:
            try:
                status, retry_after_s, answer = self._once(method, path, data, headers, timeout_s)
            except (OSError, http.client.HTTPException) as error:
                problem, retry_after_s = AgentError(UNREACHED, f"{self.url} was not reached: {error}"), 0.0
            else:
                if status < 400:
                    return answer
                problem = _refusal(status, answer)
                if status not in LATER and not (status >= 500 and patience.tries < SERVER_ERRORS_MOST):
                    raise problem
            pause_s = patience.next_pause_s(retry_after_s)
            if pause_s is None or stop():
                raise problem
            self._log("retrying", pause_s=round(pause_s, 2), reason=str(problem))
            _sleep(pause_s, stop)

    def _once(
        self, method: str, path: str, data: bytes | None, headers: dict[str, str], timeout_s: float
    ) -> tuple[int, float, dict[str, Any]]:
        is_tls = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if is_tls else http.client.HTTPConnection
        connection = kind(self._host, self._parts.port, timeout=timeout_s)
        try:
            connection.request(method, f"{self._parts.path.rstrip('/')}/api/v1/{path}", data, headers)
            answer = connection.getresponse()
            raw = answer.read()
            return answer.status, _seconds(answer.getheader("Retry-After")), _json_object(raw)
        finally:
            connection.close()


def _sleep(pause_s: float, stop: Callable[[], bool]) -> None:
    until = time.monotonic() + pause_s
    while not stop() and (left_s := until - time.monotonic()) > 0:
        time.sleep(min(0.1, left_s))


class Patience:
    """How long to wait before the next try: exponential with full jitter, within one deadline.

    A server's Retry-After is a lower bound.
    """

    def __init__(self, retry_s: float) -> None:
        self._until = time.monotonic() + retry_s
        self.tries = 0

    def next_pause_s(self, retry_after_s: float) -> float | None:
        """None where the deadline would pass."""
        ceiling = min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2**self.tries)
        self.tries += 1
        pause_s = max(retry_after_s, random.uniform(0, ceiling))
        return pause_s if time.monotonic() + pause_s <= self._until else None


def _refusal(status: int, body: dict[str, Any]) -> AgentError:
    slug = str(body.get("type", ""))
    codes = {400: INVALID, 401: DENIED, 403: DENIED, 404: MISSING, 409: REFUSED, 412: STALE, 422: INVALID}
    code = UNREACHED if status in LATER else codes.get(status, INVALID if status < 500 else UNEXPECTED)
    if slug == "lease-expired":
        code = STALE
    detail = str(body.get("detail") or body.get("title") or f"HTTP {status}")
    errors = body.get("errors") or []
    if errors:
        told = [
            f"{'.'.join(str(part) for part in one.get('loc', ()))}: {one.get('msg', '')}" for one in errors
        ]
        detail = f"{detail} ({'; '.join(told)})"
    return AgentError(code, detail, slug=slug, status=status, body=body)


def _seconds(header: str | None) -> float:
    try:
        return max(0.0, float(header or 0))
    except ValueError:  # an HTTP date; the backoff will do
        return 0.0


def _json_object(raw: bytes) -> dict[str, Any]:
    """The object these bytes are; what is none (a proxy's page) becomes the detail of one."""
    try:
        found = json.loads(raw) if raw else {}
    except ValueError:
        found = raw.decode("utf-8", "replace")[:500]
    return found if isinstance(found, dict) else {"detail": found}


def _in_path(name: str) -> str:
    return urllib.parse.quote(name, safe="/:._-")


# What is remembered between calls ------------------------------------------------------------------------


class Memory:
    """One session's tokens in a file of its own, for its owner's eyes only."""

    def __init__(self, folder: Path, url: str, name: str) -> None:
        self.path = folder / f"{hashlib.sha256(f'{url} {name}'.encode()).hexdigest()[:24]}.json"

    def read(self) -> dict[str, Any]:
        """What is remembered; nothing where there is no file, or a damaged one."""
        try:
            kept = json.loads(self.path.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return kept if isinstance(kept, dict) else {}

    def change(self, **values: Any) -> None:
        """Replace some values."""
        with self._alone():
            self._write({**self.read(), **values})

    def add_claims(self, tasks: list[dict[str, Any]]) -> None:
        """Remember the tokens of these tasks."""
        with self._alone():
            kept = self.read()
            tokens = {str(task["id"]): task["claim_token"] for task in tasks}
            self._write({**kept, "claims": {**kept.get("claims", {}), **tokens}})

    def forget_claim(self, task_id: str) -> None:
        """The claim is over, however it ended."""
        with self._alone():
            kept = self.read()
            if kept.get("claims", {}).pop(task_id, None) is not None:
                self._write(kept)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """No other thread or process changes the file meanwhile: hooks may run beside a command."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.path.with_suffix(".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _write(self, kept: dict[str, Any]) -> None:
        """Written beside and renamed, so the file is never half there; only its owner may read it."""
        handle, temporary = tempfile.mkstemp(dir=str(self.path.parent), prefix=".state-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(kept, file)
        Path(temporary).replace(self.path)

    def forget(self) -> None:
        """Remove the file."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


# One session ---------------------------------------------------------------------------------------------


class Session:
    """The verbs of one session, with the tokens they need."""

    def __init__(self, client: Client, memory: Memory, name: str) -> None:
        self.client = client
        self.memory = memory
        self.name = name

    @property
    def lease_token(self) -> int:
        """The token of the lease that was granted last; raises where none was."""
        token = self.memory.read().get("lease_token")
        if not token:
            raise AgentError(USAGE, f"session {self.name} has no lease here; run `gaia-agent register` first")
        return int(token)

    def register(self, options: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Get a lease, or resume the one this machine remembers."""
        kept = self.memory.read()
        body = {"session_name": self.name, **options}
        if kept.get("lease_token"):
            body["lease_token"] = kept["lease_token"]
        granted = self.client("POST", "sessions", body, **more)
        is_same = granted["lease_token"] == kept.get("lease_token")
        self.memory.change(
            session_name=self.name,
            lease_token=granted["lease_token"],
            heartbeat_interval_s=granted["heartbeat_interval_s"],
            claims=kept.get("claims", {}) if is_same else {},
            options=options,
            beat_at=time.time(),
        )
        return granted

    def heartbeat(self, progress: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """Renew the lease; the answer says what to do."""
        body = {"lease_token": self.lease_token, "progress": progress}
        answer = self.client("POST", f"sessions/{_in_path(self.name)}/heartbeat", body, **more)
        self.memory.change(beat_at=time.time())
        return answer

    def claim(self, most: int, wait_s: float, task_types: list[str], **more: Any) -> dict[str, Any]:
        """Claim up to so many tasks, waiting for the first; the answer has `tasks`, and a `reason` if none."""
        body = {"session_name": self.name, "lease_token": self.lease_token, "max": most, "wait_s": wait_s}
        if task_types:
            body["task_types"] = task_types
        answer = self.client("POST", "tasks/claim", body, timeout_s=wait_s + CALL_TIMEOUT_S, **more)
        if answer["tasks"]:
            self.memory.add_claims(answer["tasks"])
        return answer

    def claim_token(self, task_id: str, given: int | None) -> int:
        """The token given, else the one remembered."""
        token = given or self.memory.read().get("claims", {}).get(task_id)
        if not token:
            raise AgentError(USAGE, f"no claim on task {task_id} is known here; give its --token")
        return int(token)

    def complete(self, task_id: str, token: int, result: Any, **more: Any) -> dict[str, Any]:
        """Report a task as done."""
        body = {"claim_token": token, "result": result}
        return self._finish(task_id, "complete", body, **more)

    def fail(self, task_id: str, token: int, error: str, *, retryable: bool, **more: Any) -> dict[str, Any]:
        """Report a task as failed."""
        body = {"claim_token": token, "error_message": error[:ERROR_TEXT_MOST], "retryable": retryable}
        return self._finish(task_id, "fail", body, **more)

    def _finish(self, task_id: str, verb: str, body: dict[str, Any], **more: Any) -> dict[str, Any]:
        try:
            answer = self.client("POST", f"tasks/{_in_path(task_id)}/{verb}", body, **more)
        except AgentError as error:
            if error.code in (STALE, MISSING):
                self.memory.forget_claim(task_id)
            raise
        self.memory.forget_claim(task_id)
        return answer

    def goodbye(self, **more: Any) -> dict[str, Any]:
        """Leave: claims go back to the queue."""
        body = {"lease_token": self.lease_token}
        answer = self.client("DELETE", f"sessions/{_in_path(self.name)}", body, **more)
        self.memory.forget()
        return answer


# Commands run for a task or a lock -----------------------------------------------------------------------


class Child:
    """A command in a process group of its own, so that all of it can be stopped."""

    def __init__(self, command: list[str], environment: dict[str, str], given: bytes | None) -> None:
        capture = given is not None
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if capture else None,
            stdout=subprocess.PIPE if capture else None,
            stderr=subprocess.PIPE if capture else None,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        self._out = Tail(OUTPUT_BYTES_MOST)
        self._err = Tail(ERROR_TEXT_MOST)
        self._threads: list[threading.Thread] = []
        if capture:
            self._begin(self._write, given)
            self._begin(self._read, self._process.stdout, self._out, None)
            self._begin(self._read, self._process.stderr, self._err, sys.stderr)

    @property
    def output(self) -> bytes:
        """The end of its standard output."""
        return self._out.content

    @property
    def errors(self) -> str:
        """The end of its standard error."""
        return self._err.content.decode("utf-8", "replace").strip()

    def wait(self, timeout_s: float) -> int | None:
        """Its exit status, negative for a signal; None if it still runs. What it left running is stopped."""
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        self._signal(signal.SIGKILL)
        for thread in self._threads:
            thread.join(5.0)
        return status

    def stop(self, grace_s: float) -> None:
        """Ask the whole group to end, and end it when the grace is over."""
        self._signal(signal.SIGTERM)
        if self.wait(grace_s) is None:
            self._signal(signal.SIGKILL)
            self.wait(5.0)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _begin(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _write(self, given: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError), self._process.stdin as stdin:  # it need not read
            stdin.write(given)

    def _read(self, stream: Any, tail: Tail, echo: Any) -> None:
        for chunk in iter(lambda: os.read(stream.fileno(), 65_536), b""):
            tail.add(chunk)
            if echo is not None:
                echo.write(chunk.decode("utf-8", "replace"))
                echo.flush()
        stream.close()


class Tail:
    """The last bytes of a stream."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._chunks: deque[bytes] = deque()
        self._size = 0

    def add(self, chunk: bytes) -> None:
        """Take a chunk, and let go of what is too much."""
        self._chunks.append(chunk)
        self._size += len(chunk)
        while self._size - len(self._chunks[0]) >= self._most:
            self._size -= len(self._chunks.popleft())

    @property
    def content(self) -> bytes:
        """At most the last so many bytes."""
        return b"".join(self._chunks)[-self._most :]


def result_of(output: bytes) -> Any:
    """A command's output as a task's result: the JSON it is, else the end of the text."""
    text = output.decode("utf-8", "replace")
    try:
        return json.loads(text)
    except ValueError:
        return {"output": text[-TEXT_RESULT_MOST:]}


# The worker loop -----------------------------------------------------------------------------------------


class Work:
    """One claimed task in the making."""

    def __init__(self, task: dict[str, Any], folder: Path) -> None:
        self.task = task
        self.id = str(task["id"])
        self.token = int(task["claim_token"])
        self.cancelled = threading.Event()  # the claim is void: stop, and report nothing
        self.child: Child | None = None
        self._progress_path = folder / f"{self.id}-{self.token}.progress"

    def environment(self, session_name: str) -> dict[str, str]:
        """What the command is told."""
        return {
            "GAIA_TASK_ID": self.id,
            "GAIA_TASK_TYPE": str(self.task["task_type"]),
            "GAIA_TASK_ATTEMPT": str(self.task["attempt"]),
            "GAIA_CLAIM_TOKEN": str(self.token),
            "GAIA_LESSON_ID": str(self.task.get("lesson_id") or ""),
            "GAIA_SESSION": session_name,
            "GAIA_PROGRESS_FILE": str(self._progress_path),
        }

    def progress(self) -> dict[str, Any]:
        """The last line of the progress file, as a heartbeat carries it."""
        found = {"task_id": self.id, "claim_token": self.token}
        with contextlib.suppress(OSError):
            lines = self._progress_path.read_text("utf-8", "replace").split("\n")
            last = next((line for line in reversed(lines) if line.strip()), "")
            matched = re.match(r"\s*(\d{1,3})%?\s*(.*)", last)
            if matched:
                found["percent"] = min(100, int(matched.group(1)))
                found["note"] = matched.group(2).strip()[:255]
        return found

    def forget_progress(self) -> None:
        """Remove the progress file."""
        with contextlib.suppress(FileNotFoundError):
            self._progress_path.unlink()


class Worker:
    """Claims tasks and runs a command for each until there is a reason to end.

    Threads: one for each task that may run at once, one for the heartbeat; the main thread waits, for
    signals come to it alone.
    """

    def __init__(self, session: Session, arguments: argparse.Namespace, tell: Callable[..., None]) -> None:
        self._session = session
        self._arguments = arguments
        self._tell = tell
        self._lock = threading.Lock()
        self._leasing = threading.Lock()
        self._running: dict[str, Work] = {}
        self._claiming_stops = threading.Event()
        self._everything_stops = threading.Event()
        self._stood_down = threading.Event()  # paused or failed: wait for the word to go on
        self._left = arguments.max_tasks or None
        self._idle_since = time.monotonic()
        self._signals = 0
        self._fatal: AgentError | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="gaia-agent-"))
        self._interval_s = 10.0

    def run(self) -> int:
        """Work until told or until there is no more; answer the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self._register()
        self._idle_since = time.monotonic()
        threads = [
            threading.Thread(target=self._claim_and_work, daemon=True)
            for _ in range(self._arguments.parallel)
        ]
        beat = threading.Thread(target=self._keep_alive, daemon=True)
        for thread in [*threads, beat]:
            thread.start()
        try:
            self._wait_for_the_end(threads)
        finally:
            self._end()
        if self._fatal is not None:
            raise self._fatal
        return DONE

    def _register(self) -> None:
        options = {**session_options(self._arguments), "max_concurrent_tasks": self._arguments.parallel}
        granted = self._session.register(options, stop=self._everything_stops.is_set)
        self._interval_s = float(granted["heartbeat_interval_s"])
        self._tell("registered", session=granted["session_name"], lease_token=granted["lease_token"])
        self._follow(granted["status"], [])

    def _on_signal(self, number: int, frame: Any) -> None:
        self._signals += 1
        self._claiming_stops.set()
        if self._signals > 1:
            self._everything_stops.set()

    def _wait_for_the_end(self, threads: list[threading.Thread]) -> None:
        stop_at: float | None = None
        while not self._everything_stops.is_set():
            if self._claiming_stops.is_set():
                # A claim thread may hang in its long poll: only running tasks are waited for.
                if not self._running:
                    return
                stop_at = stop_at or time.monotonic() + self._arguments.drain_s
                if self._signals and time.monotonic() >= stop_at:
                    return
            elif not any(thread.is_alive() for thread in threads):
                return
            elif self._is_idle_for_long():
                self._tell("idle")
                self._claiming_stops.set()
            time.sleep(0.05)

    def _is_idle_for_long(self) -> bool:
        most_s = self._arguments.idle_exit
        return most_s is not None and not self._running and time.monotonic() - self._idle_since >= most_s

    def _end(self) -> None:
        """Stop what runs, hand it back, say goodbye."""
        self._claiming_stops.set()
        self._everything_stops.set()
        with self._lock:
            left = list(self._running.values())
        for work in left:
            work.cancelled.set()
            if work.child is not None:
                work.child.stop(self._arguments.grace_s)
            self._tell("handed_back", task=work.id)
        try:
            self._session.goodbye(retry_s=min(5.0, self._arguments.retry_s))
            self._tell("goodbye", session=self._session.name)
        except AgentError as error:
            self._tell("goodbye_failed", reason=str(error))  # the lease will run out
        for path in self._folder.glob("*"):
            path.unlink()
        self._folder.rmdir()

    # Claiming and working

    def _claim_and_work(self) -> None:
        while not self._claiming_stops.is_set() and self._reserve():
            task = self._next_task()
            if task is None:
                self._give_back_reservation()
                continue
            if self._claiming_stops.is_set():
                return  # it came too late; the goodbye hands it back
            self._work_on(Work(task, self._folder))

    def _reserve(self) -> bool:
        """Take one of the tasks that --max-tasks allows."""
        with self._lock:
            if self._left is None:
                return True
            if self._left == 0:
                return False
            self._left -= 1
            return True

    def _give_back_reservation(self) -> None:
        with self._lock:
            if self._left is not None:
                self._left += 1

    def _next_task(self) -> dict[str, Any] | None:
        """One claimed task, or None after a while without."""
        if self._stood_down.is_set():
            self._claiming_stops.wait(0.5)
            return None
        wait_s = LONG_POLL_S
        if self._arguments.idle_exit is not None:
            wait_s = min(wait_s, self._arguments.idle_exit)
        lease_token = self._session.lease_token
        try:
            answer = self._session.claim(
                1, wait_s, self._arguments.task_type, stop=self._claiming_stops.is_set
            )
        except AgentError as error:
            self._on_trouble(error, lease_token)
            return None
        tasks = answer["tasks"]
        if not tasks and answer.get("reason") not in (None, "", "nothing_pending"):
            self._claiming_stops.wait(
                1.0
            )  # paused, full, outside its hours: it would be told so at once again
        return tasks[0] if tasks else None

    def _on_trouble(self, error: AgentError, lease_token: int) -> None:
        """A claim or heartbeat with this token was refused: begin again where that helps, else end."""
        if self._claiming_stops.is_set():
            return
        if error.code == UNREACHED:
            self._tell("unreached", reason=str(error))
        elif error.code in (STALE, MISSING):
            self._lose_lease(error, lease_token)
        else:
            self._fatal = error
            self._claiming_stops.set()

    def _lose_lease(self, error: AgentError, lease_token: int) -> None:
        """The lease is over, and with it every claim: stop their work and register anew.

        The thread that notices second finds a newer token, and nothing to do.
        """
        with self._leasing:
            if self._session.lease_token != lease_token:
                return
            self._tell("lease_lost", reason=str(error))
            with self._lock:
                for work in self._running.values():
                    work.cancelled.set()
            try:
                self._register()
            except AgentError as refused:
                if refused.code != UNREACHED:
                    self._fatal = refused
                    self._claiming_stops.set()

    def _work_on(self, work: Work) -> None:
        with self._lock:
            self._running[work.id] = work
        self._tell("claimed", task=work.id, type=work.task["task_type"], attempt=work.task["attempt"])
        try:
            self._run_command(work)
        except AgentError as error:
            self._session.memory.forget_claim(work.id)
            self._tell("report_refused", task=work.id, reason=str(error))
        finally:
            work.forget_progress()
            with self._lock:
                self._running.pop(work.id, None)
                self._idle_since = time.monotonic()

    def _run_command(self, work: Work) -> None:
        self._session.client("POST", f"tasks/{work.id}/start", {"claim_token": work.token})
        given = json.dumps(work.task).encode()
        try:
            work.child = Child(self._arguments.command, work.environment(self._session.name), given)
        except OSError as error:
            self._session.fail(
                work.id, work.token, f"cannot run {self._arguments.command[0]}: {error}", retryable=False
            )
            self._fatal = AgentError(USAGE, f"cannot run {self._arguments.command[0]}: {error}")
            self._claiming_stops.set()
            return
        status = None
        while status is None and not work.cancelled.is_set():
            status = work.child.wait(0.1)
        if status is None or work.cancelled.is_set():
            work.child.stop(self._arguments.grace_s)
            self._session.memory.forget_claim(work.id)
            if not self._everything_stops.is_set():  # else it is told as handed back, once
                self._tell("stopped", task=work.id)
            return
        self._report(work, status)

    def _report(self, work: Work, status: int) -> None:
        assert work.child is not None
        if status == 0:
            result = result_of(work.child.output)
            try:
                self._session.complete(work.id, work.token, result)
            except AgentError as error:
                if error.code != INVALID:
                    raise
                reason = f"the result was refused: {error}"
                answer = self._session.fail(work.id, work.token, reason, retryable=False)
                self._tell("failed", task=work.id, status=answer["status"], reason=str(error))
                return
            self._tell("completed", task=work.id)
            return
        reason = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        error_text = f"{reason}: {work.child.errors}" if work.child.errors else reason
        answer = self._session.fail(work.id, work.token, error_text, retryable=status != PERMANENT_FAILURE)
        self._tell("failed", task=work.id, status=answer["status"], reason=reason)

    # Staying alive

    def _keep_alive(self) -> None:
        while not self._everything_stops.wait(self._interval_s):
            with self._lock:
                progress = [work.progress() for work in self._running.values()]
            lease_token = self._session.lease_token
            try:
                answer = self._session.heartbeat(
                    progress, retry_s=self._interval_s / 2, timeout_s=self._interval_s
                )
            except AgentError as error:
                self._on_trouble(error, lease_token)
            else:
                self._follow(answer["status"], answer["directives"])

    def _follow(self, status: str, directives: list[dict[str, Any]]) -> None:
        """Do what a heartbeat's answer says; the status says it as well, and for as long as it holds."""
        if status in ("paused", "failed") and not self._stood_down.is_set():
            self._stood_down.set()
            self._tell("paused", status=status)
        if status in ("idle", "busy") and self._stood_down.is_set():
            self._stood_down.clear()
            self._tell("resumed")
        if status == "draining" and not self._claiming_stops.is_set():
            self._tell("draining")
            self._claiming_stops.set()
        for directive in directives:
            if directive["kind"] == "cancel_task":
                self._cancel(directive)

    def _cancel(self, directive: dict[str, Any]) -> None:
        with self._lock:
            work = self._running.get(str(directive.get("task_id")))
        if work is not None and directive.get("claim_token") in (None, work.token):
            self._tell("cancelled", task=work.id, reason=directive.get("reason", ""))
            work.cancelled.set()


# Locks ---------------------------------------------------------------------------------------------------


class HeldLock:
    """A lock held while a command runs, renewed by a thread."""

    def __init__(self, client: Client, key: str, owner: str, ttl_s: float) -> None:
        self._client = client
        self._path = f"locks/{_in_path(key)}"
        self._owner = owner
        self._ttl_s = ttl_s
        self.fencing_token = 0
        self.is_lost = threading.Event()
        self._is_over = threading.Event()

    def acquire(self, wait_s: float) -> None:
        """Take it, queueing up to so long; the server's own wait ends earlier, so ask again."""
        until = time.monotonic() + wait_s
        while True:
            turn_s = max(0.0, min(LONG_POLL_S, until - time.monotonic()))
            body = {"owner_id": self._owner, "ttl_s": self._ttl_s, "wait_s": turn_s}
            try:
                held = self._client("POST", f"{self._path}/acquire", body, timeout_s=turn_s + CALL_TIMEOUT_S)
            except AgentError as error:
                if error.code != REFUSED or time.monotonic() >= until:
                    raise
                continue
            self.fencing_token = held["fencing_token"]
            threading.Thread(target=self._keep, daemon=True).start()
            return

    def release(self) -> None:
        """Give it back; where that fails its time will run out."""
        self._is_over.set()
        with contextlib.suppress(AgentError):
            self._client("POST", f"{self._path}/release", self._proof(), retry_s=5.0)

    def _proof(self) -> dict[str, Any]:
        return {"owner_id": self._owner, "fencing_token": self.fencing_token}

    def _keep(self) -> None:
        """Renew three times in its time; without success for all of it, it counts as lost."""
        safe_until = time.monotonic() + self._ttl_s
        while not self._is_over.wait(self._ttl_s / 3):
            begun = time.monotonic()
            try:
                body = {**self._proof(), "ttl_s": self._ttl_s}
                self._client("POST", f"{self._path}/renew", body, retry_s=0.0, timeout_s=self._ttl_s / 3)
                safe_until = begun + self._ttl_s
            except AgentError as error:
                if error.code != UNREACHED or time.monotonic() + self._ttl_s / 3 >= safe_until:
                    self.is_lost.set()
                    return


def run_locked(client: Client, arguments: argparse.Namespace, tell: Callable[..., None]) -> int:
    """Run a command while holding a lock; its exit status, or STALE where the lock was lost meanwhile."""
    lock = HeldLock(client, arguments.lock_key, arguments.owner, arguments.ttl)
    lock.acquire(arguments.wait)
    tell("acquired", lock=arguments.lock_key, fencing_token=lock.fencing_token)
    environment = {"GAIA_LOCK_KEY": arguments.lock_key, "GAIA_FENCING_TOKEN": str(lock.fencing_token)}
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    try:
        child = Child(arguments.command, environment, None)
    except OSError as error:
        lock.release()
        raise AgentError(USAGE, f"cannot run {arguments.command[0]}: {error}") from error
    status = None
    while status is None:
        status = child.wait(0.1)
        if status is None and (lock.is_lost.is_set() or stopped.is_set()):
            child.stop(arguments.grace_s)
            break
    lock.release()
    if lock.is_lost.is_set():
        raise AgentError(STALE, f"lock {arguments.lock_key} was lost while the command ran")
    if status is None:
        return 128 + signal.SIGTERM
    return status if status >= 0 else 128 - status


# Hooks ---------------------------------------------------------------------------------------------------

HOOK_EVENTS = ("SessionStart", "PostToolUse", "Stop", "SessionEnd")


def hook_settings(command: str) -> dict[str, Any]:
    """The part of a settings file that calls this program at each event."""
    return {
        "hooks": {
            event: [{"hooks": [{"type": "command", "command": f"{command} hook {event}", "timeout": 10}]}]
            for event in HOOK_EVENTS
        }
    }


def on_hook(session: Session, event: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Register at the start, live while tools are used, complete at a stop, leave at the end."""
    kept = session.memory.read()
    if event == "SessionStart":
        granted = session.register(session_options(arguments))
        return {"registered": granted["session_name"]}
    if event == "SessionEnd":
        return {"left": session.goodbye()} if kept.get("lease_token") else {}
    if not kept.get("lease_token"):
        session.register(session_options(arguments))
    claims = kept.get("claims", {})
    if event == "Stop":
        return {
            "completed": [task_id for task_id, token in claims.items() if _completed(session, task_id, token)]
        }
    if time.time() - kept.get("beat_at", 0) < kept.get("heartbeat_interval_s", 10) / 2:
        return {}  # tools are used more often than leases need renewal
    progress = [{"task_id": task_id, "claim_token": token} for task_id, token in claims.items()]
    try:
        return session.heartbeat(progress)
    except AgentError as error:
        if error.code != STALE:
            raise
        session.register(session_options(arguments))
        return {"registered": session.name}


def _completed(session: Session, task_id: str, token: int) -> bool:
    """Whether a claim could be completed; one that is void is forgotten and no reason to stop at."""
    try:
        session.complete(task_id, token, {"completed_by": "hook"})
    except AgentError as error:
        if error.code not in (STALE, MISSING):
            raise
        return False
    return True


# The command line ----------------------------------------------------------------------------------------


def session_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What a registration says of the session."""
    options: dict[str, Any] = {
        "tier": arguments.tier,
        "provider": arguments.provider,
        "max_concurrent_tasks": arguments.max_concurrent,
        "capabilities": arguments.capability,
    }
    if arguments.lesson:
        options["lesson_id"] = arguments.lesson
    if arguments.metadata:
        options["metadata"] = _parsed_json(arguments.metadata, "--metadata")
    return options


def _parsed_json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise AgentError(USAGE, f"{what} must be JSON: {error}") from error


def build_parser() -> argparse.ArgumentParser:
    """The command line, as the module's text describes it."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--url", default=os.environ.get("GAIA_URL", ""), help="default: GAIA_URL")
    shared.add_argument(
        "--key", default=os.environ.get("GAIA_KEY", ""), help="default: GAIA_KEY (safer: not in ps)"
    )
    shared.add_argument("--name", default=os.environ.get("GAIA_SESSION", ""), help="the session's name")
    shared.add_argument("--json", action="store_true", help="print JSON")
    shared.add_argument("--retry-s", type=float, default=60.0, help="how long to repeat a call (default 60)")

    profile = argparse.ArgumentParser(add_help=False)
    profile.add_argument("--tier", default="worker", choices=["high_level", "manager", "worker"])
    profile.add_argument(
        "--provider", default="claude", choices=["claude", "codex", "ollama", "openai", "gemini"]
    )
    profile.add_argument("--max-concurrent", type=_positive, default=5, help="tasks at once (default 5)")
    profile.add_argument("--capability", action="append", default=[], help="may be repeated")
    profile.add_argument("--lesson", default="", help="the id of the lesson to work in")
    profile.add_argument("--metadata", default="", help="a JSON object")

    text = __doc__ or ""
    parser = argparse.ArgumentParser(
        prog="gaia-agent", description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"gaia-agent {VERSION}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")

    def verb(name: str, about: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=about, description=about, parents=[shared, *parents])

    verb("register", "get a lease on the session's name, or resume it", profile)
    _add_run_options(verb("run", "claim tasks and run a command for each", profile))
    claim = verb("claim", "claim tasks and print them")
    claim.add_argument("--max", type=_positive, default=1)
    claim.add_argument("--wait", type=float, default=0.0, metavar="S", help="wait up to S seconds for a task")
    claim.add_argument("--task-type", action="append", default=[], help="only these; may be repeated")
    for name, about in (("complete", "report a task as done"), ("fail", "report a task as failed")):
        finish = verb(name, about)
        finish.add_argument("task_id")
        finish.add_argument(
            "--token", type=int, default=None, help="the claim token; default: the remembered one"
        )
        if name == "complete":
            finish.add_argument("--result", default="null", help="JSON, or - to read it from standard input")
        else:
            finish.add_argument("--error", default="", help="why")
            finish.add_argument("--final", action="store_true", help="do not retry")
    _add_lock_options(verb("lock", "acquire, renew or release a lock, or run a command under one"))
    beat = verb("heartbeat", "renew the lease; prints what the session is told")
    beat.add_argument("--progress", action="append", default=[], metavar="TASK:PERCENT[:NOTE]")
    verb("status", "the session as the cluster sees it")
    verb("goodbye", "leave: claims go back to the queue")
    hook = verb("hook", "print hook settings, or handle one event (its JSON on standard input)", profile)
    hook.add_argument("event", choices=["settings", *HOOK_EVENTS])
    return parser


def _add_run_options(run: argparse.ArgumentParser) -> None:
    run.add_argument("--parallel", type=_positive, default=1, help="tasks at once (default 1)")
    run.add_argument("--task-type", action="append", default=[], help="only these; may be repeated")
    run.add_argument("--max-tasks", type=int, default=0, help="end after so many tasks (default: never)")
    run.add_argument(
        "--idle-exit", type=float, default=None, metavar="S", help="end after S seconds without a task"
    )
    run.add_argument("--grace-s", type=float, default=10.0, help="from SIGTERM to SIGKILL (default 10)")
    run.add_argument(
        "--drain-s", type=float, default=30.0, help="how long tasks may finish on SIGTERM (default 30)"
    )


def _add_lock_options(lock: argparse.ArgumentParser) -> None:
    lock.add_argument("words", nargs="+", metavar="[acquire|renew|release] KEY")
    lock.add_argument("--ttl", type=float, default=60.0, metavar="S", help="how long it holds (default 60)")
    lock.add_argument("--wait", type=float, default=0.0, metavar="S", help="queue up to S seconds for it")
    lock.add_argument("--owner", default="", help="default: the session's name, with CMD one of its own")
    lock.add_argument("--token", type=int, default=0, help="the fencing token")
    lock.add_argument("--grace-s", type=float, default=10.0, help="from SIGTERM to SIGKILL (default 10)")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def split_command(words: list[str]) -> tuple[list[str], list[str]]:
    """The words before and after the first `--`."""
    if "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]


class Printer:
    """Answers on standard output, JSON or a few words; remarks on standard error."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._lock = threading.Lock()

    def answer(self, value: Any, words: str) -> None:
        """The result of a command."""
        self._write(sys.stdout, json.dumps(value) if self._as_json else words)

    def tell(self, event: str, **fields: object) -> None:
        """Something `run` did."""
        if self._as_json:
            self._write(sys.stdout, json.dumps({"event": event, **fields}))
        else:
            told = " ".join(f"{name}={value}" for name, value in fields.items())
            self._write(sys.stderr, f"gaia-agent: {event} {told}".rstrip())

    def remark(self, event: str, **fields: object) -> None:
        """Something that is not a result, such as a repetition."""
        told = " ".join(f"{name}={value}" for name, value in fields.items())
        self._write(sys.stderr, f"gaia-agent: {event} {told}".rstrip())

    def error(self, error: AgentError) -> None:
        """Why it did not work."""
        if self._as_json:
            self._write(sys.stdout, json.dumps(error.as_json()))
        else:
            self._write(sys.stderr, f"gaia-agent: {error}")

    def _write(self, stream: Any, line: str) -> None:
        with self._lock, contextlib.suppress(BrokenPipeError):
            stream.write(line + "\n")
            stream.flush()


def state_folder() -> Path:
    """Where tokens are kept."""
    given = os.environ.get("GAIA_STATE_DIR")
    if given:
        return Path(given)
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "gaia-agent"


def default_name() -> str:
    """A session name made of this host's."""
    return re.sub(r"[^A-Za-z0-9._:/-]", "-", socket.gethostname())[:200] or "agent"


def perform(arguments: argparse.Namespace, printer: Printer) -> int:
    """Do what the command line says; answer the exit status."""
    if arguments.verb == "hook":
        return perform_hook(arguments, printer)
    if not arguments.url:
        raise AgentError(USAGE, "set GAIA_URL, or give --url")
    name = arguments.name or default_name()
    client = Client(arguments.url, arguments.key, retry_s=arguments.retry_s, log=printer.remark)
    session = Session(client, Memory(state_folder(), client.url, name), name)
    if arguments.verb == "run":
        if not arguments.command:
            raise AgentError(USAGE, "give the command to run after --")
        return Worker(session, arguments, printer.tell).run()
    if arguments.verb == "lock":
        return perform_lock(client, name, arguments, printer)
    return PERFORM[arguments.verb](session, arguments, printer)


def perform_register(session: Session, arguments: argparse.Namespace, printer: Printer) -> int:
    """`register`."""
    granted = session.register(session_options(arguments))
    printer.answer(granted, f"{session.name}: {granted['status']}, lease until {granted['lease_expires_at']}")
    return DONE


def perform_claim(session: Session, arguments: argparse.Namespace, printer: Printer) -> int:
    """`claim`; long waits are many calls."""
    until = time.monotonic() + arguments.wait
    while True:
        wait_s = max(0.0, min(LONG_POLL_S, until - time.monotonic()))
        answer = session.claim(arguments.max, wait_s, arguments.task_type)
        if answer["tasks"] or time.monotonic() >= until:
            break
        if wait_s and answer.get("reason") not in (None, "", "nothing_pending"):
            time.sleep(min(1.0, wait_s))
    lines = [f"{task['id']} {task['task_type']} token={task['claim_token']}" for task in answer["tasks"]]
    printer.answer(answer, "\n".join(lines) or f"nothing: {answer.get('reason', '')}")
    return DONE if answer["tasks"] else NOTHING


def perform_complete(session: Session, arguments: argparse.Namespace, printer: Printer) -> int:
    """`complete`."""
    text = sys.stdin.read() if arguments.result == "-" else arguments.result
    result = _parsed_json(text, "--result")
    token = session.claim_token(arguments.task_id, arguments.token)
    answer = session.complete(arguments.task_id, token, result)
    printer.answer(answer, f"{arguments.task_id}: {answer['status']}")
    return DONE


def perform_fail(session: Session, arguments: argparse.Namespace, printer: Printer) -> int:
    """`fail`."""
    token = session.claim_token(arguments.task_id, arguments.token)
    answer = session.fail(arguments.task_id, token, arguments.error, retryable=not arguments.final)
    printer.answer(answer, f"{arguments.task_id}: {answer['status']}, retries {answer['retry_count']}")
    return DONE


def perform_heartbeat(session: Session, arguments: argparse.Namespace, printer: Printer) -> int:
    """`heartbeat`."""
    progress = [_progress(session, text) for text in arguments.progress]
    answer = session.heartbeat(progress)
    told = [" ".join([one["kind"], str(one.get("task_id", ""))]).strip() for one in answer["directives"]]
    printer.answer(answer, "\n".join([f"{session.name}: {answer['status']}", *told]))
    return DONE


def _progress(session: Session, text: str) -> dict[str, Any]:
    task_id, percent, note = ([*text.split(":", 2), "", ""])[:3]
    if not percent.isdigit():
        raise AgentError(USAGE, f"--progress must be TASK:PERCENT[:NOTE], not {text}")
    token = session.claim_token(task_id, None)
    return {"task_id": task_id, "claim_token": token, "percent": int(percent), "note": note}


def perform_status(session: Session, arguments: argparse.Namespace, printer: Printer) -> int:
    """`status`."""
    found = session.client("GET", f"sessions/{_in_path(session.name)}")
    words = (
        f"{session.name}: {found['status']}, {found['health_status']}, "
        f"{found['current_task_count']} of {found['max_concurrent_tasks']} tasks"
    )
    printer.answer(found, words)
    return DONE


def perform_goodbye(session: Session, arguments: argparse.Namespace, printer: Printer) -> int:
    """`goodbye`."""
    answer = session.goodbye()
    printer.answer(answer, f"{session.name}: offline")
    return DONE


def perform_lock(client: Client, name: str, arguments: argparse.Namespace, printer: Printer) -> int:
    """`lock`, in its four forms."""
    if arguments.command:
        if len(arguments.words) != 1:
            raise AgentError(USAGE, "give one KEY before --")
        arguments.lock_key = arguments.words[0]
        # One of its own, so that two commands of one session exclude each other.
        arguments.owner = arguments.owner or f"{name}/{os.getpid()}-{uuid.uuid4().hex[:8]}"
        return run_locked(client, arguments, printer.tell)
    if len(arguments.words) != 2 or arguments.words[0] not in ("acquire", "renew", "release"):
        raise AgentError(USAGE, "give acquire, renew or release and a KEY, or a KEY and -- CMD")
    action, key = arguments.words
    body: dict[str, Any] = {"owner_id": arguments.owner or name}
    if action == "acquire":
        body.update(ttl_s=arguments.ttl, wait_s=min(arguments.wait, LONG_POLL_S))
    elif not arguments.token:
        raise AgentError(USAGE, f"{action} needs the fencing --token")
    else:
        body["fencing_token"] = arguments.token
    if action == "renew":
        body["ttl_s"] = arguments.ttl
    timeout_s = arguments.wait + CALL_TIMEOUT_S
    answer = client("POST", f"locks/{_in_path(key)}/{action}", body, timeout_s=timeout_s)
    printer.answer(answer, f"{key}: {action}d, token {answer.get('fencing_token', arguments.token)}")
    return DONE


def perform_hook(arguments: argparse.Namespace, printer: Printer) -> int:
    """`hook`: never in the way of the assistant, so it ends well whatever happens."""
    if arguments.event == "settings":
        sys.stdout.write(json.dumps(hook_settings(f"python3 {Path(__file__).resolve()}"), indent=2) + "\n")
        return DONE
    try:
        given = {} if sys.stdin.isatty() else _json_object(sys.stdin.buffer.read())
        told = re.sub(r"[^A-Za-z0-9._-]", "", str(given.get("session_id", "")))[:8]
        name = arguments.name or f"{default_name()}/{told or 'hook'}"
        retry_s = min(HOOK_RETRY_S, arguments.retry_s)
        client = Client(arguments.url, arguments.key, retry_s=retry_s, log=printer.remark)
        session = Session(client, Memory(state_folder(), client.url, name), name)
        answer = on_hook(session, arguments.event, arguments)
    except AgentError as error:
        printer.remark("hook_failed", hook=arguments.event, reason=str(error))
        return DONE
    if arguments.json:
        printer.answer(answer, "")
    return DONE


PERFORM: dict[str, Callable[[Session, argparse.Namespace, Printer], int]] = {
    "register": perform_register,
    "claim": perform_claim,
    "complete": perform_complete,
    "fail": perform_fail,
    "heartbeat": perform_heartbeat,
    "status": perform_status,
    "goodbye": perform_goodbye,
}


def main(words: list[str] | None = None) -> int:
    """The program; answers its exit status."""
    ours, command = split_command(sys.argv[1:] if words is None else words)
    arguments = build_parser().parse_args(ours)
    arguments.command = command
    printer = Printer(as_json=arguments.json)
    try:
        return perform(arguments, printer)
    except AgentError as error:
        printer.error(error)
        return error.code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
