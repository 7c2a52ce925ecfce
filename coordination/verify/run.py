"""One run from nothing to a verdict: against a throw-away cluster with faults, or beside a running system without."""

import asyncio
import contextlib
import hashlib
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from coordination.verify import promises, traffic, verdict
from coordination.verify.cluster import Build, NotStarted, Settings, ThrowAway
from coordination.verify.faults import KINDS, Faults, plan, recoveries
from coordination.verify.history import OPS, Operation, Seen, read
from coordination.verify.network import Namespaces, Proxies
from coordination.verify.promises import Finding, Record, Result
from coordination.verify.traffic import Api, Load, Names, Recorder, Refused, Traffic
from coordination.verify.verdict import Verdict

LEASE_S, HEARTBEAT_S = 6.0, 2.0
"""Of a throw-away cluster: short, so that leases end within a run."""
SNAPSHOT_INTERVAL_S = 10
HEAL_TIMEOUT_S = 60.0
DRAIN_TIMEOUT_S = 90.0
CONVERGE_TIMEOUT_S = 45.0
WATCH_TIMEOUT_S = 45.0
SLACK_S = 0.0
"""How much earlier than promised a lease or hold may end before it is called broken: see docs/verify.md."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is told."""

    base: Path
    seed: int
    seconds: float
    nodes: int = 3
    in_namespaces: bool = False
    kinds: Sequence[str] = KINDS
    build: Build = field(default_factory=Build)
    bad_nodes: int = 0
    load: Load = field(default_factory=Load)
    keep: bool = False


def _run_name(seed: int) -> str:
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{seed}"


# --- a throw-away cluster ------------------------------------------------------------------------


async def throw_away(options: Options, say: Say) -> Verdict:
    """Start a system, load it, hurt it, heal it, and judge what was recorded.

    Raises NotStarted, NetworkFailed, EmbeddedServerError and Refused where there is nothing to judge.
    """
    run = _run_name(options.seed)
    folder = options.base / run
    folder.mkdir(parents=True)
    settings = Settings(
        folder=folder,
        nodes=options.nodes,
        build=options.build,
        bad_nodes=options.bad_nodes,
        has_small_disk=options.in_namespaces and "disk-full" in options.kinds,
        environment={
            "SESSION_LEASE_TIMEOUT": f"{round(LEASE_S * 1000)}ms",
            "SESSION_HEARTBEAT_INTERVAL": f"{round(HEARTBEAT_S * 1000)}ms",
            "RAFT_SNAPSHOT_INTERVAL": f"{SNAPSHOT_INTERVAL_S}s",
        },
    )
    system = _system(settings, in_namespaces=options.in_namespaces)
    try:
        say(f"run {run}: seed {options.seed}, {options.nodes} nodes, network by {system.network.kind}")
        await system.start()
        say("the system is up; traffic begins")
        found = await _observe(options, run, system, say)
    finally:
        await system.close()
    if found.held and not options.keep:
        system.remove_data()
    return found


def _system(settings: Settings, *, in_namespaces: bool) -> ThrowAway:
    if in_namespaces:
        return ThrowAway(settings, Namespaces())
    network = Proxies()
    system = ThrowAway(settings, network)
    network.pids = system.pids
    return system


