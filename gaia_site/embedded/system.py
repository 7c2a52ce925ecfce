"""The whole system on one machine: which parts there are, in which order they come and go."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import urllib3

from gaia_site.embedded import postgres, redis
from gaia_site.embedded.account import (
    Account,
    EmbeddedServerError,
    choose_account,
    socket_folder,
    wheel_binaries,
)
from gaia_site.embedded.data_folder import AlreadyRunning, DataFolder, NodeAddresses
from gaia_site.embedded.processes import started_at
from gaia_site.embedded.supervisor import Part, PartFailed, Stopped, Supervisor
from gaia_site.env import Demo, Environment

if TYPE_CHECKING:
    from pathlib import Path

    from gaia_site.embedded.console import Console

STOP_ORDER = ("demo", "web", "worker", "node", "redis", "postgres")
"""Web first: it drains while everything it needs is still there."""

SERVER_TIMEOUT_S = 60.0
MIGRATE_TIMEOUT_S = 300.0
READY_TIMEOUT_S = 90.0
DEMO_SETUP_TIMEOUT_S = 120.0

POOLS = {"web": "12", "worker": "6", "node": "4", "demo": "3"}
"""Most database connections of one process of each role; with the embedded server's 60 they leave room for people."""


class CannotRun(Exception):
    """The system cannot be started. The message says why and what to do."""


@dataclass(frozen=True, slots=True)
class _Addresses:
    """Where the running system's servers are."""

    database_url: str
    redis_url: str


