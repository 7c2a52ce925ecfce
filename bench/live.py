"""From the receipt of a metric to the teacher's socket, with one class: p50 and p99. Goal: p99 under 2 s.

Pupils press "help" one after another; the clock runs from before the request is sent until the message about
that pupil has arrived. Run: python -m bench.live
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import aiohttp

from bench.figures import percentile, report
from bench.system import running_system

RUNS = 3
PAUSE_S = 0.1
TIMEOUT = aiohttp.ClientTimeout(total=60)


async def one_round(http: aiohttp.ClientSession, url: str, demo: dict[str, Any]) -> list[float]:
    """Each pupil asks once; seconds from sending to the socket. The alerts are resolved afterwards."""
    teacher = {"Authorization": f"Bearer {demo['keys']['teacher']}"}
    metrics = {"Authorization": f"Bearer {demo['keys']['metrics']}"}
    sent: dict[str, float] = {}
    took: dict[str, float] = {}
    alerts: list[str] = []
    socket_url = f"{url.replace('http', 'ws', 1)}/ws/classrooms/{demo['classroom_id']}/"
    async with http.ws_connect(socket_url, headers=teacher) as socket:
        assert (await socket.receive_json())["type"] == "hello"

        async def listen() -> None:
            while len(took) < len(demo["student_ids"]):
                message = json.loads((await socket.receive(timeout=30)).data)
                found = json.dumps(message)
                for student_id, at in sent.items():
                    if (
                        message["type"].startswith("alert")
                        and student_id not in took
                        and f'"{student_id}"' in found
                    ):
                        took[student_id] = time.perf_counter() - at

        listening = asyncio.create_task(listen())
        for student_id in demo["student_ids"]:
            metric = {
                "student_id": student_id,
                "app_name": "fractions-lab",
                "metric_type": "help_request",
                "metric_value": 1,
            }
            sent[student_id] = time.perf_counter()
            async with http.post(f"{url}/api/v1/usability/metrics", json=metric, headers=metrics) as answer:
                assert answer.status == 202, await answer.text()
            await asyncio.sleep(PAUSE_S)
        await asyncio.wait_for(listening, 60)
    async with http.get(f"{url}/api/v1/usability/alerts?limit=500", headers=teacher) as answer:
        alerts = [one["id"] for one in (await answer.json())["results"]]
    for alert in alerts:
        async with http.post(f"{url}/api/v1/usability/alerts/{alert}/resolve", json={}, headers=teacher):
            pass
    return list(took.values())


async def measure(demo: dict[str, Any]) -> None:
    p50, p99 = [], []
    async with aiohttp.ClientSession(timeout=TIMEOUT) as http:
        for _ in range(RUNS):
            took = await one_round(http, demo["url"], demo)
            p50.append(percentile(took, 0.5))
            p99.append(percentile(took, 0.99))
    report("live", "receipt to socket p50", p50, "s", pupils=len(demo["student_ids"]))
    report("live", "receipt to socket p99", p99, "s", pupils=len(demo["student_ids"]))


def main() -> None:
    with running_system() as (_, demo):
        asyncio.run(measure(demo))


if __name__ == "__main__":
    main()
