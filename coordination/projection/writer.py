"""Transactions of the projection: the watermark's row is locked, changes are written set-wise, it moves on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from coordination.machine.events import LessonDeleted, Recorded, RevisionRaised, TermStarted
from coordination.machine.state import State
from coordination.projection import tables
from coordination.projection.changes import Changes, changes_of, fold, history_of, is_uuid, json_text, text
from coordination.projection.tables import Patch

GAP_SEQUENCE = 2_000_000_000
"""Where the note of a gap stands in the history: after every event of its revision."""


@dataclass(frozen=True, slots=True)
class Author:
    """Who projects: kept beside the watermark."""

    node_id: str
    cluster_id: str
    term: int


@dataclass(frozen=True, slots=True)
class Watermark:
    """The last revision in the rows, and the cluster it is one of."""

    revision: int
    cluster_id: str


class Gap(Exception):
    """The events offered do not follow the watermark: rows must be reconciled from a state."""

    def __init__(self, watermark: Watermark, offered: int) -> None:
        super().__init__(f"the rows show revision {watermark.revision}, the events begin at {offered}")
        self.watermark = watermark


class Behind(Exception):
    """The state offered is older than the rows: whoever has it must catch up first."""


def read_watermark() -> Watermark:
    """The watermark, without taking a turn."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT revision, cluster_id FROM coordination_projectionstate WHERE id = 1")
        found = cursor.fetchone()
    return Watermark(*found) if found else Watermark(0, "")


def project(events: Sequence[Recorded], author: Author) -> int:
    """Write the events above the watermark; the watermark afterwards.

    `events` are in order and whole: every event of each revision among them. Those at or below the watermark
    are dropped, so projecting twice is projecting once. Raises Gap where the next revision is missing.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        watermark = _locked(cursor)
        new = [recorded for recorded in events if recorded.revision > watermark.revision]
        _require_next(new, watermark, author)
        if not new:
            return watermark.revision
        _write_in_parts(cursor, new)
        _move(cursor, new[-1].revision, new[-1].clock_ms, author)
        return new[-1].revision


def _locked(cursor: CursorWrapper) -> Watermark:
    """The watermark with its row locked until the transaction ends."""
    select = "SELECT revision, cluster_id FROM coordination_projectionstate WHERE id = 1 FOR UPDATE"
    cursor.execute(select)
    found = cursor.fetchone()
    if found is None:
        cursor.execute("INSERT INTO coordination_projectionstate (id) VALUES (1) ON CONFLICT DO NOTHING")
        cursor.execute(select)
        found = cursor.fetchone()
    return Watermark(*found)


def _require_next(new: Sequence[Recorded], watermark: Watermark, author: Author) -> None:
    is_foreign = watermark.revision > 0 and watermark.cluster_id != author.cluster_id
    if is_foreign:
        raise Gap(watermark, new[0].revision if new else watermark.revision)
    last = watermark.revision
    for recorded in new:
        follows = recorded.revision == last or recorded.revision == last + 1
        if not follows and not (isinstance(recorded.event, RevisionRaised) and last == 0):
            raise Gap(watermark, recorded.revision)
        last = recorded.revision


def _move(
    cursor: CursorWrapper, revision: int, clock_ms: int, author: Author, *, reconciled: int = 0
) -> None:
    cursor.execute(
        "UPDATE coordination_projectionstate SET revision = %s, clock_ms = %s, term = %s, node_id = %s,"
        " cluster_id = %s, reconciled_count = reconciled_count + %s, updated_at = now() WHERE id = 1",
        [revision, clock_ms, author.term, author.node_id, author.cluster_id, reconciled],
    )


def _write_in_parts(cursor: CursorWrapper, events: Iterable[Recorded]) -> None:
    """Write up to each event that touches rows by a condition, then that one, then go on."""
    changes = Changes()
    for recorded in events:
        if isinstance(recorded.event, TermStarted | LessonDeleted):
            _write(cursor, changes)
            changes = Changes()
        if isinstance(recorded.event, TermStarted):
            _extend_deadlines(cursor, recorded.event.extended_ms)
        fold(recorded, changes)
        if isinstance(recorded.event, LessonDeleted):
            _write(cursor, changes)
            changes = Changes()
    _write(cursor, changes)


def _extend_deadlines(cursor: CursorWrapper, extended_ms: int) -> None:
    """A new term moved every deadline of a session, claim and lock."""
    by = [extended_ms / 1000]
    cursor.execute(
        "UPDATE coordination_claudesession SET lease_expires_at = lease_expires_at + make_interval(secs => %s)"
        " WHERE status <> 'offline'",
        by,
    )
    cursor.execute(
        "UPDATE coordination_distributedtask SET claim_expires_at = claim_expires_at + make_interval(secs => %s)"
        " WHERE status IN ('assigned', 'in_progress')",
        by,
    )
    cursor.execute(
        "UPDATE coordination_distributedlock SET expires_at = expires_at + make_interval(secs => %s)", by
    )


def _write(cursor: CursorWrapper, changes: Changes) -> None:
    """All patches. Sessions go first, since the others look them up by name; deletions go last."""
    registered = [patch for name, patch in changes.sessions.items() if name in changes.registered]
    tables.upsert(cursor, tables.SESSIONS, registered)
    tables.update(
        cursor,
        tables.SESSIONS,
        [patch for name, patch in changes.sessions.items() if name not in changes.registered],
    )
    tables.update(cursor, tables.LESSONS, changes.lessons.values())
    tables.update(cursor, tables.TASKS, changes.tasks.values())
    tables.upsert(cursor, tables.ATTEMPTS, changes.attempts.values(), only_if=_TASK_EXISTS, keep=True)
    tables.update(cursor, tables.ATTEMPTS, changes.ended.values())
    _take_results(cursor, changes.completed)
    _write_locks(cursor, changes)
    _write_affinities(cursor, changes)
    _delete_tasks(cursor, changes.deleted_tasks)
    _delete_lessons(cursor, changes.deleted_lessons)
    tables.upsert(cursor, tables.HISTORY, changes.history, keep=True)


_TASK_EXISTS = "EXISTS (SELECT 1 FROM coordination_distributedtask t WHERE t.id = v.task_id)"
_BOTH_EXIST = (
    "EXISTS (SELECT 1 FROM coordination_claudesession s WHERE s.session_name = v.session_id)"
    " AND (v.lesson_id IS NULL OR EXISTS (SELECT 1 FROM coordination_lesson l WHERE l.id = v.lesson_id))"
)


def _take_results(cursor: CursorWrapper, task_ids: Iterable[str]) -> None:
    """The result handed in under the token that completed the task becomes the task's; others go."""
    wanted = sorted(task_ids)
    if wanted:
        cursor.execute(
            "WITH handed_in AS (DELETE FROM coordination_taskresult AS r USING unnest(%s::uuid[]) AS v (id)"
            " WHERE r.task_id = v.id RETURNING r.task_id, r.claim_token, r.result)"
            " UPDATE coordination_distributedtask AS t SET result = handed_in.result FROM handed_in"
            " WHERE t.id = handed_in.task_id AND t.claim_token = handed_in.claim_token",
            [wanted],
        )


