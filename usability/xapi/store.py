"""Statements into the store: all of a request or none, in a handful of statements of SQL whatever their number.

A writer holds its app's advisory lock, shared with other writers; who points to another statement holds it alone, so
that pointer and target, arriving at once, see each other. `stored` is read from the database's clock under the lock.
So whatever is stored before the oldest writer's beginning is visible: that moment is `consistent_through`.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import msgspec
from django.db import connection, transaction

from usability.ingest.decode import STUDENT_ID_LIMIT, is_id
from usability.xapi import sameness, values
from usability.xapi.activities import joined
from usability.xapi.actors import pseudonym_of
from usability.xapi.references import Role, activities_in, key, keys_of
from usability.xapi.shapes import arranged
from usability.xapi.statement import VOIDED, attachments_of
from usability.xapi.versions import Version

BATCH_LIMIT = 500
"""Most statements of one request."""

# The first half of the advisory locks' name ("xapi"); the second is the app.
LOCK = 0x78617069
CHAIN_LIMIT = 20
DELETED_AT_ONCE = 10_000
DELETES_A_CALL = 50

_encode = msgspec.json.Encoder().encode
# A statement without a version was told in the first of its generation.
_VERSION_UNSAID = {Version.V1: "1.0.0", Version.V2: "2.0.0"}


class Conflict(Exception):
    """Another statement has this id."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


@dataclass(slots=True)
class Arrival:
    """A statement that obeys the rules and is to be stored."""

    statement: dict[str, Any]
    id: uuid.UUID
    digest: bytes
    given: dt.datetime | None
    attachments: list[str] = field(default_factory=list)

    @property
    def target(self) -> uuid.UUID | None:
        """The statement it points to."""
        found = self.statement["object"]
        return uuid.UUID(found["id"]) if found.get("objectType") == "StatementRef" else None

    @property
    def is_voiding(self) -> bool:
        """Whether it takes its target back."""
        return self.statement["verb"]["id"] == VOIDED


def arrival(statement: dict[str, Any], new_id: uuid.UUID) -> Arrival:
    """A statement that was found right, with `new_id` where it has none."""
    given = statement.get("timestamp")
    return Arrival(
        statement=statement,
        id=uuid.UUID(statement["id"]) if "id" in statement else new_id,
        digest=sameness.digest(statement),
        given=values.moment(given, ()) if given is not None else None,
        attachments=[one["sha2"].lower() for one in attachments_of(statement)],
    )


def store(
    arrivals: Sequence[Arrival],
    contents: Mapping[str, bytes],
    *,
    app_name: str,
    authority: dict[str, Any],
    version: Version,
) -> list[Arrival]:
    """Store what is new, each with its attachments' `contents` by digest; which are new, in their order.

    A statement that is there already and the same is passed over. Raises Conflict where it is another. Runs inside
    the caller's transaction, which is rolled back with it.
    """
    assert connection.in_atomic_block
    begin = _begin(app_name, is_alone=any(one.target for one in arrivals))
    for place, one in enumerate(arrivals):
        _complete(one, begin + dt.timedelta(microseconds=place), authority, version)
    new_ids = _insert(arrivals, contents, app_name, begin)
    _refuse_others(arrivals, new_ids, app_name)
    new = [one for one in arrivals if one.id in new_ids]
    if new:
        _pass_on_keys(new, app_name)
        _keep_attachments(new, contents, app_name)
        _keep_definitions(new, app_name)
    return new


def _begin(app_name: str, *, is_alone: bool) -> dt.datetime:
    """Take the lock; the moment after that, which is when this request's first statement is stored."""
    lock = "pg_advisory_xact_lock" if is_alone else "pg_advisory_xact_lock_shared"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {lock}(%s, %s)", [LOCK, _lock_of(app_name)])
        cursor.execute("SELECT clock_timestamp()")
        return cursor.fetchone()[0]


def _lock_of(app_name: str) -> int:
    return crc32(app_name.encode()) - 2**31


