"""What a batch of events, or a whole state, comes to in rows: patches by table, no SQL.

Events carry absolute values, so folding knows no rules: the last word about a column counts. Text that
PostgreSQL would refuse is made storable here, so that no event can stop the projection.
"""

import json
import uuid
from collections.abc import Iterable
from enum import Enum
from typing import Any

import msgspec

from coordination.machine import events as e
from coordination.machine.commands import TimeWindow
from coordination.machine.events import Recorded
from coordination.machine.kinds import AttemptOutcome
from coordination.machine.state import Affinity, Session, State, Task, wall_ms
from coordination.projection.tables import Patch

_ATTEMPT_IDS = uuid.UUID("6f1c9f5e-6c0c-4b6a-9a55-0c1f7f2b7a01")
_ROW_IDS = uuid.UUID("6f1c9f5e-6c0c-4b6a-9a55-0c1f7f2b7a02")
_INT_MAX = 2**31 - 1
NO_CLAIM: Patch = {
    "claimed_by_id": None,
    "claimed_at": None,
    "claim_expires_at": None,
    "progress": 0.0,
    "progress_note": "",
}


class Changes:
    """Patches by what they are about. None in `locks` and `affinities` means: delete."""

    def __init__(self) -> None:
        self.sessions: dict[str, Patch] = {}
        self.registered: set[str] = set()
        self.tasks: dict[str, Patch] = {}
        self.completed: set[str] = set()
        self.deleted_tasks: set[str] = set()
        self.attempts: dict[tuple[str, int], Patch] = {}
        self.ended: dict[tuple[str, int], Patch] = {}
        self.lessons: dict[str, Patch] = {}
        self.deleted_lessons: set[str] = set()
        self.locks: dict[str, Patch | None] = {}
        self.lock_tokens: dict[str, Patch] = {}
        self.affinities: dict[tuple[str, str], Patch | None] = {}
        self.history: list[Patch] = []

    def session(self, session_name: str, **columns: Any) -> None:
        """Set columns of a session."""
        self.sessions.setdefault(session_name, {"session_name": session_name}).update(columns)

    def task(self, task_id: str, **columns: Any) -> None:
        """Set columns of a task."""
        if is_uuid(task_id):
            self.tasks.setdefault(task_id, {"id": task_id}).update(columns)

    def attempt_began(self, task_id: str, token: int, **columns: Any) -> None:
        """A claim was granted."""
        if is_uuid(task_id):
            attempt_id = str(uuid.uuid5(_ATTEMPT_IDS, f"{task_id} {token}"))
            began = {"id": attempt_id, "task_id": task_id, "claim_token": token, "outcome": "running"}
            self.attempts[task_id, token] = began | {"error": "", "ended_at": None} | columns

    def attempt_ended(self, task_id: str, token: int, **columns: Any) -> None:
        """A claim is over, whether it was granted in this batch or before."""
        if not token or not is_uuid(task_id):
            return
        begun = self.attempts.get((task_id, token))
        if begun is not None:
            begun.update(columns)
        else:
            self.ended[task_id, token] = {"task_id": task_id, "claim_token": token, **columns}


# Values


def is_uuid(value: str) -> bool:
    """Whether a row can have this id: in its one canonical form, so that two spellings are not one row."""
    try:
        return str(uuid.UUID(value)) == value
    except ValueError:
        return False


def uuid_or_none(value: str) -> str | None:
    """The id, or None where there is none or no row can have it."""
    return value if value and is_uuid(value) else None


def text(value: str, most: int = 0) -> str:
    """Text that a column can hold."""
    storable = value.encode("utf-8", "replace").decode().replace("\0", "�")
    return storable[:most] if most else storable


def json_text(value: object) -> str:
    """JSON that a jsonb column can hold."""
    encoded = json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    return text(encoded).replace("\\u0000", "\\ufffd")


def json_of(opaque: str) -> str:
    """JSON text that came through the log, made storable; `{}` where it is not an object."""
    try:
        parsed = json.loads(opaque, parse_constant=str)
    except ValueError:
        return "{}"
    return json_text(parsed) if isinstance(parsed, dict) else "{}"


def windows_json(windows: Iterable[TimeWindow]) -> str:
    """Time windows as the rows have them."""
    return json_text([msgspec.structs.asdict(window) for window in windows])


