"""What is set for a class, who set it, and what a budget would have meant."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from usability import access
from usability.detection.budget import Controls, decide, full
from usability.detection.kinds import AlertSeverity, SignalFamily
from usability.detection.policy import InvalidProfile, Profile
from usability.kinds import ProfileState
from usability.models import Classroom, DetectorProfile, Enrollment, TeacherDashboardAlert
from usability.policies import PRESETS, profile_of, to_ms, utc_offset_minutes
from usability.selectors.trends import class_hours

HISTORY = 8
PREVIEW_BACK = dt.timedelta(days=14)
PREVIEW_MOST = 5_000
_FAMILIES = frozenset(one.value for one in SignalFamily)


@dataclass(frozen=True, slots=True)
class Version:
    """One version of what is set: who made it when, and what it changed, as (what, before, after)."""

    version: int
    state: str
    by: str
    at: dt.datetime
    note: str
    changes: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class ClassSettings:
    """What holds in a class. `version` 0: nothing of its own; what holds for every class does.

    `preset` is "custom" where an admin has set parameters no preset has. `off` are the detectors turned off.
    """

    classroom: Classroom
    version: int
    preset: str
    off: frozenset[str]
    alerts_per_10_min: float
    alert_burst: int
    quiet_hours: tuple[Mapping[str, Any], ...]
    seats: tuple[tuple[str, str, str], ...]
    history: tuple[Version, ...]


def class_settings(classroom_id: Any, *, who: Any) -> ClassSettings:
    """What is set for the class. Raises `NotFound`."""
    classroom = access.get_classroom(who, classroom_id)
    own = list(
        DetectorProfile.objects.filter(classroom=classroom, app_name="")
        .select_related("created_by")
        .order_by("-version")[: HISTORY + 1]
    )
    active = next((row for row in own if row.state == ProfileState.ACTIVE), None)
    common = DetectorProfile.objects.filter(
        classroom__isnull=True, app_name="", state=ProfileState.ACTIVE
    ).first()
    row = active or common or DetectorProfile()
    seats = (
        Enrollment.objects.current()
        .filter(classroom=classroom)
        .select_related("student")
        .order_by("student__display_name", "student_id")
    )
    return ClassSettings(
        classroom=classroom,
        version=own[0].version if own else 0,
        preset=preset_of(row.parameters),
        off=frozenset(
            name for name, one in detectors_of(row.parameters).items() if one.get("enabled") is False
        ),
        alerts_per_10_min=row.alerts_per_10_min,
        alert_burst=row.alert_burst,
        quiet_hours=tuple(row.quiet_hours),
        seats=tuple((one.student_id, one.student.display_name or one.student_id, one.seat) for one in seats),
        history=tuple(_history(own, common)),
    )


def detectors_of(parameters: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The detectors' part of stored parameters."""
    parts = {"detectors", "episodes", "class_stuck", "late_s", "preset"}
    found = parameters.get("detectors", {}) if parts & parameters.keys() else parameters
    return {name: one for name, one in found.items() if isinstance(one, Mapping)}


def preset_of(parameters: Mapping[str, Any]) -> str:
    """The preset these parameters are, apart from detectors that are turned off; else custom."""
    tuned = any(set(one) - {"enabled"} for one in detectors_of(parameters).values())
    others = {key for key in parameters if key in {"class_stuck", "late_s"}}
    if tuned or others:
        return "custom"
    episodes = dict(parameters.get("episodes", {}))
    return next((name for name, one in PRESETS.items() if one.get("episodes", {}) == episodes), "custom")


def _history(own: Sequence[DetectorProfile], common: DetectorProfile | None) -> list[Version]:
    if not own:
        return []
    before = [*own[1:], common or DetectorProfile()]
    return [
        Version(
            version=row.version,
            state=row.state,
            by=_name(row.created_by),
            at=row.created_at,
            note=row.note,
            changes=tuple(_changes(earlier, row)),
        )
        for row, earlier in list(zip(own, before, strict=True))[:HISTORY]
    ]


def _name(user: Any) -> str:
    return (user.get_full_name() or user.get_username()) if user else ""


def _changes(before: DetectorProfile, after: DetectorProfile) -> list[tuple[str, str, str]]:
    found = []
    if (before.alerts_per_10_min, before.alert_burst) != (after.alerts_per_10_min, after.alert_burst):
        found.append(("budget", _budget(before), _budget(after)))
    if before.quiet_hours != after.quiet_hours:
        found.append(("quiet_hours", _quiet(before), _quiet(after)))
    if preset_of(before.parameters) != preset_of(after.parameters):
        found.append(("preset", preset_of(before.parameters), preset_of(after.parameters)))
    off = [
        {name for name, one in detectors_of(row.parameters).items() if one.get("enabled") is False}
        for row in (before, after)
    ]
    found += [("off", name, "") for name in sorted(off[1] - off[0])]
    found += [("on", name, "") for name in sorted(off[0] - off[1])]
    return found


def _budget(row: DetectorProfile) -> str:
    return f"{row.alerts_per_10_min:g}/{row.alert_burst}"


def _quiet(row: DetectorProfile) -> str:
    return ", ".join(f"{one.get('from')}–{one.get('until')}" for one in row.quiet_hours)


# ---------------------------------------------------------------- what a budget would have meant


@dataclass(frozen=True, slots=True)
class BudgetPreview:
    """How many of the alerts of the last two weeks would have interrupted, and how many waited in the list."""

    interrupting: int
    waiting: int
    class_hours: float

    @property
    def per_hour(self) -> float | None:
        """Interruptions a class-hour; None where nobody worked."""
        return self.interrupting / self.class_hours if self.class_hours else None


def budget_preview(
    classroom_id: Any, *, who: Any, alerts_per_10_min: float, burst: int, now: dt.datetime
) -> BudgetPreview:
    """The stored alerts of the class once more through the budget of detection. Raises `NotFound`, `Invalid`."""
    classroom = access.get_classroom(who, classroom_id)
    row = DetectorProfile.objects.filter(classroom=classroom, app_name="", state=ProfileState.ACTIVE).first()
    trial = DetectorProfile(
        alerts_per_10_min=alerts_per_10_min, alert_burst=burst, quiet_hours=row.quiet_hours if row else []
    )
    try:
        profile = profile_of(trial)
    except InvalidProfile:
        profile = Profile()
    since = now - PREVIEW_BACK
    alerts = (
        TeacherDashboardAlert.objects.filter(classroom=classroom, created_at__gte=since, created_at__lt=now)
        .exclude(alert_type="recovered")
        .order_by("created_at", "id")
        .values_list("created_at", "severity", "alert_type", "student_id")[:PREVIEW_MOST]
    )
    controls = Controls(utc_offset_minutes=utc_offset_minutes(classroom.school.time_zone, now))
    budget, interrupting, waiting = full(profile.budget), 0, 0
    for at, severity, family, student_id in alerts:
        budget, verdict = decide(
            budget,
            now_ms=to_ms(at),
            severity=AlertSeverity(severity),
            family=SignalFamily(family) if family in _FAMILIES else None,
            student_id=student_id or "",
            is_in_class_card=False,
            policy=profile.budget,
            quiet_hours=profile.quiet_hours,
            controls=controls,
        )
        interrupting += verdict.interrupts
        waiting += not verdict.interrupts
    return BudgetPreview(interrupting, waiting, class_hours(classroom, since, now))
