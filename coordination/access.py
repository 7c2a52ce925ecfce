"""Who may see and change which rows of coordination: the one place that decides.

Agents share one fleet: whoever may use coordination at all reads all of it. What a session may change is
decided by tokens (lease, claim, fencing), not by ownership; operators need `admin`.
"""

from typing import Protocol

from coordination.models import (
    ClaudeSession,
    ClaudeSessionQuerySet,
    CoordinationEvent,
    CoordinationEventQuerySet,
    DistributedLock,
    DistributedLockQuerySet,
    DistributedTask,
    DistributedTaskQuerySet,
    Lesson,
    LessonQuerySet,
    SessionAffinity,
    SessionAffinityQuerySet,
)

ADMIN = "admin"
AGENT = "agent"


class Asker(Protocol):
    """Whoever asks: the site's Principal."""

    @property
    def scopes(self) -> frozenset[str]:
        """What the key or login may do."""
        ...


def may_use(asker: Asker) -> bool:
    """Whether sessions, tasks and locks may be read and asked for at all."""
    return bool(asker.scopes & {AGENT, ADMIN})


def may_operate(asker: Asker) -> bool:
    """Whether others' sessions, tasks and locks may be changed without their tokens."""
    return ADMIN in asker.scopes


def sessions(asker: Asker) -> ClaudeSessionQuerySet:
    """The sessions the asker may see."""
    return ClaudeSession.objects.all() if may_use(asker) else ClaudeSession.objects.none()


def tasks(asker: Asker) -> DistributedTaskQuerySet:
    """The tasks the asker may see."""
    return DistributedTask.objects.all() if may_use(asker) else DistributedTask.objects.none()


def lessons(asker: Asker) -> LessonQuerySet:
    """The lessons the asker may see."""
    return Lesson.objects.all() if may_use(asker) else Lesson.objects.none()


def locks(asker: Asker) -> DistributedLockQuerySet:
    """The locks the asker may see."""
    return DistributedLock.objects.all() if may_use(asker) else DistributedLock.objects.none()


def affinities(asker: Asker) -> SessionAffinityQuerySet:
    """The affinities the asker may see."""
    return SessionAffinity.objects.all() if may_use(asker) else SessionAffinity.objects.none()


def events(asker: Asker) -> CoordinationEventQuerySet:
    """The history the asker may see."""
    return CoordinationEvent.objects.all() if may_use(asker) else CoordinationEvent.objects.none()
