"""From stored settings to the policy detection is given: profiles, budgets, quiet hours, snoozes.

Detection gets its policy as data and asks nobody; this module is where the data comes from.
"""

from __future__ import annotations

import datetime as dt
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.db.models import Q

from usability.detection.budget import Controls
from usability.detection.policy import DEFAULT, InvalidProfile, Profile, from_dict
from usability.models import Classroom, DetectorProfile, Enrollment

if TYPE_CHECKING:
    import uuid
    from collections.abc import Collection, Iterable, Mapping

log = logging.getLogger("gaia.detection")

WINDOW_S = 600  # budgets are told as alerts in ten minutes
LONGEST_INTERVAL_S = 86_400
SHORTEST_INTERVAL_S = 30

# The parts of a profile that stand beside the detectors' parameters.
_PARTS = frozenset({"detectors", "episodes", "class_stuck", "late_s"})

# What a teacher chooses from: how early, against how sure. `balanced` is the default of every parameter.
PRESETS: dict[str, dict[str, Any]] = {
    "balanced": {},
    "later": {"episodes": {"hold_s": 60, "clear_s": 20, "cooldown_s": 600}},
    "earlier": {"episodes": {"hold_s": 10, "clear_s": 5, "cooldown_s": 180}},
}


@dataclass(frozen=True, slots=True)
class RoomPolicy:
    """Everything `detection.classroom.step` is told about one classroom."""

    roster: frozenset[str] = frozenset()
    profile: Profile = DEFAULT
    app_profiles: Mapping[str, Profile] = field(default_factory=dict)
    controls: Controls = field(default_factory=Controls)


def profile_of(row: DetectorProfile) -> Profile:
    """The detection profile of a stored row. Raises InvalidProfile, which the forms refuse before storing."""
    stored = row.parameters
    parts = dict(stored) if _PARTS & stored.keys() else {"detectors": stored}
    parts.pop("preset", None)
    if row.alerts_per_10_min > 0:
        interval_s = min(
            LONGEST_INTERVAL_S, max(SHORTEST_INTERVAL_S, round(WINDOW_S / row.alerts_per_10_min))
        )
        budget = {"interval_s": interval_s, "burst": min(50, row.alert_burst)}
    else:
        budget = {"interval_s": LONGEST_INTERVAL_S, "burst": 0}
    return from_dict(
        {
            **parts,
            "name": row.app_name or "every app",
            "version": max(1, row.version),
            "budget": budget,
            "quiet_hours": [_quiet(entry) for entry in row.quiet_hours],
        }
    )