def hull(windows: tuple[TimeWindow, ...]) -> Patch:
    """The span from the first start to the last end; open where one window is."""
    starts, ends = [w.start_ms for w in windows], [w.end_ms for w in windows]
    return {
        "time_window_start": min(starts) if starts and all(starts) else None,
        "time_window_end": max(ends) if ends and all(ends) else None,
    }


def average_s(busy_ms: int, completed: int) -> float | None:
    """The mean time of a completed task in seconds; None before the first."""
    return busy_ms / completed / 1000 if completed else None


def _user(value: str) -> int | None:
    return int(value) if value.isdecimal() and len(value) < 18 else None


def _count(value: int) -> int:
    return max(0, min(value, _INT_MAX))


def plain(value: Any) -> Any:
    """A value of an event as plain JSON types; structs become objects with their fields' names."""
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return value


# Events


def fold(recorded: Recorded, changes: Changes) -> None:
    """Add one event. TermStarted is not folded: it moves rows that no event of the batch names."""
    event = recorded.event
    _FOLD.get(type(event), _nothing)(changes, event, recorded)
    if event.audited:
        changes.history.append(history_of(recorded))


def history_of(recorded: Recorded) -> Patch:
    """The row of the history an audited event is."""
    return {
        "raft_index": recorded.revision,
        "sequence": recorded.sequence,
        "kind": recorded.event.kind,
        "subject": text(recorded.event.subject, 300),
        "actor": text(recorded.actor, 255),
        "data": json_text(plain(recorded.event)),
        "occurred_at": recorded.stamp_ms,
    }


def _wall(recorded: Recorded, logical_ms: int) -> int:
    return recorded.stamp_ms + logical_ms - recorded.clock_ms


def _nothing(changes: Changes, event: Any, recorded: Recorded) -> None:
    """For events that rows do not show."""


def _registered(changes: Changes, event: e.SessionRegistered, recorded: Recorded) -> None:
    changes.registered.add(event.session_name)
    changes.session(
        event.session_name,
        id=_session_id(event.session_id),
        user_id=_user(event.user),
        tier=event.tier.value,
        provider=event.provider.value,
        status=event.status.value,
        health_status=event.health.value,
        last_heartbeat=recorded.stamp_ms,
        consecutive_failures=_count(event.consecutive_failures),
        lease_token=event.lease_token,
        lease_expires_at=_wall(recorded, event.lease_expires_ms),
        **_described(event),
    )


def _session_id(session_id: str) -> str:
    return uuid_or_none(session_id) or str(uuid.uuid5(_ROW_IDS, session_id))


def _described(described: "e.SessionRegistered | e.SessionUpdated | Session") -> Patch:
    return {
        "max_concurrent_tasks": _count(described.max_concurrent_tasks),
        "lesson_id": uuid_or_none(described.lesson_id),
        "capabilities": json_text(list(described.capabilities)),
        "time_windows": windows_json(described.time_windows),
        "metadata": json_of(described.metadata),
        "accepts_push": described.accepts_push,
        **hull(described.time_windows),
    }


def _renewed(changes: Changes, event: e.SessionRenewed, recorded: Recorded) -> None:
    changes.session(
        event.session_name,
        lease_expires_at=_wall(recorded, event.lease_expires_ms),
        health_status=event.health.value,
        last_heartbeat=recorded.stamp_ms,
        load=_load(event.load_milli),
    )


def _load(load_milli: int) -> float | None:
    return None if load_milli < 0 else load_milli / 1000


def _session_updated(changes: Changes, event: e.SessionUpdated, recorded: Recorded) -> None:
    changes.session(event.session_name, **_described(event))


def _status_changed(changes: Changes, event: e.SessionStatusChanged, recorded: Recorded) -> None:
    changes.session(
        event.session_name,
        status=event.status.value,
        consecutive_failures=_count(event.consecutive_failures),
    )


def _health_changed(changes: Changes, event: e.SessionHealthChanged, recorded: Recorded) -> None:
    changes.session(
        event.session_name,
        health_status=event.health.value,
        consecutive_failures=_count(event.consecutive_failures),
    )


def _session_failed(changes: Changes, event: e.SessionFailed, recorded: Recorded) -> None:
    changes.session(
        event.session_name, status="failed", consecutive_failures=_count(event.consecutive_failures)
    )


def _session_ended(
    changes: Changes, event: e.SessionExpired | e.SessionDeregistered, recorded: Recorded
) -> None:
    changes.session(event.session_name, status="offline", health_status="unhealthy", lease_token=0)


