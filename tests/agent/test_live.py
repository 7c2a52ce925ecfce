"""The client against the real site, node and database."""

from __future__ import annotations

import json
import sys
import uuid

import pytest
import urllib3

from coordination.agent import gaia_agent
from tests.agent.server import CLIENT, Agent, eventually


@pytest.fixture
def live(site, name, tmp_path):
    """An agent of its own on the live site, with a task type nobody else works on."""
    unique = uuid.uuid4().hex[:8]
    agent = Agent(site.url, tmp_path, name=name(f"agent/{unique}"), key=site.secrets["agent"])
    agent.task_type = f"type-{unique}"
    agent.site = site
    yield agent
    agent("goodbye", "--retry-s", "2")


def enqueue(live, number, **more):
    return live.site.task(f"{live.task_type}-{number}", **({"task_type": live.task_type} | more))["id"]


def seen(live, task_id):
    return live.site.agent("GET", f"tasks/{task_id}?consistency=linearizable").json()


def test_the_site_serves_the_client(site):
    served = urllib3.request("GET", f"{site.url}/agent/gaia_agent.py", timeout=10.0)

    assert served.status == 200
    assert served.data == CLIENT.read_bytes()


def test_the_steps_by_hand(live):
    task_id = enqueue(live, 1, task_data={"path": "a"})

    registered = live("register", "--json", "--capability", "python")
    again = live("register", "--json")
    claimed = live("claim", "--json", "--wait", "10", "--task-type", live.task_type)
    beat = live("heartbeat", "--json", "--progress", f"{task_id}:50:half")
    status = live("status", "--json")
    completed = live("complete", task_id, "--json", "--result", '{"lines": 3}')
    nothing = live("claim", "--task-type", live.task_type)

    assert registered.returncode == 0, registered.stdout
    assert json.loads(again.stdout)["lease_token"] == json.loads(registered.stdout)["lease_token"]
    (task,) = json.loads(claimed.stdout)["tasks"]
    assert (task["id"], task["task_data"]) == (task_id, {"path": "a"})
    assert json.loads(beat.stdout)["status"] == "busy"
    assert json.loads(status.stdout)["session_name"] == live.environment["GAIA_SESSION"]
    assert json.loads(completed.stdout)["status"] == "completed"
    assert nothing.returncode == gaia_agent.NOTHING
    assert seen(live, task_id)["result"] == {"lines": 3}


def test_a_worker_works_off_the_queue(live):
    ids = [enqueue(live, number, task_data={"n": number}) for number in range(3)]
    program = "import json, sys; print(json.dumps({'twice': 2 * json.load(sys.stdin)['task_data']['n']}))"

    status, _, err = live.begin(
        "run", "--task-type", live.task_type, "--max-tasks", "3", "--", sys.executable, "-c", program
    ).end(40)

    assert status == 0, err
    assert [seen(live, task_id)["result"] for task_id in ids] == [{"twice": 0}, {"twice": 2}, {"twice": 4}]
    session = live.site.agent("GET", f"sessions/{live.environment['GAIA_SESSION']}?consistency=linearizable")
    assert session.json()["status"] == "offline"


def test_a_failing_command_fails_its_task(live):
    task_id = enqueue(live, 1, max_retries=0)
    program = "import sys; print('no such file', file=sys.stderr); sys.exit(2)"

    live.begin(
        "run", "--task-type", live.task_type, "--max-tasks", "1", "--", sys.executable, "-c", program
    ).end(40)

    task = seen(live, task_id)
    assert task["status"] == "failed"
    assert "no such file" in task["error_message"]


def test_a_worker_that_is_stopped_hands_its_task_back(live, tmp_path):
    task_id = enqueue(live, 1)
    started = tmp_path / "started"
    program = f"import time; open({str(started)!r}, 'w').close(); time.sleep(60)"
    running = live.begin(
        "run", "--task-type", live.task_type, "--drain-s", "0", "--", sys.executable, "-c", program
    )
    eventually(started.exists, "a command that runs", 30)

    running.signal()
    status, _, err = running.end(30)

    assert status == 0, err
    task = seen(live, task_id)
    assert (task["status"], task["retry_count"]) == ("pending", 0)


def test_a_worker_ends_when_its_session_drains_and_stops_a_cancelled_task(live, tmp_path):
    task_id = enqueue(live, 1)
    started = tmp_path / "started"
    program = f"import time; open({str(started)!r}, 'w').close(); time.sleep(60)"
    running = live.begin("run", "--json", "--task-type", live.task_type, "--", sys.executable, "-c", program)
    eventually(started.exists, "a command that runs", 30)

    assert live.site.admin("POST", f"tasks/{task_id}/cancel", {}).status == 200
    assert live.site.admin("POST", f"sessions/{live.environment['GAIA_SESSION']}/drain", {}).status == 200

    events = [event["event"] for event in running.events()]
    assert {"cancelled", "stopped", "draining", "goodbye"} <= set(events)
    assert seen(live, task_id)["status"] == "cancelled"


def test_two_commands_under_one_lock_do_not_overlap(live, tmp_path):
    key, log = f"lock-{uuid.uuid4().hex}", tmp_path / "log"
    program = (
        "import os, time\n"
        f"log = open({str(log)!r}, 'a')\n"
        "token = os.environ['GAIA_FENCING_TOKEN']\n"
        "print('in', token, file=log, flush=True); time.sleep(0.5); print('out', token, file=log, flush=True)"
    )

    both = [live.begin("lock", key, "--wait", "20", "--", sys.executable, "-c", program) for _ in range(2)]
    ended = [one.end(40) for one in both]

    assert [status for status, _, _ in ended] == [0, 0], ended
    lines = [line.split() for line in log.read_text().splitlines()]
    assert [word for word, _ in lines] == ["in", "out", "in", "out"]
    first, second = int(lines[0][1]), int(lines[2][1])
    assert first < second
    assert live.site.agent("GET", f"locks/{key}").status == 404


def test_a_lock_by_hand(live):
    key = f"lock-{uuid.uuid4().hex}"

    held = json.loads(live("lock", "acquire", key, "--ttl", "30", "--json").stdout)
    other = live("lock", "acquire", key, "--owner", "somebody-else")
    token = str(held["fencing_token"])
    renewed = json.loads(live("lock", "renew", key, "--token", token, "--json").stdout)
    released, again = (
        live("lock", "release", key, "--token", token),
        live("lock", "release", key, "--token", token),
    )

    assert other.returncode == gaia_agent.REFUSED
    assert (renewed["fencing_token"], renewed["renewed_count"]) == (held["fencing_token"], 1)
    assert (released.returncode, again.returncode) == (0, gaia_agent.STALE)


def test_a_key_without_the_scope_is_denied(live):
    live.environment["GAIA_KEY"] = live.site.secrets["teacher"]

    assert live("register").returncode == gaia_agent.DENIED
