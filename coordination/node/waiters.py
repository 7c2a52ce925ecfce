"""Long polls: claims that wait for a task, and lock requests that wait for their turn.

A waiting claim is asked again when something became claimable, first come first served and a few at a time,
so that one new task does not wake a thousand sessions. A waiting lock request is queued in the machine
itself; here its caller waits for the event that carries its request id.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from coordination.errors import CoordinationError
from coordination.machine import events as happened
from coordination.machine.commands import LockAcquire, LockWaitCancel, TaskClaim
from coordination.machine.events import AnyEvent, Recorded
from coordination.machine.kinds import RejectionCode
from coordination.machine.outcomes import Accepted, ClaimAnswer, LockAnswer, Rejected
from coordination.machine.state import State
from coordination.node import meters
from coordination.node.proposer import Proposer
from coordination.node.replica import Replica

CLAIMS_WAITING_MAX = 20_000
WAKE_CHUNK = 16
GRACE_S = 5.0
"""The machine's clock may run behind by this much before a waiter gives up by its own."""
RECHECK_S = 5.0
"""Waiting claims are asked again at least this often, for what no event announces: a time window that opens."""


@dataclass(slots=True)
class _WaitingClaim:
    command: TaskClaim
    answer: "asyncio.Future[Accepted | Rejected]"
    asked: int = 1
    asking: "asyncio.Future[None] | None" = None


class WaitingClaims:
    """The claims that found nothing, oldest first. Used from the loop's thread only."""

    def __init__(self, proposer: Proposer, loop: asyncio.AbstractEventLoop) -> None:
        self._proposer = proposer
        self._loop = loop
        self._waiting: OrderedDict[int, _WaitingClaim] = OrderedDict()
        self._next_number = 0
        self._became_claimable = 0
        self._wake = asyncio.Event()

    async def claim(self, command: TaskClaim, wait_ms: int) -> Accepted | Rejected:
        """The outcome of a claim; an empty one only when `wait_ms` has passed."""
        (outcome,) = await self._proposer.submit([command])
        if wait_ms <= 0 or not _is_worth_waiting(outcome) or len(self._waiting) >= CLAIMS_WAITING_MAX:
            return outcome
        number = self._next_number
        self._next_number += 1
        waiting = _WaitingClaim(command, self._loop.create_future())
        self._waiting[number] = waiting
        meters.CLAIMS_WAITING.set(len(self._waiting))
        # Something may have become claimable between the empty answer and this line.
        self.note_claimable(1)
        try:
            return await asyncio.wait_for(asyncio.shield(waiting.answer), wait_ms / 1000)
        except TimeoutError:
            self._waiting.pop(number, None)
            if waiting.asking is not None:
                # It is being asked at this moment, and a grant that nobody is told of would be lost to everybody.
                await asyncio.shield(waiting.asking)
            return waiting.answer.result() if waiting.answer.done() else outcome
        finally:
            self._waiting.pop(number, None)
            meters.CLAIMS_WAITING.set(len(self._waiting))

    @property
    def is_anybody_waiting(self) -> bool:
        """May be asked from any thread: who begins to wait asks once more by itself."""
        return bool(self._waiting)

    def note_claimable(self, count: int) -> None:
        """So many tasks can be claimed now that could not before, or sessions that could not claim."""
        if self._waiting:
            self._became_claimable += count
            self._wake.set()

    async def run(self) -> None:
        """Ask waiting claims again whenever something became claimable; ends by cancellation."""
        while True:
            try:
                await asyncio.wait_for(self._wake.wait(), RECHECK_S)
            except TimeoutError:
                self._became_claimable = max(1, self._became_claimable)
            self._wake.clear()
            wanted, self._became_claimable = self._became_claimable, 0
            await self._offer(wanted)

    async def _offer(self, wanted: int) -> None:
        numbers = list(self._waiting)
        while numbers and wanted > 0:
            size = max(WAKE_CHUNK, min(wanted, 256))
            chunk, numbers = numbers[:size], numbers[size:]
            wanted -= await self._ask([self._waiting[number] for number in chunk if number in self._waiting])

    async def _ask(self, waiting: list[_WaitingClaim]) -> int:
        """Ask these claims again in one entry; how many tasks were granted."""
        live = [claim for claim in waiting if not claim.answer.done()]
        asking = self._loop.create_future()
        for claim in live:
            claim.asking = asking
        try:
            return await self._ask_live(live)
        finally:
            asking.set_result(None)
            for claim in live:
                claim.asking = None

    async def _ask_live(self, live: list[_WaitingClaim]) -> int:
        try:
            outcomes = await self._proposer.submit([_asked_again(claim) for claim in live])
        except CoordinationError as failure:
            # A grant may exist that nobody was told of: the caller hears so and asks again by its request id.
            for claim in live:
                if not claim.answer.done():
                    claim.answer.set_exception(failure)
            return 0
        granted = 0
        for claim, outcome in zip(live, outcomes, strict=True):
            if isinstance(outcome, Rejected) or not _is_worth_waiting(outcome):
                granted += len(outcome.value.grants) if isinstance(outcome, Accepted) else 0
                if not claim.answer.done():
                    claim.answer.set_result(outcome)
        return granted


