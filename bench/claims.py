"""Claims and completions through HTTP, one task a request, from 8 and from 64 connections; one durable node.

Goals: 1,000/s each from 8 and p99 under 50 ms at 500/s; 2,000/s from 8 to 64. The client shares the machine with what it
measures; load1 is the load average of its last minute, so that a busy machine shows. `cpu_ms` is the processor time
of each kind of process for one call (the client's too), the median over the runs.
Run: python -m bench.claims
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from typing import Any

from bench.connection import Connection
from bench.figures import percentile, report
from bench.idle import cpu_s, family
from bench.system import running_system
from tests.running import Up

CONNECTIONS = (8, 64)
TASKS = 4_000
RUNS = 3
HEARTBEAT_S = 5
PACED_RATE = 500
PACED_S = 6


class Agent:
    """One connection with one session."""

    def __init__(self, http: Connection, name: str) -> None:
        self.http, self.name = http, name
        self.lease_token = 0
        self.held: list[dict[str, Any]] = []
        self.latencies_ms: list[float] = []

    async def post(self, path: str, body: Any) -> Any:
        started = time.perf_counter()
        status, answer = await self.http.post(f"/api/v1/{path}", json.dumps(body).encode())
        self.latencies_ms.append((time.perf_counter() - started) * 1000)
        assert status < 300, answer
        return json.loads(answer)

    async def register(self) -> None:
        body = {
            "session_name": self.name,
            "tier": "worker",
            "provider": "openai",
            "max_concurrent_tasks": 1000,
        }
        self.lease_token = (await self.post("sessions", body))["lease_token"]

    async def claim(self) -> None:
        body = {"session_name": self.name, "lease_token": self.lease_token, "max": 1}
        self.held += (await self.post("tasks/claim", body))["tasks"]

    async def complete(self) -> None:
        task = self.held.pop()
        await self.post(
            f"tasks/{task['id']}/complete", {"claim_token": task["claim_token"], "result": {"ok": True}}
        )


async def enqueue(agent: Agent, run: str, count: int) -> None:
    for start in range(0, count, 500):
        tasks = [
            {"idempotency_key": f"{run}-{number}", "task_type": "bench", "task_data": {"number": number}}
            for number in range(start, min(count, start + 500))
        ]
        await agent.post("tasks", tasks)


async def as_fast_as_they_can(agents: list[Agent], verb: str, times: int) -> float:
    """Every agent in turn with itself; calls a second of all together."""

    async def work(agent: Agent) -> None:
        for _ in range(times):
            await getattr(agent, verb)()

    started = time.perf_counter()
    await asyncio.gather(*map(work, agents))
    return len(agents) * times / (time.perf_counter() - started)


async def paced(agents: list[Agent], verb: str, rate: int, seconds: float) -> float:
    """p99 in ms at `rate` calls a second, counted from the moment at which each call was due."""
    late: list[float] = []
    started = time.perf_counter()

    async def work(number: int, agent: Agent) -> None:
        step = len(agents) / rate
        for turn in range(int(seconds / step)):
            due = started + (turn + number / len(agents)) * step
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            await getattr(agent, verb)()
            late.append((time.perf_counter() - due) * 1000)

    await asyncio.gather(*(work(number, agent) for number, agent in enumerate(agents)))
    return percentile(late, 0.99)


async def keep_alive(http: Connection, agents: list[Agent]) -> None:
    """One heartbeat for all, as a host of several agents sends it."""
    while True:
        beats = [{"session_name": agent.name, "lease_token": agent.lease_token} for agent in agents]
        status, answer = await http.post("/api/v1/heartbeats", json.dumps({"heartbeats": beats}).encode())
        assert status == 200, answer
        await asyncio.sleep(HEARTBEAT_S)


class Processors:
    """Processor seconds of each kind of process of the system, and of this client."""

    def __init__(self, system: Up) -> None:
        self._pids: dict[str, set[int]] = {"client": {os.getpid()}}
        for one in system.run_file()["processes"]:
            if one["role"] != "up":
                self._pids[one["role"]] = self._pids.get(one["role"], set()) | family([one["pid"]])
        self._before: dict[str, float] = {}

    def start(self) -> None:
        self._before = {role: cpu_s(pids) for role, pids in self._pids.items()}

    def ms_each(self, calls: int) -> dict[str, float]:
        return {role: (cpu_s(pids) - self._before[role]) * 1000 / calls for role, pids in self._pids.items()}


async def measure(system: Up, url: str, key: str) -> None:
    connections = [await Connection(url, key).open() for _ in range(max(CONNECTIONS) + 1)]
    agents = [Agent(http, f"bench-{number}") for number, http in enumerate(connections[:-1])]
    await asyncio.gather(*(agent.register() for agent in agents))
    alive = asyncio.create_task(keep_alive(connections[-1], agents))
    processors = Processors(system)
    rates: dict[tuple[str, int], list[float]] = {}
    spent: dict[tuple[str, int], list[dict[str, float]]] = {}
    late: dict[str, list[float]] = {}
    for run in range(RUNS):
        for many in CONNECTIONS:
            await enqueue(agents[0], f"fast-{run}-{many}", TASKS)
            for verb in ("claim", "complete"):
                processors.start()
                rate = await as_fast_as_they_can(agents[:many], verb, TASKS // many)
                rates.setdefault((verb, many), []).append(rate)
                spent.setdefault((verb, many), []).append(processors.ms_each(TASKS // many * many))
        await enqueue(agents[0], f"paced-{run}", PACED_RATE * PACED_S)
        for verb in ("claim", "complete"):
            late.setdefault(verb, []).append(await paced(agents[:8], verb, PACED_RATE, PACED_S))
    alive.cancel()
    for connection in connections:
        connection.close()
    for (verb, many), values in rates.items():
        cpu_ms = {
            role: round(statistics.median(one[role] for one in spent[verb, many]), 2)
            for role in spent[verb, many][0]
        }
        report("claims", f"{verb} through HTTP", values, "1/s", connections=many, cpu_ms=cpu_ms)
    for verb, values in late.items():
        report("claims", f"{verb} p99 at {PACED_RATE}/s", values, "ms", load1=round(os.getloadavg()[0], 1))


def main() -> None:
    with running_system() as (system, demo):
        asyncio.run(measure(system, demo["url"], demo["keys"]["agent"]))


if __name__ == "__main__":
    main()
