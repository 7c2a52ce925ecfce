"""What a statement can be found by: one 128-bit key for each agent, verb, activity and registration it names.

All keys of a statement stand in one array with one index, so that any mixture of filters is one intersection.
xAPI 1.0.3, part three, section 2.1.3; IEEE 9274.1.1, section 4.1.6.1.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from usability.xapi.actors import identifiers_of
from usability.xapi.statement import CONTEXT_ACTIVITIES

KEYS_REMEMBERED = 20_000


class Role(StrEnum):
    """In which part of a statement something is named. `related_*` filters look in every part."""

    AGENT = "agent"
    ANY_AGENT = "any agent"
    VERB = "verb"
    ACTIVITY = "activity"
    ANY_ACTIVITY = "any activity"
    REGISTRATION = "registration"


@lru_cache(maxsize=KEYS_REMEMBERED)
def key(role: Role, text: str) -> uuid.UUID:
    """The key of that name in that role. A class names the same few all the time, so they are remembered."""
    return uuid.UUID(bytes=blake2b(f"{role}\0{text}".encode(), digest_size=16).digest())


def keys_of(statement: dict[str, Any]) -> set[uuid.UUID]:
    """Everything this statement can be found by, its `authority` included."""
    found = {key(Role.VERB, statement["verb"]["id"])}
    found |= {key(Role.AGENT, name) for part in _main_agents(statement) for name in identifiers_of(part)}
    found |= {key(Role.ANY_AGENT, name) for part in agents_in(statement) for name in identifiers_of(part)}
    if statement["object"].get("objectType", "Activity") == "Activity":
        found.add(key(Role.ACTIVITY, statement["object"]["id"]))
    found |= {key(Role.ANY_ACTIVITY, one["id"]) for one in activities_in(statement)}
    registration = statement.get("context", {}).get("registration")
    if registration is not None:
        found.add(key(Role.REGISTRATION, registration.lower()))
    return found


def _main_agents(statement: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield statement["actor"]
    if statement["object"].get("objectType") in ("Agent", "Group"):
        yield statement["object"]


def agents_in(statement: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every agent and group in any part of a statement."""
    yield from _main_agents(statement)
    if "authority" in statement:
        yield statement["authority"]
    context = statement.get("context", {})
    yield from (context[name] for name in ("instructor", "team") if name in context)
    yield from (one["agent"] for one in context.get("contextAgents", ()))
    yield from (one["group"] for one in context.get("contextGroups", ()))
    if statement["object"].get("objectType") == "SubStatement":
        yield from agents_in(statement["object"])


def activities_in(statement: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every activity in any part of a statement."""
    found = statement["object"]
    match found.get("objectType", "Activity"):
        case "Activity":
            yield found
        case "SubStatement":
            yield from activities_in(found)
    told = statement.get("context", {}).get("contextActivities", {})
    for name in CONTEXT_ACTIVITIES:
        inner = told.get(name, [])
        yield from inner if isinstance(inner, list) else [inner]
