"""Between pysyncobj and the links: what a step wants to say waits here until it may leave.

A vote or an answer speaks for what is on our disk, so it leaves after the journal's sync. New entries speak for
nothing: they leave before it, and the followers' disks work while ours does.
"""

from typing import Any, Protocol

from pysyncobj.node import Node
from pysyncobj.transport import Transport

from coordination.log import wire

EARLY = (wire.Greeting, wire.AppendEntries)


class Links(Protocol):
    """Ordered, authenticated connections to the peers, by node id. `send` is False if the frame cannot be taken."""

    def send(self, peer: str, frame: bytes) -> bool:
        """Take one frame for a peer; False if there is no connection that can."""

    def backlog(self, peer: str) -> int:
        """Bytes taken for this peer that the network has not accepted yet."""

    def drop(self, peer: str, reason: str) -> None:
        """Close the connection with this peer."""

    def meet(self, peer: str, address: str) -> None:
        """Keep a connection with this peer; the address may have changed."""

    def forget(self, peer: str) -> None:
        """Connect no more by ourselves; an open connection stays."""


class Speaker(Protocol):
    """What the outbox asks of the replica."""

    @property
    def raftCurrentTerm(self) -> int:  # noqa: N802
        """The term that goes into the envelope."""

    @property
    def stands_by_transfer(self) -> bool:
        """Whether the election being held was asked for by the leader."""

    def refuse_forward(self, request_id: int) -> None:
        """A forwarded payload could not leave."""


def translate(message: dict[str, Any], *, by_transfer: bool) -> wire.Message:
    """Pysyncobj's own messages in our schema; it sends no others once the replica's overrides are in place."""
    match message["type"]:
        case "request_vote":
            return wire.RequestVote(
                message["term"], message["last_log_index"], message["last_log_term"], by_transfer
            )
        case "response_vote":
            return wire.VoteGranted(message["term"])
        case "apply_command":
            return wire.Forward(message["request_id"], message["command"][1:])
        case "apply_command_response":
            return wire.ForwardAnswer(
                message["request_id"],
                message.get("error", 0),
                message.get("log_idx", 0),
                message.get("log_term", 0),
            )
    raise AssertionError(f"pysyncobj sends {message['type']!r}, which the wire does not know")


class Outbox(Transport):  # type: ignore[misc]
    """pysyncobj's transport: keeps messages until the step lets them leave."""

    def __init__(self, links: Links) -> None:
        super().__init__(None, None, [])
        self._links = links
        self._early: list[tuple[str, int, wire.Message]] = []
        self._late: list[tuple[str, int, wire.Message]] = []
        self.speaker: Speaker

    @property
    def ready(self) -> bool:
        """Always: links connect by themselves and pysyncobj need not wait for them."""
        return True

    def tryGetReady(self) -> None:  # noqa: N802
        """Links connect by themselves."""

    def send(self, node: Node, message: dict[str, Any] | wire.Message) -> bool:
        """Queue a message of pysyncobj's or of ours under the current term."""
        if isinstance(message, dict):
            message = translate(message, by_transfer=self.speaker.stands_by_transfer)
        queue = self._early if isinstance(message, EARLY) else self._late
        queue.append((node.id, self.speaker.raftCurrentTerm, message))
        return True

    def flush_early(self) -> None:
        """What may leave before the journal's sync: entries for the followers."""
        waiting, self._early = self._early, []
        self._leave(waiting)

    def flush(self) -> None:
        """Only after the journal's sync."""
        self.flush_early()
        waiting, self._late = self._late, []
        self._leave(waiting)

    def discard(self) -> None:
        """Forget everything that has not left: what it promises is not durable."""
        waiting, self._early, self._late = self._early + self._late, [], []
        for _, _, message in waiting:
            if isinstance(message, wire.Forward):
                self.speaker.refuse_forward(message.request_id)

    def _leave(self, waiting: list[tuple[str, int, wire.Message]]) -> None:
        for peer, term, message in waiting:
            if not self._links.send(peer, wire.encode(term, message)) and isinstance(message, wire.Forward):
                self.speaker.refuse_forward(message.request_id)

    def connected(self, node: Node) -> None:
        """Tell pysyncobj that a peer has greeted."""
        self._onNodeConnected(node)

    def disconnected(self, node: Node) -> None:
        """Forget what was queued for a peer, and tell pysyncobj."""
        self._early = [waiting for waiting in self._early if waiting[0] != node.id]
        self._late = [waiting for waiting in self._late if waiting[0] != node.id]
        self._onNodeDisconnected(node)

    def destroy(self) -> None:
        """The links belong to the member, which closes them."""
