"""Detection workers are killed at random while a lesson goes on; nothing is lost, doubled or different.

GAIA_CHAOS_S=120 makes it two minutes. Receipts differ from run to run, so the undisturbed run it is compared
with is the pure fold over the rows that this run stored.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from tests.running import GIVEN_BY_THE_TESTS, ROOT, Up, wait_for

LESSON_S = float(os.environ.get("GAIA_CHAOS_S", "40"))
PUPILS = 8
APP = "fractions-lab"
WRONG_FOR_S = 33.0
CYCLE_S = 60.0


class Workers:
    """Two detection workers of our own beside the system's, killed and replaced."""

    def __init__(self, system: Up, chance: random.Random) -> None:
        facts = system.run_file()
        self._chance = chance
        self._environment = {
            name: value for name, value in os.environ.items() if name not in GIVEN_BY_THE_TESTS
        } | {
            "GAIA_DATA_DIR": str(system.data),
            "DATABASE_URL": facts["database_url"],
            "REDIS_URL": facts["redis_url"],
        }
        self._alive = [self._start(), self._start()]
        self.killed = 0

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "manage.py", "usability_worker"],
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kill_one(self) -> None:
        victim = self._chance.randrange(len(self._alive))
        self._alive[victim].kill()
        self._alive[victim].wait(10)
        self._alive[victim] = self._start()
        self.killed += 1

    def judge(self, classroom_id: str, since: dt.datetime, until: dt.datetime) -> dict[str, Any]:
        """What was written, and what an undisturbed fold of the same rows comes to."""
        done = subprocess.run(
            [
                sys.executable,
                "tests/usability/judged_again.py",
                classroom_id,
                since.isoformat(),
                until.isoformat(),
            ],
            cwd=ROOT,
            env=self._environment | {"PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "gaia_site.settings"},
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    def stop(self) -> None:
        for worker in self._alive:
            worker.send_signal(signal.SIGTERM)
        for worker in self._alive:
            try:
                worker.wait(20)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait(10)


@pytest.fixture
def system() -> Iterator[Up]:
    folder = Path(tempfile.mkdtemp(prefix="gaia-chaos-", dir="/tmp"))
    folder.chmod(0o711)
    up = Up(folder / ".gaia", DEMO="quiet", LOG_LEVEL="WARNING")
    try:
        yield up.wait_until_ready()
    finally:
        if up.process.poll() is None:
            up.send(signal.SIGTERM)
            up.wait_for_end()
        shutil.rmtree(folder, ignore_errors=True)


def what_pupils_do(students: list[str], at_s: float, chance: random.Random) -> list[dict[str, Any]]:
    """What happens about `at_s` seconds into the lesson: each pupil fails for a while, then gets on."""
    found = []
    for number, student in enumerate(students):
        in_cycle_s = (at_s + number * 4.0) % CYCLE_S
        is_right = in_cycle_s > WRONG_FOR_S or in_cycle_s < 1
        found.append(("answer", 1.0 if is_right else 0.0, student))
        found.append(("keypress", float(chance.randint(1, 9)), student))
        if chance.random() < 0.01:
            found.append(("help_request", 1.0, student))
    return [
        {
            "student_id": student,
            "app_name": APP,
            "metric_type": kind,
            "metric_value": value,
            "metadata": {"item": "7", "skill": "halves"} if kind == "answer" else {},
        }
        for kind, value, student in found
    ]


def differences(found: dict[str, Any]) -> str:
    """The episodes that are only here, only there, or different."""
    keys = sorted(found["written"].keys() | found["judged"].keys())
    pairs = {key: (found["written"].get(key), found["judged"].get(key)) for key in keys}
    return "\n".join(f"{key}: written {a}, judged {b}" for key, (a, b) in pairs.items() if a != b)


def test_workers_killed_at_random_change_nothing(system):
    chance = random.Random(11)
    demo = json.loads((system.data / "demo.json").read_text())
    students = demo["student_ids"][:PUPILS]
    headers = {"Authorization": f"Bearer {demo['keys']['metrics']}"}
    http = urllib3.PoolManager(timeout=20.0, retries=False)
    workers = Workers(system, chance)
    try:
        since = dt.datetime.now(tz=dt.UTC)
        began = time.monotonic()
        next_kill = 6.0
        for turn in range(int(LESSON_S)):
            due = began + turn
            wait_for(lambda due=due: time.monotonic() >= due, "the next second of the lesson", 30)
            answer = http.request(
                "POST",
                f"{system.url}/api/v1/usability/metrics",
                json={"metrics": what_pupils_do(students, turn, chance)},
                headers=headers,
            )
            assert answer.status == 202, answer.data
            if time.monotonic() - began > next_kill:
                workers.kill_one()
                next_kill += chance.uniform(3, 7)
            if turn == int(LESSON_S / 2):
                os.kill(system.pids("worker")[0], signal.SIGKILL)
        until = dt.datetime.now(tz=dt.UTC)
        found: dict[str, Any] = {}

        def agree() -> bool:
            found.update(workers.judge(demo["classroom_id"], since, until))
            return found["written"] == found["judged"]

        deadline = time.monotonic() + 45
        while not agree():
            assert time.monotonic() < deadline, differences(found)
    finally:
        workers.stop()

    assert workers.killed >= 3
    assert len(found["judged"]) >= PUPILS
