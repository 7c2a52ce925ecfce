"""Changing who belongs to the cluster while it runs: one voter at a time, through the log.

    add       a learner: it is fed, and counts in nothing
    promote   by the leader itself, once the learner holds all entries and keeps up
    remove    the others commit it; the removed one is told, and is quiet from then on

A membership is in effect on each member from the moment it is in the journal, committed or not, and no longer when it
is cut. A leader begins a change only after the one before and its own first entry are committed: otherwise majorities
of two memberships need not share a member. Until a change is committed the members of both are looked after.
"""

import logging

import msgspec
import pysyncobj.syncobj as core
from pysyncobj.node import Node

from coordination.log import identity, members, wire
from coordination.log.contract import BUSY, CONFLICT, MISSING, NOT_LEADER, Committed, NotApplied
from coordination.log.elections import Elections
from coordination.log.journal import JournalDamaged
from coordination.log.members import Members
from coordination.log.seat import FOLLOWER, LEADER, CatchingUp
from coordination.log.waiting import Waiting

log = logging.getLogger(__name__)


class Changes(Elections):
    """Invariant: what counts in majorities is the newest membership in the journal."""

    # ---- where the membership comes from

    def _recover_members(self) -> None:
        """The newest in the journal, else the one kept at its base, else the configured founders."""
        settings = self._settings
        peers = tuple((peer.node_id, peer.address) for peer in settings.peers)
        base = members.configured(settings.node_id, settings.address, peers)
        if members.FILE_NAME in self._disk.names():
            try:
                base = msgspec.json.decode(self._disk.read(members.FILE_NAME), type=Members)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise JournalDamaged(
                    f"{members.FILE_NAME} cannot be read ({error}): restore the data directory from a backup, or empty "
                    "it so that the other members send a snapshot"
                ) from error
        self._kept_index = base.index
        found = [members.in_command(command) for command, index, _ in self.journal if index > base.index]
        self._memberships = [base, *(each for each in found if each is not None)]

    def _keep_members(self, index: int) -> None:
        """Before a snapshot up to this index is stored, who the members were there is kept beside it.

        Not only before the journal forgets it: a snapshot can be on the disk before the entries it covers are.
        """
        held = self._members_at(index)
        if held.index > self._kept_index:
            self._store_members(held)
        self._memberships = [held, *(later for later in self._memberships if later.index > held.index)]

    def _store_members(self, held: Members) -> None:
        """Durable when it returns."""
        self._disk.replace(members.FILE_NAME, msgspec.json.encode(held))
        self._kept_index = held.index

    def _members_at(self, index: int) -> Members:
        """As of this entry."""
        return [self._memberships[0], *(held for held in self._memberships if held.index <= index)][-1]

    def _note_members(self, command: bytes) -> None:
        """An entry was added to the journal."""
        held = members.in_command(command)
        if held is not None:
            self._memberships.append(held)
            self._activate()

    def _unnote_members(self, index: int) -> None:
        """The entry with this index and all behind it were cut from the journal."""
        if self._memberships[-1].index >= index and len(self._memberships) > 1:
            self._memberships = [self._memberships[0]] + [m for m in self._memberships[1:] if m.index < index]
            self._activate()

    def _members_of_snapshot(self, held: Members, index: int, *, keeps_tail: bool) -> None:
        """A snapshot up to `index` took the journal's place, and the entries behind it stayed or went."""
        tail = [m for m in self._memberships if m.index > index] if keeps_tail else []
        self._memberships = [held, *tail]
        self._activate()

    # ---- what is in effect

    @property
    def members(self) -> Members:
        """The membership in effect here."""
        return self._memberships[-1]

    @property
    def _is_settled(self) -> bool:
        return self.members.index <= self._commit

    def _activate(self) -> None:
        """Look after the members of this membership, and of the one before it until this one is committed."""
        held, me = self.members, self.identity.node_id
        before, voted = self._nodes.keys() | self._hinted, self._others
        self._hinted = set()
        looked_after = {seat.id: seat for seat in held.seats}
        if not self._is_settled and len(self._memberships) > 1:
            looked_after = {seat.id: seat for seat in self._memberships[-2].seats} | looked_after
        self._nodes = {node_id: self._node(node_id) for node_id in looked_after if node_id != me}
        self._voters = {node_id: self._node(node_id) for node_id in held.voters if node_id != me}
        self._others = set(self._voters.values())
        was_voter, self._is_voter = self._is_voter, me in held.voters
        if self._state == LEADER:
            for node in self._nodes.values():
                self._begin_feeding(node)
            for node in self._others - voted:
                self._last_response[node] = core.monotonicTime()  # a learner's answers did not count
        for node_id in before - self._nodes.keys():
            self._links.forget(node_id)
        for node_id in self._nodes:
            self._links.meet(node_id, self._addresses.get(node_id) or looked_after[node_id].address)
        if self._is_voter and not was_voter and self._state != LEADER:
            self._deadline = core.monotonicTime() + self._SyncObj__generateRaftTimeout()
        self._claim_seat(held)
        for node in self._greeted:
            self.greet(node)

    def _begin_feeding(self, node: Node) -> None:
        if node not in self._last_response:
            self._next[node], self._match[node] = self.journal.last_index + 1, 0
            self._last_response[node] = core.monotonicTime()

    def _claim_seat(self, held: Members) -> None:
        """The entry that makes a learner a voter names its directory: this one was brought up to date, none before it."""
        mine = held.find(self.identity.node_id)
        is_named = mine is not None and mine.votes and mine.instance == self.identity.instance
        if is_named and self.identity.standing == identity.JOINING:
            self._become(identity.MEMBER, self.identity.cluster_id)

    def _watch_members(self) -> None:
        """Called in each step: whether the membership in effect has been committed meanwhile."""
        if self.members.index <= self._settled_index or not self._is_settled:
            return
        self._settled_index = self.members.index
        log.info(
            "members_changed",
            extra={
                "node": self.identity.node_id,
                "entry": self.members.index,
                "voters": sorted(self.members.voters),
                "learners": list(self.members.learners),
            },
        )
        self._activate()
        for node in self._greeted:
            self._dismiss(node)

    # ---- strangers

    def _accepts(self, node: Node) -> bool:
        """Whether what this peer says is listened to: a member, or one that knows a later membership than we do."""
        greeting = self._greeted.get(node)
        if greeting is None:
            return False
        return (
            node.id in self._nodes or greeting.members.index > self.members.index or not self.identity.votes
        )

    def _dismiss(self, node: Node) -> None:
        """Tell a peer that is none of the members so; only what is committed is told."""
        greeting = self._greeted.get(node)
        if greeting is None or self._accepts(node) or not self._is_settled or not self.identity.votes:
            return
        self._count("strangers_dismissed")
        self._outbox.send(node, wire.Dismissal(self.members.index, greeting.members.index > 0))

    def _on_dismissal(self, node: Node, sender_term: int, message: wire.Dismissal) -> None:
        if not message.removed:
            if not self.identity.votes:
                log.warning(
                    "not_a_member_yet",
                    extra={"node": self.identity.node_id, "peer": node.id, "how": "manage.py cluster add"},
                )
        elif message.index > max(self.members.index, self._dismissed_at):
            self._dismissed_at = message.index
            self._leader = None
            self._SyncObj__setState(FOLLOWER)
            log.error(
                "removed_from_the_cluster",
                extra={
                    "node": self.identity.node_id,
                    "peer": node.id,
                    "entry": message.index,
                    "consequence": "it takes no part any more; stop it, or add it again",
                },
            )

    @property
    def is_removed(self) -> bool:
        """Whether members have told this one that it is none of them any more."""
        return self._dismissed_at > self.members.index

    # ---- the leader

    def _SyncObj__onBecomeLeader(self) -> None:  # noqa: N802
        """Every cluster's log says who its members are: the first leader writes down what was configured."""
        for node in self._nodes.values():
            self._next[node], self._match[node] = self.journal.last_index + 1, 0
        super()._SyncObj__onBecomeLeader()
        for node in self._nodes.values():
            self._begin_feeding(node)
        if self.members.index == 0:
            self._append_members(self.members.at(self.journal.last_index + 1))

    def _append_members(self, held: Members) -> int:
        assert held.index == self.journal.last_index + 1, "a membership names its own entry"
        command = members.KIND + members.encode(held)
        self.journal.add(command, held.index, self.raftCurrentTerm)
        self._note_members(command)
        return held.index

    def _may_change(self) -> str:
        """Why no change can begin now; empty if one can."""
        if self._commit < self._noop:
            return "this leader has not yet committed an entry of its own"
        if not self._is_settled:
            return "another change is under way"
        return "leadership is being handed over" if self._transfer is not None else ""

    def _propose_members(self, held: Members, waiting: Waiting) -> None:
        index = self._append_members(held)
        self._waiting_commit[index].append((self.raftCurrentTerm, waiting.answer))

    def add_member(self, node_id: str, address: str, waiting: Waiting) -> None:
        """A new member, as a learner. `Committed(Members)`; also if it is a member at this address already."""
        if not self._leads_changes(waiting):
            return
        held = self.members
        found = held.find(node_id)
        if not self._settings.bind:
            waiting.settle(NotApplied("this node runs alone: CLUSTER_ENABLED is false", CONFLICT))
        elif found is not None and found.address == address:
            waiting.settle(Committed(held))
        elif found is not None:
            waiting.settle(NotApplied(f"{node_id} is a member already, at {found.address}", CONFLICT))
        elif any(seat.address == address for seat in held.seats):
            waiting.settle(NotApplied(f"{address} is another member's address", CONFLICT))
        else:
            self._propose_members(held.with_learner(self.journal.last_index + 1, node_id, address), waiting)

    def remove_member(self, node_id: str, waiting: Waiting) -> None:
        """A member less. A leader that shall go hands over first: then the answer is NOT_LEADER."""
        if not self._leads_changes(waiting):
            return
        held = self.members
        found = held.find(node_id)
        if found is None:
            waiting.settle(NotApplied(f"there is no member {node_id}", MISSING))
        elif found.votes and len(held.voters) == 1:
            waiting.settle(NotApplied(f"{node_id} is the only voting member", CONFLICT))
        elif node_id == self.identity.node_id:
            self._hand_over_and_leave(waiting)
        elif found.votes and not self._would_have_majority(held.voters - {node_id}):
            waiting.settle(
                NotApplied(f"without {node_id} too few of the voting members can be reached", CONFLICT)
            )
        else:
            self._propose_members(held.without(self.journal.last_index + 1, node_id), waiting)

    def _leads_changes(self, waiting: Waiting) -> bool:
        if self._state != LEADER:
            waiting.settle(
                NotApplied("only the leader changes the members; this member does not lead", NOT_LEADER)
            )
            return False
        reason = self._may_change()
        if reason:
            waiting.settle(NotApplied(reason, BUSY))
        return not reason

    def _would_have_majority(self, voters: frozenset[str]) -> bool:
        since = core.monotonicTime() - 2 * self._settings.election_timeout_s
        heard = sum(
            node_id == self.identity.node_id
            or (self._node(node_id) in self._greeted and self._last_response[self._node(node_id)] > since)
            for node_id in voters
        )
        return 2 * heard > len(voters)

    def _hand_over_and_leave(self, waiting: Waiting) -> None:
        def handed_over(outcome: object) -> None:
            if isinstance(outcome, Committed):
                waiting.settle(NotApplied("leadership was handed over first: ask the new leader", NOT_LEADER))
            else:
                waiting.settle(NotApplied("leadership could not be handed over first", BUSY))

        self.hand_over(Waiting(handed_over, waiting.deadline, is_read=True))

    def _pursue_changes(self) -> None:
        """Promote a learner whose last round of catching up was short (thesis, 4.2.1)."""
        if self._state != LEADER or not self.members.learners or self._may_change():
            return
        now, last = core.monotonicTime(), self.journal.last_index
        for node_id in self.members.learners:
            node = self._node(node_id)
            greeting = self._greeted.get(node)
            if greeting is None:
                self._reign.catching_up.pop(node, None)
                continue
            round_ = self._reign.catching_up.setdefault(node, CatchingUp(last, now))
            if self._reign.progress.get(node, 0) < round_.target:
                continue
            if now - round_.began > self._settings.election_timeout_s:
                self._reign.catching_up[node] = CatchingUp(last, now)
                continue
            del self._reign.catching_up[node]
            self._append_members(self.members.with_promoted(last + 1, node_id, greeting.instance))
            return