def _session_counted(changes: Changes, event: e.SessionCounted, recorded: Recorded) -> None:
    changes.session(
        event.session_name,
        status=event.status.value,
        current_task_count=_count(event.current_task_count),
        consecutive_failures=_count(event.consecutive_failures),
        tasks_completed=_count(event.tasks_completed),
        tasks_failed=_count(event.tasks_failed),
        avg_task_s=average_s(event.busy_ms, event.tasks_completed),
    )


def _run_after(recorded: Recorded, run_after_ms: int) -> int | None:
    return _wall(recorded, run_after_ms) if run_after_ms else None


def _enqueued(changes: Changes, event: e.TaskEnqueued, recorded: Recorded) -> None:
    changes.task(
        event.task_id,
        status="pending",
        priority=event.spec.priority,
        max_retries=event.spec.max_retries,
        retry_count=0,
        run_after=_run_after(recorded, event.run_after_ms),
        enqueued_revision=recorded.revision,
    )


def _task_updated(changes: Changes, event: e.TaskUpdated, recorded: Recorded) -> None:
    changes.task(
        event.task_id,
        priority=event.spec.priority,
        target_session_id=event.spec.target_session,
        max_retries=event.spec.max_retries,
        run_after=_run_after(recorded, event.run_after_ms),
    )


def _ready(changes: Changes, event: e.TaskReady, recorded: Recorded) -> None:
    changes.task(event.task_id, run_after=None)


def _claimed(changes: Changes, event: e.TaskClaimed, recorded: Recorded) -> None:
    changes.task(
        event.task_id,
        status="assigned",
        claimed_by_id=event.session_name,
        claimed_at=recorded.stamp_ms,
        claim_expires_at=_wall(recorded, event.expires_ms),
        claim_token=event.claim_token,
        progress=0.0,
        progress_note="",
    )
    changes.attempt_began(
        event.task_id,
        event.claim_token,
        session_id=event.session_name,
        attempt_number=_count(event.attempt),
        started_at=recorded.stamp_ms,
    )


def _started(changes: Changes, event: e.TaskStarted, recorded: Recorded) -> None:
    changes.task(event.task_id, status="in_progress")


def _task_renewed(changes: Changes, event: e.TaskRenewed, recorded: Recorded) -> None:
    changes.task(
        event.task_id,
        claim_expires_at=_wall(recorded, event.expires_ms),
        progress=float(min(100, max(0, event.percent))),
        progress_note=text(event.note, 255),
    )


def _completed(changes: Changes, event: e.TaskCompleted, recorded: Recorded) -> None:
    if is_uuid(event.task_id):
        changes.completed.add(event.task_id)
    changes.task(
        event.task_id,
        **NO_CLAIM
        | {"status": "completed", "progress": 100.0, "error_message": "", "completed_at": recorded.stamp_ms},
        retry_count=_count(event.retry_count),
    )
    _end_attempt(changes, event, recorded, AttemptOutcome.COMPLETED, "")


def _requeued(changes: Changes, event: e.TaskRequeued, recorded: Recorded) -> None:
    changes.task(
        event.task_id,
        **NO_CLAIM,
        status="pending",
        retry_count=_count(event.retry_count),
        run_after=_run_after(recorded, event.run_after_ms),
        error_message="",
    )
    _end_attempt(changes, event, recorded, event.outcome, event.error)


def _task_failed(changes: Changes, event: e.TaskFailed, recorded: Recorded) -> None:
    changes.task(
        event.task_id,
        **NO_CLAIM,
        status="failed",
        retry_count=_count(event.retry_count),
        run_after=None,
        error_message=text(event.error),
        completed_at=recorded.stamp_ms,
    )
    _end_attempt(changes, event, recorded, event.outcome, event.error)


def _cancelled(changes: Changes, event: e.TaskCancelled, recorded: Recorded) -> None:
    changes.task(
        event.task_id,
        **NO_CLAIM,
        status="cancelled",
        retry_count=_count(event.retry_count),
        run_after=None,
        error_message=text(event.reason),
        completed_at=recorded.stamp_ms,
    )
    _end_attempt(changes, event, recorded, AttemptOutcome.CANCELLED, event.reason)


def _end_attempt(
    changes: Changes,
    event: e.TaskCompleted | e.TaskRequeued | e.TaskFailed | e.TaskCancelled,
    recorded: Recorded,
    outcome: AttemptOutcome,
    error: str,
) -> None:
    if outcome is not AttemptOutcome.NONE:
        changes.attempt_ended(
            event.task_id,
            event.claim_token,
            ended_at=recorded.stamp_ms,
            outcome=outcome.value,
            error=text(error),
        )


