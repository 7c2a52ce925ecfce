"""Runs the parts of a system as children of one process: one log, restarts with back-off, an orderly end.

One thread, one loop: `step` waits for output, signals or the next due restart, and acts. Children are started
from that thread alone, because their death signal is bound to it.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Protocol

from gaia_site.embedded import processes
from gaia_site.embedded.processes import OURSELVES, Identity

DEATHS_ALLOWED = 5
DEATHS_WINDOW_S = 60.0
BACKOFF_FIRST_S, BACKOFF_MOST_S = 0.25, 5.0
LINE_BYTES_MOST = 16_384
READ_BYTES = 65_536
STEP_S = 0.5
READY_POLL_S = 0.05
SIGNALS_TOGETHER_S = 1.0


class PartFailed(Exception):
    """A part cannot be kept running. The message says which and why."""


class Stopped(Exception):
    """Somebody asked for the end while the supervisor was waiting for something else."""


@dataclass(frozen=True, slots=True)
class Part:
    """One child: how it is started and stopped, and how its death is met."""

    name: str
    role: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    stop_signal: signal.Signals = signal.SIGTERM
    patience_s: float = 15.0
    """how long it may take to stop before it is killed"""
    identity: Identity = OURSELVES
    cwd: str = "/"
    address: str = ""
    descriptors: tuple[int, ...] = ()
    """inherited sockets"""
    before_restart: Callable[[], object] | None = None
    restart_delay_s: float = BACKOFF_FIRST_S


class Log(Protocol):
    """Where the lines of all parts go."""

    def write(self, source: str, line: str) -> None:
        """One line of one part."""


@dataclass(slots=True)
class _Child:
    part: Part
    process: subprocess.Popen[bytes]
    unfinished: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True, slots=True)
class Running:
    """A living child, for those who write it down."""

    part: Part
    pid: int
    started_at: float


class Supervisor:
    """Children, their output and their deaths. `on_change` is told after every start of a child."""

    def __init__(self, log: Log, on_change: Callable[[], None]) -> None:
        self._log = log
        self._on_change = on_change
        self._children: dict[str, _Child] = {}
        self._deaths: dict[str, deque[float]] = {}
        self._due: dict[str, tuple[float, Part]] = {}
        self._selector = selectors.DefaultSelector()
        self._stop_signals = 0
        self._last_signal = -SIGNALS_TOGETHER_S
        self._woken, self._waker = socket.socketpair()

    def listen_to_signals(self) -> None:
        """From now on SIGINT, SIGTERM and SIGHUP ask for the end."""
        for one in (self._woken, self._waker):
            one.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._ask_to_stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only to wake the loop

    def _ask_to_stop(self, _number: int, _frame: object) -> None:
        """`make` passes SIGTERM on to us, and a terminal sends to both: what comes together is one wish."""
        now = time.monotonic()
        if now - self._last_signal > SIGNALS_TOGETHER_S:
            self._stop_signals += 1
        self._last_signal = now

    @property
    def must_stop(self) -> bool:
        """Has the end been asked for?"""
        return self._stop_signals > 0

    def ask_to_stop(self) -> None:
        """As a signal would."""
        self._stop_signals += 1

    def running(self) -> list[Running]:
        """The living children, in the order of their start."""
        found = []
        for child in self._children.values():
            began = processes.started_at(child.process.pid)
            if began is not None:
                found.append(Running(child.part, child.process.pid, began))
        return found

    def start(self, part: Part) -> None:
        """Start a part that is kept running from now on."""
        self._children[part.name] = self._spawn(part)
        self._on_change()

    def _spawn(self, part: Part) -> _Child:
        process = processes.spawn(
            part.command,
            identity=part.identity,
            death_signal=part.stop_signal,
            cwd=part.cwd,
            environment=part.environment,
            output=subprocess.PIPE,
            descriptors=part.descriptors,
        )
        child = _Child(part, process)
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        self._selector.register(process.stdout, selectors.EVENT_READ, child)
        return child

    def run_to_end(self, *parts: Part, timeout_s: float) -> None:
        """Run parts that end by themselves, side by side.

        Raises PartFailed where one fails or takes too long, Stopped where the end is asked for meanwhile.
        """
        waiting = [self._spawn(part) for part in parts]
        deadline = time.monotonic() + timeout_s
        try:
            while waiting:
                self.step(READY_POLL_S)
                for child in [child for child in waiting if child.process.poll() is not None]:
                    self._drain(child)
                    waiting.remove(child)
                    if child.process.returncode != 0:
                        raise PartFailed(f"{child.part.name} ended with code {child.process.returncode}.")
                if self.must_stop:
                    raise Stopped
                if time.monotonic() > deadline:
                    raise PartFailed(f"{waiting[0].part.name} did not end within {timeout_s:.0f} s.")
        finally:
            for child in waiting:
                self._end(child, patience_s=5)

    def wait_until(self, ready: Callable[[], bool], *, what: str, timeout_s: float) -> None:
        """Keep the parts running until `ready()`. Raises PartFailed after `timeout_s`, Stopped when asked to end."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if self.must_stop:
                raise Stopped
            if time.monotonic() > deadline:
                raise PartFailed(f"{what} was not there within {timeout_s:.0f} s.")
            self.step(READY_POLL_S)

    def run(self) -> None:
        """Keep the parts running until the end is asked for. Raises PartFailed."""
        while not self.must_stop:
            self.step(STEP_S)

    def step(self, wait_s: float) -> None:
        """Pass on output, start again what has died and is due. Raises PartFailed."""
        self._pass_on_output(wait_s)
        for name, child in list(self._children.items()):
            if child.process.poll() is not None:
                self._drain(child)
                del self._children[name]
                if not self.must_stop:
                    self._schedule_restart(child)
        now = time.monotonic()
        for name, (due, part) in list(self._due.items()):
            if due <= now and not self.must_stop:
                del self._due[name]
                if part.before_restart is not None:
                    part.before_restart()
                self.start(part)

    def _schedule_restart(self, child: _Child) -> None:
        part, code = child.part, child.process.returncode
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"code {code}"
        now = time.monotonic()
        deaths = self._deaths.setdefault(part.name, deque(maxlen=DEATHS_ALLOWED))
        deaths.append(now)
        if len(deaths) == DEATHS_ALLOWED and now - deaths[0] <= DEATHS_WINDOW_S:
            raise PartFailed(
                f"{part.name} died {DEATHS_ALLOWED} times within a minute, the last time by {how}."
            )
        recent = sum(1 for death in deaths if now - death <= DEATHS_WINDOW_S)
        delay_s = min(part.restart_delay_s * 2 ** (recent - 1), BACKOFF_MOST_S)
        self._log.write(
            "up", f"{part.name} (pid {child.process.pid}) ended by {how}; again in {delay_s:.2g} s"
        )
        self._due[part.name] = (now + delay_s, part)

    def stop(self, order: tuple[str, ...]) -> None:
        """Stop all parts, role by role in this order; those of one role together. A second signal cuts patience."""
        self._due.clear()
        for role in order:
            group = [child for child in self._children.values() if child.part.role == role]
            self._stop_group(group)
        self._stop_group(list(self._children.values()))

    def _stop_group(self, group: list[_Child]) -> None:
        for child in group:
            if child.process.poll() is None:
                child.process.send_signal(child.part.stop_signal)
        began, signals_before = time.monotonic(), self._stop_signals
        waiting = list(group)
        while waiting:
            self._pass_on_output(READY_POLL_S)
            for child in list(waiting):
                hurried = self._stop_signals > signals_before
                patience_s = 1.0 if hurried else child.part.patience_s
                if child.process.poll() is None and time.monotonic() - began > patience_s:
                    self._log.write(
                        "up", f"{child.part.name} did not stop within {patience_s:.0f} s and is killed"
                    )
                    child.process.kill()
                    child.process.wait()
                if child.process.poll() is not None:
                    self._drain(child)
                    waiting.remove(child)
                    self._children.pop(child.part.name, None)

    def _end(self, child: _Child, *, patience_s: float) -> None:
        child.process.send_signal(child.part.stop_signal)
        try:
            child.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
        self._drain(child)

    def _pass_on_output(self, wait_s: float) -> None:
        for key, _ in self._selector.select(wait_s):
            if key.fileobj is self._woken:
                self._empty_waker()
            else:
                self._read(key.data)

    def _empty_waker(self) -> None:
        try:
            while self._woken.recv(4096):
                pass
        except BlockingIOError:
            return

    def _read(self, child: _Child) -> bool:
        """Pass on what can be read now; False at the end of the output or where nothing waits."""
        stream: IO[bytes] | None = child.process.stdout
        assert stream is not None
        try:
            content = os.read(stream.fileno(), READ_BYTES)
        except BlockingIOError:
            return False
        if not content:
            self._close_output(child, stream)
            return False
        child.unfinished += content
        *lines, rest = child.unfinished.split(b"\n")
        if len(rest) > LINE_BYTES_MOST:
            lines, rest = [*lines, rest], bytearray()
        child.unfinished = bytearray(rest)
        for line in lines:
            self._log.write(child.part.name, line[:LINE_BYTES_MOST].decode(errors="replace").rstrip())
        return True

    def _drain(self, child: _Child) -> None:
        """Pass on the last words of a child that has ended; grandchildren that hold its output are not waited for."""
        stream = child.process.stdout
        if stream is None or stream.closed:
            return
        while self._read(child):
            pass
        if not stream.closed:
            self._close_output(child, stream)

    def _close_output(self, child: _Child, stream: IO[bytes]) -> None:
        """Nothing more is read; a last line without an end is still passed on."""
        if child.unfinished:
            self._log.write(child.part.name, child.unfinished.decode(errors="replace").rstrip())
            child.unfinished = bytearray()
        self._selector.unregister(stream)
        stream.close()
