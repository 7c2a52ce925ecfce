"""What web and node say to each other: paths, signed requests, and the messages in msgpack.

A request carries `Authorization: GAIA <unix ms>.<hex hmac-sha256>` over method, path, moment and body, under
a key derived from CLUSTER_SECRET. A body is looked at only after its signature has been checked.
"""

import hmac
from typing import Any

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from coordination.machine.commands import AnyCommand
from coordination.machine.outcomes import Accepted, Rejected

AUTH_SCHEME = "GAIA"
STALE_HEADER = "X-Raft-Stale"
CLOCK_SKEW_MS_MAX = 300_000
"""A signed request is good this long, so that a recorded one cannot be played again for ever."""

BODY_BYTES_MAX = 16 * 1024 * 1024
COMMANDS_MAX = 10_000
WAIT_MS_MAX = 60_000


def derive_key(secret: str) -> bytes:
    """The 32-byte key that signs requests to a node, derived from CLUSTER_SECRET (RFC 5869)."""
    kdf = HKDF(algorithm=SHA256(), length=32, salt=b"gaia", info=b"web to node, version 1")
    return kdf.derive(secret.encode())


def sign(key: bytes, method: str, path: str, body: bytes, at_ms: int) -> str:
    """The Authorization header of a request; `path` is with its query."""
    return f"{AUTH_SCHEME} {at_ms}.{_mac(key, method, path, body, at_ms)}"


def is_signed(key: bytes, header: str, method: str, path: str, body: bytes, now_ms: int) -> bool:
    """Whether `header` was made by a holder of `key` for exactly this request, not long before `now_ms`."""
    scheme, _, rest = header.partition(" ")
    moment, _, mac = rest.partition(".")
    if scheme != AUTH_SCHEME or not moment.isdecimal() or len(moment) > 15:
        return False
    if abs(now_ms - int(moment)) > CLOCK_SKEW_MS_MAX:
        return False
    return hmac.compare_digest(mac, _mac(key, method, path, body, int(moment)))


def _mac(key: bytes, method: str, path: str, body: bytes, at_ms: int) -> str:
    message = b"\n".join((method.encode(), path.encode(), str(at_ms).encode(), body))
    return hmac.digest(key, message, "sha256").hex()


class Submit(msgspec.Struct, frozen=True, array_like=True):
    """Commands to be applied, in order, as one unit of the caller; at most COMMANDS_MAX.

    `wait_ms`: how long an empty claim or a held lock may wait for its turn; 0 answers at once.
    """

    commands: list[AnyCommand]
    wait_ms: int = 0


class Submitted(msgspec.Struct, frozen=True, array_like=True):
    """One outcome a command, in the same order."""

    outcomes: list[Accepted | Rejected]


class Refusal(msgspec.Struct, frozen=True, array_like=True):
    """Why a node did not answer with outcomes: `unknown` tells whether the commands may still be applied."""

    unknown: bool
    reason: str
    leader: str | None = None


class NewMember(msgspec.Struct, frozen=True, array_like=True):
    """Who shall become a member, and where it listens for the others."""

    id: str
    address: str


class Changed(msgspec.Struct, frozen=True, array_like=True):
    """What became of a change of membership: `code` is empty, or one of `contract`'s with the reason."""

    code: str = ""
    reason: str = ""


class ReadIndex(msgspec.Struct, frozen=True, array_like=True):
    """The revision a linearizable read must have seen."""

    revision: int


encode = msgspec.msgpack.Encoder().encode
decode_submit = msgspec.msgpack.Decoder(Submit).decode
decode_submitted = msgspec.msgpack.Decoder(Submitted).decode
decode_new_member = msgspec.msgpack.Decoder(NewMember).decode
decode_changed = msgspec.msgpack.Decoder(Changed).decode
decode_refusal = msgspec.msgpack.Decoder(Refusal).decode
decode_read_index = msgspec.msgpack.Decoder(ReadIndex).decode
decode_plain: Any = msgspec.msgpack.Decoder().decode
