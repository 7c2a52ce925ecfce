"""The load of the demonstration, through the public API like anybody's: agents on errands, a simulated class."""

from __future__ import annotations

import itertools
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import structlog
import urllib3

from gaia_site.demo.errand import ROOT
from gaia_site.demo.errands import Errands, round_of
from gaia_site.demo.setting import APP_NAME
from gaia_site.embedded.supervisor import Part, Supervisor
from usability.simulator import ClassSimulator

AGENTS = 8
AGENT = ROOT / "coordination" / "agent" / "gaia_agent.py"
ERRAND = ROOT / "gaia_site" / "demo" / "errand.py"

LESSON_EVERY_S = 20.0
"""One lesson holds at most 17 errands: some 50 a minute, for as long as the demonstration runs."""
METRICS_EVERY_S = 2.0
METRICS_A_BATCH = 2_000
BATCHES_WAITING = 300
"""Batches kept while the site does not answer (ten minutes of them); then the oldest are given up."""
STRUGGLES_A_LESSON = 9
ALREADY_AT_WORK_MS = 225_000
"""The class has been at it this long when the demonstration begins: the first struggle is seconds away."""
REQUEST_TIMEOUT_S = 10.0
DRAIN_S = 3
"""How long an agent's errand may go on when the demonstration ends; none takes longer."""

log = structlog.get_logger("gaia.demo")


def wall_clock_ms() -> int:
    """The wall clock in whole milliseconds."""
    return round(time.time() * 1000)


class Refused(Exception):
    """The API answered with an error; its status and body are in the message."""


class Api:
    """The public API of this site, spoken to with one key."""

    def __init__(self, url: str, key: str) -> None:
        self._url = f"{url}/api/v1/"
        self._headers = {"Authorization": f"Bearer {key}"}
        self._pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(total=REQUEST_TIMEOUT_S), retries=False, maxsize=2
        )

    def post(self, path: str, body: Any, *, idempotency_key: str) -> Any:
        """The answer to a POST. Raises Refused or urllib3's HTTPError; the same key makes a retry safe."""
        headers = self._headers | {"Idempotency-Key": idempotency_key}
        answer = self._pool.request("POST", self._url + path, json=body, headers=headers)
        if answer.status >= 400:
            raise Refused(f"{path}: {answer.status} {answer.data[:300]!r}")
        return answer.json()


class Repeating:
    """An action that is due every so often; what keeps it from succeeding now is logged, and it is tried again."""

    def __init__(self, name: str, every_s: float, action: Callable[[], None]) -> None:
        self._name, self._every_s, self._action = name, every_s, action
        self._due = 0.0

    def step(self, now: float) -> bool:
        """Act if it is time; was it?"""
        if now < self._due:
            return False
        self._due = now + self._every_s
        try:
            self._action()
        except (Refused, urllib3.exceptions.HTTPError) as error:
            log.warning("demo_waits", activity=self._name, reason=str(error)[:300])
        return True


class ErrandGiver:
    """Enqueues one lesson after the other, for ever."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._lessons: Iterator[Errands] = itertools.chain.from_iterable(iter(lambda: list(round_of()), []))

    def give(self) -> None:
        """One lesson with its tasks. Raises Refused and urllib3's HTTPError."""
        errands, key = next(self._lessons), f"demo-{uuid.uuid4()}"
        lesson_id = self._api.post("lessons", errands.lesson, idempotency_key=key)["id"]
        lines = self._api.post("tasks", errands.tasks(lesson_id), idempotency_key=f"{key}-tasks")
        task_ids = [line["id"] for line in lines if "id" in line]
        self._api.post("tasks", errands.survey(lesson_id, task_ids), idempotency_key=f"{key}-survey")


class ClassAtWork:
    """What the pupils' apps send: a batch every two seconds, each sent until it is acknowledged."""

    def __init__(self, api: Api, student_ids: list[str], *, now_ms: int) -> None:
        self._api = api
        self._simulator = ClassSimulator(
            student_ids,
            seed=now_ms // 1000,
            start_ms=now_ms - ALREADY_AT_WORK_MS,
            app_name=APP_NAME,
            struggles=STRUGGLES_A_LESSON,
        )
        self._waiting: deque[dict[str, Any]] = deque(maxlen=BATCHES_WAITING)

    def send(self) -> None:
        """Send what happened since the last call. Raises Refused and urllib3's HTTPError."""
        metrics = self._simulator.until(wall_clock_ms())
        for start in range(0, len(metrics), METRICS_A_BATCH):
            batch = metrics[start : start + METRICS_A_BATCH]
            self._waiting.append({"batch_id": str(uuid.uuid4()), "metrics": batch})
        while self._waiting:
            batch = self._waiting[0] | {"sent_at": datetime.now(UTC).isoformat().replace("+00:00", "Z")}
            self._api.post("usability/metrics", batch, idempotency_key=batch["batch_id"])
            self._waiting.popleft()


def agent(number: int, *, url: str, key: str, environment: dict[str, str]) -> Part:
    """One agent: the client that anybody downloads, running an errand a task.

    It needs PATH and what it is told here; the servers' secrets stay with us.
    """
    name = f"agent-{number}"
    command = (
        *(sys.executable, str(AGENT), "run", "--name", f"demo/{name}", "--drain-s", str(DRAIN_S)),
        *("--", sys.executable, str(ERRAND)),
    )
    return Part(name, "agent", command, environment | {"GAIA_URL": url, "GAIA_KEY": key}, cwd=str(ROOT))


def run(content: dict[str, Any], supervisor: Supervisor, environment: dict[str, str]) -> None:
    """Keep agents and class at work until the supervisor is asked to stop. `content` is that of demo.json.

    Raises PartFailed where an agent cannot be kept running.
    """
    url, keys = content["url"], content["keys"]
    for number in range(1, AGENTS + 1):
        supervisor.start(agent(number, url=url, key=keys["agent"], environment=environment))
    errands = ErrandGiver(Api(url, keys["agent"]))
    lesson = ClassAtWork(Api(url, keys["metrics"]), content["student_ids"], now_ms=wall_clock_ms())
    activities = (
        Repeating("class", METRICS_EVERY_S, lesson.send),
        Repeating("errands", LESSON_EVERY_S, errands.give),
    )
    while not supervisor.must_stop:
        for activity in activities:
            activity.step(time.monotonic())
        supervisor.step(0.25)