def _write_locks(cursor: CursorWrapper, changes: Changes) -> None:
    freed = [{"lock_key": key} for key, patch in changes.locks.items() if patch is None]
    held = [patch for patch in changes.locks.values() if patch is not None]
    tables.delete(cursor, tables.LOCKS, freed)
    tables.upsert(cursor, tables.LOCKS, [patch for patch in held if "owner_id" in patch])
    tables.update(cursor, tables.LOCKS, [patch for patch in held if "owner_id" not in patch])
    tables.upsert(cursor, tables.LOCK_TOKENS, changes.lock_tokens.values())


def _write_affinities(cursor: CursorWrapper, changes: Changes) -> None:
    gone = [
        {"session_id": session_name, "lesson_id": lesson_id}
        for (session_name, lesson_id), patch in changes.affinities.items()
        if patch is None and lesson_id
    ]
    gone_for_any_work = [
        session_name
        for (session_name, lesson_id), patch in changes.affinities.items()
        if patch is None and not lesson_id
    ]
    set_rows = [patch for patch in changes.affinities.values() if patch is not None]
    tables.delete(cursor, tables.AFFINITIES, gone)
    if gone_for_any_work:
        cursor.execute(
            "DELETE FROM coordination_sessionaffinity AS a USING coordination_claudesession AS s"
            " WHERE s.id = a.session_id AND a.lesson_id IS NULL AND s.session_name = ANY(%s::text[])",
            [gone_for_any_work],
        )
    tables.upsert(cursor, tables.AFFINITIES, set_rows, only_if=_BOTH_EXIST)


