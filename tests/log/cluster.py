"""Three members as processes of their own on loopback, each with a data directory, to be killed and restarted."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.log.net import free_ports, wait_until

ROOT = Path(__file__).parents[2]
SECRET = "a secret that all members share"


class NodeProcess:
    """One running process; answers are collected by a reading thread."""

    def __init__(self, options: dict[str, object]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.log.node", json.dumps(options)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._count = 0
        self._lock = threading.Lock()
        self.answers: dict[int, dict] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout:
            if line.endswith("\n"):
                answer = json.loads(line)
                self.answers[answer["id"]] = answer

    def send(self, **request: object) -> int:
        """Returns the request's id; a process that is gone answers nothing."""
        with self._lock:
            self._count += 1
            try:
                self._process.stdin.write(json.dumps({"id": self._count, **request}) + "\n")
                self._process.stdin.flush()
            except (BrokenPipeError, ValueError):
                pass
            return self._count

    def ask(self, limit_s: float = 10.0, **request: object) -> dict:
        number = self.send(**request)
        deadline = time.monotonic() + limit_s
        while number not in self.answers:
            if time.monotonic() > deadline or self._process.poll() is not None:
                return {"outcome": "gone"}
            time.sleep(0.001)
        return self.answers[number]

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self) -> None:
        self._process.kill()
        self._process.wait(10)
        self._reader.join(10)
        self._process.stdin.close()
        self._process.stdout.close()


class Cluster:
    def __init__(self, folder: Path, size: int = 3, **settings: object) -> None:
        self._folder, self._settings = folder, settings
        self.names = [f"n{number}" for number in range(1, size + 1)]
        self._ports = dict(zip(self.names, free_ports(size), strict=True))
        self.nodes: dict[str, NodeProcess] = {}

    def start(self, *names: str) -> None:
        for name in names or self.names:
            peers = [(other, f"127.0.0.1:{port}") for other, port in self._ports.items() if other != name]
            options = {
                "node_id": name,
                "data_dir": str(self._folder / name),
                "secret": SECRET,
                "peers": peers,
            }
            options |= {"bind": f"127.0.0.1:{self._ports[name]}", **self._settings}
            self.nodes[name] = NodeProcess(options)

    def kill(self, *names: str) -> None:
        for name in names:
            self.nodes.pop(name).end()

    def wipe(self, name: str) -> None:
        shutil.rmtree(self._folder / name)

    def close(self) -> None:
        self.kill(*list(self.nodes))

    def status(self, name: str) -> dict:
        return self.nodes[name].ask(op="status")

    def items(self, name: str) -> list[str]:
        return self.nodes[name].ask(op="items").get("items", [])

    def leader(self) -> str | None:
        return next((name for name in list(self.nodes) if self.status(name).get("role") == "leader"), None)

    def wait_for_leader(self) -> str:
        wait_until(lambda: self.leader() is not None, "a leader")
        return self.leader() or self.wait_for_leader()

    def write(self, payload: str, limit_s: float = 15.0) -> str:
        """Propose it under new payloads (`payload`, `payload+`, …) until one is committed; returns that."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            for name in list(self.nodes):
                if self.nodes[name].ask(op="propose", payload=payload).get("outcome") == "Committed":
                    return payload
                payload += "+"
            time.sleep(0.02)
        raise AssertionError(f"nothing was committed within {limit_s} s")

    def wait_for_agreement(self) -> list[str]:
        """Until all running members have the same items, of which there are some."""
        wait_until(
            lambda: len({tuple(self.items(name)) for name in self.nodes}) == 1,
            "the same items everywhere",
            30.0,
        )
        return self.items(next(iter(self.nodes)))
