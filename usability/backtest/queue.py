"""Back-tests that an admin has asked for: one is run at a time, by a process of its own beside a worker."""

from __future__ import annotations

import datetime as dt
import logging
import time
from typing import Any

from django.db import transaction
from django.utils import timezone

from usability.access import person
from usability.backtest import rows
from usability.backtest.run import TooLongError, run
from usability.backtest.wish import Wish, WishError, from_json
from usability.errors import Conflict
from usability.kinds import RunState
from usability.models import BackTest

log = logging.getLogger("gaia.backtest")

UNFINISHED_MOST = 10
# A run tells how far it is every second; one that has been silent for so long has lost its process.
SILENT = dt.timedelta(seconds=60)
TELL_EVERY_S = 0.5
KEPT = dt.timedelta(days=180)


def ask(wish: Wish, *, who: Any) -> BackTest:
    """Queue a back-test. Raises `Conflict` where too many wait already."""
    if BackTest.objects.filter(state__in=[RunState.QUEUED, RunState.RUNNING]).count() >= UNFINISHED_MOST:
        raise Conflict(f"{UNFINISHED_MOST} back-tests wait already. Ask again when some are done.")
    return BackTest.objects.create(created_by=person(who), wish=wish.as_json())


def is_waiting(now: dt.datetime) -> bool:
    """Whether there is something to run, or a run that lost its process."""
    _fail_silent(now)
    unfinished = BackTest.objects.filter(state__in=[RunState.QUEUED, RunState.RUNNING])
    states = set(unfinished.values_list("state", flat=True))
    return states == {RunState.QUEUED}


def run_next(*, processes: int) -> bool:
    """Run the oldest that waits; whether there was one. Its errors are told in its row."""
    row = _take()
    if row is None:
        return False
    try:
        wish = from_json(row.wish)
        total = 2 * sum(
            rows.count_of(one, wish.since, wish.until, wish.app_name) for one in wish.classroom_ids
        )
        BackTest.objects.filter(pk=row.pk).update(metrics_total=total, updated_at=timezone.now())
        result = run(wish, processes=processes, tell=_Teller(row))
    except (TooLongError, WishError) as refusal:
        _end(row, RunState.FAILED, error=str(refusal) or "It took more than ten minutes. Choose less.")
    except Exception as error:
        # The edge of the loop: the row says that it failed, the log says why.
        log.exception("backtest_failed", extra={"backtest": str(row.pk)})
        _end(row, RunState.FAILED, error=f"It ended with {type(error).__name__}; the log has more.")
    else:
        _end(row, RunState.DONE, result=result, metrics_total=total, metrics_done=total)
    return True


def _take() -> BackTest | None:
    with transaction.atomic():
        if BackTest.objects.filter(state=RunState.RUNNING).exists():
            return None
        waiting = BackTest.objects.select_for_update(skip_locked=True).filter(state=RunState.QUEUED)
        row = waiting.order_by("created_at", "id").first()
        if row is not None:
            row.state, row.started_at = RunState.RUNNING, timezone.now()
            row.save(update_fields=["state", "started_at", "updated_at"])
        return row


def _fail_silent(now: dt.datetime) -> int:
    """Runs whose process has gone are over; asking again is one click."""
    silent = BackTest.objects.filter(state=RunState.RUNNING, updated_at__lt=now - SILENT)
    return silent.update(
        state=RunState.FAILED, ended_at=now, error="It was interrupted: its process has gone. Ask again."
    )


def forget_old(now: dt.datetime) -> int:
    """Delete back-tests older than half a year; how many."""
    return BackTest.objects.filter(created_at__lt=now - KEPT).delete()[0]


class _Teller:
    """Writes how far a run is, at most twice a second."""

    def __init__(self, row: BackTest) -> None:
        self._row = row
        self._told_s = 0.0

    def __call__(self, done: int) -> None:
        at_s = time.monotonic()
        if at_s - self._told_s >= TELL_EVERY_S:
            self._told_s = at_s
            BackTest.objects.filter(pk=self._row.pk).update(metrics_done=done, updated_at=timezone.now())


def _end(row: BackTest, state: RunState, **fields: Any) -> None:
    now = timezone.now()
    BackTest.objects.filter(pk=row.pk).update(state=state, ended_at=now, updated_at=now, **fields)
