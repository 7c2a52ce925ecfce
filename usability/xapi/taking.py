"""A request's statements from bytes to rows: read, judged, stored, and what they mean for detection derived.

The metrics of a statement are stored in the transaction that stores it, hence once, whoever sends it how often; the
door is that of every metric: the same judgement, encoding and COPY (`usability.ingest.direct`).
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.db import transaction
from uuid_utils.compat import uuid7

from gaia_site.bodies import decode_json
from usability.ingest import direct, health
from usability.ingest.adapters import xapi as adapter
from usability.ingest.copy import Row
from usability.ingest.decode import Decoded, Rules, judge_values
from usability.xapi import multipart, signatures, statement, store
from usability.xapi.statement import attachments_of
from usability.xapi.store import Arrival
from usability.xapi.values import Place, Wrong, list_at
from usability.xapi.versions import Version

JSON = "application/json"
MIXED = "multipart/mixed"
ERRORS_LIMIT = 20

_DIGESTS = {56: hashlib.sha224, 64: hashlib.sha256, 96: hashlib.sha384, 128: hashlib.sha512}


class SeveralWrong(ValueError):
    """More than one statement of a request breaks a rule."""

    def __init__(self, wrongs: list[Wrong]) -> None:
        super().__init__(wrongs[0].msg)
        self.wrongs = wrongs


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sends: the app whose store it is, the agent that answers for it, the version it speaks."""

    app_name: str
    authority: dict[str, Any]
    version: Version


@dataclass(frozen=True, slots=True)
class Body:
    """A request's body: the statements as JSON values, the attachments by digest. `is_list`: they came in one."""

    statements: list[Any]
    contents: dict[str, bytes] = field(default_factory=dict)
    is_list: bool = False

    def place(self, index: int) -> Place:
        """Where the statement of that index stands."""
        return ("body", index) if self.is_list else ("body",)


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a request: ids in its order, how many metrics were made, and why others were not."""

    ids: list[str]
    metrics: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


Committed = Callable[[Sequence[Row], int], None]
"""Told, after the commit, which rows of metrics it holds and when they were received (unix microseconds)."""


def body_of(content_type: str, content: bytes) -> Body:
    """Read a body of that Content-Type. Raises Wrong."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == JSON:
        return _body(decode_json(content), {})
    if media_type != MIXED:
        raise Wrong(("header", "content-type"), f"must be {JSON} or {MIXED}")
    first, *rest = multipart.taken_apart(content, multipart.boundary_of(content_type))
    if first.content_type != JSON:
        raise Wrong(("body", 0), f"the first part must be {JSON}")
    contents: dict[str, bytes] = {}
    for index, part in enumerate(rest, 1):
        digest = part.headers.get("x-experience-api-hash", "").lower()
        if part.headers.get("content-transfer-encoding", "").lower() != "binary":
            raise Wrong(("body", index), "an attachment needs Content-Transfer-Encoding: binary")
        if not digest:
            raise Wrong(("body", index), "an attachment needs X-Experience-API-Hash")
        algorithm = _DIGESTS.get(len(digest))
        if algorithm is None or algorithm(part.content).hexdigest() != digest:
            raise Wrong(("body", index), "X-Experience-API-Hash is not the SHA-2 of the attachment")
        contents[digest] = part.content
    return _body(decode_json(first.content), contents)


def _body(value: Any, contents: dict[str, bytes]) -> Body:
    if isinstance(value, list):
        if len(value) > store.BATCH_LIMIT:
            raise Wrong(("body",), f"at most {store.BATCH_LIMIT} statements at a time")
        return Body(value, contents, is_list=True)
    return Body([value], contents)


