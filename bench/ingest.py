"""Metrics through `POST usability/metrics` in batches of 500, sustained, every row counted in the table.

Goal: 100,000/s for 60 s on two cores, and a single metric accepted in 2 ms (p99) at light load. The client, the
web process and PostgreSQL share the machine. Beside it, in turn: rows of the same kind by COPY alone into the same
table with its indexes, over one connection and over two, 5,000 rows a commit, sorted by learner: what the table itself
can take. Goals: 0.7 of the one, 0.45 of the other. The hand-over to detection is on, its worker is not: a second system, with
everything on, follows; `bench.detection` measures that.

Run: python -m bench.ingest [--seconds 60] [--runs 3]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import threading
import time
from urllib.parse import urlsplit

import psutil
import psycopg

from bench.figures import percentile, report
from bench.system import running_system
from tests.running import Up
from usability.ingest.copy import COPY_HEADER, COPY_STATEMENT, COPY_TRAILER, Encoder, ids_from
from usability.ingest.decode import Metadata, Metric

BENCH = "ingest"
APP = "fractions-lab"
BATCH = 500
COMMIT_ROWS = 5_000
CONNECTIONS = 32
STUDENTS = 3_000
BODIES = 64
SINGLES = 1_500
WARM_UP_S = 3.0
RAW_S = 4.0
RAW_COMMITS = 10
RAW_RATE = 300_000
"""So many rows a second are encoded beforehand for COPY alone; more are not measured."""
TYPES = ("keypress", "backspace", "mouse_movement", "answer", "hesitation")


def metrics(chance: random.Random) -> list[Metric]:
    """A batch as a busy app's server would send it: many learners, details with every other metric."""
    batch = []
    for number in range(BATCH):
        student = chance.randrange(STUDENTS)
        details = Metadata(item=f"item-{number % 50}", skill="fractions", seq=number) if number % 2 else None
        batch.append(
            Metric(
                f"stu-{student:05}", APP, chance.choice(TYPES), 1.0, None, f"sitting-{student:05}", details
            )
        )
    return batch


def as_json(batch: list[Metric]) -> bytes:
    """The list of a request's body; each metric says when it happened."""
    return json.dumps(
        [{name: value for name, value in shown(one).items() if value is not None} for one in batch]
    ).encode()


def shown(metric: Metric) -> dict[str, object]:
    whole: dict[str, object] = {name: getattr(metric, name) for name in metric.__struct_fields__}
    whole["timestamp"] = time.strftime("%Y-%m-%dT%H:%M:%S.123Z", time.gmtime())
    if metric.metadata is not None:
        whole["metadata"] = {
            "item": metric.metadata.item,
            "skill": metric.metadata.skill,
            "seq": metric.metadata.seq,
        }
    return whole


class Client:
    """One kept connection that speaks as much HTTP as is needed, for the client shall cost little."""

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        self._head = (
            f"POST /api/v1/usability/metrics HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: "
        ).encode()

    async def connect(self) -> Client:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def post(self, body: bytes) -> tuple[int, bytes]:
        self._writer.write(self._head + str(len(body)).encode() + b"\r\n\r\n" + body)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        return int(head[9:12]), await self._reader.readexactly(int(length.partition(b":")[2]))


