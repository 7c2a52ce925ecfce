"""`POST usability/metrics`: one request from bytes to an acknowledged, durable batch.

Runs in the event loop, in front of Django. What is said in a request goes to the database and to the answer,
never to a log.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from django.conf import settings
from django.db import connection
from msgspec import UNSET
from psycopg.conninfo import make_conninfo

from gaia_site.background import in_database
from gaia_site.hot import HotRequest, HotResponse
from gaia_site.idempotency import read_key
from gaia_site.keys import Principal
from gaia_site.problems import Problem, invalid
from usability.ingest import roster
from usability.ingest.buffer import Batch, GroupCommit, Mismatch, Overloaded, Refused, Unavailable, help_calls
from usability.ingest.copy import Encoder, Row, ids_from
from usability.ingest.decode import BATCH_LIMIT, CLICK_TYPES, Decoded, Malformed, Rules, TooManyItems, decode
from usability.ingest.stream import Streamer
from usability.kinds import HealthMeasure
from usability.models import HelpRequest, IngestBatch

JSON_TYPES = frozenset({"", "application/json", "text/plain"})
LINES_TYPES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})
SDK_LABEL_LIMIT = 40
# Longer than a batch may wait for its commit: before that, the roster may have to be asked.
TAKE_TIMEOUT_S = 15.0

# Reasons that say nothing about the app's health, only about who called.
_FOREIGN = frozenset({"foreign_app", "foreign_student"})


class Ingest:
    """What requests of one event loop share: the memory of the roster, the buffer, the stream."""

    def __init__(self, conninfo: str, redis_url: str | None) -> None:
        self._streamer = Streamer(redis_url)
        self._buffer = GroupCommit(conninfo, self._streamer.hand_over)
        self._roster = roster.Roster(self._forget)
        self._own_types = roster.OwnTypes()
        self._encoder = Encoder(self._roster.classroom_of)

    def _forget(self) -> None:
        self._encoder.forget()

    def hand_over(self, rows: Sequence[Row], received_us: int) -> None:
        """Give to detection at once what another connection of this process has stored."""
        self._streamer.hand_over([Batch(list(rows), received_us)])

    async def close(self) -> None:
        """Store and hand over what waits; take nothing more."""
        await self._buffer.close()
        await self._streamer.close()

    async def take(self, request: HotRequest) -> HotResponse:
        """202 once the batch is durable; 200 where it was only to be judged; in bounded time, or a 503."""
        try:
            async with asyncio.timeout(TAKE_TIMEOUT_S):
                return await self._take(request)
        except TimeoutError as error:
            raise _not_now() from error

    async def _take(self, request: HotRequest) -> HotResponse:
        received_at = dt.datetime.now(tz=dt.UTC)
        is_trial = asks_for_trial(request.query.get("validate_only"))
        decoded = await self._decoded(request, received_at)
        if is_trial:
            return _answer(200, decoded, is_duplicate=False)
        call = _call_of(request)
        if call is not None and (decoded.batch_id is not None or not decoded.metrics):
            return await self._take_twice_named(request, decoded, call, received_at)
        if not decoded.metrics:
            self._count(decoded, request.principal, received_at)
            return _answer(202, decoded, is_duplicate=False)
        is_known, help_ids = await self._keep(request, decoded, call, received_at)
        # To a repeated Idempotency-Key the answer is the first one.
        is_replay = is_known and call is not None
        return _answer(
            202, decoded, is_duplicate=is_known and not is_replay, help_ids=help_ids, is_replay=is_replay
        )

    async def _take_twice_named(
        self, request: HotRequest, decoded: Decoded, call: Call, received_at: dt.datetime
    ) -> HotResponse:
        """An Idempotency-Key whose rows cannot carry it: they have a batch id of their own, or there are none.

        The key is noted after the rows are durable. A process that dies in between leaves rows that the batch
        id keeps from being stored again, and a key that is still free: nothing is lost and nothing doubled.
        """
        first = await in_database(_noted, call)
        if first is not None:
            help_ids = await in_database(_known_calls, _asking(decoded))
            return _answer(202, decoded, is_duplicate=first, help_ids=help_ids, is_replay=True)
        is_duplicate, help_ids = False, []
        if decoded.metrics:
            is_duplicate, help_ids = await self._keep(request, decoded, None, received_at)
        else:
            self._count(decoded, request.principal, received_at)
        received_us = round(received_at.timestamp() * 1e6)
        await self._store(Batch([], received_us, call.key, call.fingerprint(is_duplicate=is_duplicate)))
        return _answer(202, decoded, is_duplicate=is_duplicate, help_ids=help_ids)

    async def _keep(
        self, request: HotRequest, decoded: Decoded, call: Call | None, received_at: dt.datetime
    ) -> tuple[bool, list[str]]:
        """Store the metrics; whether they had been stored before, and the ids of the requests for help."""
        await self._learn(decoded)
        batch = self._batch(request, decoded, call, received_at)
        is_known = await self._store(batch)
        if is_known:
            return True, await in_database(_known_calls, _asking(decoded)) if batch.help_calls else []
        self._count(decoded, request.principal, received_at)
        return False, [str(asked.uuid) for asked in batch.help_calls]

    # ------------------------------------------------------------ steps

    async def _decoded(self, request: HotRequest, received_at: dt.datetime) -> Decoded:
        if self._own_types.is_due(time.monotonic()):
            await in_database(self._own_types.read)
        principal = request.principal
        rules = Rules(principal.app_name, principal.student_id, self._own_types.of)
        return judged(request.content_type, request.body, received_at=received_at, rules=rules)

    async def _learn(self, decoded: Decoded) -> None:
        """Ask the roster about learners that are not remembered."""
        asked = {metric.student_id for metric in decoded.metrics}
        # Again after each answer: meanwhile another request may have found that all is to be forgotten.
        while unknown := self._roster.unknown(asked, time.monotonic()):
            app_name = decoded.metrics[0].app_name
            self._roster.learn(await in_database(roster.look_up, unknown, app_name))

    def _batch(
        self, request: HotRequest, decoded: Decoded, call: Call | None, received_at: dt.datetime
    ) -> Batch:
        received_us = round(received_at.timestamp() * 1e6)
        ids = ids_from(received_us, len(decoded.metrics))
        rows = self._encoder.rows(decoded.metrics, decoded.at_us, ids, received_us)
        if decoded.batch_id is not None:
            # It speaks for itself: a client may send the rest of it anew, with another `sent_at`.
            key, fingerprint = (f"b:{_owner(request.principal)}", decoded.batch_id), b""
        elif call is not None:
            key, fingerprint = call.key, call.fingerprint(is_duplicate=False)
        else:
            key, fingerprint = None, b""
        return Batch(rows, received_us, key, fingerprint, help_calls(rows))

    async def _store(self, batch: Batch) -> bool:
        try:
            return await self._buffer.store(batch)
        except Overloaded as error:
            raise Problem(
                "overloaded", "More metrics wait to be stored than may wait; send again."
            ) from error
        except Unavailable as error:
            raise _not_now() from error
        except Mismatch as error:
            raise _mismatch() from error
        except Refused as error:
            raise Problem(
                "internal-error", "The database refused this batch; nothing of it was stored."
            ) from error

    def _count(self, decoded: Decoded, principal: Principal, received_at: dt.datetime) -> None:
        hour = received_at.replace(minute=0, second=0, microsecond=0)
        for (app_name, measure, label), amount in health_counts(decoded, principal.app_name).items():
            self._buffer.count((app_name, hour, measure, label), amount)


def asks_for_trial(validate_only: str | None) -> bool:
    """Whether nothing is to be stored. A `Problem` for a value that could mean either."""
    if validate_only not in (None, "1", "true", "0", "false"):
        raise invalid(("query", "validate_only"), "Must be 1, true, 0 or false.")
    return validate_only in ("1", "true")


def judged(content_type: str, body: bytes, *, received_at: dt.datetime, rules: Rules) -> Decoded:
    """The batch in a body of that media type; what cannot be a batch is a `Problem`."""
    if content_type not in JSON_TYPES and content_type not in LINES_TYPES:
        raise Problem("unsupported-media-type", "Send application/json, application/x-ndjson or text/plain.")
    try:
        return decode(body, is_lines=content_type in LINES_TYPES, received_at=received_at, rules=rules)
    except Malformed as error:
        raise invalid(error.loc, error.msg) from error
    except TooManyItems as error:
        raise Problem("payload-too-large", f"A batch has at most {BATCH_LIMIT:,} metrics.") from error


@dataclass(frozen=True, slots=True)
class Call:
    """A request with an Idempotency-Key, which stands for one body and one answer."""

    key: tuple[str, str]
    body_digest: bytes

    def fingerprint(self, *, is_duplicate: bool) -> bytes:
        """What is noted of it: the body, and the one thing in which a later answer could differ."""
        return self.body_digest + bytes([is_duplicate])


def _call_of(request: HotRequest) -> Call | None:
    value = request.headers.get("idempotency-key")
    key = read_key({"Idempotency-Key": value}) if value else None
    if key is None:
        return None
    # Digested: a header may be longer than the column, and may say anything.
    name = hashlib.sha256(key.encode()).hexdigest()
    return Call((f"i:{_owner(request.principal)}", name), hashlib.sha256(request.body).digest()[:15])


def _owner(principal: Principal) -> str:
    """Whose batch ids these are: an app's keys share them."""
    if principal.student_id or not principal.app_name:
        return principal.subject
    return f"app:{principal.app_name}"


