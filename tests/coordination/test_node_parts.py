"""Parts of a node, each by itself: signatures, folding, waiting, duties, membership, the client's retries."""

import asyncio
import dataclasses
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordination.errors import NotAvailable, OutcomeUnknown
from coordination.log import protocol
from coordination.log.client import AsyncNodeClient, NodeClient
from coordination.log.contract import Committed, MemberStatus, NotApplied, Peer, Unknown
from coordination.log.disk import Folder
from coordination.log.journal import Journal
from coordination.machine import codec
from coordination.machine.codec import encode_batch
from coordination.machine.commands import (
    Batch,
    LockAcquire,
    PolicySet,
    SessionHeartbeat,
    SessionRegister,
    TaskClaim,
    TaskEnqueue,
    TaskSpec,
    Tick,
)
from coordination.machine.outcomes import Accepted, Done, Rejected, SessionAnswer
from coordination.machine.policy import Policy
from coordination.node.archive import inspected
from coordination.node.backlog import Backlog
from coordination.node.duties import TICK_COUNTED_MS_MAX, BeginDuty, ScheduleDuty, TickDuty
from coordination.node.membership import NotAMember, require_member, static_members
from coordination.node.proposer import Proposer
from coordination.node.replica import Replica
from coordination.node.waiters import WaitingClaims
from gaia_site import env
from tests.cluster import ROOT, eventually, free_ports

SECRET = "a secret of at least thirty-two characters"
KEY = protocol.derive_key(SECRET)


# Signatures


@given(st.sampled_from(["GET", "POST"]), st.text(min_size=1), st.binary(), st.integers(0, 10**12))
def test_a_request_is_accepted_as_it_was_signed_and_no_other(method, path, body, at_ms):
    header = protocol.sign(KEY, method, path, body, at_ms)

    assert protocol.is_signed(KEY, header, method, path, body, at_ms + 1000)
    assert not protocol.is_signed(KEY, header, method, path, body + b"x", at_ms)
    assert not protocol.is_signed(KEY, header, method, path + "x", body, at_ms)
    assert not protocol.is_signed(protocol.derive_key(SECRET + "x"), header, method, path, body, at_ms)
    assert not protocol.is_signed(KEY, header, method, path, body, at_ms + protocol.CLOCK_SKEW_MS_MAX + 1)


@given(st.text())
def test_no_header_is_an_error(header):
    assert not protocol.is_signed(KEY, header, "GET", "/status", b"", 0)


# Folding


class OneThread:
    """A member that applies at once, in this thread, and keeps what it was given."""

    def __init__(self) -> None:
        self.replica = Replica(Policy())
        self.payloads: list[bytes] = []
        self.answers: list[Callable[[], None]] = []
        self.outcome: Any = None

    def propose(self, payload: bytes, callback: Callable[[Any], None]) -> None:
        self.payloads.append(payload)
        answer = self.outcome or Committed(self.replica.apply(payload))
        self.answers.append(lambda: callback(answer))

    def answer_all(self) -> None:
        while self.answers:
            self.answers.pop(0)()

    def sizes(self) -> list[int]:
        return [len(codec.decode_batch(payload).commands) for payload in self.payloads]


def register(name: str) -> SessionRegister:
    return SessionRegister(session_id=f"id-{name}", session_name=name)


async def settled(member: OneThread, *waiting: "asyncio.Future[Any]") -> list[Any]:
    for _ in range(200):
        await asyncio.sleep(0.002)
        member.answer_all()
        if all(one.done() for one in waiting):
            break
    return await asyncio.gather(*waiting, return_exceptions=True)


async def test_commands_that_arrive_together_share_an_entry_and_are_answered_each():
    member = OneThread()
    proposer = Proposer(member, asyncio.get_running_loop())

    tasks = [
        asyncio.ensure_future(proposer.submit([register(f"s{n}"), register(f"t{n}")])) for n in range(10)
    ]
    answers = await settled(member, *tasks)

    assert member.sizes() == [20]
    names = [[outcome.value.session_name for outcome in answer] for answer in answers]
    assert names == [[f"s{n}", f"t{n}"] for n in range(10)]


