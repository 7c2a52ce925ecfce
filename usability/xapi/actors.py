"""Agents and groups: the rules of their data, and by what two of them are the same.

xAPI 1.0.3, part two, section 2.4.2; IEEE 9274.1.1, section 4.2.2.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from usability.xapi import values
from usability.xapi.values import Place, Wrong, list_at, object_at

IDENTIFIERS = ("mbox", "mbox_sha1sum", "openid", "account")
_AGENT = ("objectType", "name", *IDENTIFIERS)
_GROUP = (*_AGENT, "member")


def actor(value: Any, loc: Place) -> dict[str, Any]:
    """An agent or a group."""
    return (
        group(value, loc)
        if isinstance(value, dict) and value.get("objectType") == "Group"
        else agent(value, loc)
    )


def agent(value: Any, loc: Place) -> dict[str, Any]:
    """An agent: exactly one identifier."""
    found = object_at(value, loc, _AGENT)
    if found.get("objectType", "Agent") != "Agent":
        raise Wrong((*loc, "objectType"), "must be Agent")
    _named(found, loc)
    if _identified(found, loc) is None:
        raise Wrong(loc, f"needs exactly one of {', '.join(IDENTIFIERS)}")
    return found


def group(value: Any, loc: Place) -> dict[str, Any]:
    """A group: identified as an agent is, or anonymous with its members. Members are agents."""
    found = object_at(value, loc, _GROUP)
    if found.get("objectType") != "Group":
        raise Wrong((*loc, "objectType"), "must be Group")
    _named(found, loc)
    members = list_at(found.get("member", []), (*loc, "member"))
    for index, member in enumerate(members):
        agent(member, (*loc, "member", index))
    if _identified(found, loc) is None and not members:
        raise Wrong((*loc, "member"), "an anonymous group needs its members")
    return found


def authority(value: Any, loc: Place) -> dict[str, Any]:
    """An agent, or the anonymous group of an OAuth consumer and its user."""
    found = actor(value, loc)
    if found.get("objectType") == "Group" and (identifier_of(found) or len(found.get("member", ())) != 2):
        raise Wrong(loc, "must be an agent, or an anonymous group of two agents")
    return found


def _named(found: dict[str, Any], loc: Place) -> None:
    if "name" in found:
        values.string(found["name"], (*loc, "name"))


def _identified(found: dict[str, Any], loc: Place) -> str | None:
    """The name of its identifier, which is checked; None: it has none. Two are one too many."""
    present = [name for name in IDENTIFIERS if name in found]
    if len(present) > 1:
        raise Wrong(loc, f"needs exactly one of {', '.join(IDENTIFIERS)}")
    if not present:
        return None
    name = present[0]
    place = (*loc, name)
    if name == "mbox":
        values.mbox(found[name], place)
    elif name == "mbox_sha1sum":
        values.sha1(found[name], place)
    elif name == "openid":
        values.irl(found[name], place)
    else:
        account = object_at(found[name], place, ("homePage", "name"), ("homePage", "name"))
        values.irl(account["homePage"], (*place, "homePage"))
        values.string(account["name"], (*place, "name"))
    return name


def identifier_of(found: dict[str, Any]) -> str:
    """What makes this agent or group the same as another; "" for an anonymous group."""
    if "account" in found:
        return f"account {found['account']['homePage']} {found['account']['name']}"
    if "mbox" in found:
        return f"mbox {found['mbox'].lower()}"
    if "mbox_sha1sum" in found:
        return f"mbox_sha1sum {found['mbox_sha1sum'].lower()}"
    return f"openid {found['openid']}" if "openid" in found else ""


def identifiers_of(found: dict[str, Any]) -> Iterator[str]:
    """Its own identifier and those of its members."""
    yield from filter(None, (identifier_of(one) for one in (found, *found.get("member", ()))))


def as_ids(found: dict[str, Any]) -> dict[str, Any]:
    """The least that names it (`format=ids`); an anonymous group is told by its members."""
    kept = {name: found[name] for name in ("objectType", *IDENTIFIERS) if name in found}
    if found.get("objectType") == "Group" and not identifier_of(found):
        kept["member"] = [as_ids(member) for member in found["member"]]
    return kept


def person(found: dict[str, Any]) -> dict[str, Any]:
    """The Person of an agent: what the question itself says, each value in a list.

    Nothing is gathered about a learner from statements: names and addresses that stand in them would otherwise
    join the pseudonym to a person.
    """
    listed = {name: [found[name]] for name in ("name", *IDENTIFIERS) if name in found}
    return {"objectType": "Person", **listed}


def pseudonym_of(found: dict[str, Any]) -> str:
    """The account name of an agent, which is the learner's pseudonym; "" where it has none."""
    if found.get("objectType", "Agent") != "Agent" or "account" not in found:
        return ""
    return found["account"]["name"]
