"""The closed vocabularies of the usability tables; the database checks each of them."""

from django.db.models import TextChoices


class TeacherRole(TextChoices):
    """What a teacher is in a class."""

    LEAD = "lead"
    CO_TEACHER = "co_teacher"
    ASSISTANT = "assistant"


class EventSeverity(TextChoices):
    """How bad an episode is, lowest first."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class AlertSeverity(TextChoices):
    """How urgent an alert is, lowest first."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class AlertState(TextChoices):
    """How far an alert has come."""

    NEW = "new"
    ACKNOWLEDGED = "acknowledged"
    HELPING = "helping"
    RESOLVED = "resolved"
    DISMISSED = "dismissed"
    EXPIRED = "expired"


class AlertVerb(TextChoices):
    """What a person can do with an alert."""

    ACKNOWLEDGE = "acknowledge"
    ON_MY_WAY = "on_my_way"
    HELPED = "helped"
    DISMISS = "dismiss"
    SNOOZE = "snooze"
    RESOLVE = "resolve"


OPEN_ALERT_STATES = (AlertState.NEW, AlertState.ACKNOWLEDGED, AlertState.HELPING)


class HealthMeasure(TextChoices):
    """What is counted about an app, an hour at a time."""

    ACCEPTED = "accepted"
    LATE = "late"
    REJECTED = "rejected"
    SDK = "sdk"
    DEAD_CLICK = "dead_click"
    RAGE_CLICK = "rage_click"
    ERROR_CLICK = "error_click"


class InterventionKind(TextChoices):
    """What the portal offers; a client of the API may name another."""

    TALKED = "talked"
    EXPLAINED = "explained"
    HINTED = "hinted"
    ENCOURAGED = "encouraged"
    PAIRED = "paired"
    TECHNICAL = "technical"
    OTHER = "other"


class ProfileState(TextChoices):
    """What a version of a detector profile is for."""

    DRAFT = "draft", "draft"
    SHADOW = "shadow", "in shadow"
    ACTIVE = "active", "active"
    RETIRED = "retired", "retired"


class RunState(TextChoices):
    """How far a back-test is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
