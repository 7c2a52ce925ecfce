"""What a teacher sets for a class: pause, budget, quiet hours, which signals, seats.

Each change of detection's policy is a new version of the class's profile; the old ones stay for the back-test.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.utils import timezone

from usability.access import get_classroom
from usability.errors import Conflict, Invalid, NotFound
from usability.models import SEAT_PATTERN, Classroom, DetectorProfile, Enrollment
from usability.policies import PRESETS
from usability.push import hint_after_commit
from usability.services.numbering import take_seqs
from usability.services.profiles import parts_of, save_version

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

PAUSE_LIMIT_MINUTES = 24 * 60
ALERTS_LIMIT = 20
CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d")


def pause_class(classroom_id: Any, *, who: Any, minutes: float, now: dt.datetime | None = None) -> Classroom:
    """Nothing interrupts for so many minutes, help requests aside; the list goes on."""
    if not 0 < minutes <= PAUSE_LIMIT_MINUTES:
        raise Invalid("minutes", f"more than 0 and at most {PAUSE_LIMIT_MINUTES}, not {minutes}")
    until = (now or timezone.now()) + dt.timedelta(minutes=minutes)
    return _set_pause(classroom_id, who, until)


def resume_class(classroom_id: Any, *, who: Any) -> Classroom:
    """Ends the pause."""
    return _set_pause(classroom_id, who, None)


def _set_pause(classroom_id: Any, who: Any, until: dt.datetime | None) -> Classroom:
    classroom = get_classroom(who, classroom_id)
    with transaction.atomic():
        seq = take_seqs(classroom.pk)
        Classroom.objects.filter(pk=classroom.pk).update(paused_until=until, updated_at=timezone.now())
        hint_after_commit(classroom.pk, seq, kind="class")
    classroom.refresh_from_db()
    return classroom


def set_budget(
    classroom_id: Any, *, who: Any, alerts: float, per_minutes: float = 10, burst: int | None = None
) -> DetectorProfile:
    """How often signals may interrupt: `alerts` in `per_minutes`, at most `burst` at once (None: as it was)."""
    return _next_version(classroom_id, who, _budget_changes(alerts, per_minutes, burst))


def _budget_changes(alerts: float, per_minutes: float, burst: int | None) -> dict[str, Any]:
    if not 0 <= alerts <= ALERTS_LIMIT:
        raise Invalid("alerts", f"a number from 0 to {ALERTS_LIMIT}, not {alerts}")
    if not 1 <= per_minutes <= 24 * 60:
        raise Invalid("per_minutes", f"from 1 to {24 * 60}, not {per_minutes}")
    if burst is not None and not 0 <= burst <= ALERTS_LIMIT:
        raise Invalid("burst", f"a whole number from 0 to {ALERTS_LIMIT}, not {burst}")
    changes: dict[str, Any] = {"alerts_per_10_min": alerts * 10 / per_minutes}
    if burst is not None:
        changes["alert_burst"] = burst
    return changes


def set_quiet_hours(
    classroom_id: Any,
    *,
    who: Any,
    starts_at: str,
    ends_at: str,
    days: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7),
    enabled: bool = True,
) -> DetectorProfile:
    """Local times (HH:MM) between which nothing interrupts; `days` 1 to 7 from Monday; not enabled: none."""
    if not enabled:
        return _next_version(classroom_id, who, {"quiet_hours": []})
    entry = _quiet_entry({"days": days, "from": starts_at, "until": ends_at})
    return _next_version(classroom_id, who, {"quiet_hours": [entry]})


def _quiet_entry(given: Mapping[str, Any]) -> dict[str, Any]:
    for name, key in (("starts_at", "from"), ("ends_at", "until")):
        if not CLOCK.fullmatch(given[key]):
            raise Invalid(name, f"a time such as 15:30, not {given[key]!r}")
    days = sorted(set(given["days"]))
    if not days or any(day not in range(1, 8) for day in days):
        raise Invalid("days", "some of 1 to 7, Monday is 1")
    return {"days": days, "from": given["from"], "until": given["until"]}


def set_profile(
    classroom_id: Any,
    *,
    who: Any,
    preset: str = "balanced",
    switches: Mapping[str, bool] | None = None,
) -> DetectorProfile:
    """Which signals the class shows and how early; `switches` turn single detectors off or on by name."""
    if preset not in PRESETS:
        raise Invalid("preset", f"one of {', '.join(PRESETS)}, not {preset!r}")
    detectors = {name: {"enabled": bool(is_on)} for name, is_on in (switches or {}).items()}
    parameters = {**PRESETS[preset], "detectors": detectors, "preset": preset}
    return _next_version(classroom_id, who, {"parameters": parameters})


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the settings page asks for, all of it at once. `preset` None keeps the parameters an admin has tuned."""

    alerts: float
    per_minutes: float
    burst: int
    preset: str | None
    off: frozenset[str]
    quiet_hours: tuple[Mapping[str, Any], ...]


