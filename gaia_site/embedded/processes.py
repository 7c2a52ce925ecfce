"""Starting a child that ends with its parent, and recognising one that did not."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Identity:
    """As whom a child runs: `uid` None = as this process; `prefix` = a command that enters a namespace first."""

    uid: int | None = None
    prefix: tuple[str, ...] = ()

    def popen_arguments(self) -> dict[str, Any]:
        """What subprocess must be told to change to `uid`."""
        return {} if self.uid is None else {"user": self.uid, "group": self.uid, "extra_groups": []}


OURSELVES = Identity()


def spawn(
    command: Sequence[str | Path],
    *,
    identity: Identity = OURSELVES,
    death_signal: signal.Signals,
    cwd: Path | str = "/",
    environment: Mapping[str, str] | None = None,
    output: int | IO[bytes] | None = None,
    descriptors: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """A child in a session of its own that gets `death_signal` when this process ends, however it ends.

    Call it from the main thread: the kernel sends the signal when the *thread* that forked ends. The session of
    its own keeps Ctrl-C in the terminal from reaching the children before they are stopped in order.
    """
    parent = os.getpid()

    def end_with_parent() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent:  # the parent ended between fork and prctl
            os._exit(1)

    return subprocess.Popen(
        [*identity.prefix, *map(str, command)],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output is not None else None,
        cwd=cwd,
        env=environment,
        start_new_session=True,
        pass_fds=tuple(descriptors),
        preexec_fn=end_with_parent,  # noqa: PLW1509 - it only makes two system calls, and no thread runs here
        **identity.popen_arguments(),
    )


def started_at(pid: int) -> float | None:
    """Unix time at which a living process began, exact to 10 ms; None where there is none or it is a zombie."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, start_ticks = after_name[0], int(after_name[19])
    if state in "ZX":
        return None
    return int(boot.split()[1]) + start_ticks / os.sysconf("SC_CLK_TCK")


def is_alive(pid: int) -> bool:
    """Does the process exist and is not a zombie?"""
    return started_at(pid) is not None


def executable(pid: int) -> str | None:
    """The path of a process's program, without the kernel's mark for a deleted file; None where it cannot be read."""
    return _link(f"/proc/{pid}/exe")


def working_folder(pid: int) -> Path | None:
    """The folder a process works in; None where it cannot be read."""
    found = _link(f"/proc/{pid}/cwd")
    return Path(found) if found else None


def any_works_in(folder: Path) -> bool:
    """Does any living process that we may look at work in this folder?"""
    numbers = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return any(working_folder(number) == folder for number in numbers)


def _link(path: str) -> str | None:
    try:
        return str(Path(path).readlink()).removesuffix(" (deleted)")
    except OSError:
        return None


def end(pid: int, *signals: tuple[signal.Signals, float]) -> bool:
    """Send each signal in turn until the process is gone; each comes with its patience in seconds.

    Returns whether it is gone. For processes that are not our children: ours are waited for by their Popen.
    """
    for number, patience_s in signals:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return True
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if not is_alive(pid):
                return True
            time.sleep(0.02)
    return not is_alive(pid)
