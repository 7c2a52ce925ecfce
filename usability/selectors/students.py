"""One pupil: what was done when, which signals there were, who helped, how it was rated."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.utils import timezone

from usability import access
from usability.effect_measures import RIGHT_ANSWERS
from usability.effects import INSUFFICIENT
from usability.errors import Invalid
from usability.models import Enrollment, FrustrationEvent, Intervention, SatisfactionRating
from usability.selectors.activity import buckets_of, presence_of, strips_of
from usability.selectors.shapes import Bucket, Effect, Episode, Help, Pupil, Rating, StudentPage
from usability.selectors.signals import in_order, pupil_of, short_name, signal_of, with_people

# Stretches in which nothing was are left out: this many are there only where every one was busy.
BUCKETS_LIMIT = 10_000
BUCKETS_WANTED = 60
# Lengths a person can read off an axis.
NICE_S = (15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400)
ROWS_LIMIT = 500


def student_page(
    student_id: str,
    *,
    who: Any,
    since: dt.datetime,
    until: dt.datetime,
    bucket_s: int | None = None,
    app_name: str | None = None,
    metric_type: str | None = None,
    now: dt.datetime | None = None,
) -> StudentPage:
    """Everything the page of one pupil shows for that stretch. Raises `NotFound` for somebody else's pupil.

    `app_name` leaves out what belongs to other apps; `metric_type` narrows the counts alone.
    """
    now = now or timezone.now()
    student = access.get_student(who, student_id)
    classrooms = access.visible_classrooms(who).values("pk")
    enrollments = list(
        Enrollment.objects.current()
        .filter(student=student, classroom__in=classrooms)
        .select_related("student")
        .order_by("created_at", "id")
    )
    name = student.display_name or student.student_id
    pupil = pupil_of(enrollments[0]) if enrollments else Pupil(student_id, name, short_name(name), "")
    of_app = {} if app_name is None else {"app_name": app_name}
    alerts = with_people(access.visible_alerts(who).filter(student=student, **of_app).open())
    strips = strips_of([student_id], until=now)
    bucket_s = bucket_s or bucket_for(since, until)
    buckets = student_buckets(
        student_id,
        who=who,
        since=since,
        until=until,
        bucket_s=bucket_s,
        app_name=app_name,
        metric_type=metric_type,
    )
    seen = presence_of([student_id], since=min(since, now - dt.timedelta(days=7)), until=now).get(student_id)
    return StudentPage(
        pupil=pupil,
        classroom_ids=tuple(one.classroom_id for one in enrollments),
        since=since,
        until=until,
        bucket_s=bucket_s,
        signals=tuple(in_order(signal_of(alert, {student_id: pupil}, strips) for alert in alerts)),
        buckets=tuple(buckets),
        episodes=tuple(episodes_of(student_id, who=who, since=since, until=until, app_name=app_name)),
        interventions=tuple(
            interventions_of(student_id, who=who, since=since, until=until, app_name=app_name)
        ),
        ratings=tuple(ratings_of(student_id, who=who, since=since, until=until, app_name=app_name)),
        last_seen=seen.last_seen if seen else None,
        late_count=sum(bucket.late for bucket in buckets),
    )


def student_buckets(
    student_id: str,
    *,
    who: Any,
    since: dt.datetime,
    until: dt.datetime,
    bucket_s: int,
    app_name: str | None = None,
    metric_type: str | None = None,
) -> list[Bucket]:
    """The pupil's counts by stretch of time, oldest first. Raises `NotFound`, `Invalid` for too many stretches."""
    student = access.get_student(who, student_id)
    if bucket_s < 1:
        raise Invalid("bucket_s", f"at least 1, not {bucket_s}")
    if (until - since).total_seconds() / bucket_s > BUCKETS_LIMIT:
        raise Invalid(
            "bucket_s", f"so long that at most {BUCKETS_LIMIT} stretches lie between since and until"
        )
    reach = access.reach_of(who)
    return buckets_of(
        [student.student_id],
        since=since,
        until=until,
        bucket_s=bucket_s,
        app_name=reach.app_name or app_name,
        metric_type=metric_type,
    )


