"""Group commit: commands that arrive while entries are on their way share the next entry of the log.

Lives in the node's event loop; the member answers in its own thread. Heartbeats go by a lane of their own:
the first after a quiet period at once, then at most one entry in HEARTBEAT_PERIOD_S, whatever their number.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from coordination.errors import NotAvailable, OutcomeUnknown
from coordination.log.contract import Committed, NotApplied, Outcome
from coordination.log.raft import Member
from coordination.machine.codec import encode_batch
from coordination.machine.commands import AnyCommand, Batch, SessionHeartbeat
from coordination.machine.machine import Applied
from coordination.machine.outcomes import Accepted, Rejected
from coordination.node import meters

ENTRIES_IN_FLIGHT_MAX = 4
ENTRY_COMMANDS_MAX = 2_000
COMMANDS_WAITING_MAX = 50_000
HEARTBEAT_PERIOD_S = 0.1

Outcomes = list[Accepted | Rejected]


@dataclass(slots=True)
class _Unit:
    """Commands of one caller, applied next to one another, and where the answer goes."""

    commands: Sequence[AnyCommand]
    answer: "asyncio.Future[Outcomes]"
    arrived_s: float = field(default_factory=time.monotonic)


class Proposer:
    """Turns units of commands into entries. `submit` may be called from the loop's thread only."""

    def __init__(self, member: Member, loop: asyncio.AbstractEventLoop) -> None:
        self._member = member
        self._loop = loop
        self._units: deque[_Unit] = deque()
        self._heartbeats: deque[_Unit] = deque()
        self._waiting = 0
        self._in_flight = 0
        self._is_scheduled = False
        self._heartbeats_sent_s = 0.0
        self._heartbeat_timer: asyncio.TimerHandle | None = None

    async def submit(self, commands: Sequence[AnyCommand]) -> Outcomes:
        """One outcome a command. Raises NotAvailable (nothing was applied) or OutcomeUnknown."""
        if not commands:
            return []
        if self._waiting + len(commands) > COMMANDS_WAITING_MAX:
            raise NotAvailable(f"{self._waiting} commands wait already")
        unit = _Unit(commands, self._loop.create_future())
        self._waiting += len(commands)
        meters.COMMANDS_WAITING.set(self._waiting)
        try:
            self._enter(unit)
            outcomes = await unit.answer
        finally:
            self._waiting -= len(commands)
            meters.COMMANDS_WAITING.set(self._waiting)
        meters.COMMIT_SECONDS.observe(time.monotonic() - unit.arrived_s)
        return outcomes

    def _enter(self, unit: _Unit) -> None:
        if all(isinstance(command, SessionHeartbeat) for command in unit.commands):
            self._heartbeats.append(unit)
            self._schedule_heartbeats()
        else:
            self._units.append(unit)
            self._schedule()

    def _schedule(self) -> None:
        """Send at the end of this turn of the loop, so that what arrives in it goes together."""
        if not self._is_scheduled and self._in_flight < ENTRIES_IN_FLIGHT_MAX and self._units:
            self._is_scheduled = True
            self._loop.call_soon(self._send_next)

    def _send_next(self) -> None:
        self._is_scheduled = False
        if self._units and self._in_flight < ENTRIES_IN_FLIGHT_MAX:
            self._send(_taken(self._units))
        self._schedule()

    def _schedule_heartbeats(self) -> None:
        if self._heartbeat_timer is None:
            wait_s = self._heartbeats_sent_s + HEARTBEAT_PERIOD_S - time.monotonic()
            self._heartbeat_timer = self._loop.call_later(max(0.0, wait_s), self._send_heartbeats)

    def _send_heartbeats(self) -> None:
        self._heartbeat_timer = None
        self._heartbeats_sent_s = time.monotonic()
        self._send(_taken(self._heartbeats, limit=COMMANDS_WAITING_MAX))
        if self._heartbeats:
            self._schedule_heartbeats()

    def _send(self, units: list[_Unit]) -> None:
        commands = [command for unit in units for command in unit.commands]
        payload = encode_batch(Batch(stamp_ms=time.time_ns() // 1_000_000, commands=commands))
        self._in_flight += 1
        meters.ENTRY_COMMANDS.observe(len(commands))

        def answered(outcome: Outcome) -> None:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._answer, units, outcome)

        self._member.propose(payload, answered)

    def _answer(self, units: list[_Unit], outcome: Outcome) -> None:
        self._in_flight -= 1
        if isinstance(outcome, Committed):
            assert isinstance(outcome.result, Applied)
            outcomes = iter(outcome.result.outcomes)
            for unit in units:
                taken = [next(outcomes) for _ in unit.commands]
                if not unit.answer.done():
                    unit.answer.set_result(taken)
                _count(taken)
        else:
            for unit in units:
                if not unit.answer.done():
                    unit.answer.set_exception(_failure(outcome))
        self._schedule()


def _taken(units: deque[_Unit], limit: int = ENTRY_COMMANDS_MAX) -> list[_Unit]:
    """Units from the front, at least one, together at most `limit` commands if there is a choice."""
    taken = [units.popleft()]
    size = len(taken[0].commands)
    while units and size + len(units[0].commands) <= limit:
        taken.append(units.popleft())
        size += len(taken[-1].commands)
    return taken


def _failure(outcome: Outcome) -> NotAvailable | OutcomeUnknown:
    if isinstance(outcome, NotApplied):
        meters.COMMANDS.labels("not_applied").inc()
        return NotAvailable(outcome.reason)
    meters.COMMANDS.labels("unknown").inc()
    return OutcomeUnknown(getattr(outcome, "reason", "no answer"))


def _count(outcomes: Outcomes) -> None:
    accepted = sum(isinstance(outcome, Accepted) for outcome in outcomes)
    if accepted:
        meters.COMMANDS.labels("accepted").inc(accepted)
    if len(outcomes) - accepted:
        meters.COMMANDS.labels("rejected").inc(len(outcomes) - accepted)
