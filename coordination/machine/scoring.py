"""Who should do what, and why: hard filters with reasons, then a score, then ties broken by name.

All arithmetic is on integers, so every member computes the same. A score is in thousandths.
"""

from collections.abc import Iterable

import msgspec

from .commands import TimeWindow
from .kinds import Health, SessionStatus
from .policy import Policy
from .queue import LaneFilter
from .state import Affinity, Session, State, Task

DAY_MS = 86_400_000
MINUTE_MS = 60_000
EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday; Monday is 0

# The shares of a score, of 1000 in all. Affinity leads because a session that knows a lesson keeps its
# context; free capacity spreads the load among equals; a bad record loses to a good one.
AFFINITY_SHARE = 400
SAME_LESSON_SHARE = 250
CAPACITY_SHARE = 200
RELIABILITY_SHARE = 150

MAX_CANDIDATES = 100


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """Each part is in thousandths of its own best, `total` of the weighted sum's."""

    total: int
    affinity: int
    same_lesson: int
    capacity: int
    reliability: int


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One session judged for one task: `reasons` against it, or else its score."""

    session_name: str
    reasons: tuple[str, ...]
    score: Score | None


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why a task is, or is not, assigned. `obstacles` are the task's own; the best candidate is first.
    `waited_ms` is of logical time.
    """

    task_id: str
    status: str
    obstacles: tuple[str, ...]
    session_name: str
    waited_ms: int
    candidates: tuple[Candidate, ...]


# Hard filters


