"""What an xAPI statement means for detection: one metric, or the reason why none.

A verb is known by the last part of its IRI, whichever vocabulary it comes from. `result.response`, names,
descriptions and extensions are never looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from usability.ingest.adapters.ids import item_id, last_part, student_id
from usability.ingest.decode import APP_NAME_LIMIT, NUMBER_LIMIT, is_id
from usability.xapi import values

Metric = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Why a statement or an event makes no metric: a countable reason, and words."""

    reason: str
    msg: str


# Verbs that say an item was worked on; with `result.success` they are an answer.
ANSWERS = frozenset({"answered", "attempted", "responded"})
# The verb alone says what became of a whole unit.
COMPLETIONS = frozenset({"completed", "passed", "mastered"})
HINTS = frozenset({"hinted", "requested-hint", "viewed-hint", "used-hint", "hint"})
HELP = frozenset({"requested-help", "asked-for-help", "requested-assistance"})
FOCUS = frozenset({"initialized", "launched", "resumed"})
NAVIGATION = frozenset({"experienced", "viewed", "accessed", "visited", "navigated-to"})

_SKILL_TYPES = frozenset({"objective", "skill", "competency"})


def metric_of(statement: dict[str, Any], *, app_name: str) -> Metric | LeftOut:
    """The metric of a statement that obeys the rules; `app_name` is the key's, "" where it has none."""
    verb = last_part(statement["verb"]["id"]).lower().replace("_", "-")
    maker = _MAKERS.get(verb)
    if maker is None:
        return LeftOut("unknown_verb", "this verb says nothing that detection looks for")
    if statement["object"].get("objectType", "Activity") != "Activity":
        return LeftOut("no_activity", "its object is not an activity")
    learner = _learner(statement["actor"])
    if not learner:
        return LeftOut("no_pseudonym", "its actor is not an agent with a pseudonym as account name")
    told = maker(statement)
    if isinstance(told, LeftOut):
        return told
    metric_type, value, metadata = told
    return {
        "student_id": learner,
        "app_name": app_name or _app_of(statement),
        "metric_type": metric_type,
        "metric_value": value,
        "timestamp": statement.get("timestamp"),
        "session_id": statement.get("context", {}).get("registration"),
        "metadata": _place(statement) | metadata,
    }


Told = tuple[str, float, dict[str, Any]]


def _answer(statement: dict[str, Any]) -> Told | LeftOut:
    result = statement.get("result", {})
    if "success" not in result:
        return LeftOut("no_success", "result.success does not say whether it was right")
    metadata: dict[str, Any] = {"correct": result["success"]}
    if "duration" in result:
        metadata["duration_ms"] = min(NUMBER_LIMIT, round(values.duration_s(result["duration"], ()) * 1000))
    return "answer", float(result["success"]), metadata


def _always(metric_type: str, **metadata: Any) -> Callable[[dict[str, Any]], Told]:
    return lambda _statement: (metric_type, 1.0, dict(metadata))


_MAKERS: dict[str, Callable[[dict[str, Any]], Told | LeftOut]] = {
    **dict.fromkeys(ANSWERS, _answer),
    **dict.fromkeys(COMPLETIONS, _always("completion")),
    **dict.fromkeys(HINTS, _always("hint")),
    **dict.fromkeys(HELP, _always("help_request")),
    **dict.fromkeys(FOCUS, _always("focus")),
    **dict.fromkeys(NAVIGATION, _always("navigation")),
}


def _learner(actor: dict[str, Any]) -> str:
    """The pseudonym. An address, its digest or an OpenID may lead to a person and is not taken for one."""
    if actor.get("objectType", "Agent") != "Agent" or "account" not in actor:
        return ""
    return student_id(actor["account"]["name"])


def _app_of(statement: dict[str, Any]) -> str:
    """The app of a statement whose key belongs to none: its platform, else where its activity is."""
    platform = statement.get("context", {}).get("platform", "")
    if platform and is_id(platform, APP_NAME_LIMIT):
        return platform
    host = urlsplit(statement["object"]["id"]).hostname or ""
    return host if host and is_id(host, APP_NAME_LIMIT) else "xapi"


def _place(statement: dict[str, Any]) -> dict[str, str]:
    """Item and skill. The skill is an objective among the context activities, else what the item belongs to."""
    found = {"item": item_id(statement["object"]["id"])}
    told = statement.get("context", {}).get("contextActivities", {})
    around = [one for name in ("parent", "grouping", "category", "other") for one in _listed(told.get(name))]
    skills = [one for one in around if last_part(one.get("definition", {}).get("type", "")) in _SKILL_TYPES]
    nearest = [*skills, *_listed(told.get("parent"))]
    if nearest:
        found["skill"] = item_id(nearest[0]["id"])
    return found


def _listed(inner: Any) -> list[dict[str, Any]]:
    if inner is None:
        return []
    return inner if isinstance(inner, list) else [inner]
