"""Scenarios as text: wishes above `----`, what came of them below, prose between.

A line of wishes is a verb, its main words, then field=value. Below stands one line for each outcome and one
for each audited event, indented. After every block the state is checked, and restored from its own snapshot.
`REWRITE=1` writes what really happened into the files; commit such a change only if you can explain it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from coordination.machine import codec, commands, scoring
from coordination.machine.commands import Batch, TaskSpec
from coordination.machine.invariants import check_invariants
from coordination.machine.machine import Machine
from coordination.machine.outcomes import Accepted, Outcome

# verb: the command and the fields its bare words fill
VERBS: dict[str, tuple[type, tuple[str, ...]]] = {
    "register": (commands.SessionRegister, ("session_name",)),
    "heartbeat": (commands.SessionHeartbeat, ("session_name",)),
    "update": (commands.SessionUpdate, ("session_name",)),
    "ask": (commands.SessionTransition, ("session_name", "to")),
    "fail-session": (commands.SessionFailure, ("session_name",)),
    "goodbye": (commands.SessionDeregister, ("session_name",)),
    "enqueue": (commands.TaskEnqueue, ("task_id",)),
    "assign": (commands.TaskAssign, ("task_id", "session_name")),
    "claim": (commands.TaskClaim, ("session_name",)),
    "start": (commands.TaskStart, ("task_id",)),
    "renew": (commands.TaskRenew, ("task_id",)),
    "complete": (commands.TaskComplete, ("task_id",)),
    "fail": (commands.TaskFail, ("task_id",)),
    "cancel": (commands.TaskCancel, ("task_id",)),
    "retry": (commands.TaskRetry, ("task_id",)),
    "update-task": (commands.TaskUpdate, ("task_id",)),
    "delete": (commands.TaskDelete, ("task_id",)),
    "archive": (commands.LessonArchive, ("lesson_id",)),
    "delete-lesson": (commands.LessonDelete, ("lesson_id",)),
    "lock": (commands.LockAcquire, ("lock_key", "owner_id")),
    "renew-lock": (commands.LockRenew, ("lock_key", "owner_id")),
    "unlock": (commands.LockRelease, ("lock_key", "owner_id")),
    "stop-waiting": (commands.LockWaitCancel, ("lock_key", "owner_id")),
    "affinity": (commands.AffinitySet, ("session_name", "lesson_id")),
    "drop-affinity": (commands.AffinityDelete, ("session_name", "lesson_id")),
    "tick": (commands.Tick, ("elapsed_ms",)),
    "raise-revision": (commands.RevisionRaise, ("revision",)),
}
LISTS = {
    "capabilities",
    "required_capabilities",
    "depends_on",
    "done_depends",
    "failed_depends",
    "task_types",
}
SHORT = {"max": "max_concurrent_tasks", "after": "depends_on", "token": "claim_token", "id": "request_id"}
QUIET = {"session_id", "session_name", "heartbeat_interval_ms", "lease_expires_ms", "expires_ms", "known"}


class Story:
    """A machine that is told what to do in words."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.term = 0
        self.stamp_ms = 1_700_000_000_000  # Tuesday 2023-11-14 22:13:20 UTC

    def tell(self, line: str) -> list[str]:
        verb, *words = line.split()
        if verb == "show":
            return self._show(*words)
        if verb == "policy":
            changed = {name: int(value) for name, value in (word.split("=") for word in words)}
            policy = msgspec.structs.replace(self.machine.state.policy, **changed)
            return self._apply(commands.PolicySet(policy=policy))
        if verb == "wait":
            return self._wait(int(words[0]))
        if verb == "at":
            self.stamp_ms += int(words[0])
            return []
        return self._apply(self._command(verb, words))

    def _wait(self, milliseconds: int) -> list[str]:
        """Many ticks of a quarter of a second; only what happened is told."""
        told: list[str] = []
        for elapsed in [250] * (milliseconds // 250) + [milliseconds % 250]:
            told += self._apply(commands.Tick(elapsed_ms=elapsed, term=self.term or 1))[1:]
        return told

    def _command(self, verb: str, words: list[str]) -> Any:
        kind, bare = VERBS[verb]
        fields: dict[str, Any] = dict(zip(bare, [word for word in words if "=" not in word], strict=False))
        fields |= dict(word.split("=", 1) for word in words if "=" in word)
        fields = {self._name(name, kind): value for name, value in fields.items()}
        if "request_id" in fields:
            fields["request_id"] = fields["request_id"].encode().ljust(16, b".")
        session = self.machine.state.session_named(fields.get("session_name", ""))
        if kind is commands.SessionRegister:
            fields.setdefault("session_id", f"id-{fields['session_name']}")
        if kind in (commands.SessionHeartbeat, commands.TaskClaim) and session is not None:
            fields.setdefault("lease_token", session.lease_token)
        task = self.machine.state.tasks.get(fields.get("task_id", ""))
        if "claim_token" in kind.__struct_fields__ and task is not None and task.claim is not None:
            fields.setdefault("claim_token", task.claim.token)
        if kind is commands.AffinitySet:
            fields.setdefault("affinity_id", "aff")
        if kind is commands.Tick:
            fields.setdefault("term", str(self.term or 1))
            self.term = max(self.term, int(fields["term"]))
        if kind in (commands.TaskEnqueue, commands.TaskRetry):
            spec = {name: fields.pop(name) for name in list(fields) if name in TaskSpec.__struct_fields__}
            fields["spec"] = _built(TaskSpec, {"task_type": "work"} | spec)
        return _built(kind, fields)

    def _name(self, name: str, kind: type) -> str:
        if name == "max" and kind is commands.TaskClaim:
            return "max_tasks"
        if name == "token" and "fencing_token" in kind.__struct_fields__:  # type: ignore[attr-defined]
            return "fencing_token"
        if name == "token" and "lease_token" in kind.__struct_fields__:  # type: ignore[attr-defined]
            return "lease_token"
        return SHORT.get(name, name)

    def _apply(self, command: Any) -> list[str]:
        payload = codec.encode_batch(Batch(stamp_ms=self.stamp_ms, commands=[command]))
        applied = self.machine.apply(payload)
        told = [_outcome(outcome) for outcome in applied.outcomes]
        return told + [
            f"  {one.revision} {one.event.kind} {one.event.subject}{_detail(one.event)}"
            for one in applied.events
            if one.event.audited
        ]

    def _show(self, what: str, key: str) -> list[str]:
        state = self.machine.state
        if what == "session":
            session = state.session_named(key)
            assert session is not None
            return [
                (
                    f"{key}: {session.status} {session.health} tasks={session.current_task_count}"
                    f" failures={session.consecutive_failures} completed={session.tasks_completed}"
                    f" failed={session.tasks_failed}"
                )
            ]
        if what == "lock":
            lock = state.locks.get(key)
            if lock is None:
                return [f"{key}: free"]
            waiting = " ".join(waiter.owner_id for waiter in lock.waiters)
            return [f"{key}: {lock.owner_id} token={lock.fencing_token} waiting=[{waiting}]"]
        if what == "lesson":
            lesson = state.lessons[key]
            return [
                (
                    f"{key}: {lesson.status} total={lesson.tasks_total} completed={lesson.tasks_completed}"
                    f" failed={lesson.tasks_failed}"
                )
            ]
        explanation = scoring.explain(state, key)
        if explanation is None:
            return [f"{key}: {state.finals[key].status if key in state.finals else 'unknown'}"]
        told = [f"{key}: {explanation.status} {', '.join(explanation.obstacles)}".rstrip()]
        for candidate in explanation.candidates:
            score = candidate.score
            why = ", ".join(candidate.reasons) if score is None else f"score={score.total}"
            told.append(f"  {candidate.session_name}: {why}")
        return told


def _built(kind: type, fields: dict[str, Any]) -> Any:
    """A struct from words, each made into what its field is."""
    types = get_type_hints(kind)
    return kind(**{name: _value(name, types[name], value) for name, value in fields.items()})


def _value(name: str, wanted: Any, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return msgspec.convert(value.split(",") if name in LISTS else value, wanted, strict=False)


def _outcome(outcome: Outcome) -> str:
    if not isinstance(outcome, Accepted):
        return f"{outcome.code}: {outcome.detail}"
    return " ".join(["ok", *_fields(outcome.value)])


def _fields(value: Any) -> list[str]:
    told = []
    for name in value.__struct_fields__:
        field = getattr(value, name)
        if name == "grants":
            told += [
                f"[{grant.task_id} token={grant.claim_token} attempt={grant.attempt}]" for grant in field
            ]
        elif name == "directives":
            told += [f"<{' '.join(filter(None, (d.kind, d.task_id, d.reason)))}>" for d in field]
        elif field and name not in QUIET:
            told.append(f"{name}={field}")
    return told


def _detail(event: Any) -> str:
    names = (
        "session_name",
        "owner_id",
        "claim_token",
        "fencing_token",
        "outcome",
        "retry_count",
        "health",
        "status",
        "how",
    )
    told = [
        f"{name}={getattr(event, name)}"
        for name in names
        if name != event.subject_field and getattr(event, name, None)
    ]
    return " " + " ".join(told) if told else ""


def run(path: Path) -> None:
    """Play a file, and compare it with what it says, or rewrite it."""
    story = Story()
    written: list[str] = []
    blocks = path.read_text().split("\n\n")
    for block in blocks:
        lines = block.strip("\n").splitlines()
        if "----" not in lines:
            written.append("\n".join(lines))
            continue
        wishes = lines[: lines.index("----")]
        told = [told for wish in wishes if not wish.startswith("#") for told in story.tell(wish)]
        written.append("\n".join([*wishes, "----", *told]))
        check_invariants(story.machine.state)
        snapshot = story.machine.snapshot()
        story.machine.restore(snapshot)
        assert story.machine.snapshot() == snapshot, "restoring a snapshot is the identity"
    happened = "\n\n".join(written) + "\n"
    if os.environ.get("REWRITE"):
        path.write_text(happened)
    assert happened == path.read_text(), f"{path.name} tells another story; REWRITE=1 shows what happened"
