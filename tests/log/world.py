"""A world of real replicas with virtual time, network and disk, all drawn from one seed.

The replicas are the production class over the real pysyncobj; journal, snapshots and identity lie on the simulated
disk, messages are encoded and decoded. Nothing here knows Raft. The network keeps TCP's contract: within a connection
messages arrive in order, once, or from some point on not at all; the two ends notice a reset at different times; a
direction may be slow or blocked for as long as it likes. The disk keeps what was synced; of the rest a power loss
leaves any prefix, possibly with a wrong last byte, and may come in the middle of any operation.
"""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import msgspec
import pysyncobj.syncobj as core

from coordination.log import identity
from coordination.log.contract import (
    CANDIDATE,
    FOLLOWER,
    LEADER,
    Committed,
    MemberSettings,
    NotApplied,
    Outcome,
    Peer,
)
from coordination.log.members import Members
from coordination.log.replica import Replica
from coordination.log.waiting import Waiting

TICK_S = 0.01
SPARES = 3
"""How many nodes can join those that begin."""
RECONNECT_S = 0.25
COMMAND_TIMEOUT_S = 4.0


class Violation(AssertionError):
    """A promise of the cluster was broken."""


class PowerLost(BaseException):
    """The simulated power went away in the middle of an operation."""


@dataclass(frozen=True, slots=True)
class Call:
    """An operation that was answered: when it was asked and answered, and between which entries it took effect.

    The log is the order. A write that is entry number n (from 0) stands at n + 0.5, a read that saw k entries at k.
    """

    asked: float
    answered: float
    place: float


def out_of_order(calls: list[Call]) -> tuple[Call, Call] | None:
    """Two calls of which one was answered before the other was asked, but took effect behind it; None if the log's
    order explains all answers, which is what linearizable means (Herlihy and Wing, 1990).
    """
    by_answer = sorted(calls, key=lambda call: call.answered)
    latest: Call | None = None
    at = 0
    for call in sorted(calls, key=lambda call: call.asked):
        while at < len(by_answer) and by_answer[at].answered < call.asked:
            if latest is None or by_answer[at].place > latest.place:
                latest = by_answer[at]
            at += 1
        if latest is not None and latest.place > call.place:
            return latest, call
    return None


class SimFile:
    """An append-only file: what is durable, and what was written since the last sync."""

    def __init__(self, disk: "SimDisk", durable: bytes) -> None:
        self._disk, self.durable, self.pending = disk, durable, b""

    @property
    def size(self) -> int:
        return len(self.durable) + len(self.pending)

    def write(self, data: bytes) -> None:
        self.pending += data

    def sync(self) -> None:
        self._disk.operation()
        self.durable, self.pending = self.durable + self.pending, b""

    def close(self) -> None:
        """Closing makes nothing durable."""

    def lose_power(self, rng: random.Random) -> None:
        kept = self.pending[: rng.randint(0, len(self.pending))]
        if kept and rng.random() < 0.3:
            kept = kept[:-1] + bytes([kept[-1] ^ 0x55])
        self.durable, self.pending = self.durable + kept, b""


class SimDisk:
    """The data directory of one member. `crash_in` counts down the operations until the power goes."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.files: dict[str, SimFile] = {}
        self.crash_in: int | None = None

    def operation(self, half_done: Callable[[], None] = lambda: None) -> None:
        """One operation that is durable when it returns; the power may go before, or when it is half done."""
        if self.crash_in is None:
            return
        self.crash_in -= 1
        if self.crash_in <= 0:
            self.crash_in = None
            half_done()
            raise PowerLost

    def names(self) -> list[str]:
        return sorted(self.files)

    def read(self, name: str) -> bytes:
        return self.files[name].durable + self.files[name].pending

    def append(self, name: str, size: int) -> SimFile:
        self.files[name] = SimFile(self, self.read(name)[:size])
        return self.files[name]

    def create(self, name: str, data: bytes) -> SimFile:
        def half_done() -> None:
            if self._rng.random() < 0.7:
                self.files[name] = SimFile(self, data[: self._rng.randint(0, len(data))])

        self.operation(half_done)
        self.files[name] = SimFile(self, data)
        return self.files[name]

    def replace(self, name: str, data: bytes) -> None:
        def half_done() -> None:
            if self._rng.random() < 0.5:
                self.files[name] = SimFile(self, data)

        self.operation(half_done)
        self.files[name] = SimFile(self, data)

    def remove(self, *names: str) -> None:
        for name in names:
            self.operation()
            self.files.pop(name, None)

    def lose_power(self) -> None:
        for file in self.files.values():
            file.lose_power(self._rng)

    def close(self) -> None:
        """Nothing is locked."""


class SimMachine:
    """A list. Its members' histories must be prefixes of one another."""

    def __init__(self, world: "World", name: str) -> None:
        self._world, self._name = world, name
        self.history: list[int] = []

    def apply(self, payload: bytes) -> object:
        self.history.append(int(payload))
        self._world.applied(self._name, self.history)
        return len(self.history)

    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode(self.history)

    def restore(self, data: bytes) -> None:
        self.history = msgspec.msgpack.decode(data, type=list[int])
        self._world.restored(self._name, self.history)