def consistent_through(app_name: str) -> dt.datetime:
    """All statements stored before this moment can be read: the beginning of the oldest writer, now where none is."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT least(clock_timestamp(), min(a.xact_start)) FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
            " WHERE l.locktype = 'advisory' AND l.classid = %s AND l.objid = %s AND l.objsubid = 2"
            " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            [LOCK, _lock_of(app_name) % 2**32],
        )
        return cursor.fetchone()[0]


def _complete(one: Arrival, stored: dt.datetime, authority: dict[str, Any], version: Version) -> None:
    """What the store adds to a statement."""
    whole = arranged(one.statement)
    whole["id"] = str(one.id)
    whole["stored"] = values.moment_text(stored)
    whole["timestamp"] = values.moment_text(one.given or stored)
    whole["authority"] = authority
    whole.setdefault("version", _VERSION_UNSAID[version])
    one.statement = whole


def _insert(
    arrivals: Sequence[Arrival], contents: Mapping[str, bytes], app_name: str, begin: dt.datetime
) -> set[uuid.UUID]:
    """The ids that were not there. In the order of ids, so that two requests never wait for each other."""
    ordered = sorted(enumerate(arrivals), key=lambda pair: pair[1].id)
    rows = [_row(one, begin + dt.timedelta(microseconds=place), contents) for place, one in ordered]
    # One document rather than an array a column: psycopg quotes every element of an array in Python.
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO xapi_statement (app_name, statement_id, stored, student_id, verb, body, digest,"
            " timestamp_given, keys, target_id, is_voiding, attachments, size_bytes)"
            " SELECT %s, u.statement_id, u.stored, u.student_id, u.verb, u.body, decode(u.digest, 'hex'),"
            " u.timestamp_given, u.keys, u.target_id, u.is_voiding, u.attachments, u.size_bytes"
            " FROM json_to_recordset(%s::json) AS u (statement_id uuid, stored timestamptz, student_id text, verb text,"
            " body jsonb, digest text, timestamp_given timestamptz, keys uuid[], target_id uuid, is_voiding boolean,"
            " attachments varchar[], size_bytes bigint)"
            " ON CONFLICT (app_name, statement_id) DO NOTHING RETURNING statement_id",
            [app_name, _encode(rows).decode()],
        )
        return {row[0] for row in cursor.fetchall()}


class _Row(msgspec.Struct):
    """A statement's row, as the insert reads it."""

    statement_id: uuid.UUID
    stored: dt.datetime
    student_id: str
    verb: str
    body: msgspec.Raw
    digest: str
    timestamp_given: dt.datetime | None
    keys: set[uuid.UUID]
    target_id: uuid.UUID | None
    is_voiding: bool
    attachments: list[str]
    size_bytes: int


def _row(one: Arrival, stored: dt.datetime, contents: Mapping[str, bytes]) -> _Row:
    body = _encode(one.statement)
    pseudonym = pseudonym_of(one.statement["actor"])
    return _Row(
        statement_id=one.id,
        stored=stored,
        student_id=pseudonym if is_id(pseudonym, STUDENT_ID_LIMIT) else "",
        verb=one.statement["verb"]["id"],
        body=msgspec.Raw(body),
        digest=one.digest.hex(),
        timestamp_given=one.given,
        keys=keys_of(one.statement),
        target_id=one.target,
        is_voiding=one.is_voiding,
        attachments=one.attachments,
        size_bytes=len(body) + sum(len(contents.get(sha2, b"")) for sha2 in one.attachments),
    )


def _refuse_others(arrivals: Sequence[Arrival], new_ids: set[uuid.UUID], app_name: str) -> None:
    """Raises Conflict where a statement with the id of one that arrived says something else."""
    old = {one.id: (place, one) for place, one in enumerate(arrivals) if one.id not in new_ids}
    if not old:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT statement_id, digest, timestamp_given FROM xapi_statement"
            " WHERE app_name = %s AND statement_id = ANY(%s)",
            [app_name, list(old)],
        )
        for statement_id, digest, given in cursor.fetchall():
            place, one = old[statement_id]
            is_other_time = one.given is not None and given is not None and one.given != given
            if bytes(digest) != one.digest or is_other_time:
                raise Conflict(place)


