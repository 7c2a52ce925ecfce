"""What a Caliper 1.2 event means for detection: a metric, a rating, or the reason why neither.

1EdTech Caliper Analytics 1.2, sections 3 (events) and 4 (envelope). An event is known by its type and its action. What
is read are ids, times, scores and selections; responses, comments, names and extensions are never looked at.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from usability.ingest.adapters.ids import item_id, last_part, student_id
from usability.ingest.adapters.xapi import LeftOut, Metric
from usability.ingest.decode import APP_NAME_LIMIT, SESSION_ID_LIMIT, is_id
from usability.xapi.values import Place, Wrong, list_at, moment, string

DATA_LIMIT = 5_000
VERSIONS = ("http://purl.imsglobal.org/ctx/caliper/v1p2", "http://purl.imsglobal.org/ctx/caliper/v1p1")
RATINGS = (1, 5)


@dataclass(frozen=True, slots=True)
class Rating:
    """What a learner thought of a sitting, from 1 to 5."""

    student_id: str
    app_name: str
    session_id: str
    rating: int


@dataclass(frozen=True, slots=True)
class Envelope:
    """Events with the sender's clock at the moment of sending."""

    sent_at: dt.datetime
    data: list[Any]


def envelope(value: Any, loc: Place = ("body",)) -> Envelope:
    """The envelope in a body. Raises Wrong with the place that is not as it must be."""
    if not isinstance(value, dict):
        raise Wrong(loc, "must be an envelope: an object with sensor, sendTime, dataVersion and data")
    for name in ("sensor", "sendTime", "dataVersion", "data"):
        if value.get(name) is None:
            raise Wrong((*loc, name), "required")
    string(value["sensor"], (*loc, "sensor"))
    if value["dataVersion"] not in VERSIONS:
        raise Wrong((*loc, "dataVersion"), f"must be {VERSIONS[0]}")
    data = list_at(value["data"], (*loc, "data"))
    if len(data) > DATA_LIMIT:
        raise Wrong((*loc, "data"), f"at most {DATA_LIMIT:,} events at a time")
    return Envelope(moment(value["sendTime"], (*loc, "sendTime")), data)


def meaning_of(
    event: Any, *, app_name: str, skew: dt.timedelta = dt.timedelta()
) -> Metric | Rating | LeftOut:
    """What one entry of `data` means. `app_name` is the key's, "" where it has none; `skew` corrects the clock."""
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        return LeftOut("wrong_type", "not an object with a type")
    if "eventTime" not in event:
        return LeftOut("no_event", "an entity, which says nothing by itself")
    maker = _MAKERS.get((event["type"], event.get("action")))
    if maker is None:
        return LeftOut("unknown_event", "this type with this action says nothing that detection looks for")
    try:
        at = moment(event["eventTime"], ("eventTime",)) + skew
    except (Wrong, OverflowError):
        return LeftOut("bad_time", "eventTime is not a time of RFC 3339")
    learner = student_id(last_part(_id(event.get("actor"))))
    app = app_name or _app_of(event)
    made = maker(_Event(event, learner, app, at))
    if not isinstance(made, LeftOut) and not (
        made.student_id if isinstance(made, Rating) else made["student_id"]
    ):
        return LeftOut("no_pseudonym", "the last part of its actor's id is no pseudonym")
    return made


@dataclass(frozen=True, slots=True)
class _Event:
    """An event with what every maker needs."""

    event: dict[str, Any]
    learner: str
    app_name: str
    at: dt.datetime

    def part(self, name: str) -> dict[str, Any]:
        """An entity beside the event; empty where there is none, or only its id."""
        found = self.event.get(name)
        return found if isinstance(found, dict) else {}

    @property
    def session_id(self) -> str | None:
        """The sitting."""
        name = last_part(_id(self.event.get("session")))
        return name if name and is_id(name, SESSION_ID_LIMIT) else None

    def metric(
        self, metric_type: str, value: float, item: str = "", learner: str = "", **metadata: Any
    ) -> Metric:
        """A metric of this event's learner, or of another."""
        place = {"item": item_id(item)} if item else {}
        return {
            "student_id": learner or self.learner,
            "app_name": self.app_name,
            "metric_type": metric_type,
            "metric_value": value,
            "timestamp": self.at.isoformat(),
            "session_id": self.session_id,
            "metadata": (place | metadata) or None,
        }


