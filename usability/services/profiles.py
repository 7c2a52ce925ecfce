"""Versions of detector profiles: written once, checked before they are stored, moved from state to state.

A version never changes; what changes is whether it is a draft, in shadow, active or retired. The worker reads
the active ones every second.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.db import connection, transaction
from django.utils import timezone

from usability.access import person
from usability.detection.policy import InvalidProfile
from usability.errors import Conflict, Invalid, NotFound
from usability.kinds import ProfileState
from usability.models import Classroom, DetectorProfile
from usability.policies import PRESETS, WINDOW_S, profile_of
from usability.push import hint_after_commit
from usability.services.numbering import take_seqs

if TYPE_CHECKING:
    from usability.backtest.wish import Wish

SETTLED = ("parameters", "alerts_per_10_min", "alert_burst", "quiet_hours")
# "gaia profiles" in ASCII: versions of profiles for every class come one by one.
_LOCK = 0x67707266


def save_version(
    *,
    who: Any,
    classroom: Classroom | None,
    app_name: str = "",
    state: str = ProfileState.ACTIVE,
    note: str = "",
    changes: Mapping[str, Any],
    base: DetectorProfile | None = None,
) -> DetectorProfile:
    """A new version for that place, made of `base` (else the newest there, else what holds for all) with changes.

    Raises `Invalid` naming the parameter where detection would not accept it.
    """
    if state not in (ProfileState.DRAFT, ProfileState.SHADOW, ProfileState.ACTIVE):
        raise Invalid("state", f"draft, shadow or active, not {state!r}")
    with transaction.atomic():
        _lock(classroom)
        here = DetectorProfile.objects.filter(classroom=classroom, app_name=app_name)
        newest = here.order_by("-version").first()
        active = here.filter(state=ProfileState.ACTIVE).first()
        common = DetectorProfile.objects.filter(
            classroom__isnull=True, app_name="", state=ProfileState.ACTIVE
        ).first()
        source = base or active or newest or common or DetectorProfile()
        row = DetectorProfile(
            classroom=classroom,
            app_name=app_name,
            version=newest.version + 1 if newest else 1,
            created_by=person(who) if who is not None else None,
            note=note[:200],
            **{name: getattr(source, name) for name in SETTLED} | dict(changes),
        )
        checked(row)
        _enter(row, state, who, timezone.now())
        row.save(force_insert=True)
    return row


def set_state(profile_id: Any, state: str, *, who: Any) -> DetectorProfile:
    """Move a version to another state; the one that was there before it is retired. Raises `NotFound`, `Conflict`."""
    if state not in ProfileState.values:
        raise Invalid("state", f"one of {', '.join(ProfileState.values)}, not {state!r}")
    with transaction.atomic():
        row = DetectorProfile.objects.select_related("classroom").filter(pk=profile_id).first()
        if row is None:
            raise NotFound
        _lock(row.classroom)
        row.refresh_from_db()
        if row.state == state:
            return row
        if row.state == ProfileState.ACTIVE and state != ProfileState.RETIRED:
            raise Conflict(f"{row} is active: retire it, or make another version active in its place.")
        checked(row)
        _enter(row, state, who, timezone.now())
        row.save(update_fields=["state", "state_at", "state_by", "updated_at"])
    return row


def checked(row: DetectorProfile) -> None:
    """Raises `Invalid` naming the parameter where detection would not accept the row."""
    try:
        profile_of(row)
    except InvalidProfile as wrong:
        place, message = wrong.errors[0]
        raise Invalid(".".join(place) or "profile", message) from wrong
    except (KeyError, TypeError, AttributeError) as wrong:
        raise Invalid(
            "quiet_hours", 'a list of {"days": [1..7], "from": "12:00", "until": "13:00"}'
        ) from wrong


def _enter(row: DetectorProfile, state: str, who: Any, now: dt.datetime) -> None:
    """Put the row into the state, and out of it whichever was there."""
    row.state, row.state_at, row.state_by = state, now, person(who) if who is not None else None
    if state in (ProfileState.ACTIVE, ProfileState.SHADOW):
        others = DetectorProfile.objects.filter(
            classroom=row.classroom, app_name=row.app_name, state=state
        ).exclude(pk=row.pk)
        others.update(state=ProfileState.RETIRED, state_at=now, state_by=row.state_by, updated_at=now)
    if state != ProfileState.DRAFT and row.classroom is not None:
        hint_after_commit(row.classroom.pk, take_seqs(row.classroom.pk), kind="class")


def _lock(classroom: Classroom | None) -> None:
    """Versions of one place come one by one: by the class's row, or by a lock where there is no class."""
    if classroom is not None:
        Classroom.objects.select_for_update(no_key=True).get(pk=classroom.pk)
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])


def save_candidate(wish: Wish, *, who: Any, classroom_id: Any, state: str, note: str = "") -> DetectorProfile:
    """The parameters a back-test has tried, as a new version for that class (None: for every one) and its app."""
    classroom = Classroom.objects.filter(pk=classroom_id).first() if classroom_id else None
    if classroom_id and classroom is None:
        raise NotFound
    base = None
    if wish.profile and wish.profile not in PRESETS:
        base = DetectorProfile.objects.filter(pk=wish.profile).first()
    start = dict(PRESETS[wish.profile]) if wish.profile in PRESETS else None
    source = base or _holding(classroom, wish.app_name)
    parameters = parts_of(start if start is not None else source.parameters)
    changes: dict[str, Any] = {}
    for name, value in wish.changes:
        first, *inner = name.split(".")
        if first == "budget":
            key = "alert_burst" if inner[0] == "burst" else "alerts_per_10_min"
            changes[key] = value if inner[0] == "burst" else WINDOW_S / value
            continue
        where = parameters if first in ("episodes", "class_stuck") else parameters["detectors"]
        for part in (first, *inner[:-1]):
            where = where.setdefault(part, {})
        where[inner[-1]] = value
    return save_version(
        who=who,
        classroom=classroom,
        app_name=wish.app_name,
        state=state,
        note=note or "from a back-test",
        changes={"parameters": parameters, **changes},
        base=source if source.pk else None,
    )


def _holding(classroom: Classroom | None, app_name: str) -> DetectorProfile:
    """The row that holds there; an unsaved one with the defaults where there is none."""
    rows = DetectorProfile.objects.filter(state=ProfileState.ACTIVE)
    places = [(classroom, app_name), (classroom, ""), (None, app_name), (None, "")]
    for room, app in places:
        found = rows.filter(classroom=room, app_name=app).first()
        if found is not None:
            return found
    return DetectorProfile()


def parts_of(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy of stored parameters with the detectors under their key."""
    parts = {"detectors", "episodes", "class_stuck", "late_s"}
    raw = dict(stored) if parts & stored.keys() else {"detectors": dict(stored)}
    copied = {name: _copied(value) for name, value in raw.items() if name != "preset"}
    copied.setdefault("detectors", {})
    return copied


def _copied(value: Any) -> Any:
    return {key: _copied(inner) for key, inner in value.items()} if isinstance(value, Mapping) else value
