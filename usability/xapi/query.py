"""Questions to the store: one statement, a filtered page of them, what is known of an activity.

Voided is what another statement voids and is not itself a voiding one; that is looked up when it is read, so nothing
has to be changed when either of the two arrives first. xAPI 1.0.3, part three, section 2.1.3 and part two, 2.3.2.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from django.db import connection

from usability.xapi.references import Role, key

PAGE_MOST = 500
PAGE_BYTES = 8 * 1024 * 1024
"""A page ends when its statements and their attachments reach this; a single one may be larger."""

encode = msgspec.json.Encoder().encode

# Not EXISTS: PostgreSQL would gather all voiding statements into a hash for it. This looks one up in the index.
_VOIDED = (
    "(NOT s.is_voiding AND (SELECT true FROM xapi_statement v WHERE v.app_name = s.app_name"
    " AND v.target_id = s.statement_id AND v.is_voiding LIMIT 1) IS NOT NULL)"
)


@dataclass(frozen=True, slots=True)
class Found:
    """A stored statement: its body as JSON, and where it stands."""

    id: int
    stored: dt.datetime
    body: bytes
    attachments: tuple[str, ...]

    def decoded(self) -> dict[str, Any]:
        """The statement."""
        return msgspec.json.decode(self.body)


@dataclass(frozen=True, slots=True)
class Filter:
    """What a page is asked for; `after` is the place of the last statement seen."""

    keys: tuple[uuid.UUID, ...] = ()
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    limit: int = PAGE_MOST
    is_ascending: bool = False
    after: tuple[dt.datetime, int] | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Statements in their order; `has_more`: others follow."""

    statements: list[Found] = field(default_factory=list)
    has_more: bool = False


def one(app_name: str, statement_id: uuid.UUID, *, is_voided: bool) -> Found | None:
    """The statement of that id, if it is voided or not as asked."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT s.id, s.stored, s.body::text, s.attachments FROM xapi_statement s"  # noqa: S608 - constants
            f" WHERE s.app_name = %s AND s.statement_id = %s AND {_VOIDED} = %s",
            [app_name, statement_id, is_voided],
        )
        row = cursor.fetchone()
    return None if row is None else _found(row)


def page(app_name: str, asked: Filter) -> Page:
    """The statements that pass all filters, as many as are asked for and a page holds."""
    order, beyond = ("", ">") if asked.is_ascending else (" DESC", "<")
    conditions, values = ["s.app_name = %s", f"NOT {_VOIDED}"], [app_name]
    for condition, value in (
        ("s.keys @> %s::uuid[]", list(asked.keys) or None),
        ("s.stored > %s", asked.since),
        ("s.stored <= %s", asked.until),
    ):
        if value is not None:
            conditions.append(condition)
            values.append(value)
    if asked.after is not None:
        conditions.append(f"(s.stored, s.id) {beyond} (%s, %s)")
        values += asked.after
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, stored, body, attachments, is_within FROM ("  # noqa: S608 - constants
            " SELECT p.id, p.stored, p.body, p.attachments, p.place,"
            " p.place <= %s AND (p.place = 1 OR sum(p.size_bytes) OVER (ORDER BY p.place) <= %s) AS is_within FROM ("
            " SELECT s.id, s.stored, s.body::text AS body, s.attachments, s.size_bytes,"
            f" row_number() OVER (ORDER BY s.stored{order}, s.id{order}) AS place FROM ("
            f" SELECT * FROM xapi_statement s WHERE {' AND '.join(conditions)}"
            f" ORDER BY s.stored{order}, s.id{order} LIMIT %s) s) p) q ORDER BY place",
            [asked.limit, PAGE_BYTES, *values, asked.limit + 1],
        )
        rows = cursor.fetchall()
    within = [_found(row[:4]) for row in rows if row[4]]
    return Page(within, len(within) < len(rows))


def _found(row: Sequence[Any]) -> Found:
    identity, stored, body, attachments = row
    return Found(identity, stored, body.encode(), tuple(attachments))


def contents(app_name: str, digests: Collection[str]) -> dict[str, bytes]:
    """The attachments that are here, by digest."""
    if not digests:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT sha2, content FROM xapi_attachment WHERE app_name = %s AND sha2 = ANY(%s)",
            [app_name, list(digests)],
        )
        return {sha2: bytes(content) for sha2, content in cursor.fetchall()}


def definitions(app_name: str, iris: Collection[str]) -> dict[str, dict[str, Any]]:
    """What is known of these activities, by IRI."""
    if not iris:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT iri, definition::text FROM xapi_activity WHERE app_name = %s AND key = ANY(%s)",
            [app_name, [key(Role.ACTIVITY, iri) for iri in iris]],
        )
        return {iri: msgspec.json.decode(definition) for iri, definition in cursor.fetchall()}
