"""Who belongs to the cluster: the content of a membership entry, and what one change makes of it. No I/O here.

A membership takes effect on a member as soon as it is in its journal, and two that follow one another differ in one
voter at most, so their majorities share a member (Ongaro, "Consensus: Bridging Theory and Practice", 4.1 to 4.3).
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

KIND = b"\x04"
"""Kind byte of a membership entry; pysyncobj's own kinds are 0 to 3."""
FILE_NAME = "membership.json"

_Name = Annotated[str, Meta(max_length=255)]


class Seated(Struct, frozen=True, array_like=True):
    """One member. `address` is where it was last known to listen: a hint, which the member itself corrects.

    `votes` is False for a learner. `instance` is the data directory that was brought up to date before it became a
    voter; empty for the founders.
    """

    id: _Name
    address: _Name
    votes: bool
    instance: _Name = ""


class Members(Struct, frozen=True, array_like=True):
    """All members; `index` is that of the entry, 0 for a list that comes from the configuration."""

    index: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    seats: tuple[Seated, ...]

    @property
    def voters(self) -> frozenset[str]:
        """Ids of those whose answers and votes count."""
        return frozenset(seat.id for seat in self.seats if seat.votes)

    @property
    def learners(self) -> tuple[str, ...]:
        """Ids of those that are brought up to date first."""
        return tuple(seat.id for seat in self.seats if not seat.votes)

    def find(self, node_id: str) -> Seated | None:
        """The member with this id."""
        return next((seat for seat in self.seats if seat.id == node_id), None)

    def with_learner(self, index: int, node_id: str, address: str) -> "Members":
        """These and a new one that does not vote yet."""
        return Members(index, (*self.seats, Seated(node_id, address, False)))

    def with_promoted(self, index: int, node_id: str, instance: str) -> "Members":
        """The learner, with the directory it has now, becomes a voter."""
        return Members(
            index,
            tuple(
                Seated(seat.id, seat.address, True, instance) if seat.id == node_id else seat
                for seat in self.seats
            ),
        )

    def without(self, index: int, node_id: str) -> "Members":
        """These but one."""
        return Members(index, tuple(seat for seat in self.seats if seat.id != node_id))

    def at(self, index: int) -> "Members":
        """The same members under the index of another entry."""
        return Members(index, self.seats)


class NotMembers(ValueError):
    """Bytes that are no membership: an entry of a later version, or a damaged file."""


_decoder = msgspec.msgpack.Decoder(Members)


def encode(members: Members) -> bytes:
    """The body of the entry, without its kind byte."""
    return msgspec.msgpack.encode(members)


def decode(data: bytes) -> Members:
    """Raises NotMembers."""
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NotMembers(f"these bytes are no membership: {error}") from error


def in_command(command: bytes) -> Members | None:
    """The membership in an entry's command; None for an entry of another kind."""
    return decode(command[1:]) if command[:1] == KIND else None


def configured(node_id: str, address: str, peers: tuple[tuple[str, str], ...]) -> Members:
    """The founders by configuration: this node and its (id, address) peers, in the order of their ids."""
    seats = [Seated(node_id, address, True), *(Seated(peer, at, True) for peer, at in peers)]
    return Members(0, tuple(sorted(seats, key=lambda seat: seat.id)))
