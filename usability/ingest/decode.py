"""Bytes of a request to typed metrics: what is well formed is kept, the rest is named with its place.

No free text passes here. Every string of a metric is an id from a closed alphabet without blanks, a version
or a time, and metadata knows its keys. Nothing that was refused is kept or logged, except the reason.

Time and the caller's rights come in as arguments.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

BATCH_LIMIT = 5_000
STUDENT_ID_LIMIT = 50
APP_NAME_LIMIT = 50
TYPE_LIMIT = 100
SESSION_ID_LIMIT = 100
BATCH_ID_LIMIT = 100
METADATA_ID_LIMIT = 100
VERSION_LIMIT = 32
NUMBER_LIMIT = 1e15
KEY_SHOWN_LIMIT = 60

# The same constants drive which day partitions exist (usability.partitions) and where a row is looked for
# by its id (usability.querysets).
OLDEST = dt.timedelta(days=7)
NEWEST = dt.timedelta(minutes=5)
# Detection does not alert on what is older than this; the count of such metrics is the app's late share.
LATE_AFTER = dt.timedelta(seconds=60)

METRIC_TYPES = frozenset(
    {
        "keypress",
        "backspace",
        "scrolling",
        "mouse_movement",
        "click",
        "error",
        "hesitation",
        "pause",
        "completion",
        "focus",
        "blur",
        "navigation",
        "answer",
        "hint",
        "help_request",
        "dead_click",
        "rage_click",
        "error_click",
    }
)
RIGHT_OR_WRONG = (1.0, 0.0)
CLICK_TYPES = frozenset({"dead_click", "rage_click", "error_click"})

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_ID = re.compile(r"[A-Za-z0-9._:/-]+")
_VERSION = re.compile(r"v?\d+(?:\.\d+){0,3}(?:[-+][0-9A-Za-z]+(?:[.-][0-9A-Za-z]+)*)?")
_PLACE = re.compile(r" - at `\$(.*)`$")
_UNKNOWN = re.compile(r"^Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(.*)`")
# Strings are passed over whole, so that brackets in them do not count.
_BRACKET = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]', re.DOTALL)
# An envelope, its list, a metric and its metadata are four; deeper than this nothing can be right.
_DEPTH_KEPT = 8
_BRACKETS_LIMIT = 500_000
_DIGITS_LIMIT = 400

# The bounds refuse NaN as well.
Number = Annotated[int, Meta(ge=0, le=int(NUMBER_LIMIT))] | Annotated[float, Meta(ge=0, le=NUMBER_LIMIT)]
Moment = Annotated[dt.datetime, Meta(tz=True)]
Place = tuple[str | int, ...]


class Metadata(Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """All that may stand beside a metric. None of it is free text."""

    item: str | UnsetType = UNSET
    skill: str | UnsetType = UNSET
    element: str | UnsetType = UNSET
    correct: bool | UnsetType = UNSET
    similar: bool | UnsetType = UNSET
    is_bottom: bool | UnsetType = UNSET
    late: bool | UnsetType = UNSET
    hint_level: Number | UnsetType = UNSET
    attempt: Number | UnsetType = UNSET
    duration_ms: Number | UnsetType = UNSET
    bucket_ms: Number | UnsetType = UNSET
    age_ms: Number | UnsetType = UNSET
    seq: Number | UnsetType = UNSET
    sdk: str | UnsetType = UNSET


class Metric(Struct, forbid_unknown_fields=True, gc=False):
    """One metric as an app sends it."""

    student_id: str
    app_name: str
    metric_type: str
    metric_value: float
    timestamp: Moment | None = None
    session_id: str | None = None
    metadata: Metadata | None = None


class Envelope(Struct, forbid_unknown_fields=True):
    """A batch with an id of its own and the client's clock at the moment of sending."""

    metrics: list[Metric]
    batch_id: str | None = None
    sent_at: Moment | None = None


class _OpenEnvelope(Struct, forbid_unknown_fields=True):
    """An envelope whose metrics are judged one by one."""

    metrics: list[Any]
    batch_id: str | None = None
    sent_at: Moment | None = None


@dataclass(frozen=True, slots=True)
class Rejection:
    """One metric that was refused: its index in the batch, the place in the body, words, a countable reason.

    `app_name` is what it says of its app, "" where that can be none.
    """

    index: int
    loc: Place
    msg: str
    reason: str
    app_name: str = ""

    def as_json(self) -> dict[str, Any]:
        """The entry of the answer's `rejected`."""
        return {"index": self.index, "loc": list(self.loc), "msg": self.msg}


