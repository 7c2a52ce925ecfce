"""The worker loop and locks, against a server that scripts what happens."""

from __future__ import annotations

import json
import signal
import sys

import pytest

from coordination.agent import gaia_agent
from tests.agent.server import ALIVE, GRANTED, eventually, problem, task

ECHO = [
    sys.executable,
    "-c",
    "import json, sys; t = json.load(sys.stdin); print(json.dumps({'n': t['task_data']['n']}))",
]


def slow(path, seconds=30):
    """A command that writes its process id, then works for long."""
    program = f"import os, time; open({str(path)!r}, 'w').write(str(os.getpid())); time.sleep({seconds})"
    return [sys.executable, "-c", program]


def kinds(events):
    return [event["event"] for event in events]


def is_alive(pid):
    import os

    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True


def test_it_works_off_tasks_and_leaves(server, agent):
    server.works(task(1), task(2))

    events = agent.begin("run", "--json", "--max-tasks", "2", "--", *ECHO).events()

    assert kinds(events) == ["registered", "claimed", "completed", "claimed", "completed", "goodbye"]
    for number in (1, 2):
        (start,), (complete,) = (
            server.heard(f"POST tasks/t{number}/start"),
            server.heard(f"POST tasks/t{number}/complete"),
        )
        assert start.body == {"claim_token": 100 + number}
        assert complete.body == {"claim_token": 100 + number, "result": {"n": number}}
    assert server.heard("DELETE sessions/ann")[0].body == {"lease_token": 7}


def test_the_command_finds_its_task_in_the_environment(server, agent):
    server.works(task(1, lesson_id="L"))
    program = (
        "import json, os; print(json.dumps({k: v for k, v in os.environ.items() if k.startswith('GAIA_')}))"
    )

    agent.begin("run", "--json", "--max-tasks", "1", "--", sys.executable, "-c", program).events()

    told = server.heard("POST tasks/t1/complete")[0].body["result"]
    assert told["GAIA_TASK_ID"] == "t1"
    assert told["GAIA_TASK_TYPE"] == "work"
    assert told["GAIA_TASK_ATTEMPT"] == "1"
    assert told["GAIA_CLAIM_TOKEN"] == "101"
    assert told["GAIA_LESSON_ID"] == "L"
    assert told["GAIA_SESSION"] == "ann"
    assert told["GAIA_PROGRESS_FILE"]


@pytest.mark.parametrize(("status", "retryable"), [(3, True), (100, False)])
def test_a_command_that_fails_fails_its_task_with_its_words(server, agent, status, retryable):
    server.works(task(1))
    program = f"import sys; print('what went wrong', file=sys.stderr); sys.exit({status})"

    events = agent.begin("run", "--json", "--max-tasks", "1", "--", sys.executable, "-c", program).events()

    (failed,) = server.heard("POST tasks/t1/fail")
    assert failed.body == {
        "claim_token": 101,
        "error_message": f"exit status {status}: what went wrong",
        "retryable": retryable,
    }
    assert "failed" in kinds(events)


def test_a_command_that_does_not_exist_ends_the_worker(server, agent):
    server.works(task(1))

    status, _, err = agent.begin("run", "--", "/does/not/exist").end()

    assert status == gaia_agent.USAGE
    assert "cannot run /does/not/exist" in err
    assert server.heard("POST tasks/t1/fail")[0].body["retryable"] is False
    assert server.heard("DELETE sessions/ann")


def test_a_result_the_server_refuses_fails_the_task(server, agent):
    server.works(task(1)).on("POST tasks/t1/complete", problem(400, "validation-error"))

    agent.begin("run", "--json", "--max-tasks", "1", "--", *ECHO).events()

    (failed,) = server.heard("POST tasks/t1/fail")
    assert "the result was refused" in failed.body["error_message"]
    assert failed.body["retryable"] is False


def test_a_claim_that_became_void_is_not_worked_on(server, agent):
    server.works(task(1)).on("POST tasks/t1/start", problem(412, "stale-token"))

    events = agent.begin("run", "--json", "--max-tasks", "1", "--", *ECHO).events()

    assert "report_refused" in kinds(events)
    assert not server.heard("POST tasks/t1/complete")


def test_it_beats_with_progress_while_a_command_works(server, agent):
    server.works(task(1))
    program = (
        "import os, time\n"
        "open(os.environ['GAIA_PROGRESS_FILE'], 'w').write('10 begun\\n40% nearly half\\n')\n"
        "time.sleep(1.0)"
    )

    agent.begin("run", "--json", "--max-tasks", "1", "--", sys.executable, "-c", program).events()

    beats = [request.body["progress"] for request in server.heard("POST sessions/ann/heartbeat")]
    assert [{"task_id": "t1", "claim_token": 101, "percent": 40, "note": "nearly half"}] in beats