async def test_the_first_heartbeat_goes_at_once_and_the_others_share_an_entry():
    member = OneThread()
    proposer = Proposer(member, asyncio.get_running_loop())

    first = asyncio.ensure_future(proposer.submit([SessionHeartbeat(session_name="a", lease_token=1)]))
    await asyncio.sleep(0.02)
    began = time.monotonic()
    rest = [
        asyncio.ensure_future(proposer.submit([SessionHeartbeat(session_name=f"b{n}", lease_token=1)]))
        for n in range(100)
    ]
    sizes_at_first = member.sizes()
    await settled(member, first, *rest)

    assert sizes_at_first == [1]
    assert member.sizes() == [1, 100]
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("outcome", "failure"), [(NotApplied("no leader"), NotAvailable), (Unknown("time-out"), OutcomeUnknown)]
)
async def test_what_was_not_applied_and_what_is_unknown_are_told_apart(outcome, failure):
    member = OneThread()
    member.outcome = outcome
    proposer = Proposer(member, asyncio.get_running_loop())

    (answer,) = await settled(member, asyncio.ensure_future(proposer.submit([register("s")])))

    assert type(answer) is failure


async def test_a_caller_that_leaves_spoils_nothing():
    member = OneThread()
    proposer = Proposer(member, asyncio.get_running_loop())
    leaves, stays = (asyncio.ensure_future(proposer.submit([register(name)])) for name in ("a", "b"))
    await asyncio.sleep(0)
    leaves.cancel()

    _, answer = await settled(member, leaves, stays)

    assert answer[0].value.session_name == "b"


# Long polls


class Withheld:
    """A proposer whose outcomes come when the test says so."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.asked: asyncio.Queue[tuple[list[Any], asyncio.Future[list[Any]]]] = asyncio.Queue()

    async def submit(self, commands):
        answer = asyncio.get_running_loop().create_future()
        self.asked.put_nowait((list(commands), answer))
        return await answer

    async def let_go(self, after_s: float = 0.0) -> None:
        """Apply and answer what is asked next, some time after it was asked."""
        commands, answer = await self.asked.get()
        await asyncio.sleep(after_s)
        payload = codec.encode_batch(codec.Batch(stamp_ms=1, commands=commands))
        answer.set_result(self.replica.apply(payload).outcomes)
        await asyncio.sleep(0)


async def test_a_claim_whose_time_ends_while_it_is_asked_again_hears_of_its_grant():
    """A grant that comes with the end of the wait would otherwise belong to a session that never knows."""
    log = Log()
    begun(log)
    (registered,) = log.submit([register("s")])
    proposer = Withheld(log.replica)
    claims = WaitingClaims(proposer, asyncio.get_running_loop())
    running = asyncio.ensure_future(claims.run())
    command = TaskClaim(session_name="s", lease_token=registered.value.lease_token, request_id=b"c" * 16)

    waiting = asyncio.ensure_future(claims.claim(command, 50))
    await proposer.let_go()  # nothing there: it waits, and is asked once more
    log.submit([TaskEnqueue(task_id="t", spec=TaskSpec(task_type="x"))])
    await proposer.let_go(after_s=0.2)  # its time is over meanwhile

    outcome = await asyncio.wait_for(waiting, 5)
    running.cancel()
    assert [grant.task_id for grant in outcome.value.grants] == ["t"]


# Duties


def status(*, role: str = "leader", term: int = 1) -> MemberStatus:
    return MemberStatus("n1", role, "n1", term, 1, 1, cluster_id="c1")


class Log:
    """Applies what duties submit to a replica, at once."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.replica = Replica(policy or Policy())
        self.commands: list[Any] = []
        self.failure: Exception | None = None

    def submit(self, commands):
        if self.failure:
            raise self.failure
        self.commands.extend(commands)
        payload = codec.encode_batch(codec.Batch(stamp_ms=1, commands=list(commands)))
        return self.replica.apply(payload).outcomes

    @property
    def clock_ms(self) -> int:
        return self.replica.read(lambda state: state.clock_ms)


def begun(log: Log, *, term: int = 1) -> None:
    BeginDuty(
        log.replica, lambda: status(term=term), log.submit, lambda: None, Policy(), has_database=False
    ).step()


def test_the_first_step_of_a_leader_makes_the_first_revision_once_a_term():
    log = Log(Policy(lease_ms=60_000))
    duty = BeginDuty(log.replica, status, log.submit, lambda: None, Policy(), has_database=False)

    assert duty.step()
    assert not duty.step()

    assert [type(command).__name__ for command in log.commands] == ["PolicySet", "Tick"]
    assert log.replica.read(lambda state: (state.policy, state.term)) == (Policy(), 1)


