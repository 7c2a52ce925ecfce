"""How many commands a second one member's machine applies, and what a snapshot of a large state takes.

Prints one JSON line a figure. No log, disk or network: this is the ceiling the node works under.
Run: python bench/machine.py [--scale 1.0]
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from coordination.machine import codec
from coordination.machine.commands import (
    AnyCommand,
    Batch,
    LockAcquire,
    LockRelease,
    SessionHeartbeat,
    SessionRegister,
    TaskClaim,
    TaskComplete,
    TaskEnqueue,
    TaskSpec,
    Tick,
)
from coordination.machine.machine import Applied, Machine

BATCH = 100
STAMP_MS = 1_700_000_000_000


def request_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def apply_all(machine: Machine, commands: list[AnyCommand]) -> list[Applied]:
    payloads = [
        codec.encode_batch(Batch(stamp_ms=STAMP_MS, commands=commands[at : at + BATCH]))
        for at in range(0, len(commands), BATCH)
    ]
    return [machine.apply(payload) for payload in payloads]


def timed(name: str, machine: Machine, commands: list[AnyCommand]) -> list[Applied]:
    """Apply in batches; print commands a second, encoding left out, and the share refused."""
    payloads = [
        codec.encode_batch(Batch(stamp_ms=STAMP_MS, commands=commands[at : at + BATCH]))
        for at in range(0, len(commands), BATCH)
    ]
    start = time.process_time()
    applied = [machine.apply(payload) for payload in payloads]
    elapsed = time.process_time() - start
    refused = sum(1 for one in applied for outcome in one.outcomes if type(outcome).__name__ == "Rejected")
    report(
        f"machine.{name}",
        len(commands) / elapsed,
        "commands/s",
        us_each=elapsed / len(commands) * 1e6,
        refused=refused,
    )
    return applied


def report(figure: str, value: float, unit: str, **more: float) -> None:
    rounded = {name: round(number, 2) for name, number in more.items()}
    print(json.dumps({"figure": figure, "value": round(value, 1), "unit": unit, **rounded}), flush=True)


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    scale = parser.parse_args().scale
    sessions, tasks = int(1_000 * scale), int(100_000 * scale)

    machine = Machine()
    machine.apply(codec.encode_batch(Batch(stamp_ms=STAMP_MS, commands=[Tick(elapsed_ms=0, term=1)])))
    timed(
        "register",
        machine,
        [
            SessionRegister(
                request_id=request_id(n),
                session_id=f"session-{n}",
                session_name=f"agent/{n}",
                max_concurrent_tasks=100,
            )
            for n in range(sessions)
        ],
    )
    tokens = {session.session_name: session.lease_token for session in machine.state.sessions.values()}
    timed(
        "heartbeat",
        machine,
        [
            SessionHeartbeat(session_name=name, lease_token=token)
            for _ in range(20)
            for name, token in tokens.items()
        ],
    )
    timed(
        "enqueue",
        machine,
        [
            TaskEnqueue(
                request_id=request_id(1_000_000 + n),
                task_id=f"task-{n}",
                spec=TaskSpec(task_type=f"type-{n % 5}", priority=n % 7, lesson_id=f"lesson-{n % 100}"),
            )
            for n in range(tasks)
        ],
    )
    snapshot = b""

    def take() -> None:
        nonlocal snapshot
        snapshot = machine.snapshot()

    report("machine.snapshot", seconds(take), "s", tasks=tasks, mib=len(snapshot) / 2**20)
    report("machine.restore", seconds(lambda: Machine().restore(snapshot)), "s", tasks=tasks)
    claims: list[AnyCommand] = [
        TaskClaim(request_id=request_id(2_000_000 + n), session_name=name, lease_token=tokens[name])
        for n, name in enumerate(list(tokens) * 20)
    ]
    granted = [
        grant
        for applied in timed("claim", machine, claims)
        for outcome in applied.outcomes
        for grant in outcome.value.grants  # type: ignore[union-attr]
    ]
    timed(
        "complete",
        machine,
        [
            TaskComplete(
                request_id=request_id(3_000_000 + n), task_id=grant.task_id, claim_token=grant.claim_token
            )
            for n, grant in enumerate(granted)
        ],
    )
    locks = range(int(10_000 * scale))
    held = timed(
        "lock_acquire",
        machine,
        [LockAcquire(lock_key=f"lock-{n}", owner_id="me", ttl_ms=10_000) for n in locks],
    )
    fencing = [outcome.value.fencing_token for applied in held for outcome in applied.outcomes]  # type: ignore[union-attr]
    timed(
        "lock_release",
        machine,
        [LockRelease(lock_key=f"lock-{n}", owner_id="me", fencing_token=fencing[n]) for n in locks],
    )
    timed("tick", machine, [Tick(elapsed_ms=100, term=1)] * int(1_000 * scale))


if __name__ == "__main__":
    main()
