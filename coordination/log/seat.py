"""What one member's Raft state consists of: pysyncobj's private attributes by name, and what we keep beside them.

The handlers are in modules of their own (`standing`, `elections`, `replication`, `reads`, `compaction`), each a class
on top of `Seat`; `replica` puts them together. Nothing here decides anything.
"""

import math
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import pysyncobj.syncobj as core
from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.node import Node

from coordination.log import contract, identity, members, snapshot, wire
from coordination.log.contract import AppliedHook, Machine, MemberSettings
from coordination.log.disk import Disk
from coordination.log.journal import Journal
from coordination.log.outbox import Links, Outbox
from coordination.log.waiting import Waiting

_stock_create_journal = core.createJournal
core.createJournal = lambda given: given if isinstance(given, Journal) else _stock_create_journal(given)

FOLLOWER, CANDIDATE, LEADER = range(3)
ROLES = {FOLLOWER: contract.FOLLOWER, CANDIDATE: contract.CANDIDATE, LEADER: contract.LEADER}

RunAside = Callable[[Callable[[], int]], "Future[int]"]


def run_here(work: Callable[[], int]) -> "Future[int]":
    """The simulation's way of running work aside: at once."""
    done: Future[int] = Future()
    done.set_result(work())
    return done


def _private(name: str) -> Any:
    """One of SyncObj's private attributes under a name of ours."""
    mangled = f"_SyncObj__{name}"
    # SyncObj.__init__ looks at every attribute of the class before it has set all of its own.
    return property(
        lambda self: getattr(self, mangled, None), lambda self, value: setattr(self, mangled, value)
    )


@dataclass(slots=True)
class Read:
    """A linearizable read that waits for a majority to answer a round sent after it was asked."""

    round: int
    index: int
    local: Waiting | None
    asker: tuple[Node, int] | None


@dataclass(slots=True)
class Outgoing:
    """A snapshot on its way to a peer. `offset` is what the peer asked for, `sent` what was last sent."""

    position: tuple[int, int]
    data: bytes
    offset: int = 0
    sent: int = -1
    sent_at: float = -math.inf


@dataclass(slots=True)
class Joiner:
    """A directory that has forgotten, or never knew, its promises. `asked_round` is the first round sent after it came.

    Once every other voter that has forgotten nothing has answered such a round in this term, nothing that the old
    directory helped to decide can be ahead of us; `barrier` is then what the new one must hold before it counts again.
    """

    instance: str
    asked_round: int
    barrier: int = 0


@dataclass(slots=True)
class Transfer:
    """A hand-over under way: no new commands are taken meanwhile."""

    target: Node
    waiting: Waiting
    deadline: float
    is_sent: bool = False


@dataclass(slots=True)
class CatchingUp:
    """A learner's round: from `began` until it holds everything up to `target`."""

    target: int
    began: float


@dataclass(slots=True)
class Reign:
    """What a leader knows about the others in its term; begins empty with each election."""

    acked_round: dict[Node, int] = field(default_factory=dict)
    progress: dict[Node, int] = field(default_factory=dict)
    outgoing: dict[Node, Outgoing] = field(default_factory=dict)
    joiners: dict[Node, Joiner] = field(default_factory=dict)
    seen: dict[Node, float] = field(default_factory=dict)
    catching_up: dict[Node, CatchingUp] = field(default_factory=dict)


def raft_conf(
    settings: MemberSettings, journal: Journal, on_state: Callable[[int, int], None]
) -> SyncObjConf:
    """Pysyncobj's options, each as the promises need it."""
    shortest, longest = (
        settings.heartbeat_timeout_s,
        max(settings.election_timeout_s, settings.heartbeat_timeout_s * 1.1),
    )
    return SyncObjConf(
        autoTick=False,
        appendEntriesUseBatch=True,  # we send once a step ourselves; False would also leak a pipe per object
        appendEntriesPeriod=settings.append_period_s,
        raftMinTimeout=shortest,
        raftMaxTimeout=longest,
        leaderFallbackTimeout=shortest,
        connectionTimeout=3600.0,  # the links judge silence; pysyncobj closes idle ones and loses the first vote
        commandsQueueSize=0,  # bounded by the member's count of waiting callers
        commandsWaitLeader=False,
        journalFile=journal,
        fullDumpFile=None,
        useFork=False,
        onStateChanged=on_state,
    )