def _retried(changes: Changes, event: e.TaskRetried, recorded: Recorded) -> None:
    changes.completed.discard(event.task_id)
    changes.task(
        event.task_id,
        **NO_CLAIM,
        status="pending",
        priority=event.spec.priority,
        max_retries=event.spec.max_retries,
        retry_count=0,
        run_after=None,
        error_message="",
        completed_at=None,
        enqueued_revision=recorded.revision,
    )


def _task_deleted(changes: Changes, event: e.TaskDeleted, recorded: Recorded) -> None:
    if is_uuid(event.task_id):
        changes.deleted_tasks.add(event.task_id)


def _lesson_progressed(changes: Changes, event: e.LessonProgressed, recorded: Recorded) -> None:
    if is_uuid(event.lesson_id):
        changes.lessons[event.lesson_id] = {
            "id": event.lesson_id,
            "tasks_total": _count(event.tasks_total),
            "tasks_completed": _count(event.tasks_completed),
            "tasks_failed": _count(event.tasks_failed),
            "status": event.status.value,
        }


def _lesson_deleted(changes: Changes, event: e.LessonDeleted, recorded: Recorded) -> None:
    if is_uuid(event.lesson_id):
        changes.deleted_lessons.add(event.lesson_id)


def _lock_acquired(changes: Changes, event: e.LockAcquired, recorded: Recorded) -> None:
    key = text(event.lock_key)
    changes.locks[key] = {
        "lock_key": key,
        "owner_id": text(event.owner_id),
        "acquired_at": recorded.stamp_ms,
        "expires_at": _wall(recorded, event.expires_ms),
        "renewed_count": 0,
        "fencing_token": event.fencing_token,
        "metadata": json_of(event.metadata),
    }
    changes.lock_tokens[key] = {"lock_key": key, "fencing_token": event.fencing_token}


def _lock_renewed(changes: Changes, event: e.LockRenewed, recorded: Recorded) -> None:
    key = text(event.lock_key)
    patch = changes.locks.get(key) or {"lock_key": key}
    changes.locks[key] = patch | {
        "expires_at": _wall(recorded, event.expires_ms),
        "renewed_count": _count(event.renewed_count),
        "metadata": json_of(event.metadata),
    }


def _lock_freed(changes: Changes, event: e.LockReleased | e.LockExpired, recorded: Recorded) -> None:
    changes.locks[text(event.lock_key)] = None


def _affinity_changed(changes: Changes, event: e.AffinityEvent, recorded: Recorded) -> None:
    if _has_row(event):
        changes.affinities[event.session_name, event.lesson_id] = _affinity(
            event, event.session_name, _wall(recorded, event.last_used_ms)
        )


def _affinity(affinity: "e.AffinityEvent | Affinity", session_name: str, last_used: int) -> Patch:
    made_id = str(uuid.uuid5(_ROW_IDS, f"{affinity.session_id} {affinity.lesson_id}"))
    return {
        "id": uuid_or_none(affinity.affinity_id) or made_id,
        "session_id": session_name,
        "lesson_id": affinity.lesson_id or None,
        "affinity_score": min(1000, max(0, affinity.score_milli)) / 1000,
        "time_window_start": affinity.window_start_ms or None,
        "time_window_end": affinity.window_end_ms or None,
        "last_used": last_used,
    }


def _affinity_deleted(changes: Changes, event: e.AffinityDeleted, recorded: Recorded) -> None:
    if _has_row(event):
        changes.affinities[event.session_name, event.lesson_id] = None


def _has_row(affinity: "e.AffinityEvent | e.AffinityDeleted | Affinity") -> bool:
    """Whether it can be a row: one for any work, or for a lesson whose id a row can have."""
    return not affinity.lesson_id or is_uuid(affinity.lesson_id)


