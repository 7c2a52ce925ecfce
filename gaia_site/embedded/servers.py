"""Both embedded servers together, started and stopped by one process: what tests and throw-away runs need."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

from gaia_site.embedded import postgres, processes, redis
from gaia_site.embedded.account import EmbeddedServerError, choose_account, socket_folder, wheel_binaries

if TYPE_CHECKING:
    import signal
    from pathlib import Path

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0


@dataclass(slots=True)
class Servers:
    """A PostgreSQL and a Redis with their data below one folder."""

    postgres: postgres.Postgres
    redis: redis.RedisServer
    _running: list[tuple[subprocess.Popen[bytes], signal.Signals]] = field(default_factory=list)

    def start(self) -> None:
        """Start both and wait until they answer. Their output goes to files beside the data.

        Raises EmbeddedServerError, with what the server wrote, where one does not come up.
        """
        folder = self.postgres.account.folder
        for server, stop_signal in ((self.postgres, postgres.STOP_SIGNAL), (self.redis, redis.STOP_SIGNAL)):
            server.prepare()
            log = folder / f"{server.data.name}.log"
            with log.open("ab") as output:
                self._running.append((self._spawn(server, stop_signal, output), stop_signal))
            self._wait_for(server, self._running[-1][0], log)

    def _spawn(
        self, server: postgres.Postgres | redis.RedisServer, stop_signal: signal.Signals, output: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        return processes.spawn(
            server.command,
            identity=server.account.identity,
            death_signal=stop_signal,
            environment={"LC_ALL": "C", "TZ": "UTC"},
            output=output,
        )

    def _wait_for(
        self, server: postgres.Postgres | redis.RedisServer, child: subprocess.Popen[bytes], log: Path
    ) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not server.answers():
            if child.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(errors="replace")[-2000:]
                message = f"{server.command[0]} did not come up: {said}"
                raise EmbeddedServerError(message)
            time.sleep(0.02)

    @property
    def pids(self) -> list[int]:
        """The process ids of the running servers."""
        return [child.pid for child, _ in self._running]

    def stop(self) -> None:
        """Stop what was started, the last first."""
        while self._running:
            child, stop_signal = self._running.pop()
            child.send_signal(stop_signal)
            try:
                child.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def servers_in(
    folder: Path, *, postgres_version: int = 18, overrides: dict[str, str] | None = None
) -> Servers:
    """Servers whose data lies below `folder`, not started. Raises EmbeddedServerError."""
    account = choose_account(folder, wheel_binaries(postgres_version))
    sockets = socket_folder(account)
    return Servers(
        postgres.Postgres(account, sockets, postgres_version, overrides or {}),
        redis.RedisServer(account, sockets),
    )
