"""How a lock goes from a holder to the first that waits for it."""

from coordination.machine.events import LockAcquired, LockExpired, LockReleased, LockWaitExpired
from coordination.machine.state import Lock, State

from .decision import Consequences


def free_lock(state: State, lock: Lock, reason: str) -> Consequences:
    """Take a lock from its holder and pass it on."""
    yield LockReleased(
        lock_key=lock.lock_key, owner_id=lock.owner_id, fencing_token=lock.fencing_token, reason=reason
    )
    yield from _pass_on(state, lock.lock_key)


def expire_lock(state: State, lock: Lock) -> Consequences:
    """End a hold whose time is over, and pass the lock on."""
    yield LockExpired(lock_key=lock.lock_key, owner_id=lock.owner_id, fencing_token=lock.fencing_token)
    yield from _pass_on(state, lock.lock_key)


def expire_waiters(state: State, lock_key: str) -> Consequences:
    """Send away everyone whose wait is over."""
    for waiter in state.locks[lock_key].waiters:
        if waiter.wait_expires_ms <= state.clock_ms:
            yield LockWaitExpired(
                lock_key=lock_key,
                owner_id=waiter.owner_id,
                request_id=waiter.request_id,
                reason="wait expired",
            )


def _pass_on(state: State, lock_key: str) -> Consequences:
    if lock_key in state.locks:
        yield from expire_waiters(state, lock_key)
    if lock_key not in state.locks:
        return
    waiter = state.locks[lock_key].waiters[0]
    yield LockAcquired(
        lock_key=lock_key,
        owner_id=waiter.owner_id,
        fencing_token=state.at,
        expires_ms=state.deadline_ms(waiter.ttl_ms),
        ttl_ms=waiter.ttl_ms,
        metadata=waiter.metadata,
        waited=True,
        request_id=waiter.request_id,
    )