async def _observe(options: Options, run: str, system: ThrowAway, say: Say) -> Verdict:
    recorder = Recorder(system.folder / "history.jsonl")
    try:
        async with Api(system.urls, system.key) as api:
            load = Traffic(
                api,
                recorder,
                Names(run),
                options.load,
                options.seed,
                lease_s=LEASE_S,
                heartbeat_s=HEARTBEAT_S,
            )
            begin_ns = time.monotonic_ns()
            faults = Faults(system, api, on_done=lambda fault: say(f"  {_since(begin_ns)}  {fault}"))
            watching = _watch(load, 0)
            planned = plan(options.seed, options.seconds, options.kinds)
            await _under_load(load, faults.run(planned, time.monotonic() + options.seconds), options.seconds)
            say(f"  {_since(begin_ns)}  healed; working off what is left")
            seconds = (time.monotonic_ns() - begin_ns) / 1e9
            troubles = [*faults.troubles, *await _settle(system)]
            record, more = await _final(load, watching, after=0)
            converged = await _converged(system, load)
    finally:
        recorder.close()
    record = replace(record, operations=read(system.folder / "history.jsonl"))
    extra = [
        verdict.enough_traffic(record.operations, seconds),
        _in_the_end([*troubles, *more], len(faults.done)),
        converged,
        _listed("processes", "no process ends by itself", system.deaths, len(system.parts)),
    ]
    return _judged(
        record,
        extra,
        folder=system.folder,
        run=run,
        seed=options.seed,
        mode="throw-away",
        nodes=options.nodes,
        network=system.network.kind,
        seconds=seconds,
        faults=verdict.faults_of(faults.done, recoveries(faults.done, recorder.successes_ns), begin_ns),
    )


def _listed(check: str, promise: str, troubles: Sequence[str], looked_at: int) -> Result:
    return Result(check, promise, looked_at, tuple(Finding(check, "", trouble) for trouble in troubles))


def _in_the_end(troubles: Sequence[str], looked_at: int) -> Result:
    promise = "what was hurt comes back by itself, answers, and everything is worked off"
    return _listed("in the end", promise, troubles, looked_at)


def _since(begin_ns: int) -> str:
    return f"{(time.monotonic_ns() - begin_ns) / 1e9:6.1f} s"


def _watch(load: Traffic, after: int) -> list["asyncio.Task[None]"]:
    return [
        asyncio.ensure_future(
            (traffic.watch_stream if number % 2 else traffic.watch_pages)(
                load, f"watcher-{number + 1}", after, number
            )
        )
        for number in range(load.load.watchers)
    ]


async def _under_load(load: Traffic, meanwhile: Awaitable[None], seconds: float) -> None:
    """The traffic, for so long, while something else happens."""
    async with asyncio.TaskGroup() as group:
        for role in load.roles():
            group.create_task(_as_coroutine(role))
        ends_s = time.monotonic() + seconds
        try:
            await meanwhile
            await asyncio.sleep(max(0.0, ends_s - time.monotonic()))
        finally:
            load.stopping.set()


async def _as_coroutine(work: Awaitable[None]) -> None:
    await work


async def _settle(system: ThrowAway) -> list[str]:
    """Everything runs, hears everybody and knows one leader; what does not, in words."""
    await system.network.heal()
    system.note_deaths()
    for part in system.parts:
        part.send(signal.SIGCONT)
        if not part.is_running:
            part.start()
    try:
        await system.until(system.is_ready, HEAL_TIMEOUT_S, "a healed system")
        await system.until(
            system.is_whole, HEAL_TIMEOUT_S, "a cluster whose nodes all count in its majorities"
        )
    except NotStarted as trouble:
        return [str(trouble)]
    return []


async def _final(
    load: Traffic, watching: Sequence["asyncio.Task[None]"], *, after: int
) -> tuple[Record, list[str]]:
    """Work off what is left, and ask for everything once more; the record, and what went wrong with that."""
    troubles: list[str] = []
    final: dict[str, dict[str, Any]] | None = None
    events: list[Seen] | None = None
    try:
        if not await traffic.drain(load, DRAIN_TIMEOUT_S):
            troubles.append(f"{load.open_tasks} acknowledged tasks were not worked off in time")
        final = await traffic.all_tasks(load.api, load.names.task_type)
        events = await traffic.all_events(load.api, after)
        load.watch_until = events[-1].index if events else after
        await asyncio.wait(watching, timeout=WATCH_TIMEOUT_S)
    except Refused as trouble:
        troubles.append(str(trouble))
    finally:
        for watcher in watching:
            watcher.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
    until = load.watch_until or after
    troubles += [
        f"{name} was told of events up to {told_to}, and there are some up to {until}"
        for name, told_to in load.watched_to.items()
        if told_to < until
    ]
    record = Record(
        operations=(),
        lease_s=load.lease_s,
        slack_s=SLACK_S,
        final=final,
        events=events,
        watched=[seen for seen in load.seen if seen.index <= until],
        is_drained=True,
    )
    return record, troubles


