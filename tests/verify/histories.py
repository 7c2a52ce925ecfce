"""Histories written by hand: a small language for operations, and a sequential model that makes good ones."""

import random
from typing import Any

from coordination.verify.history import NS_PER_S, Operation, Seen
from coordination.verify.promises import Record, Result, check

LEASE_S = 6.0


class Script:
    """Operations one by one; times in seconds. `unknown` in place of an output means nobody heard the answer."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.events: list[Seen] = []
        self._process = 0

    def call(
        self,
        at: tuple[float, float],
        op: str,
        key: str | None,
        body: dict[str, Any],
        output: dict[str, Any] | None,
    ) -> Operation:
        self._process += 1
        done = Operation(
            process=self._process,
            op=op,
            key=key,
            input=body,
            output=output,
            invoke_ns=int(at[0] * NS_PER_S),
            return_ns=None if output is None else int(at[1] * NS_PER_S),
        )
        self.operations.append(done)
        return done

    def write(self, begin: float, end: float, value: Any, *, status: int | None = 200) -> None:
        self.call((begin, end), "register.write", "r", {"value": value}, _answer(status))

    def read(self, begin: float, end: float, value: Any) -> None:
        self.call((begin, end), "register.read", "r", {}, {"status": 200, "value": value})

    def acquire(
        self,
        begin: float,
        end: float,
        owner: str,
        token: int | None,
        *,
        ttl_s: float = 3.0,
        status: int = 200,
    ) -> None:
        output = None if token is None else _answer(status, owner_id=owner, fencing_token=token)
        self.call((begin, end), "lock.acquire", "l", {"owner_id": owner, "ttl_s": ttl_s, "wait_s": 0}, output)

    def renew(self, begin: float, end: float, owner: str, token: int, *, status: int | None = 200) -> None:
        body = {"owner_id": owner, "fencing_token": token, "ttl_s": 3.0}
        output = _answer(status, owner_id=owner, fencing_token=token) if status == 200 else _answer(status)
        self.call((begin, end), "lock.renew", "l", body, output)

    def release(self, begin: float, end: float, owner: str, token: int, *, status: int | None = 200) -> None:
        body = {"owner_id": owner, "fencing_token": token}
        self.call((begin, end), "lock.release", "l", body, _answer(status))

    def register(self, begin: float, end: float, token: int, *, resume: int = 0, status: int = 201) -> None:
        body = {"session_name": "s"} | ({"lease_token": resume} if resume else {})
        output = _answer(status, lease_token=token) if status == 201 else _answer(status)
        self.call((begin, end), "session.register", "s", body, output)

    def beat(self, begin: float, end: float, token: int, *, status: int | None = 200) -> None:
        self.call((begin, end), "session.heartbeat", "s", {"lease_token": token}, _answer(status))

    def enqueue(self, begin: float, end: float, name: str, task: str | None, *, ttl_s: float = 3.0) -> None:
        body = {"idempotency_key": name, "task_data": {"name": name}, "claim_ttl_s": ttl_s}
        output = None if task is None else _answer(201, id=task)
        self.call((begin, end), "task.enqueue", task or name, body, output)

    def claim(
        self, begin: float, end: float, task: str, token: int, attempt: int, *, name: str = "", lease: int = 1
    ) -> None:
        granted = {
            "id": task,
            "claim_token": token,
            "attempt": attempt,
            "task_data": {"name": name or task.upper()},
        }
        body = {"session_name": "w", "lease_token": lease, "max": 1, "wait_s": 1.0}
        self.call((begin, end), "task.claim", task, body, _answer(200, tasks=[granted]))

    def complete(self, begin: float, end: float, task: str, token: int, *, status: int | None = 200) -> None:
        self.call((begin, end), "task.complete", task, {"claim_token": token}, _answer(status))

    def worker(self, lease: int = 1) -> None:
        """A session that lives all along."""
        for second in range(0, 40, 2):
            op, body = ("session.heartbeat", {"lease_token": lease})
            self.call((second, second + 0.01), op, "w", body, _answer(200))

    def event(self, index: int, kind: str, subject: str, *, sequence: int = 0) -> None:
        self.events.append(seen("history", index, kind, subject, sequence=sequence))

    def record(self, **more: Any) -> Record:
        ordered = sorted(self.operations, key=lambda one: one.invoke_ns)
        return Record(operations=ordered, lease_s=LEASE_S, **more)

    def results(self, **more: Any) -> dict[str, Result]:
        return {result.check: result for result in check(self.record(**more))}

    def broken(self, **more: Any) -> set[str]:
        """The checks that did not hold."""
        return {name for name, result in self.results(**more).items() if not result.held}


def _answer(status: int | None, **fields: Any) -> dict[str, Any] | None:
    return None if status is None else {"status": status, **fields}


def seen(watcher: str, index: int, kind: str, subject: str, *, sequence: int = 0, digest: str = "") -> Seen:
    return Seen(
        watcher=watcher,
        index=index,
        sequence=sequence,
        kind=kind,
        subject=subject,
        digest=digest or f"{index}.{sequence}",
    )


# --- a sequential model --------------------------------------------------------------------------


def overlapping(
    rng: random.Random, count: int, *, unknown: float = 0.1, spread_s: float = 3.0
) -> list[Operation]:
    """A linearizable history: moments of effect in a sequence, each inside an interval that overlaps others.

    Unknown writes happened or did not; what happened is in the model's order all the same.
    """
    script = Script()
    moment, value = 0.0, None
    for number in range(1, count + 1):
        moment += rng.uniform(0.01, 1.0)
        begin, end = moment - rng.uniform(0, spread_s), moment + rng.uniform(0, spread_s)
        is_unknown = rng.random() < unknown
        if rng.random() < 0.5:
            if is_unknown and rng.random() < 0.5:
                script.write(begin, end, number, status=None)  # never happened
                continue
            value = number
            script.write(begin, end, number, status=None if is_unknown else 200)
        elif not is_unknown:
            script.read(begin, end, value)
    return script.operations
