"""Clients of the API as many small processes: each calls one thing after the other and writes down what it was told.

What is asked comes from one seed; in which order the calls of different processes meet is the machine's business.
Half of the processes repeat a call whose answer was lost, with the same Idempotency-Key, as the API invites them to;
the others leave it unknown. Either way an unknown outcome ends the process, and its work goes on under a new number.
"""

import asyncio
import hashlib
import json
import random
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import aiohttp
import msgspec

from coordination.verify.history import Operation, Seen, encode

ATTEMPT_TIMEOUT_S = 8.0
OPERATION_DEADLINE_S = 20.0
RETRY_PAUSE_S = 0.25
PAGE = 500
EVENTS_MAX = 2_000_000
STEPS_A_PAGE_MAX = 10_000
WATCH_PAUSE_S = 0.3
STREAM_READ_S = 40.0
CLAIM_WAIT_S = 1.0
MISTAKES_APART_S = 20.0
"""A session that lets three claims in a row expire is failed by the cluster, so a worker's mistakes keep a distance."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call was told: status, body, and the revision it is about."""

    status: int
    body: Any
    index: int

    @property
    def is_ok(self) -> bool:
        """Whether it was done."""
        return 200 <= self.status < 300


class NotSent(Exception):
    """Nobody listened: the call never left."""


class Refused(Exception):
    """The system under test answered a call that prepares or inspects with something else than it should."""


