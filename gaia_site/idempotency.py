"""Idempotency-Key: the first answer to a key is the answer, whichever process, node or day hears it again.

The record is made before the work starts, so of two equal requests at once one works and the other waits.
The id of the command in the replicated log is derived from the same key, so even a retry whose record was
lost with its process is answered by the log with the first outcome.

What became of a request while PostgreSQL was away is remembered by its process and written down by whoever
asks next, so that the key does not look as if its first request still ran.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import Error as DatabaseError
from django.db import connection
from django.http import HttpResponse
from django.utils import timezone

from gaia_site.background import in_database
from gaia_site.models import IdempotencyRecord
from gaia_site.problems import Problem, invalid

log = logging.getLogger("gaia.api")

HEADER = "Idempotency-Key"
KEPT = timedelta(hours=24)
RUNNING_LIMIT = timedelta(seconds=60)
"""A request that has not answered for so long has died with its process; the next one takes over."""
WAIT_S = 10.0
POLL_S = 0.05
POLL_MOST_S = 0.5
UNWRITTEN_MOST = 1_000
TIDY_EVERY_S = 600.0
TIDY_MOST = 10_000
KEPT_HEADERS = ("Content-Type", "Location", "X-Raft-Index", "ETag")
UNKEPT_STATUSES = frozenset({401, 403, 408, 413, 415, 429})
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One keyed request, and the identity its commands carry in the log."""

    caller: str
    method: str
    path: str
    key: str
    body_digest: bytes

    @property
    def request_id(self) -> bytes:
        """16 bytes, the same for every repetition."""
        return request_id(self.caller, self.method, self.path, self.key)

    @property
    def kept_key(self) -> str:
        """The key as it is stored: digested, for a header may say anything."""
        return hashlib.sha256(self.key.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Started:
    """This process shall do the work and then call :func:`finish` or :func:`abandon`."""

    record_id: int
    started_at: datetime


def request_id(caller: str, method: str, path: str, key: str) -> bytes:
    """The id of a command that stands for this key of this caller at this address (16 bytes)."""
    return hashlib.sha256(f"{caller}\0{method}\0{path}\0{key}".encode()).digest()[:16]


def new_request_id() -> bytes:
    """The id of a command whose caller gave no key: never equal to another."""
    return secrets.token_bytes(16)


def item_request_id(base: bytes, index: int) -> bytes:
    """The id of item `index` of a batch whose own id is `base`."""
    return hashlib.sha256(base + index.to_bytes(4, "big")).digest()[:16]


def read_key(headers: Mapping[str, str]) -> str | None:
    """The Idempotency-Key of a request. A quoted string (as in the draft) and a bare word mean the same."""
    text = headers.get(HEADER)
    if text is None:
        return None
    key = text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text
    if not _KEY.fullmatch(key):
        raise invalid(
            ("header", "idempotency-key"), "Must be 1 to 255 printable ASCII characters without spaces."
        )
    return key


def begin(attempt: Attempt) -> Started | HttpResponse:
    """Starts the work of a key, or the first answer where it is known.

    Waits while another process answers the same key. Raises idempotency-mismatch for another body and
    overloaded where the other does not finish in time.
    """
    waiting = _Patience()
    while (begun := _look(attempt)) is None:
        time.sleep(waiting.next_pause_s())
    return begun


async def begin_async(attempt: Attempt) -> Started | HttpResponse:
    """As `begin`, from an event loop."""
    waiting = _Patience()
    while True:
        begun = await in_database(_look, attempt)
        if begun is not None:
            return begun
        await asyncio.sleep(waiting.next_pause_s())


class _Patience:
    """How long to wait for another request with the same key, a little longer each time."""

    def __init__(self) -> None:
        self._give_up_at_s = time.monotonic() + WAIT_S
        self._pause_s = POLL_S / 2

    def next_pause_s(self) -> float:
        if time.monotonic() >= self._give_up_at_s:
            raise Problem("overloaded", f"The first request with this {HEADER} is still running.")
        self._pause_s = min(POLL_MOST_S, self._pause_s * 2)
        return self._pause_s


def _look(attempt: Attempt) -> Started | HttpResponse | None:
    """Our start, the first answer, or None while another request with this key runs."""
    now = timezone.now()
    _tidy_when_due(now)
    started = _insert(attempt, now)
    if started is not None:
        return started
    record = _record(attempt)
    if record is None:
        return None
    is_old = record.started_at < now - KEPT
    if is_old or (record.answered_at is None and record.started_at < now - RUNNING_LIMIT):
        return _take_over(record, attempt, now)
    if bytes(record.body_digest) != attempt.body_digest:
        raise Problem("idempotency-mismatch", f"{HEADER} {attempt.key!r} came before with another body.")
    if record.answered_at is not None:
        return _replay(record)
    unwritten = _unwritten.get(record.pk)
    if unwritten is not None and unwritten.started.started_at == record.started_at:
        _write(unwritten)
    return None


def finish(started: Started, response: HttpResponse) -> None:
    """Keeps the answer. Failures of ours and refusals before the work are not kept: a retry tries anew.

    Never fails: the work is done, and its answer must reach the client.
    """
    if response.status_code >= 500 or response.status_code in UNKEPT_STATUSES:
        abandon(started)
        return
    headers = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
    _settle(_Outcome(started, response.status_code, headers, response.content))


def abandon(started: Started) -> None:
    """Forgets that the work was started. Never fails, as `finish`."""
    _settle(_Outcome(started, None, {}, b""))


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of a started request: its answer, or a `status` of None where it is as if never asked."""

    started: Started
    status: int | None
    headers: dict[str, str]
    body: bytes


_unwritten: OrderedDict[int, _Outcome] = OrderedDict()
"""Outcomes by record that PostgreSQL was not there to take; the oldest go first."""


def _settle(outcome: _Outcome) -> None:
    try:
        _write(outcome)
    except DatabaseError as error:
        log.warning("idempotency_record_waits", extra={"reason": type(error).__name__})
        _unwritten[outcome.started.record_id] = outcome
        while len(_unwritten) > UNWRITTEN_MOST:
            _unwritten.popitem(last=False)


def _write(outcome: _Outcome) -> None:
    mine = IdempotencyRecord.objects.filter(
        pk=outcome.started.record_id, started_at=outcome.started.started_at, answered_at=None
    )
    if outcome.status is None:
        mine.delete()
    else:
        mine.update(
            answered_at=timezone.now(), status=outcome.status, headers=outcome.headers, body=outcome.body
        )
    _unwritten.pop(outcome.started.record_id, None)


def delete_old(now: datetime) -> int:
    """Deletes records that are no longer kept, so many at a time; how many."""
    old = IdempotencyRecord.objects.filter(started_at__lt=now - KEPT).order_by("started_at")[:TIDY_MOST]
    return IdempotencyRecord.objects.filter(pk__in=old.values("pk")).delete()[0]


_tidy_at_s = float("-inf")


def _tidy_when_due(now: datetime) -> None:
    """Now and then, whoever comes with a key takes out what nobody can ask for any more."""
    global _tidy_at_s  # noqa: PLW0603  one memory a process
    if time.monotonic() >= _tidy_at_s:
        _tidy_at_s = time.monotonic() + TIDY_EVERY_S
        delete_old(now)


def _insert(attempt: Attempt, now: datetime) -> Started | None:
    """Our record; None where there is one. Not an error, so that repetitions fill no log of PostgreSQL."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO gaia_site_idempotencyrecord"
            " (caller, method, path, key, body_digest, started_at, headers, body)"
            " VALUES (%s, %s, %s, %s, %s, %s, '{}', '') ON CONFLICT DO NOTHING RETURNING id",
            [attempt.caller, attempt.method, attempt.path, attempt.kept_key, attempt.body_digest, now],
        )
        found = cursor.fetchone()
    return Started(found[0], now) if found else None


def _record(attempt: Attempt) -> IdempotencyRecord | None:
    return IdempotencyRecord.objects.filter(
        caller=attempt.caller, method=attempt.method, path=attempt.path, key=attempt.kept_key
    ).first()


def _take_over(record: IdempotencyRecord, attempt: Attempt, now: datetime) -> Started | None:
    """Makes an overdue record ours; None where another process was faster.

    A record whose first request died still holds its body: another body is a mismatch, not a new start.
    """
    if record.started_at >= now - KEPT and bytes(record.body_digest) != attempt.body_digest:
        raise Problem("idempotency-mismatch", f"{HEADER} {attempt.key!r} came before with another body.")
    taken = IdempotencyRecord.objects.filter(pk=record.pk, started_at=record.started_at).update(
        started_at=now, answered_at=None, status=None, body=b"", headers={}, body_digest=attempt.body_digest
    )
    return Started(record.pk, now) if taken else None


def _replay(record: IdempotencyRecord) -> HttpResponse:
    headers = record.headers | {"Idempotent-Replayed": "true"}
    return HttpResponse(bytes(record.body), status=record.status, headers=headers)
