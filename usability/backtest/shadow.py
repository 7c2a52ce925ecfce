"""Profiles in shadow: what they would have raised from what really came in, counted and told to nobody.

Every quarter of an hour the rows of the quarters that have passed, and of the two hours before them (after
which a silent pupil is forgotten, so a longer beginning would change nothing), are folded once through the
profile that holds and once through the one in shadow.
"""

from __future__ import annotations

import datetime as dt
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace

from django.db.models import Max

from usability.backtest import rows
from usability.backtest.replay import Raised, replay
from usability.backtest.run import LIMIT_S
from usability.detection.engine import FORGET_MS
from usability.kinds import ProfileState
from usability.models import Classroom, DetectorProfile, ShadowCount
from usability.policies import RoomPolicy, profile_of, room_policies, to_ms

WINDOW = dt.timedelta(minutes=15)
# Rows that were on their way at the end of a window have come by then.
GRACE = dt.timedelta(seconds=60)
# What a stopped system has missed is not made up for beyond this.
BACK = dt.timedelta(hours=24)
WARM_UP = dt.timedelta(milliseconds=FORGET_MS)


def is_due(now: dt.datetime) -> bool:
    """Whether any profile in shadow has a window that is over and not counted, in any class."""
    return any(True for _ in _due(now))


def count_due(now: dt.datetime, *, limit_s: float = LIMIT_S) -> int:
    """Count the windows that are over; how many rows were written. Stops after `limit_s` and goes on next time."""
    deadline_s = time.monotonic() + limit_s
    written = 0
    for profile, classroom, since, until in _due(now):
        if time.monotonic() > deadline_s:
            break
        written += _count(profile, classroom, since, until, now)
    return written


def _due(now: dt.datetime) -> Iterator[tuple[DetectorProfile, Classroom, dt.datetime, dt.datetime]]:
    until = _floor(now - GRACE)
    for profile in DetectorProfile.objects.filter(state=ProfileState.SHADOW).select_related("classroom"):
        counted = dict(
            ShadowCount.objects.filter(profile=profile)
            .values_list("classroom")
            .annotate(last=Max("window_end"))
        )
        start = max(_floor(profile.state_at), until - BACK)
        for classroom in _classrooms(profile):
            since = max(start, counted.get(classroom.pk, start))
            if since < until:
                yield profile, classroom, since, until


def _floor(moment: dt.datetime) -> dt.datetime:
    length_s = int(WINDOW.total_seconds())
    return dt.datetime.fromtimestamp(int(moment.timestamp()) // length_s * length_s, tz=dt.UTC)


def _classrooms(profile: DetectorProfile) -> list[Classroom]:
    """The classes the profile would hold in: its own, or all that have none of their own."""
    open_rooms = Classroom.objects.filter(is_archived=False).select_related("school").order_by("pk")
    if profile.classroom_id is not None:
        return list(open_rooms.filter(pk=profile.classroom_id))
    own = DetectorProfile.objects.filter(
        state=ProfileState.ACTIVE, app_name=profile.app_name, classroom__isnull=False
    )
    return list(open_rooms.exclude(pk__in=own.values("classroom")))


def _count(
    profile: DetectorProfile,
    classroom: Classroom,
    since: dt.datetime,
    until: dt.datetime,
    now: dt.datetime,
) -> int:
    present = room_policies([classroom.pk], now)[classroom.pk]
    if not rows.count_of(classroom.pk, since, until):
        return _note_silence(profile, classroom.pk, since, until)
    chunks = rows.observations(classroom.pk, since - WARM_UP, until)
    policies = [present, shadow_policy(present, profile)]
    *_, outcomes = replay(
        str(classroom.pk), chunks, policies, time_zone=classroom.school.time_zone, until=until
    )
    raised = [outcome.raised for outcome in outcomes]
    counts = [_counted(profile, classroom.pk, window, raised) for window in _windows(since, until)]
    ShadowCount.objects.bulk_create(counts, ignore_conflicts=True)
    return len(counts)


def _note_silence(
    profile: DetectorProfile, classroom_id: uuid.UUID, since: dt.datetime, until: dt.datetime
) -> int:
    """One row says that nothing came up to `until`; it grows while nothing comes."""
    silence = ShadowCount.objects.filter(
        profile=profile, classroom=classroom_id, window_end=since, raised=0, present_raised=0
    )
    if silence.update(window_end=until):
        return 0
    ShadowCount.objects.create(
        profile=profile,
        classroom_id=classroom_id,
        window_start=since,
        window_end=until,
        raised=0,
        interrupting=0,
        present_raised=0,
        present_interrupting=0,
    )
    return 1


def _windows(since: dt.datetime, until: dt.datetime) -> list[dt.datetime]:
    return [since + index * WINDOW for index in range(int((until - since) / WINDOW))]


def shadow_policy(present: RoomPolicy, profile: DetectorProfile) -> RoomPolicy:
    """The policy of a class if the profile held."""
    if profile.app_name:
        return replace(present, app_profiles={**present.app_profiles, profile.app_name: profile_of(profile)})
    return replace(present, profile=profile_of(profile))


def _counted(
    profile: DetectorProfile, classroom_id: uuid.UUID, window: dt.datetime, raised: list[list[Raised]]
) -> ShadowCount:
    begin_ms, end_ms = to_ms(window), to_ms(window + WINDOW)
    present, shadow = ([one for one in side if begin_ms <= one.opened_ms < end_ms] for side in raised)
    return ShadowCount(
        profile=profile,
        classroom_id=classroom_id,
        window_start=window,
        window_end=window + WINDOW,
        raised=len(shadow),
        interrupting=sum(one.interrupts for one in shadow),
        present_raised=len(present),
        present_interrupting=sum(one.interrupts for one in present),
    )