def _quiet(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Stored quiet hours count Monday as 1 (ISO 8601), detection's as 0."""
    days = entry.get("days") or range(1, 8)
    return {"start": entry["from"], "end": entry["until"], "days": [day - 1 for day in days]}


def room_policies(classroom_ids: Collection[uuid.UUID], now: dt.datetime) -> dict[uuid.UUID, RoomPolicy]:
    """The policy of each classroom, in four queries whatever their number."""
    classrooms = Classroom.objects.filter(pk__in=classroom_ids).select_related("school")
    rows = list(DetectorProfile.objects.filter(state="active").select_related(None))
    enrolled: dict[uuid.UUID, set[str]] = {}
    snoozed: dict[uuid.UUID, dict[str, int]] = {}
    for classroom_id, student_id, until in (
        Enrollment.objects.current()
        .filter(classroom__in=classroom_ids)
        .values_list("classroom_id", "student_id", "snoozed_until")
    ):
        enrolled.setdefault(classroom_id, set()).add(student_id)
        if until is not None and until > now:
            snoozed.setdefault(classroom_id, {})[student_id] = to_ms(until)
    return {
        room.pk: RoomPolicy(
            roster=frozenset(enrolled.get(room.pk, ())),
            profile=_for(rows, room.pk, ""),
            app_profiles=_app_profiles(rows, room.pk),
            controls=Controls(
                paused_until_ms=to_ms(room.paused_until) if room.paused_until else 0,
                snoozed_until_ms=snoozed.get(room.pk, {}),
                utc_offset_minutes=utc_offset_minutes(room.school.time_zone, now),
            ),
        )
        for room in classrooms
    }


def _for(rows: Iterable[DetectorProfile], classroom_id: uuid.UUID, app_name: str) -> Profile:
    """The most specific profile: classroom and app, then classroom, then app, then everybody's."""
    by_place = {(row.classroom_id, row.app_name): row for row in rows}
    for place in ((classroom_id, app_name), (classroom_id, ""), (None, app_name), (None, "")):
        if place in by_place:
            return _usable(by_place[place])
    return DEFAULT


def _usable(row: DetectorProfile) -> Profile:
    """The profile of a row; the defaults where it is not acceptable to these detectors, and that is logged.

    Forms refuse such a row; one may come from a restore or from detectors that had other parameters.
    """
    try:
        return profile_of(row)
    except InvalidProfile as wrong:
        log.exception("profile_unusable", extra={"profile": str(row.pk), "why": str(wrong)})
        return DEFAULT


def _app_profiles(rows: list[DetectorProfile], classroom_id: uuid.UUID) -> dict[str, Profile]:
    apps = {row.app_name for row in rows if row.app_name and row.classroom_id in (None, classroom_id)}
    return {app_name: _for(rows, classroom_id, app_name) for app_name in sorted(apps)}


def active_profiles(classrooms: Collection[Classroom]) -> dict[uuid.UUID, DetectorProfile]:
    """The row that holds for each classroom as a whole: its own, else everybody's. Missing: the defaults hold."""
    keys = [classroom.pk for classroom in classrooms]
    rows = DetectorProfile.objects.filter(
        Q(classroom__in=keys) | Q(classroom__isnull=True), state="active", app_name=""
    )
    by_place = {row.classroom_id: row for row in rows}
    return {key: found for key in keys if (found := by_place.get(key) or by_place.get(None)) is not None}


def zone_of(name: str) -> dt.tzinfo:
    """The time zone of that IANA name; UTC where the name is not known."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return dt.UTC


def utc_offset_minutes(time_zone: str, now: dt.datetime) -> int:
    """Minutes the school's clock is ahead of UTC at `now`."""
    offset = now.astimezone(zone_of(time_zone)).utcoffset() or dt.timedelta()
    return int(offset.total_seconds() // 60)


def quiet_until(profile: DetectorProfile | None, time_zone: str, now: dt.datetime) -> dt.datetime | None:
    """When the quiet hours of the profile that hold now end; None outside of them."""
    if profile is None or not profile.quiet_hours:
        return None
    row, local = profile, now.astimezone(zone_of(time_zone))
    ends = [end for entry in row.quiet_hours if (end := _ends_at(entry, local)) is not None]
    return max(ends).astimezone(dt.UTC) if ends else None


def _ends_at(entry: Mapping[str, Any], local: dt.datetime) -> dt.datetime | None:
    """The local end of quiet hours that hold at `local`; hours over midnight belong to the day they begin on."""
    days = entry.get("days") or range(1, 8)
    start, end = (dt.time.fromisoformat(entry[key]) for key in ("from", "until"))
    for begins_on in (local.date(), local.date() - dt.timedelta(days=1)):
        if begins_on.isoweekday() not in days:
            continue
        begin = dt.datetime.combine(begins_on, start, local.tzinfo)
        ends_on = begins_on if start <= end else begins_on + dt.timedelta(days=1)
        finish = dt.datetime.combine(ends_on, end, local.tzinfo)
        if begin <= local < finish:
            return finish
    return None


def to_ms(moment: dt.datetime) -> int:
    """Unix milliseconds of an aware moment."""
    return int(moment.timestamp() * 1000)


def from_ms(ms: int) -> dt.datetime:
    """The moment of unix milliseconds, in UTC."""
    return dt.datetime.fromtimestamp(ms / 1000, tz=dt.UTC)
