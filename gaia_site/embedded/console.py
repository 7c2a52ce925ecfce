"""The one log that a person reads: every line behind the name of the part it comes from."""

from __future__ import annotations

import os
import sys
from typing import TextIO

_COLOURS = {"web": 36, "node": 35, "worker": 33, "postgres": 34, "redis": 31, "demo": 32, "up": 1}
_NAME_WIDTH = 9


class Console:
    """Writes to a text stream, in colour on a terminal (unless NO_COLOR is set)."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._is_coloured = self._stream.isatty() and "NO_COLOR" not in os.environ
        self.is_broken = False

    def write(self, source: str, line: str) -> None:
        """One line of one part. After the reader has gone away, lines are dropped."""
        if self.is_broken:
            return
        label = f"{source:<{_NAME_WIDTH}}│"
        colour = _COLOURS.get(source.partition("-")[0])
        if self._is_coloured and colour:
            label = f"\x1b[{colour}m{label}\x1b[0m"
        self._say(f"{label} {line}\n")

    def say(self, text: str = "") -> None:
        """A line of our own, without a source."""
        if not self.is_broken:
            self._say(f"{text}\n")

    def _say(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (BrokenPipeError, ValueError):
            self.is_broken = True
