"""When a statement that comes again is the same: its canonical form and the digest of it.

Left out is what the store itself sets (id, stored, authority, version), what may change without the statement
changing (definitions of activities, the display of verbs), and the order of what has none (members, context
activities). A timestamp is compared apart: one that the client left out was set by the store. Durations count to a
hundredth of a second. xAPI 1.0.3, part two, section 2.3.1; IEEE 9274.1.1, sections 4.2.6 and 4.2.7.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec

from usability.xapi import values
from usability.xapi.actors import identifier_of
from usability.xapi.statement import CONTEXT_ACTIVITIES

_encode = msgspec.json.Encoder(order="deterministic").encode

_SET_BY_THE_STORE = frozenset({"id", "stored", "authority", "version", "timestamp"})


def digest(statement: dict[str, Any]) -> bytes:
    """32 bytes that two statements share exactly if they are the same."""
    return sha256(_encode(_told(statement))).digest()


def _told(statement: dict[str, Any]) -> dict[str, Any]:
    form = {name: inner for name, inner in statement.items() if name not in _SET_BY_THE_STORE}
    form["actor"] = _actor(statement["actor"])
    form["verb"] = statement["verb"]["id"]
    form["object"] = _object(statement["object"])
    if "context" in form:
        form["context"] = _context(form["context"])
    if "duration" in form.get("result", {}):
        seconds = values.duration_s(form["result"]["duration"], ())
        form["result"] = form["result"] | {"duration": int(seconds * 100 + 1e-6)}
    return form


def _object(found: dict[str, Any]) -> dict[str, Any]:
    match found.get("objectType", "Activity"):
        case "Activity":
            return {"objectType": "Activity", "id": found["id"]}
        case "Agent" | "Group":
            return _actor(found)
        case "SubStatement":
            inner = _told(found)
            if "timestamp" in found:
                inner["timestamp"] = values.moment_text(values.moment(found["timestamp"], ()))
            return inner
        case _:
            return found | {"id": found["id"].lower()}


def _actor(found: dict[str, Any]) -> dict[str, Any]:
    form = found | {"objectType": found.get("objectType", "Agent")}
    if "member" in form:
        form["member"] = sorted((_actor(member) for member in form["member"]), key=identifier_of)
    return form


def _context(found: dict[str, Any]) -> dict[str, Any]:
    form = dict(found)
    told = form.get("contextActivities", {})
    form["contextActivities"] = {
        name: sorted(one["id"] for one in (inner if isinstance(inner, list) else [inner]))
        for name in CONTEXT_ACTIVITIES
        if (inner := told.get(name))
    }
    for name in ("instructor", "team"):
        if name in form:
            form[name] = _actor(form[name])
    return form