_FOLD: dict[type, Any] = {
    e.SessionRegistered: _registered,
    e.SessionRenewed: _renewed,
    e.SessionUpdated: _session_updated,
    e.SessionStatusChanged: _status_changed,
    e.SessionHealthChanged: _health_changed,
    e.SessionFailed: _session_failed,
    e.SessionExpired: _session_ended,
    e.SessionDeregistered: _session_ended,
    e.SessionCounted: _session_counted,
    e.TaskEnqueued: _enqueued,
    e.TaskUpdated: _task_updated,
    e.TaskReady: _ready,
    e.TaskClaimed: _claimed,
    e.TaskStarted: _started,
    e.TaskRenewed: _task_renewed,
    e.TaskCompleted: _completed,
    e.TaskRequeued: _requeued,
    e.TaskFailed: _task_failed,
    e.TaskCancelled: _cancelled,
    e.TaskRetried: _retried,
    e.TaskDeleted: _task_deleted,
    e.LessonProgressed: _lesson_progressed,
    e.LessonDeleted: _lesson_deleted,
    e.LockAcquired: _lock_acquired,
    e.LockRenewed: _lock_renewed,
    e.LockReleased: _lock_freed,
    e.LockExpired: _lock_freed,
    e.AffinityChanged: _affinity_changed,
    e.AffinityUsed: _affinity_changed,
    e.AffinityDeleted: _affinity_deleted,
}


# States


def changes_of(state: State) -> Changes:
    """Every row a whole state comes to: what `fold` of all its events would have left."""
    changes = Changes()
    for session in state.sessions.values():
        changes.registered.add(session.session_name)
        changes.session(session.session_name, **_session_row(state, session))
    for task in state.tasks.values():
        _add_task(changes, state, task)
    for lesson in state.lessons.values():
        if is_uuid(lesson.lesson_id):
            changes.lessons[lesson.lesson_id] = {
                "id": lesson.lesson_id,
                "tasks_total": _count(lesson.tasks_total),
                "tasks_completed": _count(lesson.tasks_completed),
                "tasks_failed": _count(lesson.tasks_failed),
                "status": lesson.status.value,
            }
    for lock in state.locks.values():
        if lock.owner_id:
            key = text(lock.lock_key)
            changes.locks[key] = {
                "lock_key": key,
                "owner_id": text(lock.owner_id),
                "acquired_at": lock.acquired_stamp_ms,
                "expires_at": wall_ms(state, lock.expires_ms),
                "renewed_count": _count(lock.renewed_count),
                "fencing_token": lock.fencing_token,
                "metadata": json_of(lock.metadata),
            }
            changes.lock_tokens[key] = {"lock_key": key, "fencing_token": lock.fencing_token}
    for session_id, rows in state.affinities.items():
        name = state.sessions[session_id].session_name
        for affinity in rows.values():
            if _has_row(affinity):
                changes.affinities[name, affinity.lesson_id] = _affinity(
                    affinity, name, wall_ms(state, affinity.last_used_ms)
                )
    return changes


def _session_row(state: State, session: Session) -> Patch:
    return {
        "id": _session_id(session.session_id),
        "user_id": _user(session.user),
        "tier": session.tier.value,
        "provider": session.provider.value,
        "status": session.status.value,
        "health_status": session.health.value,
        "last_heartbeat": session.last_heartbeat_stamp_ms,
        "consecutive_failures": _count(session.consecutive_failures),
        "current_task_count": _count(session.current_task_count),
        "load": _load(session.load_milli),
        "lease_token": session.lease_token,
        "lease_expires_at": wall_ms(state, session.lease_expires_ms),
        "tasks_completed": _count(session.tasks_completed),
        "tasks_failed": _count(session.tasks_failed),
        "avg_task_s": average_s(session.busy_ms, session.tasks_completed),
        **_described(session),
    }


def _add_task(changes: Changes, state: State, task: Task) -> None:
    claim = task.claim
    columns: Patch = {
        "status": task.status.value,
        "priority": task.spec.priority,
        "target_session_id": task.spec.target_session,
        "max_retries": task.spec.max_retries,
        "retry_count": _count(task.retry_count),
        "run_after": wall_ms(state, task.run_after_ms) if task.run_after_ms else None,
        "error_message": "",
        "completed_at": None,
        "enqueued_revision": state.revision,
        **NO_CLAIM,
    }
    if claim is not None:
        columns |= {
            "claimed_by_id": claim.session_name,
            "claimed_at": claim.claimed_stamp_ms,
            "claim_expires_at": wall_ms(state, claim.expires_ms),
            "claim_token": claim.token,
            "progress": float(min(100, max(0, claim.percent))),
            "progress_note": text(claim.note, 255),
        }
        changes.attempt_began(
            task.task_id,
            claim.token,
            session_id=claim.session_name,
            attempt_number=_count(task.attempt),
            started_at=claim.claimed_stamp_ms,
        )
    changes.task(task.task_id, **columns)