class System:
    """One embedded system. `run` starts it, keeps it running, and stops it."""

    def __init__(self, environment: Environment, *, folder: Path, console: Console) -> None:
        self._settings = environment
        self._folder = folder
        self._console = console
        self._data = DataFolder(environment.data_dir)
        self._supervisor = Supervisor(console, self._write_run_file)
        self._listener: socket.socket | None = None
        self._addresses: _Addresses | None = None
        self._nodes: list[NodeAddresses] = []

    @property
    def url(self) -> str:
        """Where a browser reaches the site."""
        host = "127.0.0.1" if self._settings.host in {"0.0.0.0", "::"} else self._settings.host  # noqa: S104
        return f"http://{host}:{self._settings.port}"

    def run(self) -> None:
        """Start everything, keep it running until a signal comes, stop everything.

        Raises CannotRun where it does not start or a part cannot be kept running; everything is stopped then too.
        """
        began = time.monotonic()
        self._supervisor.listen_to_signals()
        try:
            self._data.make()
            self._data.lock()
            self._listener = self._listen()
            self._start(began)
            self._supervisor.run()
        except Stopped:
            self._console.say("Asked to stop during the start.")
        except (PartFailed, EmbeddedServerError, AlreadyRunning, OSError) as error:
            raise CannotRun(str(error)) from error
        finally:
            self._stop()

    def _start(self, began: float) -> None:
        ended = self._data.end_left_behind()
        if ended:
            self._console.write("up", f"ended what an earlier start left running: {', '.join(ended)}")
        self._addresses = self._start_servers()
        self._nodes = self._data.node_addresses(self._settings.nodes)
        environment = self._child_environment("web")
        self._supervisor.run_to_end(
            self._command("migrate", "up", environment, "migrate", "--noinput", "--verbosity=0"),
            self._command("static", "up", environment, "collectstatic", "--noinput", "--verbosity=0"),
            timeout_s=MIGRATE_TIMEOUT_S,
        )
        for node in self._nodes:
            self._supervisor.start(self._node(node))
        for number in range(1, self._settings.web_processes + 1):
            self._supervisor.start(self._web(number))
        self._supervisor.start(
            self._command("worker", "worker", self._child_environment("worker"), "usability_worker")
        )
        self._supervisor.wait_until(self._is_ready, what=f"{self.url}/readyz", timeout_s=READY_TIMEOUT_S)
        if self._settings.demo is not Demo.OFF:
            self._start_demo()
        self._greet(time.monotonic() - began)

    def _listen(self) -> socket.socket:
        """The web's listening socket. We hold it, so a restart of web refuses nobody."""
        host, port = self._settings.host, self._settings.port
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(1024)
        except OSError as error:
            listener.close()
            raise CannotRun(
                f"Port {port} on {host} cannot be used ({error.strerror}). "
                f"Choose another, for example: make run PORT={_free_port_after(host, port)}"
            ) from error
        return listener

    def _start_servers(self) -> _Addresses:
        database_url, redis_url = self._settings.database_url, self._settings.redis_url
        if database_url and redis_url:
            return _Addresses(database_url, redis_url)
        account = choose_account(self._data.path, wheel_binaries(self._settings.postgres_version))
        if account.folder != self._data.path:
            self._console.write(
                "up", f"the servers' data lies in {account.folder}: root cannot hand out this folder"
            )
        sockets = socket_folder(account)
        if not database_url:
            server = postgres.Postgres(account, sockets, self._settings.postgres_version)
            self._start_server(server, account, "postgres", postgres.STOP_SIGNAL, restart_delay_s=1.0)
            database_url = server.url
        if not redis_url:
            broker = redis.RedisServer(account, sockets)
            self._start_server(broker, account, "redis", redis.STOP_SIGNAL, restart_delay_s=0.25)
            redis_url = broker.url
        return _Addresses(database_url, redis_url)

    def _start_server(
        self,
        server: postgres.Postgres | redis.RedisServer,
        account: Account,
        role: str,
        stop_signal: signal.Signals,
        *,
        restart_delay_s: float,
    ) -> None:
        ended = server.end_orphan()
        if ended:
            self._console.write("up", f"ended {role} (pid {ended}), which an earlier start left running")
        server.prepare()
        self._supervisor.start(
            Part(
                name=role,
                role=role,
                command=tuple(server.command),
                environment={"LC_ALL": "C", "TZ": "UTC"},
                stop_signal=stop_signal,
                patience_s=30.0,
                identity=account.identity,
                address=str(server.sockets),
                before_restart=server.end_orphan,
                restart_delay_s=restart_delay_s,
            )
        )
        self._supervisor.wait_until(server.answers, what=role, timeout_s=SERVER_TIMEOUT_S)

    def _child_environment(self, role: str) -> dict[str, str]:
        assert self._addresses is not None
        own = self._data.secrets()
        return {
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            "DJANGO_SETTINGS_MODULE": "gaia_site.settings",
            "GAIA_DATA_DIR": str(self._data.path),
            "DATABASE_URL": self._addresses.database_url,
            "DATABASE_POOL_MAX": os.environ.get("DATABASE_POOL_MAX") or self._pool_of(role),
            "REDIS_URL": self._addresses.redis_url,
            "SECRET_KEY": self._settings.secret_key or own.secret_key,
            "CLUSTER_SECRET": self._settings.cluster_secret or own.cluster_secret,
            "CLUSTER_NODE_URLS": ",".join(node.url for node in self._nodes),
            "STATIC_HASHED": "true",
            "LOG_FORMAT": os.environ.get("LOG_FORMAT") or "console",
            "PORT": str(self._settings.port),
        }

    def _pool_of(self, role: str) -> str:
        """Several web processes share what one has."""
        most = int(POOLS[role])
        return str(max(4, most // self._settings.web_processes) if role == "web" else most)

    def _command(self, name: str, role: str, environment: dict[str, str], *arguments: str) -> Part:
        command = (sys.executable, str(self._folder / "manage.py"), *arguments)
        return Part(name, role, command, environment, cwd=str(self._folder))

    def _node(self, node: NodeAddresses) -> Part:
        of_this_node = {
            "CLUSTER_ENABLED": "true" if len(self._nodes) > 1 else "false",
            "CLUSTER_NODE_ID": node.node_id,
            "CLUSTER_BIND_ADDR": node.raft,
            "CLUSTER_ADVERTISE_ADDR": node.raft,
            "CLUSTER_HTTP_ADDR": node.http,
            "CLUSTER_DATA_DIR": str(self._data.path / "nodes" / node.node_id),
            "CLUSTER_DISCOVERY_TYPE": "static",
            "CLUSTER_DISCOVERY_NODES": ",".join(f"{peer.node_id}={peer.raft}" for peer in self._nodes),
        }
        part = self._command(
            node.node_id, "node", self._child_environment("node") | of_this_node, "raft_node"
        )
        return replace(part, address=node.raft)

    def _web(self, number: int) -> Part:
        """One web process; all of them take their connections from the one socket."""
        assert self._listener is not None
        listening_at = str(self._listener.fileno())
        command = (sys.executable, str(self._folder / "manage.py"), "web", "--fd", listening_at)
        return Part(
            "web" if number == 1 else f"web{number}",
            "web",
            command,
            self._child_environment("web"),
            cwd=str(self._folder),
            address=f"{self._settings.host}:{self._settings.port}",
            descriptors=(self._listener.fileno(),),
        )

    def _is_ready(self) -> bool:
        try:
            answer = urllib3.request(
                "GET", f"{self.url}/readyz", timeout=urllib3.Timeout(total=2.0), retries=False
            )
        except urllib3.exceptions.HTTPError:
            return False
        return bool(answer.status == 200)

    def _start_demo(self) -> None:
        environment = self._child_environment("demo")
        self._supervisor.run_to_end(
            self._command("demo", "demo", environment, "demo_setup", "--url", self.url),
            timeout_s=DEMO_SETUP_TIMEOUT_S,
        )
        if self._settings.demo is Demo.ON:
            self._supervisor.start(
                replace(self._command("demo", "demo", environment, "demo"), patience_s=25.0)
            )

    def _greet(self, took_s: float) -> None:
        say = self._console.say
        say()
        say(f"  GAIA is ready after {took_s:.1f} s:  {self.url}")
        logins = self._data.read("demo.json").get("logins", {}) if self._settings.demo is not Demo.OFF else {}
        for who, login in logins.items():
            say(f"    {who + ':':<15} {login['username']} / {login['password']}")
        if logins:
            say(f"    keys and ids of the demonstration: {self._data.path / 'demo.json'}")
        else:
            say("    no demonstration: make a login with `.venv/bin/python manage.py createsuperuser`")
        say("  Ctrl-C stops it.")
        say()

    def _write_run_file(self) -> None:
        """Name the parts for people, for tests, and for the next start."""
        if self._addresses is None:
            return
        running = [
            {
                "role": one.part.role,
                "name": one.part.name,
                "pid": one.pid,
                "address": one.part.address,
                "started_at": one.started_at,
            }
            for one in self._supervisor.running()
        ]
        ourselves = {
            "role": "up",
            "name": "up",
            "pid": os.getpid(),
            "address": "",
            "started_at": started_at(os.getpid()),
        }
        self._data.write(
            "run.json",
            {
                "url": self.url,
                "database_url": self._addresses.database_url,
                "redis_url": self._addresses.redis_url,
                "node_urls": [node.url for node in self._nodes],
                "processes": [*(one for one in running if one["role"] != "demo"), ourselves],
                "others": [one for one in running if one["role"] == "demo"],
            },
        )

    def _stop(self) -> None:
        began = time.monotonic()
        had_children = bool(self._supervisor.running())
        self._supervisor.ask_to_stop()
        self._supervisor.stop(STOP_ORDER)
        if self._listener is not None:
            self._listener.close()
        if self._addresses is not None:
            self._data.remove("run.json")
        if had_children:
            self._console.say(f"Stopped everything in {time.monotonic() - began:.1f} s.")


def _free_port_after(host: str, port: int) -> int:
    for candidate in [*range(port + 1, min(port + 100, 65_536)), 8080]:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            try:
                probe.bind((host, candidate))
            except OSError:
                continue
            return candidate
    return 8080
