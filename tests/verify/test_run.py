"""`manage.py verify` for real: it holds on the system as it is, and not on one with a promise broken."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from coordination.verify.history import OPS, read
from tests.running import GIVEN_BY_THE_TESTS, ROOT

TIMEOUT_S = 240
SETTINGS = {"RAFT_HEARTBEAT_TIMEOUT": "300ms", "RAFT_ELECTION_TIMEOUT": "900ms"}
"""Two cores are shared with other tests: elections that nothing but load brings about would only cost time."""


def run(*command: str, **settings: str) -> tuple[int, dict[str, Any], str]:
    """The exit code, the verdict, and what else was written."""
    inherited = {name: value for name, value in os.environ.items() if name not in GIVEN_BY_THE_TESTS}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=inherited | SETTINGS | settings,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert lines, done.stdout + done.stderr
    return done.returncode, json.loads(lines[-1]), done.stdout + done.stderr


def broken(verdict: dict[str, Any]) -> set[str]:
    return {result["check"] for result in verdict["results"] if result["findings"]}


@pytest.mark.timeout(TIMEOUT_S)
def test_the_system_holds_under_kill_and_pause(tmp_path: Path) -> None:
    code, verdict, told = run(
        *("manage.py", "verify", "--nodes", "3", "--minutes", "0.3", "--seed", "5", "--json"),
        *("--faults", "kill-leader,pause", "--network", "proxies"),
        GAIA_DATA_DIR=str(tmp_path),
    )

    assert (code, broken(verdict), verdict["held"]) == (0, set(), True), told
    assert {fault["kind"] for fault in verdict["faults"]} <= {"kill-leader", "pause"}
    assert all(fault["recovery_s"] is not None for fault in verdict["faults"])
    history = read(Path(verdict["folder"]) / "history.jsonl")
    assert {one.op for one in history} == set(OPS)
    assert sum(one.is_ok for one in history) > 100


@pytest.mark.timeout(TIMEOUT_S)
def test_nodes_that_grant_a_held_lock_are_noticed(tmp_path: Path) -> None:
    code, verdict, told = run("-m", "tests.verify.bad", "two_holders", "--folder", str(tmp_path))

    assert (code, verdict["held"]) == (1, False), told
    assert "lock holds" in broken(verdict), told
    witnesses = [finding for result in verdict["results"] for finding in result["findings"]]
    assert any(finding["operations"] for finding in witnesses)
