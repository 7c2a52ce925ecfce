"""The node's private HTTP interface: commands in, outcomes out, and questions about the node itself.

Bodies are msgpack (`log.protocol`); every request is signed but those for probes and Prometheus.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from coordination.errors import CoordinationError, NotAvailable, OutcomeUnknown
from coordination.log import protocol
from coordination.log.contract import BUSY, Answer, Committed, NotApplied, Outcome
from coordination.log.raft import Member
from coordination.log.transport import split_address
from coordination.machine.commands import LockAcquire, TaskClaim
from coordination.machine.outcomes import Accepted, Rejected
from coordination.machine.scoring import explain
from coordination.machine.state import State
from coordination.node import meters
from coordination.node.proposer import Proposer
from coordination.node.replica import Replica
from coordination.node.waiters import WaitingClaims, WaitingLocks

log = logging.getLogger("gaia.node")

UNSIGNED_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
MSGPACK = "application/msgpack"
READ_TIMEOUT_S = 5.0
CHANGE_TIMEOUT_S = 6.0
"""Longer than a member waits for an outcome."""
SHUTDOWN_S = 5.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gate:
    """Whether the node takes commands yet: a new cluster first learns where its revisions must begin."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._is_open = False

    def check(self) -> None:
        """Raise NotAvailable until the machine's first revision, which the leader's first duty makes."""
        if not self._is_open:
            self._is_open = self._replica.read(lambda state: state.revision) > 0
        if not self._is_open:
            raise NotAvailable("the cluster is being started")


class NodeInterface:
    """The routes, over one member and its replica."""

    def __init__(
        self,
        *,
        member: Member,
        replica: Replica,
        proposer: Proposer,
        claims: WaitingClaims,
        locks: WaitingLocks,
        key: bytes,
        projected_revision: Callable[[], int],
    ) -> None:
        self._member = member
        self._replica = replica
        self._proposer = proposer
        self._claims = claims
        self._locks = locks
        self._key = key
        self._projected_revision = projected_revision
        self._gate = Gate(replica)

    def application(self) -> web.Application:
        """The routes with authentication in front."""
        app = web.Application(
            middlewares=[self._authenticated, _refusals], client_max_size=protocol.BODY_BYTES_MAX
        )
        app.on_response_prepare.append(self._mark_stale)
        app.add_routes(
            [
                web.post("/commands", self._commands),
                web.get("/status", self._status),
                web.get("/read-index", self._read_index),
                web.get("/explain/{task_id}", self._explain),
                web.get("/state", self._state),
                web.post("/transfer/{node_id}", self._transfer),
                web.post("/members", self._add_member),
                web.delete("/members/{node_id}", self._remove_member),
                web.post("/snapshot", self._snapshot),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
            ]
        )
        return app

    async def _mark_stale(self, request: web.Request, response: web.StreamResponse) -> None:
        """Say of an answer that it may be old: the disk is full, or no leader is known."""
        if request.method == "GET" and self._member.stale:
            response.headers[protocol.STALE_HEADER] = "true"

    @web.middleware
    async def _authenticated(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in UNSIGNED_PATHS:
            body = await request.read()
            header = request.headers.get("Authorization", "")
            now_ms = time.time_ns() // 1_000_000
            if not protocol.is_signed(self._key, header, request.method, request.path_qs, body, now_ms):
                meters.REQUESTS_REFUSED.labels("signature").inc()
                return web.Response(status=401, text="not signed with this cluster's secret, or too long ago")
        return await handler(request)

    async def _commands(self, request: web.Request) -> web.Response:
        try:
            asked = protocol.decode_submit(await request.read())
        except msgspec.MsgspecError as error:
            return web.Response(status=400, text=f"not a list of commands: {error}")
        if len(asked.commands) > protocol.COMMANDS_MAX:
            return web.Response(status=413, text=f"more than {protocol.COMMANDS_MAX} commands")
        self._gate.check()
        outcomes = await self._outcomes(asked)
        return _packed(protocol.Submitted(outcomes))

    async def _outcomes(self, asked: protocol.Submit) -> list[Accepted | Rejected]:
        wait_ms = min(asked.wait_ms, protocol.WAIT_MS_MAX)
        match asked.commands:
            case [TaskClaim() as claim] if wait_ms > 0:
                return [await self._claims.claim(claim, wait_ms)]
            case [LockAcquire() as acquire] if acquire.wait_ms > 0 and acquire.request_id:
                return [await self._locks.acquire(acquire)]
            case commands:
                return await self._proposer.submit(commands)

    async def _status(self, request: web.Request) -> web.Response:
        seen = self._replica.read(_machine_view)
        status = asdict(self._member.status())
        return _packed({**status, **seen, "projected_revision": self._projected_revision()})

    async def _read_index(self, request: web.Request) -> web.Response:
        """The revision that covers every write acknowledged before this call."""
        loop = asyncio.get_running_loop()
        covered: asyncio.Future[int] = loop.create_future()

        def answered(outcome: Outcome) -> None:
            # In the member's thread, before anything else is applied.
            revision = self._replica.read(lambda state: state.revision)
            loop.call_soon_threadsafe(_settle, covered, outcome, revision)

        self._member.read_index(answered)
        revision = await asyncio.wait_for(covered, READ_TIMEOUT_S)
        return _packed(protocol.ReadIndex(revision))

    async def _explain(self, request: web.Request) -> web.Response:
        task_id = request.match_info["task_id"]
        explained = self._replica.read(lambda state: explain(state, task_id))
        if explained is None:
            return web.Response(status=404, text="the machine does not hold this task")
        return _packed(explained)

    async def _state(self, request: web.Request) -> web.Response:
        """The whole state as a snapshot: for backup."""
        snapshot = await asyncio.to_thread(self._replica.encoded)
        return web.Response(body=snapshot, content_type=MSGPACK)

    async def _transfer(self, request: web.Request) -> web.Response:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[int] = loop.create_future()

        def answered(outcome: Outcome) -> None:
            loop.call_soon_threadsafe(_settle, done, outcome, 0)

        self._member.transfer(request.match_info["node_id"], answered)
        await asyncio.wait_for(done, READ_TIMEOUT_S)
        return _packed({"leader": self._member.status().leader})

    async def _add_member(self, request: web.Request) -> web.Response:
        try:
            new = protocol.decode_new_member(await request.read())
            split_address(new.address)
        except (msgspec.MsgspecError, ValueError) as error:
            return web.Response(status=400, text=f"not a member's id and address: {error}")
        outcome = await self._outcome_of(lambda answer: self._member.add_member(new.id, new.address, answer))
        return _packed(_changed(outcome))

    async def _remove_member(self, request: web.Request) -> web.Response:
        node_id = request.match_info["node_id"]
        return _packed(
            _changed(await self._outcome_of(lambda answer: self._member.remove_member(node_id, answer)))
        )

    async def _snapshot(self, request: web.Request) -> web.Response:
        """This node takes a snapshot now, on top of what it has."""
        outcome = await self._outcome_of(self._member.take_snapshot)
        if not isinstance(outcome, Committed):
            raise NotAvailable(outcome.reason)
        return _packed({"node_id": self._member.status().node_id, "applied_index": outcome.result})

    async def _outcome_of(self, ask: Callable[[Answer], None]) -> Outcome:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Outcome] = loop.create_future()

        def answered(outcome: Outcome) -> None:
            loop.call_soon_threadsafe(lambda: done.done() or done.set_result(outcome))

        ask(answered)
        return await asyncio.wait_for(done, CHANGE_TIMEOUT_S)

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _readyz(self, request: web.Request) -> web.Response:
        """200 while commands can be taken: a leader is known, the cluster has begun, the disk has room."""
        status = self._member.status()
        has_begun = self._replica.read(lambda state: state.revision) > 0
        is_ready = has_begun and not status.stale
        state = "ready" if is_ready else "stale" if has_begun else "missing"
        answer = {"status": state, "leader": status.leader or None, "reason": status.stale or None}
        return web.json_response(answer, status=200 if is_ready else 503)

    async def _metrics(self, request: web.Request) -> web.Response:
        observe(self._member, self._replica)
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


