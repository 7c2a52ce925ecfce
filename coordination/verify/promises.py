"""What the API promises, each as a check of a recorded history. Pure: the same history gives the same findings.

An operation took effect at one moment between its invocation and its return. So one that returned before another
was invoked came before it; and a hold granted or renewed for `ttl_s` lasts at least that long from the *invocation*
of the call that granted it, by the machine's clock. That clock never runs ahead of a second that passed by more
than the time between two ticks, which every deadline has on top; `slack_s` forgives a leader whose own tick came late.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from coordination.verify.history import NS_PER_S, Operation, Seen, by_key, overlapping_processes
from coordination.verify.linearizability import STEPS_MAX, judge

FINDINGS_MAX = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """A promise that was broken (or could not be judged): where, how, and the operations that show it."""

    check: str
    key: str
    detail: str
    operations: tuple[Operation, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """One check: how much it looked at, and what it found; it held where it found nothing."""

    check: str
    promise: str
    looked_at: int
    findings: tuple[Finding, ...] = ()

    @property
    def held(self) -> bool:
        """Whether the promise was kept."""
        return not self.findings


@dataclass(frozen=True, slots=True)
class Record:
    """All that was recorded of a run.

    `lease_s` is how long a lease lasts after a heartbeat; `final` the tasks as the API told them after everything
    had healed, by id, or None where nobody asked; `events` the whole history of events from where the watchers
    began, or None; `tag` is in the name of everything the run owns.
    """

    operations: Sequence[Operation]
    lease_s: float
    slack_s: float = 0.0
    final: Mapping[str, Mapping[str, Any]] | None = None
    events: Sequence[Seen] | None = None
    watched: Sequence[Seen] = ()
    is_drained: bool = False


@dataclass(slots=True)
class _Findings:
    """Gathers the findings of one check; beyond the bound they are only counted."""

    check: str
    found: list[Finding] = field(default_factory=list)
    more: int = 0

    def add(self, key: str, detail: str, *operations: Operation) -> None:
        if len(self.found) < FINDINGS_MAX:
            self.found.append(Finding(self.check, key, detail, operations))
        else:
            self.more += 1

    def result(self, promise: str, looked_at: int) -> Result:
        found = self.found
        if self.more:
            found = [*found, Finding(self.check, "", f"and {self.more} more")]
        return Result(self.check, promise, looked_at, tuple(found))


def check(record: Record, *, steps_max: int = STEPS_MAX) -> list[Result]:
    """Every check, in the order of the page that describes them."""
    return [
        check_record(record),
        check_registers(record, steps_max),
        *(one(record) for one in CHECKS),
    ]


def _chosen(record: Record, *ops: str) -> list[Operation]:
    return [operation for operation in record.operations if operation.op in ops]


# --- the record itself ---------------------------------------------------------------------------


def check_record(record: Record) -> Result:
    """A process does one thing at a time; otherwise nothing that follows from the order of calls could be said."""
    found = _Findings("record")
    for first, second in overlapping_processes(record.operations):
        found.add(
            str(first.process), "a process called again before its last call had returned", first, second
        )
    return found.result("the record is one of sequential processes", len(record.operations))


# --- registers -----------------------------------------------------------------------------------


def check_registers(record: Record, steps_max: int = STEPS_MAX) -> Result:
    """Each register by itself, by search."""
    found = _Findings("registers")
    keys = by_key(_chosen(record, "register.write", "register.read"))
    for key, operations in keys.items():
        judgement = judge(operations, steps_max=steps_max)
        if judgement.is_linearizable is None:
            found.add(key, f"not decided within {judgement.steps} steps of the search")
        elif not judgement.is_linearizable:
            found.add(key, "no order of these explains what was read", *judgement.witness)
    looked_at = sum(map(len, keys.values()))
    return found.result("reads and writes of a register are linearizable", looked_at)


# --- locks ---------------------------------------------------------------------------------------


def _token(operation: Operation) -> int:
    """The fencing token an operation on a lock is about, 0 where it names none."""
    if operation.is_ok and operation.op in ("lock.acquire", "lock.renew"):
        assert operation.output is not None
        return int(operation.output["fencing_token"])
    return int(operation.input.get("fencing_token", 0))


def check_lock_tokens(record: Record) -> Result:
    """A token has one owner, tokens only grow, and one that was overtaken or given back opens nothing."""
    found = _Findings("lock tokens")
    keys = by_key(_chosen(record, "lock.acquire", "lock.renew", "lock.release"))
    for key, operations in keys.items():
        accepted = [one for one in operations if one.is_ok]
        _one_owner_each(found, key, accepted)
        _only_growing(found, key, accepted, _token, "a fencing token")
        released = {_token(one): one for one in accepted if one.op == "lock.release"}
        for one in accepted:
            before = released.get(_token(one))
            if before is not None and before is not one and _precedes(before, one):
                found.add(key, f"token {_token(one)} was accepted after it had been released", before, one)
    return found.result(
        "a fencing token has one holder, grows with every holder, and is void once overtaken or released",
        sum(map(len, keys.values())),
    )


def _one_owner_each(found: _Findings, key: str, accepted: Iterable[Operation]) -> None:
    owners: dict[int, Operation] = {}
    for one in accepted:
        first = owners.setdefault(_token(one), one)
        if first.input.get("owner_id") != one.input.get("owner_id"):
            found.add(key, f"token {_token(one)} belongs to two owners", first, one)


def _precedes(first: Operation, second: Operation) -> bool:
    return first.return_ns is not None and first.return_ns < second.invoke_ns


def _only_growing(
    found: _Findings,
    key: str,
    accepted: Sequence[Operation],
    token_of: Callable[[Operation], int],
    what: str,
) -> None:
    """No operation is accepted with a token below one that was granted before it was invoked."""
    returned = sorted(accepted, key=lambda one: one.return_ns or 0)
    times = [one.return_ns or 0 for one in returned]
    newest: list[Operation] = []
    for one in returned:
        newest.append(one if not newest or token_of(one) > token_of(newest[-1]) else newest[-1])
    for one in accepted:
        before = bisect_left(times, one.invoke_ns)
        if before and token_of(newest[before - 1]) > token_of(one):
            found.add(key, f"{what} went back to {token_of(one)}", newest[before - 1], one)


def check_lock_holds(record: Record) -> Result:
    """Mutual exclusion in time: what was granted for so long is nobody else's before, and is not refused before."""
    found = _Findings("lock holds")
    keys = by_key(_chosen(record, "lock.acquire", "lock.renew", "lock.release"))
    for key, operations in keys.items():
        given_up, timeline = _first_release(operations), _Timeline(operations)
        grants = [one for one in operations if one.is_ok and one.op != "lock.release"]
        for hold in grants:
            token, ends_ns = _token(hold), _ends_ns(hold, record.slack_s)
            for other in timeline.within(hold, ends_ns):
                if given_up.get(token, ends_ns) <= (other.return_ns or 0):
                    continue
                if other.is_ok and other.op == "lock.acquire" and _token(other) > token:
                    found.add(key, f"granted anew while token {token} held it", hold, other)
                if other.status == 412 and _token(other) == token and _precedes(hold, other):
                    found.add(key, f"token {token} was refused before its time was over", hold, other)
    return found.result(
        "a lock has one holder at a time, for at least as long as was granted", sum(map(len, keys.values()))
    )


