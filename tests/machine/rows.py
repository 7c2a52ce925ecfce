"""Rows as a reader of events keeps them: it knows no rules, only the absolute values events carry."""

from __future__ import annotations

from typing import Any

from coordination.machine import events as e
from coordination.machine.events import Recorded
from coordination.machine.kinds import SessionStatus, TaskStatus
from coordination.machine.state import State

Rows = dict[tuple[str, str], dict[str, Any]]


def rows_of(state: State) -> Rows:
    """What the rows of a state are: live tasks, remembered finals, sessions, lessons, locks, affinities."""
    rows: Rows = {}
    for session in state.sessions.values():
        rows["session", session.session_name] = {
            "id": session.session_id,
            "status": session.status,
            "health": session.health,
            "lease_token": session.lease_token,
            "lease_expires_ms": session.lease_expires_ms if session.is_online else 0,
            "count": session.current_task_count,
            "max": session.max_concurrent_tasks,
            "streak": session.consecutive_failures,
            "completed": session.tasks_completed,
            "failed": session.tasks_failed,
            "lesson": session.lesson_id,
        }
    for task in state.tasks.values():
        claim = task.claim
        rows["task", task.task_id] = {
            "status": task.status,
            "retries": task.retry_count,
            "priority": task.spec.priority,
            "lesson": task.spec.lesson_id,
            "token": claim.token if claim else 0,
            "holder": claim.session_name if claim else "",
            "expires_ms": claim.expires_ms if claim else 0,
            "attempt": task.attempt,
        }
    for final in state.finals.values():
        rows["task", final.task_id] = {
            "status": final.status,
            "retries": final.retry_count,
            "attempt": final.attempt,
        }
    for lesson in state.lessons.values():
        rows["lesson", lesson.lesson_id] = {
            "total": lesson.tasks_total,
            "completed": lesson.tasks_completed,
            "failed": lesson.tasks_failed,
            "status": lesson.status,
        }
    for lock in state.locks.values():
        rows["lock", lock.lock_key] = {
            "owner": lock.owner_id,
            "token": lock.fencing_token,
            "expires_ms": lock.expires_ms,
            "renewed": lock.renewed_count,
        }
    for affinities in state.affinities.values():
        for affinity in affinities.values():
            rows["affinity", f"{affinity.session_id}/{affinity.lesson_id}"] = {
                "score": affinity.score_milli,
                "last_used_ms": affinity.last_used_ms,
            }
    return rows


def project(rows: Rows, recorded: Recorded) -> None:
    """Change the rows by one event."""
    event = recorded.event
    match event:
        case e.SessionRegistered():
            row = rows.setdefault(
                ("session", event.session_name),
                {"count": 0, "completed": 0, "failed": 0, "id": event.session_id},
            )
            row |= {
                "status": event.status,
                "health": event.health,
                "lease_token": event.lease_token,
                "lease_expires_ms": event.lease_expires_ms,
                "max": event.max_concurrent_tasks,
                "streak": event.consecutive_failures,
                "lesson": event.lesson_id,
            }
        case e.SessionRenewed():
            rows["session", event.session_name] |= {
                "lease_expires_ms": event.lease_expires_ms,
                "health": event.health,
            }
        case e.SessionUpdated():
            rows["session", event.session_name] |= {
                "max": event.max_concurrent_tasks,
                "lesson": event.lesson_id,
            }
        case e.SessionStatusChanged():
            rows["session", event.session_name] |= {
                "status": event.status,
                "streak": event.consecutive_failures,
            }
        case e.SessionHealthChanged():
            rows["session", event.session_name] |= {
                "health": event.health,
                "streak": event.consecutive_failures,
            }
        case e.SessionFailed():
            rows["session", event.session_name] |= {
                "status": SessionStatus.FAILED,
                "streak": event.consecutive_failures,
            }
        case e.SessionExpired() | e.SessionDeregistered():
            rows["session", event.session_name] |= {
                "status": SessionStatus.OFFLINE,
                "health": "unhealthy",
                "lease_token": 0,
                "lease_expires_ms": 0,
            }
        case e.SessionForgotten():
            del rows["session", event.session_name]
            for key in [
                key for key in rows if key[0] == "affinity" and key[1].startswith(f"{event.session_id}/")
            ]:
                del rows[key]
        case e.SessionCounted():
            rows["session", event.session_name] |= {
                "status": event.status,
                "count": event.current_task_count,
                "streak": event.consecutive_failures,
                "completed": event.tasks_completed,
                "failed": event.tasks_failed,
            }
        case e.LessonProgressed():
            rows["lesson", event.lesson_id] = {
                "total": event.tasks_total,
                "completed": event.tasks_completed,
                "failed": event.tasks_failed,
                "status": event.status,
            }
        case e.LessonDeleted():
            _forget_lesson(rows, event.lesson_id)
        case e.LockAcquired():
            rows["lock", event.lock_key] = {
                "owner": event.owner_id,
                "token": event.fencing_token,
                "expires_ms": event.expires_ms,
                "renewed": 0,
            }
        case e.LockRenewed():
            rows["lock", event.lock_key] |= {"expires_ms": event.expires_ms, "renewed": event.renewed_count}
        case e.LockReleased() | e.LockExpired():
            del rows["lock", event.lock_key]
        case e.AffinityEvent():
            rows["affinity", f"{event.session_id}/{event.lesson_id}"] = {
                "score": event.score_milli,
                "last_used_ms": event.last_used_ms,
            }
        case e.AffinityDeleted():
            del rows["affinity", f"{event.session_id}/{event.lesson_id}"]
        case e.TermStarted():
            _extend(rows, event.extended_ms)
        case e.TaskEvent():
            _project_task(rows, event)