@dataclass(slots=True)
class Decoded:
    """A batch after judgement: `metrics[n]` happened at `at_us[n]` (unix microseconds, clock corrected)."""

    metrics: list[Metric]
    at_us: list[int]
    rejected: list[Rejection] = field(default_factory=list)
    batch_id: str | None = None
    late: int = 0


class Malformed(ValueError):
    """The body as a whole cannot be read; `loc` and the message say where and why."""

    def __init__(self, loc: Place, msg: str) -> None:
        super().__init__(msg)
        self.loc = loc
        self.msg = msg


class TooManyItems(ValueError):
    """More metrics than a batch may have."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What this caller may send: `app_name` and `student_id` bind it where they are set.

    `own_types(app_name)` are the metric types that app has registered beyond the common ones.
    """

    app_name: str = ""
    student_id: str = ""
    own_types: Callable[[str], Collection[str]] = lambda _app_name: ()


_metrics_decoder = msgspec.json.Decoder(list[Metric])
_metric_decoder = msgspec.json.Decoder(Metric)
_envelope_decoder = msgspec.json.Decoder(Envelope)


def decode(body: bytes, *, is_lines: bool, received_at: dt.datetime, rules: Rules) -> Decoded:
    """Judge a body: a metric, a JSON list, an envelope, or lines of JSON (`is_lines`).

    Raises Malformed where no metric can be told from another, TooManyItems beyond `BATCH_LIMIT`.
    """
    batch = _lines(body) if is_lines else _whole(body)
    if batch.size > BATCH_LIMIT:
        raise TooManyItems(f"{batch.size} metrics in one batch; at most {BATCH_LIMIT}")
    return _judge(batch, received_at, rules)


def judge_values(items: list[Any], *, received_at: dt.datetime, rules: Rules) -> Decoded:
    """Judge metrics that are mappings already, as a body's list would be."""
    if len(items) > BATCH_LIMIT:
        raise TooManyItems(f"{len(items)} metrics in one batch; at most {BATCH_LIMIT}")
    return _judge(_converted(items, ("body",)), received_at, rules)


@dataclass(slots=True)
class _Batch:
    """Metrics of the right types with their indexes, the refused, and what the envelope said."""

    metrics: list[Metric]
    indexes: list[int] | range
    size: int
    prefix: Place
    rejected: list[Rejection]
    batch_id: str | None = None
    sent_at: dt.datetime | None = None

    def place(self, index: int) -> Place:
        """Where the metric of that index stands in the body; a single metric is the body itself."""
        return self.prefix if index < 0 else (*self.prefix, index)


def _whole(body: bytes) -> _Batch:
    """The batch of one JSON document. Well-formed batches take the fast way; others are read item by item."""
    try:
        if body.lstrip(b" \t\r\n")[:1] == b"[":
            return _typed(_metrics_decoder.decode(body), ("body",))
        if b'"metrics"' in body:
            envelope = _envelope_decoder.decode(body)
            batch = _typed(envelope.metrics, ("body", "metrics"))
            return _with_envelope(batch, envelope.batch_id, envelope.sent_at)
        return _Batch([_metric_decoder.decode(body)], [-1], 1, ("body",), [])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        document, was_cut = _lenient(body)
        batch = _item_by_item(document)
        if was_cut and not batch.metrics:
            raise Malformed(("body",), "nested too deeply") from None
        return batch


def _typed(metrics: list[Metric], prefix: Place) -> _Batch:
    return _Batch(metrics, range(len(metrics)), len(metrics), prefix, [])


def _with_envelope(batch: _Batch, batch_id: str | None, sent_at: dt.datetime | None) -> _Batch:
    if batch_id is not None and not is_id(batch_id, BATCH_ID_LIMIT):
        raise Malformed(("body", "batch_id"), _id_rule(BATCH_ID_LIMIT))
    batch.batch_id, batch.sent_at = batch_id, sent_at
    return batch


