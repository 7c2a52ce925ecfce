"""Who a data directory is: written once, kept beside the journal, never guessed again.

The *instance* is drawn when the directory is created; a wiped directory is another instance under the same node id
and must not vote, nor be counted, until the others have brought it up to date: it has forgotten its promises.
"""

import hashlib
import secrets
from collections.abc import Iterable

import msgspec

from coordination.log.disk import Disk

FILE_NAME = "identity.json"
NEW, JOINING, MEMBER = "new", "joining", "member"
ID_BYTES = 16


class WrongIdentity(RuntimeError):
    """The data directory belongs to another node or cannot be read."""


class Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`cluster_id` and `instance` are hexadecimal; `cluster_id` is empty until the cluster is known."""

    version: int
    node_id: str
    instance: str
    cluster_id: str
    standing: str

    @property
    def votes(self) -> bool:
        """Whether this directory may take part in majorities."""
        return self.standing == MEMBER


def bootstrap_cluster_id(instances: Iterable[str]) -> str:
    """The id every founding member computes alike from the instances it found, all of them without history."""
    return hashlib.sha256(b"gaia cluster\0" + "\0".join(sorted(instances)).encode()).hexdigest()[
        : 2 * ID_BYTES
    ]


def load(disk: Disk, node_id: str) -> Identity:
    """The identity of this directory, created if the directory is empty."""
    names = disk.names()
    if FILE_NAME not in names:
        held = [name for name in names if name.startswith(("journal-", "snapshot-"))]
        if held:
            raise WrongIdentity(
                f"{FILE_NAME} is missing beside {held[0]}: restore it, or empty the directory"
            )
        identity = Identity(1, node_id, secrets.token_hex(ID_BYTES), "", NEW)
        store(disk, identity)
        return identity
    try:
        identity = msgspec.json.decode(disk.read(FILE_NAME), type=Identity)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise WrongIdentity(
            f"{FILE_NAME} cannot be read ({error}): restore it, or empty the directory"
        ) from error
    if identity.node_id != node_id:
        raise WrongIdentity(
            f"this data directory belongs to node {identity.node_id!r}, not to {node_id!r}: check CLUSTER_NODE_ID"
        )
    if identity.standing != NEW and not any(name.startswith("journal-") for name in names):
        raise WrongIdentity("the journal is missing beside the identity: restore it, or empty the directory")
    return identity


def store(disk: Disk, identity: Identity) -> None:
    """Durable when it returns."""
    disk.replace(FILE_NAME, msgspec.json.encode(identity))