def save_settings(
    classroom_id: Any, *, who: Any, wanted: Wanted, known_version: int, offered: Collection[str]
) -> DetectorProfile | None:
    """One new version with all of it; None where it is what holds already.

    `offered` are the detectors the page could turn off; the others stay as they are. Raises `Conflict` where the
    newest version is not the one the page was made from: somebody else has changed it meanwhile.
    """
    changes = {
        **_budget_changes(wanted.alerts, wanted.per_minutes, wanted.burst),
        "quiet_hours": [_quiet_entry(one) for one in wanted.quiet_hours],
    }
    if wanted.preset is not None and wanted.preset not in PRESETS:
        raise Invalid("preset", f"one of {', '.join(PRESETS)}, not {wanted.preset!r}")
    classroom = get_classroom(who, classroom_id)
    with transaction.atomic():
        Classroom.objects.select_for_update(no_key=True).get(pk=classroom.pk)
        own = DetectorProfile.objects.filter(classroom=classroom, app_name="").order_by("-version").first()
        if (own.version if own else 0) != known_version:
            by = own.created_by if own else None
            name = (by.get_full_name() or by.get_username()) if by else "Somebody"
            raise Conflict(f"{name} has changed these settings meanwhile. Look at them and save again.")
        base = _base_of(classroom)
        changes["parameters"] = _parameters(base.parameters, wanted, offered)
        if base.pk and all(getattr(base, name) == value for name, value in changes.items()):
            return None
        return save_version(who=who, classroom=classroom, changes=changes)


def _base_of(classroom: Classroom) -> DetectorProfile:
    active = DetectorProfile.objects.filter(state="active", app_name="")
    return (
        active.filter(classroom=classroom).first()
        or active.filter(classroom__isnull=True).first()
        or DetectorProfile()
    )


def _parameters(stored: Mapping[str, Any], wanted: Wanted, offered: Collection[str]) -> dict[str, Any]:
    """Stored parameters with the page's preset and switches; whatever else an admin has tuned stays."""
    found = parts_of(stored)
    if wanted.preset is not None:
        found.pop("episodes", None)
        found.update(
            parts_of({"detectors": {}, **PRESETS[wanted.preset]}) | {"detectors": found["detectors"]}
        )
    detectors = found["detectors"]
    for name in offered:
        own = {key: value for key, value in detectors.get(name, {}).items() if key != "enabled"}
        if name in wanted.off:
            own["enabled"] = False
        if own:
            detectors[name] = own
        else:
            detectors.pop(name, None)
    return found


def set_seats(classroom_id: Any, *, who: Any, seats: Mapping[str, str]) -> dict[str, str]:
    """Who sits where, by pseudonym; "" takes a pupil off the map. Pupils not named keep their place.

    Answers the whole plan. Raises `Invalid` naming the seat that is no place or taken twice.
    """
    classroom = get_classroom(who, classroom_id)
    for student_id, place in seats.items():
        if place and not re.match(SEAT_PATTERN, place):
            raise Invalid(student_id, f"a column letter and a row number such as C2, not {place!r}")
    with transaction.atomic():
        seq = take_seqs(classroom.pk)
        rows = {row.student_id: row for row in Enrollment.objects.current().filter(classroom=classroom)}
        if unknown := sorted(seats.keys() - rows.keys()):
            raise NotFound(f"{unknown[0]} is not in this class.")
        plan = {student_id: seats.get(student_id, row.seat) for student_id, row in rows.items()}
        _check_places(plan)
        moved = [row for student_id, row in rows.items() if plan[student_id] != row.seat]
        # Everybody stands up before anybody sits down: two may change places.
        Enrollment.objects.filter(pk__in=[row.pk for row in moved]).update(seat="")
        for row in moved:
            row.seat = plan[row.student_id]
        Enrollment.objects.bulk_update(moved, ["seat"])
        hint_after_commit(classroom.pk, seq, kind="class")
    return plan


def _check_places(plan: Mapping[str, str]) -> None:
    taken: dict[str, str] = {}
    for student_id, place in sorted(plan.items()):
        if place and place in taken:
            raise Invalid(student_id, f"seat {place} is taken by {taken[place]}")
        taken[place] = student_id


def _next_version(classroom_id: Any, who: Any, changes: Mapping[str, Any]) -> DetectorProfile:
    """A new active version of the class's own profile, made of what holds with these changes."""
    return save_version(who=who, classroom=get_classroom(who, classroom_id), changes=changes)
