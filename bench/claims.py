"""Claims and completions through HTTP, one task a request, from 8 connections; one durable node.

Goal: 1,000/s each, and p99 under 50 ms at half that rate. The client shares the machine with what it measures; load1 is the
load average of its last minute, so that a busy machine shows.
Run: python -m bench.claims
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import Any

from bench.connection import Connection
from bench.figures import percentile, report
from bench.system import running_system

CONNECTIONS = 8
TASKS_EACH = 500
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


async def measure(url: str, key: str) -> None:
    connections = [await Connection(url, key).open() for _ in range(CONNECTIONS + 1)]
    agents = [Agent(connections[number], f"bench-{number}") for number in range(CONNECTIONS)]
    await asyncio.gather(*(agent.register() for agent in agents))
    alive = asyncio.create_task(keep_alive(connections[-1], agents))
    claims, completions, claim_p99, complete_p99 = [], [], [], []
    for run in range(RUNS):
        await enqueue(agents[0], f"fast-{run}", CONNECTIONS * TASKS_EACH)
        claims.append(await as_fast_as_they_can(agents, "claim", TASKS_EACH))
        completions.append(await as_fast_as_they_can(agents, "complete", TASKS_EACH))
        await enqueue(agents[0], f"paced-{run}", PACED_RATE * PACED_S)
        claim_p99.append(await paced(agents, "claim", PACED_RATE, PACED_S))
        complete_p99.append(await paced(agents, "complete", PACED_RATE, PACED_S))
    alive.cancel()
    for connection in connections:
        connection.close()
    report("claims", "claim through HTTP", claims, "1/s", connections=CONNECTIONS)
    report("claims", "complete through HTTP", completions, "1/s", connections=CONNECTIONS)
    report("claims", f"claim p99 at {PACED_RATE}/s", claim_p99, "ms")
    report(
        "claims", f"complete p99 at {PACED_RATE}/s", complete_p99, "ms", load1=round(os.getloadavg()[0], 1)
    )


def main() -> None:
    with running_system() as (_, demo):
        asyncio.run(measure(demo["url"], demo["keys"]["agent"]))


if __name__ == "__main__":
    main()
