"""Backup of a cluster's state, its return into empty data directories, and a look into a journal.

A backup is the machine's whole state with a checksum. It is restored into every member's empty directory, so
that all begin as one new cluster; its id follows from the backup, so they recognise one another.
"""

import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from coordination.log import identity, snapshot
from coordination.log.disk import Folder
from coordination.log.journal import (
    CUT,
    ENTRY,
    NO_OP,
    OVERHEAD_BYTES,
    RESET,
    SEGMENT,
    VOTE,
    Journal,
    Record,
    later_record,
    read_batches,
    segment_name,
)
from coordination.machine.codec import Undecodable, decode_commands, decode_snapshot
from coordination.machine.state import Snapshot

MAGIC = b"GAIABACKUP1\n"
DIGEST_BYTES = 32
BASE_INDEX, BASE_TERM = 2, 1
"""Where the log of a restored cluster begins: behind its state."""


class BackupDamaged(Exception):
    """The file is not a whole backup; the message says what is wrong."""


class NotEmpty(Exception):
    """The data directory holds something already; nothing was written."""


def packed(state: bytes) -> bytes:
    """The content of a backup file."""
    return MAGIC + hashlib.sha256(state).digest() + state


def unpacked(backup: bytes) -> bytes:
    """The state in a backup. Raises BackupDamaged."""
    head = len(MAGIC) + DIGEST_BYTES
    if backup[: len(MAGIC)] != MAGIC:
        raise BackupDamaged("this is no backup of a cluster")
    state = backup[head:]
    if hashlib.sha256(state).digest() != backup[len(MAGIC) : head]:
        raise BackupDamaged("its checksum does not fit: the file was changed or cut")
    try:
        decode_snapshot(state)
    except Undecodable as error:
        raise BackupDamaged(f"its state is not of this version: {error}") from error
    return state


def restore(backup: bytes, data_dir: Path, node_id: str) -> Snapshot:
    """Make an empty data directory that of a member of the restored cluster; what it holds now.

    Raises BackupDamaged, NotEmpty.
    """
    state = unpacked(backup)
    if data_dir.exists() and any(data_dir.iterdir()):
        raise NotEmpty(f"{data_dir} is not empty")
    cluster_id = hashlib.sha256(b"restored\0" + backup).hexdigest()[: 2 * identity.ID_BYTES]
    disk = Folder(data_dir)
    try:
        content = snapshot.encode(snapshot.Snapshot(BASE_INDEX, BASE_TERM, state), bytes.fromhex(cluster_id))
        snapshot.Snapshots(disk, bytes.fromhex(cluster_id), retain=1).store(BASE_INDEX, BASE_TERM, content)
        journal = Journal(disk)
        journal.reset(BASE_INDEX, BASE_TERM)
        journal.setCurrentTerm(BASE_TERM, None)
        journal.sync()
        journal.close()
        instance = secrets.token_hex(identity.ID_BYTES)
        identity.store(disk, identity.Identity(1, node_id, instance, cluster_id, identity.MEMBER))
    finally:
        disk.close()
    return decode_snapshot(state)


_KINDS = {ENTRY: "entry", CUT: "cut", VOTE: "vote", RESET: "reset", SEGMENT: "segment"}
TORN, DAMAGED, MISSING = "torn", "damaged", "missing"


@dataclass(frozen=True, slots=True)
class JournalLine:
    """One record of a journal, as far as a person wants to know it; or, with a `note`, what is wrong there.

    `torn`: a batch that was never whole, which a start cuts off. `damaged` and `missing`: a start is refused.
    """

    segment: str
    offset: int
    kind: str
    index: int = 0
    term: int = 0
    body_bytes: int = 0
    commands: tuple[str, ...] = ()
    note: str = ""


def inspected(data_dir: Path) -> Iterator[JournalLine]:
    """The records of a journal in order, read without changing anything; the node may be running."""
    numbers = sorted(int(path.name.removeprefix("journal-")) for path in data_dir.glob("journal-*"))
    batch = 0
    for position, number in enumerate(numbers):
        if position and number != numbers[position - 1] + 1:
            name = segment_name(numbers[position - 1] + 1)
            yield JournalLine(
                name, 0, MISSING, note="the file is not there; restore it or the whole directory"
            )
        name, at = segment_name(number), 0
        data = (data_dir / name).read_bytes()
        for records in read_batches(data):
            for record in records:
                if record.kind in _KINDS:
                    yield _line(name, record)
            at, batch = records[-1].end, records[0].batch
        yield from _what_is_wrong(name, data, at, batch, is_last=position == len(numbers) - 1)


def _line(name: str, record: Record) -> JournalLine:
    return JournalLine(
        name,
        record.end - OVERHEAD_BYTES - len(record.body),
        _KINDS[record.kind],
        record.index,
        record.term,
        len(record.body),
        _names(record.body) if record.kind == ENTRY else (),
    )


def _what_is_wrong(name: str, data: bytes, at: int, batch: int, *, is_last: bool) -> Iterator[JournalLine]:
    """What follows the last whole batch of a segment, if it is not only the room reserved for more."""
    behind = later_record(data, at, batch)
    if behind is not None:
        yield JournalLine(
            name, at, DAMAGED, note=f"synced bytes have changed: whole records follow at {behind}"
        )
    elif rest := len(data[at:].rstrip(b"\0")):
        if is_last:
            yield JournalLine(
                name, at, TORN, body_bytes=rest, note="never whole, never answered for: will be cut"
            )
        else:
            yield JournalLine(
                name, at, DAMAGED, body_bytes=rest, note="synced bytes have changed: a segment follows"
            )


def _names(body: bytes) -> tuple[str, ...]:
    """The names of the commands in an entry; the log's own entries have none of ours."""
    if body[:1] == NO_OP:
        return ("no-op",)
    try:
        _, commands = decode_commands(body[1:])
    except Undecodable:
        return ("undecodable",)
    return tuple(type(command).__name__ for command in commands)


def as_json(value: Any) -> str:
    """One line of JSON."""
    return msgspec.json.encode(value).decode()
