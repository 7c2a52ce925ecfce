"""The database stops while metrics come in: what web's memory does, what it answers, and what is lost (nothing).

PostgreSQL's processes get SIGSTOP, which is worse than their end: connections stay open and no call fails. Batches
keep coming from many connections for a minute; then SIGCONT. Goals: web grows by less than 300 MiB; every answer
meanwhile is a 503 with Retry-After or no acknowledgement; each batch acknowledged at any time is stored once, and
the batches that were refused are when they are sent again.

Run: python -m bench.pressure [--seconds 60]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import aiohttp
import psutil
import psycopg

from bench.figures import report
from bench.ingest import BATCH, as_json, metrics
from bench.system import running_system
from tests.running import Up

BENCH = "pressure"
CONNECTIONS = 400
BEFORE_S = 3.0
GROWTH_GOAL_MIB = 300
ANSWER_LIMIT_S = 40.0
PAUSE_S = 0.5
"""Between a refusal and the next batch of the same connection: Retry-After says more, and not all obey."""


@dataclass(slots=True)
class Seen:
    """What the clients saw: batches acknowledged and not, answers by status, the longest wait for one."""

    acknowledged: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    answers: Counter[int] = field(default_factory=Counter)
    without_retry_after: int = 0
    longest_s: float = 0.0


class Clients:
    """Connections that send batch after batch."""

    def __init__(self, url: str, key: str, connections: int, name: str = "pressure") -> None:
        self._url = f"{url}/api/v1/usability/metrics"
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._connections = connections
        self._body = as_json(metrics(random.Random(7)))
        self._name = name
        self._numbers = iter(range(1 << 60))
        self.seen = Seen()

    async def run(self, seconds: float) -> None:
        """Send for so long; every request under way is waited for."""
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=ANSWER_LIMIT_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
            ends_s = time.monotonic() + seconds
            await asyncio.gather(*(self._send(http, ends_s) for _ in range(self._connections)))

    async def _send(self, http: aiohttp.ClientSession, ends_s: float) -> None:
        while time.monotonic() < ends_s:
            if await self._post(http, f"{self._name}-{next(self._numbers)}") != 202:
                await asyncio.sleep(PAUSE_S)

    async def _post(self, http: aiohttp.ClientSession, batch_id: str) -> int:
        body = b'{"batch_id":"' + batch_id.encode() + b'","metrics":' + self._body + b"}"
        begun = time.monotonic()
        status = 0
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with http.post(self._url, data=body, headers=self._headers) as answer:
                status = answer.status
                if status == 503 and "Retry-After" not in answer.headers:
                    self.seen.without_retry_after += 1
        self.seen.longest_s = max(self.seen.longest_s, time.monotonic() - begun)
        self.seen.answers[status] += 1
        (self.seen.acknowledged if status == 202 else self.seen.refused).add(batch_id)
        return status

    async def repeat_refused(self) -> None:
        """Send again what was refused or not answered, until each is acknowledged."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_LIMIT_S)) as http:
            left = set(self.seen.refused)
            deadline = time.monotonic() + 120
            while left:
                assert time.monotonic() < deadline, f"{len(left)} batches are still refused"
                for batch_id in sorted(left):
                    if await self._post(http, batch_id) == 202:
                        left.discard(batch_id)


@contextlib.contextmanager
def stopped_database(system: Up) -> Iterator[None]:
    """PostgreSQL and all its processes stand still meanwhile."""
    (server,) = system.pids("postgres")
    standing = [psutil.Process(server), *psutil.Process(server).children(recursive=True)]
    for process in standing:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in standing:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)


def resident_mib(system: Up) -> float:
    """Resident memory of the largest web process."""
    return max(psutil.Process(pid).memory_info().rss for pid in system.pids("web")) / 2**20


async def under_pressure(system: Up, clients: Clients, seconds: float) -> tuple[float, float]:
    """MiB of web before the database stopped, and the most while it stood."""
    await clients.run(BEFORE_S)
    before = most = resident_mib(system)
    with stopped_database(system):
        sending = asyncio.create_task(clients.run(seconds))
        while not sending.done():
            await asyncio.wait({sending}, timeout=0.25)
            most = max(most, resident_mib(system))
    return before, most


def stored(database_url: str) -> Counter[int]:
    """How many rows there are, and how many batch ids."""
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT count(*) FROM usability_metrics").fetchone()[0]
        batches = connection.execute(
            "SELECT count(*) FROM usability_ingestbatch WHERE batch_id LIKE 'pressure-%'"
        ).fetchone()[0]
    return Counter(rows=rows, batches=batches)


def main(seconds: float) -> None:
    with running_system(FRUSTRATION_DETECTION_ENABLED="false") as (system, demo):
        clients = Clients(system.url, demo["keys"]["metrics"], CONNECTIONS)
        at_first = stored(system.run_file()["database_url"])
        before, most = asyncio.run(under_pressure(system, clients, seconds))
        answers = dict(clients.seen.answers)
        asyncio.run(clients.repeat_refused())
        found = stored(system.run_file()["database_url"]) - at_first
        everything = clients.seen.acknowledged | clients.seen.refused
        assert found["batches"] == len(everything), "a batch that was acknowledged is not known"
        assert found["rows"] == BATCH * len(everything), "a batch is there twice, or in part"
    given = {"connections": CONNECTIONS, "seconds": seconds, "answers": answers}
    report(BENCH, "memory of web before", [before], "MiB")
    report(BENCH, "growth while the database stands", [most - before], "MiB", goal=GROWTH_GOAL_MIB, **given)
    report(BENCH, "longest wait for an answer", [clients.seen.longest_s], "s")
    report(BENCH, "503 without Retry-After", [clients.seen.without_retry_after], "answers", goal=0)
    report(BENCH, "batches stored once of those sent", [found["batches"] / len(everything)], "share", goal=1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    main(parser.parse_args().seconds)