async def _converged(system: ThrowAway, load: Traffic) -> Result:
    """After healing every node comes to the same place with the same bytes."""
    check, promise = "convergence", "after healing all nodes come to the same state, byte for byte"
    await _leave(load)
    seen: dict[tuple[int, int], dict[int, str]] = {}
    ends_s = time.monotonic() + CONVERGE_TIMEOUT_S
    looked_at = 0
    while time.monotonic() < ends_s:
        for number, (place, content) in (await asyncio.to_thread(system.states)).items():
            looked_at += 1
            seen.setdefault(place, {})[number] = hashlib.sha256(content).hexdigest()
            if len(set(seen[place].values())) > 1:
                where = f"revision {place[0]}, clock {place[1]} ms"
                detail = f"at {where} nodes differ: {_digests(system, seen[place])}"
                return Result(check, promise, looked_at, (Finding(check, "", detail),))
            if len(seen[place]) == system.settings.nodes:
                return Result(check, promise, looked_at)
        await asyncio.sleep(0.5)
    places = {system.member_name(number): place for place, nodes in seen.items() for number in nodes}
    detail = f"not within {CONVERGE_TIMEOUT_S:.0f} s; last seen at {places}"
    return Result(check, promise, looked_at, (Finding(check, "", detail),))


def _digests(system: ThrowAway, digests: dict[int, str]) -> str:
    return ", ".join(f"{system.member_name(number)} {digest[:12]}" for number, digest in digests.items())


async def _leave(load: Traffic) -> int:
    """Every session of the run says goodbye; how many did."""
    left = 0
    with contextlib.suppress(Refused):
        for name, token in load.live_sessions.items():
            gone = await load.api.ask("DELETE", f"sessions/{name}", {"lease_token": token}, deadline_s=10.0)
            left += gone.is_ok
    return left


# --- beside a running system ---------------------------------------------------------------------


async def against(url: str, key: str, options: Options, say: Say) -> Verdict:
    """The same traffic on names of its own, without faults; it cleans up after itself. Raises Refused."""
    run = _run_name(options.seed)
    folder = options.base / run
    folder.mkdir(parents=True)
    recorder = Recorder(folder / "history.jsonl")
    try:
        async with Api([url], key) as api:
            probe = await api.ask("GET", "cluster?consistency=linearizable", deadline_s=15.0)
            if not probe.is_ok:
                raise Refused(f"GET cluster answers {probe.status}: {probe.body}")
            say(f"run {run}: seed {options.seed}, against {url}")
            names = Names(run)
            interval_s = await _heartbeat_interval(api, names)
            load = Traffic(
                api, recorder, names, options.load, options.seed, lease_s=interval_s, heartbeat_s=interval_s
            )
            begin = probe.body["projected_index"]
            watching = _watch(load, begin)
            began_s = time.monotonic()
            try:
                await _under_load(load, asyncio.sleep(options.seconds), options.seconds)
                seconds = time.monotonic() - began_s
                record, troubles = await _final(load, watching, after=begin)
            finally:
                notes = await _clean_up(load)
    finally:
        recorder.close()
    record = replace(record, operations=read(folder / "history.jsonl"))
    return _judged(
        record,
        [verdict.enough_traffic(record.operations, seconds), _in_the_end(troubles, 0)],
        folder=folder,
        run=run,
        seed=options.seed,
        mode=f"against {url}",
        nodes=len(probe.body["members"]),
        network="the running system",
        seconds=seconds,
        faults=(),
        notes=notes,
    )


