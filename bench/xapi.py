"""The record store: statements taken in batches of 500, and pages of 50 by each filter.

The peer is PostgreSQL itself: COPY of the same bodies into a bare table of one jsonb column, in the same run. What
the store does beyond it: the rules of the data, ids, keys to find by, definitions, sameness, and the metrics for
detection. Run: python -m bench.xapi
"""

from __future__ import annotations

import datetime as dt
import json
import random
import time
import uuid
from collections.abc import Callable

import psycopg
import urllib3

from bench.figures import percentile, report
from bench.system import running_system

RUNS = 3
BATCHES = 20
BATCH = 500
PAGES = 60
LEARNERS = 1_200
ITEMS = 300


def statement(number: int) -> dict[str, object]:
    """An answer to a question, as an authoring tool words it."""
    item = f"https://maths.example/items/{number % ITEMS}"
    kind = "http://adlnet.gov/expapi/activities/cmi.interaction"
    return {
        "id": str(uuid.uuid4()),
        "actor": {"account": {"homePage": "https://school.example", "name": f"learner-{number % LEARNERS}"}},
        "verb": {"id": "http://adlnet.gov/expapi/verbs/answered", "display": {"en": "answered"}},
        "object": {
            "id": item,
            "definition": {
                "name": {"en": f"Question {number % ITEMS}"},
                "type": kind,
                "interactionType": "numeric",
                "correctResponsesPattern": ["4"],
            },
        },
        "result": {"success": number % 3 > 0, "response": "5", "duration": "PT12.5S"},
        "context": {
            "registration": str(uuid.uuid5(uuid.NAMESPACE_URL, str(number % LEARNERS))),
            "contextActivities": {"parent": [{"id": "https://maths.example/sets/1"}]},
        },
        "timestamp": dt.datetime.now(tz=dt.UTC).isoformat(),
    }


def batches() -> list[list[dict[str, object]]]:
    start = random.randrange(10**9)
    return [[statement(start + batch * BATCH + n) for n in range(BATCH)] for batch in range(BATCHES)]


def per_second(send: Callable[[bytes], None], bodies: list[bytes]) -> float:
    started = time.monotonic()
    for body in bodies:
        send(body)
    return BATCH * len(bodies) / (time.monotonic() - started)


def copied_per_second(database_url: str, told: list[list[dict[str, object]]]) -> float:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS bench_xapi (body jsonb)")
        started = time.monotonic()
        for batch in told:
            with connection.cursor() as cursor, cursor.copy("COPY bench_xapi FROM STDIN") as copy:
                for one in batch:
                    copy.write_row([json.dumps(one)])
        rate = BATCH * len(told) / (time.monotonic() - started)
        connection.execute("DROP TABLE bench_xapi")
    return rate


def main() -> None:
    with running_system() as (system, facts):
        pool = urllib3.PoolManager(retries=False)
        headers = {
            **urllib3.make_headers(basic_auth=f"bench:{facts['keys']['metrics']}"),
            "X-Experience-API-Version": "1.0.3",
            "Content-Type": "application/json",
        }
        address = f"{facts['url']}/xapi/statements"

        def send(body: bytes) -> None:
            answer = pool.request("POST", address, body=body, headers=headers)
            assert answer.status == 200, answer.data[:500]

        taken, copied = [], []
        for _run in range(RUNS):
            told = batches()
            taken.append(per_second(send, [json.dumps(batch).encode() for batch in told]))
            copied.append(copied_per_second(system.run_file()["database_url"], told))
        report("xapi", "statements taken, one client, batches of 500", taken, "1/s")
        report("xapi", "peer: COPY of the bodies alone", copied, "1/s")
        agent = json.dumps({"account": {"homePage": "https://school.example", "name": "learner-3"}})
        filters = {
            "newest": {},
            "by agent": {"agent": agent},
            "by verb": {"verb": "http://adlnet.gov/expapi/verbs/answered"},
            "by activity": {"activity": "https://maths.example/items/7"},
            "by set": {"activity": "https://maths.example/sets/1", "related_activities": "true"},
        }
        for name, told_filter in filters.items():
            times = []
            for _page in range(PAGES):
                started = time.monotonic()
                answer = pool.request("GET", address, fields={"limit": "50", **told_filter}, headers=headers)
                times.append(1000 * (time.monotonic() - started))
                assert answer.status == 200
            report("xapi", f"page of 50, {name}, p95", [percentile(times, 0.95)], "ms")


if __name__ == "__main__":
    main()
