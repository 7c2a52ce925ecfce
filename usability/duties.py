"""What the detection workers do besides: snapshots, effects, expiry, upkeep of the metrics' days, back-tests.

Each duty belongs to the holder of partitions, so it is done by one worker; each is safe to repeat.
"""

from __future__ import annotations

import datetime as dt
import logging
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection

from usability import effects, partitions, snapshots
from usability.backtest import queue, shadow
from usability.backtest.errand import Errand
from usability.models import AppHealthCount, FrustrationEvent, StudentAccess, TeacherDashboardAlert
from usability.services.alerts import expire_alerts
from usability.xapi import store as xapi

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable, Collection

log = logging.getLogger("gaia.detection")

# The holder of this partition does what is to be done once in the system.
FIRST = 0
SNAPSHOTS_EVERY = dt.timedelta(seconds=20)
EFFECTS_EVERY = dt.timedelta(seconds=30)
EXPIRY_EVERY = dt.timedelta(seconds=30)
UPKEEP_EVERY = dt.timedelta(hours=1)
BACK_TESTS_EVERY = dt.timedelta(seconds=1)
SHADOWS_EVERY = dt.timedelta(minutes=1)
BATCH_IDS_KEPT = dt.timedelta(hours=48)
BATCH_IDS_A_CALL = 20_000
# Metrics go with their days (partitions.RETENTION_DAYS); what was concluded from them stays a school year.
CONCLUSIONS_KEPT = dt.timedelta(days=365)
APP_HEALTH_KEPT = dt.timedelta(days=90)
LOOKS_KEPT = dt.timedelta(days=2 * 365)


class Duties:
    """Runs what is due. One duty a call, so that detection is never kept waiting for all of them."""

    def __init__(self, started_at: dt.datetime) -> None:
        long_ago = started_at - dt.timedelta(days=1)
        names = ("snapshots", "effects", "expiry", "upkeep", "back-tests", "shadows")
        self._done_at = dict.fromkeys(names, long_ago)
        self._errand = Errand()

    def step(self, *, held: Collection[int], classroom_ids: Collection[uuid.UUID], now: dt.datetime) -> bool:
        """Do the duty that is most overdue, if any; whether it changed something."""
        duties: dict[str, tuple[dt.timedelta, Callable[[], int]]] = {}
        if classroom_ids:
            duties["snapshots"] = (SNAPSHOTS_EVERY, lambda: snapshots.take_due(classroom_ids, now=now))
        if FIRST in held:
            duties["effects"] = (EFFECTS_EVERY, lambda: effects.measure_due(now=now))
            duties["expiry"] = (EXPIRY_EVERY, lambda: expire_alerts(now=now))
            duties["upkeep"] = (UPKEEP_EVERY, lambda: upkeep(now))
            duties["back-tests"] = (BACK_TESTS_EVERY, lambda: self._send(is_due=queue.is_waiting, now=now))
            duties["shadows"] = (SHADOWS_EVERY, lambda: self._send(is_due=shadow.is_due, now=now))
        overdue = {name: now - self._done_at[name] - every for name, (every, _) in duties.items()}
        name = max(overdue, key=overdue.__getitem__, default=None)
        if name is None or overdue[name] < dt.timedelta():
            return False
        self._done_at[name] = now
        return duties[name][1]() > 0

    def stop(self) -> None:
        """End what was started beside; a back-test in the middle is told as interrupted."""
        self._errand.stop()

    def _send(self, *, is_due: Callable[[dt.datetime], bool], now: dt.datetime) -> int:
        """Have it done in a process of its own, unless one is at it already."""
        if self._errand.is_free() and is_due(now):
            self._errand.start()
        return 0


def upkeep(now: dt.datetime) -> int:
    """Make the days to come, drop what is older than its kind is kept; how many things changed."""
    today = now.astimezone(dt.UTC).date()
    changed = len(partitions.ensure_partitions(today))
    try:
        changed += len(partitions.drop_expired(today))
    except DatabaseError as error:
        # A long query may hold a day; the next hour tries again. Making days must not fail.
        log.warning("expired_days_not_dropped", extra={"error": type(error).__name__})
    return changed + _forget_batch_ids(now) + _forget_old_rows(now)


def _forget_old_rows(now: dt.datetime) -> int:
    deleted = TeacherDashboardAlert.objects.delete_older_than(CONCLUSIONS_KEPT, now=now)
    deleted += FrustrationEvent.objects.delete_older_than(CONCLUSIONS_KEPT, now=now)
    deleted += queue.forget_old(now)
    deleted += xapi.delete_older_than(now - dt.timedelta(milliseconds=settings.GAIA.xapi_kept_ms))
    deleted += AppHealthCount.objects.filter(hour__lt=now - APP_HEALTH_KEPT).delete()[0]
    return deleted + StudentAccess.objects.filter(at__lt=now - LOOKS_KEPT).delete()[0]


def _forget_batch_ids(now: dt.datetime) -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM usability_ingestbatch WHERE id IN (SELECT id FROM usability_ingestbatch"
            " WHERE received_at < %s ORDER BY received_at LIMIT %s)",
            [now - BATCH_IDS_KEPT, BATCH_IDS_A_CALL],
        )
        return cursor.rowcount
