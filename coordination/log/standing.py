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
        self._outbox.send(node, wire.Greeting(mine.cluster_id, mine.instance, mine.standing, has_history))

    def _become(self, standing: str, cluster_id: str) -> None:
        found = identity.Identity(1, self.identity.node_id, self.identity.instance, cluster_id, standing)
        identity.store(self._disk, found)  # first: where it finds no room nothing has changed
        self.identity = found
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
            self._reign.joiners[node] = Joiner(instance, self._round + 1)
            self._reign.progress.pop(node, None)
            return
        others = [other for other in self._nodes.values() if other != node]
        is_confirmed = all(self._reign.acked_round.get(other, 0) >= joiner.asked_round for other in others)
        if not is_confirmed or self._commit < self._noop:
            return
        joiner.barrier = joiner.barrier or self._commit
        if self._reign.progress.get(node, 0) >= joiner.barrier:
            self._outbox.send(node, wire.Admission(self.raftCurrentTerm, instance, joiner.barrier))
