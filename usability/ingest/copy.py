"""Metrics as the bytes of COPY … (FORMAT binary), and as rows for the stream.

The fields that repeat (who, where, in which app) are encoded once and remembered; what is left for a row
is one `pack` and a few look-ups. PostgreSQL: "COPY", section "Binary Format".
"""

from __future__ import annotations

import os
import struct
import uuid
from collections.abc import Callable

import msgspec

from usability.ingest.decode import Metric
from usability.stream_partition import partition_of

COPY_STATEMENT = (
    'COPY usability_metrics (received_at, id, "timestamp", metric_value, metric_type, classroom_id, student_id,'
    " app_name, session_id, metadata) FROM STDIN (FORMAT binary)"
)
COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
COPY_TRAILER = struct.pack(">h", -1)

# The number of fields and the receipt, the same in all rows of a request; then id, timestamp, metric_value.
_BEGIN = struct.Struct(">hiq")
_FIXED = struct.Struct(">14si16siqid")
_LENGTH = struct.Struct(">i")
_NULL = _LENGTH.pack(-1)
_FIELDS = 10
# PostgreSQL counts microseconds from the beginning of 2000.
_PG_EPOCH_US = 946_684_800_000_000
_JSONB_VERSION = b"\x01"
_MEMORY_LIMIT = 100_000

_encode_json = msgspec.json.Encoder().encode


class Row(msgspec.Struct, gc=False):
    """One encoded metric. `who` sorts a commit; `partition` is the stream's; `entry` a `StreamRow`."""

    who: str
    partition: int
    wire: bytes
    entry: tuple[object, ...]


class _Sitting(msgspec.Struct, gc=False):
    """What rows of one learner in one app and sitting have in common; `fields` from classroom to session."""

    fields: bytes
    partition: int
    classroom: bytes | None


def ids_from(received_us: int, count: int) -> range:
    """`count` UUIDv7 of that receipt as integers that grow by one (RFC 9562, section 6.2, method 2).

    A batch keeps its order when it is sorted by id.
    """
    milliseconds = received_us // 1000 & 0xFFFF_FFFF_FFFF
    # 61 of the 62 random bits below the variant, so that counting up cannot run into it.
    start = milliseconds << 80 | 7 << 76 | (int.from_bytes(os.urandom(2)) & 0xFFF) << 64 | 1 << 63
    start |= int.from_bytes(os.urandom(8)) >> 3
    return range(start, start + count)


class Encoder:
    """Encodes batches. `classroom_of(student_id, app_name)` says where a learner sits.

    `forget` must be called when that may have changed.
    """

    def __init__(self, classroom_of: Callable[[str, str], uuid.UUID | None]) -> None:
        self._classroom_of = classroom_of
        self._texts: dict[str, bytes] = {}
        self._sittings: dict[tuple[str, str, str | None], _Sitting] = {}

    def forget(self) -> None:
        """Ask for every classroom anew."""
        self._sittings = {}

    def rows(self, metrics: list[Metric], at_us: list[int], ids: range, received_us: int) -> list[Row]:
        """The rows of one request, in its order."""
        if len(self._texts) > _MEMORY_LIMIT:
            self._texts = {}
        if len(self._sittings) > _MEMORY_LIMIT:
            self._sittings = {}
        texts, sittings, pack, length = self._texts, self._sittings, _FIXED.pack, _LENGTH.pack
        begin = _BEGIN.pack(_FIELDS, 8, received_us - _PG_EPOCH_US)
        rows: list[Row] = []
        for metric, at, number in zip(metrics, at_us, ids, strict=True):
            student_id, app_name, session_id = metric.student_id, metric.app_name, metric.session_id
            metric_type, value, metadata = metric.metric_type, metric.metric_value, metric.metadata
            sitting = sittings.get((student_id, app_name, session_id)) or self._sitting(
                student_id, app_name, session_id
            )
            metric_id = number.to_bytes(16)
            wire = (
                pack(begin, 16, metric_id, 8, at - _PG_EPOCH_US, 8, value)
                + (texts.get(metric_type) or self._text(metric_type))
                + sitting.fields
            )
            if metadata is None:
                wire += _NULL
            else:
                document = _encode_json(metadata)
                wire += length(len(document) + 1) + _JSONB_VERSION + document
            entry = (
                metric_id,
                sitting.classroom,
                student_id,
                app_name,
                metric_type,
                value,
                at,
                session_id,
                metadata,
            )
            rows.append(Row(student_id, sitting.partition, wire, entry))
        return rows

    def _text(self, text: str) -> bytes:
        raw = text.encode()
        return self._texts.setdefault(text, _LENGTH.pack(len(raw)) + raw)

    def _sitting(self, student_id: str, app_name: str, session_id: str | None) -> _Sitting:
        classroom_id = self._classroom_of(student_id, app_name)
        classroom = None if classroom_id is None else classroom_id.bytes
        placed = _NULL if classroom is None else _LENGTH.pack(16) + classroom
        session = _NULL if session_id is None else self._text(session_id)
        fields = placed + self._text(student_id) + self._text(app_name) + session
        partition = partition_of(classroom_id=str(classroom_id or ""), student_id=student_id)
        return self._sittings.setdefault(
            (student_id, app_name, session_id), _Sitting(fields, partition, classroom)
        )
