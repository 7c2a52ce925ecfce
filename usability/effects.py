"""What came after a teacher's help, with honest intervals, beside what came after where nobody helped.

What came after is not proof of what helped: teachers help when things are worst, and the worst mostly gets
better by itself (regression to the mean). So a verdict speaks only where the difference is beyond chance, and
each effect is held against moments of the same kind in which nobody came: the same family of signal, a similar
severity, an episode that had lasted as long. Nothing here is summed up by teacher.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from django.db.models import Exists, OuterRef, Q

from usability.effect_measures import BeforeAfter, Stretch, measure_of, measured
from usability.models import FrustrationEvent, Intervention, TeacherDashboardAlert, UnhelpedMoment
from usability.proportions import Share, gap, gap_of_gaps, pooled
from usability.querysets import EVENT_SEVERITY_RANK

WINDOW = dt.timedelta(minutes=10)
# Rows that were on their way at the end of the window have come by then.
GRACE = dt.timedelta(seconds=30)
COUNTED_AT_LEAST = 5
EPISODES_AT_LEAST = 5
# How long an episode had lasted when it is looked at (landmark analysis: Anderson, Cain and Gelber 1983). Help
# that came after four minutes is compared with episodes that went on for three at least, from that moment on.
LANDMARKS_S = (0, 60, 180, 600)
COMPARED_BACK = dt.timedelta(days=90)
COMPARED_MOST = 500
# Metrics must still be there to measure; what a stopped system has missed for longer is left out.
MEASURED_BACK = dt.timedelta(days=3)

BETTER, WORSE, UNCLEAR, INSUFFICIENT = "better", "worse", "unclear", "insufficient_data"
MORE, LIKE, LESS = "more_than_without_help", "like_without_help", "less_than_without_help"
NOTE = (
    "What came after is not proof of what helped: help comes when things are worst, and the worst mostly gets "
    "better by itself. Compare with what came after where nobody helped."
)


def verdict_of(before: Share, after: Share) -> str:
    """better, worse, unclear or insufficient_data.

    Better or worse only where the 95 % interval of the difference leaves zero out.
    """
    change = gap(before, after)
    if change is None or min(before.n, after.n) < COUNTED_AT_LEAST:
        return INSUFFICIENT
    return BETTER if change.low > 0 else WORSE if change.high < 0 else UNCLEAR


def comparison_of(own: BeforeAfter, unhelped: BeforeAfter, episodes: int) -> str:
    """Whether the change with help was more than, like or less than without; or insufficient_data."""
    change, other = gap(own.before, own.after), gap(unhelped.before, unhelped.after)
    counted = min(own.before.n, own.after.n, unhelped.before.n, unhelped.after.n)
    if change is None or other is None or counted < COUNTED_AT_LEAST or episodes < EPISODES_AT_LEAST:
        return INSUFFICIENT
    between = gap_of_gaps(change, other)
    return MORE if between.low > 0 else LESS if between.high < 0 else LIKE


def measure_due(*, now: dt.datetime, limit: int = 100) -> int:
    """Measure what is due: moments without help first, for effects are held against them. How many of both."""
    return measure_unhelped(now=now, limit=limit) + measure_helped(now=now, limit=limit)


# ---------------------------------------------------------------- where somebody helped


def measure_helped(*, now: dt.datetime, limit: int = 100) -> int:
    """Fill in the effect of interventions whose time after has passed; how many. At most `limit` a call."""
    due = list(
        Intervention.objects.filter(effect__isnull=True, at__lte=now - WINDOW - GRACE)
        .select_related("alert__event", "alert__classroom")
        .order_by("at", "id")[:limit]
    )
    found = measured([_stretch_of(one) for one in due])
    count = 0
    for intervention, own in zip(due, found, strict=True):
        effect = _effect(intervention, own)
        count += Intervention.objects.filter(pk=intervention.pk, effect__isnull=True).update(effect=effect)
    return count


def effect_of(intervention: Intervention) -> dict[str, Any]:
    """Ten minutes before against ten minutes after, of the pupils the alert was about, in its app."""
    (own,) = measured([_stretch_of(intervention)])
    return _effect(intervention, own)


def _stretch_of(intervention: Intervention) -> Stretch:
    alert = intervention.alert
    pupils = [alert.student_id] if alert.student_id else list(alert.details.get("students", ()))
    return Stretch(tuple(pupils), alert.app_name, intervention.at, WINDOW, measure_of(alert.alert_type))


def _effect(intervention: Intervention, own: BeforeAfter) -> dict[str, Any]:
    change = gap(own.before, own.after)
    unhelped, compared = _compared(intervention, own)
    return {
        "before": own.before.as_json(),
        "after": own.after.as_json(),
        "change": change.as_json() if change else None,
        "verdict": verdict_of(own.before, own.after),
        "measure": measure_of(intervention.alert.alert_type),
        "window_s": int(WINDOW.total_seconds()),
        "unhelped": unhelped,
        "compared": compared,
        "note": NOTE,
    }


def _compared(intervention: Intervention, own: BeforeAfter) -> tuple[dict[str, Any] | None, str]:
    alert = intervention.alert
    if alert.event is None:
        return None, INSUFFICIENT
    lasted_s = (intervention.at - alert.event.detected_at).total_seconds()
    landmark = landmark_of(lasted_s)
    moments = UnhelpedMoment.objects.filter(
        family=alert.alert_type,
        after_s=landmark,
        severity__in=similar_severities(alert.event.severity),
        at__gte=intervention.at - COMPARED_BACK,
    ).exclude(event=alert.event)
    # The class itself if it has enough, else its school: pooled either way, so nobody can be told from it.
    for among, where in (
        ("class", Q(classroom=alert.classroom)),
        ("school", Q(classroom__school=alert.classroom.school_id)),
    ):
        found = list(moments.filter(where).order_by("-at", "id")[:COMPARED_MOST])
        if len(found) >= EPISODES_AT_LEAST:
            both = pooled_moments(found)
            change = gap(both.before, both.after)
            return {
                "before": both.before.as_json(),
                "after": both.after.as_json(),
                "change": change.as_json() if change else None,
                "episodes": len(found),
                "lasted_s": landmark,
                "among": among,
            }, comparison_of(own, both, len(found))
    return None, INSUFFICIENT


def landmark_of(lasted_s: float) -> int:
    """The longest landmark an episode has reached."""
    return max(one for one in LANDMARKS_S if one <= max(0.0, lasted_s))


def similar_severities(severity: str) -> list[str]:
    """The severity and its neighbours."""
    rank = EVENT_SEVERITY_RANK.get(severity, 0)
    return [name for name, other in EVENT_SEVERITY_RANK.items() if abs(other - rank) <= 1]


def pooled_moments(moments: Sequence[UnhelpedMoment]) -> BeforeAfter:
    """Many moments together."""
    return BeforeAfter(
        pooled([Share(one.before_good, one.before_n) for one in moments]),
        pooled([Share(one.after_good, one.after_n) for one in moments]),
    )


# ---------------------------------------------------------------- where nobody did


def measure_unhelped(*, now: dt.datetime, limit: int = 100) -> int:
    """Measure episodes that are over and that nobody came to; how many moments were written."""
    events = list(_unhelped_events(now).select_related("classroom").order_by("resolved_at", "id")[:limit])
    moments = [
        (event, landmark)
        for event in events
        for landmark in LANDMARKS_S
        if landmark == 0 or event.detected_at + dt.timedelta(seconds=landmark) <= event.ended_at
    ]
    found = measured(
        [
            Stretch(
                (event.student_id,),
                event.app_name,
                event.detected_at + dt.timedelta(seconds=landmark),
                WINDOW,
                measure_of(event.event_type),
            )
            for event, landmark in moments
        ]
    )
    rows = [
        UnhelpedMoment(
            event=event,
            classroom_id=event.classroom_id,
            family=event.event_type,
            severity=event.severity,
            after_s=landmark,
            at=event.detected_at + dt.timedelta(seconds=landmark),
            measure=measure_of(event.event_type),
            before_good=both.before.right,
            before_n=both.before.n,
            after_good=both.after.right,
            after_n=both.after.n,
        )
        for (event, landmark), both in zip(moments, found, strict=True)
    ]
    return len(UnhelpedMoment.objects.bulk_create(rows, ignore_conflicts=True))


def _unhelped_events(now: dt.datetime) -> Any:
    """Ended episodes not measured yet, where neither the pupil nor the class was helped around them."""
    around = {"at__gte": OuterRef("detected_at") - WINDOW, "at__lte": OuterRef("ended_at") + WINDOW}
    of_pupil = Intervention.objects.filter(alert__student=OuterRef("student_id"), **around)
    of_class = Intervention.objects.filter(
        alert__classroom=OuterRef("classroom_id"), alert__student__isnull=True, **around
    )
    visited = TeacherDashboardAlert.objects.filter(event=OuterRef("pk"), helping_at__isnull=False)
    measured_before = UnhelpedMoment.objects.filter(event=OuterRef("pk"))
    return FrustrationEvent.objects.filter(
        ~Exists(measured_before),
        ~Exists(of_pupil),
        ~Exists(of_class),
        ~Exists(visited),
        resolved_at__gte=now - MEASURED_BACK,
        resolved_at__lte=now - WINDOW - GRACE,
        ended_at__isnull=False,
        ended_at__lte=now - WINDOW - GRACE,
        resolved_by__isnull=True,
        classroom__isnull=False,
    )