def test_only_the_leader_ticks_and_only_while_something_waits_for_time():
    log, now, role = Log(), [100.0], ["follower"]
    duty = TickDuty(log.replica, lambda: status(role=role[0]), log.submit, lambda: now[0])
    begun(log)
    log.commands.clear()

    duty.step()
    role[0] = "leader"
    duty.step()
    assert log.commands == []
    log.submit([register("s")])
    log.commands.clear()
    for _ in range(3):
        duty.step()
        now[0] += 0.25

    assert [command.elapsed_ms for command in log.commands] == [0, 250, 250]
    assert log.clock_ms == 500


def test_time_stands_still_where_a_tick_may_have_been_lost():
    """A lease may become longer by an outage, never shorter."""
    log, now = Log(), [100.0]
    duty = TickDuty(log.replica, status, log.submit, lambda: now[0])
    begun(log)
    log.submit([register("s")])
    duty.step()

    log.failure = OutcomeUnknown("time-out")
    now[0] += 5.0
    duty.step()
    log.failure = None
    now[0] += 0.25
    duty.step()

    assert log.clock_ms == 250


def test_a_node_that_stood_still_does_not_count_its_own_silence():
    """Stopped for a minute, it heard no heartbeat: the sessions that sent them must keep their leases."""
    log, now = Log(Policy(lease_ms=30_000)), [100.0]
    duty = TickDuty(log.replica, status, log.submit, lambda: now[0])
    begun(log)
    log.submit([register("s")])
    duty.step()

    now[0] += 60.0
    duty.step()
    now[0] += 0.25
    duty.step()

    assert log.clock_ms == TICK_COUNTED_MS_MAX + 250
    assert log.replica.read(lambda state: next(iter(state.sessions.values())).status) == "idle"


def test_a_late_tick_takes_nothing_from_what_was_granted_just_before_it():
    """Found by `verify`'s promise about holds: a lock told to last 3 s was given away after 1.3 s."""
    log, now = Log(), [100.0]
    duty = TickDuty(log.replica, status, log.submit, lambda: now[0])
    begun(log)
    log.submit([PolicySet(policy=Policy(tick_slack_ms=TICK_COUNTED_MS_MAX)), register("s")])
    duty.step()

    now[0] += 1.9
    (granted,) = log.submit([LockAcquire(lock_key="k", owner_id="a", ttl_ms=1_000)])
    duty.step()
    for _ in range(4):
        now[0] += 0.24
        duty.step()

    assert granted.value.ttl_ms == 1_000
    assert log.replica.read(lambda state: state.locks["k"].owner_id) == "a"


def test_a_new_term_begins_a_new_measurement():
    log, now, term = Log(), [100.0], [1]
    duty = TickDuty(log.replica, lambda: status(term=term[0]), log.submit, lambda: now[0])
    begun(log)
    log.submit([register("s")])
    duty.step()

    term[0], now[0] = 2, now[0] + 60
    duty.step()

    assert log.clock_ms == 0
    assert isinstance(log.commands[-1], Tick)
    assert log.commands[-1].elapsed_ms == 0


def test_the_scheduler_pushes_and_rests_when_nothing_changed():
    log = Log()
    duty = ScheduleDuty(log.replica, status, log.submit)
    log.replica.listen(duty)
    begun(log)
    log.submit([SessionRegister(session_id="i", session_name="s", accepts_push=True)])
    log.submit([TaskEnqueue(task_id="t", spec=TaskSpec(task_type="x"))])

    assert duty.step()
    while duty.step():
        pass
    before = len(log.commands)
    assert not duty.step()

    assert log.replica.read(lambda state: state.tasks["t"].claim.session_name) == "s"
    assert len(log.commands) == before


# The backlog


def events_of(count: int) -> list[Any]:
    log = Log()
    for number in range(count):
        log.submit([register(f"s{number}")])
    return log.replica.events_after(0)


def test_the_backlog_hands_out_whole_revisions():
    log = Log()
    log.submit([register("s")])
    log.submit([TaskEnqueue(task_id="t", spec=TaskSpec(task_type="x", lesson_id="l"))])
    events = log.replica.events_after(0)
    backlog = Backlog()
    backlog.on_events(events)

    assert {one.revision for one in backlog.first(2)} == {1, 2}
    assert len(backlog.first(2)) == len(events)
    backlog.drop_through(1)
    assert {one.revision for one in backlog.first(9)} == {2}


def test_a_backlog_that_overflows_forgets_everything_it_has():
    backlog = Backlog(events_max=3)

    backlog.on_events(events_of(4))

    assert (len(backlog), backlog.overflows) == (0, 1)