def _noted(call: Call) -> bool | None:
    """Whether the first answer to this key said "duplicate"; None: the key is new. Raises idempotency-mismatch."""
    scope, name = call.key
    known = (
        IngestBatch.objects.filter(scope=scope, batch_id=name).values_list("fingerprint", flat=True).first()
    )
    if known is None:
        return None
    if bytes(known)[:-1] != call.body_digest:
        raise _mismatch()
    return bool(bytes(known)[-1])


def _not_now() -> Problem:
    return Problem("overloaded", "The metrics could not be stored now; send again.", retry_after_s=2)


def _mismatch() -> Problem:
    return Problem("idempotency-mismatch", "The Idempotency-Key came before with another body.")


def health_counts(decoded: Decoded, caller_app: str) -> Counter[tuple[str, str, str]]:
    """(app, measure, label) → how many: what this request says about the health of its app."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for metric in decoded.metrics:
        metadata = metric.metadata
        if metric.metric_type in CLICK_TYPES:
            place = "" if metadata is None else next(filter(None, (metadata.item, metadata.element)), "")
            counts[metric.app_name, metric.metric_type, place] += max(1, round(metric.metric_value))
        if metadata is not None and metadata.sdk is not UNSET:
            counts[metric.app_name, HealthMeasure.SDK, metadata.sdk[:SDK_LABEL_LIMIT]] += 1
    for app_name, amount in Counter(metric.app_name for metric in decoded.metrics).items():
        counts[app_name, HealthMeasure.ACCEPTED, ""] += amount
    sole = caller_app or (decoded.metrics[0].app_name if decoded.metrics else "")
    if sole and decoded.late:
        counts[sole, HealthMeasure.LATE, ""] += decoded.late
    for rejection in decoded.rejected:
        app_name = caller_app or rejection.app_name or sole
        if app_name and rejection.reason not in _FOREIGN:
            counts[app_name, HealthMeasure.REJECTED, rejection.reason] += 1
    return counts


def _asking(decoded: Decoded) -> list[tuple[str, str]]:
    """Who asks for help in this batch, and in which app."""
    return [
        (metric.student_id, metric.app_name)
        for metric in decoded.metrics
        if metric.metric_type == "help_request"
    ]


def _known_calls(asking: list[tuple[str, str]]) -> list[str]:
    """For a repeated batch: the requests of these learners that the first one made."""
    found = []
    for student_id, app_name in asking:
        known = HelpRequest.objects.filter(student_id=student_id, app_name=app_name)
        newest = known.order_by("-requested_at", "-id").values_list("id", flat=True).first()
        if newest is not None:
            found.append(str(newest))
    return found


def _answer(
    status: int,
    decoded: Decoded,
    *,
    is_duplicate: bool,
    help_ids: list[str] | None = None,
    is_replay: bool = False,
) -> HotResponse:
    body: dict[str, Any] = {
        "accepted": len(decoded.metrics),
        "rejected": [rejection.as_json() for rejection in decoded.rejected],
        "duplicate": is_duplicate,
    }
    if help_ids:
        body["help_requests"] = help_ids
    return HotResponse(status, body, {"Idempotent-Replayed": "true"} if is_replay else {})


_ingests: WeakKeyDictionary[asyncio.AbstractEventLoop, Ingest] = WeakKeyDictionary()


def ingest_here() -> Ingest:
    """The `Ingest` of the running event loop; a web process has one loop."""
    loop = asyncio.get_running_loop()
    if loop not in _ingests:
        _ingests[loop] = Ingest(_conninfo(), settings.GAIA.redis_url)
    return _ingests[loop]


async def hand_over(rows: Sequence[Row], received_us: int) -> None:
    """`Ingest.hand_over` of the running event loop."""
    ingest_here().hand_over(rows, received_us)


def _conninfo() -> str:
    """Where Django's database is, as libpq is told: tests give it another name than the environment."""
    parameters = connection.get_connection_params()
    known = ("dbname", "user", "password", "host", "port", "sslmode", "sslrootcert")
    return make_conninfo(**{name: parameters[name] for name in known if parameters.get(name)})


async def handle(request: HotRequest) -> HotResponse:
    """The hot route's handler."""
    return await ingest_here().take(request)