def _asked_again(claim: _WaitingClaim) -> TaskClaim:
    """The same claim under an id that follows from the first one and from how often it was asked.

    So a client that lost the answer and asks again with its id goes through the same ids, and is given the
    grants it was given before.
    """
    claim.asked += 1
    if not claim.command.request_id:
        return claim.command
    seed = claim.command.request_id + claim.asked.to_bytes(4, "big")
    return msgspec.structs.replace(claim.command, request_id=hashlib.blake2b(seed, digest_size=16).digest())


def _is_worth_waiting(outcome: Accepted | Rejected) -> bool:
    return (
        isinstance(outcome, Accepted) and isinstance(outcome.value, ClaimAnswer) and not outcome.value.grants
    )


_MAY_MAKE_CLAIMABLE: dict[type, Callable[[Any], bool]] = {
    happened.TaskEnqueued: lambda event: not (event.waiting_on or event.run_after_ms),
    happened.TaskRequeued: lambda event: not event.run_after_ms,
    happened.TaskUpdated: lambda event: not event.run_after_ms,
    happened.DependencyMet: lambda event: not event.waiting,
}


_ALWAYS_MAKES_CLAIMABLE = frozenset(
    {
        happened.TaskReady,
        happened.TaskRetried,
        happened.TaskCompleted,
        happened.TaskFailed,
        happened.SessionUpdated,
        happened.SessionStatusChanged,
        happened.SessionHealthChanged,
    }
)


def made_claimable(event: AnyEvent) -> int:
    """How many claims this event gives a chance: 1 where a task or a session became free, else 0."""
    # Asked of every event in the member's thread: one look or two must do.
    kind = type(event)
    if kind in _ALWAYS_MAKES_CLAIMABLE:
        return 1
    makes = _MAY_MAKE_CLAIMABLE.get(kind)
    return 1 if makes is not None and makes(event) else 0


class WaitingLocks:
    """Callers that wait in the queue of a lock, by the request id of their command."""

    def __init__(self, proposer: Proposer, replica: Replica, loop: asyncio.AbstractEventLoop) -> None:
        self._proposer = proposer
        self._replica = replica
        self._loop = loop
        self._waiting: dict[bytes, asyncio.Future[Recorded]] = {}

    async def acquire(self, command: LockAcquire) -> Accepted | Rejected:
        """The outcome of a request that may wait: held, or refused when its time in the queue is over."""
        turn: asyncio.Future[Recorded] = self._loop.create_future()
        # Registered before the command is sent: the event may come before the outcome is looked at.
        self._waiting[command.request_id] = turn
        meters.LOCKS_WAITING.set(len(self._waiting))
        try:
            (outcome,) = await self._proposer.submit([command])
            state = _state_of(outcome)
            if state == "expired":  # a repeated request whose wait was over before
                return self._refused(command, outcome.revision)
            if state != "queued":
                return outcome
            recorded = await asyncio.wait_for(turn, command.wait_ms / 1000 + GRACE_S)
            return _held(recorded) or self._refused(command, recorded.revision)
        except TimeoutError:
            await self._leave(command)
            return self._refused(command, outcome.revision)
        except asyncio.CancelledError:
            await self._leave(command)
            raise
        finally:
            self._waiting.pop(command.request_id, None)
            meters.LOCKS_WAITING.set(len(self._waiting))

    async def _leave(self, command: LockAcquire) -> None:
        cancel = LockWaitCancel(lock_key=command.lock_key, owner_id=command.owner_id, actor=command.actor)
        await asyncio.shield(self._proposer.submit([cancel]))

    def _refused(self, command: LockAcquire, revision: int) -> Rejected:
        holder = self._replica.read(lambda state: _holder(state, command.lock_key))
        return Rejected(
            revision=revision,
            code=RejectionCode.CONFLICT,
            detail=f"waited for lock {command.lock_key} in vain",
            data={"lock_key": command.lock_key, **holder},
        )

    def note(self, recorded: Recorded) -> None:
        """A lock's event: it may be somebody's turn."""
        event = recorded.event
        if not isinstance(event, happened.LockAcquired | happened.LockWaitExpired):
            return
        turn = self._waiting.get(event.request_id)
        if turn is not None and not turn.done():
            turn.set_result(recorded)


def _state_of(outcome: Accepted | Rejected) -> str:
    if isinstance(outcome, Accepted) and isinstance(outcome.value, LockAnswer):
        return outcome.value.state
    return ""


def _held(recorded: Recorded) -> Accepted | None:
    """The outcome of a request whose turn came; None where its wait was over instead."""
    event = recorded.event
    if not isinstance(event, happened.LockAcquired):
        return None
    answer = LockAnswer(
        state="held",
        lock_key=event.lock_key,
        owner_id=event.owner_id,
        fencing_token=event.fencing_token,
        expires_ms=event.expires_ms,
        ttl_ms=event.ttl_ms,
    )
    return Accepted(revision=recorded.revision, value=answer)


def _holder(state: State, lock_key: str) -> dict[str, str | int]:
    lock = state.locks.get(lock_key)
    if lock is None or not lock.owner_id:
        return {}
    return {"owner_id": lock.owner_id, "expires_in_ms": max(0, lock.expires_ms - state.clock_ms)}
