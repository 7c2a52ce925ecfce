"""What a large state costs the member: stalls while snapshots are taken, memory, restore, and a long replay.

The member's own step is driven here, over a data directory in memory where there is one, so that what is measured
is the step and no disk. A *stall* is how much longer than its pause one turn of the loop took. The same turns without
snapshots stand beside it: what is left there is the machine the benchmark runs on.
Run: python -m bench.snapshots [--tasks 100000] [--replay 1000000]
"""

from __future__ import annotations

import argparse
import gc
import itertools
import math
import os
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from bench.figures import percentile, report
from coordination.log.contract import MemberSettings
from coordination.log.disk import Folder
from coordination.log.replica import Replica as Log
from coordination.log.waiting import Waiting
from coordination.machine import codec
from coordination.machine.commands import (
    AnyCommand,
    Batch,
    SessionHeartbeat,
    SessionRegister,
    TaskEnqueue,
    TaskSpec,
)
from coordination.machine.machine import Machine
from coordination.machine.policy import Policy
from coordination.node.replica import Replica

PAUSE_S = 0.002
TURNS = 2_000
SESSIONS = 1_000
STAMP_MS = 1_700_000_000_000
MEMORY = Path("/dev/shm")


class Alone:
    """Links of a cluster of one."""

    def send(self, peer: str, frame: bytes) -> bool:
        return False

    def backlog(self, peer: str) -> int:
        return 0

    def drop(self, peer: str, reason: str) -> None:
        """There is nobody."""


def payload(*commands: AnyCommand) -> bytes:
    return codec.encode_batch(Batch(stamp_ms=STAMP_MS, commands=list(commands)))


def ask(log: Log, content: bytes) -> None:
    """Put a payload into the log of a cluster of one; nobody waits for what comes of it."""
    log.propose(content, Waiting(lambda _: None, math.inf))


def task(number: int) -> TaskEnqueue:
    spec = TaskSpec(task_type=f"type-{number % 5}", priority=number % 7, lesson_id=f"lesson-{number % 100}")
    return TaskEnqueue(request_id=os.urandom(16), task_id=os.urandom(16).hex(), spec=spec)


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def stalls_ms(log: Log, *, with_snapshots: bool) -> tuple[list[float], int]:
    """How late each turn was, and how many snapshots were finished meanwhile."""
    numbers = itertools.count()
    late, first = [], log.counters.get("snapshots_taken", 0)
    for _ in range(TURNS):
        name = f"agent/{next(numbers) % SESSIONS}"
        ask(log, payload(SessionHeartbeat(session_name=name, lease_token=1)))
        if with_snapshots:
            log.forceLogCompaction()
        started = time.perf_counter()
        log.step()
        time.sleep(PAUSE_S)
        late.append((time.perf_counter() - started - PAUSE_S) * 1000)
    return late, log.counters.get("snapshots_taken", 0) - first


def measure_stalls(tasks: int) -> None:
    aside = ThreadPoolExecutor(1)

    def run_aside(work) -> Future[int]:  # type: ignore[no-untyped-def]
        return aside.submit(work)

    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        machine = Replica(Policy())
        settings = MemberSettings("n1", Path(folder), snapshot_entries=1 << 40, snapshot_bytes=1 << 40)
        before = resident_mib()
        log = Log(settings, Folder(Path(folder)), Alone(), machine, lambda *_: None, run_aside)
        for at in range(0, SESSIONS, 100):
            commands = [
                SessionRegister(session_id=f"s{n}", session_name=f"agent/{n}") for n in range(at, at + 100)
            ]
            ask(log, payload(*commands))
            log.step()
        for at in range(0, tasks, 100):
            ask(log, payload(*map(task, range(at, at + 100))))
            log.step()
        while log.raftLastApplied < log.journal.last_index:
            log.step()
        gc.collect()
        report("snapshots", "member's memory", [resident_mib() - before], "MiB", tasks=tasks)
        for with_snapshots in (False, True):
            late, taken = stalls_ms(log, with_snapshots=with_snapshots)
            name = "while snapshots are taken" if with_snapshots else "without snapshots"
            for label, share in (("p50", 0.5), ("p99", 0.99), ("worst", 1.0)):
                report(
                    "snapshots",
                    f"stall {label}, {name}",
                    [percentile(late, share)],
                    "ms",
                    tasks=tasks,
                    taken=taken,
                )
        aside.shutdown(wait=True)
        log.journal.close()


def measure_restore(tasks: int) -> None:
    machine = Machine()
    before = resident_mib()
    for at in range(0, tasks, 100):
        machine.apply(payload(*map(task, range(at, at + 100))))
    gc.collect()
    report("snapshots", "machine's memory", [resident_mib() - before], "MiB", tasks=tasks)
    state = machine.snapshot()
    started = time.process_time()
    Machine().restore(state)
    report("snapshots", "restore", [time.process_time() - started], "s of CPU time", tasks=tasks)


def measure_replay(commands: int) -> None:
    """A start with so many commands behind the last snapshot: read, check, apply."""
    with tempfile.TemporaryDirectory() as folder:
        settings = MemberSettings("n1", Path(folder), snapshot_entries=1 << 40, snapshot_bytes=1 << 40)
        disk = Folder(Path(folder))
        log = Log(settings, disk, Alone(), Replica(Policy()), lambda *_: None)
        sessions = [SessionRegister(session_id=f"s{n}", session_name=f"agent/{n}") for n in range(100)]
        ask(log, payload(*sessions))
        for _ in range(5):
            log.step()
        beats = [SessionHeartbeat(session_name=f"agent/{n}", lease_token=n + 1) for n in range(100)]
        body = payload(*beats)
        for _ in range(0, commands, 10_000):
            for _ in range(100):
                ask(log, body)
            log.step()
        log.step()
        last = log.journal.last_index
        log.journal.close()
        disk.close()
        started, cpu = time.perf_counter(), time.process_time()
        log = Log(settings, Folder(Path(folder)), Alone(), Replica(Policy()), lambda *_: None)
        while log.raftLastApplied < last:
            log.step()
        report(
            "snapshots",
            "start with commands behind the last snapshot",
            [time.perf_counter() - started],
            "s",
            commands=commands,
            cpu_s=round(time.process_time() - cpu, 1),
        )
        log.journal.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--replay", type=int, default=1_000_000)
    options = parser.parse_args()
    measure_restore(options.tasks)
    measure_stalls(options.tasks)
    if options.replay:
        measure_replay(options.replay)


if __name__ == "__main__":
    main()
