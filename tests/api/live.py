"""The site as clients meet it: a real web process over the real node, PostgreSQL and Redis, spoken to by HTTP."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import urllib3

from tests.cluster import ROOT, Cluster, eventually, free_ports, test_database_url

START_S = 60.0
OURS = ("manage.py", "web", "--host", "127.0.0.1", "--port", "{port}")
DAPHNE = ("-m", "daphne", "-b", "127.0.0.1", "-p", "{port}", "gaia_site.asgi:application")


@dataclasses.dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def index(self) -> int:
        """Its X-Raft-Index."""
        return int(self.headers["X-Raft-Index"])


class Caller:
    """A client with one credential."""

    def __init__(self, url: str, secret: str | None = None) -> None:
        self.url = url
        self.secret = secret
        self._pool = urllib3.PoolManager(maxsize=16, retries=False)

    def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        timeout_s: float = 40.0,
        **headers: str,
    ) -> Answer:
        """One call; `body` is bytes or a JSON value, `key` an Idempotency-Key."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.secret:
            named.setdefault("Authorization", f"Bearer {self.secret}")
        if key:
            named["Idempotency-Key"] = key
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if data is not None:
            named.setdefault("Content-Type", "application/json")
        address = (
            path
            if path.startswith("http")
            else self.url + (path if path.startswith("/") else f"/api/v1/{path}")
        )
        answer = self._pool.request(method, address, body=data, headers=named, timeout=timeout_s)
        return Answer(answer.status, answer.headers, answer.data)


class Web:
    """One web process, of the command we start it with or of another that serves the same application."""

    def __init__(self, cluster: Cluster, *, command: tuple[str, ...] = OURS, **extra: str) -> None:
        self.command = command
        self.folder = Path(tempfile.mkdtemp(prefix="gaia-web-"))
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            **os.environ,
            "DATABASE_URL": test_database_url(),
            "CLUSTER_NODE_URLS": ",".join(cluster.urls),
            "CLUSTER_SECRET": _secret(),
            "ALLOWED_HOSTS": "127.0.0.1,localhost",
            "GAIA_DATA_DIR": str(self.folder),
            **extra,
        }
        self.log_path = self.folder / "web.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Web:
        """Starts it and waits until it answers."""
        command = [sys.executable, *(part.format(port=self.port) for part in self.command)]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=log, stderr=log)
        try:
            eventually(self._is_up, START_S, 0.1, "a web process that answers")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None
        return self

    def _is_up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log
        try:
            return urllib3.request("GET", f"{self.url}/healthz", timeout=2.0, retries=False).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")[-6000:]

    def end(self, number: int = signal.SIGTERM) -> None:
        """Ends the process."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(20)

    def close(self) -> None:
        """Ends it and removes its folder."""
        self.end()
        shutil.rmtree(self.folder, ignore_errors=True)


def _secret() -> str:
    from django.conf import settings

    return settings.GAIA.cluster_secret
