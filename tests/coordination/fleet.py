"""Short ways to have sessions and claimed tasks on a real node."""

import itertools
import threading
import uuid
from collections.abc import Callable
from typing import Any

from django.db import connections

from coordination import selectors, services
from coordination.models import ClaudeSession, DistributedTask
from coordination.services import ClaimedTask, NewSession, NewTask, SessionGrant

ACTOR = "key:test"
_numbers = itertools.count(1)


def fresh(kind: str) -> str:
    """A name nobody used before: the shared node remembers."""
    return f"{kind}-{next(_numbers)}-{uuid.uuid4().hex[:6]}"


def registered(**values: Any) -> SessionGrant:
    """A session with a lease."""
    return services.register_session(NewSession(**{"session_name": fresh("session")} | values), actor=ACTOR)


def enqueued(**values: Any) -> DistributedTask:
    """A task in the queue."""
    new = NewTask(**{"idempotency_key": fresh("key"), "task_type": "review"} | values)
    return services.enqueue(new, actor=ACTOR).task


def claimed(session: SessionGrant, **values: Any) -> ClaimedTask:
    """A task of its own type, so that no other is taken, claimed by the session."""
    task_type = fresh("type")
    enqueued(task_type=task_type, **values)
    return claim(session, task_types=(task_type,))


def claim(session: SessionGrant, **values: Any) -> ClaimedTask:
    """The one task a claim gets."""
    found = services.claim(session.session_name, session.lease_token, actor=ACTOR, **values)
    assert len(found.tasks) == 1, found.reason
    return found.tasks[0]


def session_row(name: str, revision: int = 0) -> ClaudeSession:
    """The row of a session, once it shows `revision`."""
    selectors.wait_until_projected(revision)
    return selectors.session(name)


def task_row(task_id: uuid.UUID, revision: int = 0) -> DistributedTask:
    """The row of a task, once it shows `revision`."""
    selectors.wait_until_projected(revision)
    return DistributedTask.objects.get(pk=task_id)


def in_thread(function: Callable[..., object], *args: object) -> threading.Thread:
    """A started thread that hands its database connection back at its end."""

    def run() -> None:
        try:
            function(*args)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    return thread
