"""How services talk to the log: request ids, one command at a time, and promised times as wall time."""

import hashlib
import json
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from coordination.errors import RejectedError
from coordination.log.client import node_client
from coordination.machine.commands import AnyCommand
from coordination.machine.outcomes import Accepted, Rejected

Value = TypeVar("Value")
Outcome = Accepted | Rejected


def request_id_of(caller: str, key: str) -> bytes:
    """The 16-byte id of a command that a client named by an Idempotency-Key: the same for the same pair."""
    return hashlib.blake2b(f"{caller}\0{key}".encode(), digest_size=16).digest()


def sub_id(request_id: bytes, part: int) -> bytes:
    """The id of one command of several that share a request."""
    return hashlib.blake2b(request_id + part.to_bytes(4, "big"), digest_size=16).digest()


def id_or_fresh(request_id: bytes) -> bytes:
    """A command without a client's key has an id too: our own client repeats it after a lost answer."""
    return request_id or secrets.token_bytes(16)


def submit(commands: Sequence[AnyCommand], *, wait_s: float = 0.0) -> list[Outcome]:
    """The outcomes of commands, in order; see `NodeClient.submit`."""
    return node_client().submit(commands, wait_s=wait_s)


def submit_one(command: AnyCommand, expected: type[Value], *, wait_s: float = 0.0) -> tuple[Value, int]:
    """The value and revision of an accepted command. Raises RejectedError."""
    (outcome,) = submit([command], wait_s=wait_s)
    return accepted(outcome, expected)


def accepted(outcome: Outcome, expected: type[Value]) -> tuple[Value, int]:
    """The value and revision of an outcome. Raises RejectedError where it is a refusal."""
    if isinstance(outcome, Rejected):
        raise refusal(outcome)
    assert isinstance(outcome.value, expected), f"{type(outcome.value)} instead of {expected}"
    return outcome.value, outcome.revision


def refusal(outcome: Rejected) -> RejectedError:
    """The refusal as an exception; times that were promised from now become wall time."""
    data: dict[str, Any] = dict(outcome.data)
    if isinstance(data.get("expires_in_ms"), int):
        data["expires_at"] = in_ms(data.pop("expires_in_ms"))
    return RejectedError(outcome.code, outcome.detail, data, outcome.revision)


def in_ms(milliseconds: int) -> datetime:
    """The wall time so many milliseconds from now."""
    return datetime.now(UTC) + timedelta(milliseconds=milliseconds)


def ms_until(moment: datetime | None) -> int:
    """Milliseconds from now until `moment`, 0 where it is past or None."""
    if moment is None:
        return 0
    return max(0, round((moment - datetime.now(UTC)).total_seconds() * 1000))


def unix_ms(moment: datetime | None) -> int:
    """Unix milliseconds; 0 for None."""
    return 0 if moment is None else round(moment.timestamp() * 1000)


def as_json_text(value: object) -> str:
    """Compact JSON, keys in order; ValueError for what JSON or PostgreSQL cannot hold."""
    text = json.dumps(value, separators=(",", ":"), sort_keys=True, allow_nan=False)
    if "\\u0000" in text:
        raise ValueError("a NUL character cannot be stored")
    return text