def test_it_ends_when_idle_for_long(server, agent):
    server.works()

    events = agent.begin("run", "--json", "--idle-exit", "0.5", "--", *ECHO).events()

    assert kinds(events) == ["registered", "idle", "goodbye"]


def test_a_cancelled_task_is_stopped_and_not_reported(server, agent, tmp_path):
    pid = tmp_path / "pid"

    def beat(request):
        cancel = {"kind": "cancel_task", "task_id": "t1", "claim_token": 101, "reason": "changed"}
        return 200, {}, ALIVE | {"directives": [cancel] if pid.exists() else []}

    server.works(task(1)).on("POST sessions/ann/heartbeat", beat)

    events = agent.begin("run", "--json", "--max-tasks", "1", "--", *slow(pid)).events()

    assert [kind for kind in kinds(events) if kind in ("cancelled", "stopped")] == ["cancelled", "stopped"]
    assert not is_alive(pid.read_text())
    assert not server.heard("POST tasks/t1/complete") + server.heard("POST tasks/t1/fail")


def test_a_command_that_ignores_the_request_to_end_is_ended_after_the_grace(server, agent, tmp_path):
    pid = tmp_path / "pid"
    program = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(30)'])\n"
        f"open({str(pid)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "time.sleep(30)"
    )
    server.works(task(1))
    running = agent.begin("run", "--grace-s", "0.3", "--drain-s", "0", "--", sys.executable, "-c", program)
    eventually(lambda: pid.exists() and " " in pid.read_text(), "a command that runs")

    running.signal()

    assert running.end()[0] == 0
    assert eventually(
        lambda: not any(is_alive(one) for one in pid.read_text().split()), "the whole group ended"
    )


def test_a_draining_session_finishes_its_task_and_leaves(server, agent):
    server.works(task(1), task(2)).on("POST sessions/ann/heartbeat", ALIVE | {"status": "draining"})
    program = [sys.executable, "-c", "import time; time.sleep(1)"]

    events = agent.begin("run", "--json", "--", *program).events()

    assert kinds(events) == ["registered", "claimed", "draining", "completed", "goodbye"]


def test_a_paused_session_claims_nothing_until_it_is_resumed(server, agent):
    server.works(task(1)).on("POST sessions", (201, {}, GRANTED | {"status": "paused"}))
    server.on("POST sessions/ann/heartbeat", *[ALIVE | {"status": "paused"}] * 3, ALIVE | {"status": "idle"})

    events = agent.begin("run", "--json", "--max-tasks", "1", "--", *ECHO).events()

    assert kinds(events) == ["registered", "paused", "resumed", "claimed", "completed", "goodbye"]


def test_sigterm_lets_the_task_finish(server, agent, tmp_path):
    pid = tmp_path / "pid"
    server.works(task(1), task(2))
    running = agent.begin("run", "--json", "--", *slow(pid, 1))
    eventually(pid.exists, "a command that runs")

    running.signal()

    assert kinds(running.events()) == ["registered", "claimed", "completed", "goodbye"]


def test_a_task_that_does_not_finish_in_time_is_handed_back(server, agent, tmp_path):
    pid = tmp_path / "pid"
    server.works(task(1))
    running = agent.begin("run", "--json", "--drain-s", "0.3", "--", *slow(pid))
    eventually(pid.exists, "a command that runs")

    running.signal()

    assert kinds(running.events())[-2:] == ["handed_back", "goodbye"]
    assert not server.heard("POST tasks/t1/complete") + server.heard("POST tasks/t1/fail")
    assert not is_alive(pid.read_text())


def test_a_second_signal_does_not_wait(server, agent, tmp_path):
    pid = tmp_path / "pid"
    server.works(task(1))
    running = agent.begin("run", "--json", "--drain-s", "60", "--", *slow(pid))
    eventually(pid.exists, "a command that runs")

    running.signal(signal.SIGINT)
    running.signal(signal.SIGTERM)

    assert kinds(running.events())[-2:] == ["handed_back", "goodbye"]


def test_a_worker_that_waits_for_a_task_ends_at_once(server, agent):
    server.works()
    running = agent.begin("run", "--json", "--", *ECHO)
    eventually(lambda: server.heard("POST tasks/claim"), "a claim")

    running.signal()

    assert kinds(running.events()) == ["registered", "goodbye"]


