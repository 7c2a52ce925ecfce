"""The folder of one embedded system (`.gaia`): its lock, its secrets, the ports of its nodes, what runs."""

from __future__ import annotations

import fcntl
import json
import os
import random
import secrets
import signal
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from gaia_site.embedded import processes

START_TIME_TOLERANCE_S = 1.0
NODE_PORTS = range(20_000, 30_000)
"""Below the ports that the kernel hands to clients, so that a remembered one is free at the next start."""

_PORT_ATTEMPTS = 200


class AlreadyRunning(Exception):
    """Another `up` holds the lock. The message names it."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """What signs cookies and authenticates nodes in this system; made once."""

    secret_key: str
    cluster_secret: str


@dataclass(frozen=True, slots=True)
class NodeAddresses:
    """A Raft node's name and its two addresses on the loopback: for its peers, for web."""

    node_id: str
    raft: str
    http: str

    @property
    def url(self) -> str:
        """Where web reaches it."""
        return f"http://{self.http}"


class DataFolder:
    """`.gaia`. Made by us, never readable by others; the servers' account may pass it where root runs them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    def make(self) -> None:
        """Make the folder."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o711 if os.geteuid() == 0 else 0o700)

    def lock(self) -> None:
        """Hold the folder until this process ends, however it ends. Raises AlreadyRunning."""
        opened = (self.path / "lock").open("a+")
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            opened.seek(0)
            holder = opened.read().strip() or "unknown"
            opened.close()
            url = self.read("run.json").get("url", "its start")
            raise AlreadyRunning(f"This system runs already: process {holder}, at {url}.") from None
        opened.truncate(0)
        opened.write(f"{os.getpid()}\n")
        opened.flush()
        self._lock = opened

    def read(self, name: str) -> dict[str, Any]:
        """The JSON object in a file; empty where it is not there or was cut short."""
        try:
            found = json.loads((self.path / name).read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Replace a JSON file in one step, readable by us alone."""
        self.write_text(name, json.dumps(content, indent=2) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Replace a file in one step, readable by us alone."""
        unfinished = self.path / f".{name}.{os.getpid()}"
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        unfinished.replace(self.path / name)

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""
        (self.path / name).unlink(missing_ok=True)

    def secrets(self) -> Secrets:
        """The secrets of this system, made at the first call."""
        found = self.read("secrets.json")
        wanted = {
            name: found.get(name) or secrets.token_urlsafe(48) for name in ("secret_key", "cluster_secret")
        }
        if wanted != found:
            self.write("secrets.json", wanted)
        return Secrets(**wanted)

    def node_addresses(self, count: int) -> list[NodeAddresses]:
        """Addresses for nodes 1 to `count`: those of the last start, unless somebody else took a port meanwhile."""
        remembered = self.read("nodes.json").get("nodes", [])
        nodes = [NodeAddresses(**entry) for entry in remembered]
        taken = {int(address.rpartition(":")[2]) for node in nodes for address in (node.raft, node.http)}
        for index in range(max(count, len(nodes))):
            if index < len(nodes) and all(map(_is_free, (nodes[index].raft, nodes[index].http))):
                continue
            fresh = NodeAddresses(f"node-{index + 1}", _free_address(taken), _free_address(taken))
            nodes[index : index + 1] = [fresh]
        self.write("nodes.json", {"nodes": [asdict(node) for node in nodes]})
        return nodes[:count]

    def end_left_behind(self) -> list[str]:
        """End what an earlier `up` that was killed left running; returns the names. The lock must be in hand.

        A process is taken for ours only if it began when `run.json` says that ours did: numbers are used again.
        """
        ended = []
        for entry in [*self.read("run.json").get("processes", []), *self.read("run.json").get("others", [])]:
            if entry.get("role") in {"up", "postgres", "redis"}:
                continue  # the servers' own modules know them better
            began = processes.started_at(entry["pid"])
            if began is None or abs(began - entry.get("started_at", 0)) > START_TIME_TOLERANCE_S:
                continue
            processes.end(entry["pid"], (signal.SIGTERM, 15), (signal.SIGKILL, 5))
            ended.append(entry["name"])
        return ended


def _free_address(taken: set[int]) -> str:
    """A loopback address whose port nobody holds and that is not in `taken`, which it joins."""
    for _ in range(_PORT_ATTEMPTS):
        port = random.choice(NODE_PORTS)
        address = f"127.0.0.1:{port}"
        if port not in taken and _is_free(address):
            taken.add(port)
            return address
    raise AlreadyRunning(f"No free port was found among {NODE_PORTS.start} to {NODE_PORTS.stop - 1}.")


def _is_free(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            return False
    return True
