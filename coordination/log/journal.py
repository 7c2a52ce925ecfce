"""The journal: entries, cuts and votes in one append-only sequence of records, one sync for all of a step.

    segment = records; record = magic, body length, CRC-32C, then batch, kind, index, term, body (checked by the CRC)

Writing only fills a buffer; `sync` closes the batch with an END record, writes it in one piece and syncs once.
Recovery replays whole batches. What follows the last END was never answered for and is cut; a damaged record with
a whole record of a later batch behind it means that durable bytes have changed, and nothing is guessed then.

A new segment begins with the vote and with the entry before its first (index and term), so older segments can be
deleted without rewriting. A segment that begins with RESET replaces everything before it: that is how a snapshot
from the leader takes the log's place in one atomic step.
"""

import contextlib
import struct
from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import NamedTuple, overload

import google_crc32c
from pysyncobj.journal import Journal as JournalInterface

from coordination.log.disk import Appending, Disk, DiskFull

Entry = tuple[bytes, int, int]
"""(command with its kind byte, index, term): the shape pysyncobj works with."""

ENTRY, CUT, VOTE, END, RESET, SEGMENT = range(1, 7)
NO_OP = b"\x01"
MAGIC = b"\xf5GJ1"
PREFIX = struct.Struct("<4sII")
CHECKED = struct.Struct("<QBQQ")
OVERHEAD_BYTES = PREFIX.size + CHECKED.size
SEGMENT_BYTES = 16 * 1024 * 1024


class JournalDamaged(RuntimeError):
    """Durable bytes have changed or are missing. The member must not start: it would forget what it promised."""


class Record(NamedTuple):
    """One record as read; `kind` says which of the other fields mean something."""

    batch: int
    kind: int
    index: int
    term: int
    body: bytes
    end: int
    """Offset just behind the record in its segment."""


def pack_record(batch: int, kind: int, index: int = 0, term: int = 0, body: bytes = b"") -> bytes:
    """The bytes of one record."""
    checked = CHECKED.pack(batch, kind, index, term) + body
    return PREFIX.pack(MAGIC, len(body), google_crc32c.value(checked)) + checked


def read_record(data: bytes, at: int) -> Record | None:
    """The record at this offset, or None if there is no whole and correct one."""
    if len(data) - at < OVERHEAD_BYTES:
        return None
    magic, body_bytes, crc = PREFIX.unpack_from(data, at)
    end = at + OVERHEAD_BYTES + body_bytes
    if magic != MAGIC or end > len(data) or google_crc32c.value(data[at + PREFIX.size : end]) != crc:
        return None
    batch, kind, index, term = CHECKED.unpack_from(data, at + PREFIX.size)
    return Record(batch, kind, index, term, data[at + OVERHEAD_BYTES : end], end)


def read_batches(data: bytes) -> Iterator[list[Record]]:
    """Whole batches in order; stops before the first record that is not whole and correct."""
    batch: list[Record] = []
    at = 0
    while (record := read_record(data, at)) is not None:
        batch.append(record)
        at = record.end
        if record.kind == END:
            yield batch
            batch = []


def later_record(data: bytes, good: int, batch: int) -> int | None:
    """Offset of a whole record, behind `good`, of a later batch than the first unfinished one; None if there is none."""
    at = data.find(MAGIC, good)
    while at >= 0:
        record = read_record(data, at)
        if record is not None and record.batch > batch + 1:
            return at
        at = data.find(MAGIC, at + 1)
    return None


def segment_name(number: int) -> str:
    """The file name of a segment."""
    return f"journal-{number:010d}"


class _Segment(NamedTuple):
    number: int
    highest_index: int
    """No entry in this segment has a greater index."""


