"""Rows for tests of queries, with only what a test does not care about filled in."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

from coordination.models import (
    ClaudeSession,
    DistributedLock,
    DistributedTask,
    Lesson,
    SessionAffinity,
    TaskAttempt,
)

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)  # a Monday
_numbers = itertools.count(1)


def minutes(count: float) -> datetime:
    """So many minutes after NOW."""
    return NOW + timedelta(minutes=count)


def session(**values: Any) -> ClaudeSession:
    defaults = {
        "session_name": f"session-{next(_numbers)}",
        "tier": "worker",
        "provider": "claude",
        "lease_expires_at": minutes(1),
        "last_heartbeat": NOW,
        "created_at": NOW,
    }
    return ClaudeSession.objects.create(**defaults | values)


def lesson(**values: Any) -> Lesson:
    return Lesson.objects.create(**{"title": "Parser", "created_at": NOW} | values)


def task(**values: Any) -> DistributedTask:
    defaults = {
        "idempotency_key": f"key-{next(_numbers)}",
        "task_type": "review",
        "created_at": NOW,
        "enqueued_revision": 1,
    }
    return DistributedTask.objects.create(**defaults | values)


def claimed_task(by: ClaudeSession, **values: Any) -> DistributedTask:
    defaults = {
        "status": "assigned",
        "claimed_by": by,
        "claimed_at": NOW,
        "claim_expires_at": minutes(10),
        "claim_token": next(_numbers),
    }
    return task(**defaults | values)


def attempt(of: DistributedTask, **values: Any) -> TaskAttempt:
    defaults = {"attempt_number": 1, "claim_token": next(_numbers), "started_at": NOW}
    return TaskAttempt.objects.create(task=of, **defaults | values)


def lock(**values: Any) -> DistributedLock:
    defaults = {
        "lock_key": f"lock-{next(_numbers)}",
        "owner_id": "a",
        "acquired_at": NOW,
        "expires_at": minutes(1),
        "fencing_token": next(_numbers),
    }
    return DistributedLock.objects.create(**defaults | values)


def affinity(session: ClaudeSession, lesson: Lesson | None, **values: Any) -> SessionAffinity:
    return SessionAffinity.objects.create(session=session, lesson=lesson, **values)
