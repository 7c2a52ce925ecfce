"""What a teacher sets for a class: pause, budget, quiet hours, which signals, seats.

Each change of detection's policy is a new version of the class's profile; the old ones stay for the back-test.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.utils import timezone

from usability.access import get_classroom, person
from usability.detection.policy import InvalidProfile
from usability.errors import Invalid, NotFound
from usability.models import SEAT_PATTERN, Classroom, DetectorProfile, Enrollment
from usability.policies import PRESETS, profile_of
from usability.push import hint_after_commit
from usability.services.numbering import take_seqs

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    if not 0 <= alerts <= ALERTS_LIMIT:
        raise Invalid("alerts", f"a number from 0 to {ALERTS_LIMIT}, not {alerts}")
    if not 1 <= per_minutes <= 24 * 60:
        raise Invalid("per_minutes", f"from 1 to {24 * 60}, not {per_minutes}")
    if burst is not None and not 0 <= burst <= ALERTS_LIMIT:
        raise Invalid("burst", f"a whole number from 0 to {ALERTS_LIMIT}, not {burst}")
    changes: dict[str, Any] = {"alerts_per_10_min": alerts * 10 / per_minutes}
    if burst is not None:
        changes["alert_burst"] = burst
    return _next_version(classroom_id, who, changes)


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
    for name, clock in (("starts_at", starts_at), ("ends_at", ends_at)):
        if enabled and not CLOCK.fullmatch(clock):
            raise Invalid(name, f"a time such as 15:30, not {clock!r}")
    if enabled and (not days or any(day not in range(1, 8) for day in days)):
        raise Invalid("days", "some of 1 to 7, Monday is 1")
    entry = {"days": sorted(set(days)), "from": starts_at, "until": ends_at}
    return _next_version(classroom_id, who, {"quiet_hours": [entry] if enabled else []})


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
    """A new active version of the class's own profile, made of the last one with these changes.

    The first one copies what held for everybody. The classroom's row is locked, so versions come one by one.
    """
    classroom = get_classroom(who, classroom_id)
    with transaction.atomic():
        return _write_version(classroom, who, changes)


def _write_version(classroom: Classroom, who: Any, changes: Mapping[str, Any]) -> DetectorProfile:
    seq = take_seqs(classroom.pk)
    own = DetectorProfile.objects.filter(classroom=classroom, app_name="").order_by("-version").first()
    common = DetectorProfile.objects.filter(classroom__isnull=True, app_name="", state="active").first()
    base = own or common or DetectorProfile()
    fields = {
        "parameters": base.parameters,
        "alerts_per_10_min": base.alerts_per_10_min,
        "alert_burst": base.alert_burst,
        "quiet_hours": base.quiet_hours,
        **changes,
    }
    row = DetectorProfile(
        classroom=classroom, version=own.version + 1 if own else 1, created_by=person(who), **fields
    )
    try:
        profile_of(row)
    except InvalidProfile as wrong:
        place, message = wrong.errors[0]
        raise Invalid(".".join(place) or "profile", message) from wrong
    DetectorProfile.objects.filter(classroom=classroom, app_name="", state="active").update(state="retired")
    row.save(force_insert=True)
    hint_after_commit(classroom.pk, seq, kind="class")
    return row