def bucket_for(since: dt.datetime, until: dt.datetime) -> int:
    """A length in seconds that makes about sixty stretches."""
    wanted = (until - since).total_seconds() / BUCKETS_WANTED
    return next((length for length in NICE_S if length >= wanted), NICE_S[-1])


def episodes_of(
    student_id: str, *, who: Any, since: dt.datetime, until: dt.datetime, app_name: str | None = None
) -> list[Episode]:
    """Episodes of the pupil that touch the stretch, oldest first."""
    events = access.visible_events(who).filter(
        student_id=student_id, detected_at__lt=until, detected_at__gte=since - dt.timedelta(days=1)
    )
    if app_name is not None:
        events = events.filter(app_name=app_name)
    found = [_episode(event) for event in events.order_by("detected_at", "id")[:ROWS_LIMIT]]
    return [one for one in found if one.ended_at is None or one.ended_at >= since]


def _episode(event: FrustrationEvent) -> Episode:
    return Episode(
        event_id=event.pk,
        app_name=event.app_name,
        event_type=event.event_type,
        severity=event.severity,
        reason=str(event.details.get("reason", event.event_type.replace("_", " "))),
        started_at=event.detected_at,
        ended_at=event.ended_at or event.resolved_at,
        acknowledged_at=event.acknowledged_at,
        resolved_at=event.resolved_at,
        details=event.details,
    )


def interventions_of(
    student_id: str, *, who: Any, since: dt.datetime, until: dt.datetime, app_name: str | None = None
) -> list[Help]:
    """What teachers did for the pupil in the stretch, newest first."""
    rows = (
        access.visible_interventions(who)
        .filter(alert__student_id=student_id, at__gte=since, at__lte=until)
        .select_related("teacher")
        .order_by("-at", "-id")
    )
    if app_name is not None:
        rows = rows.filter(alert__app_name=app_name)
    return [help_of(row) for row in rows[:ROWS_LIMIT]]


def help_of(row: Intervention) -> Help:
    """The intervention as it is shown."""
    by = (row.teacher.get_full_name() or row.teacher.get_username()) if row.teacher else ""
    return Help(row.pk, row.alert_id, row.kind, row.note, row.at, by, effect_of(row))


def effect_of(row: Intervention) -> Effect | None:
    """What came after, None while it has not been measured."""
    if row.effect is None:
        return None
    stored = row.effect
    before, after = stored.get("before") or {}, stored.get("after") or {}
    unhelped = stored.get("unhelped") or {}
    verdict = str(stored.get("verdict", INSUFFICIENT))
    return Effect(
        # Effects measured by earlier versions say it in other words.
        verdict=INSUFFICIENT if verdict == "too_little_data" else verdict,
        before=before.get("share"),
        before_n=int(before.get("n") or 0),
        before_low=before.get("low"),
        before_high=before.get("high"),
        after=after.get("share"),
        after_n=int(after.get("n") or 0),
        after_low=after.get("low"),
        after_high=after.get("high"),
        window_s=int(stored.get("window_s", 600)),
        measure=str(stored.get("measure", RIGHT_ANSWERS)).replace("share of right answers", RIGHT_ANSWERS),
        compared=str(stored.get("compared", INSUFFICIENT)),
        unhelped_before=(unhelped.get("before") or {}).get("share"),
        unhelped_after=(unhelped.get("after") or {}).get("share"),
        unhelped_episodes=int(unhelped.get("episodes") or 0),
        unhelped_among=str(unhelped.get("among", "")),
    )


def ratings_of(
    student_id: str, *, who: Any, since: dt.datetime, until: dt.datetime, app_name: str | None = None
) -> list[Rating]:
    """The pupil's ratings in the stretch, newest first."""
    rows = (
        access.visible_ratings(who)
        .for_student(student_id)
        .filter(created_at__gte=since, created_at__lte=until)
    )
    if app_name is not None:
        rows = rows.filter(app_name=app_name)
    return [_rating(row) for row in rows[:ROWS_LIMIT]]


def _rating(row: SatisfactionRating) -> Rating:
    return Rating(row.app_name, row.rating, row.session_id, row.feedback_text, row.created_at)
