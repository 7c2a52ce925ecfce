"""What is done to the system, drawn from the seed: each fault has a beginning, a length, and a way to heal.

A plan is made before the run starts and is the same for the same seed, number of nodes and length. When it is
carried out "the leader" is whoever leads at that moment, so two runs of one plan are alike and not equal.
"""

import asyncio
import itertools
import random
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from coordination.verify.cluster import NotStarted, Part, ThrowAway
from coordination.verify.traffic import Api, Refused

QUIET_S = (2.0, 5.0)
SETTLE_S = 8.0
READY_TIMEOUT_S = 45.0
JOIN_TIMEOUT_S = 30.0

KINDS = (
    "kill",
    "kill-leader",
    "pause",
    "pause-leader",
    "partition",
    "partition-one-way",
    "restart-all",
    "transfer",
    "postgres",
    "redis",
    "web",
    "rolling",
    "disk-full",
    "membership",
)
_LENGTHS_S = {
    "kill": (0.0, 4.0),
    "kill-leader": (0.0, 4.0),
    "pause": (0.3, 6.0),
    "pause-leader": (0.3, 6.0),
    "partition": (1.0, 6.0),
    "partition-one-way": (1.0, 6.0),
    "restart-all": (0.0, 2.0),
    "transfer": (0.0, 0.0),
    "postgres": (0.0, 0.0),
    "redis": (0.0, 0.0),
    "web": (0.0, 1.0),
    "rolling": (0.0, 0.0),
    "disk-full": (2.0, 6.0),
    "membership": (0.0, 2.0),
}
_TAKES_S = {"rolling": 30.0, "membership": 15.0, "postgres": 5.0}
"""What is begun must be over before the traffic is, so that its recovery is seen."""
_WEIGHTS = {"kill-leader": 3, "pause-leader": 2, "partition": 2, "partition-one-way": 2, "rolling": 1}


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault to come: after a quiet time, for so long; `chance` decides its details when it happens."""

    kind: str
    quiet_s: float
    length_s: float
    chance: int


@dataclass(slots=True)
class Done:
    """A fault that happened, in nanoseconds of the history's clock. `skipped` says why it did not."""

    kind: str
    detail: str = ""
    begin_ns: int = 0
    end_ns: int = 0
    skipped: str = ""


def plan(seed: int, seconds: float, kinds: Sequence[str] = KINDS) -> list[Planned]:
    """The faults of a run: every kind comes once, in an order of its own, before any comes again by weight."""
    rng = random.Random(f"{seed} faults")
    found: list[Planned] = []
    left_s = seconds - SETTLE_S
    fresh: list[str] = []
    while kinds:
        if not found or not fresh:
            fresh = (
                list(kinds)
                if not found
                else rng.choices(list(kinds), [_WEIGHTS.get(kind, 1) for kind in kinds], k=len(kinds))
            )
            rng.shuffle(fresh)
        kind = fresh.pop()
        planned = Planned(kind, rng.uniform(*QUIET_S), rng.uniform(*_LENGTHS_S[kind]), rng.getrandbits(32))
        left_s -= planned.quiet_s + planned.length_s
        if left_s < 0:
            break
        found.append(planned)
    return found


