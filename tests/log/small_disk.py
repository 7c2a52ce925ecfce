"""A real file system with little room, for tests of a full disk: a tmpfs, where the machine lets us mount one."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


class SmallDisk:
    """A mounted folder that can be filled up and emptied again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """Leave no room: what is free goes into one file."""
        with self._ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                for size in (1 << 16, 1 << 12):
                    with contextlib.suppress(OSError):
                        while file.write(bytes(size)):
                            pass
                break

    def free(self) -> None:
        """Give the room back."""
        self._ballast.unlink()


@contextlib.contextmanager
def small_disk(path: Path, mebibytes: int = 12) -> Iterator[SmallDisk]:
    """Mount it at `path`; the test is skipped where that is not allowed."""
    path.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=0700", "tmpfs", str(path)]
    if os.geteuid() != 0:
        pytest.skip("only root may mount the small file system")
    try:
        done = subprocess.run(mount, capture_output=True, text=True, timeout=10, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command to make the small file system with")
    if done.returncode != 0:
        pytest.skip(f"the small file system cannot be mounted: {done.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=False, timeout=10)
