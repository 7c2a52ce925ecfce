"""Rules of lessons and of the affinity of sessions for them."""

import msgspec

from coordination.machine.commands import AffinityDelete, AffinitySet, LessonArchive, LessonDelete
from coordination.machine.events import AffinityChanged, AffinityDeleted, LessonDeleted
from coordination.machine.kinds import RejectionCode
from coordination.machine.outcomes import Done, LessonAnswer
from coordination.machine.state import Lesson, State

from .counters import lesson_progressed
from .decision import MAX_ID, Decision, Refusal, invalid, is_id
from .sessions import no_session


def archive(state: State, command: LessonArchive) -> Decision:
    """Archive a lesson, or open it again; its tasks go on."""
    if not is_id(command.lesson_id):
        return invalid(f"lesson_id must be 1 to {MAX_ID} characters")
    lesson = state.lessons.get(command.lesson_id) or Lesson(lesson_id=command.lesson_id)
    if lesson.archived is not command.archived:
        yield lesson_progressed(msgspec.structs.replace(lesson, archived=command.archived))
        lesson = state.lessons[command.lesson_id]
    return LessonAnswer(lesson_id=command.lesson_id, status=lesson.status.value)


def delete(state: State, command: LessonDelete) -> Decision:
    """Forget a lesson. One that never had a task, session or affinity is as good as forgotten."""
    if not is_id(command.lesson_id):
        return invalid(f"lesson_id must be 1 to {MAX_ID} characters")
    is_known = (
        command.lesson_id in state.lessons
        or any(session.lesson_id == command.lesson_id for session in state.sessions.values())
        or any(command.lesson_id in rows for rows in state.affinities.values())
    )
    if is_known:
        yield LessonDeleted(lesson_id=command.lesson_id)
    return Done()


def set_affinity(state: State, command: AffinitySet) -> Decision:
    """Insert or change an affinity by hand; without a lesson it is for any work."""
    session = state.session_named(command.session_name)
    if session is None:
        return no_session(command.session_name)
    if len(command.lesson_id) > MAX_ID or len(command.affinity_id) > MAX_ID:
        return invalid(f"lesson_id and affinity_id are at most {MAX_ID} characters")
    if not 0 <= command.score_milli <= 1000:
        return invalid("affinity_score must be 0 to 1")
    start_ms, end_ms = command.window_start_ms, command.window_end_ms
    if start_ms < 0 or end_ms < 0 or (end_ms and start_ms >= end_ms):
        return invalid("the time window must start before it ends")
    rows = state.affinities.get(session.session_id, {})
    known = rows.get(command.lesson_id)
    if known is None and len(rows) >= state.policy.max_affinities:
        return Refusal(RejectionCode.OVERLOADED, f"{len(rows)} affinities are all a session can have")
    yield AffinityChanged(
        affinity_id=command.affinity_id,
        session_id=session.session_id,
        session_name=session.session_name,
        lesson_id=command.lesson_id,
        score_milli=command.score_milli,
        window_start_ms=start_ms,
        window_end_ms=end_ms,
        last_used_ms=state.clock_ms,
    )
    return Done()


def delete_affinity(state: State, command: AffinityDelete) -> Decision:
    """Drop an affinity."""
    session = state.session_named(command.session_name)
    if session is None:
        return no_session(command.session_name)
    affinity = state.affinities.get(session.session_id, {}).get(command.lesson_id)
    if affinity is None:
        return Refusal(
            RejectionCode.NOT_FOUND,
            f"{command.session_name} has no affinity for {command.lesson_id or 'any work'}",
        )
    yield AffinityDeleted(
        affinity_id=affinity.affinity_id,
        session_id=session.session_id,
        session_name=session.session_name,
        lesson_id=command.lesson_id,
    )
    return Done()