def _lenient(body: bytes) -> tuple[Any, bool]:
    """The document read as Python's json reads it: NaN, lone surrogates, NUL and endless numbers get through.

    They are then refused in the one metric that has them, not with the whole batch. So is what is nested
    too deeply to be read at all: it is cut off, and the second value says that something was.
    """
    text = body.decode("utf-8", "surrogateescape")
    try:
        try:
            return json.loads(text, parse_int=_whole_number), False
        except RecursionError:
            return json.loads(_cut(text), parse_int=_whole_number), True
    except json.JSONDecodeError as error:
        # What was wrong and where, without the text itself.
        why = f"not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        raise Malformed(("body",), why) from error


def _whole_number(digits: str) -> float:
    """The number; one with more digits than Python converts is beyond every limit, hence as good as infinite."""
    return int(digits) if len(digits) <= _DIGITS_LIMIT else float(digits)


def _cut(text: str) -> str:
    """The document with null in place of every list and object that lies deeper than `_DEPTH_KEPT`."""
    if text.count("[") + text.count("{") > _BRACKETS_LIMIT:
        raise Malformed(("body",), "nested too deeply")
    kept: list[str] = []
    depth = begin = 0
    for found in _BRACKET.finditer(text):
        bracket = found[0][0]
        if bracket in "[{":
            depth += 1
            if depth == _DEPTH_KEPT + 1:
                kept += text[begin : found.start()], "null"
        elif bracket in "]}":
            depth -= 1
            if depth == _DEPTH_KEPT:
                begin = found.end()
    if depth == 0:
        kept.append(text[begin:])
    return "".join(kept)


def _item_by_item(document: Any) -> _Batch:
    if isinstance(document, list):
        return _converted(document, ("body",))
    if not isinstance(document, dict):
        raise Malformed(("body",), "expected a metric, a list of metrics or an envelope")
    if "metrics" not in document:
        batch = _converted([document], ("body",))
        return _Batch(batch.metrics, [-1] * len(batch.metrics), 1, ("body",), _single(batch.rejected))
    try:
        envelope = msgspec.convert(document, _OpenEnvelope)
    except (msgspec.ValidationError, UnicodeError) as error:
        found = _refusal(0, ("body",), error)
        raise Malformed(found.loc, found.msg) from error
    batch = _converted(envelope.metrics, ("body", "metrics"))
    return _with_envelope(batch, envelope.batch_id, envelope.sent_at)


def _single(rejected: list[Rejection]) -> list[Rejection]:
    """The refusals of a body that is one metric: its place is the body, its index 0."""
    return [Rejection(0, ("body", *r.loc[2:]), r.msg, r.reason, r.app_name) for r in rejected]


def _converted(items: list[Any], prefix: Place) -> _Batch:
    metrics, indexes, rejected = [], [], []
    for index, item in enumerate(items[: BATCH_LIMIT + 1]):
        try:
            metrics.append(msgspec.convert(item, Metric))
            indexes.append(index)
        except (msgspec.ValidationError, UnicodeError) as error:
            rejected.append(_refusal(index, (*prefix, index), error, item))
        except RecursionError:
            rejected.append(Rejection(index, (*prefix, index), "nested too deeply", "not_json"))
    return _Batch(metrics, indexes, len(items), prefix, rejected)


def _lines(body: bytes) -> _Batch:
    """The batch of lines of JSON, one metric each; blank lines do not count."""
    metrics, indexes, rejected, index = [], [], [], 0
    for line in body.split(b"\n"):
        if not line.strip():
            continue
        if index <= BATCH_LIMIT:
            one = _line(line, index)
            if isinstance(one, Rejection):
                rejected.append(one)
            else:
                metrics.append(one)
                indexes.append(index)
        index += 1
    return _Batch(metrics, indexes, index, ("body",), rejected)


def _line(line: bytes, index: int) -> Metric | Rejection:
    try:
        return _metric_decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    try:
        document, was_cut = _lenient(line)
        if was_cut:
            return Rejection(index, ("body", index), "nested too deeply", "not_json")
        return msgspec.convert(document, Metric)
    except Malformed as error:
        return Rejection(index, ("body", index), error.msg, "not_json")
    except (msgspec.ValidationError, UnicodeError) as error:
        return _refusal(index, ("body", index), error, document)


