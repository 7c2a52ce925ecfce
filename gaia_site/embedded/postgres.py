"""One embedded PostgreSQL: prepare its data, say how to start it, know when it answers, end an orphan of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psycopg

from gaia_site.embedded import processes
from gaia_site.embedded.account import Account, EmbeddedServerError, named_uid, owned_folder
from gaia_site.embedded.processes import Identity

DATABASE = "gaia"
USER = "gaia"
STOP_SIGNAL = (
    signal.SIGINT
)  # "fast": ends sessions and syncs; "smart" (SIGTERM) would wait for clients for ever
INITDB_TIMEOUT_S = 120
CHILDREN_NOTICE_S = 10.0  # measured some 10 ms
_START_TIME_TOLERANCE_S = 2.0  # between the kernel's and postmaster.pid's start time; measured 0.03 s

# Two cores and 4 GB or more. What makes a commit durable (fsync, full_page_writes, synchronous_commit) is stated
# so that nobody wonders, and never relaxed: group commit buys more.
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "shared_buffers": "512MB",
    "effective_cache_size": "2GB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "checkpoint_completion_target": "0.9",
    "wal_compression": "pglz",  # the only method this build has
    "max_connections": "60",  # every process's pool (10), the COPY connections, and 10 for people
    "jit": "off",
    "max_parallel_workers_per_gather": "1",
    "random_page_cost": "1.1",
    "work_mem": "8MB",
    "maintenance_work_mem": "128MB",
    "autovacuum_max_workers": "2",
    "autovacuum_naptime": "20s",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "",  # `up` says where a line comes from
    "log_checkpoints": "off",
    "idle_in_transaction_session_timeout": "60s",
    "lock_timeout": "10s",
}
SMALL_MEMORY = {"shared_buffers": "128MB", "effective_cache_size": "512MB"}
SMALL_MEMORY_BYTES = 4 * 1024**3


@dataclass(frozen=True, slots=True)
class Postgres:
    """PostgreSQL on a Unix socket in `sockets`, its data in `account.folder/postgres`.

    `overrides` replaces single settings, for tests.
    """

    account: Account
    sockets: Path
    version: int = 18
    overrides: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.account.folder / "postgres"

    @property
    def url(self) -> str:
        """The DATABASE_URL of our own database."""
        return f"postgresql://{USER}@/{DATABASE}?host={quote(str(self.sockets), safe='')}"

    @property
    def command(self) -> list[str]:
        """How to start it."""
        return [str(self.account.binaries.postgres / "postgres"), "-D", str(self.data)]

    def prepare(self) -> None:
        """Make the data folder where there is none, and write the settings anew.

        Raises EmbeddedServerError where the data belongs to another major version.
        """
        if not self.data.exists():
            self._initialise()
        found = (self.data / "PG_VERSION").read_text().strip()
        if found != str(self.version):
            message = (
                f"{self.data} holds data of PostgreSQL {found}, and this is {self.version}. "
                f"Start with PG={found}, or move the folder away to begin anew."
            )
            raise EmbeddedServerError(message)
        owned_folder(self.data, self.account.identity)
        self._write_settings()

    def _initialise(self) -> None:
        """Run initdb into a folder beside, renamed when it is whole: one that was cut short is never taken for data."""
        unfinished = self.data.with_name("postgres.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        identity = self.account.identity
        if identity.uid is not None:
            identity = Identity(uid=named_uid())  # for this step alone; `prepare` hands the folder over
        owned_folder(unfinished, identity)
        command = [
            *identity.prefix,
            str(self.account.binaries.postgres / "initdb"),
            f"--pgdata={unfinished}",
            f"--username={USER}",
            "--auth-local=trust",  # sound because only one account and root can enter the socket's folder
            "--auth-host=scram-sha-256",
            "--encoding=UTF8",
            *self._locale(),
            "--no-instructions",
        ]
        done = subprocess.run(
            command,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            capture_output=True,
            text=True,
            timeout=INITDB_TIMEOUT_S,
            check=False,
            **identity.popen_arguments(),
        )
        if done.returncode != 0:
            message = f"initdb could not make {unfinished}: {(done.stderr or done.stdout).strip()}"
            raise EmbeddedServerError(message)
        unfinished.rename(self.data)

    def _locale(self) -> tuple[str, ...]:
        """The builtin provider orders text alike on every machine; PostgreSQL 16 does not have it yet."""
        if self.version >= 17:
            return ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        return ("--locale=C", "--lc-ctype=C.UTF-8")

    def _write_settings(self) -> None:
        memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        wanted = SETTINGS | (SMALL_MEMORY if memory_bytes < SMALL_MEMORY_BYTES else {}) | self.overrides
        wanted["unix_socket_directories"] = '"' + str(self.sockets).replace('"', '""') + '"'
        lines = [f"{name} = '{_quoted(value)}'\n" for name, value in sorted(wanted.items())]
        ours = self.data / "gaia.conf"
        ours.write_text("# Written at every start.\n" + "".join(lines))
        ours.chmod(0o644)  # the folder itself is private
        main = self.data / "postgresql.conf"
        include = f"include '{ours.name}'\n"
        if include not in main.read_text():
            with main.open("a") as opened:
                opened.write(include)

    def end_orphan(self) -> int | None:
        """End a server that an earlier run left on this data, and remove a lock file that nobody holds.

        Returns the pid that was ended. Call it only with the lock on the data folder's owner in hand.
        """
        lock_file = self.data / "postmaster.pid"
        try:
            lines = lock_file.read_text().splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if len(lines) < 3 or not lines[0].strip().lstrip("-").isdecimal():
            self._forget_lock()  # a start that was cut short; PostgreSQL refuses an empty one for ever
            return None
        pid = abs(int(lines[0]))
        if not processes.is_alive(pid):
            self._forget_the_dead()
            return None
        if processes.executable(pid) is None:
            return None  # another account's process: PostgreSQL passes over the file
        if not self._is_ours(pid, lines):
            # The number was given to somebody else. PostgreSQL would refuse for ever if the account is the same.
            self._forget_lock()
            return None
        if not processes.end(pid, (STOP_SIGNAL, 30), (signal.SIGQUIT, 10), (signal.SIGKILL, 5)):
            message = f"A PostgreSQL of an earlier start (pid {pid}) on {self.data} does not end."
            raise EmbeddedServerError(message)
        return pid

    def _forget_the_dead(self) -> None:
        """Remove a dead server's lock files, once its own children have noticed and ended.

        A dead parent that nobody has reaped still answers to its number, and PostgreSQL would refuse for ever.
        """
        deadline = time.monotonic() + CHILDREN_NOTICE_S
        while processes.any_works_in(self.data.resolve()) and time.monotonic() < deadline:
            time.sleep(0.02)
        if not processes.any_works_in(self.data.resolve()):
            self._forget_lock()

    def _forget_lock(self) -> None:
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        (self.sockets / ".s.PGSQL.5432.lock").unlink(missing_ok=True)

    def _is_ours(self, pid: int, lines: list[str]) -> bool:
        program, began = processes.executable(pid), processes.started_at(pid)
        return (
            Path(lines[1]) == self.data
            and program is not None
            and Path(program).name == "postgres"
            and processes.working_folder(pid) == self.data.resolve()
            and began is not None
            and abs(began - int(lines[2])) <= _START_TIME_TOLERANCE_S
        )

    def answers(self) -> bool:
        """Does it take connections? Makes our database when it is not there yet."""
        if not self._says_ready():
            return False  # asking earlier would only fill its log with refusals
        try:
            with psycopg.connect(
                host=str(self.sockets), user=USER, dbname="postgres", autocommit=True, connect_timeout=2
            ) as connection:
                there = connection.execute(
                    "SELECT FROM pg_database WHERE datname = %s", [DATABASE]
                ).fetchone()
                if there is None:
                    connection.execute(f'CREATE DATABASE "{DATABASE}"')
        except psycopg.OperationalError:
            return False
        return True

    def _says_ready(self) -> bool:
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready"


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")
