"""About the apps: how their clients behave, and how pupils rate them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db.models import Avg, Count, Sum

from usability import access
from usability.errors import NotFound
from usability.kinds import HealthMeasure
from usability.models import App, AppHealthCount, UsabilityMetric
from usability.selectors.shapes import AppHealth

if TYPE_CHECKING:
    import datetime as dt

ITEMS_SHOWN = 20
APPS_SHOWN = 200
REFUSALS_SHOWN = 200
COUNTS_READ = 20_000


def app_health(app_name: str, *, who: Any, since: dt.datetime, until: dt.datetime) -> AppHealth:
    """What the app itself does wrong, counted by the hour. Raises `NotFound` for another's app.

    Operators see every app, an app's own key its own, teachers the apps of their classes: those a class
    lists, and those that reported about its pupils between `since` and `until`. The hour in
    which `since` lies is counted whole.
    """
    if not _may_see(app_name, who, since, until):
        raise NotFound
    counts: dict[str, list[tuple[str, int]]] = {}
    for measure, label, total in _counted(since, until, app_name=app_name).values_list(
        "measure", "label", "total"
    ):
        counts.setdefault(measure, []).append((label, total))
    return _health(app_name, since, until, counts)


def health_of_apps(*, who: Any, since: dt.datetime, until: dt.datetime) -> list[AppHealth]:
    """Every app that is registered or reported in that time, those with refused metrics first. For operators."""
    if not access.reach_of(who).everything:
        return []
    names = App.objects.order_by("name").values_list("name", flat=True)[:APPS_SHOWN]
    counts: dict[str, dict[str, list[tuple[str, int]]]] = {name: {} for name in names}
    rows = _counted(since, until).values_list("app_name", "measure", "label", "total")
    for app_name, measure, label, total in rows[:COUNTS_READ]:
        counts.setdefault(app_name, {}).setdefault(measure, []).append((label, total))
    found = [_health(app_name, since, until, counted) for app_name, counted in counts.items()]
    return sorted(found, key=lambda one: (-sum(one.rejected.values()), one.app_name))[:APPS_SHOWN]


def refusals(
    app_name: str, *, who: Any, since: dt.datetime, until: dt.datetime
) -> list[tuple[dt.datetime, str, int]]:
    """(hour, reason, how many) of an app's refused metrics, the latest first. For operators."""
    if not access.reach_of(who).everything:
        return []
    rows = AppHealthCount.objects.filter(
        app_name=app_name, measure=HealthMeasure.REJECTED, hour__gte=_hour(since), hour__lt=until
    )
    return list(
        rows.order_by("-hour", "-count", "label").values_list("hour", "label", "count")[:REFUSALS_SHOWN]
    )


def _hour(moment: dt.datetime) -> dt.datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def _counted(since: dt.datetime, until: dt.datetime, **which: str) -> Any:
    """Sums by app, measure and label, the largest first."""
    rows = AppHealthCount.objects.filter(hour__gte=_hour(since), hour__lt=until, **which)
    return (
        rows.values("app_name", "measure", "label").annotate(total=Sum("count")).order_by("-total", "label")
    )


def _health(
    app_name: str, since: dt.datetime, until: dt.datetime, counts: dict[str, list[tuple[str, int]]]
) -> AppHealth:
    accepted = sum(total for _, total in counts.get(HealthMeasure.ACCEPTED, ()))
    late = sum(total for _, total in counts.get(HealthMeasure.LATE, ()))
    return AppHealth(
        app_name=app_name,
        since=since,
        until=until,
        metrics=accepted,
        rejected=dict(counts.get(HealthMeasure.REJECTED, ())),
        dead_clicks=tuple(counts.get(HealthMeasure.DEAD_CLICK, ())[:ITEMS_SHOWN]),
        rage_clicks=tuple(counts.get(HealthMeasure.RAGE_CLICK, ())[:ITEMS_SHOWN]),
        error_clicks=tuple(counts.get(HealthMeasure.ERROR_CLICK, ())[:ITEMS_SHOWN]),
        late_share=late / accepted if accepted else None,
        sdk_versions=dict(counts.get(HealthMeasure.SDK, ())),
    )


def _may_see(app_name: str, who: Any, since: dt.datetime, until: dt.datetime) -> bool:
    reach = access.reach_of(who)
    if reach.everything:
        return (
            App.objects.filter(name=app_name).exists()
            or AppHealthCount.objects.filter(app_name=app_name).exists()
        )
    if reach.app_name:
        return reach.app_name == app_name
    if reach.teacher_id is None:
        return False
    listed = access.visible_classrooms(who).values_list("app_names", flat=True)
    pupils = list(access.visible_students(who).values_list("student_id", flat=True))
    reported = UsabilityMetric.objects.filter(
        student_id__in=pupils, app_name=app_name, timestamp__gte=since, timestamp__lt=until
    )
    return any(app_name in app_names for app_names in listed) or reported.exists()


@dataclass(frozen=True, slots=True)
class RatingsSummary:
    """Mean and spread of ratings; `average` is None where there is none. `counts` by star, 1 to 5."""

    app_name: str | None
    average: float | None
    count: int
    counts: dict[int, int]
    with_feedback: int


def ratings_summary(
    *, who: Any, app_name: str | None = None, since: dt.datetime | None = None
) -> RatingsSummary:
    """Ratings the caller may see, of one app or all, since then or ever."""
    rows = access.visible_ratings(who)
    if app_name is not None:
        rows = rows.filter(app_name=app_name)
    if since is not None:
        rows = rows.filter(created_at__gte=since)
    counted = dict(rows.order_by().values_list("rating").annotate(n=Count("id")))
    found = rows.aggregate(mean=Avg("rating"), n=Count("id"))
    return RatingsSummary(
        app_name=app_name,
        average=found["mean"],
        count=found["n"],
        counts={stars: counted.get(stars, 0) for stars in range(1, 6)},
        with_feedback=rows.exclude(feedback_text="").count(),
    )
