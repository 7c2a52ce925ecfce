"""Our cluster beside etcd, PostgreSQL's FOR UPDATE SKIP LOCKED and procrastinate: one run, one machine, one disk.

Three nodes of ours and three of etcd, each answer durable on a majority; PostgreSQL alone, `synchronous_commit` on.
A *claim* takes one piece of work for one owner: a TaskClaim here, a create-if-absent transaction in etcd, an update
of one row in PostgreSQL. A *pair* is a claim and its completion. One client process with an event loop asks all of
them, so that what the client costs is much the same. etcd is asked through its JSON gateway.

Needs the `etcd` program (Debian: etcd-server); without it, and without a network for procrastinate, their rows are
left out and said so. Run: python -m bench.peers [--seconds 2] [--only ours etcd postgresql procrastinate] [--jsonl FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

import psycopg

from bench.figures import percentile
from bench.log import sync_ms
from bench.nodes import ROOT, SECRET, Nodes, free_ports
from coordination.log import protocol
from coordination.log.client import AsyncNodeClient
from coordination.machine.commands import (
    AnyCommand,
    SessionHeartbeat,
    SessionRegister,
    TaskClaim,
    TaskComplete,
    TaskEnqueue,
    TaskSpec,
)
from gaia_site.embedded.servers import servers_in

CALLERS = (1, 8, 64)
CONNECTIONS = (1, 8, 32)
SESSIONS = 64
BATCH = 100
TASKS_DEFERRED = 2_000
PROCRASTINATE = "procrastinate"
LIMIT_S = 120.0
RETRIES_MAX = 2_000
NODE_SETTINGS = {
    "SESSION_LEASE_TIMEOUT": "600s",
    "SESSION_HEARTBEAT_INTERVAL": "250s",
    # The profile *steady*: etcd's own election timeout is one second.
    "RAFT_HEARTBEAT_TIMEOUT": "500ms",
    "RAFT_ELECTION_TIMEOUT": "1s",
}

Work = Callable[[int], Awaitable[int]]
"""One call by the caller of this number; how many units of work it did, 0 to stop this caller."""


class Table:
    """The rows of the run, printed as they come."""

    def __init__(self, disk_sync_ms: float) -> None:
        self.rows: list[dict[str, Any]] = []
        self._disk_sync_ms = round(disk_sync_ms, 3)

    def add(self, system: str, what: str, callers: int, rate: float, latencies: list[float]) -> None:
        row = {
            "system": system,
            "what": what,
            "callers": callers,
            "rate_per_s": round(rate),
            "p50_ms": round(percentile(latencies, 0.5) * 1000, 2) if latencies else None,
            "p99_ms": round(percentile(latencies, 0.99) * 1000, 2) if latencies else None,
            "disk_sync_ms": self._disk_sync_ms,
            "load1": round(os.getloadavg()[0], 1),
        }
        self.rows.append(row)
        print(json.dumps({"bench": "peers", **row}), flush=True)

    def rate(self, system: str, what: str, callers: int) -> float | None:
        found = [
            row
            for row in self.rows
            if (row["system"], row["what"], row["callers"]) == (system, what, callers)
        ]
        return found[0]["rate_per_s"] if found else None

    def ratios(self) -> None:
        """Ours by theirs, for the comparisons that are goals."""
        for what, ours, theirs in (
            ("claims, 64 callers, by etcd's", ("ours", "claims", 64), ("etcd", "claims", 64)),
            (
                "pairs, 64 callers, by SKIP LOCKED's, 32 connections",
                ("ours", "pairs", 64),
                ("postgresql", "pairs", 32),
            ),
            (
                "pairs in hundreds, by SKIP LOCKED's",
                ("ours", "pairs in hundreds", 8),
                ("postgresql", "pairs in hundreds", 8),
            ),
        ):
            mine, other = self.rate(*ours), self.rate(*theirs)
            if mine and other:
                print(
                    json.dumps({"bench": "peers", "ratio": what, "value": round(mine / other, 2)}), flush=True
                )


async def closed_loop(callers: int, work: Work, seconds: float) -> tuple[float, list[float]]:
    """Units a second of so many callers, each of whom asks again as soon as it is answered; and the latencies."""
    latencies: list[float] = []
    done = 0
    started = time.perf_counter()

    async def call(number: int) -> None:
        nonlocal done
        while time.perf_counter() - started < seconds:
            asked = time.perf_counter()
            units = await work(number)
            if not units:
                return
            latencies.append(time.perf_counter() - asked)
            done += units

    await asyncio.wait_for(asyncio.gather(*map(call, range(callers))), LIMIT_S)
    return done / (time.perf_counter() - started), latencies


class Http:
    """One kept connection, one request at a time."""

    def __init__(self, url: str) -> None:
        self._netloc = url.partition("://")[2]

    async def open(self) -> Http:
        host, _, port = self._netloc.partition(":")
        self._reader, self._writer = await asyncio.open_connection(host, int(port))
        return self

    async def post(self, path: str, body: bytes, headers: str = "") -> bytes:
        """The content of a good answer; asked again while there is no leader (503)."""
        for _ in range(RETRIES_MAX):
            answer = await self._ask(path, body, headers)
            if answer is not None:
                return answer
            await asyncio.sleep(0.005)
        raise AssertionError(f"no leader within {RETRIES_MAX} tries")

    async def _ask(self, path: str, body: bytes, headers: str) -> bytes | None:
        head = f"POST {path} HTTP/1.1\r\nHost: {self._netloc}\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = next(
            (line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:")), None
        )
        if length is None:  # chunked, one chunk
            content = await self._reader.readuntil(b"\r\n0\r\n\r\n")
        else:
            content = await self._reader.readexactly(int(length.partition(b":")[2]))
        status = answer[9:12]
        assert status in (b"200", b"503"), (answer, content)
        return None if status == b"503" else content

    def close(self) -> None:
        self._writer.close()


# Ours


class Ours:
    """Callers of the leader's node interface in one process; its client folds what arrives together."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = AsyncNodeClient([url], SECRET)
        self.tokens: dict[str, int] = {}
        self.sessions: list[itertools.cycle[str]] = []
        self.held: list[list[tuple[str, int]]] = []
        self._number = 0

    async def one(self, command: AnyCommand) -> Any:
        (outcome,) = await self.client.submit([command])
        return outcome.value

    async def register(self, number: int) -> int:
        self._number += 1
        name = f"agent/{self._number}"
        answer = await self.one(
            SessionRegister(
                request_id=os.urandom(16),
                session_id=name,
                session_name=name,
                max_concurrent_tasks=1000,
            )
        )
        self.tokens[name] = answer.lease_token
        return 1

    async def heartbeat(self, name: str) -> None:
        await self.one(SessionHeartbeat(session_name=name, lease_token=self.tokens[name]))

    async def heartbeats(self, number: int) -> int:
        names = list(self.tokens)[:2000]
        await asyncio.gather(*map(self.heartbeat, names))
        return len(names)

    async def enqueue(self, count: int) -> None:
        for _ in range(0, count, 1000):
            await self.client.submit(
                [
                    TaskEnqueue(
                        request_id=os.urandom(16),
                        task_id=os.urandom(16).hex(),
                        spec=TaskSpec(task_type="bench"),
                    )
                    for _ in range(1000)
                ]
            )

    def seat(self, callers: int) -> None:
        """Give each caller its sessions."""
        names = list(self.tokens)[:SESSIONS]
        self.sessions = [itertools.cycle(names[number::callers]) for number in range(callers)]
        self.held = [[] for _ in range(callers)]

    def claim_command(self, number: int, tasks: int = 1) -> TaskClaim:
        name = next(self.sessions[number])
        return TaskClaim(
            request_id=os.urandom(16), session_name=name, lease_token=self.tokens[name], max_tasks=tasks
        )

    def complete_command(self, task: tuple[str, int]) -> TaskComplete:
        return TaskComplete(request_id=os.urandom(16), task_id=task[0], claim_token=task[1])

    def take(self, number: int, answer: Any) -> int:
        self.held[number] += [(grant.task_id, grant.claim_token) for grant in answer.grants]
        return len(answer.grants)

    async def claim(self, number: int) -> int:
        return self.take(number, await self.one(self.claim_command(number)))

    async def complete(self, number: int) -> int:
        if not self.held[number]:
            return 0
        await self.one(self.complete_command(self.held[number].pop()))
        return 1

    async def pair_of_hundreds(self, number: int) -> int:
        count = self.take(number, await self.one(self.claim_command(number, BATCH)))
        await self.client.submit([self.complete_command(task) for task in self.held[number]])
        self.held[number].clear()
        return count