@dataclass(slots=True)
class Faults:
    """Carries a plan out on a system."""

    system: ThrowAway
    api: Api
    on_done: Callable[[str], None]
    joined: int = 0
    done: list[Done] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    """What did not come back after it was started again."""

    async def run(self, planned: Sequence[Planned], ends_s: float) -> None:
        """One fault after the other until the plan or the time is over; everything is healed at the end."""
        for fault in planned:
            await self._watch(min(fault.quiet_s, ends_s - time.monotonic()))
            if time.monotonic() >= ends_s - fault.length_s - _TAKES_S.get(fault.kind, 0.0):
                continue
            await self._carry_out(fault)

    async def _watch(self, seconds: float) -> None:
        """A quiet time, in which a part that ended by itself is noted and started again."""
        ends_s = time.monotonic() + seconds
        while time.monotonic() < ends_s:
            for part in self.system.note_deaths():
                part.start()
            await asyncio.sleep(0.1)

    async def _carry_out(self, fault: Planned) -> None:
        rng = random.Random(fault.chance)
        done = Done(fault.kind, begin_ns=time.monotonic_ns())
        self.done.append(done)
        act: Callable[[Done, random.Random, float], Awaitable[None]] = {
            "kill": self._kill,
            "kill-leader": self._kill,
            "pause": self._pause,
            "pause-leader": self._pause,
            "partition": self._partition,
            "partition-one-way": self._partition,
            "restart-all": self._restart_all,
            "transfer": self._transfer,
            "postgres": self._postgres,
            "redis": self._redis,
            "web": self._web,
            "rolling": self._rolling,
            "disk-full": self._disk_full,
            "membership": self._membership,
        }[fault.kind]
        try:
            await act(done, rng, fault.length_s)
        except NotStarted as trouble:
            self.troubles.append(str(trouble))
        finally:
            done.end_ns = time.monotonic_ns()
            self.on_done(f"{done.kind}: {done.skipped or done.detail}")

    # ---- choosing

    async def _victim(self, done: Done, rng: random.Random) -> Part:
        nodes = self.system.nodes
        number = None
        if done.kind.endswith("-leader"):
            number = await asyncio.to_thread(self.system.leader)
        if number is None:
            number = rng.randrange(len(nodes))
        return nodes[number]

    # ---- the faults

    async def _kill(self, done: Done, rng: random.Random, length_s: float) -> None:
        node = await self._victim(done, rng)
        done.detail = f"kill -9 {node.name}, {length_s:.1f} s down"
        done.begin_ns = time.monotonic_ns()
        await node.end(signal.SIGKILL)
        await asyncio.sleep(length_s)
        node.start()

    async def _pause(self, done: Done, rng: random.Random, length_s: float) -> None:
        node = await self._victim(done, rng)
        done.detail = f"SIGSTOP {node.name} for {length_s:.1f} s"
        done.begin_ns = time.monotonic_ns()
        node.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(length_s)
        finally:
            node.send(signal.SIGCONT)

    async def _partition(self, done: Done, rng: random.Random, length_s: float) -> None:
        """One node or a minority against the rest; one way: what it sends, or what it is sent, is lost."""
        count = len(self.system.nodes)
        numbers = list(range(count))
        rng.shuffle(numbers)
        size = rng.randint(1, max(1, (count - 1) // 2))
        leader = await asyncio.to_thread(self.system.leader)
        if leader is not None and rng.random() < 0.5:
            numbers.remove(leader)
            numbers.insert(0, leader)
        apart, rest = numbers[:size], numbers[size:]
        outward = [(one, other) for one in apart for other in rest]
        inward = [(other, one) for one, other in outward]
        if done.kind == "partition":
            cuts, how = outward + inward, "from"
        elif rng.random() < 0.5:
            cuts, how = outward, "to"
        else:
            cuts, how = inward, "hears nothing of"
        names = [self.system.nodes[number].name for number in apart]
        others = [self.system.nodes[number].name for number in rest]
        done.detail = f"{'+'.join(names)} cut {how} {'+'.join(others)} for {length_s:.1f} s"
        done.begin_ns = time.monotonic_ns()
        try:
            for sender, receiver in cuts:
                await self.system.network.cut(sender, receiver)
            await asyncio.sleep(length_s)
        finally:
            await self.system.network.heal()

    async def _restart_all(self, done: Done, rng: random.Random, length_s: float) -> None:
        done.detail = f"kill -9 of every node, {length_s:.1f} s down"
        for node in self.system.nodes:
            node.is_meant_to_run = False
            node.send(signal.SIGKILL)
        for node in self.system.nodes:
            await node.end(signal.SIGKILL)
        await asyncio.sleep(length_s)
        for node in rng.sample(self.system.nodes, len(self.system.nodes)):
            node.start()

    async def _transfer(self, done: Done, rng: random.Random, length_s: float) -> None:
        leader = await asyncio.to_thread(self.system.leader)
        others = [node.name for number, node in enumerate(self.system.nodes) if number != leader]
        target = rng.choice(others)
        done.detail = f"leadership to {target}"
        try:
            answer = await self.api.ask(
                "POST", "cluster/transfer-leadership", {"node_id": target}, deadline_s=10.0
            )
            done.detail += f": {answer.status}"
        except Refused:
            done.detail += ": not taken"

    async def _postgres(self, done: Done, rng: random.Random, length_s: float) -> None:
        number = rng.choice([signal.SIGINT, signal.SIGQUIT, signal.SIGKILL])
        done.detail = f"PostgreSQL ended with {number.name} and started again"
        await self.system.restart_server("postgres", number)

    async def _redis(self, done: Done, rng: random.Random, length_s: float) -> None:
        number = rng.choice([signal.SIGTERM, signal.SIGKILL])
        done.detail = f"Redis ended with {number.name} and started again"
        await self.system.restart_server("redis", number)

    async def _web(self, done: Done, rng: random.Random, length_s: float) -> None:
        web = rng.choice(self.system.web)
        done.detail = f"kill -9 {web.name}, {length_s:.1f} s down"
        await web.end(signal.SIGKILL)
        await asyncio.sleep(length_s)
        web.start()

    async def _rolling(self, done: Done, rng: random.Random, length_s: float) -> None:
        """Every node and web process is stopped in order and started again, as an upgrade does it."""
        done.detail = "rolling restart of nodes and web, one after the other"
        for part in [*self.system.nodes, *self.system.web]:
            await part.end(signal.SIGTERM)
            part.start()
            await self.system.until(self.system.is_ready, READY_TIMEOUT_S, f"{part.name} after its restart")

    async def _disk_full(self, done: Done, rng: random.Random, length_s: float) -> None:
        """The last node's disk is full for a while; if it stops, that is its answer, and it is started again."""
        if self.system.small_disk is None:
            done.skipped = "no small file system may be mounted here"
            return
        node = self.system.nodes[-1]
        done.detail = f"the disk of {node.name} full for {length_s:.1f} s"
        node.is_meant_to_run = False
        await asyncio.to_thread(self.system.fill_small_disk)
        try:
            await asyncio.sleep(length_s)
        finally:
            await asyncio.to_thread(self.system.empty_small_disk)
        if not node.is_running:
            done.detail += "; it stopped and was started again"
            node.start()
        node.is_meant_to_run = True

    async def _membership(self, done: Done, rng: random.Random, length_s: float) -> None:
        """A node joins, stays a while, and is removed."""
        number = self.system.settings.nodes
        network = self.system.network
        await asyncio.to_thread(network.add, number)
        if hasattr(network, "serve"):
            await network.serve()
        self.joined += 1
        name = f"{self.system.member_name(number)}-{self.joined}"
        body = {"id": name, "address": network.address(number)}
        try:
            added = await self.api.ask("POST", "cluster/members", body, deadline_s=15.0)
        except Refused as refused:
            done.skipped = str(refused)
            return
        if not added.is_ok:
            done.skipped = f"POST cluster/members answers {added.status}: {_detail(added.body)}"
            return
        done.detail = f"{name} joined and was removed"
        spare = self.system.joining_part(number, name)
        spare.start()
        try:
            await self._await_member(spare, number)
            await asyncio.sleep(length_s)
        finally:
            try:
                removed = await self.api.ask("DELETE", f"cluster/members/{name}", deadline_s=JOIN_TIMEOUT_S)
                done.detail += f": {added.status}, {removed.status}"
            except Refused:
                done.detail += ": the removal was not answered"
            await spare.end(signal.SIGTERM)
            await asyncio.to_thread(self.system.forget_member, name)

    async def _await_member(self, spare: Part, number: int) -> None:
        """Wait until the new node has caught up, or the time is over."""
        ends_s = time.monotonic() + JOIN_TIMEOUT_S
        while time.monotonic() < ends_s and spare.is_running:
            if await asyncio.to_thread(self.system.has_caught_up, number):
                return
            await asyncio.sleep(0.2)


def _detail(body: object) -> str:
    return str(body.get("detail", ""))[:160] if isinstance(body, dict) else ""


def recoveries(
    done: Sequence[Done], successes_ns: Sequence[tuple[int, int]]
) -> list[tuple[float | None, float | None]]:
    """For each fault: seconds from its end to the first success of a call begun after it; and the longest time
    without any success from its beginning until then. None where nothing succeeded any more.
    """
    by_return = sorted(successes_ns, key=lambda one: one[1])
    found: list[tuple[float | None, float | None]] = []
    for fault in done:
        after = next((back for begun, back in by_return if begun >= fault.end_ns), None)
        if after is None:
            found.append((None, None))
            continue
        before = max((back for _, back in by_return if back < fault.begin_ns), default=fault.begin_ns)
        times = [before, *(back for _, back in by_return if fault.begin_ns <= back <= after)]
        longest = max((late - early for early, late in itertools.pairwise(times)), default=0)
        found.append(((after - fault.end_ns) / 1e9, longest / 1e9))
    return found
