"""Documents that apps leave: state of a learner in an activity, profiles of activities and agents.

A document is written under a lock of its own name, so that what `If-Match` promised holds. The ETag is the SHA-1 of
the content, as 1.0.3 prescribes. xAPI 1.0.3, part three, sections 2.2 and 3.1; IEEE 9274.1.1, sections 4.1.4 and 4.1.6.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import uuid
from dataclasses import dataclass

import msgspec
from django.db import connection, transaction
from django.utils import timezone

from usability.xapi.models import NO_REGISTRATION, XapiDocument
from usability.xapi.values import Wrong

LIST_LIMIT = 5_000
"""Most ids of one list."""

JSON = "application/json"


class Exists(Exception):
    """There is such a document, and the caller did not say what it knew of it."""


class Unconditional(Exception):
    """There is no such document, and the caller must say that it expects none."""


class ConditionFailed(Exception):
    """If-Match or If-None-Match does not hold."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose documents: an app's, of one kind, of an activity or an agent or both; `registration` for a state."""

    app_name: str
    kind: str
    activity: str = ""
    agent: str = ""
    student_id: str = ""
    registration: uuid.UUID | None = None

    @property
    def key(self) -> uuid.UUID:
        """Stands for activity and agent."""
        text = f"{self.activity}\0{self.agent}".encode()
        return uuid.UUID(bytes=hashlib.blake2b(text, digest_size=16).digest())


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditions of a request; empty where it has none.

    `is_required`: it needs one to replace a document; `is_always_required`: to make one as well.
    """

    if_match: str = ""
    if_none_match: str = ""
    is_required: bool = False
    is_always_required: bool = False

    def check(self, etag: str | None, *, is_replacing: bool) -> None:
        """Raises ConditionFailed, or Exists or Unconditional where one would be put blindly. `etag` None: none is there."""
        if self.if_match and (etag is None or not _names(self.if_match, etag)):
            raise ConditionFailed
        if self.if_none_match and etag is not None and _names(self.if_none_match, etag):
            raise ConditionFailed
        if is_replacing and not (self.if_match or self.if_none_match):
            if self.is_required and etag is not None:
                raise Exists
            if self.is_always_required:
                raise Unconditional


def _names(header: str, etag: str) -> bool:
    """Whether a list of entity tags, or `*`, names this one (RFC 9110, section 13.1)."""
    tags = [tag.strip().removeprefix("W/").strip('"').lower() for tag in header[:4_000].split(",")]
    return "*" in tags or etag in tags


def _of(owner: Owner) -> dict[str, object]:
    return {"app_name": owner.app_name, "kind": owner.kind, "owner_key": owner.key}


def find(owner: Owner, document_id: str) -> XapiDocument | None:
    """The document of that id."""
    registration = owner.registration or NO_REGISTRATION
    return XapiDocument.objects.filter(
        **_of(owner), registration=registration, document_id=document_id
    ).first()


def ids(owner: Owner, since: dt.datetime | None) -> tuple[list[str], dt.datetime | None]:
    """The ids of an owner's documents, changed after `since`, and the newest change. No registration: of any."""
    found = XapiDocument.objects.filter(**_of(owner))
    if owner.registration is not None:
        found = found.filter(registration=owner.registration)
    if since is not None:
        found = found.filter(updated_at__gt=since)
    rows = list(found.order_by("-updated_at", "-id").values_list("document_id", "updated_at")[:LIST_LIMIT])
    return list(dict.fromkeys(name for name, _ in rows)), rows[0][1] if rows else None


def replace(
    owner: Owner, document_id: str, content_type: str, content: bytes, conditions: Conditions
) -> None:
    """Store a document in place of what is there. Raises Exists, Unconditional, ConditionFailed."""
    with transaction.atomic():
        known = _locked(owner, document_id)
        conditions.check(known.etag if known else None, is_replacing=True)
        _write(owner, document_id, content_type, content, known)


def merge(owner: Owner, document_id: str, content_type: str, content: bytes, conditions: Conditions) -> None:
    """Store a document, or join an object with the one that is there: of equal names the new counts.

    Raises ConditionFailed; Wrong where they cannot be joined.
    """
    told = object_in(content, "body") if _is_json(content_type) else None
    with transaction.atomic():
        known = _locked(owner, document_id)
        conditions.check(known.etag if known else None, is_replacing=False)
        if known is not None:
            if told is None or not _is_json(known.content_type):
                raise Wrong(
                    ("header", "content-type"), "only application/json can be joined with application/json"
                )
            before = object_in(bytes(known.content), "stored document")
            content = msgspec.json.encode(before | told)
        _write(owner, document_id, content_type, content, known)


def delete(owner: Owner, document_id: str | None, conditions: Conditions) -> None:
    """Take out a document, or without an id all of an owner's. Raises ConditionFailed."""
    found = XapiDocument.objects.filter(**_of(owner))
    with transaction.atomic():
        if document_id is None:
            (found if owner.registration is None else found.filter(registration=owner.registration)).delete()
            return
        known = _locked(owner, document_id)
        conditions.check(known.etag if known else None, is_replacing=False)
        if known is not None:
            known.delete()


def _locked(owner: Owner, document_id: str) -> XapiDocument | None:
    """The document, which nobody else changes until this transaction ends; nor does anybody make it."""
    name = f"xapi {owner.app_name} {owner.kind} {owner.key} {owner.registration} {document_id}"
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [name])
    return find(owner, document_id)


def _write(
    owner: Owner, document_id: str, content_type: str, content: bytes, known: XapiDocument | None
) -> None:
    row = known or XapiDocument(
        **_of(owner),
        registration=owner.registration or NO_REGISTRATION,
        document_id=document_id,
        activity=owner.activity,
        student_id=owner.student_id,
    )
    row.content_type, row.content = content_type, content
    row.etag = hashlib.sha1(content, usedforsecurity=False).hexdigest()
    row.updated_at = timezone.now()
    row.save()


def _is_json(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == JSON


def object_in(content: bytes, where: str) -> dict[str, object]:
    """The JSON object in a content. Raises Wrong at `where`."""
    try:
        found = msgspec.json.decode(content)
    except (ValueError, RecursionError) as error:
        raise Wrong((where,), "not valid JSON") from error
    if not isinstance(found, dict):
        raise Wrong((where,), "must be a JSON object")
    return found