async def _heartbeat_interval(api: Api, names: Names) -> float:
    """A lease is longer than the interval of its heartbeats, so that long it can be relied on."""
    name = names.session("probe", 1)
    body = {"session_name": name, "tier": "worker", "provider": "claude"}
    made = await api.ask("POST", "sessions", body, deadline_s=15.0)
    if not made.is_ok:
        raise Refused(f"POST sessions answers {made.status}: {made.body}")
    await api.ask("GET", f"sessions/{name}?min_index={made.index}", deadline_s=15.0)
    gone = {"lease_token": made.body["lease_token"]}
    await api.ask("DELETE", f"sessions/{name}", gone, deadline_s=15.0)
    return float(made.body["heartbeat_interval_s"])


async def _clean_up(load: Traffic) -> list[str]:
    """Sessions leave; what a key without `admin` may not delete stays as rows of finished tasks, and is counted."""
    left = await _leave(load)
    rows = deleted = 0
    with contextlib.suppress(Refused):
        tasks = await traffic.all_tasks(load.api, load.names.task_type)
        rows = len(tasks)
        for task in tasks:
            gone = await load.api.ask("DELETE", f"tasks/{task}", deadline_s=10.0)
            deleted += gone.is_ok
            if gone.status == 403:
                break
    return [f"cleaned up: {left} sessions left, {deleted} of {rows} finished tasks deleted"]


# --- the judgement -------------------------------------------------------------------------------


def _judged(record: Record, extra: Sequence[Result], *, folder: Path, **about: Any) -> Verdict:
    """Check, and leave everything that was judged in the folder."""
    found = Verdict(
        folder=str(folder),
        counts=verdict.counted(record.operations),
        results=[*promises.check(record), *extra],
        **about,
    )
    _leave_record(folder, record, found)
    return found


def _leave_record(folder: Path, record: Record, found: Verdict) -> None:
    with (folder / "watchers.jsonl").open("wb") as lines:
        for seen in (*(record.events or ()), *record.watched):
            lines.write(msgspec.json.encode(seen) + b"\n")
    told = {"lease_s": record.lease_s, "slack_s": record.slack_s, "is_drained": record.is_drained}
    (folder / "final.json").write_bytes(msgspec.json.encode(told | {"tasks": record.final}))
    (folder / "verdict.json").write_text(verdict.as_json(found) + "\n")
    (folder / "verdict.txt").write_text(verdict.as_text(found) + "\n")


def recheck(folder: Path) -> Verdict:
    """Judge once more what an earlier run left. Raises HistoryDamaged and OSError."""
    operations = read(folder / "history.jsonl")
    told = _told(folder)
    record = Record(
        operations=operations,
        lease_s=told.get("lease_s", LEASE_S),
        slack_s=told.get("slack_s", SLACK_S),
        final=told.get("tasks"),
        is_drained=told.get("is_drained", False),
        **_seen(folder),
    )
    span_s = _span_s(operations)
    return Verdict(
        run=folder.name,
        seed=int(folder.name.rpartition("-")[2]) if folder.name.rpartition("-")[2].isdecimal() else 0,
        mode="checked again",
        nodes=0,
        network="none",
        seconds=span_s,
        folder=str(folder),
        counts=verdict.counted(operations),
        faults=(),
        results=[
            *promises.check(record),
            verdict.enough_traffic(operations, span_s, [op for op in OPS if _has(operations, op)]),
        ],
    )


def _has(operations: Sequence[Operation], op: str) -> bool:
    return any(one.op == op for one in operations)


def _told(folder: Path) -> dict[str, Any]:
    path = folder / "final.json"
    return msgspec.json.decode(path.read_bytes(), type=dict[str, Any]) if path.exists() else {}


def _seen(folder: Path) -> dict[str, Any]:
    path = folder / "watchers.jsonl"
    if not path.exists():
        return {}
    lines = [msgspec.json.decode(line, type=Seen) for line in path.read_bytes().splitlines()]
    return {
        "events": [seen for seen in lines if seen.watcher == "history"],
        "watched": [seen for seen in lines if seen.watcher != "history"],
    }


def _span_s(operations: Sequence[Operation]) -> float:
    if not operations:
        return 0.0
    last = max(one.return_ns or one.invoke_ns for one in operations)
    return (last - operations[0].invoke_ns) / 1e9
