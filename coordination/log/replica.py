"""pysyncobj's Raft with its promises kept: our handlers, our snapshots, no answer before the sync.

`Replica` overrides, by their mangled names, the private methods of pysyncobj 0.3.17 that lose acknowledged commands,
hang or unpickle; a test pins the source they were written against. It has no thread, no socket and no clock of its
own: whoever drives it delivers frames and calls `step`, one thread only, so the simulation runs the same code.

One step, in this order, is what durability rests on:
    frames were delivered      handlers append to the journal's buffer and queue answers
    stand, tick                elections; commit what a majority has; apply; take commands; queue entries
    flush_early                entries leave; they promise nothing
    sync                       one sync for entries, cuts, term and vote
    flush                      votes and answers leave; they promise what is now on disk
The leader counts itself in the next tick, after this sync.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import pysyncobj.syncobj as core
from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf
from pysyncobj.node import Node

from coordination.log import contract, identity, snapshot, wire
from coordination.log.contract import AppliedHook, Committed, Machine, MemberSettings, MemberView, NotApplied
from coordination.log.disk import Disk
from coordination.log.journal import Journal, JournalDamaged
from coordination.log.outbox import Links, Outbox
from coordination.log.waiting import Waiting

log = logging.getLogger(__name__)

_stock_create_journal = core.createJournal
core.createJournal = lambda given: given if isinstance(given, Journal) else _stock_create_journal(given)

FOLLOWER, CANDIDATE, LEADER = range(3)
ROLES = {FOLLOWER: contract.FOLLOWER, CANDIDATE: contract.CANDIDATE, LEADER: contract.LEADER}
REGULAR = b"\x00"

FEED_BYTES = 4 * 1024 * 1024
"""What one peer is sent in one round, and the backlog at which it gets heartbeats only."""
APPLY_SLICE_S = 0.02
"""A member that catches up goes on reading and sending in between."""
QUIET_SHARE = 0.8
"""A leader heard within this share of the shortest time-out is alive: no votes against it."""
RESEND_SHARE = 2.0
"""A chunk unanswered for this share of the shortest time-out is sent again."""

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


class _NoPoller:
    """Stands where pysyncobj reads sockets at the end of a tick: frames are delivered before the tick instead."""

    def poll(self, timeout: float) -> None: ...

    def subscribe(self, *args: object) -> None: ...

    def unsubscribe(self, *args: object) -> None: ...


@dataclass(slots=True)
class _Read:
    """A linearizable read that waits for a majority to answer a round sent after it was asked."""

    round: int
    index: int
    local: Waiting | None
    asker: tuple[Node, int] | None


@dataclass(slots=True)
class _Outgoing:
    """A snapshot on its way to a peer. `offset` is what the peer asked for, `sent` what was last sent."""

    position: tuple[int, int]
    data: bytes
    offset: int = 0
    sent: int = -1
    sent_at: float = -math.inf


@dataclass(slots=True)
class _Joiner:
    """A directory that has forgotten, or never knew, its promises. `asked_round` is the first round sent after it came.

    Once every other member has answered such a round in this term, nothing that the old directory helped to decide
    can be ahead of us; `barrier` is then what the new one must hold before it counts again.
    """

    instance: str
    asked_round: int
    barrier: int = 0


@dataclass(slots=True)
class _Transfer:
    target: Node
    waiting: Waiting
    deadline: float
    is_sent: bool = False


@dataclass(slots=True)
class _Reign:
    """What a leader knows about the others in its term; begins empty with each election."""

    acked_round: dict[Node, int] = field(default_factory=dict)
    progress: dict[Node, int] = field(default_factory=dict)
    outgoing: dict[Node, _Outgoing] = field(default_factory=dict)
    joiners: dict[Node, _Joiner] = field(default_factory=dict)
    seen: dict[Node, float] = field(default_factory=dict)


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


class Replica(SyncObj):  # type: ignore[misc]
    """One member's Raft state. Raises JournalDamaged, WrongIdentity or SnapshotDamaged when it must not start."""

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

    def __init__(
        self,
        settings: MemberSettings,
        disk: Disk,
        links: Links,
        machine: Machine,
        on_applied: AppliedHook,
        run_aside: RunAside = run_here,
    ) -> None:
        self._settings, self._disk, self._links, self._machine = settings, disk, links, machine
        self._on_applied, self._run_aside = on_applied, run_aside
        self.counters: dict[str, int] = {}
        self.identity = identity.load(disk, settings.node_id)
        self.journal = Journal(disk, settings.segment_bytes)
        self._outbox = Outbox(links)
        self._outbox.speaker = self
        self.stands_by_transfer = False
        self._reign = _Reign()
        self._round = 0
        self._reads: list[_Read] = []
        self._reads_asked: dict[int, Waiting] = {}
        self._reads_ready: list[tuple[int, Waiting]] = []
        self._read_count = 0
        self._transfer: _Transfer | None = None
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

        newest = self._recover_snapshot()
        peers = [Node(peer.node_id) for peer in settings.peers]
        conf = raft_conf(settings, self.journal, self._on_state_changed)
        super().__init__(Node(settings.node_id), peers, conf, nodeClass=Node, transport=self._outbox)
        self._SyncObj__needLoadDumpFile = False
        self._poller = _NoPoller()
        self._nodes = {peer.id: peer for peer in peers}
        self._compacted_at = core.monotonicTime()
        self._handlers: dict[type, Callable[[Node, int, Any], None]] = {
            wire.AppendEntries: self._on_append,
            wire.AppendAnswer: self._on_append_answer,
            wire.SnapshotChunk: self._on_chunk,
            wire.ChunkWanted: self._on_chunk_wanted,
            wire.RequestVote: self._on_request_vote,
            wire.VoteGranted: self._on_vote_granted,
            wire.PreVote: self._on_pre_vote,
            wire.PreVoteGranted: self._on_pre_vote_granted,
            wire.Forward: self._on_forward,
            wire.ForwardAnswer: self._on_forward_answer,
            wire.TimeoutNow: self._on_timeout_now,
            wire.ReadRequest: self._on_read_request,
            wire.ReadAnswer: self._on_read_answer,
            wire.Admission: self._on_admission,
        }
        if newest is not None:
            machine.restore(newest.state)
            self._applied = self._commit = newest.index
        if not peers:
            self._deadline = -math.inf
            if not self.identity.votes:
                self._become(identity.MEMBER, identity.bootstrap_cluster_id([self.identity.instance]))

    # ---- recovery

    def _recover_snapshot(self) -> snapshot.Snapshot | None:
        """The newest whole snapshot, with a journal that continues it; refuses a gap between the two."""
        self._snapshots = snapshot.Snapshots(self._disk, self._cluster_id(), self._settings.snapshot_retain)
        newest = self._snapshots.newest()
        first = self.journal.first_index if len(self.journal) else 1
        if first > (newest.index if newest else 1):
            raise JournalDamaged(
                f"the journal begins at entry {first}, the newest whole snapshot ends at {newest.index if newest else 0}: "
                "entries between are missing. Restore the directory from a backup, or empty it so that the other "
                "members send a snapshot"
            )
        if newest is not None and self.journal.term_at(newest.index) != newest.term:
            # Stored, but the crash came before the journal followed: what the journal has instead was never committed.
            self.journal.reset(newest.index, newest.term)
        self.snapshot_index = newest.index if newest else 0
        return newest

    def _cluster_id(self) -> bytes:
        return bytes.fromhex(self.identity.cluster_id).ljust(identity.ID_BYTES, b"\0")

    # ---- the step

    def step(self) -> None:
        """Everything between two looks at the sockets. Raises DiskFull or DiskFailed: then nothing more may leave."""
        now = core.monotonicTime()
        self._forgive_stall(now)
        self._stand(now)
        self._onTick(0)
        self._may_campaign = self.stands_by_transfer = False
        self._serve_reads()
        self._pursue_transfer()
        self._outbox.flush_early()
        self.journal.sync()
        self._outbox.flush()

    def next_wakeup(self) -> float:
        """When the next step is due at the latest, on the replica's clock."""
        now = core.monotonicTime()
        self._due = max(now, self._next_due(now))
        return self._due

    def _next_due(self, now: float) -> float:
        if self._applied < self._commit or (not self._nodes and self._commit < self.journal.last_index):
            return now
        compaction = (
            self._compacted_at + self._settings.snapshot_interval_s
            if self._compacting is None
            else now + 0.05
        )
        if self._state != LEADER:
            return min(self._deadline, compaction)
        return min(self._append_time, compaction) if self._nodes else max(now + 0.01, compaction)

    def _forgive_stall(self, now: float) -> None:
        """After a stall of our own the silence of others proves nothing: what they sent was read only just now."""
        stalled = now - self._due
        if stalled > self._settings.heartbeat_timeout_s / 2:
            self._deadline = max(self._deadline, now + self._SyncObj__generateRaftTimeout())
            for node in self._last_response:
                self._last_response[node] += stalled

    # ---- becoming somebody

    def greet(self, node: Node) -> None:
        """Queue our greeting for a peer."""
        has_history = self.raftCurrentTerm > 0 or self.journal.last_index > 1
        mine = self.identity
        self._outbox.send(node, wire.Greeting(mine.cluster_id, mine.instance, mine.standing, has_history))

    def _become(self, standing: str, cluster_id: str) -> None:
        self.identity = identity.Identity(
            1, self.identity.node_id, self.identity.instance, cluster_id, standing
        )
        identity.store(self._disk, self.identity)
        self._snapshots = snapshot.Snapshots(self._disk, self._cluster_id(), self._settings.snapshot_retain)
        log.info(
            "member_standing",
            extra={"node": self.identity.node_id, "standing": standing, "cluster": cluster_id},
        )
        if self._nodes:
            self._deadline = core.monotonicTime() + self._SyncObj__generateRaftTimeout()
        for node in self._greeted:
            self.greet(node)

    def _on_greeting(self, node: Node, greeting: wire.Greeting) -> None:
        mine = self.identity.cluster_id
        if mine and greeting.cluster_id and mine != greeting.cluster_id:
            self._count("refused_wrong_cluster")
            log.error(
                "peer_of_another_cluster",
                extra={"peer": node.id, "theirs": greeting.cluster_id, "ours": mine},
            )
            self._links.drop(node.id, "it belongs to another cluster")
            return
        is_new = node not in self._greeted
        self._greeted[node] = greeting
        if self.identity.standing == identity.NEW:
            self._find_standing()
        if is_new and self._greeted.get(node) is greeting:
            self._outbox.connected(node)
        if self._state == LEADER:
            if greeting.standing != identity.MEMBER:
                self._match[node] = 0  # what the old directory held went with it
            self._next[node] = min(self._next[node], max(self._match[node], self.journal.first_index) + 1)

    def _find_standing(self) -> None:
        """A directory without a cluster founds one with others of its kind, or joins one that has a history.

        It cannot know whether it is new or was wiped. If every other member is without history there is nothing it
        can have promised; otherwise it takes part in no majority until a leader has admitted it.
        """
        known = sorted({g.cluster_id for g in self._greeted.values() if g.cluster_id})
        joins = any(g.history or g.standing == identity.JOINING for g in self._greeted.values())
        if joins and known:
            self._become(identity.JOINING, known[0])
        elif len(self._greeted) == len(self._nodes) and not joins:
            instances = [g.instance for g in self._greeted.values()] + [self.identity.instance]
            self._become(identity.MEMBER, known[0] if known else identity.bootstrap_cluster_id(instances))

    def _on_admission(self, node: Node, term: int, message: wire.Admission) -> None:
        holds = (
            self._verified[0] == message.term == self.raftCurrentTerm and self._verified[1] >= message.index
        )
        if (
            holds
            and message.instance == self.identity.instance
            and self.identity.standing == identity.JOINING
        ):
            self._become(identity.MEMBER, self.identity.cluster_id)

    def _consider_admission(self, node: Node, instance: str) -> None:
        joiner = self._reign.joiners.get(node)
        if joiner is None or joiner.instance != instance:
            self._reign.joiners[node] = _Joiner(instance, self._round + 1)
            self._reign.progress.pop(node, None)
            return
        others = [other for other in self._nodes.values() if other != node]
        is_confirmed = all(self._reign.acked_round.get(other, 0) >= joiner.asked_round for other in others)
        if not is_confirmed or self._commit < self._noop:
            return
        joiner.barrier = joiner.barrier or self._commit
        if self._reign.progress.get(node, 0) >= joiner.barrier:
            self._outbox.send(node, wire.Admission(self.raftCurrentTerm, instance, joiner.barrier))

    # ---- links

    def link_up(self, peer: str) -> None:
        """A new connection: greet; nothing else is heard from it before its greeting."""
        self.greet(self._nodes[peer])

    def link_down(self, peer: str) -> None:
        """The connection is gone, with everything on it that had not arrived."""
        node = self._nodes[peer]
        self._greeted.pop(node, None)
        self._reign.outgoing.pop(node, None)
        self._outbox.disconnected(node)
        if self._leader == node:
            self._forwards_unknown()
            self._reads_lost()
            # A closed connection is no proof, but reason enough to ask the others soon whether they hear it.
            self._heard = -math.inf
            soon = self._SyncObj__generateRaftTimeout() - self._settings.heartbeat_timeout_s
            self._deadline = min(self._deadline, core.monotonicTime() + soon)

    def frame(self, peer: str, data: bytes) -> None:
        """One frame from an authenticated peer."""
        try:
            envelope = wire.decode(data)
        except wire.Malformed as error:
            self._count("refused_malformed")
            log.warning("peer_sent_no_message", extra={"peer": peer, "reason": str(error)})
            self._links.drop(peer, "it sent something that is no message")
            return
        self._receive(self._nodes[peer], envelope.sender_term, envelope.message)

    def _receive(self, node: Node, sender_term: int, message: wire.Message) -> None:
        if isinstance(message, wire.Greeting):
            self._on_greeting(node, message)
            return
        if node not in self._greeted or self.identity.standing == identity.NEW:
            return
        if sender_term > self.raftCurrentTerm and not isinstance(message, wire.RequestVote | wire.PreVote):
            self._adopt(sender_term)
        self._handlers[type(message)](node, sender_term, message)

    def _adopt(self, term: int) -> None:
        self._SyncObj__setCurrentTerm(term, None)
        self._SyncObj__setState(FOLLOWER)
        self._leader = None

    def _stock(self, node: Node, message: dict[str, Any]) -> None:
        super()._SyncObj__onMessageReceived(node, message)

    def _count(self, name: str) -> None:
        self.counters[name] = self.counters.get(name, 0) + 1

    # ---- elections

    def _stand(self, now: float) -> None:
        """When our time is up, first ask whether an election could be won; only then let pysyncobj hold one."""
        if self._state == LEADER:
            return
        if not self.identity.votes:
            self._deadline = math.inf
            return
        if self._deadline >= now or self._may_campaign or not self._nodes:
            return
        self._count("pre_votes_asked")
        self._deadline = now + self._SyncObj__generateRaftTimeout()
        self._leader = None
        self._forwards_unknown()
        self._reads_lost()
        term = self.raftCurrentTerm + 1
        self._pre_votes = (term, set())
        for node in self._connected:
            self._outbox.send(node, wire.PreVote(term, self.journal.last_index, self.journal.last_term))

    def _hears_leader(self) -> bool:
        if self._state == LEADER:
            return True
        return bool(core.monotonicTime() - self._heard < self._settings.heartbeat_timeout_s * QUIET_SHARE)

    def _on_pre_vote(self, node: Node, sender_term: int, message: wire.PreVote) -> None:
        if message.term <= self.raftCurrentTerm:
            self._outbox.send(node, wire.PreVoteGranted(0))  # its envelope tells the newer term
            return
        is_good = (message.last_log_term, message.last_log_index) >= (
            self.journal.last_term,
            self.journal.last_index,
        )
        if is_good and self.identity.votes and not self._hears_leader():
            self._outbox.send(node, wire.PreVoteGranted(message.term))

    def _on_pre_vote_granted(self, node: Node, sender_term: int, message: wire.PreVoteGranted) -> None:
        term, voters = self._pre_votes
        if self._state == LEADER or message.term != term or term != self.raftCurrentTerm + 1:
            return
        voters.add(node.id)
        if self._is_majority(len(voters)) and self.identity.votes:
            self._pre_votes = (0, set())
            self._campaign()

    def _campaign(self) -> None:
        """The next tick holds the election."""
        self._may_campaign, self._deadline = True, -math.inf

    def _is_majority(self, others: int) -> bool:
        return (others + 1) * 2 > len(self._nodes) + 1

    def _on_request_vote(self, node: Node, sender_term: int, message: wire.RequestVote) -> None:
        if not self.identity.votes or (self._hears_leader() and not message.transfer):
            return
        if message.term == self.raftCurrentTerm and self._voted_for == node.id and self._state != LEADER:
            self._outbox.send(node, wire.VoteGranted(message.term))  # the first grant may have been lost
            return
        self._stock(
            node,
            {
                "type": "request_vote",
                "term": message.term,
                "last_log_index": message.last_log_index,
                "last_log_term": message.last_log_term,
            },
        )

    def _on_vote_granted(self, node: Node, sender_term: int, message: wire.VoteGranted) -> None:
        """Voters are counted, not votes."""
        if (message.term, node.id) not in self._votes:
            self._votes = {vote for vote in self._votes if vote[0] == message.term} | {
                (message.term, node.id)
            }
            self._stock(node, {"type": "response_vote", "term": message.term})

    def _on_timeout_now(self, node: Node, sender_term: int, message: wire.TimeoutNow) -> None:
        if message.term == self.raftCurrentTerm and node == self._leader and self.identity.votes:
            self._transferring = self.stands_by_transfer = True
            self._campaign()

    def _on_state_changed(self, old: int, new: int) -> None:
        if new == LEADER:
            self._reign = _Reign()
            self._told = (0, 0)
            self._count("terms_led")
        elif old == LEADER:
            self._count("terms_ended")
            self._forwards_unknown()
            self._reads_lost()
            waiting, self._waiting_commit = self._waiting_commit, defaultdict(list)
            for callbacks in waiting.values():
                for _, callback in callbacks:
                    callback(None, FAIL_REASON.UNKNOWN_OUTCOME)

    def _forwards_unknown(self) -> None:
        self._SyncObj__onLeaderChanged()

    # ---- the follower's log

    def _follow(self, node: Node, term: int) -> bool:
        """Accept this leader of our term; False, with an answer that tells our newer term, if it is deposed."""
        if term != self.raftCurrentTerm:
            self._answer(node, self._commit + 1, success=False, in_round=0)
            return False
        now = core.monotonicTime()
        if not self._transferring:
            self._deadline = now + self._SyncObj__generateRaftTimeout()
        self._heard = now
        if self._leader != node or self._verified[0] != term:
            self._forwards_unknown()
            self._reads_lost()
            self._transferring = False
            self._verified = (term, self._commit)
        self._leader = node
        self._SyncObj__setState(FOLLOWER)
        return True

    def _answer(self, node: Node, next_index: int, *, success: bool, in_round: int) -> None:
        counted = self.identity.votes
        instance = "" if counted else self.identity.instance
        self._outbox.send(node, wire.AppendAnswer(next_index, success, in_round, counted, instance))

    def _on_append(self, node: Node, sender_term: int, message: wire.AppendEntries) -> None:
        """Cut only at a real conflict, answer only for what this message has verified."""
        if not self._follow(node, message.term):
            return
        previous = message.previous_index
        if previous > self._commit and self.journal.term_at(previous) != message.previous_term:
            # One constant hint: a different one for each message on its way would chase the leader for ever.
            hint = max(self._verified[1], self._commit) + 1
            self._answer(node, hint, success=False, in_round=message.round)
            return
        matched = self._take(message.entries, max(previous, self._commit))
        self._verified = (message.term, max(self._verified[1], matched))
        self._answer(node, matched + 1, success=True, in_round=message.round)
        self._commit = max(self._commit, min(message.commit_index, matched))

    def _take(self, entries: list[tuple[bytes, int, int]], matched: int) -> int:
        """Returns the index up to which our log is now known to equal the leader's."""
        for command, index, term in entries:
            if index <= self._commit:
                continue  # committed here: the same entry by definition
            held = self.journal.term_at(index)
            if held is not None and held != term:
                self.journal.cut_from(index)
                held = None
            if held is None:
                assert index == self.journal.last_index + 1, "the leader's entries are not in sequence"
                self.journal.add(command, index, term)
            matched = index
        return matched

    # ---- the leader's view of the others

    def _on_append_answer(self, node: Node, sender_term: int, message: wire.AppendAnswer) -> None:
        """An answer raises what is matched, a refusal lowers what is sent next; neither does the other's work."""
        if sender_term != self.raftCurrentTerm or self._state != LEADER:
            return
        now = core.monotonicTime()
        self._reign.seen[node] = now
        if message.counted:
            self._last_response[node] = now
            self._reign.acked_round[node] = max(self._reign.acked_round.get(node, 0), message.round)
            self._reign.joiners.pop(node, None)
        else:
            self._match[node] = 0
            self._consider_admission(node, message.instance)
        last = self.journal.last_index
        if message.success:
            verified = min(message.next_index - 1, last)
            self._reign.progress[node] = max(self._reign.progress.get(node, 0), verified)
            if message.counted:
                self._match[node] = max(self._match[node], verified)
            self._next[node] = max(self._next[node], verified + 1)
        else:
            self._next[node] = min(self._next[node], message.next_index)
        self._next[node] = min(max(self._next[node], self._match[node] + 1, 2), last + 1)
        outgoing = self._reign.outgoing.get(node)
        if outgoing is not None and self._next[node] > outgoing.position[0]:
            del self._reign.outgoing[node]  # installed; a newer one may be needed by now

    def _SyncObj__sendAppendEntries(self) -> None:  # noqa: N802
        self._append_time = core.monotonicTime() + self._settings.append_period_s
        self._round += 1
        self._told = (self.journal.last_index, self._commit)
        for node in self._nodes.values():
            if node in self._connected:
                self._feed(node)

    def _feed(self, node: Node) -> None:
        """A heartbeat at least; as many entries as the link has room for."""
        following = self._next[node]
        if following <= self.journal.first_index:
            self._send_chunk(node)
            return
        room = FEED_BYTES - self._links.backlog(node.id)
        while True:
            entries = (
                self.journal.entries_from(following, min(room, self._settings.batch_bytes))
                if room > 0
                else []
            )
            previous = following - 1
            previous_term = self.journal.term_at(previous)
            assert previous_term is not None, "the base of the journal covers what is sent next"
            message = wire.AppendEntries(
                self.raftCurrentTerm, self._commit, previous, previous_term, self._round, entries
            )
            self._outbox.send(node, message)
            if not entries:
                break
            following += len(entries)
            room -= sum(len(entry[0]) for entry in entries)
            if following > self.journal.last_index:
                break
        self._next[node] = following

    # ---- commands

    def propose(self, payload: bytes, waiting: Waiting) -> None:
        """Put a payload into the log, here or through the leader."""
        self._applyCommand(payload, waiting.answer, 0)

    def _checkCommandsToApply(self) -> None:  # noqa: N802
        """Called by the tick after it has committed and applied. New entries, and news of commits, leave at once."""
        if self._transfer is None or self._state != LEADER:
            super()._checkCommandsToApply()
        if self._state == LEADER and self._nodes:
            has_reads = any(read.round > self._round for read in self._reads)
            if has_reads or self._told != (self.journal.last_index, self._commit):
                self._SyncObj__sendAppendEntries()

    def _on_forward(self, node: Node, sender_term: int, message: wire.Forward) -> None:
        if len(message.payload) > self._settings.max_payload_bytes:
            refusal = wire.ForwardAnswer(message.request_id, FAIL_REASON.REQUEST_DENIED, 0, 0)
            self._outbox.send(node, refusal)
            return
        self._stock(
            node,
            {"type": "apply_command", "command": REGULAR + message.payload, "request_id": message.request_id},
        )

    def _on_forward_answer(self, node: Node, sender_term: int, message: wire.ForwardAnswer) -> None:
        self._stock(
            node,
            {
                "type": "apply_command_response",
                "request_id": message.request_id,
                "error": message.error or None,
                "log_idx": message.log_index,
                "log_term": message.log_term,
            },
        )

    def refuse_forward(self, request_id: int) -> None:
        """It could not leave: so it was not applied."""
        callback = self._waiting_reply.pop(request_id, None)
        if callback is not None:
            callback(None, FAIL_REASON.MISSING_LEADER)

    def _SyncObj__applyLogEntries(self) -> bool:  # noqa: N802
        started = core.monotonicTime()
        while self._applied < self._commit and core.monotonicTime() - started < APPLY_SLICE_S:
            index = self._applied + 1
            command, _, term = self.journal[index - self.journal.first_index]
            result = self._SyncObj__doApplyCommand(command)
            self._applied = index
            for proposed_term, callback in self._waiting_commit.pop(index, ()):
                if proposed_term == term:
                    callback(result, FAIL_REASON.SUCCESS)
                else:
                    callback(None, FAIL_REASON.DISCARDED)
        return False

    def _SyncObj__doApplyCommand(self, command: bytes) -> object:  # noqa: N802
        """Only our own payloads mean anything; pysyncobj would unpickle its kinds here."""
        if command[:1] != REGULAR:
            return None
        index = self._applied + 1
        term = self.journal.term_at(index)
        assert term is not None, "an entry is applied from the journal"
        result = self._machine.apply(command[1:])
        self._on_applied(index, term, result)
        return result

    # ---- reads

    def read(self, waiting: Waiting) -> None:
        """Ask for a linearizable read; settled with the index once it is applied here."""
        if self._state == LEADER:
            self._reads.append(_Read(self._round + 1, max(self._commit, self._noop), waiting, None))
        elif self._leader in self._connected:
            self._read_count += 1
            self._reads_asked[self._read_count] = waiting
            self._outbox.send(self._leader, wire.ReadRequest(self._read_count))
        else:
            waiting.settle(NotApplied("no leader is known at the moment"))

    def _on_read_request(self, node: Node, sender_term: int, message: wire.ReadRequest) -> None:
        if self._state == LEADER:
            index = max(self._commit, self._noop)
            self._reads.append(_Read(self._round + 1, index, None, (node, message.request_id)))
        else:
            self._outbox.send(node, wire.ReadAnswer(message.request_id, 0))

    def _on_read_answer(self, node: Node, sender_term: int, message: wire.ReadAnswer) -> None:
        waiting = self._reads_asked.pop(message.request_id, None)
        if waiting is None:
            return
        if message.index:
            self._reads_ready.append((message.index, waiting))
        else:
            waiting.settle(NotApplied("the member asked does not lead any more"))

    def _serve_reads(self) -> None:
        if self._reads and self._state == LEADER:
            acked = sorted((self._reign.acked_round.get(n, 0) for n in self._nodes.values()), reverse=True)
            needed = (len(self._nodes) + 1) // 2
            confirmed = acked[needed - 1] if needed else math.inf
            open_reads = []
            for read in self._reads:
                if read.round > confirmed:
                    open_reads.append(read)
                elif read.local is not None:
                    self._reads_ready.append((read.index, read.local))
                elif read.asker is not None:
                    self._outbox.send(read.asker[0], wire.ReadAnswer(read.asker[1], read.index))
            self._reads = open_reads
        if self._reads_ready:
            ready = [(index, waiting) for index, waiting in self._reads_ready if index <= self._applied]
            self._reads_ready = [
                (index, w) for index, w in self._reads_ready if index > self._applied and not w.is_settled
            ]
            for index, waiting in ready:
                waiting.settle(Committed(max(index, self._applied)))

    def _reads_lost(self) -> None:
        """Nobody confirms what was asked of the leader that was."""
        reads, self._reads = self._reads, []
        asked, self._reads_asked = self._reads_asked, {}
        for waiting in [read.local for read in reads if read.local] + list(asked.values()):
            waiting.settle(NotApplied("the leader changed"))
        for asker in [read.asker for read in reads if read.asker]:
            self._outbox.send(asker[0], wire.ReadAnswer(asker[1], 0))

    # ---- handing over

    def transfer(self, node_id: str, waiting: Waiting) -> None:
        """Begin to hand leadership over."""
        target = self._nodes.get(node_id)
        if self._state != LEADER:
            waiting.settle(NotApplied("only the leader can hand over; this member does not lead"))
        elif target is None or target not in self._connected:
            waiting.settle(NotApplied(f"{node_id} is not a connected member"))
        elif self._transfer is not None:
            waiting.settle(NotApplied("a transfer is already under way"))
        else:
            limit = core.monotonicTime() + 4 * self._settings.election_timeout_s
            self._transfer = _Transfer(target, waiting, limit)

    def _pursue_transfer(self) -> None:
        """No new commands meanwhile; the target is asked once it has everything and all of it is committed."""
        transfer = self._transfer
        if transfer is None:
            return
        last = self.journal.last_index
        if self._leader == transfer.target:
            transfer.waiting.settle(Committed(transfer.target.id))
            self._transfer = None
        elif core.monotonicTime() > transfer.deadline:
            transfer.waiting.settle(NotApplied("the member did not take over in time"))
            self._transfer = None
        elif (
            self._state == LEADER
            and not transfer.is_sent
            and self._commit == last == self._match[transfer.target]
        ):
            self._outbox.send(transfer.target, wire.TimeoutNow(self.raftCurrentTerm))
            transfer.is_sent = True

    # ---- snapshots

    def _SyncObj__tryLogCompaction(self) -> None:  # noqa: N802
        now = core.monotonicTime()
        if self._compacting is not None:
            if self._compacting.done():
                self._finish_compaction(self._compacting.result())
            return
        settings = self._settings
        is_due = (
            self._applied - self.snapshot_index >= settings.snapshot_entries
            or self.journal.bytes_since_compaction >= settings.snapshot_bytes
            or now - self._compacted_at >= settings.snapshot_interval_s
            or self._SyncObj__forceLogCompaction
        )
        if is_due and self.identity.cluster_id:
            self._compacted_at = now
            self._SyncObj__forceLogCompaction = False
            if self._applied > max(self.snapshot_index, 1):
                self._compact(self._applied)

    def _compact(self, index: int) -> None:
        term = self.journal.term_at(index)
        assert term is not None, "what was applied last is in the journal"
        state, cluster_id, snapshots = self._machine.snapshot(), self._cluster_id(), self._snapshots

        def store() -> int:
            snapshots.store(index, term, snapshot.encode(snapshot.Snapshot(index, term, state), cluster_id))
            return index

        self._compacting = self._run_aside(store)
        if self._compacting.done():
            self._finish_compaction(self._compacting.result())

    def _finish_compaction(self, index: int) -> None:
        """The journal keeps what lies behind the oldest kept snapshot: for laggards, and if the newest is damaged."""
        self._compacting = None
        self.snapshot_index = max(self.snapshot_index, index)
        self.journal.drop_before(self._snapshots.positions()[0][0])

    def _send_chunk(self, node: Node) -> None:
        """The next piece once the last was answered; until then an empty one, which is also the heartbeat."""
        outgoing = self._reign.outgoing.get(node)
        if outgoing is None:
            newest = self._snapshots.newest_bytes()
            if newest is None:
                self.forceLogCompaction()
                return
            outgoing = self._reign.outgoing[node] = _Outgoing(*newest)
        now, data = core.monotonicTime(), b""
        resend_after = self._settings.heartbeat_timeout_s * RESEND_SHARE
        if outgoing.sent != outgoing.offset or now - outgoing.sent_at > resend_after:
            data = outgoing.data[outgoing.offset : outgoing.offset + self._settings.chunk_bytes]
            outgoing.sent, outgoing.sent_at = outgoing.offset, now
        index, snapshot_term = outgoing.position
        chunk = wire.SnapshotChunk(
            self.raftCurrentTerm, index, snapshot_term, len(outgoing.data), outgoing.offset, self._round, data
        )
        self._outbox.send(node, chunk)

    def _on_chunk_wanted(self, node: Node, sender_term: int, message: wire.ChunkWanted) -> None:
        if sender_term != self.raftCurrentTerm or self._state != LEADER:
            return
        self._reign.seen[node] = core.monotonicTime()
        if self.counts(node):
            self._last_response[node] = self._reign.seen[node]
            self._reign.acked_round[node] = max(self._reign.acked_round.get(node, 0), message.round)
        outgoing = self._reign.outgoing.get(node)
        if outgoing is None or outgoing.position != (message.index, message.snapshot_term):
            return
        is_news = outgoing.offset != message.offset
        outgoing.offset = message.offset
        if is_news and self._next[node] <= self.journal.first_index:
            self._send_chunk(node)

    def counts(self, node: Node) -> bool:
        """Whether the peer's answers may count in majorities, as far as it has told us."""
        greeting = self._greeted.get(node)
        return greeting is not None and greeting.standing == identity.MEMBER

    def _on_chunk(self, node: Node, sender_term: int, message: wire.SnapshotChunk) -> None:
        """Nothing but a whole, stored and loaded snapshot changes the log, the commit index or the answer."""
        if not self._follow(node, message.term):
            return
        position = (message.index, message.snapshot_term)
        if message.index <= self._commit:
            self._answer(node, self._commit + 1, success=True, in_round=message.round)
        elif self._incoming.add(position, message.total, message.offset, message.data):
            self._install(node, message)
        else:
            wanted = wire.ChunkWanted(*position, len(self._incoming.data), message.round)
            self._outbox.send(node, wanted)

    def _install(self, node: Node, message: wire.SnapshotChunk) -> None:
        data, self._incoming = bytes(self._incoming.data), snapshot.Incoming()
        try:
            received = snapshot.decode(data, self._cluster_id())
        except snapshot.SnapshotDamaged as error:
            self._count("refused_snapshots")
            log.warning("snapshot_refused", extra={"peer": node.id, "reason": str(error)})
            return
        index, term = received.index, received.term
        keep = []
        if self.journal.term_at(index) == term:
            keep = self.journal[index + 1 - self.journal.first_index :]
        self._snapshots.store(index, term, data)
        self.journal.reset(index, term, keep)
        self._machine.restore(received.state)
        self._applied = self._commit = self.snapshot_index = index
        self._verified = (message.term, max(self._verified[1], index))
        self._count("snapshots_installed")
        for covered in [at for at in self._waiting_commit if at <= index]:
            for _, callback in self._waiting_commit.pop(covered):
                callback(None, FAIL_REASON.UNKNOWN_OUTCOME)
        self._answer(node, index + 1, success=True, in_round=message.round)

    # ---- what others may know

    @property
    def role(self) -> str:
        """One of the roles in `contract`."""
        return ROLES[self._state] if self.identity.votes else contract.JOINING

    @property
    def leader_id(self) -> str:
        """Who leads as far as this member knows, or an empty string."""
        return self._leader.id if self._leader is not None else ""

    def views(self) -> tuple[MemberView, ...]:
        """All members, this one first; the others' progress is the leader's knowledge."""
        last, now = self.journal.last_index, core.monotonicTime()
        mine = MemberView(self.identity.node_id, self._settings.bind, self.role, last, 0, 0.0)
        return (mine, *(self._view(peer.node_id, peer.address, last, now) for peer in self._settings.peers))

    def _view(self, node_id: str, address: str, last: int, now: float) -> MemberView:
        node = self._nodes[node_id]
        role = contract.FOLLOWER if node != self._leader else contract.LEADER
        greeting = self._greeted.get(node)
        if greeting is not None and greeting.standing != identity.MEMBER:
            role = contract.JOINING
        if self._state != LEADER:
            return MemberView(node_id, address, role)
        match, seen = self._reign.progress.get(node, 0), self._reign.seen.get(node)
        return MemberView(node_id, address, role, match, last - match, None if seen is None else now - seen)