def _pass_on_keys(new: Sequence[Arrival], app_name: str) -> None:
    """A statement that points to another is found by what that one is found by, along chains of pointers.

    For those that arrived and point, and for those that have long pointed to what arrived now.
    """
    ids = [one.id for one in new]
    with connection.cursor() as cursor:
        if not any(one.target for one in new):
            cursor.execute(
                "SELECT EXISTS (SELECT FROM xapi_statement WHERE app_name = %s AND target_id = ANY(%s))",
                [app_name, ids],
            )
            if not cursor.fetchone()[0]:
                return
        cursor.execute(
            "WITH RECURSIVE pointing AS ("
            " SELECT s.id, s.statement_id, t.keys, 1 AS depth FROM xapi_statement s JOIN xapi_statement t"
            " ON t.app_name = s.app_name AND t.statement_id = s.target_id"
            " WHERE s.app_name = %s AND (s.statement_id = ANY(%s) OR s.target_id = ANY(%s))"
            " UNION SELECT s.id, s.statement_id, p.keys, p.depth + 1 FROM pointing p JOIN xapi_statement s"
            " ON s.app_name = %s AND s.target_id = p.statement_id WHERE p.depth < %s),"
            " gathered AS (SELECT p.id, array_agg(k) AS keys FROM pointing p, unnest(p.keys) k GROUP BY p.id)"
            " UPDATE xapi_statement s SET keys = ARRAY(SELECT DISTINCT unnest(s.keys || g.keys))"
            " FROM gathered g WHERE s.id = g.id",
            [app_name, ids, ids, app_name, CHAIN_LIMIT],
        )


def _keep_attachments(new: Sequence[Arrival], contents: Mapping[str, bytes], app_name: str) -> None:
    used = sorted({sha2 for one in new for sha2 in one.attachments if sha2 in contents})
    if not used:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO xapi_attachment (app_name, sha2, content, used_at)"
            " SELECT %s, u.sha2, u.content, now() FROM unnest(%s::text[], %s::bytea[]) AS u (sha2, content)"
            " ON CONFLICT (app_name, sha2) DO UPDATE SET used_at = now()",
            [app_name, used, [contents[sha2] for sha2 in used]],
        )


def _keep_definitions(new: Sequence[Arrival], app_name: str) -> None:
    """What the statements say about activities; of one activity's definitions the last of the batch counts."""
    told: dict[str, dict[str, Any]] = {}
    for one in new:
        for activity in activities_in(one.statement):
            if activity.get("definition"):
                told[activity["id"]] = joined(told.get(activity["id"], {}), activity["definition"])
    if not told:
        return
    ordered = sorted((key(Role.ACTIVITY, iri), iri, _encode(told[iri]).decode()) for iri in told)
    deeper = " || ".join(
        f"CASE WHEN a.definition ? '{name}' AND excluded.definition ? '{name}' THEN jsonb_build_object('{name}',"
        f" (a.definition -> '{name}') || (excluded.definition -> '{name}')) ELSE '{{}}' END"
        for name in ("name", "description", "extensions")
    )
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO xapi_activity AS a (app_name, key, iri, definition, updated_at)"  # noqa: S608 - constants
            " SELECT %s, u.key, u.iri, u.definition::jsonb, now()"
            " FROM unnest(%s::uuid[], %s::text[], %s::text[]) AS u (key, iri, definition)"
            " ON CONFLICT (app_name, key) DO UPDATE"
            f" SET definition = a.definition || excluded.definition || {deeper}, updated_at = now()"
            " WHERE NOT a.definition @> excluded.definition",
            [app_name, *(list(column) for column in zip(*ordered, strict=True))],
        )


# ---------------------------------------------------------------- what is kept no longer


def delete_older_than(moment: dt.datetime) -> int:
    """Take out statements, attachments and documents that were last touched before `moment`; how many.

    In transactions of `DELETED_AT_ONCE` rows, so that nobody waits long, and at most `DELETES_A_CALL` of them.
    """
    return sum(
        _delete_old(table, column, moment)
        for table, column in (
            ("xapi_statement", "stored"),
            ("xapi_attachment", "used_at"),
            ("xapi_document", "updated_at"),
        )
    )


def _delete_old(table: str, column: str, moment: dt.datetime) -> int:
    deleted = 0
    with connection.cursor() as cursor:
        for _ in range(DELETES_A_CALL):
            cursor.execute(
                f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE {column} < %s"  # noqa: S608 - constants
                f" ORDER BY {column} LIMIT %s)",
                [moment, DELETED_AT_ONCE],
            )
            deleted += cursor.rowcount
            if cursor.rowcount < DELETED_AT_ONCE:
                break
    return deleted


def delete_student(student_id: str) -> int:
    """Take out every statement and document of a learner, by the pseudonym; how many."""
    with transaction.atomic(), connection.cursor() as cursor:
        deleted = 0
        for table in ("xapi_statement", "xapi_document"):
            cursor.execute(f"DELETE FROM {table} WHERE student_id = %s", [student_id])  # noqa: S608 - constants
            deleted += cursor.rowcount
    return deleted
