"""How the client calls: patiently, once, and with an exit status that says what came of it."""

from __future__ import annotations

import ast
import json
import socket
import stat
import subprocess
import sys
import time

import pytest

from coordination.agent import gaia_agent
from tests.agent.server import CLIENT, GRANTED, Agent, Server, problem, task


def test_it_needs_nothing_but_python_3_9():
    tree = ast.parse(CLIENT.read_text(), feature_version=(3, 9))

    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names]
        )
    }

    assert imported <= sys.stdlib_module_names


def test_its_help_names_every_command_and_exit_status():
    told = subprocess.run(
        [sys.executable, str(CLIENT), "--help"], capture_output=True, text=True, check=True
    ).stdout

    for word in [*gaia_agent.PERFORM, "run", "lock", "hook"]:
        assert word in told
    for status in range(10):
        assert f"{status} " in told


def test_it_waits_as_long_as_the_server_says_and_repeats_under_the_same_key(server, agent):
    server.on(
        "POST sessions",
        problem(503, "no-leader", Retry_After="1"),
        problem(429, "rate-limited", Retry_After="1"),
        (201, {}, GRANTED),
    )
    begun = time.monotonic()

    done = agent("register")

    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begun >= 2.0
    assert len({request.key for request in server.heard("POST sessions")}) == 1
    assert server.heard("POST sessions")[0].key
    assert server.heard("POST sessions")[0].headers["Authorization"] == "Bearer secret"


def test_two_calls_have_two_keys(server, agent):
    server.on("POST sessions", (201, {}, GRANTED))

    agent("register")
    agent("register")

    assert len({request.key for request in server.heard("POST sessions")}) == 2


