"""The supervisor: one log, restarts with back-off, an orderly end. Its children here are small shell commands."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from gaia_site.embedded import processes
from gaia_site.embedded.supervisor import LINE_BYTES_MOST, Part, PartFailed, Stopped, Supervisor


class Lines:
    """A log that keeps what it is given."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, str]] = []

    def write(self, source: str, line: str) -> None:
        self.kept.append((source, line))

    def of(self, source: str) -> list[str]:
        return [line for name, line in self.kept if name == source]


@pytest.fixture
def log() -> Lines:
    return Lines()


@pytest.fixture
def supervisor(log: Lines) -> Iterator[Supervisor]:
    made = Supervisor(log, lambda: None)
    yield made
    made.ask_to_stop()
    made.stop(())


def shell(name: str, script: str, **more: object) -> Part:
    return Part(
        name, name, ("/bin/sh", "-c", script), {"PATH": os.defpath}, **{"restart_delay_s": 0.01, **more}
    )


def step_until(supervisor: Supervisor, condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        supervisor.step(0.02)


def test_each_line_of_output_carries_the_name_of_its_part(supervisor: Supervisor, log: Lines) -> None:
    supervisor.run_to_end(shell("a", "echo one; echo two >&2"), shell("b", "printf 'no end'"), timeout_s=10)

    assert log.of("a") == ["one", "two"]
    assert log.of("b") == ["no end"]


def test_a_line_without_end_is_cut_and_not_collected_for_ever(supervisor: Supervisor, log: Lines) -> None:
    supervisor.run_to_end(shell("a", f"head -c {5 * LINE_BYTES_MOST} /dev/zero | tr '\\0' x"), timeout_s=10)

    assert all(len(line) <= LINE_BYTES_MOST for line in log.of("a"))


def test_bytes_that_are_no_text_pass_without_harm(supervisor: Supervisor, log: Lines) -> None:
    supervisor.run_to_end(shell("a", r"printf '\377\n'"), timeout_s=10)

    assert log.of("a") == ["\ufffd"]


def test_a_child_that_died_is_started_again_and_the_log_says_how_it_ended(
    supervisor: Supervisor, log: Lines
) -> None:
    supervisor.start(shell("a", "exec sleep 600"))
    first = supervisor.running()[0].pid

    os.kill(first, signal.SIGKILL)
    step_until(supervisor, lambda: [one.pid for one in supervisor.running()] not in ([], [first]))

    assert "SIGKILL" in log.of("up")[0]


def test_what_must_be_done_before_a_restart_is_done(supervisor: Supervisor) -> None:
    done = []
    supervisor.start(shell("a", "exit 3", before_restart=lambda: done.append(len(done))))

    step_until(supervisor, lambda: len(done) == 2)


def test_the_fifth_death_within_a_minute_ends_it_with_the_reason(supervisor: Supervisor, log: Lines) -> None:
    supervisor.start(shell("a", "exit 3"))

    with pytest.raises(PartFailed, match="a died 5 times within a minute, the last time by code 3"):
        step_until(supervisor, lambda: False)
    assert len(log.of("up")) == 4


def test_the_pause_before_a_restart_grows(supervisor: Supervisor, log: Lines) -> None:
    supervisor.start(shell("a", "exit 1"))

    with pytest.raises(PartFailed):
        step_until(supervisor, lambda: False)
    pauses = [float(line.split()[-2]) for line in log.of("up")]
    assert pauses == [0.01, 0.02, 0.04, 0.08]


def test_a_part_that_fails_at_the_start_says_its_code(supervisor: Supervisor) -> None:
    with pytest.raises(PartFailed, match="migrate ended with code 7"):
        supervisor.run_to_end(shell("migrate", "exit 7"), timeout_s=10)


def test_a_part_that_never_ends_is_not_waited_for_for_ever(supervisor: Supervisor) -> None:
    with pytest.raises(PartFailed, match="did not end within 0 s"):
        supervisor.run_to_end(shell("migrate", "exec sleep 600"), timeout_s=0.1)


def test_asked_to_stop_it_leaves_the_start_and_ends_what_it_was_doing(supervisor: Supervisor) -> None:
    supervisor.ask_to_stop()

    with pytest.raises(Stopped):
        supervisor.run_to_end(shell("migrate", "exec sleep 600"), timeout_s=10)
    with pytest.raises(Stopped):
        supervisor.wait_until(lambda: False, what="nothing", timeout_s=10)


def test_parts_stop_in_the_given_order(supervisor: Supervisor, log: Lines) -> None:
    for name in ("postgres", "node", "web"):
        script = "trap 'echo stopped; exit 0' TERM; echo ready; while :; do sleep 0.02; done"
        supervisor.start(shell(name, script))
    step_until(supervisor, lambda: sum(line == "ready" for _, line in log.kept) == 3)
    pids = [one.pid for one in supervisor.running()]

    supervisor.ask_to_stop()
    supervisor.stop(("web", "node", "postgres"))

    assert [name for name, line in log.kept if line == "stopped"] == ["web", "node", "postgres"]
    assert not any(map(processes.is_alive, pids))


def test_a_part_that_ignores_its_signal_is_killed_after_its_patience(
    supervisor: Supervisor, log: Lines
) -> None:
    supervisor.start(shell("a", "trap '' TERM; echo ready; while :; do sleep 0.02; done", patience_s=0.2))
    step_until(supervisor, lambda: log.of("a"))
    pid = supervisor.running()[0].pid

    supervisor.ask_to_stop()
    supervisor.stop(("a",))

    assert not processes.is_alive(pid)
    assert "is killed" in log.of("up")[-1]


def test_ctrl_c_in_the_terminal_does_not_reach_the_children_directly(supervisor: Supervisor) -> None:
    supervisor.start(shell("a", "exec sleep 600"))
    pid = supervisor.running()[0].pid

    assert os.getsid(pid) == pid != os.getsid(0)
