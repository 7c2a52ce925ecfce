"""Foreign ids as ids of ours."""

from __future__ import annotations

from hashlib import sha256

from usability.ingest.decode import METADATA_ID_LIMIT, STUDENT_ID_LIMIT, is_id

_SCHEMES = ("https://", "http://", "urn:uuid:")


def item_id(iri: str) -> str:
    """An activity or an item by its IRI: without the scheme where that is an id, else by a digest of it."""
    short = iri
    for scheme in _SCHEMES:
        short = short.removeprefix(scheme)
    if is_id(short, METADATA_ID_LIMIT):
        return short
    return "iri:" + sha256(iri.encode()).hexdigest()[:32]


def last_part(iri: str) -> str:
    """What stands behind the last slash, hash or colon of an IRI."""
    return iri.rstrip("/").replace("#", "/").rpartition("/")[2].rpartition(":")[2]


def student_id(text: str) -> str:
    """A pseudonym; "" where it is none."""
    return text if is_id(text, STUDENT_ID_LIMIT) else ""