def _delete_tasks(cursor: CursorWrapper, task_ids: Iterable[str]) -> None:
    gone = sorted(task_ids)
    if not gone:
        return
    for statement in (
        "DELETE FROM coordination_taskattempt WHERE task_id = ANY(%s::uuid[])",
        "DELETE FROM coordination_taskresult WHERE task_id = ANY(%s::uuid[])",
        "DELETE FROM coordination_distributedtask_depends_on WHERE from_distributedtask_id = ANY(%s::uuid[])",
        "DELETE FROM coordination_distributedtask_depends_on WHERE to_distributedtask_id = ANY(%s::uuid[])",
        "DELETE FROM coordination_distributedtask WHERE id = ANY(%s::uuid[])",
    ):
        cursor.execute(statement, [gone])


def _delete_lessons(cursor: CursorWrapper, lesson_ids: Iterable[str]) -> None:
    gone = sorted(lesson_ids)
    if not gone:
        return
    for statement in (
        "UPDATE coordination_distributedtask SET lesson_id = NULL WHERE lesson_id = ANY(%s::uuid[])",
        "UPDATE coordination_claudesession SET lesson_id = NULL WHERE lesson_id = ANY(%s::uuid[])",
        "DELETE FROM coordination_sessionaffinity WHERE lesson_id = ANY(%s::uuid[])",
        "DELETE FROM coordination_lesson WHERE id = ANY(%s::uuid[])",
    ):
        cursor.execute(statement, [gone])


# After a gap


