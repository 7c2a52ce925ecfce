"""`manage.py up` as people use it: started from nothing, killed, started again, stopped, several side by side."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import urllib3

from gaia_site.embedded import processes
from tests.running import GIVEN_BY_THE_TESTS, ROOT, START_TIMEOUT_S, Up, status_of, wait_for

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def data() -> Iterator[Path]:
    """A data folder with a space in its path, as somebody's checkout might have."""
    parent = Path(tempfile.mkdtemp(prefix="gaia up ", dir="/tmp"))
    parent.chmod(0o711)
    yield parent / ".gaia"
    shutil.rmtree(parent, ignore_errors=True)


@pytest.fixture
def up(data: Path) -> Iterator[Callable[..., Up]]:
    """Starts systems, and ends whatever of them still runs."""
    started: list[Up] = []

    def start(folder: Path = data, **settings: str) -> Up:
        started.append(Up(folder, **settings))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.send(signal.SIGTERM)
            try:
                one.wait_for_end()
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_every_usual_signal_stops_it(up: Callable[..., Up], number: signal.Signals) -> None:
    system = up()
    wait_for(
        lambda: any("ready to accept connections" in line for line in system.lines),
        "postgres",
        START_TIMEOUT_S,
    )

    system.send(number)

    assert system.wait_for_end() == 0


def test_from_nothing_to_running_killed_started_again_and_stopped(data: Path, up: Callable[..., Up]) -> None:
    """One long test, because each start costs seconds: each step stands on the one before."""
    first = up().wait_until_ready()
    run, pids = first.run_file(), first.pids()
    assert status_of(f"{first.url}/readyz") == 200
    assert run["url"] == first.url
    assert sorted(one["role"] for one in run["processes"]) == [
        "node",
        "postgres",
        "redis",
        "up",
        "web",
        "worker",
    ]
    assert all(map(processes.is_alive, pids))
    for name in ("run.json", "secrets.json"):
        assert oct((data / name).stat().st_mode & 0o777) == "0o600"
    with psycopg.connect(run["database_url"], autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (word text)")
        connection.execute("INSERT INTO kept VALUES ('before')")

    first.send(signal.SIGKILL)
    first.process.wait()
    second = up().wait_until_ready()

    assert not any(map(processes.is_alive, pids))
    pids = second.pids()
    with psycopg.connect(second.run_file()["database_url"]) as connection:
        assert connection.execute("SELECT word FROM kept").fetchall() == [("before",)]

    second.send(signal.SIGTERM)

    assert second.wait_for_end() == 0
    assert not any(map(processes.is_alive, pids))
    assert not (data / "run.json").exists()
    assert not any("is killed" in line for line in second.lines), "\n".join(second.lines)


@pytest.mark.parametrize("role", ["web", "worker", "node", "redis", "postgres"])
def test_a_part_that_is_killed_comes_back(running: Up, role: str) -> None:
    (before,) = running.pids(role)

    os.kill(before, signal.SIGKILL)

    wait_for(lambda: running.pids(role) not in ([], [before]), f"a new {role}", 30, running.lines)
    wait_for(lambda: status_of(f"{running.url}/readyz") == 200, "readiness", 60, running.lines)


@pytest.fixture(scope="module")
def running() -> Iterator[Up]:
    """One system for the tests that leave it as they found it."""
    parent = Path(tempfile.mkdtemp(prefix="gaia-up-", dir="/tmp"))
    parent.chmod(0o711)
    system = Up(parent / ".gaia", DEMO="1").wait_until_ready()
    yield system
    system.send(signal.SIGTERM)
    assert system.wait_for_end() == 0
    shutil.rmtree(parent, ignore_errors=True)


def test_a_command_beside_it_reaches_the_same_servers(running: Up) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in GIVEN_BY_THE_TESTS}
    program = (
        "from django.conf import settings; print(settings.GAIA.database_url, settings.GAIA.cluster_node_urls)"
    )

    done = subprocess.run(
        [sys.executable, "manage.py", "shell", "--no-imports", "-c", program],
        cwd=ROOT,
        env=environment | {"GAIA_DATA_DIR": str(running.data)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    run = running.run_file()
    assert done.stdout.strip() == f"{run['database_url']} {tuple(run['node_urls'])}"


def test_its_demonstration_lives(running: Up) -> None:
    demo = json.loads((running.data / "demo.json").read_text())

    def get(path: str, key: str) -> Any:
        headers = {"Authorization": f"Bearer {demo['keys'][key]}"}
        answer = urllib3.request("GET", f"{running.url}/api/v1/{path}", headers=headers, timeout=20.0)
        assert answer.status == 200, answer.data
        return answer.json()

    def an_agent_has_completed_a_survey() -> bool:
        return bool(get("tasks?status=completed&task_type=survey", "agent")["results"])

    def the_class_is_at_work() -> bool:
        metrics = get(f"usability/students/{demo['student_ids'][0]}/metrics", "metrics")
        return bool(metrics["results"])

    wait_for(an_agent_has_completed_a_survey, "a survey", 90, running.lines)
    wait_for(the_class_is_at_work, "metrics of the class", 30, running.lines)


def test_a_second_start_in_the_same_folder_says_who_runs(running: Up) -> None:
    second = Up(running.data)

    assert second.wait_for_end() == 1
    wait_for(lambda: second.lines, "its last words", 5)
    assert f"runs already: process {running.process.pid}, at {running.url}" in "\n".join(second.lines)
    assert status_of(f"{running.url}/readyz") == 200


def test_a_second_checkout_runs_beside_it_with_three_nodes_in_one_cluster(
    running: Up, up: Callable[..., Up]
) -> None:
    other = up(NODES="3").wait_until_ready()

    assert status_of(f"{other.url}/readyz") == status_of(f"{running.url}/readyz") == 200
    assert set(other.pids()).isdisjoint(running.pids())
    assert len(other.pids("node")) == len(set(other.run_file()["node_urls"])) == 3


def test_a_port_in_use_is_named_and_another_offered(up: Callable[..., Up]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        system = up(PORT=str(port))

        assert system.wait_for_end() == 1
        wait_for(lambda: system.lines, "its last words", 5)
        assert f"Port {port} on 127.0.0.1 cannot be used" in "\n".join(system.lines)
        assert "make run PORT=" in "\n".join(system.lines)


def test_stale_files_of_an_earlier_life_stop_no_start(data: Path, up: Callable[..., Up]) -> None:
    data.mkdir()
    (data / "lock").write_text("1\n")
    stranger = {"role": "web", "name": "web", "pid": os.getpid(), "address": "", "started_at": 1.0}
    (data / "run.json").write_text(json.dumps({"processes": [stranger]}))
    (data / "nodes.json").write_text("{ cut short")

    system = up()
    wait_for(
        lambda: any("ready to accept connections" in line for line in system.lines),
        "postgres",
        START_TIMEOUT_S,
    )

    assert processes.is_alive(os.getpid())


def test_a_wrong_setting_is_refused_before_anything_starts(data: Path, up: Callable[..., Up]) -> None:
    system = up(NODES="many")

    assert system.wait_for_end() == 1
    wait_for(lambda: system.lines, "its last words", 5)
    assert system.lines == ["NODES is 'many'. Allowed: a whole number from 1 to 7."]
    assert not data.exists()
