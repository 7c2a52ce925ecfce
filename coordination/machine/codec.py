"""Bytes in and out of the machine: one versioned encoding, msgpack arrays with integer tags.

A batch that does not decode as a whole is decoded command by command, so one command this version does
not know, or a mistyped field, is refused alone. Everything raises `Undecodable` and nothing else.
"""

from typing import TypeVar

import msgspec

from .commands import AnyCommand, Batch
from .events import Recorded
from .outcomes import Outcome
from .state import Snapshot

BATCH_VERSION = 1
SNAPSHOT_VERSION = 1

_Decoded = TypeVar("_Decoded")


class Undecodable(ValueError):
    """The bytes are not what this version encodes; the message says why."""


class _RawBatch(msgspec.Struct, array_like=True):
    version: int
    stamp_ms: int
    commands: list[msgspec.Raw]


_encoder = msgspec.msgpack.Encoder()
_batch_decoder = msgspec.msgpack.Decoder(Batch)
_raw_batch_decoder = msgspec.msgpack.Decoder(_RawBatch)
_command_decoder: msgspec.msgpack.Decoder[AnyCommand] = msgspec.msgpack.Decoder(AnyCommand)
_outcomes_decoder: msgspec.msgpack.Decoder[list[Outcome]] = msgspec.msgpack.Decoder(list[Outcome])
_recorded_decoder = msgspec.msgpack.Decoder(list[Recorded])
_snapshot_decoder = msgspec.msgpack.Decoder(Snapshot)


def encode_batch(batch: Batch) -> bytes:
    """The payload of a log entry."""
    return _encoder.encode(batch)


def decode_batch(payload: bytes) -> Batch:
    """A whole batch, every command of which must be known here."""
    return _strict(_batch_decoder, payload, version=BATCH_VERSION)


def decode_commands(payload: bytes) -> tuple[int, list[AnyCommand | Undecodable]]:
    """The stamp and the commands of a batch, each one that does not decode replaced by why."""
    try:
        batch = decode_batch(payload)
    except Undecodable:
        return _decode_one_by_one(payload)
    return batch.stamp_ms, list(batch.commands)


def _decode_one_by_one(payload: bytes) -> tuple[int, list[AnyCommand | Undecodable]]:
    raw = _strict(_raw_batch_decoder, payload, version=BATCH_VERSION)
    return raw.stamp_ms, [_command_or_reason(command) for command in raw.commands]


def encode_outcomes(outcomes: list[Outcome]) -> bytes:
    """Outcomes for the way from a node to its callers."""
    return _encoder.encode(outcomes)


def decode_outcomes(payload: bytes) -> list[Outcome]:
    """Outcomes as `encode_outcomes` wrote them."""
    return _plain(_outcomes_decoder, payload)


def encode_events(events: list[Recorded]) -> bytes:
    """Recorded events for a reader outside this process."""
    return _encoder.encode(events)


def decode_events(payload: bytes) -> list[Recorded]:
    """Recorded events as `encode_events` wrote them."""
    return _plain(_recorded_decoder, payload)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """The bytes of a snapshot, the same on every member with the same state."""
    return _encoder.encode(snapshot)


def decode_snapshot(payload: bytes) -> Snapshot:
    """A snapshot as `encode_snapshot` wrote it."""
    return _strict(_snapshot_decoder, payload, version=SNAPSHOT_VERSION)


def _command_or_reason(raw: msgspec.Raw) -> AnyCommand | Undecodable:
    try:
        return _plain(_command_decoder, raw)
    except Undecodable as reason:
        return reason


def _plain(decoder: "msgspec.msgpack.Decoder[_Decoded]", payload: bytes | msgspec.Raw) -> _Decoded:
    # RecursionError: deeply nested arrays; UnicodeDecodeError (a ValueError): text that is not UTF-8.
    try:
        return decoder.decode(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Undecodable(f"{type(error).__name__}: {error}") from error


def _strict(decoder: "msgspec.msgpack.Decoder[_Decoded]", payload: bytes, *, version: int) -> _Decoded:
    decoded = _plain(decoder, payload)
    found = getattr(decoded, "version", None)
    if found != version:
        raise Undecodable(f"version {version} expected, {found} found")
    return decoded