# Members


def environment(**values: Any) -> env.Environment:
    return dataclasses.replace(
        env.load(ROOT),
        **{
            "cluster_enabled": True,
            "cluster_node_id": "a",
            "cluster_bind_addr": "0.0.0.0:7400",
            "cluster_advertise_addr": "10.0.0.1:7400",
            "cluster_discovery_nodes": ("a=10.0.0.1:7400", "b=10.0.0.2:7400"),
        }
        | values,
    )


def test_every_member_has_its_own_id_and_address():
    found = environment()

    members = static_members(found.cluster_discovery_nodes, found)

    assert members == (Peer("a", "10.0.0.1:7400"), Peer("b", "10.0.0.2:7400"))
    require_member(members, found)


@pytest.mark.parametrize(
    "values",
    [
        {"cluster_node_id": "c"},
        {"cluster_advertise_addr": "10.0.0.9:7400"},
        {"cluster_discovery_nodes": ()},
        {"cluster_discovery_nodes": ("a=10.0.0.1:7400", "a=10.0.0.2:7400")},
        {"cluster_discovery_nodes": ("a=10.0.0.1:7400", "b=10.0.0.1:7400")},
    ],
    ids=str,
)
def test_a_node_that_is_not_a_member_says_so(values):
    found = environment(**values)

    with pytest.raises(NotAMember):
        require_member(static_members(found.cluster_discovery_nodes, found), found)