def _first_release(operations: Iterable[Operation]) -> dict[int, int]:
    """When each token may have been given back at the earliest."""
    earliest: dict[int, int] = {}
    for one in operations:
        if one.op == "lock.release" and one.may_have_happened:
            token = int(one.input["fencing_token"])
            earliest[token] = min(one.invoke_ns, earliest.get(token, one.invoke_ns))
    return earliest


def _ends_ns(hold: Operation, slack_s: float) -> int:
    """Until when a grant or renewal lasts at least. A renewal that names no time gets that of the grant: not judged."""
    ttl_s = float(hold.input.get("ttl_s") or 0.0)
    return hold.invoke_ns + int(max(0.0, ttl_s - slack_s) * NS_PER_S)


# --- sessions ------------------------------------------------------------------------------------


def _lease(operation: Operation) -> int:
    if operation.op == "session.register" and operation.is_ok:
        assert operation.output is not None
        return int(operation.output["lease_token"])
    return int(operation.input.get("lease_token") or 0)


def check_lease_tokens(record: Record) -> Result:
    """Lease tokens only grow, and a heartbeat with one that was overtaken is not accepted."""
    found = _Findings("lease tokens")
    keys = by_key(_chosen(record, "session.register", "session.heartbeat"))
    for key, operations in keys.items():
        accepted = [one for one in operations if one.is_ok]
        _only_growing(found, key, accepted, _lease, "a lease token")
        granted = {_lease(one) for one in accepted if one.op == "session.register"}
        for one in accepted:
            if one.op == "session.heartbeat" and granted and _lease(one) not in granted:
                found.add(key, f"lease token {_lease(one)} was accepted and never granted", one)
    return found.result(
        "a lease token grows with every takeover and is void once overtaken", sum(map(len, keys.values()))
    )


