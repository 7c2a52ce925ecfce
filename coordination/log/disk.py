"""The data directory of one member: the few file operations whose durability the log relies on.

Journal, snapshots and identity see only this interface, so the simulation can put a disk below them that forgets
what was not synced. A failed sync is never retried: the kernel may have dropped the pages (fsyncgate), so the
only safe answer is to stop and recover from what is really on the disk.
"""

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import Protocol

RESERVE_BYTES = 1024 * 1024
"""Room is reserved in steps: a sync that need not write the file's new length takes half the time on ext4."""


BESIDE = ".new"


class DirectoryInUse(RuntimeError):
    """Another process has this data directory open."""


class DiskFull(RuntimeError):
    """No room. What was synced before is intact and what found no room was taken back: it may be tried again."""


class DiskFailed(RuntimeError):
    """A write or sync failed for another reason than room. What is durable is only known after a restart."""


class Appending(Protocol):
    """One file that only grows. `write` and `sync` raise DiskFull or DiskFailed."""

    size: int

    def write(self, data: bytes) -> None:
        """Append; not yet durable."""

    def sync(self) -> None:
        """Make everything written durable."""

    def close(self) -> None:
        """Let go of the file."""


class Disk(Protocol):
    """Durable when it returns: `replace`, `create`, `remove`. `append` continues a file after `size` bytes."""

    def names(self) -> list[str]:
        """The files in the directory, sorted."""

    def read(self, name: str) -> bytes:
        """A file's whole content."""

    def append(self, name: str, size: int) -> Appending:
        """Continue a file after its first `size` bytes; what follows them is cut."""

    def create(self, name: str, data: bytes) -> Appending:
        """A new file with this content, durable, open for more."""

    def replace(self, name: str, data: bytes) -> None:
        """Put this content in the file's place in one step."""

    def remove(self, *names: str) -> None:
        """Delete files, in this order; a missing one is no error."""

    def close(self) -> None:
        """Let another process have the directory."""


def _failure(error: OSError, what: str) -> RuntimeError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"{what}: the disk is full; free some space and the node goes on by itself")
    return DiskFailed(f"{what}: {error}; restart to see what is durable")


class OpenFile:
    """An append-only file with room reserved ahead of the writing position."""

    def __init__(self, path: Path, descriptor: int, size: int) -> None:
        self._path, self._descriptor, self.size, self._reserved = path, descriptor, size, size

    def write(self, data: bytes) -> None:
        """Append; on failure the file is as long as before."""
        start = self.size
        try:
            self._reserve(start + len(data))
            view, at = memoryview(data), start
            while view:
                written = os.pwrite(self._descriptor, view, at)
                view, at = view[written:], at + written
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, start)
            self._reserved = start
            raise _failure(error, f"writing {self._path.name}") from error
        self.size = at

    def _reserve(self, needed: int) -> None:
        if needed > self._reserved:
            step = max(RESERVE_BYTES, needed - self._reserved)
            os.posix_fallocate(self._descriptor, self._reserved, step)
            self._reserved += step

    def sync(self) -> None:
        """Make everything written durable, or raise DiskFailed."""
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise DiskFailed(f"syncing {self._path.name}: {error}; restart to see what is durable") from error

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Folder:
    """A data directory on a real file system, locked for as long as this object lives."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = path
        self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            self._lock = -1
            raise DirectoryInUse(
                f"{path} is in use by another process: stop it, or give this node a directory of its own"
            ) from error
        for unfinished in path.glob(f"*{BESIDE}"):
            unfinished.unlink()  # a crash came before its rename

    def names(self) -> list[str]:
        """The files in the directory but for the lock, sorted."""
        return sorted(
            entry.name for entry in self._path.iterdir() if entry.is_file() and entry.name != "lock"
        )

    def read(self, name: str) -> bytes:
        """A file's whole content."""
        return (self._path / name).read_bytes()

    def append(self, name: str, size: int) -> OpenFile:
        """Continue a file after its first `size` bytes; what follows them is cut."""
        path = self._path / name
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        os.ftruncate(descriptor, size)
        os.fsync(descriptor)
        return OpenFile(path, descriptor, size)

    def create(self, name: str, data: bytes) -> OpenFile:
        """A new file with this content, durable, open for more."""
        path = self._path / name
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _failure(error, f"creating {name}") from error
        created = OpenFile(path, descriptor, 0)
        try:
            created.write(data)
            created.sync()
        except DiskFull:
            created.close()
            path.unlink(missing_ok=True)
            raise
        self._sync_names()
        return created

    def replace(self, name: str, data: bytes) -> None:
        """Write beside, sync, rename, sync the folder: after a crash the old or the new content, never a mixture."""
        beside = self._path / f"{name}{BESIDE}"
        try:
            with beside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.rename(self._path / name)
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise _failure(error, f"replacing {name}") from error
        self._sync_names()

    def remove(self, *names: str) -> None:
        """Delete files, in this order; a missing one is no error."""
        for name in names:
            (self._path / name).unlink(missing_ok=True)
        if names:
            self._sync_names()

    def _sync_names(self) -> None:
        descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        except OSError as error:
            raise DiskFailed(f"syncing the folder {self._path}: {error}") from error
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Let another process have the directory."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
