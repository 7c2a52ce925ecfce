"""Rules of locks: one holder, a token that grows with every holder, waiters served in order."""

from coordination.machine.commands import LockAcquire, LockRelease, LockRenew, LockWaitCancel
from coordination.machine.events import LockAcquired, LockQueued, LockRenewed, LockWaitExpired
from coordination.machine.kinds import RejectionCode
from coordination.machine.outcomes import Done, LockAnswer
from coordination.machine.state import Lock, State

from .decision import MAX_ID, MAX_METADATA, MAX_TEXT, Decision, Refusal, invalid, is_id
from .lock_passing import expire_lock, free_lock


def acquire(state: State, command: LockAcquire) -> Decision:
    """Take a free lock, renew one's own, or wait for another's where waiting was asked for."""
    problem = _why_invalid(state, command)
    if problem:
        return invalid(problem)
    lock = state.locks.get(command.lock_key)
    if lock is not None and _is_left_over(state, lock) and lock.owner_id != command.owner_id:
        yield from expire_lock(state, lock)
        lock = None
    if lock is None:
        if len(state.locks) >= state.policy.max_locks:
            return Refusal(RejectionCode.OVERLOADED, f"{len(state.locks)} locks are all there can be")
        yield _acquired(state, command)
        return _held(state, state.locks[command.lock_key])
    if lock.owner_id == command.owner_id:
        yield _renewed(state, lock, command.ttl_ms, command.metadata)
        return _held(state, lock)
    if not command.wait_ms:
        return _held_by_another(state, lock)
    return (yield from _wait(state, command, lock))


def _is_left_over(state: State, lock: Lock) -> bool:
    """Whether the lock's time is over, no tick has come to it yet, and nobody waits for it."""
    return lock.expires_ms <= state.clock_ms and not lock.waiters


def _wait(state: State, command: LockAcquire, lock: Lock) -> Decision:
    """Join the queue; an owner that waits already keeps its place and has this request answered."""
    waits = any(waiter.owner_id == command.owner_id for waiter in lock.waiters)
    if not waits and len(lock.waiters) >= state.policy.max_waiters_per_lock:
        return Refusal(RejectionCode.OVERLOADED, f"{len(lock.waiters)} wait for {lock.lock_key} already")
    yield LockQueued(
        lock_key=lock.lock_key,
        owner_id=command.owner_id,
        request_id=command.request_id,
        wait_expires_ms=state.clock_ms + command.wait_ms,
        ttl_ms=command.ttl_ms,
        metadata=command.metadata,
    )
    position = next(n for n, waiter in enumerate(lock.waiters) if waiter.owner_id == command.owner_id)
    return LockAnswer(
        state="queued",
        lock_key=lock.lock_key,
        owner_id=command.owner_id,
        ttl_ms=command.ttl_ms,
        position=position,
    )


def renew(state: State, command: LockRenew) -> Decision:
    """Prolong a lock for its holder."""
    lock = state.locks.get(command.lock_key)
    if lock is None or not _is_holder(lock, command.owner_id, command.fencing_token):
        return _not_holder(command.lock_key, lock)
    ttl_ms = command.ttl_ms or lock.ttl_ms
    if not 1 <= ttl_ms <= state.policy.max_lock_ttl_ms:
        return invalid(f"ttl_ms must be 1 to {state.policy.max_lock_ttl_ms}")
    yield _renewed(state, lock, ttl_ms, lock.metadata)
    return _held(state, lock)


def release(state: State, command: LockRelease) -> Decision:
    """Give a lock back; with force take it from whoever holds it, which needs a reason."""
    lock = state.locks.get(command.lock_key)
    if command.force and not command.reason:
        return invalid("a forced release needs a reason")
    if lock is None or not (command.force or _is_holder(lock, command.owner_id, command.fencing_token)):
        return _not_holder(command.lock_key, lock)
    owner_id, token = lock.owner_id, lock.fencing_token
    reason = f"forced: {command.reason[:MAX_TEXT]}" if command.force else "released"
    yield from free_lock(state, lock, reason)
    return LockAnswer(state="released", lock_key=command.lock_key, owner_id=owner_id, fencing_token=token)


def cancel_wait(state: State, command: LockWaitCancel) -> Decision:
    """Leave the queue."""
    lock = state.locks.get(command.lock_key)
    waiters = lock.waiters if lock is not None else ()
    mine = [waiter for waiter in waiters if waiter.owner_id == command.owner_id]
    if not mine:
        return Refusal(RejectionCode.NOT_FOUND, f"{command.owner_id} does not wait for {command.lock_key}")
    yield LockWaitExpired(
        lock_key=command.lock_key,
        owner_id=command.owner_id,
        request_id=mine[0].request_id,
        reason="wait cancelled",
    )
    return Done()


def _is_holder(lock: Lock, owner_id: str, fencing_token: int) -> bool:
    return lock.owner_id == owner_id and lock.fencing_token == fencing_token


def _acquired(state: State, command: LockAcquire) -> LockAcquired:
    return LockAcquired(
        lock_key=command.lock_key,
        owner_id=command.owner_id,
        fencing_token=state.at,
        expires_ms=state.deadline_ms(command.ttl_ms),
        ttl_ms=command.ttl_ms,
        metadata=command.metadata,
        waited=False,
        request_id=command.request_id,
    )


def _renewed(state: State, lock: Lock, ttl_ms: int, metadata: str) -> LockRenewed:
    return LockRenewed(
        lock_key=lock.lock_key,
        owner_id=lock.owner_id,
        fencing_token=lock.fencing_token,
        expires_ms=state.deadline_ms(ttl_ms),
        ttl_ms=ttl_ms,
        renewed_count=lock.renewed_count + 1,
        metadata=metadata,
    )


def _held(state: State, lock: Lock) -> LockAnswer:
    return LockAnswer(
        state="held",
        lock_key=lock.lock_key,
        owner_id=lock.owner_id,
        fencing_token=lock.fencing_token,
        expires_ms=lock.expires_ms,
        ttl_ms=max(0, lock.expires_ms - state.clock_ms - state.policy.tick_slack_ms),
        renewed_count=lock.renewed_count,
    )


def _held_by_another(state: State, lock: Lock) -> Refusal:
    return Refusal(
        RejectionCode.CONFLICT,
        f"lock {lock.lock_key} is held by {lock.owner_id}",
        {"owner_id": lock.owner_id, "expires_in_ms": lock.expires_ms - state.clock_ms},
    )


def _not_holder(lock_key: str, lock: Lock | None) -> Refusal:
    if lock is None:
        return Refusal(RejectionCode.STALE_TOKEN, f"nobody holds lock {lock_key}")
    return Refusal(
        RejectionCode.STALE_TOKEN,
        f"lock {lock_key} is held by {lock.owner_id} with another token",
        {"owner_id": lock.owner_id},
    )


def _why_invalid(state: State, command: LockAcquire) -> str:
    policy = state.policy
    if not is_id(command.lock_key) or not is_id(command.owner_id):
        return f"lock_key and owner_id must be 1 to {MAX_ID} characters"
    if not 1 <= command.ttl_ms <= policy.max_lock_ttl_ms:
        return f"ttl_ms must be 1 to {policy.max_lock_ttl_ms}"
    if not 0 <= command.wait_ms <= policy.max_lock_wait_ms:
        return f"wait_ms must be 0 to {policy.max_lock_wait_ms}"
    if len(command.metadata.encode()) > MAX_METADATA:
        return f"metadata must be at most {MAX_METADATA} bytes"
    return ""
