"""Affinities: how well a session suits a lesson, within a time window if it has one."""

import uuid
from datetime import datetime

from coordination.errors import InvalidError, NotFound
from coordination.machine import commands
from coordination.machine.outcomes import Done
from coordination.models import SessionAffinity, new_id
from coordination.services.submitting import id_or_fresh, submit_one, unix_ms


def set_affinity(
    session_name: str,
    lesson_id: uuid.UUID | None,
    affinity_score: float = 1.0,
    *,
    actor: str,
    time_window_start: datetime | None = None,
    time_window_end: datetime | None = None,
    request_id: bytes = b"",
) -> tuple[uuid.UUID, int]:
    """Insert the affinity of a session for a lesson, or change the one there is: its id and the revision.

    Without a lesson it is for any work, where the session has no affinity for its lesson.
    """
    if not 0.0 <= affinity_score <= 1.0:
        raise InvalidError("affinity_score", "must be 0 to 1")
    if time_window_start and time_window_end and time_window_start >= time_window_end:
        raise InvalidError("time_window_end", "must be after time_window_start")
    known = SessionAffinity.objects.filter(session__session_name=session_name, lesson_id=lesson_id)
    affinity_id = known.values_list("id", flat=True).first() or new_id()
    command = commands.AffinitySet(
        request_id=id_or_fresh(request_id),
        actor=actor,
        affinity_id=str(affinity_id),
        session_name=session_name,
        lesson_id=str(lesson_id or ""),
        score_milli=round(affinity_score * 1000),
        window_start_ms=unix_ms(time_window_start),
        window_end_ms=unix_ms(time_window_end),
    )
    _, revision = submit_one(command, Done)
    return affinity_id, revision


def update_affinity(
    affinity_id: uuid.UUID,
    *,
    actor: str,
    affinity_score: float | None = None,
    time_window: tuple[datetime | None, datetime | None] | None = None,
    request_id: bytes = b"",
) -> tuple[uuid.UUID, int]:
    """Change the score, the window, or both: its id and the revision. Raises NotFound."""
    row = _row_of(affinity_id)
    start, end = time_window or (row.time_window_start, row.time_window_end)
    return set_affinity(
        row.session.session_name,
        row.lesson_id,
        row.affinity_score if affinity_score is None else affinity_score,
        actor=actor,
        time_window_start=start,
        time_window_end=end,
        request_id=request_id,
    )


def mark_affinity_used(
    affinity_id: uuid.UUID, *, actor: str, request_id: bytes = b""
) -> tuple[uuid.UUID, int]:
    """Note that it was used now, which each assignment does by itself. Raises NotFound."""
    return update_affinity(affinity_id, actor=actor, request_id=request_id)


def delete_affinity(affinity_id: uuid.UUID, *, actor: str, request_id: bytes = b"") -> int:
    """Delete one; the revision. Raises NotFound."""
    row = _row_of(affinity_id)
    command = commands.AffinityDelete(
        request_id=id_or_fresh(request_id),
        actor=actor,
        session_name=row.session.session_name,
        lesson_id=str(row.lesson_id or ""),
    )
    return submit_one(command, Done)[1]


def _row_of(affinity_id: uuid.UUID) -> SessionAffinity:
    row = SessionAffinity.objects.select_related("session").filter(pk=affinity_id).first()
    if row is None:
        raise NotFound("affinity", affinity_id)
    return row
