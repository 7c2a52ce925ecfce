"""The nodes' network, in which single directions can be cut: namespaces where root allows them, else proxies.

*Namespaces*: this process moves into a network (and mount) namespace of its own before anything is started, each
node into another, all on one bridge. A direction is cut by a wrong hardware address for the receiver: the sender's
packets leave and nobody takes them, as with a broken switch. Nothing of the machine's own network is touched.

*Proxies*: each node advertises a port of ours, which passes bytes on to where it really listens. Who dialled is
found by the connection's port in /proc/net/tcp. A direction is cut by not passing its bytes on.
"""

import asyncio
import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from gaia_site.embedded import processes

_CLONE_NEWNS, _CLONE_NEWNET = 0x00020000, 0x40000000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_libc = ctypes.CDLL(None, use_errno=True)

SUBNET = "10.213.0"
"""Inside a namespace of our own, so it cannot meet an address of the machine's network."""
RAFT_PORT, HTTP_PORT = 7400, 7500
FIRST_HOST = 11
NOWHERE = "02:00:00:00:de:ad"
COMMAND_TIMEOUT_S = 10.0
HOLDER_TIMEOUT_S = 5.0
CHUNK_BYTES = 65_536


class NetworkFailed(Exception):
    """The network cannot be made or changed. The message says what was refused."""


class Network(Protocol):
    """Addresses of nodes by their number, 0 and up, and which directions are cut."""

    kind: str

    def add(self, number: int) -> None:
        """Make the place of a node, before it starts."""

    def prefix(self, number: int) -> tuple[str, ...]:
        """What the command of a node begins with."""

    def bind(self, number: int) -> str:
        """Where a node listens for its peers."""

    def address(self, number: int) -> str:
        """Where its peers reach it."""

    def http(self, number: int) -> str:
        """Where web reaches it."""

    async def cut(self, sender: int, receiver: int) -> None:
        """From now on nothing that one sends reaches the other."""

    async def heal(self) -> None:
        """Everything reaches everybody."""

    async def close(self) -> None:
        """Give back what was taken."""


def enter_namespaces() -> bool:
    """Move this process into a network and a mount namespace of its own; whether that was allowed.

    Call it before any thread is started: a namespace belongs to a thread and the threads it starts.
    """
    if os.geteuid() != 0 or _libc.unshare(_CLONE_NEWNET | _CLONE_NEWNS) != 0:
        return False
    _libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    try:
        _ip("link", "set", "lo", "up")
        _ip("link", "add", "gaia0", "type", "bridge")
        _ip("addr", "add", f"{SUBNET}.1/24", "dev", "gaia0")
        _ip("link", "set", "gaia0", "up")
    except NetworkFailed:
        return False
    return True