def _refusal(index: int, place: Place, error: Exception, item: Any = None) -> Rejection:
    """The place and words of a type error. Names of unknown keys are shown cut off, values never."""
    text = str(error) if isinstance(error, msgspec.ValidationError) else "not valid UTF-8"
    found = _PLACE.search(text)
    inner = tuple(part for part in re.split(r"[.\[\]]+", found[1]) if part) if found else ()
    loc = (*place, *(int(part) if part.isdigit() else part for part in inner))
    msg = text[: found.start()] if found else text
    app_name = _app_named(item.get("app_name") if isinstance(item, dict) else None)
    if unknown := _UNKNOWN.match(msg):
        return Rejection(index, (*loc, _shown(unknown[1])), "unknown key", "unknown_key", app_name)
    if missing := _MISSING.match(msg):
        return Rejection(index, (*loc, missing[1]), "required", "missing", app_name)
    reason = "not_json" if msg == "not valid UTF-8" else "wrong_type"
    return Rejection(index, loc, msg.replace("`", ""), reason, app_name)


def _app_named(name: Any) -> str:
    """The app that a refused metric names, for the app's health; "" where that can be none."""
    return name if isinstance(name, str) and is_id(name, APP_NAME_LIMIT) else ""


def _shown(key: str) -> str:
    return key[:KEY_SHOWN_LIMIT].encode("utf-8", "replace").decode()


# ---------------------------------------------------------------- judgement


# Ids that were found well formed, by their longest allowed length: most are seen again at once. Emptied
# when full. A student and an app name share a limit, a session and an item another.
_KNOWN_LIMIT = 50_000
_known: dict[int, set[str]] = {}


def is_id(text: str, limit: int) -> bool:
    """Whether `text` is an id of at most `limit` characters."""
    known = _known.setdefault(limit, set())
    if text in known:
        return True
    if len(text) > limit or not _ID.fullmatch(text):
        return False
    if len(known) >= _KNOWN_LIMIT:
        known.clear()
    known.add(text)
    return True


def _id_rule(limit: int) -> str:
    return f"expected 1 to {limit} of letters, digits and . _ : / -"


def _judge(batch: _Batch, received_at: dt.datetime, rules: Rules) -> Decoded:
    """Keep the metrics that obey the rules, with the time at which each happened by our clock.

    A client's time is moved by the difference of the two clocks at the moment of sending.
    """
    received_us = _microseconds(received_at)
    skew_us = 0 if batch.sent_at is None else received_us - _microseconds(batch.sent_at)
    oldest_us = received_us - _microseconds(_EPOCH + OLDEST)
    newest_us = received_us + _microseconds(_EPOCH + NEWEST)
    late_us = received_us - _microseconds(_EPOCH + LATE_AFTER)
    kept: list[Metric] = []
    at: list[int] = []
    rejected = batch.rejected
    late = 0
    seen = _seen_by(rules)
    sittings, details = seen.sittings, seen.details
    for index, metric in zip(batch.indexes, batch.metrics, strict=True):
        moment = metric.timestamp
        if moment is None:
            at_us = _moment_by_age_us(metric, received_us)
        else:
            at_us = round(moment.timestamp() * 1e6) + skew_us
        kind, value, metadata = metric.metric_type, metric.metric_value, metric.metadata
        # Most metrics have nothing but ids that were found right before. The others are looked at closely.
        if oldest_us <= at_us <= newest_us and (
            (
                (metric.student_id, metric.app_name, metric.session_id) in sittings
                and kind in METRIC_TYPES
                and 0 <= value <= NUMBER_LIMIT
                and (kind != "answer" or value in RIGHT_OR_WRONG)
                and (
                    metadata is None
                    or (metadata.item, metadata.skill, metadata.element, metadata.sdk) in details
                )
            )
            or seen.is_right(metric, rules)
        ):
            kept.append(metric)
            at.append(at_us)
            if at_us < late_us:
                late += 1
        else:
            wrong = _wrong_field(metric, rules) or _wrong_time(at_us, oldest_us, newest_us)
            where, msg, reason = wrong
            app_name = _app_named(metric.app_name)
            rejected.append(Rejection(max(index, 0), (*batch.place(index), *where), msg, reason, app_name))
    if len(rejected) > 1:
        rejected.sort(key=lambda rejection: rejection.index)
    return Decoded(kept, at, rejected, batch.batch_id, late)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What metrics that were found right had in common with the next ones: who in which app and sitting, and the
    texts of the metadata. Each set is emptied when it is full.
    """

    sittings: set[tuple[str, str, str | None]] = field(default_factory=set)
    details: set[tuple[str | UnsetType, ...]] = field(default_factory=set)

    def is_right(self, metric: Metric, rules: Rules) -> bool:
        """Whether a metric obeys all rules but those of time; what it had is remembered."""
        if _wrong_field(metric, rules) is not None:
            return False
        for memory in (self.sittings, self.details):
            if len(memory) >= _KNOWN_LIMIT:
                memory.clear()
        self.sittings.add((metric.student_id, metric.app_name, metric.session_id))
        if (metadata := metric.metadata) is not None:
            self.details.add((metadata.item, metadata.skill, metadata.element, metadata.sdk))
        return True


# By the app a caller is bound to: what one may send says nothing about what another may. There are few apps, but
# nobody promises it.
_APPS_SEEN_LIMIT = 100
_seen: dict[str, _Seen] = {}


def _seen_by(rules: Rules) -> _Seen:
    """The memory for callers of that app; one that is bound to a learner sends little, and gets an empty one."""
    if rules.student_id:
        return _Seen()
    if rules.app_name not in _seen and len(_seen) >= _APPS_SEEN_LIMIT:
        _seen.clear()
    return _seen.setdefault(rules.app_name, _Seen())


def _microseconds(moment: dt.datetime) -> int:
    """Unix time. A float holds this century's microseconds exactly enough: its step is 0.24 µs."""
    return round(moment.timestamp() * 1e6)


