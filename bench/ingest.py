"""Metrics through `POST usability/metrics` in batches of 500, sustained, every row counted in the table.

Goal: 100,000/s for 60 s on two cores, and a single metric accepted in 2 ms (p99) at light load. The client, the
web process and PostgreSQL share the machine. Beside it, in turn: the same rows by COPY alone, two connections,
5,000 rows a commit, sorted by learner: what the table itself can take. Detection is off here; `bench.detection`
measures it.

Run: python -m bench.ingest [--seconds 20] [--runs 3]
"""

from __future__ import annotations

import argparse
import asyncio
import json
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
CONNECTIONS = 8
STUDENTS = 3_000
BODIES = 64
SINGLES = 1_500
WARM_UP_S = 3.0
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


def raw_copy(database_url: str, seconds: float) -> float:
    """Rows a second by COPY alone, encoded beforehand, from two connections."""
    chance = random.Random(7)
    encoder = Encoder(lambda *_: None)
    end_s = time.perf_counter() + seconds
    stored = [0, 0]

    def write(number: int) -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            while time.perf_counter() < end_s:
                wire = prepared[number].pop()
                with connection.cursor() as cursor, cursor.copy(COPY_STATEMENT) as copy:
                    copy.write(wire)
                stored[number] += COMMIT_ROWS

    def encoded() -> bytes:
        now_us = time.time_ns() // 1000
        batch = [metric for _ in range(COMMIT_ROWS // BATCH) for metric in metrics(chance)]
        rows = encoder.rows(batch, [now_us] * len(batch), ids_from(now_us, len(batch)), now_us)
        rows.sort(key=lambda row: row.who)
        return b"".join([COPY_HEADER, *(row.wire for row in rows), COPY_TRAILER])

    # Enough for 200,000 rows a second, without measuring the encoding.
    count = int(seconds * 200_000 / COMMIT_ROWS / 2) + 1
    prepared = [[encoded() for _ in range(count)] for _ in range(2)]
    begun = time.perf_counter()
    end_s = begun + seconds
    writers = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    return sum(stored) / (time.perf_counter() - begun)


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


def main(seconds: float, runs: int) -> None:
    rates, p50, p99, raw, ratios, web_us, postgres_us = ([] for _ in range(7))
    single_p50, single_p99 = [], []
    with running_system(FRUSTRATION_DETECTION_ENABLED="false") as (system, demo):
        database_url = system.run_file()["database_url"]
        load = Load(system.url, demo["keys"]["metrics"])
        asyncio.run(load.run(WARM_UP_S))
        for _ in range(runs):
            before, web, postgres = rows_in(database_url), cpu_s(system, "web"), cpu_s(system, "postgres")
            rates.append(asyncio.run(load.run(seconds)))
            accepted = load.accepted
            web_us.append((cpu_s(system, "web") - web) / accepted * 1e6)
            postgres_us.append((cpu_s(system, "postgres") - postgres) / accepted * 1e6)
            assert rows_in(database_url) - before == accepted, "a metric was acknowledged and is not a row"
            assert load.refused == 0, f"{load.refused} requests were refused"
            p50.append(percentile(load.latencies_ms, 0.5))
            p99.append(percentile(load.latencies_ms, 0.99))
            raw.append(raw_copy(database_url, seconds / 2))
            ratios.append(rates[-1] / raw[-1])
            took = asyncio.run(singles(system.url, demo["keys"]["metrics"]))
            single_p50.append(percentile(took, 0.5))
            single_p99.append(percentile(took, 0.99))
    report(BENCH, "metrics stored through HTTP", rates, "1/s", batch=BATCH, seconds=seconds, goal=100_000)
    report(BENCH, "batch latency p50", p50, "ms")
    report(BENCH, "batch latency p99", p99, "ms")
    report(BENCH, "rows by COPY alone", raw, "1/s", commit_rows=COMMIT_ROWS)
    report(BENCH, "through HTTP over COPY alone", ratios, "ratio")
    report(BENCH, "CPU of web for a metric", web_us, "us")
    report(BENCH, "CPU of PostgreSQL for a metric", postgres_us, "us")
    report(BENCH, "one metric accepted p50", single_p50, "ms")
    report(BENCH, "one metric accepted p99", single_p99, "ms", goal=2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    main(given.seconds, given.runs)