@web.middleware
async def _refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Failures as a message the client can act on; a defect is a plain 500 that may have been applied."""
    try:
        return await handler(request)
    except NotAvailable as refusal:
        meters.REQUESTS_REFUSED.labels("not_available").inc()
        return _packed(protocol.Refusal(unknown=False, reason=refusal.detail), status=503)
    except OutcomeUnknown as refusal:
        meters.REQUESTS_REFUSED.labels("unknown").inc()
        return _packed(protocol.Refusal(unknown=True, reason=refusal.detail), status=503)
    except TimeoutError:
        meters.REQUESTS_REFUSED.labels("unknown").inc()
        return _packed(protocol.Refusal(unknown=True, reason="no answer in time"), status=503)


def _settle(future: "asyncio.Future[int]", outcome: Outcome, value: int) -> None:
    if future.done():
        return
    if isinstance(outcome, Committed):
        future.set_result(value)
    else:
        failure: CoordinationError = NotAvailable(outcome.reason)
        future.set_exception(failure)


def _changed(outcome: Outcome) -> protocol.Changed:
    match outcome:
        case Committed():
            return protocol.Changed()
        case NotApplied():
            return protocol.Changed(outcome.code or BUSY, outcome.reason)
        case _:
            raise OutcomeUnknown(outcome.reason)


def _packed(message: Any, status: int = 200) -> web.Response:
    return web.Response(body=protocol.encode(message), status=status, content_type=MSGPACK)


def _machine_view(state: State) -> dict[str, int]:
    return {"revision": state.revision, "clock_ms": state.clock_ms, "stamp_ms": state.stamp_ms}


def observe(member: Member, replica: Replica) -> None:
    """Set the gauges that show a state rather than count what happens."""
    status = member.status()
    meters.RAFT_TERM.set(status.term)
    meters.RAFT_COMMIT_INDEX.set(status.commit_index)
    meters.RAFT_APPLIED_INDEX.set(status.applied_index)
    meters.RAFT_IS_LEADER.set(1 if status.leader == status.node_id else 0)
    for seat in status.members:
        meters.RAFT_MEMBER_LAG.labels(seat.id).set(seat.lag or 0)
    for kind, count in status.counters.items():
        meters.RAFT_EVENTS.labels(kind).set(count)
    with replica.reading() as state:
        revision = state.revision
        claimed = sum(len(tasks) for tasks in state.claims_index.values())
        counts = (len(state.sessions) - len(state.offline_index), len(state.tasks), len(state.locks))
    meters.REVISION.set(revision)
    meters.SESSIONS_ONLINE.set(counts[0])
    meters.TASKS_LIVE.labels("claimed").set(claimed)
    meters.TASKS_LIVE.labels("waiting").set(counts[1] - claimed)
    meters.LOCKS_HELD.set(counts[2])


async def serve(interface: NodeInterface, address: str) -> web.AppRunner:
    """Listen at `host:port`; clean the runner up to stop. A client that goes away cancels its long poll."""
    runner = web.AppRunner(interface.application(), handler_cancellation=True, access_log=None)
    await runner.setup()
    host, _, port = address.rpartition(":")
    site = web.TCPSite(runner, host.strip("[]"), int(port), backlog=1024, reuse_address=True)
    await site.start()
    log.info("node_listening", extra={"address": address})
    return runner