Maker = Callable[[_Event], Metric | Rating | LeftOut]


def _id(entity: Any) -> str:
    """The id of an entity, which may stand there as its id alone."""
    found = entity.get("id") if isinstance(entity, dict) else entity
    return found if isinstance(found, str) else ""


def _app_of(event: dict[str, Any]) -> str:
    name = last_part(_id(event.get("edApp")))
    return name if name and is_id(name, APP_NAME_LIMIT) else "caliper"


def _of_object(metric_type: str) -> Maker:
    return lambda told: told.metric(metric_type, 1.0, _id(told.event.get("object")))


def _graded(told: _Event) -> Metric | LeftOut:
    """A graded attempt at an item: right with full marks. The learner is the attempt's, not the grader."""
    attempt, score = told.part("object"), told.part("generated")
    given, most = score.get("scoreGiven"), score.get("maxScore")
    if not _is_number(given) or not _is_number(most) or most <= 0:
        return LeftOut("no_score", "its score has no scoreGiven and maxScore")
    learner = student_id(last_part(_id(attempt.get("assignee"))))
    if not learner:
        return LeftOut("no_pseudonym", "the graded attempt has no assignee with a pseudonym")
    assignable = attempt.get("assignable")
    kind = assignable.get("type") if isinstance(assignable, dict) else ""
    if kind not in ("AssessmentItem", ""):
        return LeftOut("no_item", "what was graded is not a single item")
    count = attempt.get("count")
    extra = {"attempt": count} if _is_number(count) and count >= 0 else {}
    is_right = given >= most
    return told.metric("answer", float(is_right), _id(assignable), learner, correct=is_right, **extra)


def _ranked(told: _Event) -> Rating | LeftOut:
    """A selection on a scale, carried over to 1 to 5."""
    rating = told.part("generated")
    question = rating.get("question")
    scale = question.get("scale") if isinstance(question, dict) else None
    selections = rating.get("selections")
    if not isinstance(scale, dict) or not isinstance(selections, list) or len(selections) != 1:
        return LeftOut("no_scale", "its rating has no single selection on a scale")
    share = _share(scale, selections[0])
    if share is None:
        return LeftOut("no_scale", "the selection does not lie on the scale")
    least, most = RATINGS
    session = told.session_id or last_part(_id(told.event))
    if not is_id(session, SESSION_ID_LIMIT):
        return LeftOut("no_session", "neither a session nor an id of its own")
    return Rating(told.learner, told.app_name, session, round(least + share * (most - least)))


def _share(scale: dict[str, Any], selection: Any) -> float | None:
    """Where a selection lies between the ends of its scale, 0 to 1."""
    ordered = scale.get("itemValues")
    if isinstance(ordered, list) and len(ordered) > 1 and selection in ordered:
        return ordered.index(selection) / (len(ordered) - 1)
    least, most = scale.get("minValue"), scale.get("maxValue")
    try:
        chosen = float(selection)
    except (TypeError, ValueError):
        return None
    if not _is_number(least) or not _is_number(most) or not least <= chosen <= most or least == most:
        return None
    return (chosen - least) / (most - least)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_MAKERS: dict[tuple[str, Any], Maker] = {
    ("GradeEvent", "Graded"): _graded,
    ("FeedbackEvent", "Ranked"): _ranked,
    ("AssessmentItemEvent", "Started"): _of_object("navigation"),
    ("AssessmentItemEvent", "Skipped"): _of_object("navigation"),
    ("AssessmentItemEvent", "Completed"): _of_object("completion"),
    ("AssessmentEvent", "Started"): _of_object("focus"),
    ("AssessmentEvent", "Resumed"): _of_object("focus"),
    ("AssessmentEvent", "Paused"): _of_object("blur"),
    ("AssessmentEvent", "Submitted"): _of_object("completion"),
    ("AssignableEvent", "Started"): _of_object("focus"),
    ("AssignableEvent", "Completed"): _of_object("completion"),
    ("AssignableEvent", "Submitted"): _of_object("completion"),
    ("NavigationEvent", "NavigatedTo"): _of_object("navigation"),
    ("ViewEvent", "Viewed"): _of_object("navigation"),
    ("ToolUseEvent", "Used"): _of_object("navigation"),
    ("ToolLaunchEvent", "Launched"): _of_object("focus"),
    ("SessionEvent", "LoggedIn"): _of_object("focus"),
}