async def requests_alone(ours: Ours, callers: int, seconds: float) -> tuple[float, list[float]]:
    """Claims with one command a request, each caller with a connection of its own: no folding by the client."""
    key = protocol.derive_key(SECRET)
    connections = [await Http(ours.url).open() for _ in range(callers)]

    async def claim(number: int) -> int:
        body = protocol.encode(protocol.Submit([ours.claim_command(number)]))
        signature = protocol.sign(key, "POST", "/commands", body, time.time_ns() // 1_000_000)
        answer = await connections[number].post("/commands", body, f"Authorization: {signature}\r\n")
        return ours.take(number, protocol.decode_submitted(answer).outcomes[0].value)  # type: ignore[union-attr]

    try:
        return await closed_loop(callers, claim, seconds)
    finally:
        for connection in connections:
            connection.close()


async def measure_ours(table: Table, url: str, seconds: float) -> None:
    ours = Ours(url)
    for number in range(SESSIONS):
        await ours.register(number)
    for callers in CALLERS:
        await ours.enqueue(40_000 if callers > 8 else 20_000)
        ours.seat(callers)
        claim_rate, claim_s = await closed_loop(callers, ours.claim, seconds)
        table.add("ours", "claims", callers, claim_rate, claim_s)
        complete_rate, complete_s = await closed_loop(callers, ours.complete, LIMIT_S)
        table.add("ours", "completes", callers, complete_rate, complete_s)
        table.add("ours", "pairs", callers, 1 / (1 / claim_rate + 1 / complete_rate), [])
    await ours.enqueue(40_000)
    for callers in CALLERS[1:]:
        ours.seat(callers)
        rate, latencies = await requests_alone(ours, callers, seconds)
        table.add("ours", "claims, one command a request", callers, rate, latencies)
        await closed_loop(callers, ours.complete, LIMIT_S)
    await ours.enqueue(60_000)
    ours.seat(8)
    rate, latencies = await closed_loop(8, ours.pair_of_hundreds, seconds)
    table.add("ours", "pairs in hundreds", 8, rate, latencies)
    rate, latencies = await closed_loop(64, ours.register, seconds)
    table.add("ours", "registers", 64, rate, latencies)
    rate, latencies = await closed_loop(2, ours.heartbeats, seconds)
    table.add("ours", "heartbeats, folded", 4000, rate, latencies)
    await ours.client.close()


# etcd


class Etcd:
    """Three members; use as a context manager."""

    def __init__(self, folder: Path) -> None:
        client, peer = free_ports(3), free_ports(3)
        self.urls = [f"http://127.0.0.1:{port}" for port in client]
        cluster = ",".join(f"e{number}=http://127.0.0.1:{port}" for number, port in enumerate(peer))
        self._commands = [
            [
                *("etcd", "--name", f"e{number}", "--data-dir", str(folder / f"e{number}")),
                *("--listen-client-urls", self.urls[number], "--advertise-client-urls", self.urls[number]),
                *("--listen-peer-urls", f"http://127.0.0.1:{peer[number]}"),
                *("--initial-advertise-peer-urls", f"http://127.0.0.1:{peer[number]}"),
                *("--initial-cluster", cluster, "--logger", "zap", "--log-level", "error"),
            ]
            for number in range(3)
        ]
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self._processes = [
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for command in self._commands
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    async def leader_url(self) -> str:
        ends_s = time.monotonic() + 30
        while time.monotonic() < ends_s:
            for url in self.urls:
                try:
                    connection = await Http(url).open()
                    status = json.loads(await connection.post("/v3/maintenance/status", b"{}"))
                    connection.close()
                except (OSError, AssertionError, asyncio.IncompleteReadError):
                    continue
                if status.get("leader", "0") == status["header"]["member_id"]:
                    return url
            await asyncio.sleep(0.1)
        raise AssertionError("etcd elected no leader within 30 s")


def text(value: bytes) -> str:
    return base64.b64encode(value).decode()


async def measure_etcd(table: Table, etcd: Etcd, seconds: float) -> None:
    url = await etcd.leader_url()
    connections = [await Http(url).open() for _ in range(max(CALLERS))]
    value = text(bytes(64))

    async def claim(number: int) -> int:
        key = text(os.urandom(16))
        body = {
            "compare": [{"key": key, "result": "EQUAL", "target": "CREATE", "create_revision": "0"}],
            "success": [{"requestPut": {"key": key, "value": value}}],
        }
        answer = json.loads(await connections[number].post("/v3/kv/txn", json.dumps(body).encode()))
        assert answer["succeeded"], answer
        return 1

    async def put(number: int) -> int:
        body = {"key": text(os.urandom(16)), "value": value}
        await connections[number].post("/v3/kv/put", json.dumps(body).encode())
        return 1

    leases: list[str] = []

    async def grant(number: int) -> int:
        leases.append(json.loads(await connections[number].post("/v3/lease/grant", b'{"TTL": 600}'))["ID"])
        return 1

    async def keep_alive(number: int) -> int:
        body = json.dumps({"ID": leases[number % len(leases)]}).encode()
        await connections[number].post("/v3/lease/keepalive", body)
        return 1

    for callers in CALLERS:
        for what, work in (("claims", claim), ("puts", put)):
            table.add("etcd", what, callers, *await closed_loop(callers, work, seconds))
    table.add("etcd", "lease grants", 64, *await closed_loop(64, grant, seconds))
    table.add("etcd", "keepalives", 64, *await closed_loop(64, keep_alive, seconds))
    for connection in connections:
        connection.close()


# PostgreSQL and procrastinate

CLAIM = """UPDATE work SET state = 1, owner = %s WHERE id IN (
    SELECT id FROM work WHERE state = 0 ORDER BY id FOR UPDATE SKIP LOCKED LIMIT %s) RETURNING id"""
COMPLETE = "UPDATE work SET state = 2 WHERE id = ANY(%s)"


async def measure_postgresql(table: Table, url: str, seconds: float) -> None:
    connections = [
        await psycopg.AsyncConnection.connect(url, autocommit=True) for _ in range(max(CONNECTIONS))
    ]
    await connections[0].execute(
        "CREATE TABLE work (id bigserial PRIMARY KEY, state int NOT NULL, owner text)"
    )
    await connections[0].execute("CREATE INDEX work_open ON work (id) WHERE state = 0")

    def pair_of(rows: int) -> Work:
        async def pair(number: int) -> int:
            connection = connections[number]
            claimed = await (await connection.execute(CLAIM, (str(number), rows))).fetchall()
            await connection.execute(COMPLETE, ([row[0] for row in claimed],))
            return len(claimed)

        return pair

    async def fill(rows: int) -> None:
        await connections[0].execute("TRUNCATE work")
        await connections[0].execute("INSERT INTO work (state) SELECT 0 FROM generate_series(1, %s)", (rows,))
        await connections[0].execute("VACUUM ANALYZE work")

    for count in CONNECTIONS:
        await fill(100_000)
        table.add("postgresql", "pairs", count, *await closed_loop(count, pair_of(1), seconds))
    await fill(400_000)
    table.add("postgresql", "pairs in hundreds", 8, *await closed_loop(8, pair_of(BATCH), seconds))
    for connection in connections:
        await connection.close()


DEFER_AND_WORK = """
import asyncio, sys, time
from procrastinate import App, PsycopgConnector
app = App(connector=PsycopgConnector(conninfo=sys.argv[1]))

@app.task(name="nothing")
async def nothing(number):
    pass

async def main(count, concurrency):
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        await nothing.batch_defer_async(*({"number": n} for n in range(count)))
        started = time.perf_counter()
        await app.run_worker_async(wait=False, concurrency=concurrency, install_signal_handlers=False)
        print(count / (time.perf_counter() - started))

asyncio.run(main(int(sys.argv[2]), int(sys.argv[3])))
"""


def measure_procrastinate(table: Table, url: str) -> None:
    home = ROOT / ".gaia" / "bench-procrastinate"
    python = home / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True, timeout=LIMIT_S)
        install = [str(python), "-m", "pip", "install", "-q", PROCRASTINATE, "psycopg[binary]"]
        subprocess.run(install, check=True, timeout=LIMIT_S)
    work = [str(python), "-c", DEFER_AND_WORK, url, str(TASKS_DEFERRED), "8"]
    done = subprocess.run(work, check=True, timeout=LIMIT_S, capture_output=True, text=True)
    table.add("procrastinate", "tasks", 8, float(done.stdout.split()[-1]), [])


def left_out(system: str, why: str) -> None:
    print(json.dumps({"bench": "peers", "system": system, "left_out": why}), flush=True)


def with_database(table: Table, folder: Path, only: list[str], seconds: float) -> None:
    home = folder / "servers"
    home.mkdir(mode=0o711)
    servers = servers_in(home)
    servers.start()
    try:
        if "postgresql" in only:
            asyncio.run(measure_postgresql(table, servers.postgres.url, seconds))
        if "procrastinate" in only:
            try:
                measure_procrastinate(table, servers.postgres.url)
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
                left_out("procrastinate", f"{error}: {(error.stderr or '')[-300:]}")
    finally:
        servers.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--jsonl", type=Path, help="the rows are added to this file")
    systems = ["ours", "etcd", "postgresql", "procrastinate"]
    parser.add_argument("--only", nargs="+", choices=systems, default=systems)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="gaia-bench-"))
    folder.chmod(0o711)
    try:
        table = Table(sync_ms(folder))
        if "ours" in options.only:
            with Nodes(folder, **NODE_SETTINGS) as nodes:
                asyncio.run(measure_ours(table, nodes.leader_url(), options.seconds))
        if "etcd" in options.only and shutil.which("etcd") is None:
            left_out("etcd", "the program is not installed (Debian: etcd-server)")
        elif "etcd" in options.only:
            with Etcd(folder) as etcd:
                asyncio.run(measure_etcd(table, etcd, options.seconds))
        if {"postgresql", "procrastinate"} & set(options.only):
            with_database(table, folder, options.only, options.seconds)
        table.ratios()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.jsonl:
        options.jsonl.parent.mkdir(parents=True, exist_ok=True)
        with options.jsonl.open("a") as file:
            file.writelines(json.dumps({"at": time.time(), **row}) + "\n" for row in table.rows)


if __name__ == "__main__":
    main()