def test_a_node_that_is_not_a_member_does_not_start():
    (port,) = free_ports(1)
    result = subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), "raft_node"],
        env={
            "CLUSTER_ENABLED": "true",
            "CLUSTER_NODE_ID": "stranger",
            "CLUSTER_DISCOVERY_NODES": f"a=127.0.0.1:{port}",
            "CLUSTER_SECRET": SECRET.replace(" ", "-"),
            "SECRET_KEY": "x" * 40,
            "GAIA_DATA_DIR": "/nonexistent",
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert result.returncode == 1
    assert "'stranger'" in result.stderr


# The client


class Scripted:
    """A node that answers each request with the next of its answers: a status and a body, or "hang up"."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.bodies: list[bytes] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                if answer == "hang up":
                    self.connection.close()
                    return
                code, message = answer
                body = protocol.encode(message)
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                """Say nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def scripted():
    made: list[Scripted] = []

    def make(*answers: Any) -> Scripted:
        made.append(Scripted(*answers))
        return made[-1]

    yield make
    for one in made:
        one.close()


DONE = (200, protocol.Submitted([Accepted(revision=1, value=Done())]))
NO_LEADER = (503, protocol.Refusal(unknown=False, reason="no leader"))
MAYBE = (503, protocol.Refusal(unknown=True, reason="leader changed"))
NAMED = TaskEnqueue(request_id=b"x" * 16, task_id="t", spec=TaskSpec(task_type="x"))
UNNAMED = TaskEnqueue(task_id="t", spec=TaskSpec(task_type="x"))


def test_a_refusal_is_tried_at_the_next_node(scripted):
    first, second = scripted(NO_LEADER), scripted(DONE)

    (outcome,) = NodeClient([first.url, second.url], SECRET).submit([UNNAMED])

    assert outcome.revision == 1
    assert len(first.bodies) == len(second.bodies) == 1


@pytest.mark.parametrize("lost", ["hang up", MAYBE], ids=["connection lost", "unknown"])
def test_a_lost_answer_is_asked_for_again_under_the_same_id(scripted, lost):
    first, second = scripted(lost), scripted(DONE)

    (outcome,) = NodeClient([first.url, second.url], SECRET).submit([NAMED])

    assert outcome.revision == 1
    assert first.bodies == second.bodies


def test_a_command_without_an_id_is_not_repeated(scripted):
    first, second = scripted(MAYBE), scripted(DONE)

    with pytest.raises(OutcomeUnknown):
        NodeClient([first.url, second.url], SECRET).submit([UNNAMED])

    assert second.bodies == []


def test_nobody_there_means_certainly_not_applied():
    (port,) = free_ports(1)

    with pytest.raises(NotAvailable):
        NodeClient([f"http://127.0.0.1:{port}"], SECRET).submit([NAMED], deadline_s=0.2)


def test_a_deadline_with_an_unknown_among_the_answers_is_unknown(scripted):
    node = scripted(MAYBE, NO_LEADER)

    with pytest.raises(OutcomeUnknown):
        NodeClient([node.url], SECRET).submit([NAMED], deadline_s=0.3)


async def test_the_asynchronous_client_folds_what_arrives_together():
    received: list[int] = []

    async def answer(request):
        from aiohttp import web

        asked = protocol.decode_submit(await request.read())
        received.append(len(asked.commands))
        outcomes = [Accepted(revision=n, value=Done()) for n, _ in enumerate(asked.commands)]
        return web.Response(body=protocol.encode(protocol.Submitted(outcomes)))

    from aiohttp import web

    app = web.Application()
    app.router.add_post("/commands", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    (port,) = free_ports(1)
    await web.TCPSite(runner, "127.0.0.1", port).start()
    client = AsyncNodeClient([f"http://127.0.0.1:{port}"], SECRET)
    try:
        answers = await asyncio.gather(*(client.submit([NAMED, NAMED]) for _ in range(50)))
    finally:
        await client.close()
        await runner.cleanup()

    assert sum(received) == 100
    assert len(received) <= 4
    assert all(len(outcomes) == 2 for outcomes in answers)


def test_an_unsigned_request_is_refused(live_node):
    import urllib3

    answer = urllib3.request(
        "POST", f"{live_node.urls[0]}/commands", body=protocol.encode(protocol.Submit([]))
    )
    stranger = NodeClient(live_node.urls, "another secret of at least thirty-two")

    assert answer.status == 401
    with pytest.raises(NotAvailable, match="401"):
        stranger.submit([NAMED], deadline_s=0.2)


def test_a_retry_at_the_node_gets_the_first_answer(live_node):
    client = live_node.client()
    wish = SessionRegister(request_id=b"once-and-once-on", session_id="not-a-row", session_name="retry/once")

    (first,) = client.submit([wish])
    (second,) = client.submit([wish])

    assert isinstance(first, Accepted)
    assert isinstance(first.value, SessionAnswer)
    assert second == first
    (other,) = client.submit([SessionRegister(session_id="x", session_name="retry/once")])
    assert isinstance(other, Rejected)


def test_the_node_measures_itself(live_node):
    import urllib3

    live_node.client().submit([register("measured")])

    text = urllib3.request("GET", f"{live_node.urls[0]}/metrics").data.decode()

    for name in (
        "gaia_node_commands_total",
        "gaia_raft_term",
        "gaia_projection_lag",
        "gaia_machine_revision",
    ):
        assert name in text
    eventually(lambda: urllib3.request("GET", f"{live_node.urls[0]}/readyz").status == 200)


# A look into a journal


def _journal(folder: Path, segment_bytes: int = 400) -> list[Path]:
    disk = Folder(folder)
    journal = Journal(disk, segment_bytes)
    for index in range(1, 40):
        journal.add(b"\0" + encode_batch(Batch(stamp_ms=1, commands=[register(f"s{index}")])), index, 1)
        journal.sync()
    journal.close()
    disk.close()
    return sorted(folder.glob("journal-*"))


def test_a_whole_journal_shows_every_record_with_its_place(tmp_path):
    _journal(tmp_path)

    lines = list(inspected(tmp_path))

    assert [line.index for line in lines if line.kind == "entry"] == list(range(1, 40))
    assert {line.commands for line in lines if line.kind == "entry"} == {("SessionRegister",)}
    assert not [line for line in lines if line.note]


def test_a_torn_tail_is_shown_as_what_a_start_will_cut(tmp_path):
    *_, last = _journal(tmp_path, segment_bytes=1 << 20)
    data = last.read_bytes().rstrip(b"\0")
    last.write_bytes(data[:-3])

    lines = list(inspected(tmp_path))

    assert [(line.kind, line.segment) for line in lines if line.note] == [("torn", last.name)]
    assert [line.index for line in lines if line.kind == "entry"] == list(range(1, 39))


def test_damage_in_the_middle_is_shown_with_its_offset_and_a_missing_segment_by_its_name(tmp_path):
    paths = _journal(tmp_path)
    data = bytearray(paths[1].read_bytes())
    data[60] ^= 1
    paths[1].write_bytes(data)
    paths[3].unlink()

    wrong = [(line.kind, line.segment) for line in inspected(tmp_path) if line.note]

    assert wrong == [("damaged", paths[1].name), ("missing", paths[3].name)]


def test_nothing_of_a_journal_is_changed_by_looking(tmp_path):
    paths = _journal(tmp_path)
    before = [path.read_bytes() for path in paths]

    list(inspected(tmp_path))

    assert [path.read_bytes() for path in paths] == before