def test_a_lost_lease_stops_the_work_and_registers_anew(server, agent, tmp_path):
    pid = tmp_path / "pid"
    server.works(task(1), task(2, task_data={"n": 2}))
    server.on("POST sessions", (201, {}, GRANTED), (201, {}, GRANTED | {"lease_token": 50}))
    lost = problem(409, "lease-expired")
    server.on(
        "POST sessions/ann/heartbeat",
        lambda _: lost if pid.exists() and len(server.heard("POST sessions")) < 2 else (200, {}, ALIVE),
    )
    program = (
        "import json, os, sys, time\n"
        "task = json.load(sys.stdin)\n"
        f"open({str(pid)!r}, 'w').write(str(os.getpid()))\n"
        "time.sleep(30 if task['id'] == 't1' else 0)"
    )

    events = agent.begin("run", "--json", "--max-tasks", "2", "--", sys.executable, "-c", program).events()

    assert [event["lease_token"] for event in events if event["event"] == "registered"] == [7, 50]
    assert "lease_lost" in kinds(events)
    assert not server.heard("POST tasks/t1/complete")
    assert server.heard("POST tasks/t2/complete")
    assert server.heard("POST tasks/claim")[-1].body["lease_token"] == 50


def test_a_name_somebody_else_took_ends_the_worker(server, agent):
    server.works().on("POST sessions", (201, {}, GRANTED), problem(409, "conflict"))
    server.on("POST sessions/ann/heartbeat", problem(409, "lease-expired"))

    status, _, err = agent.begin("run", "--", *ECHO).end()

    assert status == gaia_agent.REFUSED
    assert "conflict it is" in err


def test_it_survives_a_server_that_is_away_for_a_while(server, agent):
    later = problem(503, "no-leader", Retry_After="1")
    server.works().on("POST tasks/claim", later, {"tasks": [task(1)]}).on(
        "POST tasks/t1/complete", later, {"status": "completed"}
    )

    events = agent.begin("run", "--json", "--max-tasks", "1", "--", *ECHO).events()

    assert kinds(events)[-2:] == ["completed", "goodbye"]
    keys = {request.key for request in server.heard("POST tasks/t1/complete")}
    assert len(keys) == 1


def test_several_tasks_at_once(server, agent, tmp_path):
    server.works(task(1), task(2))
    program = (
        "import json, os, sys, time\n"
        "mine = json.load(sys.stdin)['id']\n"
        f"folder = {str(tmp_path)!r}\n"
        "open(os.path.join(folder, mine), 'w').close()\n"
        "until = time.time() + 10\n"
        "while not all(os.path.exists(os.path.join(folder, one)) for one in ('t1', 't2')):\n"
        "    assert time.time() < until\n"
        "    time.sleep(0.02)\n"
    )

    agent.begin(
        "run", "--json", "--parallel", "2", "--max-tasks", "2", "--", sys.executable, "-c", program
    ).events()

    assert server.heard("POST tasks/t1/complete")
    assert server.heard("POST tasks/t2/complete")


# Locks

HELD = {"lock_key": "k", "owner_id": "ann", "fencing_token": 33, "expires_at": "2030-01-01T00:00:00Z"}


def test_a_lock_by_hand(server, agent):
    server.on("POST locks/k/acquire", HELD).on("POST locks/k/renew", HELD).on(
        "POST locks/k/release", {"released": True}
    )

    for words in (
        ["acquire", "k", "--ttl", "5"],
        ["renew", "k", "--token", "33"],
        ["release", "k", "--token", "33"],
    ):
        assert agent("lock", *words).returncode == 0

    assert server.heard("POST locks/k/acquire")[0].body == {"owner_id": "ann", "ttl_s": 5.0, "wait_s": 0.0}
    assert server.heard("POST locks/k/release")[0].body == {"owner_id": "ann", "fencing_token": 33}


def test_a_command_runs_under_a_lock_and_its_exit_status_is_ours(server, agent):
    server.on("POST locks/k/acquire", HELD)
    program = "import os, sys; sys.exit(int(os.environ['GAIA_FENCING_TOKEN']))"

    done = agent("lock", "k", "--", sys.executable, "-c", program)

    assert done.returncode == 33
    (acquired,), (released,) = server.heard("POST locks/k/acquire"), server.heard("POST locks/k/release")
    assert released.body == {"owner_id": acquired.body["owner_id"], "fencing_token": 33}
    assert acquired.body["owner_id"].startswith("ann/")


def test_a_held_lock_is_refused_and_the_command_does_not_run(server, agent, tmp_path):
    server.on("POST locks/k/acquire", problem(409, "conflict"))

    done = agent("lock", "k", "--json", "--", "touch", str(tmp_path / "ran"))

    assert done.returncode == gaia_agent.REFUSED
    assert json.loads(done.stdout)["problem"]["type"] == "conflict"
    assert not (tmp_path / "ran").exists()


