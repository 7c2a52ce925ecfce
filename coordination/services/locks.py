"""Locks: one holder a key, a fencing token with each change of holder, waiters in order."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from coordination.log.client import async_node_client
from coordination.machine import commands
from coordination.machine.outcomes import LockAnswer
from coordination.services.sessions import metadata_text
from coordination.services.submitting import accepted, id_or_fresh, in_ms, submit_one


@dataclass(frozen=True, slots=True)
class HeldLock:
    """A lock as its holder knows it. Whoever writes under the lock passes `fencing_token` along."""

    lock_key: str
    owner_id: str
    fencing_token: int
    expires_at: datetime
    renewed_count: int
    revision: int


def acquire_lock(
    lock_key: str,
    owner_id: str,
    *,
    ttl_s: float,
    actor: str,
    wait_s: float = 0.0,
    metadata: Mapping[str, Any] | None = None,
    request_id: bytes = b"",
) -> HeldLock:
    """Take a lock, renew it where the owner has it, or wait in its queue for up to `wait_s`.

    Raises RejectedError `conflict` with `owner_id` and `expires_at` where somebody else holds it.
    """
    command = _acquire_command(lock_key, owner_id, ttl_s, wait_s, metadata, actor, request_id)
    return _held(*submit_one(command, LockAnswer, wait_s=wait_s))


async def acquire_lock_async(
    lock_key: str,
    owner_id: str,
    *,
    ttl_s: float,
    actor: str,
    wait_s: float = 0.0,
    metadata: Mapping[str, Any] | None = None,
    request_id: bytes = b"",
) -> HeldLock:
    """As `acquire_lock`, from an event loop; cancelled, it leaves the queue."""
    command = _acquire_command(lock_key, owner_id, ttl_s, wait_s, metadata, actor, request_id)
    (outcome,) = await async_node_client().submit([command], wait_s=wait_s)
    return _held(*accepted(outcome, LockAnswer))


def _acquire_command(
    lock_key: str,
    owner_id: str,
    ttl_s: float,
    wait_s: float,
    metadata: Mapping[str, Any] | None,
    actor: str,
    request_id: bytes,
) -> commands.LockAcquire:
    return commands.LockAcquire(
        request_id=id_or_fresh(request_id),
        actor=actor,
        lock_key=lock_key,
        owner_id=owner_id,
        ttl_ms=round(ttl_s * 1000),
        wait_ms=round(wait_s * 1000),
        metadata=metadata_text(metadata or {}),
    )


def renew_lock(
    lock_key: str,
    owner_id: str,
    fencing_token: int,
    *,
    actor: str,
    ttl_s: float = 0.0,
    request_id: bytes = b"",
) -> HeldLock:
    """Prolong a lock; `ttl_s` 0 means the time it was acquired with. Raises RejectedError `stale-token`."""
    command = commands.LockRenew(
        request_id=id_or_fresh(request_id),
        actor=actor,
        lock_key=lock_key,
        owner_id=owner_id,
        fencing_token=fencing_token,
        ttl_ms=round(ttl_s * 1000),
    )
    return _held(*submit_one(command, LockAnswer))


def release_lock(
    lock_key: str, owner_id: str, fencing_token: int, *, actor: str, request_id: bytes = b""
) -> int:
    """Give a lock back; the revision. Raises RejectedError `stale-token` where it is not the holder's."""
    command = commands.LockRelease(
        request_id=id_or_fresh(request_id),
        actor=actor,
        lock_key=lock_key,
        owner_id=owner_id,
        fencing_token=fencing_token,
    )
    return submit_one(command, LockAnswer)[1]


def force_release_lock(lock_key: str, reason: str, *, actor: str, request_id: bytes = b"") -> int:
    """Free a lock whoever holds it; the revision. For operators, with the reason for the history."""
    command = commands.LockRelease(
        request_id=id_or_fresh(request_id), actor=actor, lock_key=lock_key, force=True, reason=reason
    )
    return submit_one(command, LockAnswer)[1]


def _held(answer: LockAnswer, revision: int) -> HeldLock:
    return HeldLock(
        lock_key=answer.lock_key,
        owner_id=answer.owner_id,
        fencing_token=answer.fencing_token,
        expires_at=in_ms(answer.ttl_ms),
        renewed_count=answer.renewed_count,
        revision=revision,
    )
