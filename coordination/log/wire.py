"""What members say to one another: a closed schema, encoded with msgpack. Nothing here can name code or a class.

Every message travels in an envelope with the sender's term, so that an answer from an older term is recognised
whatever it answers. Decoding raises `Malformed` for anything outside the schema; limits on size are checked before,
by the transport.
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from coordination.log.members import Members

Index = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Name = Annotated[str, Meta(max_length=255)]
Blob = bytes


class Malformed(ValueError):
    """A peer sent bytes that are no message."""


class Greeting(Struct, frozen=True, array_like=True, tag="greeting"):
    """The first message on each connection, both ways, and again after a change. `history`: this directory has a
    term, a vote or entries. `address`: where the sender listens. `members`: whom the sender takes for the members.
    """

    cluster_id: Name
    instance: Name
    standing: Name
    history: bool
    address: Name
    members: Members


class AppendEntries(Struct, frozen=True, array_like=True, tag="append"):
    """`entries` follow the entry (previous_index, previous_term). `round` counts the leader's sending rounds."""

    term: Index
    commit_index: Index
    previous_index: Index
    previous_term: Index
    round: Index
    entries: list[tuple[Blob, Index, Index]]


class AppendAnswer(Struct, frozen=True, array_like=True, tag="appended"):
    """On success everything below `next_index` is on the sender's disk and equals the leader's log. `counted` is
    False while the sender may not take part in majorities; `instance` then names the directory to admit.
    """

    next_index: Index
    success: bool
    round: Index
    counted: bool
    instance: Name


class SnapshotChunk(Struct, frozen=True, array_like=True, tag="chunk"):
    """A piece of the snapshot up to (index, term), and who the members were there (`members.encode`). It says nothing
    about the receiver's log or commit index.
    """

    term: Index
    index: Index
    snapshot_term: Index
    total: Index
    offset: Index
    round: Index
    data: Blob
    members: Blob = b""


class ChunkWanted(Struct, frozen=True, array_like=True, tag="wanted"):
    """The receiver has all bytes of the snapshot (index, snapshot_term) below `offset`."""

    index: Index
    snapshot_term: Index
    offset: Index
    round: Index


class RequestVote(Struct, frozen=True, array_like=True, tag="vote?"):
    """`transfer`: the leader asked this candidate to take over, so its being alive is no reason to refuse."""

    term: Index
    last_log_index: Index
    last_log_term: Index
    transfer: bool


class VoteGranted(Struct, frozen=True, array_like=True, tag="vote!"):
    """The sender's only vote in this term, on its disk."""

    term: Index


class PreVote(Struct, frozen=True, array_like=True, tag="prevote?"):
    """Would you vote for me in this term? Asking changes nothing at either end."""

    term: Index
    last_log_index: Index
    last_log_term: Index


class PreVoteGranted(Struct, frozen=True, array_like=True, tag="prevote!"):
    """The sender would vote in this term; 0 refuses, and the envelope tells the newer term."""

    term: Index


class Forward(Struct, frozen=True, array_like=True, tag="command"):
    """A payload for the leader to put into the log; `request_id` is the sender's own count."""

    request_id: Index
    payload: Blob


class ForwardAnswer(Struct, frozen=True, array_like=True, tag="placed"):
    """Where the leader put it; or `error`, a pysyncobj FAIL_REASON, if it did not."""

    request_id: Index
    error: Annotated[int, Meta(ge=0, le=7)]
    log_index: Index
    log_term: Index


class TimeoutNow(Struct, frozen=True, array_like=True, tag="takeover"):
    """The leader asks the receiver to stand for election at once."""

    term: Index


class ReadRequest(Struct, frozen=True, array_like=True, tag="read?"):
    """From which index on would a read be linearizable?"""

    request_id: Index


class ReadAnswer(Struct, frozen=True, array_like=True, tag="read!"):
    """Whoever has applied `index` covers all that was acknowledged before the request; 0: the sender cannot say."""

    request_id: Index
    index: Index


class Admission(Struct, frozen=True, array_like=True, tag="admitted"):
    """The directory `instance` holds all that was committed up to `index` and may take part in majorities."""

    term: Index
    instance: Name
    index: Index


class Dismissal(Struct, frozen=True, array_like=True, tag="dismissed"):
    """The receiver is not among the members as of the committed entry `index`. `removed`: it was once."""

    index: Index
    removed: bool


Message = (
    Greeting
    | AppendEntries
    | AppendAnswer
    | SnapshotChunk
    | ChunkWanted
    | RequestVote
    | VoteGranted
    | PreVote
    | PreVoteGranted
    | Forward
    | ForwardAnswer
    | TimeoutNow
    | ReadRequest
    | ReadAnswer
    | Admission
    | Dismissal
)


class Envelope(Struct, frozen=True, array_like=True):
    """A message with the sender's term."""

    sender_term: Index
    message: Message


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Envelope)


def encode(sender_term: int, message: Message) -> bytes:
    """The bytes of a message in its envelope."""
    return _encoder.encode(Envelope(sender_term, message))


def decode(data: bytes) -> Envelope:
    """The envelope in these bytes; raises Malformed."""
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(str(error)) from error
