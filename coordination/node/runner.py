"""Puts one node together from its settings, runs it, and stops it in order.

The event loop serves HTTP; the member and each duty have a thread of their own. If any of them ends by
itself, the node ends, loudly: a restart recovers from what is on the disk.
"""

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import uvloop
from django.db import Error as DatabaseError
from django.db import connections

from coordination.errors import CoordinationError, NotAvailable, OutcomeUnknown
from coordination.log import protocol
from coordination.log.contract import Committed, MemberSettings, Outcome, Peer
from coordination.log.raft import Member
from coordination.machine.commands import AnyCommand
from coordination.machine.events import LockAcquired, LockWaitExpired, Recorded
from coordination.machine.outcomes import Accepted, Rejected
from coordination.machine.policy import Policy
from coordination.node.backlog import Backlog
from coordination.node.duties import (
    FEED_PAUSE_S,
    TICK_COUNTED_MS_MAX,
    TICK_MS,
    BeginDuty,
    FeedDuty,
    ProjectDuty,
    ScheduleDuty,
    TickDuty,
)
from coordination.node.http import NodeInterface, serve
from coordination.node.membership import members_of
from coordination.node.proposer import Proposer
from coordination.node.replica import Replica
from coordination.node.waiters import WaitingClaims, WaitingLocks, made_claimable
from gaia_site.env import Environment

log = logging.getLogger("gaia.node")

