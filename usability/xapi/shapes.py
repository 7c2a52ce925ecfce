"""How a statement looks in an answer: as it was stored, canonical, or by ids alone.

xAPI 1.0.3, part three, section 2.1.3 (format) and part two, section 4.2 (language maps).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from usability.xapi.actors import as_ids
from usability.xapi.statement import CONTEXT_ACTIVITIES

FORMATS = ("ids", "exact", "canonical")


def arranged(statement: dict[str, Any]) -> dict[str, Any]:
    """A statement as it is stored: context activities always in lists."""
    whole = dict(statement)
    if whole["object"].get("objectType") == "SubStatement":
        whole["object"] = arranged(whole["object"])
    told = whole.get("context", {}).get("contextActivities")
    if told:
        listed = {name: inner if isinstance(inner, list) else [inner] for name, inner in told.items()}
        whole["context"] = whole["context"] | {"contextActivities": listed}
    return whole


def ids_only(statement: dict[str, Any]) -> dict[str, Any]:
    """What names agents, activities, verbs and groups, and no more of them."""
    small = dict(statement)
    small["actor"] = as_ids(statement["actor"])
    small["verb"] = {"id": statement["verb"]["id"]}
    found = statement["object"]
    match found.get("objectType", "Activity"):
        case "Activity":
            small["object"] = _activity_ids(found)
        case "Agent" | "Group":
            small["object"] = as_ids(found)
        case "SubStatement":
            small["object"] = ids_only(found)
    if "authority" in small:
        small["authority"] = as_ids(small["authority"])
    if "context" in small:
        small["context"] = _context_ids(small["context"])
    return small


def _activity_ids(found: dict[str, Any]) -> dict[str, Any]:
    return {"id": found["id"]}


def _context_ids(context: dict[str, Any]) -> dict[str, Any]:
    small = dict(context)
    for name in ("instructor", "team"):
        if name in small:
            small[name] = as_ids(small[name])
    if "contextActivities" in small:
        told = small["contextActivities"]
        small["contextActivities"] = {name: [_activity_ids(one) for one in told[name]] for name in told}
    for name, inner in (("contextAgents", "agent"), ("contextGroups", "group")):
        if name in small:
            small[name] = [one | {inner: as_ids(one[inner])} for one in small[name]]
    return small


def canonical(
    statement: dict[str, Any], definitions: Mapping[str, dict[str, Any]], languages: list[str]
) -> dict[str, Any]:
    """With the definitions the store knows, and of each language map the one best entry."""
    whole = dict(statement)
    if "display" in whole["verb"]:
        whole["verb"] = whole["verb"] | {"display": _best(whole["verb"]["display"], languages)}
    found = whole["object"]
    match found.get("objectType", "Activity"):
        case "Activity":
            whole["object"] = _activity(found, definitions, languages)
        case "SubStatement":
            whole["object"] = canonical(found, definitions, languages)
    told = whole.get("context", {}).get("contextActivities", {})
    if told:
        listed = {
            name: [_activity(one, definitions, languages) for one in told[name]]
            for name in CONTEXT_ACTIVITIES
            if name in told
        }
        whole["context"] = whole["context"] | {"contextActivities": listed}
    if "attachments" in whole:
        whole["attachments"] = [
            _in_one_language(one, ("display", "description"), languages) for one in whole["attachments"]
        ]
    return whole


def _activity(
    found: dict[str, Any], definitions: Mapping[str, dict[str, Any]], languages: list[str]
) -> dict[str, Any]:
    known = definitions.get(found["id"]) or found.get("definition")
    return found if known is None else found | {"definition": canonical_definition(known, languages)}


def canonical_definition(known: dict[str, Any], languages: list[str]) -> dict[str, Any]:
    """A definition with one entry of each language map."""
    form = _in_one_language(known, ("name", "description"), languages)
    for name in ("choices", "scale", "source", "target", "steps"):
        if name in form:
            form[name] = [_in_one_language(one, ("description",), languages) for one in form[name]]
    return form


def _in_one_language(found: dict[str, Any], names: tuple[str, ...], languages: list[str]) -> dict[str, Any]:
    return found | {name: _best(found[name], languages) for name in names if name in found}


def _best(told: dict[str, str], languages: list[str]) -> dict[str, str]:
    """The entry that suits best, by the look-up of RFC 4647, section 3.4; the first where none does."""
    by_tag = {tag.lower(): tag for tag in told}
    for wanted in languages:
        prefix = wanted
        while prefix:
            near = by_tag.get(prefix) or next((by_tag[t] for t in by_tag if t.startswith(prefix + "-")), None)
            if near is not None:
                return {near: told[near]}
            prefix = prefix.rpartition("-")[0]
    return dict(list(told.items())[:1])


def languages_of(header: str) -> list[str]:
    """The tags of an Accept-Language header in lower case, the most wanted first."""
    weighed: list[tuple[float, int, str]] = []
    for place, entry in enumerate(header[:1_000].split(",")):
        tag, _, weight = entry.strip().partition(";")
        try:
            quality = float(weight.strip().removeprefix("q=") or 1) if weight else 1.0
        except ValueError:
            quality = 0.0
        if tag.strip() and quality > 0:
            weighed.append((-quality, place, tag.strip().lower()))
    return [tag for _, _, tag in sorted(weighed) if tag != "*"]
