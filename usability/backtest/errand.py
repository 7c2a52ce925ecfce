"""The process that runs back-tests and counts shadows, so that a detection worker never waits for either."""

from __future__ import annotations

import logging
import subprocess
import sys

from django.conf import settings

log = logging.getLogger("gaia.backtest")

STOP_S = 5.0


class Errand:
    """At most one `manage.py backtest --work` at a time, started and ended by its worker."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def is_running(self) -> bool:
        """Whether the last one started has not ended yet."""
        if self._process is not None and self._process.poll() is not None:
            if self._process.returncode:
                log.warning("backtest_errand_failed", extra={"code": self._process.returncode})
            self._process = None
        return self._process is not None

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
