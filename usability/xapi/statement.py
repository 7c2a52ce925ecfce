"""The rules of a statement's data, from top to bottom. What is not in the specification is refused.

xAPI 1.0.3, part two, sections 2.2 to 2.4; IEEE 9274.1.1, section 4.2.
"""

from __future__ import annotations

import re
from typing import Any

from usability.xapi import actors, values
from usability.xapi.activities import activity
from usability.xapi.values import Place, Wrong, list_at, object_at
from usability.xapi.versions import Version

VOIDED = "http://adlnet.gov/expapi/verbs/voided"
SIGNATURE = "http://adlnet.gov/expapi/attachments/signature"

_SUBSTATEMENT = ("objectType", "actor", "verb", "object", "result", "context", "timestamp", "attachments")
_STATEMENT = ("id", *_SUBSTATEMENT[1:], "stored", "authority", "version")
_CONTEXT = (
    *("registration", "instructor", "team", "contextActivities", "revision", "platform", "language"),
    *("statement", "extensions"),
)
_CONTEXT_2 = (*_CONTEXT, "contextAgents", "contextGroups")
CONTEXT_ACTIVITIES = ("parent", "grouping", "category", "other")
_ATTACHMENT = ("usageType", "display", "description", "contentType", "length", "sha2", "fileUrl")
_VERSION_1 = re.compile(r"1\.0(?:\.\d+)?")
_VERSION_2 = re.compile(r"(?:1\.0|2\.0)(?:\.\d+)?")


def statement(value: Any, loc: Place, version: Version) -> dict[str, Any]:
    """A statement as a client may send it."""
    found = object_at(value, loc, _STATEMENT, ("actor", "verb", "object"))
    if "id" in found:
        values.uuid(found["id"], (*loc, "id"))
    if "stored" in found:
        values.moment(found["stored"], (*loc, "stored"))
    if "authority" in found:
        actors.authority(found["authority"], (*loc, "authority"))
    if "version" in found:
        _version(found["version"], (*loc, "version"), version)
    _told(found, loc, version, is_inner=False)
    if found["verb"]["id"] == VOIDED and found["object"].get("objectType") != "StatementRef":
        raise Wrong((*loc, "object", "objectType"), "the verb voided needs a StatementRef")
    return found


def _told(found: dict[str, Any], loc: Place, version: Version, *, is_inner: bool) -> None:
    """What statements and substatements have in common."""
    actors.actor(found["actor"], (*loc, "actor"))
    _verb(found["verb"], (*loc, "verb"))
    _object(found["object"], (*loc, "object"), version, is_inner=is_inner)
    if "result" in found:
        _result(found["result"], (*loc, "result"))
    if "context" in found:
        is_activity = found["object"].get("objectType", "Activity") == "Activity"
        _context(found["context"], (*loc, "context"), version, is_activity=is_activity)
    if "timestamp" in found:
        values.moment(found["timestamp"], (*loc, "timestamp"))
    if "attachments" in found:
        for index, one in enumerate(list_at(found["attachments"], (*loc, "attachments"))):
            _attachment(one, (*loc, "attachments", index))


def _version(value: Any, loc: Place, version: Version) -> None:
    pattern = _VERSION_1 if version is Version.V1 else _VERSION_2
    if not pattern.fullmatch(values.string(value, loc)):
        raise Wrong(loc, f"must be the version of the specification, such as {version.value}")


def _verb(value: Any, loc: Place) -> None:
    found = object_at(value, loc, ("id", "display"), ("id",))
    values.iri(found["id"], (*loc, "id"))
    if "display" in found:
        values.language_map(found["display"], (*loc, "display"))


def _object(value: Any, loc: Place, version: Version, *, is_inner: bool) -> None:
    kind = value.get("objectType", "Activity") if isinstance(value, dict) else "Activity"
    match kind:
        case "Activity":
            activity(value, loc)
        case "Agent" | "Group":
            actors.actor(value, loc)
        case "StatementRef":
            statement_ref(value, loc)
        case "SubStatement" if not is_inner:
            _told(
                object_at(value, loc, _SUBSTATEMENT, ("actor", "verb", "object")), loc, version, is_inner=True
            )
        case _:
            inner = "" if is_inner else ", SubStatement"
            raise Wrong((*loc, "objectType"), f"must be one of Activity, Agent, Group, StatementRef{inner}")


def statement_ref(value: Any, loc: Place) -> None:
    """A pointer to another statement."""
    found = object_at(value, loc, ("objectType", "id"), ("objectType", "id"))
    if found["objectType"] != "StatementRef":
        raise Wrong((*loc, "objectType"), "must be StatementRef")
    values.uuid(found["id"], (*loc, "id"))


