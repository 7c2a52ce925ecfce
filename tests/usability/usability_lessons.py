"""A class and what its pupils do, written into the database as ingest would have stored it."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from usability.ingest.copy import ids_from
from usability.models import UsabilityMetric
from usability.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

APP = "fractions-lab"


@dataclass
class Lesson:
    """Collects what pupils do, in seconds from `begin`; `store` writes it."""

    classroom: Any
    begin: dt.datetime
    rows: list[UsabilityMetric] = field(default_factory=list)

    def at(self, seconds: float) -> dt.datetime:
        return self.begin + dt.timedelta(seconds=seconds)

    def does(
        self,
        seconds: float,
        student_id: str,
        metric_type: str,
        value: float = 1.0,
        *,
        delay_s: float = 0.05,
        app_name: str = APP,
        **metadata: Any,
    ) -> UsabilityMetric:
        received = self.at(seconds + delay_s)
        key = ids_from(int(received.timestamp() * 1_000_000), 1)[0]
        row = UsabilityMetric(
            id=uuid.UUID(int=key),
            timestamp=self.at(seconds),
            received_at=received,
            metric_value=value,
            classroom=self.classroom,
            student_id=student_id,
            app_name=app_name,
            metric_type=metric_type,
            metadata=metadata or None,
        )
        self.rows.append(row)
        return row

    def answers(
        self, student_id: str, marks: str, *, begin_s: float = 5, every_s: float = 8, **metadata: Any
    ) -> Lesson:
        """One answer a mark: "+" right, "-" wrong."""
        for number, mark in enumerate(marks):
            self.does(
                begin_s + number * every_s, student_id, "answer", 1.0 if mark == "+" else 0.0, **metadata
            )
        return self

    def store(self) -> None:
        UsabilityMetric.objects.bulk_create(self.rows)
        self.rows = []


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, now: dt.datetime) -> None:
        self.now = now

    def __call__(self) -> dt.datetime:
        return self.now

    def monotonic_s(self) -> float:
        return self.now.timestamp()


def worker_at(clock: Clock, name: str = "w1", redis_url: str | None = None) -> Worker:
    return Worker(name, redis_url=redis_url, clock=clock, monotonic_s=clock.monotonic_s, block_ms=1)


def run_until(
    worker: Worker,
    clock: Clock,
    end: dt.datetime,
    *,
    step_s: float = 1.0,
    before_step: Callable[[dt.datetime], None] = lambda _now: None,
) -> None:
    """Step the worker with the clock moving on, as a loop would."""
    while clock.now < end:
        clock.now += dt.timedelta(seconds=step_s)
        before_step(clock.now)
        worker.step()


def arriving(rows: Iterable[UsabilityMetric]) -> Callable[[dt.datetime], None]:
    """Stores each row when the clock has reached its receipt."""
    waiting = sorted(rows, key=lambda row: row.received_at)

    def store(now: dt.datetime) -> None:
        due = [row for row in waiting if row.received_at <= now]
        if due:
            UsabilityMetric.objects.bulk_create(due)
            del waiting[: len(due)]

    return store