def judged(body: Body, version: Version) -> list[Arrival]:
    """The statements of a body, each obeying the rules. Raises Wrong or SeveralWrong."""
    arrivals, wrongs = [], []
    for index, value in enumerate(body.statements):
        try:
            found = statement.statement(value, body.place(index), version)
            _check_attachments(found, body, body.place(index), version)
            arrivals.append(store.arrival(found, uuid7()))
        except Wrong as wrong:
            wrongs.append(wrong)
            if len(wrongs) >= ERRORS_LIMIT:
                break
    if wrongs:
        raise wrongs[0] if len(wrongs) == 1 else SeveralWrong(wrongs)
    ids = [one.id for one in arrivals]
    if len(set(ids)) < len(ids):
        twice = next(index for index, one in enumerate(ids) if one in ids[:index])
        raise Wrong((*body.place(twice), "id"), "two statements of this request have it")
    unclaimed = body.contents.keys() - {sha2 for one in arrivals for sha2 in one.attachments}
    if unclaimed:
        raise Wrong(("body",), "a part is the attachment of no statement")
    return arrivals


def _check_attachments(found: dict[str, Any], body: Body, loc: Place, version: Version) -> None:
    """Every attachment came along or says where it is, and signatures are right.

    The digest proves the content; a `length` that differs from it is the client's word and stays.
    """
    for index, one in enumerate(attachments_of(found)):
        place = (*loc, "attachments", index)
        content = body.contents.get(one["sha2"].lower())
        if content is None:
            if "fileUrl" not in one:
                raise Wrong(place, "neither a part of this request nor a fileUrl has its content")
            continue
        if signatures.is_signature(one):
            signatures.check(found, one, content, place, version)
    for index, one in enumerate(found.get("attachments", ())):
        if signatures.is_signature(one) and one["sha2"].lower() not in body.contents:
            raise Wrong((*loc, "attachments", index), "a signature must be a part of the request")


def take(arrivals: list[Arrival], body: Body, sender: Sender, committed: Committed | None = None) -> Taken:
    """Store the statements and their metrics, all or nothing. Raises store.Conflict."""
    received_at = dt.datetime.now(tz=dt.UTC)
    with transaction.atomic():
        new = arrivals
        if settings.GAIA.xapi_lrs_enabled:
            new = store.store(
                arrivals,
                body.contents,
                app_name=sender.app_name,
                authority=sender.authority,
                version=sender.version,
            )
        made, left_out = _metrics_of(new, sender.app_name, received_at)
        is_known = _keep_metrics(made, new, sender, received_at, committed)
    ids = [str(one.id) for one in arrivals]
    if is_known or not new:
        return Taken(ids)
    # After the commit: the counts of an app are one row for all its requests, which none shall hold for long.
    health.count(made, left_out, app_name=sender.app_name, received_at=received_at)
    if made is not None:
        left_out = left_out + Counter(rejection.reason for rejection in made.rejected)
    return Taken(ids, len(made.metrics) if made is not None else 0, left_out)


def _metrics_of(
    new: Sequence[Arrival], app_name: str, received_at: dt.datetime
) -> tuple[Decoded | None, Counter[str]]:
    """What statements mean for detection, judged as every metric is; and why the others mean nothing."""
    items, left_out = [], Counter()
    for one in new:
        found = adapter.metric_of(one.statement, app_name=app_name)
        if isinstance(found, adapter.LeftOut):
            left_out[found.reason] += 1
        else:
            items.append(found)
    if not items or not settings.GAIA.usability_metrics_enabled:
        return None, left_out
    decoded = judge_values(items, received_at=received_at, rules=Rules(app_name=app_name))
    return decoded, left_out


def _keep_metrics(
    decoded: Decoded | None,
    new: Sequence[Arrival],
    sender: Sender,
    received_at: dt.datetime,
    committed: Committed | None,
) -> bool:
    """Store them; whether they had been before: without a store of statements their ids keep a repetition out."""
    if decoded is None or not decoded.metrics:
        return False
    batch_key = None
    if not settings.GAIA.xapi_lrs_enabled and all("id" in one.statement for one in new):
        ids = hashlib.sha256(b"".join(sorted(one.id.bytes for one in new))).hexdigest()
        batch_key = (f"x:{sender.app_name}", ids)
    return direct.store(decoded, received_at=received_at, batch_key=batch_key, committed=committed)


def one_statement(body: Body) -> Any:
    """The single statement of a PUT."""
    if body.is_list:
        raise Wrong(("body",), "must be one statement")
    return list_at(body.statements, ("body",))[0]