def test_it_queues_again_while_it_may_wait(server, agent):
    server.on("POST locks/k/acquire", problem(409, "conflict"), HELD)

    assert agent("lock", "k", "--wait", "30", "--", "true").returncode == 0
    assert server.heard("POST locks/k/acquire")[0].body["wait_s"] == pytest.approx(20.0)


def test_the_lock_is_renewed_while_the_command_runs(server, agent):
    server.on("POST locks/k/acquire", HELD)

    assert agent("lock", "k", "--ttl", "0.6", "--", "sleep", "1").returncode == 0
    assert len(server.heard("POST locks/k/renew")) >= 2


def test_a_lock_that_is_lost_stops_the_command(server, agent, tmp_path):
    server.on("POST locks/k/acquire", HELD).on("POST locks/k/renew", problem(412, "stale-token"))
    pid = tmp_path / "pid"

    done = agent("lock", "k", "--ttl", "3", "--", *slow(pid))

    assert done.returncode == gaia_agent.STALE
    assert not is_alive(pid.read_text())


def test_a_signal_ends_the_command_and_frees_the_lock(server, agent, tmp_path):
    server.on("POST locks/k/acquire", HELD)
    pid = tmp_path / "pid"
    running = agent.begin("lock", "k", "--", *slow(pid))
    eventually(pid.exists, "a command that runs")

    running.signal()

    assert running.end()[0] == 128 + signal.SIGTERM
    assert server.heard("POST locks/k/release")


def test_a_command_that_cannot_be_run_frees_the_lock(server, agent):
    server.on("POST locks/k/acquire", HELD)

    assert agent("lock", "k", "--", "/does/not/exist").returncode == gaia_agent.USAGE
    assert server.heard("POST locks/k/release")


# Hooks


def test_the_settings_call_this_file_at_each_event(agent):
    settings = json.loads(agent("hook", "settings").stdout)

    assert set(settings["hooks"]) == set(gaia_agent.HOOK_EVENTS)
    for event, groups in settings["hooks"].items():
        (hook,) = groups[0]["hooks"]
        assert hook["command"].endswith(f"gaia_agent.py hook {event}")


def test_a_conversation_registers_lives_completes_and_leaves(server, agent):
    agent.environment["GAIA_SESSION"] = ""
    told = json.dumps({"session_id": "abcdef01-2345", "hook_event_name": "any"})
    server.on("POST sessions", (201, {}, GRANTED)).on("POST tasks/claim", {"tasks": [task(1)]})

    assert agent("hook", "SessionStart", given=told).returncode == 0
    name = server.heard("POST sessions")[0].body["session_name"]
    agent("claim", "--name", name)
    for event in ("PostToolUse", "Stop", "SessionEnd"):
        assert agent("hook", event, given=told).returncode == 0

    assert name.endswith("/abcdef01")
    (beat,) = server.heard(f"POST sessions/{name}/heartbeat")
    assert beat.body["progress"] == [{"task_id": "t1", "claim_token": 101}]
    assert server.heard("POST tasks/t1/complete")[0].body["claim_token"] == 101
    assert server.heard(f"DELETE sessions/{name}")[0].body == {"lease_token": 7}


def test_heartbeats_of_hooks_are_not_sent_more_often_than_needed(server, agent):
    server.on("POST sessions", (201, {}, GRANTED | {"heartbeat_interval_s": 60}))

    agent("hook", "SessionStart")
    agent("hook", "PostToolUse")

    assert not server.heard("POST sessions/ann/heartbeat")


def test_a_hook_whose_lease_is_over_registers_again(server, agent):
    server.on("POST sessions", (201, {}, GRANTED)).on(
        "POST sessions/ann/heartbeat", problem(409, "lease-expired")
    )

    agent("hook", "SessionStart")
    done = agent("hook", "PostToolUse", "--json")

    assert json.loads(done.stdout) == {"registered": "ann"}


def test_a_stop_with_a_void_claim_forgets_it(server, agent):
    server.works(task(1)).on("POST tasks/t1/complete", problem(412, "stale-token"))
    agent.register()
    agent("claim")

    assert json.loads(agent("hook", "Stop", "--json").stdout) == {"completed": []}
    assert json.loads(agent("hook", "Stop", "--json").stdout) == {"completed": []}
    assert len(server.heard("POST tasks/t1/complete")) == 1


def test_a_hook_never_stands_in_the_way(server, agent):
    server.on("POST sessions", problem(403, "permission-denied"))

    done = agent("hook", "SessionStart", given="not json")

    assert done.returncode == 0
    assert "hook_failed" in done.stderr
