"""The whole system for a benchmark: `manage.py up` with the demo's data and without its load."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.running import Up


@contextmanager
def running_system(**settings: str) -> Iterator[tuple[Up, dict[str, Any]]]:
    """The running system and its `demo.json` (empty with DEMO=0); stopped and removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="gaia-bench-", dir="/tmp"))
    folder.chmod(0o711)
    system = Up(folder / ".gaia", **({"DEMO": "quiet", "LOG_LEVEL": "WARNING"} | settings))
    try:
        system.wait_until_ready()
        facts = folder / ".gaia" / "demo.json"
        yield system, json.loads(facts.read_text()) if facts.exists() else {}
    finally:
        if system.process.poll() is None:
            system.send(signal.SIGTERM)
            system.wait_for_end()
        shutil.rmtree(folder, ignore_errors=True)
