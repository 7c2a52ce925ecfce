"""Counters as facts: the events that tell a session's and a lesson's numbers after a change.

They are absolute and taken from the indices, so they cannot drift from what they count.
"""

from coordination.machine.events import AffinityDeleted, AffinityUsed, LessonProgressed, SessionCounted
from coordination.machine.kinds import SessionStatus, TaskStatus
from coordination.machine.scoring import affinity_now
from coordination.machine.state import Lesson, Session, State

from .decision import Consequences

LEARNING = 8  # a result moves the affinity an eighth of the way to 1000 or to 0
FIRST_SCORE = 500


def count_session(
    state: State,
    session: Session,
    *,
    completed: int = 0,
    failed: int = 0,
    busy_ms: int = 0,
    streak: int | None = None,
) -> Consequences:
    """Tell the counters of a session; `streak` is its new number of failures in a row, None to keep it."""
    count = len(state.claims_index.get(session.session_id, ()))
    yield SessionCounted(
        session_id=session.session_id,
        session_name=session.session_name,
        status=working_status(session.status, count),
        current_task_count=count,
        consecutive_failures=session.consecutive_failures if streak is None else streak,
        tasks_completed=session.tasks_completed + completed,
        tasks_failed=session.tasks_failed + failed,
        busy_ms=session.busy_ms + busy_ms,
    )


def working_status(status: SessionStatus, claims: int) -> SessionStatus:
    """Idle and busy follow the claims; every other status stays."""
    if status not in (SessionStatus.IDLE, SessionStatus.BUSY):
        return status
    return SessionStatus.BUSY if claims else SessionStatus.IDLE


def count_lesson(
    state: State,
    lesson_id: str,
    *,
    total: int = 0,
    completed: int = 0,
    failed: int = 0,
    started: bool = False,
) -> Consequences:
    """Move the counters of a task's lesson, if it has one and something moves."""
    if not lesson_id:
        return
    before = state.lessons.get(lesson_id)
    if before is None:
        before = Lesson(lesson_id=lesson_id)
    after = Lesson(
        lesson_id=lesson_id,
        tasks_total=before.tasks_total + total,
        tasks_completed=before.tasks_completed + completed,
        tasks_failed=before.tasks_failed + failed,
        started=before.started or started,
        archived=before.archived,
    )
    if after != before:
        yield lesson_progressed(after)


def uncount_final(state: State, lesson_id: str, status: TaskStatus) -> Consequences:
    """Take a finished task out of its lesson's counters, where they count it: cancelled ones they do not."""
    lesson = state.lessons.get(lesson_id)
    if lesson is None:
        return
    if status is TaskStatus.COMPLETED and lesson.tasks_completed:
        yield from count_lesson(state, lesson_id, total=-1, completed=-1)
    if status is TaskStatus.FAILED and lesson.tasks_failed:
        yield from count_lesson(state, lesson_id, total=-1, failed=-1)


def lesson_progressed(lesson: Lesson) -> LessonProgressed:
    """The event that tells a lesson's counters."""
    return LessonProgressed(
        lesson_id=lesson.lesson_id,
        tasks_total=lesson.tasks_total,
        tasks_completed=lesson.tasks_completed,
        tasks_failed=lesson.tasks_failed,
        started=lesson.started,
        archived=lesson.archived,
        status=lesson.status,
    )


def use_affinity(
    state: State, session: Session, lesson_id: str, *, result: bool | None = None
) -> Consequences:
    """Mark that a session works in a lesson, and learn from a result: True completed, False failed.

    A first assignment makes the affinity; beyond the bound the one used longest ago goes, but never the one
    for any work, which somebody set.
    """
    if not lesson_id:
        return
    rows = state.affinities.get(session.session_id, {})
    known = rows.get(lesson_id)
    if known is None and len(rows) >= state.policy.max_affinities:
        learned_rows = [row for row in rows.values() if row.lesson_id]
        if not learned_rows:
            return
        oldest = min(learned_rows, key=lambda row: (row.last_used_ms, row.lesson_id))
        yield AffinityDeleted(
            affinity_id=oldest.affinity_id,
            session_id=session.session_id,
            session_name=session.session_name,
            lesson_id=oldest.lesson_id,
        )
    score = FIRST_SCORE if known is None else affinity_now(known, state.clock_ms, state.policy)
    yield AffinityUsed(
        affinity_id="" if known is None else known.affinity_id,
        session_id=session.session_id,
        session_name=session.session_name,
        lesson_id=lesson_id,
        score_milli=learned(score, result=result),
        window_start_ms=0 if known is None else known.window_start_ms,
        window_end_ms=0 if known is None else known.window_end_ms,
        last_used_ms=state.clock_ms,
    )


def learned(score_milli: int, *, result: bool | None) -> int:
    """A score moved towards what a result says: True completed, False failed, None nothing."""
    if result is None:
        return score_milli
    return score_milli + (1000 - score_milli) // LEARNING if result else score_milli - score_milli // LEARNING
