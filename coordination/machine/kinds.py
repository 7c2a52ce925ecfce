"""The closed vocabularies of coordination; models, API and machine share these values."""

from enum import StrEnum


class Tier(StrEnum):
    """What kind of work a session is for."""

    HIGH_LEVEL = "high_level"
    MANAGER = "manager"
    WORKER = "worker"


class Provider(StrEnum):
    """Whose model a session runs."""

    CLAUDE = "claude"
    CODEX = "codex"
    OLLAMA = "ollama"
    OPENAI = "openai"
    GEMINI = "gemini"


class SessionStatus(StrEnum):
    """Idle and busy follow the claims; the others are asked for, or happen."""

    IDLE = "idle"
    BUSY = "busy"
    PAUSED = "paused"
    DRAINING = "draining"
    FAILED = "failed"
    OFFLINE = "offline"


class Health(StrEnum):
    """How well a session's heartbeats come."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


class TaskStatus(StrEnum):
    """Pending, claimed (assigned, in_progress), or final."""

    PENDING = "pending"
    ASSIGNED = "assigned"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the task is over."""
        return self in FINAL

    @property
    def is_claimed(self) -> bool:
        """Whether a session holds it."""
        return self in CLAIMED


FINAL = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED})
CLAIMED = frozenset({TaskStatus.ASSIGNED, TaskStatus.IN_PROGRESS})


class LessonStatus(StrEnum):
    """Follows the lesson's tasks, but for archived."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    ARCHIVED = "archived"


class DependencyPolicy(StrEnum):
    """What a failed or cancelled dependency does to a task that waits for it."""

    FAIL = "fail"
    RELEASE = "release"


class AttemptOutcome(StrEnum):
    """How one claim of a task ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"  # the claim ran out while its session lived
    SESSION_LOST = "session_lost"  # the session's lease ran out, or it was failed
    HANDED_BACK = "handed_back"  # the session said goodbye
    CANCELLED = "cancelled"
    NONE = ""  # no attempt was running


class DirectiveKind(StrEnum):
    """What a heartbeat's answer can tell a session to do."""

    DRAIN = "drain"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL_TASK = "cancel_task"
    ASSIGNED = "assigned"


class RejectionCode(StrEnum):
    """Why a rule refused a command. The first seven are slugs of the HTTP API's problems."""

    VALIDATION = "validation-error"
    NOT_FOUND = "not-found"
    CONFLICT = "conflict"
    LEASE_EXPIRED = "lease-expired"
    STALE_TOKEN = "stale-token"  # noqa: S105  a code, not a secret
    OVERLOADED = "overloaded"
    PERMISSION = "permission-denied"
    UNKNOWN_DEPENDENCY = "unknown-dependency"
    DEPENDENCY_CYCLE = "dependency-cycle"
    UNDECODABLE = "undecodable"