def check_leases_last(record: Record) -> Result:
    """A session heard within its lease all along is neither taken over nor told that it has expired."""
    found = _Findings("leases last")
    keys = by_key(_chosen(record, "session.register", "session.heartbeat"))
    lasts_ns = int(max(0.0, record.lease_s - record.slack_s) * NS_PER_S)
    for key, operations in keys.items():
        timeline = _Timeline(operations)
        for one in [one for one in operations if one.is_ok]:
            for other in timeline.within(one, one.invoke_ns + lasts_ns):
                if other.is_ok and _lease(other) > _lease(one):
                    found.add(key, f"lease {_lease(one)} was live and was taken over", one, other)
                is_refusal = other.op == "session.heartbeat" and other.status == 409
                if is_refusal and _lease(other) == _lease(one) and _precedes(one, other):
                    found.add(key, f"lease {_lease(one)} was live and a heartbeat was refused", one, other)
    return found.result(
        "no session whose heartbeats were acknowledged within its lease is expired",
        sum(map(len, keys.values())),
    )


class _Timeline:
    """The operations of a key, found by time without looking at all of them."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._operations = operations
        self._invoked = [one.invoke_ns for one in operations]
        self._longest_ns = max(((one.return_ns or 0) - one.invoke_ns for one in operations), default=0)

    def within(self, one: Operation, ends_ns: int) -> Iterable[Operation]:
        """Those that returned after `one` was invoked and before a moment."""
        begin = bisect_left(self._invoked, one.invoke_ns - self._longest_ns)
        for place in range(begin, bisect_left(self._invoked, ends_ns)):
            other = self._operations[place]
            if other.return_ns is not None and one.invoke_ns < other.return_ns < ends_ns:
                yield other


# --- tasks ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Grant:
    token: int
    attempt: int
    operation: Operation


def _grants(record: Record) -> dict[str, list[_Grant]]:
    """Every claim that was granted, by task, in the order of invocation."""
    grants: dict[str, list[_Grant]] = defaultdict(list)
    for one in _chosen(record, "task.claim"):
        if one.is_ok and one.output is not None:
            for task in one.output.get("tasks", ()):
                grants[task["id"]].append(_Grant(int(task["claim_token"]), int(task["attempt"]), one))
    return grants


def check_claims(record: Record) -> Result:
    """One winner for each claim of a task; tokens and attempts grow together."""
    found = _Findings("claims")
    grants = _grants(record)
    for task, granted in grants.items():
        winners: dict[int, _Grant] = {}
        for grant in granted:
            first = winners.setdefault(grant.token, grant)
            if first is not grant:
                found.add(task, f"claim {grant.token} has two winners", first.operation, grant.operation)
        token_of = {id(grant.operation): grant.token for grant in granted}
        _only_growing(
            found,
            task,
            [grant.operation for grant in granted],
            lambda one, tokens=token_of: tokens[id(one)],  # type: ignore[misc]
            "a claim token",
        )
        ordered = sorted(winners.values(), key=lambda grant: grant.token)
        for before, after in pairwise(ordered):
            if after.attempt <= before.attempt:
                found.add(
                    task,
                    f"attempt {after.attempt} has a newer token than attempt {before.attempt}",
                    before.operation,
                    after.operation,
                )
    return found.result(
        "each claim of a task has one winner, and its token grows", sum(map(len, grants.values()))
    )


def check_completions(record: Record) -> Result:
    """Completed once, with the newest token that was ever granted, and then never claimed again."""
    found = _Findings("completions")
    grants = _grants(record)
    done: dict[str, Operation] = {}
    completions = _chosen(record, "task.complete")
    for one in completions:
        if not one.is_ok or one.key is None:
            continue
        token = int(one.input["claim_token"])
        first = done.setdefault(one.key, one)
        if int(first.input["claim_token"]) != token:
            found.add(one.key, "completed twice, with two tokens", first, one)
        granted = grants.get(one.key, [])
        if all(grant.token != token for grant in granted):
            found.add(one.key, f"completed with token {token}, which nobody was granted", one)
        newer = [grant for grant in granted if grant.token > token]
        for grant in newer[:1]:
            told = "a stale token completed it" if _precedes(grant.operation, one) else "claimed again"
            found.add(one.key, f"{told}: token {grant.token} is newer than {token}", grant.operation, one)
    return found.result(
        "a completion is accepted with the current token alone, and a completed task is never claimed again",
        len(completions),
    )


def check_claims_last(record: Record) -> Result:
    """A claim is good for as long as was granted: its completion is not refused before, nor is it given away."""
    found = _Findings("claims last")
    ttl_s = _claim_ttls(record)
    completions = by_key(_chosen(record, "task.complete"))
    grants = _grants(record)
    alive = _alive_until(record)
    for task, granted in grants.items():
        for grant in granted:
            one = grant.operation
            lasts_ns = int(max(0.0, ttl_s.get(task, 0.0) - record.slack_s) * NS_PER_S)
            ends_ns = min(one.invoke_ns + lasts_ns, alive.get(int(one.input["lease_token"]), 0))
            for other in completions.get(task, ()):
                is_ours = int(other.input["claim_token"]) == grant.token and _precedes(one, other)
                if is_ours and other.status == 412 and (other.return_ns or 0) < ends_ns:
                    found.add(task, f"claim {grant.token} was refused before its time was over", one, other)
            for later in granted:
                ends = later.operation.return_ns or 0
                if later.token > grant.token and one.invoke_ns < ends < ends_ns:
                    found.add(task, f"given away while claim {grant.token} held it", one, later.operation)
    return found.result(
        "a claim of a live session is neither refused nor given away before its time",
        sum(map(len, grants.values())),
    )


def _claim_ttls(record: Record) -> dict[str, float]:
    """How long a claim of each task lasts, from the bodies that enqueued them."""
    found = {}
    for one in _chosen(record, "task.enqueue"):
        if one.is_ok and one.output is not None and one.input.get("claim_ttl_s"):
            found[str(one.output["id"])] = float(one.input["claim_ttl_s"])
    return found


def _alive_until(record: Record) -> dict[int, int]:
    """Until when each lease token's session lived at least."""
    lasts_ns = int(max(0.0, record.lease_s - record.slack_s) * NS_PER_S)
    found: dict[int, int] = {}
    for one in _chosen(record, "session.register", "session.heartbeat"):
        if one.is_ok:
            found[_lease(one)] = max(found.get(_lease(one), 0), one.invoke_ns + lasts_ns)
    return found


