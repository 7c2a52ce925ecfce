"""What the log promises and what it asks for: outcomes, the machine it drives, its settings, its status.

Data only. A caller needs this module and `raft.Member`, nothing else of the package.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

LEADER, FOLLOWER, CANDIDATE, JOINING = "leader", "follower", "candidate", "joining"
LEARNER, REMOVED = "learner", "removed"

NOT_LEADER, BUSY, CONFLICT, MISSING = "not_leader", "busy", "conflict", "missing"
"""Why a change of membership was not made: ask the leader; ask again in a moment; never as things are; no such member."""


@dataclass(frozen=True, slots=True)
class Committed:
    """The payload is in the log of a majority and was applied here; `result` is what the machine answered."""

    result: object


@dataclass(frozen=True, slots=True)
class NotApplied:
    """The payload was not applied and never will be. It may be proposed again. `code` is one of those above, or empty."""

    reason: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody can say yet: it may have been applied, or may still be. Repeat only under the same command id."""

    reason: str


Outcome = Committed | NotApplied | Unknown
Answer = Callable[[Outcome], None]
AppliedHook = Callable[[int, int, object], None]
StoppedHook = Callable[[BaseException | None], None]


class Machine(Protocol):
    """The state that every member builds from the same payloads. All three are called in the member's thread.

    `apply` is total: a refusal is a result. An exception is a defect and stops the member.
    `snapshot` and `restore` are inverse to one another; `restore` replaces the whole state.
    """

    def apply(self, payload: bytes) -> object:
        """The answer to one committed payload; the same on every member."""

    def snapshot(self) -> bytes | Iterable[bytes]:
        """The whole state, as bytes of the machine's own: at once, or in pieces that another thread takes while
        `apply` goes on, and that together tell of the moment of this call.
        """

    def restore(self, data: bytes) -> None:
        """Replace the whole state by one that `snapshot` returned."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Another member as configured: its node id and the `host:port` at which it listens for members."""

    node_id: str
    address: str


@dataclass(frozen=True, slots=True)
class MemberSettings:
    """Everything a member needs to know. Without peers it is a cluster of one; without `bind` it has no sockets.

    `peers` are the founders of a new cluster, and whom a new member asks first. A directory that knows a membership
    goes by that. `advertise` is where others reach this member, `bind` where unset. With `may_found` False an empty
    directory begins no cluster: it waits until a member of one greets it.

    `heartbeat_timeout_s` and `election_timeout_s` are RAFT_HEARTBEAT_TIMEOUT and RAFT_ELECTION_TIMEOUT: a member
    that has heard no leader for a time drawn between the two asks for votes. Leaders send three times as often; pysyncobj asks for more than that.
    """

    node_id: str
    data_dir: Path
    secret: str = ""
    bind: str = ""
    advertise: str = ""
    peers: tuple[Peer, ...] = ()
    may_found: bool = True
    heartbeat_timeout_s: float = 0.15
    election_timeout_s: float = 0.3
    command_timeout_s: float = 5.0
    max_waiting: int = 20_000
    max_payload_bytes: int = 4 * 1024 * 1024
    snapshot_interval_s: float = 120.0
    snapshot_entries: int = 50_000
    snapshot_bytes: int = 64 * 1024 * 1024
    snapshot_retain: int = 2
    segment_bytes: int = 16 * 1024 * 1024
    batch_bytes: int = 256 * 1024
    """Commands in one append message; one command may be larger and then travels alone."""
    chunk_bytes: int = 256 * 1024
    """Of a snapshot, in one message."""

    @property
    def address(self) -> str:
        """Where others reach this member."""
        return self.advertise or self.bind

    @property
    def append_period_s(self) -> float:
        """How often a leader sends to each follower when there is nothing new."""
        return self.heartbeat_timeout_s / 3.3


@dataclass(frozen=True, slots=True)
class MemberView:
    """One member as this one sees it. `match_index`, `lag` and `last_seen_s` (seconds ago) are known to the leader
    alone and are 0, 0 and None elsewhere and None where nothing was ever heard.
    """

    id: str
    address: str
    role: str
    match_index: int = 0
    lag: int = 0
    last_seen_s: float | None = None


@dataclass(frozen=True, slots=True)
class Belief:
    """Of `MemberStatus` what is asked many times a second."""

    node_id: str
    role: str
    term: int
    cluster_id: str


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """What the member believes now. A belief about the leader may be out of date by one election timeout."""

    node_id: str
    role: str
    leader: str
    term: int
    commit_index: int
    applied_index: int
    members: tuple[MemberView, ...] = ()
    cluster_id: str = ""
    snapshot_index: int = 0
    counters: dict[str, int] = field(default_factory=dict)
    stale: str = ""
    """Why what is read here may be old and cannot be written: the disk is full, or no leader is known; else empty."""
