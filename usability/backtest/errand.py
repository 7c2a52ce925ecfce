"""The process that runs back-tests and counts shadows, so that a detection worker never waits for either."""

from __future__ import annotations

import logging
import subprocess
import sys
import time

from django.conf import settings

log = logging.getLogger("gaia.backtest")

STOP_S = 5.0
REST_S = 60.0


class Errand:
    """At most one `manage.py backtest --work` at a time, started and ended by its worker."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._rests_until_s = float("-inf")

    def is_free(self) -> bool:
        """Whether another may be started: none is running, and none has failed within a minute."""
        if self._process is not None and self._process.poll() is not None:
            if self._process.returncode:
                log.warning("backtest_errand_failed", extra={"code": self._process.returncode})
                self._rests_until_s = time.monotonic() + REST_S
            self._process = None
        return self._process is None and time.monotonic() >= self._rests_until_s

    def start(self) -> None:
        """Start one."""
        command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "backtest", "--work"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=settings.BASE_DIR)

    def stop(self) -> None:
        """End it, first by asking."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_S)
        self._process = None