class Journal(JournalInterface):  # type: ignore[misc]
    """pysyncobj's journal on our records. `position` in its interface counts from the first kept entry.

    There is always at least one entry: the base, of which only index and term matter. Nothing is durable before
    `sync` returns. After DiskFull nothing has changed and `sync` may be tried again; after DiskFailed this object
    must not be used any more: what is durable is only known after a restart.
    """

    def __init__(self, disk: Disk, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._disk, self._segment_bytes = disk, segment_bytes
        self._entries: list[Entry] = []
        self._term, self._voted_for = 0, None
        self._buffer: list[bytes] = []
        self._batch = 0
        self._segments: list[_Segment] = []
        self.bytes_since_compaction = 0
        self._recover()

    # ---- recovery

    def _recover(self) -> None:
        numbers = sorted(int(name[8:]) for name in self._disk.names() if name.startswith("journal-"))
        good = 0
        for position, number in enumerate(numbers):
            if numbers[0] + position != number:
                raise JournalDamaged(
                    f"{segment_name(numbers[0] + position)} is missing: restore the data directory from a backup, "
                    "or empty it so that the other members send a snapshot"
                )
            data = self._disk.read(segment_name(number))
            good = self._replay_segment(number, data)
            is_last = position == len(numbers) - 1
            behind = later_record(data, good, self._batch)
            if behind is not None or (not is_last and data[good:].strip(b"\0")):
                raise JournalDamaged(self._damage(number, good, behind))
            if good == 0 and is_last and position > 0:
                # The crash came while this segment was being created: it holds nothing that was relied on.
                self._disk.remove(segment_name(number))
                self._continue(numbers[position - 1])
                return
        if numbers and good:
            self._file = self._disk.append(segment_name(numbers[-1]), good)
        else:
            self._start_segment(1, [], 0)

    def _continue(self, number: int) -> None:
        data = self._disk.read(segment_name(number))
        good = max((batch[-1].end for batch in read_batches(data)), default=0)
        self._file: Appending = self._disk.append(segment_name(number), good)

    def _damage(self, number: int, good: int, behind: int | None) -> str:
        where = f" (whole records follow at {behind})" if behind is not None else ""
        return (
            f"{segment_name(number)} is damaged at byte {good}{where}: bytes that were synced have changed. Keep a "
            "copy; restore this directory from a backup, or empty it so that the other members send a snapshot"
        )

    def _replay_segment(self, number: int, data: bytes) -> int:
        """Replay the whole batches; returns the offset behind the last one."""
        good, highest = 0, 0
        for batch in read_batches(data):
            if self._batch and batch[0].batch != self._batch + 1:
                raise JournalDamaged(self._damage(number, good, good))
            for record in batch:
                self._replay(record, number)
                if record.kind in (ENTRY, RESET, SEGMENT):
                    highest = max(highest, record.index)
            self._batch = batch[0].batch
            good = batch[-1].end
        if good:
            self._segments.append(_Segment(number, highest))
        return good

    def _replay(self, record: Record, number: int) -> None:
        if record.kind == ENTRY:
            if self._entries and record.index != self._entries[-1][1] + 1:
                raise JournalDamaged(
                    f"{segment_name(number)}: entry {record.index} follows {self._entries[-1][1]}, before byte {record.end}"
                )
            self._entries.append((record.body, record.index, record.term))
        elif record.kind == CUT:
            self._drop_from(record.index)
        elif record.kind == VOTE:
            self._term, self._voted_for = record.term, record.body.decode() or None
        elif record.kind == RESET or (record.kind == SEGMENT and not self._entries and record.index):
            self._entries = [(NO_OP, record.index, record.term)]

    def _drop_from(self, index: int) -> None:
        if self._entries:
            del self._entries[max(0, index - self._entries[0][1]) :]

    # ---- what pysyncobj asks for

    def add(self, command: bytes, index: int, term: int) -> None:
        """Append an entry; durable after the next `sync`."""
        self._entries.append((command, index, term))
        self._write(ENTRY, index, term, command)

    def deleteEntriesFrom(self, position: int) -> None:  # noqa: N802
        """Forget the entry at this position and all behind it."""
        index = self._entries[position][1]
        self._write(CUT, index)
        del self._entries[position:]

    def deleteEntriesTo(self, position: int) -> None:  # noqa: N802
        """Forget the entries before this position."""
        self.drop_before(self._entries[0][1] + position)

    def clear(self) -> None:
        """Refused: a crash in the middle would forget what was acknowledged."""
        raise AssertionError("the journal is never cleared: `reset` replaces it in one step")

    @overload
    def __getitem__(self, item: int) -> Entry: ...

    @overload
    def __getitem__(self, item: slice) -> list[Entry]: ...

    def __getitem__(self, item: int | slice) -> Entry | list[Entry]:
        return self._entries[item]

    def __len__(self) -> int:
        return len(self._entries)

    def setCurrentTerm(self, term: int, voted_for: str | None) -> None:  # noqa: N802
        """Record term and vote; durable after the next `sync`."""
        self._term, self._voted_for = term, voted_for
        self._write(VOTE, 0, term, (voted_for or "").encode())

    def getCurrentTerm(self) -> int:  # noqa: N802
        """The last recorded term."""
        return self._term

    def getVotedForNodeId(self) -> str | None:  # noqa: N802
        """Who got this member's vote in that term, if anybody."""
        return self._voted_for

    def getRaftCommitIndex(self) -> int:  # noqa: N802
        """Always 1: a stored commit index can point beyond a log that lost its tail; the leader tells it again."""
        return 1

    def setRaftCommitIndex(self, index: int) -> None:  # noqa: N802
        """Not stored, see getRaftCommitIndex."""

    def onOneSecondTimer(self) -> None:  # noqa: N802
        """Nothing is kept by time."""

    def close(self) -> None:
        """Let go of the file; what was not synced is gone."""
        self._file.close()

    def _destroy(self) -> None:
        self.close()

    # ---- what we ask for

    @property
    def first_index(self) -> int:
        """Index of the base."""
        return self._entries[0][1]

    @property
    def last_index(self) -> int:
        """Index of the last entry."""
        return self._entries[-1][1]

    @property
    def last_term(self) -> int:
        """Term of the last entry."""
        return self._entries[-1][2]

    def term_at(self, index: int) -> int | None:
        """Term of the entry with this index, or None if it is not here."""
        position = index - self._entries[0][1] if self._entries else -1
        return self._entries[position][2] if 0 <= position < len(self._entries) else None

    def entries_from(self, index: int, max_bytes: int) -> list[Entry]:
        """Entries from this index on, at least one if there is one, until their commands reach `max_bytes`."""
        position, taken, size = index - self._entries[0][1], [], 0
        while 0 <= position < len(self._entries) and size < max_bytes:
            taken.append(self._entries[position])
            size += len(self._entries[position][0])
            position += 1
        return taken

    def cut_from(self, index: int) -> None:
        """Forget the entry with this index and all behind it."""
        self.deleteEntriesFrom(index - self._entries[0][1])

    def sync(self) -> bool:
        """Make everything durable that was written since the last call; returns whether there was anything."""
        if not self._buffer:
            return False
        data = b"".join([*self._buffer, self._pack(END)])
        self._file.write(data)
        self._file.sync()
        self._buffer.clear()
        self._batch += 1
        self.bytes_since_compaction += len(data)
        self._segments[-1] = _Segment(
            self._segments[-1].number, max(self._segments[-1].highest_index, self.last_index)
        )
        if self._file.size >= self._segment_bytes:
            # The batch is durable: where a new segment finds no room the old one grows a little longer.
            with contextlib.suppress(DiskFull):
                self._start_segment(
                    self._segments[-1].number + 1,
                    [self._pack(SEGMENT, self.last_index, self.last_term)],
                    self.last_index,
                )
        return True

    def reset(self, index: int, term: int, keep: Iterable[Entry] = ()) -> None:
        """Start from a snapshot that ends with this entry, followed by the entries to keep. Durable when it returns."""
        entries = [(NO_OP, index, term), *keep]
        old = [segment.number for segment in self._segments]
        records = [self._pack(RESET, index, term)] + [
            self._pack(ENTRY, at, of, body) for body, at, of in entries[1:]
        ]
        self._start_segment(old[-1] + 1, records, entries[-1][1])
        self._entries = entries
        self._buffer.clear()
        self._forget_segments(old)

    def drop_before(self, index: int) -> None:
        """Entries below this index are covered by a snapshot; the one at `index` becomes the base."""
        index = min(index, self.last_index)
        if index > self.first_index:
            del self._entries[: index - self.first_index]
            # Only from the front: after a cut a younger segment can end lower than an older one.
            old = takewhile(lambda segment: segment.highest_index < index, self._segments[:-1])
            self._forget_segments([segment.number for segment in old])
        self.bytes_since_compaction = 0

    # ---- records and segments

    def _pack(self, kind: int, index: int = 0, term: int = 0, body: bytes = b"") -> bytes:
        return pack_record(self._batch + 1, kind, index, term, body)

    def _write(self, kind: int, index: int, term: int = 0, body: bytes = b"") -> None:
        self._buffer.append(self._pack(kind, index, term, body))

    def _start_segment(self, number: int, records: list[bytes], highest_index: int) -> None:
        vote = self._pack(VOTE, 0, self._term, (self._voted_for or "").encode())
        created = self._disk.create(segment_name(number), b"".join([*records, vote, self._pack(END)]))
        if self._segments:
            self._file.close()
        self._file = created
        self._batch += 1
        self._segments.append(_Segment(number, highest_index))

    def _forget_segments(self, numbers: list[int]) -> None:
        """Oldest first, so that a crash in between leaves no hole."""
        for number in numbers:
            self._disk.remove(segment_name(number))
        self._segments = [segment for segment in self._segments if segment.number not in numbers]