def reconcile(state: State, author: Author) -> int:
    """Rewrite the rows from a whole state, and note the gap in the history; the watermark afterwards.

    A state of the same cluster that is no newer than the rows changes nothing. Raises Behind where the rows
    are of another cluster and newer: that cluster was lost, and this one must begin above them first.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        watermark = _locked(cursor)
        is_foreign = watermark.revision > 0 and watermark.cluster_id != author.cluster_id
        if is_foreign and state.revision <= watermark.revision:
            raise Behind(f"the rows show revision {watermark.revision} of another cluster")
        if not is_foreign and state.revision <= watermark.revision:
            return watermark.revision
        _rewrite(cursor, state, watermark, is_lost=is_foreign)
        _note_gap(cursor, state, watermark, is_lost=is_foreign)
        _move(cursor, state.revision, state.clock_ms, author, reconciled=1)
        return state.revision


def _rewrite(cursor: CursorWrapper, state: State, watermark: Watermark, *, is_lost: bool) -> None:
    changes = changes_of(state)
    _end_unknown_attempts(cursor, state)
    _settle_finals(cursor, state)
    _settle_unknown_tasks(cursor, state, watermark, is_lost=is_lost)
    _drop_unknown_locks_and_affinities(cursor, state, is_lost=is_lost)
    cursor.execute(
        "UPDATE coordination_claudesession SET status = 'offline', health_status = 'unhealthy', lease_token = 0,"
        " current_task_count = 0, updated_at = now()"
        " WHERE status <> 'offline' AND NOT session_name = ANY(%s::text[])",
        [sorted(changes.sessions)],
    )
    if is_lost:
        # The new cluster counts from nothing; the rows know more.
        changes.lessons.clear()
    changes.history = [
        history_of(recorded)
        for recorded in state.ring
        if recorded.event.audited and recorded.revision > watermark.revision
    ]
    _write(cursor, changes)


def _live_claims(state: State) -> tuple[list[str], list[int]]:
    claims = [(task.task_id, task.claim.token) for task in state.tasks.values() if task.claim is not None]
    return [task_id for task_id, _ in claims], [token for _, token in claims]


def _end_unknown_attempts(cursor: CursorWrapper, state: State) -> None:
    """Attempts that run in the rows but not in the state ended while nobody wrote it down."""
    cursor.execute(
        "UPDATE coordination_taskattempt AS a SET outcome = CASE WHEN f.status = 'completed' THEN 'completed'"
        " WHEN f.status = 'cancelled' THEN 'cancelled' WHEN f.status = 'failed' THEN 'failed' ELSE 'expired' END,"
        " ended_at = to_timestamp(%s / 1000.0), updated_at = now(),"
        " error = CASE WHEN f.status IS NULL THEN 'ended while the projection was away' ELSE '' END"
        " FROM coordination_taskattempt AS running"
        " LEFT JOIN unnest(%s::text[], %s::bigint[]) AS live (task_id, token)"
        " ON live.task_id = running.task_id::text AND live.token = running.claim_token"
        " LEFT JOIN unnest(%s::text[], %s::bigint[], %s::text[]) AS f (task_id, token, status)"
        " ON f.task_id = running.task_id::text AND f.token = running.claim_token"
        " WHERE a.id = running.id AND running.outcome = 'running' AND live.task_id IS NULL",
        [state.stamp_ms, *_live_claims(state), *_finals(state)],
    )


def _finals(state: State) -> tuple[list[str], list[int], list[str]]:
    finals = list(state.finals.values())
    return (
        [final.task_id for final in finals],
        [final.claim_token for final in finals],
        [final.status.value for final in finals],
    )


def _settle_finals(cursor: CursorWrapper, state: State) -> None:
    """Tasks that ended in the gap, as far as the machine remembers them."""
    cursor.execute(
        "UPDATE coordination_distributedtask AS t SET status = f.status, claimed_by_id = NULL, claimed_at = NULL,"
        " claim_expires_at = NULL, run_after = NULL, claim_token = GREATEST(t.claim_token, f.token),"
        " retry_count = LEAST(t.max_retries, f.retry_count),"
        " progress = CASE WHEN f.status = 'completed' THEN 100 ELSE 0 END, progress_note = '',"
        " completed_at = to_timestamp(%s / 1000.0), enqueued_revision = %s, updated_at = now()"
        " FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::int[]) AS f (task_id, token, status, retry_count)"
        " WHERE t.id::text = f.task_id AND t.status <> f.status",
        [
            state.stamp_ms,
            state.revision,
            *_finals(state),
            [final.retry_count for final in state.finals.values()],
        ],
    )
    _take_results(
        cursor,
        [
            final.task_id
            for final in state.finals.values()
            if final.status == "completed" and is_uuid(final.task_id)
        ],
    )


def _settle_unknown_tasks(
    cursor: CursorWrapper, state: State, watermark: Watermark, *, is_lost: bool
) -> None:
    """Live rows the machine does not hold.

    Those it was never given stay. Where a cluster was lost, or nothing it finished since the watermark was
    forgotten, the others did not finish: back to pending, for the feeder. Else one may have finished
    unseen, and must not run again by itself: failed, for a person to decide.
    """
    known = [*state.tasks, *state.finals]
    may_run_again = is_lost or state.forgotten_revision <= watermark.revision
    condition = (
        " WHERE status IN ('pending', 'assigned', 'in_progress') AND enqueued_revision IS NOT NULL"
        " AND NOT id::text = ANY(%s::text[])"
    )
    if may_run_again:
        cursor.execute(
            "UPDATE coordination_distributedtask SET status = 'pending', claimed_by_id = NULL, claimed_at = NULL,"  # noqa: S608
            " claim_expires_at = NULL, progress = 0, progress_note = '', enqueued_revision = NULL,"
            " updated_at = now()" + condition,
            [known],
        )
        return
    cursor.execute(
        "UPDATE coordination_distributedtask SET status = 'failed', claimed_by_id = NULL, claimed_at = NULL,"  # noqa: S608
        " claim_expires_at = NULL, run_after = NULL, completed_at = to_timestamp(%s / 1000.0), updated_at = now(),"
        " error_message = 'ended while the projection was away longer than the cluster remembers'"
        + condition,
        [state.stamp_ms, known],
    )


def _drop_unknown_locks_and_affinities(cursor: CursorWrapper, state: State, *, is_lost: bool) -> None:
    held = [text(lock.lock_key) for lock in state.locks.values() if lock.owner_id]
    cursor.execute("DELETE FROM coordination_distributedlock WHERE NOT lock_key = ANY(%s::text[])", [held])
    if is_lost:
        return
    pairs = [
        (state.sessions[session_id].session_name, lesson_id)
        for session_id, rows in state.affinities.items()
        for lesson_id in rows
    ]
    cursor.execute(
        "DELETE FROM coordination_sessionaffinity AS a USING coordination_claudesession AS s"
        " WHERE s.id = a.session_id AND s.session_name = ANY(%s::text[])"
        " AND NOT EXISTS (SELECT 1 FROM unnest(%s::text[], %s::text[]) AS v (session_name, lesson_id)"
        " WHERE v.session_name = s.session_name AND v.lesson_id = coalesce(a.lesson_id::text, ''))",
        [
            [session.session_name for session in state.sessions.values()],
            [session_name for session_name, _ in pairs],
            [lesson_id for _, lesson_id in pairs],
        ],
    )


def _note_gap(cursor: CursorWrapper, state: State, watermark: Watermark, *, is_lost: bool) -> None:
    note: Patch = {
        "raft_index": state.revision,
        "sequence": GAP_SEQUENCE,
        "kind": "projection_reconciled",
        "subject": "cluster",
        "actor": "projection",
        "data": json_text(
            {"from_revision": watermark.revision, "to_revision": state.revision, "cluster_was_lost": is_lost}
        ),
        "occurred_at": state.stamp_ms,
    }
    tables.upsert(cursor, tables.HISTORY, [note], keep=True)
