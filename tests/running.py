"""`manage.py up` in a process of its own, as every test of the whole system starts it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import urllib3

ROOT = Path(__file__).resolve().parents[1]
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 60.0
GIVEN_BY_THE_TESTS = (
    "DATABASE_URL",
    "REDIS_URL",
    "SECRET_KEY",
    "CLUSTER_SECRET",
    "GAIA_DATA_DIR",
    "PYTEST_CURRENT_TEST",
)


class Up:
    """One `manage.py up` in a process of its own."""

    def __init__(self, data: Path, **settings: str) -> None:
        self.data = data
        environment = {name: value for name, value in os.environ.items() if name not in GIVEN_BY_THE_TESTS}
        environment |= {"GAIA_DATA_DIR": str(data), "PORT": str(free_port()), "DEMO": "0"} | settings
        self.port = int(environment["PORT"])
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "up"],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    def wait_until_ready(self) -> Up:
        def ready() -> bool:
            assert self.process.poll() is None, "\n".join(self.lines)
            return any("GAIA is ready" in line for line in self.lines)

        wait_for(ready, "up to be ready", START_TIMEOUT_S, self.lines)
        return self

    def run_file(self) -> dict[str, Any]:
        return json.loads((self.data / "run.json").read_text())

    def pids(self, *roles: str) -> list[int]:
        found = self.run_file()["processes"]
        return [one["pid"] for one in found if not roles or one["role"] in roles]

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait_for_end(self) -> int:
        return self.process.wait(STOP_TIMEOUT_S)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(
    condition: Callable[[], object], what: str, timeout_s: float, lines: list[str] | None = None
) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}\n" + "\n".join(lines or [])
        time.sleep(0.05)


def status_of(url: str) -> int:
    try:
        return urllib3.request("GET", url, timeout=5.0, retries=False).status
    except urllib3.exceptions.HTTPError:
        return 0
