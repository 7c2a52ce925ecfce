"""Activities and their definitions: the rules of their data, and how two definitions of one activity join.

xAPI 1.0.3, part two, section 2.4.4; IEEE 9274.1.1, section 4.2.2.3.
"""

from __future__ import annotations

from typing import Any

from usability.xapi import values
from usability.xapi.values import Place, Wrong, list_at, object_at

# The interaction types, and which lists of components each may have.
COMPONENTS: dict[str, tuple[str, ...]] = {
    "true-false": (),
    "choice": ("choices",),
    "fill-in": (),
    "long-fill-in": (),
    "matching": ("source", "target"),
    "performance": ("steps",),
    "sequencing": ("choices",),
    "likert": ("scale",),
    "numeric": (),
    "other": (),
}
_LISTS = ("choices", "scale", "source", "target", "steps")
_MAPS = ("name", "description")
_DEFINITION = (
    *("name", "description", "type", "moreInfo", "extensions", "interactionType", "correctResponsesPattern"),
    *_LISTS,
)


def activity(value: Any, loc: Place) -> dict[str, Any]:
    """An activity: its id and, if it likes, what it is."""
    found = object_at(value, loc, ("objectType", "id", "definition"), ("id",))
    if found.get("objectType", "Activity") != "Activity":
        raise Wrong((*loc, "objectType"), "must be Activity")
    values.iri(found["id"], (*loc, "id"))
    if "definition" in found:
        definition(found["definition"], (*loc, "definition"))
    return found


def definition(value: Any, loc: Place) -> dict[str, Any]:
    """What an activity is."""
    found = object_at(value, loc, _DEFINITION)
    for name in _MAPS:
        if name in found:
            values.language_map(found[name], (*loc, name))
    if "type" in found:
        values.iri(found["type"], (*loc, "type"))
    if "moreInfo" in found:
        values.irl(found["moreInfo"], (*loc, "moreInfo"))
    if "extensions" in found:
        values.extensions(found["extensions"], (*loc, "extensions"))
    _interaction(found, loc)
    return found


def _interaction(found: dict[str, Any], loc: Place) -> None:
    """The part of a definition that describes a question."""
    kind = found.get("interactionType")
    if kind is not None and (not isinstance(kind, str) or kind not in COMPONENTS):
        raise Wrong((*loc, "interactionType"), f"must be one of {', '.join(COMPONENTS)}")
    if "correctResponsesPattern" in found:
        place = (*loc, "correctResponsesPattern")
        for index, pattern in enumerate(list_at(found["correctResponsesPattern"], place)):
            values.string(pattern, (*place, index))
    allowed = COMPONENTS.get(kind or "", ())
    for name in _LISTS:
        if name in found:
            if name not in allowed:
                raise Wrong((*loc, name), "does not belong to this interactionType")
            _components(found[name], (*loc, name))
    if kind is None and "correctResponsesPattern" in found:
        raise Wrong((*loc, "interactionType"), "required beside correctResponsesPattern")


def _components(value: Any, loc: Place) -> None:
    seen: set[str] = set()
    for index, component in enumerate(list_at(value, loc)):
        place = (*loc, index)
        found = object_at(component, place, ("id", "description"), ("id",))
        name = values.string(found["id"], (*place, "id"))
        if not name or name in seen:
            raise Wrong((*place, "id"), "must be a string that no other has")
        seen.add(name)
        if "description" in found:
            values.language_map(found["description"], (*place, "description"))


def joined(known: dict[str, Any], newer: dict[str, Any]) -> dict[str, Any]:
    """Two definitions of one activity: of equal properties the newer counts, languages are gathered."""
    both = known | newer
    for name in (*_MAPS, "extensions"):
        if name in known and name in newer:
            both[name] = known[name] | newer[name]
    return both
