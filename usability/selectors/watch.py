"""What is new in a classroom since a cursor: the one short read that all its sockets share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.utils import timezone

from usability.models import ClassroomMetricsSnapshot, TeacherDashboardAlert
from usability.selectors.activity import presence_of
from usability.selectors.live import LOOK_BACK, seats_of
from usability.selectors.signals import (
    CHANGES_LIMIT,
    alerts_after,
    cursor_of,
    roster_of,
    signal_of,
    with_people,
)

if TYPE_CHECKING:
    import datetime as dt
    import uuid
    from collections.abc import Mapping

    from usability.selectors.shapes import AlertChange, Seat


@dataclass(frozen=True, slots=True)
class News:
    """What has changed. `cursor` is the number up to which `changes` are complete; `seats` the changed ones.

    `all_seats` and `newest_snapshot` are what the next reading is compared with.
    """

    cursor: int
    changes: tuple[AlertChange, ...]
    has_more: bool
    seats: tuple[Seat, ...]
    all_seats: dict[str, Seat]
    snapshot: ClassroomMetricsSnapshot | None
    newest_snapshot: uuid.UUID | None


def news_after(
    classroom_id: uuid.UUID,
    cursor: int,
    known_seats: Mapping[str, Seat],
    known_snapshot: uuid.UUID | None,
    *,
    now: dt.datetime | None = None,
) -> News:
    """What has changed since. The first reading of seats and snapshots reports none of them as changed."""
    now = now or timezone.now()
    # Read before the rows: a number that is visible has all below it visible, so the cursor never runs ahead.
    newest = cursor_of(classroom_id)
    changes = tuple(alerts_after(classroom_id, cursor, now=now))
    has_more = len(changes) >= CHANGES_LIMIT
    all_seats = _seats(classroom_id, now)
    changed = [seat for key, seat in all_seats.items() if known_seats.get(key) != seat] if known_seats else []
    snapshot = ClassroomMetricsSnapshot.objects.filter(classroom_id=classroom_id).order_by("-id").first()
    latest = snapshot.pk if snapshot else None
    return News(
        cursor=changes[-1].cursor if has_more else max(newest, changes[-1].cursor if changes else cursor),
        changes=changes,
        has_more=has_more,
        seats=tuple(changed),
        all_seats=all_seats,
        snapshot=snapshot if latest != known_snapshot and known_seats else None,
        newest_snapshot=latest,
    )


def _seats(classroom_id: uuid.UUID, now: dt.datetime) -> dict[str, Seat]:
    """The condition of each pupil, seated or not, by pseudonym."""
    pupils = roster_of(classroom_id)
    alerts = with_people(TeacherDashboardAlert.objects.filter(classroom_id=classroom_id, teacher=None).open())
    signals = [signal_of(alert, pupils) for alert in alerts]
    presence = presence_of(pupils, since=now - LOOK_BACK, until=now)
    return seats_of(pupils, signals, presence, now)