def _moment_by_age_us(metric: Metric, received_us: int) -> int:
    """When a metric without a time happened: its age before the receipt, which is 0 where nothing is said."""
    if metric.metadata is not None and metric.metadata.age_ms is not UNSET:
        return received_us - round(metric.metadata.age_ms * 1000)
    return received_us


Wrong = tuple[Place, str, str]


def _wrong_field(metric: Metric, rules: Rules) -> Wrong | None:
    """The first field that breaks a rule: its place, words, reason."""
    if not is_id(metric.student_id, STUDENT_ID_LIMIT):
        return ("student_id",), _id_rule(STUDENT_ID_LIMIT), "bad_id"
    if not is_id(metric.app_name, APP_NAME_LIMIT):
        return ("app_name",), _id_rule(APP_NAME_LIMIT), "bad_id"
    if rules.app_name and metric.app_name != rules.app_name:
        return ("app_name",), "the key belongs to another app", "foreign_app"
    if rules.student_id and metric.student_id != rules.student_id:
        return ("student_id",), "the token belongs to another student", "foreign_student"
    if metric.session_id is not None and not is_id(metric.session_id, SESSION_ID_LIMIT):
        return ("session_id",), _id_rule(SESSION_ID_LIMIT), "bad_id"
    wrong = _wrong_value(metric, rules)
    if wrong is None and metric.metadata is not None:
        return _wrong_metadata(metric.metadata)
    return wrong


def _wrong_value(metric: Metric, rules: Rules) -> Wrong | None:
    value = metric.metric_value
    if metric.metric_type in METRIC_TYPES:
        if not 0 <= value <= NUMBER_LIMIT:
            return ("metric_value",), "expected a number from 0", "bad_value"
        if metric.metric_type == "answer" and value not in RIGHT_OR_WRONG:
            return ("metric_value",), "expected 1 (right) or 0 (wrong)", "bad_value"
        return None
    if not is_id(metric.metric_type, TYPE_LIMIT) or metric.metric_type not in rules.own_types(
        metric.app_name
    ):
        return ("metric_type",), "no such metric type; an app may register its own", "unknown_type"
    if not math.isfinite(value) or abs(value) > NUMBER_LIMIT:
        return ("metric_value",), "expected a finite number", "bad_value"
    return None


def _wrong_metadata(metadata: Metadata) -> Wrong | None:
    for name, text in (("item", metadata.item), ("skill", metadata.skill), ("element", metadata.element)):
        if text is not UNSET and not is_id(text, METADATA_ID_LIMIT):
            return ("metadata", name), _id_rule(METADATA_ID_LIMIT), "bad_id"
    sdk = metadata.sdk
    if sdk is not UNSET and (len(sdk) > VERSION_LIMIT or not _VERSION.fullmatch(sdk)):
        return ("metadata", "sdk"), "expected a version such as 1.4.2", "bad_id"
    return None


def _wrong_time(at_us: int, oldest_us: int, newest_us: int) -> Wrong | None:
    if at_us < oldest_us:
        return ("timestamp",), f"more than {OLDEST.days} days before receipt", "too_old"
    if at_us > newest_us:
        return ("timestamp",), f"more than {NEWEST.seconds // 60} minutes after receipt", "too_new"
    return None