def _project_task(rows: Rows, event: e.TaskEvent) -> None:
    key = ("task", event.task_id)
    free = {"token": 0, "holder": "", "expires_ms": 0}
    match event:
        case e.TaskEnqueued():
            rows[key] = {
                "status": TaskStatus.PENDING,
                "retries": 0,
                "priority": event.spec.priority,
                "lesson": event.spec.lesson_id,
                "attempt": 0,
            } | free
        case e.TaskRetried():
            rows[key] = {
                "status": TaskStatus.PENDING,
                "retries": 0,
                "priority": event.spec.priority,
                "lesson": event.spec.lesson_id,
                "attempt": event.attempt,
            } | free
        case e.TaskUpdated():
            rows[key]["priority"] = event.spec.priority
        case e.TaskClaimed():
            rows[key] |= {
                "status": TaskStatus.ASSIGNED,
                "token": event.claim_token,
                "holder": event.session_name,
                "expires_ms": event.expires_ms,
                "attempt": event.attempt,
            }
        case e.TaskStarted():
            rows[key]["status"] = TaskStatus.IN_PROGRESS
        case e.TaskRenewed():
            rows[key]["expires_ms"] = event.expires_ms
        case e.TaskRequeued():
            rows[key] |= {"status": TaskStatus.PENDING, "retries": event.retry_count} | free
        case e.TaskCompleted():
            rows[key] = _final(TaskStatus.COMPLETED, event)
        case e.TaskFailed():
            rows[key] = _final(TaskStatus.FAILED, event)
        case e.TaskCancelled():
            rows[key] = _final(TaskStatus.CANCELLED, event)
        case e.TaskDeleted():
            rows.pop(key, None)


def _final(status: TaskStatus, event: e.TaskCompleted | e.TaskFailed | e.TaskCancelled) -> dict[str, Any]:
    return {"status": status, "retries": event.retry_count, "attempt": event.attempt}


def _extend(rows: Rows, extended_ms: int) -> None:
    for (kind, _), row in rows.items():
        if row.get("expires_ms"):
            row["expires_ms"] += extended_ms
        if kind == "session" and row["lease_expires_ms"]:
            row["lease_expires_ms"] += extended_ms


def _forget_lesson(rows: Rows, lesson_id: str) -> None:
    rows.pop(("lesson", lesson_id), None)
    for row in rows.values():
        if row.get("lesson") == lesson_id:
            row["lesson"] = ""
    for key in [key for key in rows if key[0] == "affinity" and key[1].endswith(f"/{lesson_id}")]:
        del rows[key]
