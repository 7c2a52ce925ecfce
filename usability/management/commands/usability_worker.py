"""`manage.py usability_worker`: one detection worker, until it is told to end."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser
from django.db import Error as DatabaseError
from django.db import connections
from django.utils import timezone

from usability import ownership
from usability.duties import UPKEEP_EVERY, Duties, upkeep
from usability.models import DetectionWorker
from usability.worker import Worker

log = logging.getLogger("gaia.detection")

REST_S = 0.05
RETRY_S = 1.0


class Command(BaseCommand):
    help = "Runs one detection worker: reads what apps report, raises signals, keeps snapshots and effects."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--name", default="", help="unique among live workers; host and process by default"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        stopping = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
        if not settings.GAIA.frustration_detection_enabled:
            self.stdout.write(
                "FRUSTRATION_DETECTION_ENABLED is off: nothing is detected, the days are kept up."
            )
            _keep_up_days(stopping)
            return
        host = socket.gethostname()
        name = options["name"] or f"{host}-{os.getpid()}"
        _release_dead(host)
        worker = Worker(name, redis_url=settings.GAIA.redis_url, clock=timezone.now)
        duties = Duties(timezone.now())
        log.info("worker_started", extra={"worker": name})
        while not stopping.is_set():
            if not _turn(worker, duties, stopping):
                stopping.wait(REST_S)
        duties.stop()
        _end(worker)


def _release_dead(host: str) -> None:
    """Let go what workers of this machine hold whose process has gone: nobody need wait for their time to pass.

    A process that was taken for gone by mistake is fenced like any other, and takes its share again.
    """
    try:
        for name in DetectionWorker.objects.filter(name__startswith=f"{host}-").values_list(
            "name", flat=True
        ):
            number = name.removeprefix(f"{host}-")
            if number.isdecimal() and not _runs(int(number)):
                ownership.release(name)
    except DatabaseError as error:
        log.warning("dead_workers_not_released", extra={"error": type(error).__name__})


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _keep_up_days(stopping: threading.Event) -> None:
    """Ingest goes on without detection, so tomorrow's partition is still somebody's duty."""
    while not stopping.is_set():
        rest_s = UPKEEP_EVERY.total_seconds()
        try:
            upkeep(timezone.now())
        except DatabaseError as error:
            log.warning("upkeep_waits_for_database", extra={"error": type(error).__name__})
            connections.close_all()
            rest_s = RETRY_S
        stopping.wait(rest_s)


def _turn(worker: Worker, duties: Duties, stopping: threading.Event) -> bool:
    """One step of each loop; whether there was work. A database that is away is waited for."""
    try:
        had_work = worker.step()
        return duties.step(held=worker.held, classroom_ids=worker.rooms, now=timezone.now()) or had_work
    except DatabaseError as error:
        log.warning("worker_waits_for_database", extra={"worker": worker.name, "error": type(error).__name__})
        connections.close_all()
        stopping.wait(RETRY_S)
        return False


def _end(worker: Worker) -> None:
    try:
        worker.stop()
    except DatabaseError as error:
        # The leases pass by themselves, and the rows are as they were.
        log.warning("worker_ended_without_saving", extra={"error": type(error).__name__})
    connections.close_all()
