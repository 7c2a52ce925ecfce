"""Whether this directory may take part in majorities: founding a cluster, joining one, being admitted."""

import logging

import pysyncobj.syncobj as core
from pysyncobj.node import Node

from coordination.log import identity, snapshot, wire
from coordination.log.seat import LEADER, Joiner, Seat

log = logging.getLogger(__name__)


class Standing(Seat):
    """Greetings and admissions."""

    def greet(self, node: Node) -> None:
        """Queue our greeting for a peer."""
        has_history = self.raftCurrentTerm > 0 or self.journal.last_index > 1
        mine = self.identity
        self._greeted_with[node] = self.members.index
        self._outbox.send(
            node,
            wire.Greeting(
                mine.cluster_id,
                mine.instance,
                mine.standing,
                has_history,
                self._settings.address,
                self.members,
            ),
        )

    def _become(self, standing: str, cluster_id: str) -> None:
        found = identity.Identity(1, self.identity.node_id, self.identity.instance, cluster_id, standing)
        if standing == identity.MEMBER and self.members.index == 0:
            self._store_members(self.members)  # they founded it, whatever the configuration says later
        identity.store(self._disk, found)  # first: where it finds no room nothing has changed
        self.identity = found
        self._snapshots = snapshot.Snapshots(self._disk, self._cluster_id(), self._settings.snapshot_retain)
        log.info(
            "member_standing",
            extra={"node": self.identity.node_id, "standing": standing, "cluster": cluster_id},
        )
        if self._voters:
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
        self._learn_addresses(node, greeting)
        if self.identity.standing == identity.NEW:
            self._find_standing()
        # The entry that makes us a voter may not have come here before its leader fell, who now needs our vote.
        self._claim_seat(greeting.members)
        if is_new and self._greeted.get(node) is greeting:
            self._outbox.connected(node)
        self._dismiss(node)
        if self._greeted_with.get(node) != self.members.index:
            self.greet(node)  # ours changed before theirs came, and they may know no other member to ask
        if self._state == LEADER and node in self._match:
            if greeting.standing != identity.MEMBER:
                self._match[node] = 0  # what the old directory held went with it
            self._next[node] = min(self._next[node], max(self._match[node], self.journal.first_index) + 1)

    def _learn_addresses(self, node: Node, greeting: wire.Greeting) -> None:
        """Addresses are hints: a member knows its own best, and a later membership than ours names whom to ask."""
        if greeting.address and self._addresses.get(node.id) != greeting.address:
            self._addresses[node.id] = greeting.address
            if node.id in self._nodes:
                self._links.meet(node.id, greeting.address)
        if greeting.members.index > self.members.index:
            for seat in greeting.members.seats:
                if seat.id != self.identity.node_id and seat.id not in self._nodes:
                    self._hinted.add(seat.id)
                    self._links.meet(seat.id, self._addresses.get(seat.id) or seat.address)

    def _find_standing(self) -> None:
        """A directory without a cluster founds one with others of its kind, or joins one that has a history.

        It cannot know whether it is new or was wiped. If every other member is without history there is nothing it
        can have promised; otherwise it takes part in no majority until a leader has admitted it. All founders must
        be there, and mean the same founders: with a majority of them two empty directories could begin anew beside
        one that holds everything and is away for a moment.
        """
        known = sorted({g.cluster_id for g in self._greeted.values() if g.cluster_id})
        joins = any(g.history or g.standing == identity.JOINING for g in self._greeted.values())
        founders = [self._greeted[node] for node in self._nodes.values() if node in self._greeted]
        if joins and known:
            self._become(identity.JOINING, known[0])
        elif joins or not self._settings.may_found or len(founders) < len(self._nodes):
            return
        elif any(g.members.voters != self.members.voters for g in founders):
            log.error(
                "founders_disagree",
                extra={
                    "node": self.identity.node_id,
                    "ours": sorted(self.members.voters),
                    "theirs": [sorted(g.members.voters) for g in founders],
                },
            )
        else:
            instances = [g.instance for g in founders] + [self.identity.instance]
            self._become(identity.MEMBER, known[0] if known else identity.bootstrap_cluster_id(instances))

    def _on_admission(self, node: Node, term: int, message: wire.Admission) -> None:
        holds = (
            self._verified[0] == message.term == self.raftCurrentTerm and self._verified[1] >= message.index
        )
        is_seated = self._is_voter and self.members.index > 0
        if (
            holds
            and is_seated
            and message.instance == self.identity.instance
            and self.identity.standing == identity.JOINING
        ):
            self._become(identity.MEMBER, self.identity.cluster_id)

    def _consider_admission(self, node: Node, instance: str) -> None:
        joiner = self._reign.joiners.get(node)
        if joiner is None or joiner.instance != instance:
            self._reign.joiners[node] = Joiner(instance, self._round + 1)
            self._reign.progress.pop(node, None)
            return
        if self._members_at(self._commit).index == 0:
            return
        if not self._is_confirmed(node) or self._commit < self._noop:
            return
        joiner.barrier = joiner.barrier or self._commit
        if self._reign.progress.get(node, 0) >= joiner.barrier:
            self._outbox.send(node, wire.Admission(self.raftCurrentTerm, instance, joiner.barrier))

    def _is_confirmed(self, joining: Node) -> bool:
        """Whether nothing that this joiner has forgotten can elect anybody or be ahead of us any more.

        Voters that have forgotten too are left out: they can confirm nothing, and would wait for one another. All the
        others have answered, in our term, a round sent after the last of them came. A leader of a later term would
        have needed the vote of one of these, as those left out are no majority; and whoever asked those for a vote
        before they forgot, and was not elected by then, is either at our term or has itself forgotten.
        """
        # While a change is under way, a majority of either membership may have been promised something.
        memberships = [self._members_at(self._commit).voters, self.members.voters]
        joiners = self._reign.joiners
        voters = {node for node in self._nodes.values() if any(node.id in held for held in memberships)}
        forgetful = {node for node in voters if node in joiners} | {joining}
        if any(2 * sum(node.id in held for node in forgetful) > len(held) for held in memberships):
            return False
        asked_round = max(joiners[node].asked_round for node in forgetful)
        return all(self._reign.acked_round.get(node, 0) >= asked_round for node in voters - forgetful)