def test_it_waits_for_a_server_that_is_not_there_yet(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = Agent(f"http://127.0.0.1:{port}", tmp_path).begin("register", "--json")
    time.sleep(1.0)

    late = Server(port).on("POST sessions", (201, {}, GRANTED))

    status, out, _ = running.end()
    late.close()
    assert status == 0
    assert json.loads(out)["lease_token"] == 7


def test_it_gives_up_when_its_patience_is_over(tmp_path):
    done = Agent("http://127.0.0.1:9", tmp_path)("register", "--retry-s", "0.5")

    assert done.returncode == gaia_agent.UNREACHED
    assert "was not reached" in done.stderr


def test_a_server_error_is_repeated_a_few_times_only(server, agent):
    server.on("POST sessions", problem(500, "internal-error"))

    done = agent("register")

    assert done.returncode == gaia_agent.UNEXPECTED
    assert len(server.heard("POST sessions")) == 4


@pytest.mark.parametrize(
    ("status", "slug", "code"),
    [
        (400, "validation-error", gaia_agent.INVALID),
        (401, "not-authenticated", gaia_agent.DENIED),
        (403, "permission-denied", gaia_agent.DENIED),
        (404, "not-found", gaia_agent.MISSING),
        (409, "conflict", gaia_agent.REFUSED),
        (409, "lease-expired", gaia_agent.STALE),
        (412, "stale-token", gaia_agent.STALE),
        (422, "idempotency-mismatch", gaia_agent.INVALID),
    ],
)
def test_a_refusal_is_not_repeated_and_its_exit_status_says_what_it_was(server, agent, status, slug, code):
    server.on("POST sessions", problem(status, slug))

    done = agent("register", "--json")

    assert done.returncode == code
    assert len(server.heard("POST sessions")) == 1
    assert json.loads(done.stdout)["error"]["type"] == slug


def test_an_invalid_value_is_named(server, agent):
    body = {"detail": "invalid", "errors": [{"loc": ["body", "tier"], "msg": "unknown"}]}
    server.on("POST sessions", (400, {}, body))

    assert "body.tier: unknown" in agent("register").stderr


def test_a_page_that_is_no_json_is_shown(server, agent):
    server.on("POST sessions", (404, {}, b"<html>a proxy</html>"))

    assert "a proxy" in agent("register").stderr


def test_the_lease_is_remembered_for_its_owner_only_and_resumed(server, agent):
    server.on("POST sessions", (201, {}, GRANTED))

    agent.register()
    agent.register()

    first, second = server.heard("POST sessions")
    assert "lease_token" not in first.body
    assert second.body["lease_token"] == 7
    (kept,) = (agent.folder / "state").glob("*.json")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700


def test_a_damaged_memory_is_no_memory(server, agent):
    server.on("POST sessions", (201, {}, GRANTED))
    agent.register()
    (kept,) = (agent.folder / "state").glob("*.json")
    kept.write_text("[1, 2")

    agent.register()

    assert "lease_token" not in server.heard("POST sessions")[1].body


def test_what_a_session_says_of_itself_is_sent(server, agent):
    server.on("POST sessions", (201, {}, GRANTED))

    agent(
        "register", "--tier", "manager", "--provider", "codex", "--max-concurrent", "2",
        "--capability", "gpu", "--capability", "ssd", "--lesson", "L", "--metadata", '{"host": "a"}',
    )  # fmt: skip

    (request,) = server.heard("POST sessions")
    assert request.body == {
        "session_name": "ann",
        "tier": "manager",
        "provider": "codex",
        "max_concurrent_tasks": 2,
        "capabilities": ["gpu", "ssd"],
        "lesson_id": "L",
        "metadata": {"host": "a"},
    }


def test_claimed_tasks_are_completed_and_failed_with_their_remembered_tokens(server, agent):
    server.on("POST sessions", (201, {}, GRANTED)).on("POST tasks/claim", {"tasks": [task(1), task(2)]})
    server.on("POST tasks/t2/fail", {"status": "failed", "retry_count": 0})
    agent.register()

    claimed = agent("claim", "--max", "2", "--task-type", "work")
    completed = agent("complete", "t1", "--result", "-", given='{"right": true}')
    failed = agent("fail", "t2", "--error", "boom", "--final")
    again = agent("complete", "t1")

    assert claimed.stdout.splitlines() == ["t1 work token=101", "t2 work token=102"]
    assert (completed.returncode, failed.returncode) == (0, 0)
    assert server.heard("POST tasks/claim")[0].body == {
        "session_name": "ann",
        "lease_token": 7,
        "max": 2,
        "wait_s": 0.0,
        "task_types": ["work"],
    }
    assert server.heard("POST tasks/t1/complete")[0].body == {"claim_token": 101, "result": {"right": True}}
    assert server.heard("POST tasks/t2/fail")[0].body == {
        "claim_token": 102,
        "error_message": "boom",
        "retryable": False,
    }
    assert again.returncode == gaia_agent.USAGE
    assert "no claim on task t1" in again.stderr


def test_nothing_to_claim_has_its_own_exit_status(server, agent):
    server.works()
    agent.register()

    done = agent("claim", "--wait", "0.5")

    assert done.returncode == gaia_agent.NOTHING
    assert "nothing_pending" in done.stdout


def test_a_void_claim_is_forgotten(server, agent):
    server.works(task(1)).on("POST tasks/t1/complete", problem(412, "stale-token"))
    agent.register()
    agent("claim")

    first, second = agent("complete", "t1"), agent("complete", "t1")

    assert (first.returncode, second.returncode) == (gaia_agent.STALE, gaia_agent.USAGE)


def test_heartbeat_tells_progress_and_prints_directives(server, agent):
    server.works(task(1))
    server.on(
        "POST sessions/ann/heartbeat",
        {"status": "draining", "directives": [{"kind": "drain"}, {"kind": "cancel_task", "task_id": "t1"}]},
    )
    agent.register()
    agent("claim")

    done = agent("heartbeat", "--progress", "t1:40:half of it")

    assert done.stdout.splitlines() == ["ann: draining", "drain", "cancel_task t1"]
    (request,) = server.heard("POST sessions/ann/heartbeat")
    assert request.body == {
        "lease_token": 7,
        "progress": [{"task_id": "t1", "claim_token": 101, "percent": 40, "note": "half of it"}],
    }
    assert agent("heartbeat", "--progress", "t1:much").returncode == gaia_agent.USAGE


def test_status_and_goodbye(server, agent):
    server.works().on(
        "GET sessions/ann",
        {"status": "idle", "health_status": "healthy", "current_task_count": 1, "max_concurrent_tasks": 5},
    )
    agent.register()

    status, goodbye, after = agent("status"), agent("goodbye"), agent("heartbeat")

    assert status.stdout == "ann: idle, healthy, 1 of 5 tasks\n"
    assert goodbye.returncode == 0
    assert server.heard("DELETE sessions/ann")[0].body == {"lease_token": 7}
    assert after.returncode == gaia_agent.USAGE


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["heartbeat"], "run `gaia-agent register` first"),
        (["run"], "give the command to run after --"),
        (["lock", "k"], "give acquire, renew or release"),
        (["lock", "renew", "k"], "needs the fencing --token"),
        (["lock", "a", "b", "--", "true"], "give one KEY"),
        (["register", "--metadata", "{"], "--metadata must be JSON"),
        (["register", "--url", "ftp://x"], "must be http"),
        (["claim", "--max", "0"], "must be at least 1"),
    ],
)
def test_wrong_usage_is_explained(agent, words, told):
    done = agent(*words)

    assert done.returncode == gaia_agent.USAGE
    assert told in done.stderr


def test_it_says_where_the_url_belongs(agent):
    agent.environment["GAIA_URL"] = ""

    assert "set GAIA_URL" in agent("register").stderr


@pytest.mark.parametrize(
    ("output", "result"),
    [
        (b'{"a": 1}\n', {"a": 1}),
        (b"42\n", 42),
        (b"done\n", {"output": "done\n"}),
        (b"", {"output": ""}),
        (b"\xff", {"output": "\ufffd"}),
        (b"x" * 100_000, {"output": "x" * 64_000}),
    ],
)
def test_output_is_json_if_it_parses_else_the_end_of_the_text(output, result):
    assert gaia_agent.result_of(output) == result


def test_a_tail_keeps_the_last_bytes():
    tail = gaia_agent.Tail(5)
    for chunk in (b"abc", b"def", b"gh"):
        tail.add(chunk)

    assert tail.content == b"defgh"


def test_patience_doubles_heeds_the_server_and_ends():
    patience = gaia_agent.Patience(100.0)

    pauses = [patience.next_pause_s(0.0) for _ in range(12)]

    assert all(0 <= pause <= min(15.0, 0.2 * 2**n) for n, pause in enumerate(pauses))
    assert patience.next_pause_s(20.0) >= 20.0
    assert patience.next_pause_s(101.0) is None
