"""Long polls: claims that wait for a task, and lock requests that wait for their turn.

A waiting claim is asked again when something became claimable, first come first served and a few at a time,
so that one new task does not wake a thousand sessions. A waiting lock request is queued in the machine
itself; here its caller waits for the event that carries its request id.
"""

import asyncio
import hashlib
from collections import OrderedDict
from dataclasses import dataclass

import msgspec

from coordination.errors import CoordinationError
from coordination.machine import events as happened
from coordination.machine.commands import LockAcquire, LockWaitCancel, TaskClaim
from coordination.machine.events import AnyEvent, Recorded
from coordination.machine.kinds import RejectionCode
from coordination.machine.outcomes import Accepted, ClaimAnswer, LockAnswer, Rejected
from coordination.node import meters
from coordination.node.proposer import Proposer

CLAIMS_WAITING_MAX = 20_000
WAKE_CHUNK = 16
RECHECK_S = 5.0
"""Waiting claims are asked again at least this often, for what no event announces: a time window that opens."""


@dataclass(slots=True)
class _WaitingClaim:
    command: TaskClaim
    answer: "asyncio.Future[Accepted | Rejected]"
    asked: int = 1


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
            return outcome
        finally:
            self._waiting.pop(number, None)
            meters.CLAIMS_WAITING.set(len(self._waiting))

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
    return msgspec.structs.replace(
        claim.command, request_id=hashlib.blake2b(seed, digest_size=16).digest()
    )


def _is_worth_waiting(outcome: Accepted | Rejected) -> bool:
    return isinstance(outcome, Accepted) and isinstance(outcome.value, ClaimAnswer) and not outcome.value.grants


def made_claimable(event: AnyEvent) -> int:
    """How many claims this event gives a chance: 1 where a task or a session became free, else 0."""
    match event:
        case happened.TaskEnqueued():
            return 0 if event.waiting_on or event.run_after_ms else 1
        case happened.TaskRequeued() | happened.TaskUpdated():
            return 0 if event.run_after_ms else 1
        case happened.DependencyMet():
            return 0 if event.waiting else 1
        case (
            happened.TaskReady()
            | happened.TaskRetried()
            | happened.TaskCompleted()
            | happened.TaskFailed()
            | happened.SessionUpdated()
            | happened.SessionStatusChanged()
            | happened.SessionHealthChanged()
        ):
            return 1
        case _:
            return 0


class WaitingLocks:
    """Callers that wait in the queue of a lock, by the request id of their command."""

    def __init__(self, proposer: Proposer, loop: asyncio.AbstractEventLoop) -> None:
        self._proposer = proposer
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
            if not _is_queued(outcome):
                return outcome
            recorded = await asyncio.wait_for(turn, command.wait_ms / 1000 + 10)
            return _outcome_of(recorded, outcome)
        except (TimeoutError, asyncio.CancelledError) as left:
            await self._leave(command)
            if isinstance(left, asyncio.CancelledError):
                raise
            return outcome
        finally:
            self._waiting.pop(command.request_id, None)
            meters.LOCKS_WAITING.set(len(self._waiting))

    async def _leave(self, command: LockAcquire) -> None:
        cancel = LockWaitCancel(lock_key=command.lock_key, owner_id=command.owner_id, actor=command.actor)
        await asyncio.shield(self._proposer.submit([cancel]))

    def note(self, recorded: Recorded) -> None:
        """A lock's event: it may be somebody's turn."""
        event = recorded.event
        if not isinstance(event, happened.LockAcquired | happened.LockWaitExpired):
            return
        turn = self._waiting.get(event.request_id)
        if turn is not None and not turn.done():
            turn.set_result(recorded)


def _is_queued(outcome: Accepted | Rejected) -> bool:
    return (
        isinstance(outcome, Accepted)
        and isinstance(outcome.value, LockAnswer)
        and outcome.value.state == "queued"
    )


def _outcome_of(recorded: Recorded, queued: Accepted | Rejected) -> Accepted | Rejected:
    event = recorded.event
    if isinstance(event, happened.LockAcquired):
        answer = LockAnswer(
            state="held",
            lock_key=event.lock_key,
            owner_id=event.owner_id,
            fencing_token=event.fencing_token,
            expires_ms=event.expires_ms,
            ttl_ms=event.expires_ms - recorded.clock_ms,
        )
        return Accepted(revision=recorded.revision, value=answer)
    assert isinstance(event, happened.LockWaitExpired)
    return Rejected(
        revision=recorded.revision,
        code=RejectionCode.CONFLICT,
        detail=f"waited for {event.lock_key} in vain: {event.reason}",
        data={"lock_key": event.lock_key},
    )
