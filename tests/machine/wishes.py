"""A machine for tests: wishes in, outcomes and events out, without bytes in sight."""

from __future__ import annotations

from typing import Any

from coordination.machine import codec
from coordination.machine.commands import AnyCommand, Batch, SessionRegister, TaskEnqueue, TaskSpec, Tick
from coordination.machine.machine import Applied, Machine
from coordination.machine.policy import Policy

STAMP_MS = 1_700_000_000_000  # Tuesday 2023-11-14 22:13:20 UTC


class Wishes:
    def __init__(self, **policy: int) -> None:
        self.machine = Machine(Policy(**policy))
        self.stamp_ms = STAMP_MS

    def apply(self, *commands: AnyCommand) -> Applied:
        return self.machine.apply(codec.encode_batch(Batch(stamp_ms=self.stamp_ms, commands=list(commands))))

    def ask(self, command: AnyCommand) -> Any:
        return self.apply(command).outcomes[0]

    def register(self, name: str, **fields: Any) -> int:
        """Register a session and answer its lease token."""
        return self.ask(
            SessionRegister(session_id=f"id-{name}", session_name=name, **fields)
        ).value.lease_token

    def enqueue(self, task_id: str, *, depends_on: tuple[str, ...] = (), **spec: Any) -> Any:
        return self.ask(
            TaskEnqueue(
                task_id=task_id, spec=TaskSpec(**({"task_type": "work"} | spec)), depends_on=depends_on
            )
        )

    def wait(self, milliseconds: int) -> None:
        for elapsed in [1_000] * (milliseconds // 1_000) + [milliseconds % 1_000]:
            self.ask(Tick(elapsed_ms=elapsed, term=0))
