"""A throw-away system: its own PostgreSQL, Redis, nodes and web processes, in a folder that nothing else uses."""

import asyncio
import ctypes
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import msgspec

from coordination.errors import CoordinationError
from coordination.log.client import NodeClient
from coordination.machine import codec
from coordination.verify.network import Network, Proxies
from gaia_site.embedded import postgres, processes, redis
from gaia_site.embedded.account import choose_account, socket_folder, wheel_binaries

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 20.0
COMMAND_TIMEOUT_S = 180.0
POLL_S = 0.05
SMALL_POSTGRES = {"shared_buffers": "64MB", "max_wal_size": "1GB", "max_connections": "60"}
SMALL_DISK_BYTES = 48 * 1024 * 1024
KEPT_SETTINGS = ("PATH", "HOME", "LANG", "LC_ALL", "VIRTUAL_ENV", "PYTHONPATH", "TMPDIR")
"""Of our environment: none of the settings of a system that runs here reaches the throw-away one."""

_libc = ctypes.CDLL(None, use_errno=True)
_MNT_DETACH = 2


class NotStarted(Exception):
    """The throw-away system did not come up. The message says which part and what it wrote last."""


@dataclass(frozen=True, slots=True)
class Build:
    """The nodes' program, and what it is told beside a node's settings."""

    command: tuple[str, ...] = (sys.executable, str(ROOT / "manage.py"), "raft_node")
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Part:
    """One process of the system. `is_meant_to_run`: that it has ended would be news."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    cwd: str = str(ROOT)
    identity: processes.Identity = processes.OURSELVES
    descriptors: tuple[int, ...] = ()
    stop_signal: signal.Signals = signal.SIGTERM
    process: subprocess.Popen[bytes] | None = None
    is_meant_to_run: bool = False

    def start(self) -> None:
        """Start it; returns at once. From the main thread, as `processes.spawn` asks."""
        with self.log.open("ab") as output:
            self.process = self._spawn(output)
        self.is_meant_to_run = True

    def _spawn(self, output: IO[bytes]) -> subprocess.Popen[bytes]:
        return processes.spawn(
            self.command,
            identity=self.identity,
            death_signal=signal.SIGKILL,
            cwd=self.cwd,
            environment=self.environment,
            output=output,
            descriptors=self.descriptors,
        )

    @property
    def is_running(self) -> bool:
        """Whether it lives (perhaps stopped by a signal)."""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process is not None, f"{self.name} was never started"
        return self.process.pid

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self.is_running:
            assert self.process is not None
            self.process.send_signal(number)

    async def end(self, number: signal.Signals) -> None:
        """End it with a signal and wait; one that does not go is killed."""
        self.is_meant_to_run = False
        self.send(number)
        ends_s = time.monotonic() + STOP_TIMEOUT_S
        while self.is_running:
            if time.monotonic() > ends_s:
                self.send(signal.SIGKILL)
            await asyncio.sleep(POLL_S)

    @property
    def last_words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-1500:] if self.log.exists() else ""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a throw-away system is made of."""

    folder: Path
    nodes: int
    web: int = 2
    build: Build = field(default_factory=Build)
    bad_nodes: int = 0
    """How many nodes, the first ones, run `build`; the others run the usual one. 0 is all."""
    has_small_disk: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


