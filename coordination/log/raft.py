"""A member of the cluster: the thread that drives the replica, and the only door for callers."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pysyncobj.syncobj as core

from coordination.log.contract import (
    Answer,
    AppliedHook,
    Belief,
    Committed,
    Machine,
    MemberSettings,
    MemberStatus,
    MemberView,
    NotApplied,
    Outcome,
    Peer,
    StoppedHook,
    Unknown,
)
from coordination.log.disk import Folder
from coordination.log.replica import Replica
from coordination.log.transport import PeerLinks
from coordination.log.waiting import Waiting

__all__ = [
    "Committed",
    "Machine",
    "Member",
    "MemberSettings",
    "MemberStatus",
    "MemberView",
    "NotApplied",
    "Outcome",
    "Peer",
    "Unknown",
]

log = logging.getLogger(__name__)

STOP_S = 10.0
MIN_SILENCE_S = 0.3
"""A peer is let go when nothing was heard from it for an election time-out, and never sooner than this."""
HAND_OVER_S = 3.0
"""How long an orderly stop waits for another leader."""


def _ignore_applied(index: int, term: int, result: object) -> None:
    """The hook of a member nobody listens to."""


def _ignore_stopped(error: BaseException | None) -> None:
    """The hook of a member nobody waits for."""


class Member:
    """One seat in the cluster. `propose`, `read_index`, `transfer` and `status` may be called from any thread.

    Callbacks and hooks run in the member's own thread: they must return quickly and must not raise. If the thread
    ends by itself (a disk that failed, a defect), `on_stopped` gets the reason and the process should exit: a restart
    recovers from what is really on the disk.
    """

    def __init__(
        self,
        settings: MemberSettings,
        machine: Machine,
        on_applied: AppliedHook | None = None,
        on_stopped: StoppedHook | None = None,
    ) -> None:
        self._settings, self._machine = settings, machine
        self._on_applied, self._on_stopped = on_applied or _ignore_applied, on_stopped or _ignore_stopped
        self._work: deque[tuple[Callable[[], None], Waiting]] = deque()
        self._open: deque[Waiting] = deque()
        self._lock = threading.Lock()
        self._is_running = self._is_woken = False
        self._thread: threading.Thread | None = None
        self._aside: ThreadPoolExecutor | None = None
        self._replica: Replica
        self._links: PeerLinks
        self._disk: Folder

    # ---- any thread

    def start(self) -> None:
        """Recover from the data directory and start the thread. Raises if the directory is in use or damaged."""
        assert self._thread is None, "a member is started once"
        settings = self._settings
        self._disk = Folder(settings.data_dir)
        try:
            self._links = self._make_links()
            self._aside = ThreadPoolExecutor(1, "snapshot")
            self._replica = Replica(
                settings, self._disk, self._links, self._machine, self._on_applied, self._run_aside
            )
        except BaseException:
            self._close()
            raise
        self._links.listener = self._replica
        if self._replica.members.seats[1:] and not settings.bind:
            self._close()
            raise ValueError(
                f"{settings.data_dir} belongs to a cluster of {len(self._replica.members.seats)}: CLUSTER_ENABLED must be "
                "true"
            )
        self._is_running = True
        self._thread = threading.Thread(target=self._run, name=f"raft-{settings.node_id}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and close everything. What still waits is answered `Unknown`. Idempotent.

        A leader hands over first, so that the others need not find out that it is gone.
        """
        if self._is_running and self._thread is not threading.current_thread():
            self._hand_over()
        with self._lock:
            self._is_running = False
        if self._thread is not None and self._thread is not threading.current_thread():
            self._links.wake()
            self._thread.join(STOP_S)
            if self._thread.is_alive():
                raise RuntimeError(f"the member's thread did not end within {STOP_S} s")

    def propose(self, payload: bytes, callback: Answer) -> None:
        """Ask for one payload to be applied on all members; exactly one outcome follows, within the time limit."""
        if len(payload) > self._settings.max_payload_bytes:
            callback(
                NotApplied(f"{len(payload)} bytes are over the limit of {self._settings.max_payload_bytes}")
            )
            return
        waiting = Waiting(callback, core.monotonicTime() + self._settings.command_timeout_s)
        self._submit(lambda: self._replica.propose(payload, waiting), waiting)

    def read_index(self, callback: Answer) -> None:
        """Linearizable barrier: `Committed(index)` once the machine here covers every write that was acknowledged
        anywhere before this call; `NotApplied` if that could not be established in time.
        """
        waiting = Waiting(callback, core.monotonicTime() + self._settings.command_timeout_s, is_read=True)
        self._submit(lambda: self._replica.read(waiting), waiting)

    def transfer(self, node_id: str, callback: Answer | None = None) -> None:
        """Hand leadership over to a member; only the leader can. `Committed(node_id)` when this member sees it lead."""
        answer = callback or (lambda outcome: log.info("transfer_ended", extra={"outcome": repr(outcome)}))
        waiting = Waiting(answer, core.monotonicTime() + self._settings.command_timeout_s, is_read=True)
        self._submit(lambda: self._replica.transfer(node_id, waiting), waiting)

    def _hand_over(self) -> None:
        """Wait until another leads, nobody can, or a moment has passed."""
        done = threading.Event()
        waiting = Waiting(
            lambda _: done.set(),
            core.monotonicTime() + self._settings.command_timeout_s,
            is_read=True,
        )
        self._submit(lambda: self._replica.hand_over(waiting), waiting)
        done.wait(min(HAND_OVER_S, 5 * self._settings.election_timeout_s))

    def add_member(self, node_id: str, address: str, callback: Answer) -> None:
        """Take a new member in, as a learner that becomes a voter by itself. Only the leader can; see `changes`."""
        waiting = Waiting(callback, core.monotonicTime() + self._settings.command_timeout_s)
        self._submit(lambda: self._replica.add_member(node_id, address, waiting), waiting)

    def remove_member(self, node_id: str, callback: Answer) -> None:
        """Send a member away. Only the leader can; one that shall go itself hands over first."""
        waiting = Waiting(callback, core.monotonicTime() + self._settings.command_timeout_s)
        self._submit(lambda: self._replica.remove_member(node_id, waiting), waiting)

    def take_snapshot(self, callback: Answer) -> None:
        """Have this member take a snapshot soon; `Committed` with the index it begins from."""
        waiting = Waiting(callback, core.monotonicTime() + self._settings.command_timeout_s, is_read=True)

        def ask() -> None:
            self._replica.forceLogCompaction()
            waiting.settle(Committed(self._replica.raftLastApplied))

        self._submit(ask, waiting)

    def status(self) -> MemberStatus:
        """Reads single values of the running replica: each is right, they need not be of one instant."""
        replica = self._replica
        return MemberStatus(
            node_id=self._settings.node_id,
            role=replica.role,
            leader=replica.leader_id,
            term=replica.raftCurrentTerm,
            commit_index=replica.raftCommitIndex,
            applied_index=replica.raftLastApplied,
            members=replica.views(),
            cluster_id=replica.identity.cluster_id,
            snapshot_index=replica.snapshot_index,
            counters={**self._links.counters, **replica.counters},
            stale=self.stale,
        )

    def belief(self) -> Belief:
        """Whether it leads, and in which term: a fraction of what the whole status takes."""
        replica = self._replica
        return Belief(
            self._settings.node_id, replica.role, replica.raftCurrentTerm, replica.identity.cluster_id
        )

    @property
    def stale(self) -> str:
        """Why what is read here may be old, or an empty string: the disk is full, or no leader is known."""
        return self._replica.full or ("" if self._replica.leader_id else "no leader is known")

    def _submit(self, work: Callable[[], None], waiting: Waiting) -> None:
        with self._lock:
            refusal = ""
            if not self._is_running:
                refusal = "the member is not running"
            elif len(self._work) + len(self._open) >= self._settings.max_waiting:
                refusal = f"{self._settings.max_waiting} callers are waiting already"
            else:
                self._work.append((work, waiting))
                is_first, self._is_woken = not self._is_woken, True
        if refusal:
            waiting.settle(NotApplied(refusal))
        elif is_first:
            self._links.wake()

    # ---- the member's thread

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            while self._is_running:
                self._links.poll(self._pause_s())
                self._take_work()
                self._replica.step()
                self._expire(core.monotonicTime())
        except BaseException as error:
            failure = error
            log.critical("member_stopped", extra={"node": self._settings.node_id}, exc_info=True)
        finally:
            self._end(failure)

    def _pause_s(self) -> float:
        due = self._replica.next_wakeup()
        while self._open and self._open[0].is_settled:
            self._open.popleft()
        if self._open:
            due = min(due, self._open[0].deadline)
        return 0.0 if self._work else max(0.0, due - core.monotonicTime())

    def _take_work(self) -> None:
        with self._lock:
            self._is_woken = False
            taken, self._work = self._work, deque()
            self._open.extend(waiting for _, waiting in taken)
        for work, _ in taken:
            work()

    def _expire(self, now: float) -> None:
        """All wait equally long, so the first in the queue is the first to run out of time."""
        while self._open and (self._open[0].is_settled or self._open[0].deadline <= now):
            self._open.popleft().give_up("no answer within the time limit")

    def _end(self, failure: BaseException | None) -> None:
        with self._lock:
            self._is_running = False
            never_taken = [waiting for _, waiting in self._work]
            self._work.clear()
        for waiting in never_taken:
            waiting.settle(NotApplied("the member stopped"))
        while self._open:
            self._open.popleft().give_up("the member stopped")
        self._close()
        self._on_stopped(failure)

    def _close(self) -> None:
        if self._aside is not None:
            self._aside.shutdown(wait=True)
        if hasattr(self, "_links"):
            self._links.close()
        if hasattr(self, "_replica"):
            self._replica.journal.close()
        self._disk.close()

    def _run_aside(self, work: Callable[[], int]) -> "Future[int]":
        assert self._aside is not None, "the thread for snapshots lives as long as the replica"
        done = self._aside.submit(work)
        done.add_done_callback(lambda _: self._links.wake())
        return done

    def _make_links(self) -> PeerLinks:
        settings = self._settings
        silence_s = max(MIN_SILENCE_S, settings.election_timeout_s)
        return PeerLinks(
            node_id=settings.node_id,
            secret=settings.secret,
            bind=settings.bind,
            peers=(),  # the replica says whom to meet
            ping_s=silence_s / 4,
            silence_s=silence_s,
            clock=core.monotonicTime,
        )