class Api:
    """The HTTP API at one or more addresses. A call goes to one of them; the next attempt to another."""

    def __init__(self, urls: list[str], key: str) -> None:
        self._urls = [f"{url.rstrip('/')}/api/v1/" for url in urls]
        self._key = key
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0, force_close=False)
        self._session = aiohttp.ClientSession(
            connector=connector, headers={"Authorization": f"Bearer {self._key}"}, trust_env=False
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._session is not None:
            await self._session.close()

    @property
    def count(self) -> int:
        """How many addresses there are."""
        return len(self._urls)

    async def attempt(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        at: int = 0,
        idempotency_key: str = "",
        timeout_s: float = ATTEMPT_TIMEOUT_S,
    ) -> Answer | None:
        """One request to the address number `at`; None where the outcome is unknown. Raises NotSent."""
        assert self._session is not None, "use it as a context manager"
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        try:
            async with self._session.request(
                method,
                self._urls[at % len(self._urls)] + path,
                json=body,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as response:
                content = await response.read()
                index = int(response.headers.get("X-Raft-Index") or 0)
                return _understood(response.status, content, index)
        except aiohttp.ClientConnectorError as error:
            raise NotSent(str(error)) from error
        except (aiohttp.ClientError, TimeoutError):
            return None

    async def events(self, after: int, at: int) -> "aiohttp.ClientResponse":
        """The live stream of events after an index; to be closed. Raises ClientError and TimeoutError."""
        assert self._session is not None
        return await self._session.get(
            f"{self._urls[at % len(self._urls)]}events",
            headers={"Accept": "text/event-stream", "Last-Event-ID": str(after)},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=STREAM_READ_S),
        )

    async def ask(self, method: str, path: str, body: Any = None, *, deadline_s: float = 60.0) -> Answer:
        """Ask until there is an answer below 500, of those that prepare and inspect. Raises Refused."""
        ends_s, at, key = time.monotonic() + deadline_s, 0, uuid.uuid4().hex if method != "GET" else ""
        answer: Answer | None = None
        while time.monotonic() < ends_s:
            try:
                answer = await self.attempt(method, path, body, at=at, idempotency_key=key)
            except NotSent:
                answer = None
            if answer is not None and answer.status < 500 and answer.status != 429:
                return answer
            at += 1
            await asyncio.sleep(RETRY_PAUSE_S)
        raise Refused(f"{method} {path}: no answer within {deadline_s:.0f} s (the last one: {answer})")


def _understood(status: int, content: bytes, index: int) -> Answer | None:
    """The answer, or None where it leaves open whether something was done."""
    try:
        body = msgspec.json.decode(content) if content else None
    except msgspec.MsgspecError:
        return None
    if status < 500 and status != 408:
        return Answer(status, body, index)
    is_certain = status == 503 and isinstance(body, dict) and _slug(body) == "no-leader"
    return Answer(status, body, index) if is_certain else None


def _slug(body: dict[str, Any]) -> str:
    return str(body.get("type", "")).rpartition("/")[2]


class Recorder:
    """Writes the history as it happens. What has no answer when it closes is written as unknown."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._pending: dict[int, Operation] = {}
        self._processes = 0
        self.operations: list[Operation] = []
        self.successes_ns: list[tuple[int, int]] = []
        self.not_sent = 0

    def process(self) -> int:
        """The number of a new process."""
        self._processes += 1
        return self._processes

    def invoke(self, process: int, op: str, key: str | None, body: dict[str, Any]) -> Operation:
        """An operation begins now."""
        begun = Operation(
            process=process,
            op=op,
            key=key,
            input=body,
            output=None,
            invoke_ns=time.monotonic_ns(),
            return_ns=None,
        )
        self._pending[id(begun)] = begun
        return begun

    def forget(self, begun: Operation) -> None:
        """It never left."""
        del self._pending[id(begun)]
        self.not_sent += 1

    def finish(self, begun: Operation, key: str | None, output: dict[str, Any] | None) -> Operation:
        """It is over, with an answer or without."""
        del self._pending[id(begun)]
        now_ns = time.monotonic_ns() if output is not None else None
        done = Operation(
            process=begun.process,
            op=begun.op,
            key=key,
            input=begun.input,
            output=output,
            invoke_ns=begun.invoke_ns,
            return_ns=now_ns,
        )
        if done.is_ok and now_ns is not None:
            self.successes_ns.append((done.invoke_ns, now_ns))
        self._keep(done)
        return done

    def _keep(self, done: Operation) -> None:
        self.operations.append(done)
        self._file.write(encode(done))

    def close(self) -> None:
        """Write what is pending as unknown, and close."""
        for begun in list(self._pending.values()):
            self._keep(begun)
        self._pending.clear()
        self._file.close()


@dataclass(slots=True)
class Names:
    """What everything of a run is called, so that it meets nothing of a running system."""

    run: str

    @property
    def capability(self) -> str:
        """Asked for by the run's tasks and had by its sessions alone."""
        return f"verify-{self.run}"

    def lock(self, number: int) -> str:
        """A lock's key."""
        return f"verify/{self.run}/lock-{number}"

    def session(self, role: str, number: int) -> str:
        """A session's name."""
        return f"verify-{self.run}-{role}-{number}"

    def task(self, number: int) -> str:
        """A task's idempotency_key."""
        return f"verify-{self.run}-task-{number}"

    @property
    def task_type(self) -> str:
        """The type of the run's tasks."""
        return f"verify.{self.run}"


@dataclass(frozen=True, slots=True)
class Load:
    """How many processes of each kind, how long they think, and how long what they ask for lasts."""

    registers: int = 2
    writers: int = 2
    readers: int = 2
    locks: int = 2
    owners: int = 3
    sessions: int = 2
    contenders: int = 2
    enqueuers: int = 2
    workers: int = 4
    watchers: int = 2
    think_s: float = 0.06
    lock_ttl_s: float = 3.0
    claim_ttl_s: float = 3.0
    generation_s: float = 30.0
    open_tasks_max: int = 60


@dataclass(slots=True)
class Traffic:
    """One run's traffic: what it knows of the system, and the switch that ends it."""

    api: Api
    recorder: Recorder
    names: Names
    load: Load
    seed: int
    lease_s: float = 30.0
    heartbeat_s: float = 10.0
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    seen: list[Seen] = field(default_factory=list)
    watched_to: dict[str, int] = field(default_factory=dict)
    live_sessions: dict[str, int] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    watch_until: int | None = None
    _counts: Counter[str] = field(default_factory=Counter)
    _open: set[str] = field(default_factory=set)
    _completed: set[str] = field(default_factory=set)

    def next(self, what: str) -> int:
        """1, 2, 3, … for each kind of thing."""
        self._counts[what] += 1
        return self._counts[what]

    @property
    def is_over(self) -> bool:
        """Whether the traffic shall end."""
        return self.stopping.is_set()

    async def pause(self, seconds: float) -> None:
        """Wait so long, or until the end."""
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
        except TimeoutError:
            return

    def client(self, name: str) -> "Client":
        """A process of its own with a chance of its own."""
        return Client(self, random.Random(f"{self.seed} {name}"))

    def roles(self) -> list[Awaitable[None]]:
        """Every process of the load, to be run side by side."""
        load = self.load
        found: list[Awaitable[None]] = []
        for register in range(load.registers):
            shared = Register(self, register)
            found += [shared.write(self.client(f"w{register}.{n}")) for n in range(load.writers)]
            found += [shared.read(self.client(f"r{register}.{n}")) for n in range(load.readers)]
        for lock in range(load.locks):
            found += [hold_locks(self.client(f"l{lock}.{n}"), lock) for n in range(load.owners)]
        for session in range(load.sessions):
            found += [contend(self.client(f"s{session}.{n}"), session) for n in range(load.contenders)]
        found += [enqueue(self.client(f"e{n}")) for n in range(load.enqueuers)]
        found += [work(self.client(f"k{n}")) for n in range(load.workers)]
        return found

    def note_enqueued(self, task: str) -> None:
        """A task is there."""
        if task not in self._completed:
            self._open.add(task)

    def note_completed(self, task: str) -> None:
        """A task is over."""
        self._completed.add(task)
        self._open.discard(task)

    @property
    def open_tasks(self) -> int:
        """Tasks that were acknowledged and whose completion was not."""
        return len(self._open)


class Client:
    """One process."""

    def __init__(self, traffic: Traffic, rng: random.Random) -> None:
        self.traffic, self.rng = traffic, rng
        self._repeats = rng.random() < 0.5
        self._at = rng.randrange(traffic.api.count)
        self.number = traffic.recorder.process()

    def is_over(self) -> bool:
        """Whether it shall end."""
        return self.traffic.is_over

    async def think(self, times: float = 1.0) -> None:
        """Pause between two calls."""
        await self.traffic.pause(self.rng.uniform(0.2, 1.8) * self.traffic.load.think_s * times)

    async def do(
        self,
        op: str,
        key: str | None,
        method: str,
        path: str,
        body: Any = None,
        *,
        shown: dict[str, Any] | None = None,
        told: Callable[[Answer], dict[str, Any]] | None = None,
        key_of: Callable[[Answer], str | None] | None = None,
        timeout_s: float = ATTEMPT_TIMEOUT_S,
    ) -> Answer | None:
        """One operation of the history: invoked, asked, once or until it is answered, and written down.

        `shown` is the input where it is not the body, `told` makes the output of the answer, `key_of` the key where
        it is learned from the answer. None where the outcome is unknown or the call never left.
        """
        recorder = self.traffic.recorder
        begun = recorder.invoke(self.number, op, key, body if shown is None else shown)
        try:
            answer, was_sent = await self._asked(method, path, body, timeout_s, certain=op != "task.enqueue")
        except asyncio.CancelledError:
            recorder.finish(begun, key, None)
            raise
        if not was_sent:
            recorder.forget(begun)
            self._at += 1
            await self.traffic.pause(RETRY_PAUSE_S)
            return None
        output = None
        if answer is not None:
            output = {"status": answer.status} | (told or _fields)(answer)
            key = key_of(answer) if key_of is not None else key
        recorder.finish(begun, key, output)
        self.traffic.outcomes[f"{op} {answer.status if answer else 'unknown'}"] += 1
        if answer is None:
            self.number = recorder.process()
            self._at += 1
        elif answer.status >= 429:
            self._at += 1
            await self.traffic.pause(RETRY_PAUSE_S)
        return answer

    async def _asked(
        self, method: str, path: str, body: Any, timeout_s: float, *, certain: bool
    ) -> tuple[Answer | None, bool]:
        """The answer, None where it stays unknown, and whether any attempt left.

        `certain`: a 503 `no-leader` says that nothing was done. Of a task that is enqueued the row is stored first
        and offered to the log again and again, so there it says nothing.
        """
        idempotency_key = self.rng.randbytes(12).hex() if method != "GET" else ""
        ends_s = time.monotonic() + OPERATION_DEADLINE_S
        is_unknown = was_sent = False
        while True:
            try:
                answer = await self.traffic.api.attempt(
                    method, path, body, at=self._at, idempotency_key=idempotency_key, timeout_s=timeout_s
                )
                was_sent = True
            except NotSent:
                answer = None
                if not was_sent:
                    return None, False
            else:
                if answer is not None and answer.status < 429:
                    return answer, True
                is_unknown = is_unknown or answer is None or (answer.status == 503 and not certain)
            if not self._repeats or time.monotonic() > ends_s:
                return (None if is_unknown else answer), True
            self._at += 1
            await asyncio.sleep(RETRY_PAUSE_S)


def _fields(answer: Answer) -> dict[str, Any]:
    """The body's fields, without a `status` of its own, which is shown as `state` as in the API's batches."""
    if not isinstance(answer.body, dict):
        return {}
    body = {name: value for name, value in answer.body.items() if name != "status"}
    if "status" in answer.body and answer.is_ok:
        body["state"] = answer.body["status"]
    return body


# --- registers -----------------------------------------------------------------------------------


class Register:
    """A session's `metadata.value`, written with PATCH and read with a linearizable GET.

    The session sends no heartbeats: what it is stays when its lease is over, and its owner may still change it.
    A register serves for a while, then the next one takes its place, so that the search stays short.
    """

    def __init__(self, traffic: Traffic, number: int) -> None:
        self._traffic, self._number = traffic, number
        self._name, self._until_s = "", 0.0
        self._turn = asyncio.Lock()

    async def _current(self) -> str:
        """The register that serves now; makes the next one where its time is over. Empty at the end."""
        async with self._turn:
            while time.monotonic() >= self._until_s and not self._traffic.is_over:
                await self._make_next()
            return self._name

    async def _make_next(self) -> None:
        api, names = self._traffic.api, self._traffic.names
        name = names.session(f"register-{self._number}", self._traffic.next("register"))
        body = {"session_name": name, "tier": "worker", "provider": "claude"}
        try:
            made = await api.ask("POST", "sessions", body, deadline_s=15.0)
            if not made.is_ok:
                return
            await api.ask("GET", f"sessions/{name}?min_index={made.index}", deadline_s=15.0)
        except Refused:
            return
        self._name = name
        self._until_s = time.monotonic() + self._traffic.load.generation_s

    async def write(self, client: Client) -> None:
        """Write one value after another, no value twice."""
        while not client.is_over():
            name = await self._current()
            value = self._traffic.next("value")
            if name and not client.is_over():
                await client.do(
                    "register.write",
                    name,
                    "PATCH",
                    f"sessions/{name}",
                    {"metadata": {"value": value}},
                    shown={"value": value},
                    told=_refusal,
                )
            await client.think()

    async def read(self, client: Client) -> None:
        """Read again and again."""
        while not client.is_over():
            name = await self._current()
            if name and not client.is_over():
                await client.do(
                    "register.read",
                    name,
                    "GET",
                    f"sessions/{name}?consistency=linearizable",
                    shown={},
                    told=_value,
                )
            await client.think()


def _value(answer: Answer) -> dict[str, Any]:
    return {"value": answer.body["metadata"].get("value")} if answer.is_ok else _refusal(answer)


def _refusal(answer: Answer) -> dict[str, Any]:
    return {} if answer.is_ok else _fields(answer)


# --- locks ---------------------------------------------------------------------------------------


async def hold_locks(client: Client, number: int) -> None:
    """Take the lock, keep it a while, give it back; sometimes leave it to expire, or come back too late."""
    traffic, rng = client.traffic, client.rng
    ttl_s = traffic.load.lock_ttl_s
    while not client.is_over():
        owner = f"owner-{client.number}"
        key = traffic.names.lock(number)
        path = f"locks/{quote(key, safe='')}"
        body = {"owner_id": owner, "ttl_s": ttl_s, "wait_s": rng.choice([0, 0, 1.0])}
        taken = await client.do("lock.acquire", key, "POST", f"{path}/acquire", body)
        if taken is None or not taken.is_ok:
            await client.think(2)
            continue
        holder = {"owner_id": owner, "fencing_token": taken.body["fencing_token"]}
        for _ in range(rng.choice([0, 0, 1, 2])):
            await client.think()
            renewed = await client.do("lock.renew", key, "POST", f"{path}/renew", holder | {"ttl_s": ttl_s})
            if renewed is None or not renewed.is_ok:
                break
        fate = rng.random()
        if fate < 0.08:
            continue  # left to expire; this owner may ask again and renew it
        if fate < 0.14:
            await traffic.pause(ttl_s * rng.uniform(0.9, 2.0))
        else:
            await client.think()
        if f"owner-{client.number}" == owner:
            await client.do("lock.release", key, "POST", f"{path}/release", holder)


# --- sessions ------------------------------------------------------------------------------------


def _session_body(traffic: Traffic, name: str) -> dict[str, Any]:
    return {
        "session_name": name,
        "tier": "worker",
        "provider": "claude",
        "capabilities": [traffic.names.capability],
        "max_concurrent_tasks": 5,
    }


async def _register(client: Client, name: str, lease_token: int = 0) -> int:
    """A lease token, or 0."""
    body = _session_body(client.traffic, name) | ({"lease_token": lease_token} if lease_token else {})
    answer = await client.do("session.register", name, "POST", "sessions", body)
    if answer is None or not answer.is_ok:
        return 0
    client.traffic.live_sessions[name] = answer.body["lease_token"]
    return int(answer.body["lease_token"])


async def _beat(client: Client, name: str, token: int) -> Answer | None:
    return await client.do(
        "session.heartbeat", name, "POST", f"sessions/{name}/heartbeat", {"lease_token": token}
    )


async def contend(client: Client, number: int) -> None:
    """Several want one name: one has the lease, falls silent in the end, and the next takes over."""
    traffic, rng = client.traffic, client.rng
    name = traffic.names.session("shared", number)
    old = 0
    while not client.is_over():
        token = await _register(client, name)
        if not token:
            if old and rng.random() < 0.3:
                await _beat(client, name, old)  # from a lease that may be somebody else's by now
            await traffic.pause(rng.uniform(0.2, 0.8))
            continue
        for _ in range(rng.randint(2, 8)):
            await traffic.pause(traffic.lease_s * rng.uniform(0.1, 0.6))
            if client.is_over():
                return
            if rng.random() < 0.15:
                await _register(client, name, token)
            beaten = await _beat(client, name, token)
            if beaten is not None and not beaten.is_ok and beaten.status < 429:
                break
        old = token


# --- tasks ---------------------------------------------------------------------------------------


async def enqueue(client: Client) -> None:
    """Enqueue task after task, a few of them twice, while not too many are open."""
    traffic, rng = client.traffic, client.rng
    while not client.is_over():
        if traffic.open_tasks >= traffic.load.open_tasks_max:
            await traffic.pause(0.2)
            continue
        name = traffic.names.task(traffic.next("task"))
        body = {
            "idempotency_key": name,
            "task_type": traffic.names.task_type,
            "task_data": {"name": name},
            "priority": rng.randint(0, 3),
            "required_capabilities": [traffic.names.capability],
            "max_retries": 100,
            "claim_ttl_s": traffic.load.claim_ttl_s,
        }
        answer = await _enqueue(client, body)
        if answer is None or rng.random() < 0.1:
            await client.think()
            await _enqueue(client, body)
        await client.think(2)


async def _enqueue(client: Client, body: dict[str, Any]) -> Answer | None:
    answer = await client.do(
        "task.enqueue",
        body["idempotency_key"],
        "POST",
        "tasks",
        body,
        key_of=lambda told: told.body["id"] if told.is_ok else body["idempotency_key"],
    )
    if answer is not None and answer.is_ok:
        client.traffic.note_enqueued(answer.body["id"])
    return answer


async def work(client: Client) -> None:
    """Register, claim, complete; heartbeat in time; now and then let a claim expire, or come back too late."""
    traffic = client.traffic
    while not client.is_over():
        name = traffic.names.session("worker", traffic.next("worker"))
        token = await _register(client, name)
        if token:
            await _work_as(client, name, token)
        else:
            await client.think(4)


async def _work_as(client: Client, name: str, token: int) -> None:
    """Work as one session until it is no longer one, or an outcome is unknown."""
    traffic, rng = client.traffic, client.rng
    beaten_s, erred_s = time.monotonic(), time.monotonic()
    number = client.number
    while not client.is_over() and client.number == number:
        if time.monotonic() - beaten_s > traffic.heartbeat_s * 0.8:
            beaten_s = time.monotonic()
            beaten = await _beat(client, name, token)
            if beaten is not None and not beaten.is_ok and beaten.status < 429:
                return
        claimed = await _claim(client, name, token)
        if claimed is None:
            continue
        if not claimed.is_ok:
            if claimed.status < 429:
                return
            continue
        if not claimed.body["tasks"]:
            if claimed.body.get("reason") != "nothing_pending":
                return
            continue
        task = claimed.body["tasks"][0]
        may_err = time.monotonic() - erred_s > MISTAKES_APART_S
        fate = rng.random()
        if may_err and fate < 0.3:
            erred_s = time.monotonic()
            if fate < 0.15:
                continue  # forgotten: its time runs out and another gets it
            await traffic.pause(traffic.load.claim_ttl_s * rng.uniform(0.8, 2.5))
        else:
            await client.think()
        await _complete(client, task["id"], task["claim_token"])


async def _claim(client: Client, name: str, token: int) -> Answer | None:
    body = {"session_name": name, "lease_token": token, "max": 1, "wait_s": CLAIM_WAIT_S}
    return await client.do(
        "task.claim",
        None,
        "POST",
        "tasks/claim",
        body,
        key_of=_claimed_task,
        timeout_s=ATTEMPT_TIMEOUT_S + CLAIM_WAIT_S,
    )


def _claimed_task(answer: Answer) -> str | None:
    tasks = answer.body.get("tasks") if isinstance(answer.body, dict) else None
    return tasks[0]["id"] if tasks else None


async def _complete(client: Client, task: str, token: int) -> None:
    body = {"claim_token": token, "result": {"by": client.number}}
    answer = await client.do("task.complete", task, "POST", f"tasks/{task}/complete", body)
    if answer is not None and answer.is_ok:
        client.traffic.note_completed(task)


async def drain(traffic: Traffic, deadline_s: float) -> bool:
    """After the faults: work off every acknowledged task, as one process. Whether that was done in time."""
    client = traffic.client("drain")
    traffic.stopping.clear()
    ends_s = time.monotonic() + deadline_s
    name, token, beaten_s = "", 0, 0.0
    while traffic.open_tasks and time.monotonic() < ends_s:
        if not token:
            name = traffic.names.session("drain", traffic.next("drain"))
            token, beaten_s = await _register(client, name), time.monotonic()
            continue
        if time.monotonic() - beaten_s > traffic.heartbeat_s * 0.8:
            beaten_s = time.monotonic()
            beaten = await _beat(client, name, token)
            if beaten is None or not beaten.is_ok:
                token = 0
                continue
        claimed = await _claim(client, name, token)
        if claimed is not None and claimed.is_ok and claimed.body["tasks"]:
            task = claimed.body["tasks"][0]
            await _complete(client, task["id"], task["claim_token"])
        elif claimed is None or not claimed.is_ok:
            token = 0
        else:
            await _settle_open(traffic)
    traffic.stopping.set()
    return not traffic.open_tasks


async def _settle_open(traffic: Traffic) -> None:
    """A completion whose answer was lost may have been done: ask for what is left."""
    for task in list(traffic._open):  # noqa: SLF001  the same module
        try:
            found = await traffic.api.ask("GET", f"tasks/{task}?consistency=linearizable", deadline_s=15.0)
        except Refused:
            return
        if found.is_ok and found.body["status"] == "completed":
            traffic.note_completed(task)


# --- events --------------------------------------------------------------------------------------


async def watch_pages(traffic: Traffic, name: str, after: int, at: int) -> None:
    """A watcher that asks for page after page, until it has been told everything up to `watch_until`."""
    traffic.watched_to[name] = after
    while not _has_seen_all(traffic, name):
        answer = None
        try:
            path = f"events?after_index={traffic.watched_to[name]}&limit={PAGE}"
            answer = await traffic.api.attempt("GET", path, at=at)
        except NotSent:
            at += 1
        if answer is None or not answer.is_ok:
            await asyncio.sleep(WATCH_PAUSE_S)
            continue
        _note(traffic, name, answer.body["results"])
        traffic.watched_to[name] = max(traffic.watched_to[name], answer.body["last_index"])
        if answer.body["next"] is None:
            await asyncio.sleep(WATCH_PAUSE_S)


async def watch_stream(traffic: Traffic, name: str, after: int, at: int) -> None:
    """A watcher on the live stream, which goes on after its last event when the connection is lost."""
    traffic.watched_to[name] = after
    while not _has_seen_all(traffic, name):
        at += 1
        try:
            response = await traffic.api.events(traffic.watched_to[name], at)
            async with response:
                await _read_stream(traffic, name, response)
        except (aiohttp.ClientError, TimeoutError):
            await asyncio.sleep(WATCH_PAUSE_S)


async def _read_stream(traffic: Traffic, name: str, response: aiohttp.ClientResponse) -> None:
    """Blocks end with an empty line. Events of one index may come in several reads, so an index counts as seen
    when the next one begins: going on after it would leave the rest of it out.
    """
    if response.status != 200:
        await asyncio.sleep(WATCH_PAUSE_S)
        return
    waiting: list[dict[str, Any]] = []
    reading = asyncio.ensure_future(response.content.readline())
    try:
        while not _has_seen_all(traffic, name):
            await asyncio.wait({reading}, timeout=1.0)
            if not reading.done():
                _flush(traffic, name, waiting)
                continue
            line = reading.result()
            if not line:
                return
            reading = asyncio.ensure_future(response.content.readline())
            if line.startswith(b"data: "):
                event = json.loads(line[6:])
                if waiting and event["index"] != waiting[0]["index"]:
                    _flush(traffic, name, waiting)
                waiting.append(event)
    finally:
        reading.cancel()


def _flush(traffic: Traffic, name: str, waiting: list[dict[str, Any]]) -> None:
    if waiting:
        _note(traffic, name, waiting)
        traffic.watched_to[name] = waiting[-1]["index"]
        waiting.clear()


def _has_seen_all(traffic: Traffic, name: str) -> bool:
    return traffic.watch_until is not None and traffic.watched_to[name] >= traffic.watch_until


def _note(traffic: Traffic, name: str, events: list[dict[str, Any]]) -> None:
    if len(traffic.seen) < EVENTS_MAX:
        traffic.seen.extend(seen_of(name, event) for event in events)


def seen_of(name: str, event: dict[str, Any]) -> Seen:
    """One event as a watcher was given it."""
    content = json.dumps(event, sort_keys=True).encode()
    return Seen(
        watcher=name,
        index=event["index"],
        sequence=event["sequence"],
        kind=event["kind"],
        subject=event["subject"],
        digest=hashlib.sha256(content).hexdigest()[:16],
    )


async def all_events(api: Api, after: int) -> list[Seen]:
    """The whole history after an index, as it is now. Raises Refused."""
    found: list[Seen] = []
    fresh = "&consistency=linearizable"
    for _ in range(STEPS_A_PAGE_MAX):
        answer = await api.ask("GET", f"events?after_index={after}&limit={PAGE}{fresh}")
        if not answer.is_ok:
            raise Refused(f"GET events: {answer.status} {answer.body}")
        found.extend(seen_of("history", event) for event in answer.body["results"])
        after, fresh = answer.body["last_index"], ""
        if answer.body["next"] is None:
            return found
    raise Refused(f"more than {STEPS_A_PAGE_MAX} pages of events")


async def all_tasks(api: Api, task_type: str) -> dict[str, dict[str, Any]]:
    """The run's tasks by id, as they are now. Raises Refused."""
    found: dict[str, dict[str, Any]] = {}
    path = f"tasks?task_type={task_type}&limit={PAGE}&consistency=linearizable"
    for _ in range(STEPS_A_PAGE_MAX):
        answer = await api.ask("GET", path)
        if not answer.is_ok:
            raise Refused(f"GET tasks: {answer.status} {answer.body}")
        for row in answer.body["results"]:
            found[row["id"]] = {"status": row["status"], "idempotency_key": row["idempotency_key"]}
        if answer.body["next"] is None:
            return found
        path = answer.body["next"].partition("/api/v1/")[2]
    raise Refused(f"more than {STEPS_A_PAGE_MAX} pages of tasks")
