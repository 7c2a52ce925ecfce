"""The replicated log at its own interface, every answer durable: one member, three members, failover, idle cost.

Three members are three processes on this machine, driven inside the leader's process. Failover is from `kill -9` of
the leader to the first payload committed by a survivor. The disk's own sync time stands beside the figures.
Run: python -m bench.log
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from bench.figures import percentile, report
from coordination.log.contract import Committed, MemberSettings, Outcome, Peer
from coordination.log.raft import Member

PAYLOAD_BYTES = 100
WINDOWS = {1: 500, 64: 10_000, 2000: 40_000}
"""Payloads outstanding, and how many of them in a run."""
RUNS = 3
FAILOVERS = 30
IDLE_S = 5.0
SYNCS = 300
SECRET = "a secret for benchmarks alone"
LIMIT_S = 60.0


class Counter:
    """The cheapest machine."""

    def __init__(self) -> None:
        self.count = 0

    def apply(self, payload: bytes) -> object:
        self.count += 1
        return self.count

    def snapshot(self) -> bytes:
        return b"%d" % self.count

    def restore(self, data: bytes) -> None:
        self.count = int(data)


def drive(member: Member, count: int, window: int) -> dict[str, float]:
    """Keep `window` payloads outstanding until `count` are committed."""
    room, latencies, payload = threading.Semaphore(window), [], bytes(PAYLOAD_BYTES)
    all_done = threading.Event()

    def propose() -> None:
        asked = time.perf_counter()

        def answer(outcome: Outcome) -> None:
            assert isinstance(outcome, Committed), outcome
            latencies.append(time.perf_counter() - asked)
            room.release()
            if len(latencies) == count:
                all_done.set()

        member.propose(payload, answer)

    started = time.perf_counter()
    for _ in range(count):
        room.acquire()
        propose()
    assert all_done.wait(LIMIT_S), "not all payloads were committed"
    taken = time.perf_counter() - started
    return {
        "rate": count / taken,
        "p50_ms": percentile(latencies, 0.5) * 1000,
        "p99_ms": percentile(latencies, 0.99) * 1000,
    }


def commit_once(member: Member) -> float:
    """Monotonic time at which a payload proposed here was first committed."""
    is_done, moments = threading.Event(), []

    def answer(outcome: Outcome) -> None:
        if isinstance(outcome, Committed):
            moments.append(time.monotonic())
        is_done.set()

    deadline = time.monotonic() + LIMIT_S
    while not moments:
        assert time.monotonic() < deadline, "nothing was committed"
        is_done.clear()
        member.propose(bytes(PAYLOAD_BYTES), answer)
        is_done.wait(LIMIT_S)
        if not moments:
            time.sleep(0.001)
    return moments[0]


def load(member: Member, window: int) -> None:
    """Keep `window` payloads outstanding for ever, whatever becomes of them."""
    room = threading.Semaphore(window)

    def answered(outcome: Outcome) -> None:
        if not isinstance(outcome, Committed):
            time.sleep(0.0005)  # without a leader it is refused at once
        room.release()

    while True:
        room.acquire()
        member.propose(bytes(PAYLOAD_BYTES), answered)


def serve(options: dict[str, Any]) -> None:
    """A member's process: one JSON request a line, one JSON answer a line."""
    peers = tuple(Peer(*peer) for peer in options.pop("peers"))
    settings = MemberSettings(
        data_dir=Path(options.pop("data_dir")), peers=peers, max_waiting=100_000, **options
    )
    member = Member(settings, Counter(), on_stopped=lambda error: os._exit(3) if error else None)
    member.start()
    for line in sys.stdin:
        request = json.loads(line)
        if request["op"] == "drive":
            answer: object = drive(member, request["count"], request["window"])
        elif request["op"] == "commit":
            answer = commit_once(member)
        elif request["op"] == "load":
            threading.Thread(target=load, args=(member, request["window"]), daemon=True).start()
            answer = True
        elif request["op"] == "term":
            answer = member.status().term
        else:
            answer = member.status().role
        print(json.dumps(answer), flush=True)
    member.stop()