def check_enqueued(record: Record) -> Result:
    """An idempotency_key is one task; nothing is claimed that nobody enqueued."""
    found = _Findings("enqueued once")
    enqueues = _chosen(record, "task.enqueue")
    ids: dict[str, Operation] = {}
    invoked: dict[str, int] = {}
    for one in enqueues:
        name = one.input["idempotency_key"]
        invoked.setdefault(name, one.invoke_ns)
        if one.is_ok and one.output is not None:
            first = ids.setdefault(name, one)
            assert first.output is not None
            if first.output["id"] != one.output["id"]:
                found.add(name, "one idempotency_key became two tasks", first, one)
    for one in _chosen(record, "task.claim"):
        for task in (one.output or {}).get("tasks", ()):
            name = (task.get("task_data") or {}).get("name")
            if name is None:
                continue
            enqueued = ids.get(name)
            if enqueued is not None and enqueued.output is not None and enqueued.output["id"] != task["id"]:
                found.add(name, "claimed under another id than it was enqueued with", enqueued, one)
            if invoked.get(name, (one.return_ns or 0) + 1) > (one.return_ns or 0):
                found.add(name, "claimed before anybody asked for it", one)
    return found.result("an idempotency_key is one task, and no task comes from nowhere", len(enqueues))


def check_nothing_lost(record: Record) -> Result:
    """In the end every acknowledged task is there, and every acknowledged completion is too."""
    found = _Findings("nothing lost")
    final = record.final
    if final is None:
        return found.result("no acknowledged task or completion is lost (nobody asked in the end)", 0)
    acknowledged = [one for one in _chosen(record, "task.enqueue") if one.is_ok and one.output is not None]
    for one in acknowledged:
        assert one.output is not None
        task = str(one.output["id"])
        if task not in final:
            found.add(task, "acknowledged, and not there in the end", one)
        elif record.is_drained and final[task]["status"] != "completed":
            found.add(task, f"{final[task]['status']} after everything was worked off", one)
    completed = [one for one in _chosen(record, "task.complete") if one.is_ok and one.key is not None]
    for one in completed:
        status = final.get(one.key or "", {}).get("status", "not there")
        if status != "completed":
            found.add(one.key or "", f"its completion was acknowledged, and in the end it is {status}", one)
    names: dict[str, str] = {}
    for task, row in final.items():
        other = names.setdefault(str(row["idempotency_key"]), task)
        if other != task:
            found.add(str(row["idempotency_key"]), f"two tasks in the end: {other} and {task}")
    return found.result("no acknowledged task or completion is lost", len(acknowledged) + len(completed))


