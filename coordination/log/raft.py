"""A member of the cluster: the thread that drives the replica, and the only door for callers."""

from coordination.log.contract import (
    Answer,
    AppliedHook,
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

__all__ = [
    "Committed", "Machine", "Member", "MemberSettings", "MemberStatus", "MemberView", "NotApplied", "Outcome",
    "Peer", "Unknown",
]


class Member:
    """One seat in the cluster. `propose`, `read_index`, `transfer` and `status` may be called from any thread.

    Callbacks and hooks run in the member's own thread: they must return quickly and must not raise.
    """

    def __init__(
        self,
        settings: MemberSettings,
        machine: Machine,
        on_applied: AppliedHook | None = None,
        on_stopped: StoppedHook | None = None,
    ) -> None:
        raise NotImplementedError

    def start(self) -> None:
        """Recover from the data directory and start the thread. Raises if the directory is in use or damaged."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop the thread and close everything. What still waits is answered `Unknown`. Idempotent."""
        raise NotImplementedError

    def propose(self, payload: bytes, callback: Answer) -> None:
        """Ask for one payload to be applied on all members; exactly one outcome follows, within the time limit."""
        raise NotImplementedError

    def read_index(self, callback: Answer) -> None:
        """Linearizable barrier: `Committed(index)` once the machine here covers every write that was acknowledged
        anywhere before this call; `NotApplied` if that could not be established in time."""
        raise NotImplementedError

    def transfer(self, node_id: str, callback: Answer | None = None) -> None:
        """Hand leadership over to a member; only the leader can. `Committed(node_id)` when this member sees it lead."""
        raise NotImplementedError

    def status(self) -> MemberStatus:
        raise NotImplementedError
