"""One embedded Redis: write its configuration, say how to start it, know when it answers, end an orphan of it."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import redis

from gaia_site.embedded import processes
from gaia_site.embedded.account import Account, EmbeddedServerError, owned_folder

STOP_SIGNAL = signal.SIGTERM
_START_TIME_TOLERANCE_S = 5.0  # the pid file is written a little after the process began
_PROBE_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class RedisServer:
    """Redis on a Unix socket in `sockets`, its append-only file in `account.folder/redis`.

    Redis has no guard of its own: a second one on the same socket takes it over and both write the same file.
    Whoever starts one must hold a lock for its life.
    """

    account: Account
    sockets: Path

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.account.folder / "redis"

    @property
    def socket(self) -> Path:
        """The Unix socket."""
        return self.sockets / "redis.sock"

    @property
    def url(self) -> str:
        """The REDIS_URL."""
        return f"unix://{quote(str(self.socket))}?db=0"

    @property
    def command(self) -> list[str]:
        """How to start it."""
        return [str(self.account.binaries.redis), str(self.data / "redis.conf")]

    @property
    def _pid_file(self) -> Path:
        return self.data / "redis.pid"

    def prepare(self) -> None:
        """Make the folder and write the configuration anew."""
        owned_folder(self.data, self.account.identity)
        lines = [
            "port 0",
            f"unixsocket {_quoted(self.socket)}",
            "unixsocketperm 700",
            "daemonize no",
            f"pidfile {_quoted(self._pid_file)}",
            f"dir {_quoted(self.data)}",
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            "maxmemory 512mb",
            "maxmemory-policy noeviction",  # anything else may drop a stream or a consumer group in silence
            "databases 16",
            "loglevel warning",
        ]
        configuration = self.data / "redis.conf"
        configuration.write_text("\n".join(["# Written at every start.", *lines, ""]))
        configuration.chmod(0o644)

    def end_orphan(self) -> int | None:
        """End a server that an earlier run left on this data; returns its pid. The lock must be in hand."""
        try:
            pid, written = int(self._pid_file.read_text()), self._pid_file.stat().st_mtime
        except (FileNotFoundError, ValueError):
            return None
        began, program = processes.started_at(pid), processes.executable(pid)
        is_ours = (
            began is not None
            and program is not None
            and Path(program).name == "redis-server"
            and processes.working_folder(pid) == self.data.resolve()
            and abs(began - written) <= _START_TIME_TOLERANCE_S
        )
        if not is_ours:
            self._pid_file.unlink(missing_ok=True)
            return None
        if not processes.end(pid, (STOP_SIGNAL, 30), (signal.SIGKILL, 5)):
            message = f"A Redis of an earlier start (pid {pid}) on {self.data} does not end."
            raise EmbeddedServerError(message)
        return pid

    def answers(self) -> bool:
        """Does it take commands (and has it read its file)?"""
        client = redis.Redis(
            unix_socket_path=str(self.socket),
            socket_timeout=_PROBE_TIMEOUT_S,
            socket_connect_timeout=_PROBE_TIMEOUT_S,
            retry=None,
        )
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