def _ip(*arguments: str, prefix: Sequence[str] = ()) -> str:
    done = subprocess.run(
        [*prefix, "ip", *arguments], capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise NetworkFailed(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


class Namespaces:
    """A namespace a node. Use only after `enter_namespaces`."""

    kind = "namespaces"

    def __init__(self) -> None:
        self._holders: dict[int, subprocess.Popen[bytes]] = {}
        self._cut: set[tuple[int, int]] = set()

    def add(self, number: int) -> None:
        """A process that does nothing but keep the namespace, and a cable from there to the bridge."""
        if number in self._holders:
            return
        holder = processes.spawn(["unshare", "--net", "sleep", "infinity"], death_signal=signal.SIGKILL)
        self._holders[number] = holder
        ends_s = time.monotonic() + HOLDER_TIMEOUT_S
        while not _is_elsewhere(holder.pid):
            if holder.poll() is not None or time.monotonic() > ends_s:
                raise NetworkFailed("unshare --net made no namespace")
            time.sleep(0.01)
        inside, cable = self.prefix(number), f"gaia{number + 1}"
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
        _ip("link", "set", cable, "master", "gaia0")
        _ip("link", "set", cable, "up")
        _ip("link", "set", "lo", "up", prefix=inside)
        _ip("link", "set", "eth0", "address", _hardware(number), prefix=inside)
        _ip("addr", "add", f"{self._host(number)}/24", "dev", "eth0", prefix=inside)
        _ip("link", "set", "eth0", "up", prefix=inside)

    def prefix(self, number: int) -> tuple[str, ...]:
        """Enter the namespace; the node keeps the process id."""
        return ("nsenter", f"--net=/proc/{self._holders[number].pid}/ns/net")

    def _host(self, number: int) -> str:
        return f"{SUBNET}.{FIRST_HOST + number}"

    def bind(self, number: int) -> str:
        """As the protocol says."""
        return f"{self._host(number)}:{RAFT_PORT}"

    def address(self, number: int) -> str:
        """The same: nothing stands between."""
        return self.bind(number)

    def http(self, number: int) -> str:
        """As the protocol says."""
        return f"{self._host(number)}:{HTTP_PORT}"

    async def cut(self, sender: int, receiver: int) -> None:
        """Send what is for the receiver to a card that nobody has."""
        await asyncio.to_thread(self._teach, sender, receiver, NOWHERE)
        self._cut.add((sender, receiver))

    async def heal(self) -> None:
        """Teach the right addresses again."""
        for sender, receiver in self._cut:
            await asyncio.to_thread(self._teach, sender, receiver, _hardware(receiver))
        self._cut.clear()

    def _teach(self, sender: int, receiver: int, hardware: str) -> None:
        arguments = ("neigh", "replace", self._host(receiver), "lladdr", hardware, "nud", "permanent")
        _ip(*arguments, "dev", "eth0", prefix=self.prefix(sender))

    async def close(self) -> None:
        """The namespaces go with their holders."""
        for holder in self._holders.values():
            holder.kill()
            holder.wait()
        self._holders.clear()


def _hardware(number: int) -> str:
    return f"02:00:00:00:00:{FIRST_HOST + number:02x}"


def _is_elsewhere(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
    except OSError:
        return False


class Proxies:
    """A proxy before each node."""

    kind = "proxies"

    def __init__(self) -> None:
        self.pids: Callable[[], dict[int, int]] = dict
        """Answers each node's process id by its number."""
        self._sockets: dict[int, socket.socket] = {}
        self._ports: dict[int, tuple[int, int]] = {}
        self._servers: list[asyncio.Server] = []
        self._cut: set[tuple[int, int]] = set()
        self._open = asyncio.Event()
        self._open.set()
        self._pipes: set[asyncio.Task[None]] = set()

    def add(self, number: int) -> None:
        """Listen for a node, and find it ports."""
        if number in self._sockets:
            return
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._sockets[number] = listener
        raft, http = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
        self._ports[number] = (raft.getsockname()[1], http.getsockname()[1])
        raft.close()
        http.close()

    async def serve(self) -> None:
        """Begin to pass on, for every node that was added since the last call."""
        for number in range(len(self._servers), len(self._sockets)):
            self._servers.append(await asyncio.start_server(self._accept(number), sock=self._sockets[number]))

    def _accept(
        self, number: int
    ) -> "Callable[[asyncio.StreamReader, asyncio.StreamWriter], asyncio.Future[None]]":
        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> "asyncio.Future[None]":
            task = asyncio.ensure_future(self._pass_on(number, reader, writer))
            self._pipes.add(task)
            task.add_done_callback(self._pipes.discard)
            return task

        return accepted

    async def _pass_on(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            port = writer.get_extra_info("peername")[1]
            dialler = await asyncio.to_thread(owner_of_port, port, self.pids())
            if dialler is None:
                return
            try:
                node = await asyncio.open_connection("127.0.0.1", self._ports[number][0])
            except OSError:
                return
            with contextlib.closing(node[1]):
                ways = [
                    asyncio.ensure_future(self._pipe(dialler, number, reader, node[1])),
                    asyncio.ensure_future(self._pipe(number, dialler, node[0], writer)),
                ]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()

    async def _pipe(
        self, sender: int, receiver: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES):
                while (sender, receiver) in self._cut:
                    self._open.clear()
                    await self._open.wait()
                writer.write(chunk)
                await writer.drain()

    def prefix(self, number: int) -> tuple[str, ...]:
        """Nothing: nodes run where we run."""
        return ()

    def bind(self, number: int) -> str:
        """Where the node really listens."""
        return f"127.0.0.1:{self._ports[number][0]}"

    def address(self, number: int) -> str:
        """The proxy."""
        return f"127.0.0.1:{self._sockets[number].getsockname()[1]}"

    def http(self, number: int) -> str:
        """As the protocol says."""
        return f"127.0.0.1:{self._ports[number][1]}"

    async def cut(self, sender: int, receiver: int) -> None:
        """Hold what one sends to the other."""
        self._cut.add((sender, receiver))

    async def heal(self) -> None:
        """Pass on what was held, as TCP would after a while."""
        self._cut.clear()
        self._open.set()

    async def close(self) -> None:
        """Stop listening, and end every connection."""
        for server in self._servers:
            server.close()
        for pipe in list(self._pipes):
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)
        for listener in self._sockets.values():
            listener.close()


def owner_of_port(port: int, pids: dict[int, int]) -> int | None:
    """The number of the node whose process has a connection from this local port."""
    inode = _inode_of(port)
    if inode is None:
        return None
    wanted = f"socket:[{inode}]"
    for number, pid in pids.items():
        try:
            if any(str(entry.readlink()) == wanted for entry in Path(f"/proc/{pid}/fd").iterdir()):
                return number
        except OSError:
            continue
    return None


def _inode_of(port: int) -> str | None:
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        parts = line.split()
        if re.fullmatch(f"[0-9A-F]{{8}}:{port:04X}", parts[1]):
            return parts[9]
    return None
