"""Set-wise writes: many patches of one table by one statement for each set of columns they have.

A patch is a dictionary of a row's key and the columns to set. Times are unix milliseconds, ids text; a
reference is given by what the log knows (a session's name) and looked up in the statement, so a row that is
gone becomes NULL rather than an error.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db.backends.utils import CursorWrapper

Patch = dict[str, Any]
CHUNK = 5_000


@dataclass(frozen=True, slots=True)
class Column:
    """`kind` is the element type the values are sent as, `value` the SQL that makes the column of `v.<name>`."""

    kind: str
    value: str


def _plain(kind: str, name: str) -> Column:
    return Column(kind, f"v.{name}")


def _moment(name: str) -> Column:
    return Column("float8", f"to_timestamp(v.{name} / 1000.0)")


def _json(name: str) -> Column:
    return Column("text", f"v.{name}::jsonb")


def _session(name: str) -> Column:
    return Column("text", f"(SELECT s.id FROM coordination_claudesession s WHERE s.session_name = v.{name})")  # noqa: S608


def _lesson(name: str) -> Column:
    return Column("uuid", f"(SELECT l.id FROM coordination_lesson l WHERE l.id = v.{name})")  # noqa: S608


def _user(name: str) -> Column:
    table = settings.AUTH_USER_MODEL.lower().replace(".", "_")
    return Column("bigint", f"(SELECT u.id FROM {table} u WHERE u.id = v.{name})")  # noqa: S608  a setting


@dataclass(frozen=True, slots=True)
class Table:
    """A table as the projection sees it. `identity` are the columns an upsert sets at insertion only."""

    name: str
    key: tuple[str, ...]
    columns: dict[str, Column]
    identity: frozenset[str] = frozenset({"id"})
    has_stamps: bool = True


SESSIONS = Table(
    "coordination_claudesession",
    ("session_name",),
    {
        "id": _plain("uuid", "id"),
        "session_name": _plain("text", "session_name"),
        "user_id": _user("user_id"),
        "tier": _plain("text", "tier"),
        "provider": _plain("text", "provider"),
        "status": _plain("text", "status"),
        "health_status": _plain("text", "health_status"),
        "lesson_id": _lesson("lesson_id"),
        "time_window_start": _moment("time_window_start"),
        "time_window_end": _moment("time_window_end"),
        "last_heartbeat": _moment("last_heartbeat"),
        "consecutive_failures": _plain("int", "consecutive_failures"),
        "max_concurrent_tasks": _plain("int", "max_concurrent_tasks"),
        "current_task_count": _plain("int", "current_task_count"),
        "capabilities": _json("capabilities"),
        "time_windows": _json("time_windows"),
        "load": _plain("float8", "load"),
        "metadata": _json("metadata"),
        "accepts_push": _plain("bool", "accepts_push"),
        "lease_token": _plain("bigint", "lease_token"),
        "lease_expires_at": _moment("lease_expires_at"),
        "tasks_completed": _plain("int", "tasks_completed"),
        "tasks_failed": _plain("int", "tasks_failed"),
        "avg_task_s": _plain("float8", "avg_task_s"),
    },
)

TASKS = Table(
    "coordination_distributedtask",
    ("id",),
    {
        "id": _plain("uuid", "id"),
        "priority": _plain("int", "priority"),
        "target_session_id": _session("target_session_id"),
        "status": _plain("text", "status"),
        "claimed_by_id": _session("claimed_by_id"),
        "claimed_at": _moment("claimed_at"),
        "claim_expires_at": _moment("claim_expires_at"),
        "claim_token": _plain("bigint", "claim_token"),
        "run_after": _moment("run_after"),
        "retry_count": _plain("int", "retry_count"),
        "max_retries": _plain("int", "max_retries"),
        "progress": _plain("float8", "progress"),
        "progress_note": _plain("text", "progress_note"),
        "error_message": _plain("text", "error_message"),
        "completed_at": _moment("completed_at"),
        "enqueued_revision": _plain("bigint", "enqueued_revision"),
    },
)

ATTEMPTS = Table(
    "coordination_taskattempt",
    ("task_id", "claim_token"),
    {
        "id": _plain("uuid", "id"),
        "task_id": _plain("uuid", "task_id"),
        "claim_token": _plain("bigint", "claim_token"),
        "session_id": _session("session_id"),
        "attempt_number": _plain("int", "attempt_number"),
        "started_at": _moment("started_at"),
        "ended_at": _moment("ended_at"),
        "outcome": _plain("text", "outcome"),
        "error": _plain("text", "error"),
    },
)

LESSONS = Table(
    "coordination_lesson",
    ("id",),
    {
        "id": _plain("uuid", "id"),
        "tasks_total": _plain("int", "tasks_total"),
        "tasks_completed": _plain("int", "tasks_completed"),
        "tasks_failed": _plain("int", "tasks_failed"),
        "status": _plain("text", "status"),
    },
)

LOCKS = Table(
    "coordination_distributedlock",
    ("lock_key",),
    {
        "lock_key": _plain("text", "lock_key"),
        "owner_id": _plain("text", "owner_id"),
        "acquired_at": _moment("acquired_at"),
        "expires_at": Column("float8", "to_timestamp(v.expires_at / 1000.0)"),
        "renewed_count": _plain("int", "renewed_count"),
        "fencing_token": _plain("bigint", "fencing_token"),
        "metadata": _json("metadata"),
    },
)

LOCK_TOKENS = Table(
    "coordination_locktoken",
    ("lock_key",),
    {"lock_key": _plain("text", "lock_key"), "fencing_token": _plain("bigint", "fencing_token")},
    has_stamps=False,
)

AFFINITIES = Table(
    "coordination_sessionaffinity",
    ("session_id", "lesson_id"),
    {
        "id": _plain("uuid", "id"),
        "session_id": _session("session_id"),
        "lesson_id": _lesson("lesson_id"),
        "affinity_score": _plain("float8", "affinity_score"),
        "time_window_start": _moment("time_window_start"),
        "time_window_end": _moment("time_window_end"),
        "last_used": _moment("last_used"),
    },
)

HISTORY = Table(
    "coordination_coordinationevent",
    ("raft_index", "sequence"),
    {
        "raft_index": _plain("bigint", "raft_index"),
        "sequence": _plain("int", "sequence"),
        "kind": _plain("text", "kind"),
        "subject": _plain("text", "subject"),
        "actor": _plain("text", "actor"),
        "data": _json("data"),
        "occurred_at": _moment("occurred_at"),
    },
    has_stamps=False,
)


def update(cursor: CursorWrapper, table: Table, patches: Iterable[Patch]) -> None:
    """Set the given columns of rows that exist."""
    for names, group in _grouped(patches):
        set_names = [name for name in names if name not in table.key]
        if not set_names:
            continue
        assignments = [f"{name} = {table.columns[name].value}" for name in set_names]
        if table.has_stamps:
            assignments.append("updated_at = now()")
        source, arrays = _source(table, names, group)
        where = " AND ".join(f"t.{name} = {table.columns[name].value}" for name in table.key)
        cursor.execute(
            f"UPDATE {table.name} AS t SET {', '.join(assignments)} FROM {source} WHERE {where}",  # noqa: S608
            arrays,
        )


def upsert(
    cursor: CursorWrapper, table: Table, patches: Iterable[Patch], *, only_if: str = "", keep: bool = False
) -> None:
    """Insert rows, or set the given columns (but for the identity) of those that exist.

    `only_if` is SQL over `v` that leaves rows out; `keep` leaves existing rows as they are.
    """
    for names, group in _grouped(patches):
        values = [table.columns[name].value for name in names]
        set_names = [name for name in names if name not in table.key and name not in table.identity]
        assignments = [f"{name} = EXCLUDED.{name}" for name in set_names]
        inserted = list(names)
        if table.has_stamps:
            inserted += ["created_at", "updated_at"]
            values += ["now()", "now()"]
            assignments.append("updated_at = now()")
        then = f"DO UPDATE SET {', '.join(assignments)}" if assignments and not keep else "DO NOTHING"
        source, arrays = _source(table, names, group)
        cursor.execute(
            f"INSERT INTO {table.name} ({', '.join(inserted)})"  # noqa: S608
            f" SELECT {', '.join(values)} FROM {source} {'WHERE ' + only_if if only_if else ''}"
            f" ON CONFLICT ({', '.join(table.key)}) {then}",
            arrays,
        )


def delete(cursor: CursorWrapper, table: Table, keys: Iterable[Patch]) -> None:
    """Delete rows by key."""
    for names, group in _grouped(keys):
        source, arrays = _source(table, names, group)
        where = " AND ".join(f"t.{name} = {table.columns[name].value}" for name in names)
        cursor.execute(f"DELETE FROM {table.name} AS t USING {source} WHERE {where}", arrays)  # noqa: S608


def _grouped(patches: Iterable[Patch]) -> Iterable[tuple[tuple[str, ...], list[Patch]]]:
    """Patches with the same columns together, at most CHUNK at a time."""
    groups: dict[tuple[str, ...], list[Patch]] = defaultdict(list)
    for patch in patches:
        groups[tuple(sorted(patch))].append(patch)
    for names, group in groups.items():
        for begin in range(0, len(group), CHUNK):
            yield names, group[begin : begin + CHUNK]


def _source(table: Table, names: Sequence[str], group: Sequence[Patch]) -> tuple[str, list[list[Any]]]:
    arrays = ", ".join(f"%s::{table.columns[name].kind}[]" for name in names)
    columns = [[patch[name] for patch in group] for name in names]
    return f"unnest({arrays}) AS v ({', '.join(names)})", columns