class Load:
    """Batches from some connections at once, each with an id of its own."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self._key = url, key
        chance = random.Random(7)
        self._bodies = [as_json(metrics(chance)) for _ in range(BODIES)]
        self.accepted = 0
        self.refused = 0
        self.latencies_ms: list[float] = []

    async def run(self, seconds: float) -> float:
        """Metrics accepted a second."""
        self.accepted, self.refused, self.latencies_ms = 0, 0, []
        begun = time.perf_counter()
        await asyncio.gather(*(self._send(number, begun + seconds) for number in range(CONNECTIONS)))
        return self.accepted / (time.perf_counter() - begun)

    async def _send(self, number: int, end_s: float) -> None:
        client = await Client(self._url, self._key).connect()
        turn = number
        while (now := time.perf_counter()) < end_s:
            turn += CONNECTIONS
            name = f"{number}-{turn}-{time.time_ns()}".encode()
            body = b'{"batch_id":"' + name + b'","metrics":' + self._bodies[turn % BODIES] + b"}"
            status, answer = await client.post(body)
            if status == 202:
                self.accepted += json.loads(answer)["accepted"]
                self.latencies_ms.append((time.perf_counter() - now) * 1000)
            else:
                self.refused += 1
                await asyncio.sleep(0.1)


async def singles(url: str, key: str) -> list[float]:
    """Milliseconds of one metric a request, one after another."""
    client = await Client(url, key).connect()
    (body,) = (as_json(metrics(random.Random(n))[:1])[1:-1] for n in (1,))
    took = []
    for _ in range(SINGLES):
        begun = time.perf_counter()
        status, _ = await client.post(body)
        assert status == 202
        took.append((time.perf_counter() - begun) * 1000)
    return took


def raw_copy(database_url: str, seconds: float, connections: int) -> float:
    """Rows a second by COPY alone, encoded beforehand; ends early when what was encoded is stored."""
    chance = random.Random(7)
    encoder = Encoder(lambda *_: None)
    known = [
        [one for _ in range(COMMIT_ROWS // BATCH) for one in metrics(chance)] for _ in range(RAW_COMMITS)
    ]

    def encoded(number: int) -> bytes:
        now_us = time.time_ns() // 1000
        batch = known[number % RAW_COMMITS]
        rows = encoder.rows(batch, [now_us] * len(batch), ids_from(now_us, len(batch)), now_us)
        rows.sort(key=lambda row: row.who)
        return b"".join([COPY_HEADER, *(row.wire for row in rows), COPY_TRAILER])

    prepared = [encoded(number) for number in range(int(seconds * RAW_RATE / COMMIT_ROWS))]
    count = len(prepared)
    begun = time.perf_counter()

    def write() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            while prepared and time.perf_counter() < begun + seconds:
                wire = prepared.pop()
                with connection.cursor() as cursor, cursor.copy(COPY_STATEMENT) as copy:
                    copy.write(wire)

    writers = [threading.Thread(target=write) for _ in range(connections)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    return (count - len(prepared)) * COMMIT_ROWS / (time.perf_counter() - begun)


def cpu_s(system: Up, role: str) -> float:
    """Seconds of CPU the processes of a role, and their children, have used so far."""
    total = 0.0
    for pid in system.pids(role):
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            used = process.cpu_times()
            total += used.user + used.system
    return total


def rows_in(database_url: str) -> int:
    with psycopg.connect(database_url) as connection:
        return connection.execute("SELECT count(*) FROM usability_metrics").fetchone()[0]


def sustained(load: Load, seconds: float, database_url: str) -> float:
    """Metrics a second; each that was acknowledged is a row."""
    before = rows_in(database_url)
    rate = asyncio.run(load.run(seconds))
    assert load.refused == 0, f"{load.refused} requests were refused"
    assert rows_in(database_url) - before == load.accepted, "a metric was acknowledged and is not a row"
    return rate


def main(seconds: float, runs: int) -> None:
    rates, p50, p99, raw, raw_of_two = ([] for _ in range(5))
    spent_us: dict[str, list[float]] = {"web": [], "postgres": [], "redis": []}
    single_p50, single_p99 = [], []
    with running_system(FRUSTRATION_DETECTION_ENABLED="false") as (system, demo):
        database_url = system.run_file()["database_url"]
        load = Load(system.url, demo["keys"]["metrics"])
        asyncio.run(load.run(WARM_UP_S))
        for _ in range(runs):
            before = {role: cpu_s(system, role) for role in spent_us}
            rates.append(sustained(load, seconds, database_url))
            for role, used in spent_us.items():
                used.append((cpu_s(system, role) - before[role]) / load.accepted * 1e6)
            p50.append(percentile(load.latencies_ms, 0.5))
            p99.append(percentile(load.latencies_ms, 0.99))
            raw.append(raw_copy(database_url, min(seconds, RAW_S), 1))
            raw_of_two.append(raw_copy(database_url, min(seconds, RAW_S), 2))
            took = asyncio.run(singles(system.url, demo["keys"]["metrics"]))
            single_p50.append(percentile(took, 0.5))
            single_p99.append(percentile(took, 0.99))
    with running_system() as (system, demo):
        load = Load(system.url, demo["keys"]["metrics"])
        asyncio.run(load.run(WARM_UP_S))
        with_all = [sustained(load, seconds, system.run_file()["database_url"]) for _ in range(runs)]
    more = {"batch": BATCH, "connections": CONNECTIONS, "seconds": seconds}
    report(BENCH, "metrics stored through HTTP", rates, "1/s", goal=100_000, **more)
    report(BENCH, "the same with everything on", with_all, "1/s", **more)
    report(BENCH, "batch latency p50", p50, "ms")
    report(BENCH, "batch latency p99", p99, "ms")
    for connections, alone, goal in ((1, raw, 0.7), (2, raw_of_two, 0.45)):
        given = {"connections": connections, "commit_rows": COMMIT_ROWS}
        report(BENCH, "rows by COPY alone", alone, "1/s", **given)
        ratios = [rate / one for rate, one in zip(rates, alone, strict=True)]
        report(BENCH, "through HTTP over COPY alone", ratios, "ratio", goal=goal, **given)
    for role, used in spent_us.items():
        report(BENCH, f"CPU of {role} for a metric", used, "us")
    report(BENCH, "one metric accepted p50", single_p50, "ms")
    report(BENCH, "one metric accepted p99", single_p99, "ms", goal=2, load1=round(os.getloadavg()[0], 1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    main(given.seconds, given.runs)
