"""One metric as the detectors see it.

Typed text never gets here: every string is an id from a closed alphabet, checked at ingest.
"""

from collections.abc import Mapping

import msgspec


class Observation(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One metric. `at_ms` is event time, `received_ms` receipt at the server; both unix milliseconds.

    Observations of one student are ordered by `(at_ms, id)`; ids are UUIDv7 text, so a batch keeps its order.
    `at_ms` is never after `received_ms`: a client clock that runs ahead is cut back to receipt, because
    a stamp in the future would keep windows open until then.
    """

    id: str
    student_id: str
    app_name: str
    metric_type: str
    value: float
    at_ms: int
    received_ms: int
    session_id: str = ""
    item: str = ""
    skill: str = ""
    element: str = ""
    correct: bool | None = None
    similar: bool | None = None
    is_bottom: bool | None = None
    hint_level: int | None = None
    attempt: int | None = None
    duration_ms: int | None = None
    late: bool = False


def from_metric(
    *,
    id: str,  # noqa: A002  the field's name in the API
    student_id: str,
    app_name: str,
    metric_type: str,
    metric_value: float,
    at_ms: int,
    received_ms: int,
    session_id: str = "",
    metadata: Mapping[str, object] | None = None,
) -> Observation:
    """The observation of a stored metric; fields are those of the API, times in unix milliseconds.

    An `answer` is right when `metadata.correct` says so, else when its value is 1.
    """
    extra = metadata or {}
    correct = _flag(extra, "correct")
    if correct is None and metric_type == "answer":
        correct = metric_value >= 0.5
    return Observation(
        id=id,
        student_id=student_id,
        app_name=app_name,
        metric_type=metric_type,
        value=float(metric_value),
        at_ms=min(at_ms, received_ms),
        received_ms=received_ms,
        session_id=session_id,
        item=_id(extra, "item"),
        skill=_id(extra, "skill"),
        element=_id(extra, "element"),
        correct=correct,
        similar=_flag(extra, "similar"),
        is_bottom=_flag(extra, "is_bottom"),
        hint_level=_number(extra, "hint_level"),
        attempt=_number(extra, "attempt"),
        duration_ms=_number(extra, "duration_ms"),
        late=_flag(extra, "late") is True,
    )


def _id(extra: Mapping[str, object], key: str) -> str:
    value = extra.get(key)
    return value if isinstance(value, str) else ""


def _flag(extra: Mapping[str, object], key: str) -> bool | None:
    value = extra.get(key)
    return value if isinstance(value, bool) else None


def _number(extra: Mapping[str, object], key: str) -> int | None:
    value = extra.get(key)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