def _result(value: Any, loc: Place) -> None:
    known = ("score", "success", "completion", "response", "duration", "extensions")
    found = object_at(value, loc, known)
    if "score" in found:
        _score(found["score"], (*loc, "score"))
    for name in ("success", "completion"):
        if name in found:
            values.boolean(found[name], (*loc, name))
    if "response" in found:
        values.string(found["response"], (*loc, "response"))
    if "duration" in found:
        values.duration_s(found["duration"], (*loc, "duration"))
    if "extensions" in found:
        values.extensions(found["extensions"], (*loc, "extensions"))


def _score(value: Any, loc: Place) -> None:
    found = object_at(value, loc, ("scaled", "raw", "min", "max"))
    scores = {name: values.number(inner, (*loc, name)) for name, inner in found.items()}
    if not -1 <= scores.get("scaled", 0) <= 1:
        raise Wrong((*loc, "scaled"), "must lie between -1 and 1")
    least, most = scores.get("min", float("-inf")), scores.get("max", float("inf"))
    if "min" in scores and "max" in scores and least >= most:
        raise Wrong((*loc, "max"), "must be greater than min")
    if not least <= scores.get("raw", least if "min" in scores else most) <= most:
        raise Wrong((*loc, "raw"), "must lie between min and max")


def _context(value: Any, loc: Place, version: Version, *, is_activity: bool) -> None:
    found = object_at(value, loc, _CONTEXT if version is Version.V1 else _CONTEXT_2)
    if "registration" in found:
        values.uuid(found["registration"], (*loc, "registration"))
    if "instructor" in found:
        actors.actor(found["instructor"], (*loc, "instructor"))
    if "team" in found:
        actors.group(found["team"], (*loc, "team"))
    if "contextActivities" in found:
        _context_activities(found["contextActivities"], (*loc, "contextActivities"))
    for name in ("revision", "platform"):
        if name in found:
            values.string(found[name], (*loc, name))
            if not is_activity:
                raise Wrong((*loc, name), "only where the object is an activity")
    if "language" in found:
        values.language(found["language"], (*loc, "language"))
    if "statement" in found:
        statement_ref(found["statement"], (*loc, "statement"))
    if "extensions" in found:
        values.extensions(found["extensions"], (*loc, "extensions"))
    _relevant(found, loc, "contextAgents", "agent")
    _relevant(found, loc, "contextGroups", "group")


def _context_activities(value: Any, loc: Place) -> None:
    found = object_at(value, loc, CONTEXT_ACTIVITIES)
    for name, inner in found.items():
        if isinstance(inner, list):
            for index, one in enumerate(inner):
                activity(one, (*loc, name, index))
        else:
            activity(inner, (*loc, name))


def _relevant(context: dict[str, Any], loc: Place, name: str, inner: str) -> None:
    """Agents or groups with the types of their relevance (2.0)."""
    if name not in context:
        return
    for index, one in enumerate(list_at(context[name], (*loc, name))):
        place = (*loc, name, index)
        found = object_at(one, place, ("objectType", inner, "relevantTypes"), ("objectType", inner))
        kind = f"context{inner.title()}"
        if found["objectType"] != kind:
            raise Wrong((*place, "objectType"), f"must be {kind}")
        (actors.agent if inner == "agent" else actors.group)(found[inner], (*place, inner))
        if "relevantTypes" in found:
            types = list_at(found["relevantTypes"], (*place, "relevantTypes"))
            if not types:
                raise Wrong((*place, "relevantTypes"), "must not be empty")
            for number, one_type in enumerate(types):
                values.iri(one_type, (*place, "relevantTypes", number))


def _attachment(value: Any, loc: Place) -> None:
    found = object_at(value, loc, _ATTACHMENT, ("usageType", "display", "contentType", "length", "sha2"))
    values.iri(found["usageType"], (*loc, "usageType"))
    values.language_map(found["display"], (*loc, "display"))
    if "description" in found:
        values.language_map(found["description"], (*loc, "description"))
    values.media_type(found["contentType"], (*loc, "contentType"))
    length = found["length"]
    if isinstance(length, bool) or not isinstance(length, int) or length < 0:
        raise Wrong((*loc, "length"), "must be a number of bytes")
    values.sha2(found["sha2"], (*loc, "sha2"))
    if "fileUrl" in found:
        values.irl(found["fileUrl"], (*loc, "fileUrl"))


def attachments_of(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The attachments a statement speaks of, those of its substatement included."""
    inner = found["object"] if found["object"].get("objectType") == "SubStatement" else {}
    return [*found.get("attachments", ()), *inner.get("attachments", ())]