class Process:
    def __init__(self, options: dict[str, Any]) -> None:
        command = [sys.executable, "-m", "bench.log", json.dumps(options)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **request: object) -> Any:
        self.send(**request)
        return self.hear()

    def send(self, **request: object) -> None:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        line = self.process.stdout.readline()
        assert line, f"the member ended with {self.process.wait(10)}"
        return json.loads(line)

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self, number: signal.Signals = signal.SIGKILL) -> float:
        moment = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(10)
        self.process.stdin.close()
        self.process.stdout.close()
        return moment


class Cluster:
    def __init__(self, folder: Path, size: int, **settings: float) -> None:
        self.folder, self.settings = folder, settings
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(size)]
        self.addresses = {f"n{n}": f"127.0.0.1:{s.getsockname()[1]}" for n, s in enumerate(sockets, 1)}
        for each in sockets:
            each.close()
        self.running: dict[str, Process] = {}
        for name in self.addresses:
            self.start(name)

    def start(self, name: str) -> None:
        peers = [(other, address) for other, address in self.addresses.items() if other != name]
        options = {"node_id": name, "data_dir": str(self.folder / name), "peers": peers}
        self.running[name] = Process(
            options | {"secret": SECRET, "bind": self.addresses[name]} | self.settings
        )

    def leader(self) -> str:
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            for name, process in self.running.items():
                if process.ask(op="role") == "leader":
                    return name
            time.sleep(0.01)
        raise AssertionError("no leader was elected")

    def close(self) -> None:
        for process in self.running.values():
            process.end()


def sync_ms(folder: Path) -> float:
    """The median time of the disk itself for what a step does: append a little, fdatasync."""
    taken = []
    descriptor = os.open(folder / "sync", os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(descriptor, 0, SYNCS * 4096)
    os.fsync(descriptor)
    for _ in range(SYNCS):
        os.write(descriptor, bytes(512))
        started = time.perf_counter()
        os.fdatasync(descriptor)
        taken.append((time.perf_counter() - started) * 1000)
    os.close(descriptor)
    return percentile(taken, 0.5)


def throughput(cluster: Cluster, members: str) -> None:
    for window, count in WINDOWS.items():
        found = [
            cluster.running[cluster.leader()].ask(op="drive", count=count, window=window) for _ in range(RUNS)
        ]
        more = {"outstanding": window, "payload_bytes": PAYLOAD_BYTES}
        report("log", f"payloads committed, {members}", [run["rate"] for run in found], "1/s", **more)
        report("log", f"commit p50, {members}", [run["p50_ms"] for run in found], "ms", **more)
        report("log", f"commit p99, {members}", [run["p99_ms"] for run in found], "ms", **more)


def idle(cluster: Cluster) -> None:
    time.sleep(1.0)
    before = {name: process.cpu_s() for name, process in cluster.running.items()}
    time.sleep(IDLE_S)
    leader = cluster.leader()
    shares = {name: (p.cpu_s() - before[name]) / IDLE_S * 100 for name, p in cluster.running.items()}
    report("log", "idle leader", [shares.pop(leader)], "% of a core", members=len(cluster.running))
    if shares:
        report("log", "idle follower", list(shares.values()), "% of a core", members=len(cluster.running))


def failover(cluster: Cluster) -> None:
    taken = []
    for _ in range(FAILOVERS):
        leader = cluster.leader()
        killed = cluster.running.pop(leader).end()
        for process in cluster.running.values():
            process.send(op="commit")
        taken.append((min(process.hear() for process in cluster.running.values()) - killed) * 1000)
        cluster.start(leader)
        cluster.running[leader].ask(op="commit")
    report("log", "failover median", taken, "ms")
    report("log", "failover p99", [percentile(taken, 0.99)], "ms", trials=FAILOVERS)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="gaia-bench-") as folder:
        report("log", "disk sync p50", [sync_ms(Path(folder)) for _ in range(RUNS)], "ms")
        for size, members in ((1, "one member"), (3, "three members")):
            cluster = Cluster(Path(folder) / members.replace(" ", "-"), size)
            try:
                cluster.leader()
                throughput(cluster, members)
                idle(cluster)
                if size > 1:
                    failover(cluster)
            finally:
                cluster.close()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(json.loads(sys.argv[1]))
    else:
        main()
