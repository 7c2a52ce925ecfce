"""The closed vocabularies of detection: metric types, signal families, severities.

Pure data. Models, services and pages take their choices from here.
"""

from enum import StrEnum


class MetricType(StrEnum):
    """The metric types detectors know; an app may register more, which detectors ignore."""

    KEYPRESS = "keypress"
    BACKSPACE = "backspace"
    SCROLLING = "scrolling"
    MOUSE_MOVEMENT = "mouse_movement"
    CLICK = "click"
    ERROR = "error"
    HESITATION = "hesitation"
    PAUSE = "pause"
    COMPLETION = "completion"
    FOCUS = "focus"
    BLUR = "blur"
    NAVIGATION = "navigation"
    ANSWER = "answer"
    HINT = "hint"
    HELP_REQUEST = "help_request"
    DEAD_CLICK = "dead_click"
    RAGE_CLICK = "rage_click"
    ERROR_CLICK = "error_click"
    RATING = "rating"  # 1 to 5


class SignalFamily(StrEnum):
    """What kind of behaviour a signal is about; at most one episode is open per family."""

    HELP = "help"  # the pupil asked
    ACCURACY = "accuracy"  # wrong answers and errors
    PROGRESS = "progress"  # many tries at a skill without mastering it
    TYPING = "typing"  # corrections
    PACE = "pace"  # slower than the pupil's own pace
    PAUSE = "pause"  # long pauses and nothing at all
    AWAY = "away"  # the app is not in front
    GUESSING = "guessing"  # fast answers and hints clicked through
    RATING = "rating"  # low satisfaction ratings
    APP_HEALTH = "app_health"  # dead, rage and error clicks: about the app, not about the pupil
    RECOVERY = "recovery"  # things go well again
    REFERENCE = "reference"  # the thresholds of the reference engine, for comparison only


class Severity(StrEnum):
    """Severity of an episode and of its stored frustration event, lowest first."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class AlertSeverity(StrEnum):
    """Severity of what a teacher is shown, lowest first."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Presence(StrEnum):
    """What a pupil's seat shows besides signals."""

    ACTIVE = "active"
    IDLE = "idle"
    AWAY = "away"
    GONE = "gone"


SEVERITY_RANK: dict[Severity, int] = {severity: rank for rank, severity in enumerate(Severity)}
ALERT_RANK: dict[AlertSeverity, int] = {severity: rank for rank, severity in enumerate(AlertSeverity)}

ALERT_SEVERITY: dict[Severity, AlertSeverity] = {
    Severity.LOW: AlertSeverity.INFO,
    Severity.MEDIUM: AlertSeverity.WARNING,
    Severity.HIGH: AlertSeverity.WARNING,
    Severity.CRITICAL: AlertSeverity.CRITICAL,
}

# Families that speak of a pupil's difficulty with the work; class_stuck counts these and no others.
STRUGGLE_FAMILIES: frozenset[SignalFamily] = frozenset(
    {
        SignalFamily.HELP,
        SignalFamily.ACCURACY,
        SignalFamily.PROGRESS,
        SignalFamily.TYPING,
        SignalFamily.PACE,
        SignalFamily.PAUSE,
        SignalFamily.GUESSING,
    }
)