SUBMIT_TIMEOUT_S = 10.0
BACK_OFF_MAX_S = 2.0
STOP_S = 10.0
SCHEDULE_WAIT_S = 0.25
"""How long a new leader may take to see that it schedules now; what comes to be scheduled is told at once."""
BEGIN_PAUSE_S = 0.1
"""A node that looks for a new term of its own more often would spend most of its idle time on that."""


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What a node needs: its seat, its private address, its policy, and whether there are rows to write."""

    member: MemberSettings
    http_address: str
    secret: str
    policy: Policy
    has_database: bool


def settings_of(environment: Environment) -> NodeSettings:
    """The settings of the node this process shall be. Raises WrongSetting or NotAMember."""
    environment.require("CLUSTER_SECRET")
    assert environment.cluster_secret is not None
    members = members_of(environment)
    peers = tuple(member for member in members if member.node_id != environment.cluster_node_id)
    member = MemberSettings(
        node_id=environment.cluster_node_id,
        data_dir=environment.cluster_data_dir,
        secret=environment.cluster_secret,
        bind=environment.cluster_bind_addr if environment.cluster_enabled else "",
        advertise=environment.cluster_advertise_addr if environment.cluster_enabled else "",
        may_found=environment.cluster_bootstrap,
        peers=tuple(Peer(peer.node_id, peer.address) for peer in peers),
        heartbeat_timeout_s=environment.raft_heartbeat_timeout_ms / 1000,
        election_timeout_s=environment.raft_election_timeout_ms / 1000,
        snapshot_interval_s=environment.raft_snapshot_interval_ms / 1000,
        snapshot_retain=environment.raft_snapshot_retain,
    )
    policy = Policy(
        lease_ms=environment.session_lease_timeout_ms,
        heartbeat_interval_ms=environment.session_heartbeat_interval_ms,
        claim_ttl_ms=environment.task_claim_timeout_ms,
        tick_slack_ms=TICK_COUNTED_MS_MAX,
    )
    return NodeSettings(
        member=member,
        http_address=environment.cluster_http_addr,
        secret=environment.cluster_secret,
        policy=policy,
        has_database=environment.database_url is not None,
    )


class _Ear:
    """Hands what was applied from the member's thread to the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.claims: WaitingClaims | None = None
        self.locks: WaitingLocks | None = None

    def on_events(self, events: list[Recorded]) -> None:
        """Only what a long poll may be waiting for crosses over."""
        claimable = 0
        if self.claims is not None and self.claims.is_anybody_waiting:
            claimable = sum(made_claimable(recorded.event) for recorded in events)
        turns = [recorded for recorded in events if type(recorded.event) in _TURNS]
        if (claimable or turns) and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell, claimable, turns)

    def on_restored(self) -> None:
        """Anything may have become claimable."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell, 1, [])

    def _tell(self, claimable: int, turns: list[Recorded]) -> None:
        if self.claims is not None and claimable:
            self.claims.note_claimable(claimable)
        if self.locks is not None:
            for recorded in turns:
                self.locks.note(recorded)


_TURNS = frozenset({LockAcquired, LockWaitExpired})


class Node:
    """One running node. `run` returns the exit code."""

    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings
        self._stopping = threading.Event()
        self._ended: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._proposer: Proposer
        self._failure: BaseException | None = None
        self._threads: list[threading.Thread] = []

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT, or until a part fails."""
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._ended.set)
        replica = Replica(self._settings.policy)
        backlog, ear = Backlog(), _Ear(self._loop)
        member = Member(self._settings.member, replica, on_stopped=self._on_stopped)
        self._member = member
        schedule = ScheduleDuty(replica, member.belief, self._submit)
        projection = ProjectDuty(replica, member.belief, backlog)
        for listener in (ear, schedule, *([backlog] if self._settings.has_database else [])):
            replica.listen(listener)
        self._proposer = Proposer(member, self._loop)
        ear.claims = WaitingClaims(self._proposer, self._loop)
        ear.locks = WaitingLocks(self._proposer, replica, self._loop)
        interface = NodeInterface(
            member=member,
            replica=replica,
            proposer=self._proposer,
            claims=ear.claims,
            locks=ear.locks,
            key=protocol.derive_key(self._settings.secret),
            projected_revision=lambda: projection.revision,
        )
        await asyncio.to_thread(member.start)
        claims = self._loop.create_task(self._guarded("claims", ear.claims.run()))
        runner = await serve(interface, self._settings.http_address)
        self._start_duties(replica, member, schedule, projection, backlog)
        log.info("node_started", extra={"node": self._settings.member.node_id})
        await self._ended.wait()
        log.info("node_stopping", extra={"node": self._settings.member.node_id})
        self._stopping.set()
        backlog.ring()
        await runner.cleanup()
        claims.cancel()
        await asyncio.to_thread(self._stop_threads, member)
        return 0 if self._failure is None else 1

    def _start_duties(
        self,
        replica: Replica,
        member: Member,
        schedule: ScheduleDuty,
        projection: ProjectDuty,
        backlog: Backlog,
    ) -> None:
        has_database = self._settings.has_database
        begin = BeginDuty(
            replica,
            member.belief,
            self._submit,
            self._barrier,
            self._settings.policy,
            has_database=has_database,
        )
        tick = TickDuty(replica, member.belief, self._submit)
        self._start("begin", begin.step, lambda: self._pause(BEGIN_PAUSE_S))
        self._start("tick", tick.step, lambda: self._pause(TICK_MS / 1000))
        self._start("schedule", schedule.step, lambda: schedule.await_change(SCHEDULE_WAIT_S))
        if has_database:
            self._start("feed", FeedDuty(member.belief, self._submit).step, lambda: self._pause(FEED_PAUSE_S))
            self._start("project", projection.step, lambda: self._await_events(backlog, projection))

    def _start(self, name: str, step: Callable[[], bool], pause: Callable[[], object]) -> None:
        thread = threading.Thread(
            target=self._repeat, args=(name, step, pause), name=f"duty-{name}", daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def _repeat(self, name: str, step: Callable[[], bool], pause: Callable[[], object]) -> None:
        """Call a step until the node stops. What can pass (no leader, no database) is waited out."""
        back_off_s = 0.05
        try:
            while not self._stopping.is_set():
                try:
                    if not step():
                        pause()
                    back_off_s = 0.05
                except (CoordinationError, DatabaseError) as passing:
                    # A connection that PostgreSQL ended stays broken until it is closed.
                    connections.close_all()
                    log.warning(
                        "duty_waits", extra={"duty": name, "reason": f"{type(passing).__name__}: {passing}"}
                    )
                    self._stopping.wait(back_off_s)
                    back_off_s = min(BACK_OFF_MAX_S, back_off_s * 2)
        except BaseException as failure:  # noqa: BLE001  the edge of a loop: it is logged and the node ends
            self._fail(f"duty {name}", failure)
        finally:
            connections.close_all()

    def _await_events(self, backlog: Backlog, projection: ProjectDuty) -> None:
        backlog.wait(0.25)
        if len(backlog):
            self._pause(projection.rest_s())

    def _pause(self, seconds: float) -> None:
        self._stopping.wait(seconds)

    async def _guarded(self, name: str, loop_body: "Callable[[], object] | object") -> None:
        try:
            await loop_body  # type: ignore[misc]
        except asyncio.CancelledError:
            raise
        except BaseException as failure:  # noqa: BLE001  as in _repeat
            self._fail(name, failure)

    def _on_stopped(self, reason: BaseException | None) -> None:
        if not self._stopping.is_set():
            self._fail("member", reason or RuntimeError("the member ended"))

    def _fail(self, part: str, failure: BaseException) -> None:
        log.error("node_failed", extra={"part": part}, exc_info=failure)
        self._failure = failure
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ended.set)

    def _submit(self, commands: Sequence[AnyCommand]) -> list[Accepted | Rejected]:
        """`Proposer.submit` for the duties' threads."""
        waiting = asyncio.run_coroutine_threadsafe(self._proposer.submit(commands), self._loop)
        try:
            return waiting.result(SUBMIT_TIMEOUT_S)
        except TimeoutError as error:
            waiting.cancel()
            raise OutcomeUnknown("no answer in time") from error

    def _barrier(self) -> None:
        """Return when the state here covers all that was acknowledged. Raises NotAvailable."""
        done = threading.Event()
        found: list[Outcome] = []

        def answered(outcome: Outcome) -> None:
            found.append(outcome)
            done.set()

        self._member.read_index(answered)
        if not done.wait(SUBMIT_TIMEOUT_S) or not isinstance(found[0], Committed):
            raise NotAvailable("the leader cannot confirm itself")

    def _stop_threads(self, member: Member) -> None:
        ends_s = time.monotonic() + STOP_S
        for thread in self._threads:
            thread.join(max(0.0, ends_s - time.monotonic()))
        member.stop()


def run_node(environment: Environment) -> int:
    """Run the node the environment describes until it is told to stop; the exit code."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(Node(settings_of(environment)).run())