def is_open(window: TimeWindow, stamp_ms: int) -> bool:
    """Whether a window is open at this unix time in milliseconds."""
    if stamp_ms < window.start_ms or (window.end_ms and stamp_ms >= window.end_ms):
        return False
    weekday = (stamp_ms // DAY_MS + EPOCH_WEEKDAY) % 7
    if window.days and not window.days >> weekday & 1:
        return False
    return window.from_minute <= stamp_ms % DAY_MS // MINUTE_MS < window.to_minute


def in_time_window(session: Session, stamp_ms: int) -> bool:
    """Whether a session works now: it has no windows, or one is open."""
    return not session.time_windows or any(is_open(window, stamp_ms) for window in session.time_windows)


def why_unavailable(session: Session, stamp_ms: int) -> str:
    """The first reason why a session takes no task now, "" if it does."""
    if session.status not in (SessionStatus.IDLE, SessionStatus.BUSY):
        return session.status.value
    if session.health is not Health.HEALTHY:
        return "unhealthy"
    if session.current_task_count >= session.max_concurrent_tasks:
        return "no_room"
    if not in_time_window(session, stamp_ms):
        return "outside_window"
    return ""


def why_not(session: Session, task: Task, stamp_ms: int) -> tuple[str, ...]:
    """Every hard reason against giving this task to this session."""
    spec = task.spec
    missing = sorted(set(spec.required_capabilities) - set(session.capabilities))
    reasons = [why_unavailable(session, stamp_ms)]
    if spec.target_session and spec.target_session != session.session_name:
        reasons.append(f"task is for session {spec.target_session}")
    if spec.tier and spec.tier != session.tier:
        reasons.append(f"task asks for tier {spec.tier}")
    if missing:
        reasons.append(f"lacks {', '.join(missing)}")
    return tuple(reason for reason in reasons if reason)


def obstacles(task: Task) -> tuple[str, ...]:
    """Why nobody can be given this task now, whoever it is."""
    found = []
    if task.claim is not None:
        found.append(f"claimed by {task.claim.session_name}")
    if task.run_after_ms:
        found.append("held back until its time")
    found.extend(f"waits for task {dependency}" for dependency in task.waiting_on)
    return tuple(found)


# Scores


def affinity_now(affinity: Affinity, clock_ms: int, policy: Policy) -> int:
    """The stored score in thousandths, halved for each half-life since its last use, linear in between."""
    halvings, rest_ms = divmod(max(0, clock_ms - affinity.last_used_ms), policy.affinity_half_life_ms)
    if halvings > 10:  # below a thousandth
        return 0
    score = affinity.score_milli >> halvings
    return score - score * rest_ms // (2 * policy.affinity_half_life_ms)


def affinity_for(state: State, session: Session, lesson_id: str) -> int:
    """The affinity that counts now: that for the lesson, else that for any work ("").

    0 without one, or outside its time window.
    """
    rows = state.affinities.get(session.session_id, {})
    affinity = rows.get(lesson_id) or rows.get("")
    if affinity is None:
        return 0
    window = TimeWindow(start_ms=affinity.window_start_ms, end_ms=affinity.window_end_ms)
    return affinity_now(affinity, state.clock_ms, state.policy) if is_open(window, state.stamp_ms) else 0


def reliability(session: Session) -> int:
    """Share of tasks that did not fail, one success assumed, less a third for each failure in a row."""
    done = session.tasks_completed + 1
    rate = 1000 * done // (done + session.tasks_failed)
    return rate * max(0, 3 - session.consecutive_failures) // 3


def score(state: State, session: Session, task: Task) -> Score:
    """How well an able session suits a task."""
    lesson_id = task.spec.lesson_id
    affinity = affinity_for(state, session, lesson_id)
    same_lesson = 1000 if lesson_id and session.lesson_id == lesson_id else 0
    free = session.max_concurrent_tasks - session.current_task_count
    capacity = 1000 * free // session.max_concurrent_tasks
    record = reliability(session)
    total = (
        AFFINITY_SHARE * affinity
        + SAME_LESSON_SHARE * same_lesson
        + CAPACITY_SHARE * capacity
        + RELIABILITY_SHARE * record
    )
    return Score(
        total=total // 1000, affinity=affinity, same_lesson=same_lesson, capacity=capacity, reliability=record
    )


# Choices


def bonuses(state: State, session: Session) -> dict[str, int]:
    """By lesson, how much longer its tasks seem to have waited to this session, in milliseconds.

    An affinity for any work prefers no task to another, so it is not among them.
    """
    policy = state.policy
    found = {
        lesson_id: affinity_for(state, session, lesson_id) * policy.affinity_bonus_ms // 1000
        for lesson_id in state.affinities.get(session.session_id, ())
        if lesson_id
    }
    if session.lesson_id:
        found[session.lesson_id] = found.get(session.lesson_id, 0) + policy.lesson_bonus_ms
    return found


def best_task(
    state: State, session: Session, fits: LaneFilter, bonus_ms: dict[str, int]
) -> tuple[str, int] | None:
    """The id of the task a session should take next and the bonus it won by; None if nothing fits."""
    best = state.queue.best(fits, bonus_ms)
    return None if best is None else (best[0].task_id, best[1])


def filter_of(session: Session, task_types: tuple[str, ...] = ()) -> LaneFilter:
    """What a session may be given, of these types if any are named."""
    return LaneFilter(session.session_name, session.tier.value, session.capabilities, task_types)


def best_session(state: State, task: Task, sessions: Iterable[Session]) -> tuple[Session, Score] | None:
    """The session with the best score for a task, ties to the least loaded, then by name."""
    able = [session for session in sessions if not why_not(session, task, state.stamp_ms)]
    if not able:
        return None
    scored = [(session, score(state, session, task)) for session in able]
    return min(scored, key=lambda pair: (-pair[1].total, pair[0].current_task_count, pair[0].session_name))


def push_sessions(state: State) -> list[Session]:
    """The sessions that can be pushed a task now, by name."""
    able = [
        session
        for session in state.sessions.values()
        if session.accepts_push and not why_unavailable(session, state.stamp_ms)
    ]
    return sorted(able, key=lambda session: session.session_name)


def plan_assignments(state: State, limit: int) -> list[str]:
    """The ids of up to `limit` tasks worth a `TaskAssign` now: what each push session would take next."""
    planned: dict[str, None] = {}
    for session in push_sessions(state):
        choice = best_task(state, session, filter_of(session), bonuses(state, session))
        if choice is not None:
            planned[choice[0]] = None
        if len(planned) >= limit:
            break
    return list(planned)


def explain(state: State, task_id: str) -> Explanation | None:
    """Why a live task is or is not assigned, with up to 100 sessions judged; None where it is not live."""
    task = state.tasks.get(task_id)
    if task is None:
        return None
    candidates = [_judge(state, session, task) for session in state.sessions.values() if session.is_online]
    candidates.sort(key=lambda c: (c.score is None, -(c.score.total if c.score else 0), c.session_name))
    return Explanation(
        task_id=task_id,
        status=task.status.value,
        obstacles=obstacles(task),
        session_name=task.claim.session_name if task.claim else "",
        waited_ms=state.clock_ms - task.enqueued_ms,
        candidates=tuple(candidates[:MAX_CANDIDATES]),
    )


def _judge(state: State, session: Session, task: Task) -> Candidate:
    reasons = why_not(session, task, state.stamp_ms)
    return Candidate(
        session_name=session.session_name,
        reasons=reasons,
        score=None if reasons else score(state, session, task),
    )
