"""The alert budget of a classroom: what interrupts, and what waits in the ranked list.

A token bucket in whole milliseconds of credit, so that equal inputs give equal states. Whatever does not
interrupt stays in the list; nothing is lost here.
"""

from typing import Literal

import msgspec

from usability.detection.kinds import AlertSeverity, SignalFamily
from usability.detection.policy import BudgetPolicy, QuietHours

MINUTE_MS = 60_000
DAY_MINUTES = 1440
# 1 January 1970 was a Thursday.
EPOCH_WEEKDAY = 3

HeldBack = Literal[
    "", "info", "budget", "quiet_hours", "snoozed", "paused", "class_card", "already_told", "comparison"
]


class Controls(msgspec.Struct, frozen=True, kw_only=True):
    """What the teacher has set for now. Times in unix ms, 0 where nothing is set."""

    paused_until_ms: int = 0
    snoozed_until_ms: dict[str, int] = {}  # by student id
    utc_offset_minutes: int = 0  # of the school's local time, for quiet hours


class Budget(msgspec.Struct, frozen=True):
    """The bucket: `credit_ms` of saved-up time as of `at_ms`. An interruption costs one interval."""

    credit_ms: int
    at_ms: int


class Verdict(msgspec.Struct, frozen=True):
    """Whether an alert interrupts; if not, why it waits in the list."""

    interrupts: bool
    held_back: HeldBack = ""


INTERRUPTS = Verdict(True)


def full(policy: BudgetPolicy) -> Budget:
    """The bucket at the start of a lesson."""
    return Budget(credit_ms=policy.burst * policy.interval_s * 1000, at_ms=0)


def decide(
    budget: Budget,
    *,
    now_ms: int,
    severity: AlertSeverity,
    family: SignalFamily | None,
    student_id: str,
    is_in_class_card: bool,
    policy: BudgetPolicy,
    quiet_hours: tuple[QuietHours, ...],
    controls: Controls,
) -> tuple[Budget, Verdict]:
    """Whether an alert interrupts now, and the bucket after that. `family` None: a card about the class.

    A request for help passes snooze, pause and budget; what is critical passes snooze and budget. In quiet
    hours nothing interrupts. Comparison signals and information never do.
    """
    asked = family == SignalFamily.HELP
    is_urgent = asked or severity == AlertSeverity.CRITICAL
    if family == SignalFamily.REFERENCE:
        return budget, Verdict(False, "comparison")
    if is_quiet(now_ms, quiet_hours, controls.utc_offset_minutes):
        return budget, Verdict(False, "quiet_hours")
    if now_ms < controls.paused_until_ms and not asked:
        return budget, Verdict(False, "paused")
    if is_urgent:
        return budget, INTERRUPTS
    if severity == AlertSeverity.INFO:
        return budget, Verdict(False, "info")
    if now_ms < controls.snoozed_until_ms.get(student_id, 0):
        return budget, Verdict(False, "snoozed")
    if is_in_class_card:
        return budget, Verdict(False, "class_card")
    return _spend(budget, now_ms, policy)


def is_quiet(now_ms: int, quiet_hours: tuple[QuietHours, ...], utc_offset_minutes: int) -> bool:
    """Whether `now_ms` lies within quiet hours; hours over midnight belong to the day they begin on."""
    minutes = now_ms // MINUTE_MS + utc_offset_minutes
    minute, weekday = minutes % DAY_MINUTES, (minutes // DAY_MINUTES + EPOCH_WEEKDAY) % 7
    return any(_holds(hours, minute, weekday) for hours in quiet_hours)


def _holds(hours: QuietHours, minute: int, weekday: int) -> bool:
    start, end = _minute(hours.start), _minute(hours.end)
    if start <= end:
        return weekday in hours.days and start <= minute < end
    return (weekday in hours.days and minute >= start) or ((weekday - 1) % 7 in hours.days and minute < end)


def _minute(clock: str) -> int:
    hour, minute = clock.split(":")
    return int(hour) * 60 + int(minute)


def _spend(budget: Budget, now_ms: int, policy: BudgetPolicy) -> tuple[Budget, Verdict]:
    cost_ms = policy.interval_s * 1000
    gained_ms = max(0, now_ms - budget.at_ms) if budget.at_ms else 0
    credit_ms = min(policy.burst * cost_ms, budget.credit_ms + gained_ms)
    if credit_ms < cost_ms:
        return Budget(credit_ms, now_ms), Verdict(False, "budget")
    return Budget(credit_ms - cost_ms, now_ms), INTERRUPTS