@dataclass
class Connection:
    """One pair of members: the live connection's number, what each end believes, and each direction's pipe."""

    ends: tuple[str, str]
    epoch: int = 0
    up: dict[str, int | None] = field(default_factory=dict)
    slow: dict[str, float] = field(default_factory=dict)
    blocked: dict[str, bool] = field(default_factory=dict)
    pipe: dict[str, list[tuple[float, int, bytes]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for end in self.ends:
            self.up[end], self.slow[end], self.blocked[end], self.pipe[end] = None, 0.0, False, []

    def other(self, end: str) -> str:
        return self.ends[1] if end == self.ends[0] else self.ends[0]


class SimLinks:
    """What a replica takes for its sockets."""

    def __init__(self, world: "World", name: str) -> None:
        self._world, self._name = world, name
        self.wanted: set[str] = set()

    def send(self, peer: str, frame: bytes) -> bool:
        return self._world.send(self._name, peer, frame)

    def backlog(self, peer: str) -> int:
        return 0

    def meet(self, peer: str, address: str) -> None:
        self.wanted.add(peer)
        self._world.want(self._name, peer)

    def forget(self, peer: str) -> None:
        self.wanted.discard(peer)

    def drop(self, peer: str, reason: str) -> None:
        self._world.reset(self._world.connection(self._name, peer))


class Member:
    def __init__(self, world: "World", name: str) -> None:
        self.name, self.disk = name, SimDisk(world.rng)
        self.replica: Replica | None = None
        self.machine = SimMachine(world, name)
        self.is_paused = False
        self.is_woken, self.due = True, 0.0
        self.links = SimLinks(world, name)
        self.founders: list[str] = []
        self.may_found = True

    @property
    def live(self) -> Replica:
        assert self.replica is not None, f"{self.name} is down"
        return self.replica


class World:
    """Use as a context manager: the clock and the chance of pysyncobj are the world's until it closes."""

    def __init__(
        self, seed: int, size: int = 3, *, quiet: bool = False, retain: int = 0, batch_bytes: int = 60
    ) -> None:
        self.rng, self.now, self.quiet, self._batch_bytes = random.Random(seed), 1.0, quiet, batch_bytes
        self.names = [f"n{i}" for i in range(1, size + 1)]
        everyone = [f"n{i}" for i in range(1, size + SPARES + 1)]
        self._retain = retain or 1 + seed % 2
        self.connections = {
            frozenset((a, b)): Connection((a, b)) for a in everyone for b in everyone if a < b
        }
        self.members = {name: Member(self, name) for name in everyone}
        for name in self.names:
            self.members[name].founders = list(self.names)
        self.later: list[tuple[float, int, Callable[[], object]]] = []
        self.serial = self.next_value = 0
        self.history: list[int] = []
        self.acked: dict[int, str] = {}
        self.not_applied: set[int] = set()
        self.leaders: dict[int, str] = {}
        self.waiting: list[Waiting] = []
        self.stale_reads: list[set[int]] = []
        self.writes: list[tuple[float, float, int, int]] = []
        self.reads: list[Call] = []
        self._stock = (core.monotonicTime, core.random)
        core.monotonicTime = lambda: self.now
        core.random = random.Random(seed ^ 0x5EED)
        for name in self.names:
            self.start(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        core.monotonicTime, core.random = self._stock

    # ---- members

    def settings(self, name: str) -> MemberSettings:
        return MemberSettings(
            name,
            Path("/nowhere"),
            bind=name,
            peers=tuple(Peer(other, other) for other in self.members[name].founders if other != name),
            may_found=self.members[name].may_found,
            heartbeat_timeout_s=0.3,
            election_timeout_s=0.6,
            snapshot_entries=30,
            snapshot_interval_s=1e9,
            snapshot_retain=self._retain,
            segment_bytes=700,
            batch_bytes=self._batch_bytes,
            chunk_bytes=64,
        )

    def start(self, name: str) -> None:
        member = self.members[name]
        member.is_paused, member.disk.crash_in, member.is_woken = False, None, True
        member.machine = SimMachine(self, name)
        member.links = SimLinks(self, name)
        member.replica = Replica(
            self.settings(name), member.disk, member.links, member.machine, lambda *_: None
        )
        for connection in self._connections_of(name):
            self._reconnect(connection)

    def join(self, name: str, *, told_of: list[str]) -> None:
        """A new process with an empty directory, or one that comes back, configured with these members."""
        if name not in self.names:
            self.names.append(name)
        self.members[name].founders, self.members[name].may_found = [name, *told_of], False
        if self.members[name].replica is None:
            self.start(name)

    def kill(self, name: str, *, power: bool = False) -> None:
        member = self.members[name]
        member.replica = None
        if power:
            member.disk.lose_power()
        for connection in self._connections_of(name):
            if any(epoch is not None for epoch in connection.up.values()):
                connection.up[name] = None
                self.reset(connection)

    def wipe(self, name: str) -> None:
        self.kill(name)
        self.members[name].disk.files.clear()

    def is_whole(self, name: str) -> bool:
        """Whether this member's directory may take part in majorities."""
        files = self.members[name].disk.files
        if identity.FILE_NAME not in files:
            return False
        stored = msgspec.json.decode(files[identity.FILE_NAME].durable, type=identity.Identity)
        return stored.standing == identity.MEMBER

    def alive(self) -> list[str]:
        return [name for name, member in self.members.items() if member.replica is not None]

    def leader(self) -> str | None:
        found = [name for name in self.alive() if self.members[name].live._isLeader()]
        return max(found, key=lambda name: self.members[name].live.raftCurrentTerm, default=None)

    # ---- clients

    def propose(self, name: str) -> int:
        value, self.next_value = self.next_value, self.next_value + 1
        asked = self.now

        def answer(outcome: Outcome) -> None:
            if isinstance(outcome, Committed):
                self.acked[value] = name
                self.writes.append((asked, self.now, value, int(str(outcome.result))))
            elif isinstance(outcome, NotApplied):
                self.not_applied.add(value)

        waiting = Waiting(answer, self.now + COMMAND_TIMEOUT_S)
        self.waiting.append(waiting)
        self.members[name].is_woken = True
        self.members[name].live.propose(b"%d" % value, waiting)
        return value

    def read(self, name: str) -> list[Outcome]:
        """A linearizable read: when it answers, this member must have all that was acknowledged when it was asked."""
        known, machine, outcomes = set(self.acked), self.members[name].machine, []
        asked = self.now

        def answer(outcome: Outcome) -> None:
            outcomes.append(outcome)
            if isinstance(outcome, Committed):
                self.reads.append(Call(asked, self.now, len(machine.history)))
            if isinstance(outcome, Committed) and not known <= set(machine.history):
                self.stale_reads.append(known - set(machine.history))

        waiting = Waiting(answer, self.now + COMMAND_TIMEOUT_S, is_read=True)
        self.waiting.append(waiting)
        self.members[name].is_woken = True
        self.members[name].live.read(waiting)
        return outcomes

    def change(self, action: str, name: str) -> list[Outcome]:
        """Ask the leader to add or remove a member; what it answers, once it does."""
        outcomes: list[Outcome] = []
        leader = self.leader()
        if leader is None:
            return outcomes
        waiting = Waiting(outcomes.append, self.now + COMMAND_TIMEOUT_S)
        self.waiting.append(waiting)
        self.members[leader].is_woken = True
        replica = self.members[leader].live
        if action == "add":
            replica.add_member(name, name, waiting)
        else:
            replica.remove_member(name, waiting)
        return outcomes

    # ---- what members report

    def applied(self, name: str, history: list[int]) -> None:
        at = len(history) - 1
        if at == len(self.history):
            self.history.append(history[at])
        elif at > len(self.history):
            raise Violation(f"{name} skipped from {at} to {len(self.history)}")
        elif self.history[at] != history[at]:
            raise Violation(f"{name} applied {history[at]} as number {at}, another member {self.history[at]}")

    def restored(self, name: str, history: list[int]) -> None:
        if history != self.history[: len(history)]:
            raise Violation(f"{name} restored a history that nobody applied")

    def _note_leader(self, name: str) -> None:
        replica = self.members[name].live
        if replica._isLeader() and self.leaders.setdefault(replica.raftCurrentTerm, name) != name:
            raise Violation(
                f"two leaders in term {replica.raftCurrentTerm}: {self.leaders[replica.raftCurrentTerm]}, {name}"
            )

    # ---- network

    def _connections_of(self, name: str) -> list[Connection]:
        return [connection for connection in self.connections.values() if name in connection.ends]

    def connection(self, a: str, b: str) -> Connection:
        return self.connections[frozenset((a, b))]

    def send(self, source: str, target: str, frame: bytes) -> bool:
        connection = self.connection(source, target)
        self.now += 1e-6  # loops that wait for time to pass must end
        if connection.up[source] is None:
            return False
        pipe = connection.pipe[source]
        delay = 0.001 if self.quiet else self.rng.uniform(0.0005, 0.004)
        due = max(self.now + delay + connection.slow[source], pipe[-1][0] if pipe else 0.0)
        if (
            connection.up[source] == connection.epoch
        ):  # else it was written into a connection that is already dead
            pipe.append((due, connection.epoch, frame))
        return True

    def _read(self, name: str) -> bool:
        has_read = False
        for connection in self._connections_of(name):
            source = connection.other(name)
            pipe = connection.pipe[source]
            while pipe and pipe[0][0] <= self.now and not connection.blocked[source]:
                _, epoch, frame = pipe.pop(0)
                if epoch == connection.up[name]:
                    has_read = True
                    self.members[name].live.frame(source, frame)
        return has_read

    def release(self, source: str, target: str, count: int = 1000) -> None:
        """Let `count` messages through a blocked direction."""
        connection = self.connection(source, target)
        taken, connection.pipe[source] = connection.pipe[source][:count], connection.pipe[source][count:]
        for _, epoch, frame in taken:
            if epoch == connection.up[target]:
                self.members[target].live.frame(source, frame)

    def pending(self, source: str, target: str) -> list[bytes]:
        return [frame for _, _, frame in self.connection(source, target).pipe[source]]

    def block(self, source: str, *targets: str) -> None:
        for target in targets:
            self.connection(source, target).blocked[source] = True

    def unblock(self, source: str, *targets: str) -> None:
        for target in targets:
            self.connection(source, target).blocked[source] = False

    def cut(self, a: str, *others: str) -> None:
        for b in others:
            self.block(a, b)
            self.block(b, a)

    def heal(self, a: str, *others: str) -> None:
        for b in others:
            self.unblock(a, b)
            self.unblock(b, a)

    def reset(self, connection: Connection) -> None:
        """The connection dies now. Of what is on its way some may still arrive, while the receiver has not noticed."""
        connection.epoch += 1
        for end in connection.ends:
            pipe = connection.pipe[end]
            del pipe[0 if self.quiet else self.rng.randint(0, len(pipe)) :]
            notice = self.now + (0.0 if self.quiet else self.rng.uniform(0, 0.2))
            self.at(notice, lambda end=end: self.notice(connection, end))
        self.at(self.now + RECONNECT_S, lambda: self._reconnect(connection))

    def want(self, name: str, peer: str) -> None:
        """A member looks for a peer: they connect a little later, unless they are connected."""
        connection = self.connection(name, peer)
        if connection.up[name] is None:
            self.at(self.now + RECONNECT_S, lambda: self._reconnect(connection))

    def notice(self, connection: Connection, end: str) -> None:
        if connection.up[end] is not None and connection.up[end] != connection.epoch:
            connection.up[end] = None
            if self.members[end].replica is not None:
                self._guarded(end, lambda: self.members[end].live.link_down(connection.other(end)))

    def _reconnect(self, connection: Connection) -> None:
        a, b = connection.ends
        is_down = any(self.members[end].replica is None for end in connection.ends)
        is_wanted = b in self.members[a].links.wanted or a in self.members[b].links.wanted
        if is_down or not is_wanted or connection.up[a] == connection.up[b] == connection.epoch:
            return
        for end in connection.ends:
            self.notice(connection, end)
        for end in connection.ends:
            connection.pipe[end].clear()
            connection.up[end] = connection.epoch
        for end in connection.ends:
            if self.members[end].replica is not None:
                self._guarded(end, lambda end=end: self.members[end].live.link_up(connection.other(end)))

    # ---- time

    def at(self, when: float, action: Callable[[], object]) -> None:
        self.serial += 1
        heapq.heappush(self.later, (when, self.serial, action))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += TICK_S
            while self.later and self.later[0][0] <= self.now:
                heapq.heappop(self.later)[2]()
            order = self.alive()
            self.rng.shuffle(order)
            for name in order:
                if self.members[name].replica is not None and not self.members[name].is_paused:
                    self.step(name)
            self._expire()

    def step(self, name: str) -> None:
        self._guarded(name, lambda: self._step(name), wakes=False)

    def _step(self, name: str) -> None:
        """As a member's thread: when something arrived, when it was woken, and when it wanted to be."""
        has_read, member = self._read(name), self.members[name]
        if not (has_read or member.is_woken or self.quiet or self.now >= member.due):
            return
        member.is_woken = False
        replica = member.live
        replica.step()
        member.due = replica.next_wakeup()
        self._note_leader(name)

    def _guarded(self, name: str, action: Callable[[], None], *, wakes: bool = True) -> None:
        self.members[name].is_woken |= wakes
        try:
            action()
        except PowerLost:
            self.kill(name, power=True)
            self.at(self.now + self.rng.uniform(0.1, 1.0), lambda: self.restart(name))

    def restart(self, name: str) -> None:
        if self.members[name].replica is None:
            self.start(name)

    def _expire(self) -> None:
        due = [waiting for waiting in self.waiting if waiting.deadline <= self.now]
        self.waiting = [w for w in self.waiting if w.deadline > self.now and not w.is_settled]
        for waiting in due:
            waiting.give_up("no answer")
        if self.stale_reads:
            raise Violation(
                f"a linearizable read missed acknowledged commands: {sorted(self.stale_reads[0])[:5]}"
            )

    def until(self, condition: Callable[[], bool], limit: float = 20.0) -> None:
        end = self.now + limit
        while not condition():
            if self.now > end:
                raise Violation(f"waited {limit} s in vain")
            self.run(TICK_S)

    # ---- judgement

    def judge(self) -> None:
        """Heal everything, wait for quiet, and check what was promised."""
        self.later = [entry for entry in self.later if entry[0] <= self.now + 1]
        for connection in self.connections.values():
            for end in connection.ends:
                connection.blocked[end], connection.slow[end] = False, 0.0
        for name in self.names:
            self.members[name].is_paused, self.members[name].disk.crash_in = False, None
            self.restart(name)
        self.until(lambda: self.leader() is not None)
        self.run(2.0)
        self._prove_progress()
        self.until(self._is_calm)
        self.run(2.0)
        self._check_histories()

    def seated(self) -> Members:
        """The members as the leader has them."""
        leader = self.leader()
        assert leader is not None, "nobody leads"
        return self.members[leader].live.members

    def _is_calm(self) -> bool:
        """No change of membership is under way: learners were promoted."""
        leader = self.leader()
        if leader is None:
            return False
        replica = self.members[leader].live
        return not replica.members.learners and replica.members.index <= replica.raftCommitIndex

    def _prove_progress(self) -> None:
        for _ in range(10):
            leader = self.leader()
            if leader is not None:
                last = self.propose(leader)
                self.run(1.0)
                if last in self.acked:
                    return
        raise Violation("no progress after healing")

    def _check_order(self) -> None:
        """Every answer is the machine's at the command's place in the log, and the places explain when it came.

        So whatever the machine is, registers, locks or claims: what it answers is linearizable.
        """
        places = {value: place for place, value in enumerate(self.history)}
        calls = list(self.reads)
        for asked, answered, value, result in self.writes:
            if result != places[value] + 1:
                raise Violation(f"{value} is number {places[value]} and was answered {result}")
            calls.append(Call(asked, answered, places[value] + 0.5))
        wrong = out_of_order(calls)
        if wrong is not None:
            raise Violation(f"not linearizable: {wrong[0]} was over before {wrong[1]} began")

    def _check_histories(self) -> None:
        applied = set(self.history)
        lost = sorted(value for value in self.acked if value not in applied)
        if lost:
            raise Violation(f"{len(lost)} acknowledged commands lost, first {lost[0]}")
        if len(applied) != len(self.history):
            raise Violation("a command was applied twice")
        self._check_order()
        wrong = applied & self.not_applied
        if wrong:
            raise Violation(f"answered as not applied, and applied: {sorted(wrong)[:5]}")
        seated = self.seated()
        for name in self.names:
            member = self.members[name]
            if seated.find(name) is None:
                if member.live.role in (LEADER, FOLLOWER, CANDIDATE):
                    raise Violation(f"{name} was removed and is a {member.live.role}")
                continue
            if member.live.members != seated:
                raise Violation(f"{name} takes {member.live.members} for the members, the leader {seated}")
            if member.machine.history != self.history:
                raise Violation(
                    f"{name} ends with {len(member.machine.history)} commands, not {len(self.history)}"
                )
            if not self.is_whole(name):
                raise Violation(f"{name} was never admitted")