# --- events --------------------------------------------------------------------------------------


def check_watchers(record: Record) -> Result:
    """Every watcher is told the same events in the same order, without a hole and nothing twice."""
    found = _Findings("watchers")
    watchers: dict[str, list[Seen]] = defaultdict(list)
    for seen in record.watched:
        watchers[seen.watcher].append(seen)
    whole = list(record.events or ())
    for before, after in pairwise(whole):
        if (after.index, after.sequence) <= (before.index, before.sequence):
            found.add("events", f"{_place(after)} comes after {_place(before)}")
    for name, told in watchers.items():
        for before, after in pairwise(told):
            if (after.index, after.sequence) <= (before.index, before.sequence):
                found.add(name, f"{_place(after)} was told after {_place(before)}")
        if record.events is not None:
            _same_events(found, name, told, whole)
    return found.result(
        "events come in order, none is left out or told twice, and every watcher is told the same",
        len(record.watched) + len(whole),
    )


def _place(seen: Seen) -> str:
    return f"{seen.index}.{seen.sequence} ({seen.kind} {seen.subject})"


def _same_events(found: _Findings, name: str, told: Sequence[Seen], whole: Sequence[Seen]) -> None:
    """What a watcher was told against the whole history; it must end where that ends."""
    expected = {(seen.index, seen.sequence): seen for seen in whole}
    heard = {(seen.index, seen.sequence): seen for seen in told}
    for place, seen in expected.items():
        if place not in heard:
            found.add(name, f"was not told of {_place(seen)}")
        elif heard[place].digest != seen.digest:
            found.add(name, f"was told something else at {_place(seen)}")
    for place, seen in heard.items():
        if place not in expected:
            found.add(name, f"was told of {_place(seen)}, which is not in the history")


def check_facts(record: Record) -> Result:
    """What was acknowledged is in the history of events, at the revision that is its token."""
    found = _Findings("facts")
    if record.events is None:
        return found.result("what was acknowledged is in the history of events (nobody asked for it)", 0)
    facts = {(seen.kind, seen.subject, seen.index) for seen in record.events}
    subjects = {(seen.kind, seen.subject) for seen in record.events}
    looked_at = 0
    for task, granted in _grants(record).items():
        for grant in granted:
            looked_at += 1
            if ("task_claimed", task, grant.token) not in facts:
                found.add(task, f"claim {grant.token} is not in the history", grant.operation)
    for one in _chosen(record, "task.enqueue", "task.complete", "lock.acquire", "session.register"):
        if not one.is_ok or one.output is None:
            continue
        looked_at += 1
        match one.op:
            case "task.enqueue":
                is_there = ("task_enqueued", str(one.output["id"])) in subjects
            case "task.complete":
                is_there = ("task_completed", str(one.key)) in subjects
            case "lock.acquire":
                is_there = ("lock_acquired", str(one.key), _token(one)) in facts
            case _:
                is_there = ("session_registered", str(one.key), _lease(one)) in facts
        if not is_there:
            found.add(str(one.key), f"an acknowledged {one.op} is not in the history", one)
    _ordered_facts(found, record.events)
    return found.result("what was acknowledged is in the history of events, once", looked_at)


def _ordered_facts(found: _Findings, events: Sequence[Seen]) -> None:
    """In the order of events: a lock is free before it is granted again, a completed task is over."""
    held: dict[str, Seen] = {}
    completed: dict[str, Seen] = {}
    for seen in events:
        match seen.kind:
            case "lock_acquired":
                if seen.subject in held:
                    found.add(seen.subject, f"acquired at {_place(held[seen.subject])} and at {_place(seen)}")
                held[seen.subject] = seen
            case "lock_released" | "lock_expired":
                held.pop(seen.subject, None)
            case "task_completed" | "task_claimed":
                if seen.subject in completed:
                    found.add(seen.subject, f"{_place(seen)} after {_place(completed[seen.subject])}")
                if seen.kind == "task_completed":
                    completed[seen.subject] = seen


CHECKS: tuple[Callable[[Record], Result], ...] = (
    check_lock_tokens,
    check_lock_holds,
    check_lease_tokens,
    check_leases_last,
    check_enqueued,
    check_claims,
    check_completions,
    check_claims_last,
    check_nothing_lost,
    check_watchers,
    check_facts,
)
