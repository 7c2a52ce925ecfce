"""Snapshots: the machine's state up to one entry, in our own encoding, checked from the first byte to the last.

    file = header, zstd(state), CRC-32C of all before it

A file is written beside, synced and renamed before the journal may forget anything. The same bytes travel to a
member that lags too far behind; it verifies them whole before it stores them, and stores them before it uses them.
"""

import logging
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import google_crc32c
import zstandard

from coordination.log.disk import Disk

log = logging.getLogger(__name__)

MAGIC = b"GAIASNAP"
VERSION = 1
HEADER = struct.Struct("<8sH16sQQQQ")
CHECKSUM = struct.Struct("<I")
CLUSTER_ID_BYTES = 16
COMPRESSION_LEVEL = 3
MAX_STATE_BYTES = 1 << 32

Found = TypeVar("Found")


class SnapshotDamaged(ValueError):
    """The bytes are not a whole snapshot of this cluster; the message says what was expected and what was found."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The machine's state after the entry (index, term) was applied."""

    index: int
    term: int
    state: bytes


def encode(snapshot: Snapshot, cluster_id: bytes) -> bytes:
    """The bytes of the file."""
    return encode_pieces(snapshot.index, snapshot.term, [snapshot.state], cluster_id)


def encode_pieces(index: int, term: int, pieces: Iterable[bytes], cluster_id: bytes) -> bytes:
    """The bytes of the file from a state in pieces: only what they are packed to is ever held as a whole."""
    packer = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL).compressobj()
    packed, state_bytes = bytearray(), 0
    for piece in pieces:
        state_bytes += len(piece)
        packed += packer.compress(piece)
    packed += packer.flush()
    header = HEADER.pack(MAGIC, VERSION, cluster_id, index, term, state_bytes, len(packed))
    crc = google_crc32c.extend(google_crc32c.value(header), bytes(packed))
    return b"".join((header, packed, CHECKSUM.pack(crc)))


def check(data: bytes, cluster_id: bytes) -> tuple[int, int, int]:
    """(index, term, bytes of the state) of a whole and correct snapshot of this cluster; raises SnapshotDamaged."""
    if len(data) < HEADER.size + CHECKSUM.size:
        raise SnapshotDamaged(f"{len(data)} bytes are too few for a snapshot")
    magic, version, cluster, index, term, state_bytes, packed_bytes = HEADER.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        raise SnapshotDamaged(f"expected format {MAGIC!r} {VERSION}, found {magic!r} {version}")
    if len(data) != HEADER.size + packed_bytes + CHECKSUM.size:
        raise SnapshotDamaged(f"{len(data)} bytes, but the header tells of {packed_bytes} packed ones")
    if (
        google_crc32c.value(data[: -CHECKSUM.size])
        != CHECKSUM.unpack_from(data, len(data) - CHECKSUM.size)[0]
    ):
        raise SnapshotDamaged("the checksum does not match")
    if cluster != cluster_id:
        raise SnapshotDamaged(f"it belongs to cluster {cluster.hex()}, not to {cluster_id.hex()}")
    if state_bytes > MAX_STATE_BYTES:
        raise SnapshotDamaged(f"a state of {state_bytes} bytes is over the limit of {MAX_STATE_BYTES}")
    return index, term, state_bytes


def decode(data: bytes, cluster_id: bytes) -> Snapshot:
    """Raises SnapshotDamaged for anything but a whole and correct snapshot of this cluster."""
    index, term, state_bytes = check(data, cluster_id)
    return Snapshot(index, term, _unpack(data[HEADER.size : -CHECKSUM.size], state_bytes))


def _unpack(packed: bytes, state_bytes: int) -> bytes:
    try:
        state = zstandard.ZstdDecompressor().decompress(packed, max_output_size=max(state_bytes, 1))
    except zstandard.ZstdError as error:
        raise SnapshotDamaged(f"it cannot be unpacked: {error}") from error
    if len(state) != state_bytes:
        raise SnapshotDamaged(f"unpacked {len(state)} bytes, the header tells of {state_bytes}")
    return state


def file_name(index: int, term: int) -> str:
    """Sorts by index."""
    return f"snapshot-{index:020d}-{term:010d}"


def _position(name: str) -> tuple[int, int]:
    _, index, term = name.split("-")
    return int(index), int(term)


class Snapshots:
    """The snapshots in one data directory; the newest `retain` are kept."""

    def __init__(self, disk: Disk, cluster_id: bytes, retain: int) -> None:
        assert retain >= 1, "at least one snapshot must be kept"
        self._disk, self._cluster_id, self._retain = disk, cluster_id, retain

    def positions(self) -> list[tuple[int, int]]:
        """(index, term) of each file, oldest first."""
        names = [name for name in self._disk.names() if name.startswith("snapshot-")]
        return sorted(_position(name) for name in names)

    def newest(self) -> Snapshot | None:
        """The newest that is whole. A damaged one is reported and passed over; it is left for inspection."""
        return self._newest(lambda data: decode(data, self._cluster_id))

    def newest_bytes(self) -> tuple[tuple[int, int], bytes] | None:
        """(index, term) and file content of the newest that is whole: what a peer is sent."""

        def checked(data: bytes) -> tuple[tuple[int, int], bytes]:
            index, term, _ = check(data, self._cluster_id)
            return (index, term), data

        return self._newest(checked)

    def _newest(self, read: Callable[[bytes], Found]) -> Found | None:
        for position in reversed(self.positions()):
            try:
                return read(self._disk.read(file_name(*position)))
            except SnapshotDamaged as error:
                log.warning(
                    "snapshot_damaged", extra={"snapshot": file_name(*position), "reason": str(error)}
                )
        return None

    def store(self, index: int, term: int, data: bytes) -> None:
        """Durable when it returns. Older ones beyond the number to keep are removed afterwards."""
        self._disk.replace(file_name(index, term), data)
        surplus = self.positions()[: -self._retain]
        self._disk.remove(*(file_name(*position) for position in surplus))


@dataclass(slots=True)
class Incoming:
    """A snapshot on its way from the leader, chunk by chunk, in order."""

    position: tuple[int, int] = (0, 0)
    total: int = 0
    data: bytearray = field(default_factory=bytearray)

    def add(self, position: tuple[int, int], total: int, offset: int, chunk: bytes) -> bool:
        """Take a chunk if it is the next one of this snapshot; True when all has arrived.

        Anything else changes nothing but that a snapshot of another position starts over, so that `len(data)` always
        says which offset is wanted.
        """
        if position != self.position or total != self.total:
            self.position, self.total, self.data = position, total, bytearray()
        if offset == len(self.data) and offset + len(chunk) <= total:
            self.data += chunk
        return len(self.data) == total
