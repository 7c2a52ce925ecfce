"""Parameters of the resources as values. Each raises Wrong with the place in the query."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import uuid
from typing import Any

from gaia_site.bodies import decode_json
from gaia_site.problems import Problem
from usability.xapi import actors, values
from usability.xapi.values import Wrong
from usability.xapi.web import Call


def agent(call: Call, name: str = "agent", *, or_group: bool = False) -> dict[str, Any] | None:
    """An agent in JSON; a group as well where that is allowed."""
    text = call.parameters.get(name)
    if text is None:
        return None
    try:
        found = decode_json(text.encode())
    except Problem as problem:
        raise Wrong(("query", name), "must be an agent in JSON") from problem
    return (actors.actor if or_group else actors.agent)(found, ("query", name))


def iri(call: Call, name: str) -> str | None:
    """An IRI."""
    text = call.parameters.get(name)
    return None if text is None else values.iri(text, ("query", name))


def identity(call: Call, name: str) -> uuid.UUID | None:
    """A UUID."""
    text = call.parameters.get(name)
    return None if text is None else uuid.UUID(values.uuid(text, ("query", name)))


def moment(call: Call, name: str) -> dt.datetime | None:
    """A time."""
    text = call.parameters.get(name)
    return None if text is None else values.moment(text, ("query", name))


def flag(call: Call, name: str) -> bool:
    """True or false; false where it is left out."""
    text = call.parameters.get(name, "false")
    if text not in ("true", "false"):
        raise Wrong(("query", name), "must be true or false")
    return text == "true"


def whole_number(call: Call, name: str) -> int:
    """A number from 0; 0 where it is left out."""
    text = call.parameters.get(name, "0")
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Wrong(("query", name), "must be a whole number from 0")
    return int(text)


def name_of(call: Call, name: str, limit: int = 500) -> str | None:
    """A name of at most `limit` characters."""
    text = call.parameters.get(name)
    if text is not None and not 0 < len(text) <= limit:
        raise Wrong(("query", name), f"must have 1 to {limit} characters")
    return text


def place(call: Call, name: str = "cursor") -> tuple[dt.datetime, int] | None:
    """Where the page before ended."""
    text = call.parameters.get(name)
    if text is None:
        return None
    try:
        stored_us, identity_text = base64.urlsafe_b64decode(text.encode() + b"==").split(b".")
        return dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(microseconds=int(stored_us)), int(
            identity_text
        )
    except (binascii.Error, ValueError, OverflowError) as error:
        raise Wrong(("query", name), "not a place of ours") from error


def place_text(stored: dt.datetime, identity_number: int) -> str:
    """A place as `place` reads it."""
    stored_us = (stored - dt.datetime.fromtimestamp(0, dt.UTC)) // dt.timedelta(microseconds=1)
    return base64.urlsafe_b64encode(f"{stored_us}.{identity_number}".encode()).decode().rstrip("=")