class Seat(SyncObj):  # type: ignore[misc]
    """The attributes every handler works on. pysyncobj itself is initialised by `Replica`."""

    _others = _private("otherNodes")
    _state = _private("raftState")
    _leader = _private("raftLeader")
    _deadline = _private("raftElectionDeadline")
    _transferring = _private("transferInProgress")
    _voted_for = _private("votedForNodeId")
    _match = _private("raftMatchIndex")
    _next = _private("raftNextIndex")
    _last_response = _private("lastResponseTime")
    _commit = _private("raftCommitIndex")
    _applied = _private("raftLastApplied")
    _noop = _private("noopIDx")
    _connected = _private("connectedNodes")
    _waiting_commit = _private("commandsWaitingCommit")
    _waiting_reply = _private("commandsWaitingReply")
    _append_time = _private("newAppendEntriesTime")

    def _prepare(
        self,
        settings: MemberSettings,
        disk: Disk,
        links: Links,
        machine: Machine,
        on_applied: AppliedHook,
        run_aside: RunAside,
    ) -> None:
        """Everything of ours, before pysyncobj's own initialisation looks at the attributes."""
        self._settings, self._disk, self._links, self._machine = settings, disk, links, machine
        self._on_applied, self._run_aside = on_applied, run_aside
        self.counters: dict[str, int] = {}
        self.identity = identity.load(disk, settings.node_id)
        self.journal = Journal(disk, settings.segment_bytes)
        self._memberships: list[members.Members] = []
        self._settled_index = self._kept_index = 0
        self._known: dict[str, Node] = {}
        self._nodes: dict[str, Node] = {}
        self._voters: dict[str, Node] = {}
        self._is_voter = False
        self._dismissed_at = 0
        self._addresses: dict[str, str] = {}
        self._hinted: set[str] = set()
        self._greeted_with: dict[Node, int] = {}
        self._outbox = Outbox(links)
        self._outbox.speaker = self
        self.stands_by_transfer = False
        self._reign = Reign()
        self._round = 0
        self._reads: list[Read] = []
        self._reads_asked: dict[int, Waiting] = {}
        self._reads_ready: list[tuple[int, Waiting]] = []
        self._read_count = 0
        self._transfer: Transfer | None = None
        self._may_campaign = False
        self._pre_votes: tuple[int, set[str]] = (0, set())
        self._votes: set[tuple[int, str]] = set()
        self._heard = -math.inf
        self._verified = (0, 0)
        self._greeted: dict[Node, wire.Greeting] = {}
        self._incoming = snapshot.Incoming()
        self._compacting: Future[int] | None = None
        self._told = (0, 0)
        self._due = math.inf

    def _count(self, name: str) -> None:
        self.counters[name] = self.counters.get(name, 0) + 1

    def _adopt(self, term: int) -> None:
        self._SyncObj__setCurrentTerm(term, None)
        self._SyncObj__setState(FOLLOWER)
        self._leader = None

    def _stock(self, node: Node, message: dict[str, Any]) -> None:
        super()._SyncObj__onMessageReceived(node, message)

    def _is_majority(self, others: int) -> bool:
        return (others + 1) * 2 > len(self._voters) + 1

    def _node(self, node_id: str) -> Node:
        """One object per peer, member or not."""
        return self._known.setdefault(node_id, Node(node_id))

    def _cluster_id(self) -> bytes:
        return bytes.fromhex(self.identity.cluster_id).ljust(identity.ID_BYTES, b"\0")

    def _forwards_unknown(self) -> None:
        self._SyncObj__onLeaderChanged()