class ThrowAway:
    """One system. `start`, then `close`, whatever happened between."""

    def __init__(self, settings: Settings, network: Network) -> None:
        self.settings, self.network = settings, network
        self.folder = settings.folder
        self._secrets = {
            name: secrets.token_urlsafe(48) for name in ("SECRET_KEY", "CLUSTER_SECRET", "PASSWORD")
        }
        self.nodes: list[Part] = []
        self.web: list[Part] = []
        self.postgres: Part
        self.redis: Part
        self._database: postgres.Postgres
        self._broker: redis.RedisServer
        self._listeners: list[socket.socket] = []
        self.key = ""
        self.deaths: list[str] = []
        self.small_disk: Path | None = None

    # ---- from nothing to a running system

    async def start(self) -> None:
        """Start everything and wait until commands are taken. Raises NotStarted and EmbeddedServerError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "logs").mkdir(exist_ok=True)
        await self._start_servers()
        for number in range(self.settings.nodes):
            self.network.add(number)
        if isinstance(self.network, Proxies):
            await self.network.serve()
        await self._prepare_database()
        self.nodes = [self.node_part(number) for number in range(self.settings.nodes)]
        if self.settings.has_small_disk:
            self._mount_small_disk(self.nodes[-1].name)
        for node in self.nodes:
            node.start()
        for number in range(self.settings.web):
            self.web.append(self._web_part(number))
            self.web[-1].start()
        await self.until(self.is_ready, START_TIMEOUT_S, "the system")

    async def _start_servers(self) -> None:
        account = choose_account(self.folder, wheel_binaries(18))
        sockets = socket_folder(account)
        self._database = postgres.Postgres(account, sockets, 18, SMALL_POSTGRES)
        self._broker = redis.RedisServer(account, sockets)
        self._database.prepare()
        self._broker.prepare()
        for name, server in (("postgres", self._database), ("redis", self._broker)):
            part = Part(
                name,
                tuple(server.command),
                {"LC_ALL": "C", "TZ": "UTC"},
                self.folder / "logs" / f"{name}.log",
                cwd="/",
                identity=account.identity,
            )
            setattr(self, name, part)
            part.start()
            await self.until(server.answers, START_TIMEOUT_S, name)

    async def restart_server(self, name: str, number: signal.Signals) -> None:
        """End PostgreSQL or Redis with a signal, start it again, and wait until it answers."""
        part: Part = getattr(self, name)
        server = self._database if name == "postgres" else self._broker
        await part.end(number)
        await asyncio.to_thread(server.end_orphan)
        part.start()
        await self.until(server.answers, START_TIMEOUT_S, name)

    async def _prepare_database(self) -> None:
        """Tables, a user, a key: what an operator does once."""
        environment = self.environment("web") | {
            "DJANGO_SUPERUSER_PASSWORD": self._secrets["PASSWORD"],
            "CLUSTER_NODE_URLS": "http://127.0.0.1:9",
        }
        command = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "coordination.verify.prepare"),
            cwd=ROOT,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await asyncio.wait_for(command.communicate(), COMMAND_TIMEOUT_S)
        except TimeoutError:
            command.kill()
            await command.wait()
            raise NotStarted(f"the database was not prepared within {COMMAND_TIMEOUT_S:.0f} s") from None
        if command.returncode != 0:
            raise NotStarted(f"the database was not prepared: {err.decode(errors='replace')[-1500:]}")
        self.key = json.loads(out.splitlines()[-1])["key"]

    # ---- parts

    @property
    def node_urls(self) -> list[str]:
        """Where web reaches the nodes it started with."""
        return [f"http://{self.network.http(number)}" for number in range(self.settings.nodes)]

    @property
    def urls(self) -> list[str]:
        """Where clients reach the web processes."""
        return [f"http://127.0.0.1:{one.getsockname()[1]}" for one in self._listeners]

    def environment(self, role: str) -> dict[str, str]:
        """The settings of one process of a role."""
        kept = {name: os.environ[name] for name in KEPT_SETTINGS if name in os.environ}
        kept |= {name: value for name, value in os.environ.items() if name.startswith("RAFT_")}
        return {
            **kept,
            "PYTHONUNBUFFERED": "1",
            "DJANGO_SETTINGS_MODULE": "gaia_site.settings",
            "GAIA_DATA_DIR": str(self.folder),
            "DATABASE_URL": self._database.url,
            "DATABASE_POOL_MAX": {"web": "10", "node": "4"}[role],
            "REDIS_URL": self._broker.url,
            "SECRET_KEY": self._secrets["SECRET_KEY"],
            "CLUSTER_SECRET": self._secrets["CLUSTER_SECRET"],
            "CLUSTER_NODE_URLS": ",".join(self.node_urls),
            **self.settings.environment,
        }

    def member_name(self, number: int) -> str:
        """The id of a node."""
        return f"n{number + 1}"

    def node_part(self, number: int) -> Part:
        """A node that founds the cluster together with the others, as a part that is not started."""
        return self._part_of(number, self.member_name(number), may_found=True)

    def joining_part(self, number: int, name: str) -> Part:
        """A node that comes later, at the next place of the network."""
        return self._part_of(number, name, may_found=False)

    def _part_of(self, number: int, name: str, *, may_found: bool) -> Part:
        numbers = range(self.settings.nodes)
        usual = Build()
        is_chosen = not self.settings.bad_nodes or number < self.settings.bad_nodes
        build = self.settings.build if is_chosen else usual
        environment = {
            **self.environment("node"),
            "CLUSTER_ENABLED": "true" if len(numbers) > 1 or not may_found else "false",
            "CLUSTER_NODE_ID": name,
            "CLUSTER_BIND_ADDR": self.network.bind(number),
            "CLUSTER_ADVERTISE_ADDR": self.network.address(number),
            "CLUSTER_HTTP_ADDR": self.network.http(number),
            "CLUSTER_DATA_DIR": str(self.folder / "nodes" / name),
            "CLUSTER_DISCOVERY_TYPE": "static",
            "CLUSTER_DISCOVERY_NODES": ",".join(
                f"{self.member_name(one)}={self.network.address(one)}" for one in numbers
            ),
            "CLUSTER_BOOTSTRAP": "true" if may_found else "false",
            **build.environment,
        }
        command = (*self.network.prefix(number), *build.command)
        return Part(name, command, environment, self.folder / "logs" / f"{name}.log")

    def _web_part(self, number: int) -> Part:
        """A web process; we hold its socket, so clients of one that is started again wait instead of failing."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        listener.set_inheritable(True)
        self._listeners.append(listener)
        command = (
            *(sys.executable, "-m", "daphne", "--fd", str(listener.fileno())),
            *("--http-timeout", "60", "--no-server-name", "--verbosity", "0"),
            "gaia_site.asgi:application",
        )
        name = f"web-{number + 1}"
        return Part(
            name,
            command,
            self.environment("web"),
            self.folder / "logs" / f"{name}.log",
            descriptors=(listener.fileno(),),
        )

    @property
    def parts(self) -> list[Part]:
        """Everything that was started."""
        servers = [getattr(self, name) for name in ("postgres", "redis") if hasattr(self, name)]
        return [*self.web, *self.nodes, *servers]

    def pids(self) -> dict[int, int]:
        """The nodes' process ids by their numbers."""
        return {number: node.pid for number, node in enumerate(self.nodes) if node.is_running}

    # ---- the small disk

    def _mount_small_disk(self, name: str) -> None:
        place = self.folder / "nodes" / name
        place.mkdir(parents=True)
        options = f"size={SMALL_DISK_BYTES},mode=700".encode()
        if _libc.mount(b"verify", os.fsencode(place), b"tmpfs", 0, options) == 0:
            self.small_disk = place

    def fill_small_disk(self) -> None:
        """Leave no byte free."""
        assert self.small_disk is not None
        with (self.small_disk / "ballast").open("ab", buffering=0) as ballast:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    for _ in range(SMALL_DISK_BYTES):
                        ballast.write(b"\0" * size)
                except OSError:
                    continue

    def empty_small_disk(self) -> None:
        """Make room again."""
        assert self.small_disk is not None
        (self.small_disk / "ballast").unlink(missing_ok=True)

    # ---- looking at it

    async def until(self, condition: Any, timeout_s: float, what: str) -> None:
        """Ask a blocking question until it is answered with yes. Raises NotStarted."""
        ends_s = time.monotonic() + timeout_s
        while not await asyncio.to_thread(condition):
            dead = [part for part in self.parts if part.is_meant_to_run and not part.is_running]
            if time.monotonic() > ends_s:
                told = "".join(f"\n{part.name}: {part.last_words}" for part in dead or self.parts)
                raise NotStarted(f"{what} was not there within {timeout_s:.0f} s{told}")
            await asyncio.sleep(POLL_S)

    def client(self, *numbers: int) -> NodeClient:
        """A client of the nodes' own interface, for looking."""
        urls = [f"http://{self.network.http(number)}" for number in numbers] or self.node_urls
        return NodeClient(urls, self._secrets["CLUSTER_SECRET"])

    def statuses(self) -> dict[int, dict[str, Any]]:
        """What each node that answers believes, by its number."""
        seen = self.client().status_of_each(timeout_s=1.0)
        found = {}
        for number, url in enumerate(self.node_urls):
            status = seen.get(url)
            if status is not None:
                found[number] = status
        return found

    def is_ready(self) -> bool:
        """Whether every node knows one leader and has begun, and web is ready."""
        seen = self.statuses()
        leaders = {status["leader"] for status in seen.values()}
        return (
            len(seen) == self.settings.nodes
            and len(leaders) == 1
            and "" not in leaders
            and all(status["revision"] for status in seen.values())
        )

    def is_whole(self) -> bool:
        """Whether every node counts in majorities: none is still waiting to be admitted."""
        roles = [status["role"] for status in self.statuses().values()]
        return len(roles) == self.settings.nodes and set(roles) <= {"leader", "follower"}

    def leader(self) -> int | None:
        """The number of the node that leads in the newest term."""
        leading = {
            status["term"]: number for number, status in self.statuses().items() if status["role"] == "leader"
        }
        return leading[max(leading)] if leading else None

    def states(self) -> dict[int, tuple[tuple[int, int], bytes]]:
        """Each node's whole state: its place (revision and clock) and its bytes."""
        found = {}
        for number in range(self.settings.nodes):
            try:
                content = self.client(number).state()
            except CoordinationError:
                continue
            state = codec.decode_snapshot(content)
            found[number] = ((state.revision, state.clock_ms), content)
        return found

    def has_caught_up(self, number: int) -> bool:
        """Whether a node that joined holds what the others hold."""
        joined = next(iter(self.client(number).status_of_each(timeout_s=1.0).values()))
        newest = max((status["applied_index"] for status in self.statuses().values()), default=0)
        return joined is not None and 0 < newest <= joined["applied_index"] + 100

    def forget_member(self, name: str) -> None:
        """Remove the folder of a node that is no member any more."""
        shutil.rmtree(self.folder / "nodes" / name, ignore_errors=True)

    def note_deaths(self) -> list[Part]:
        """The parts that ended by themselves since the last look; each is written down."""
        found = [part for part in self.parts if part.is_meant_to_run and not part.is_running]
        for part in found:
            part.is_meant_to_run = False
            code = part.process.returncode if part.process is not None else None
            self.deaths.append(f"{part.name} ended by itself with code {code}")
        return found

    # ---- the end

    async def close(self) -> None:
        """Stop everything, web first."""
        for group in (self.web, self.nodes):
            for part in group:
                part.send(signal.SIGCONT)
            await asyncio.gather(*(part.end(signal.SIGTERM) for part in group))
        for name, number in (("redis", redis.STOP_SIGNAL), ("postgres", postgres.STOP_SIGNAL)):
            server: Part | None = getattr(self, name, None)
            if server is not None:
                await server.end(number)
        await self.network.close()
        for listener in self._listeners:
            listener.close()
        if self.small_disk is not None:
            _libc.umount2(os.fsencode(self.small_disk), _MNT_DETACH)
        if hasattr(self, "_database"):
            self._remove_outside()

    def _remove_outside(self) -> None:
        """What had to lie elsewhere: sockets whose path would be too long, servers' data root cannot hand out."""
        for path in (self._database.sockets, self._database.account.folder):
            if not path.is_relative_to(self.folder):
                shutil.rmtree(path, ignore_errors=True)

    def remove_data(self) -> None:
        """Remove what the system kept; the record of the run stays."""
        for name in ("nodes", "postgres", "redis", "run"):
            shutil.rmtree(self.folder / name, ignore_errors=True)


def as_json(value: Any) -> str:
    """JSON for people's files."""
    return json.dumps(msgspec.to_builtins(value), indent=2, sort_keys=False)
