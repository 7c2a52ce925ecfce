"""What a teacher does with an alert. Every step is remembered with what was before it, so it can be undone.

An alert is a teacher's matter, its event is the pupil's: a click never ends an episode, evidence does.
All steps are safe to repeat: a tap that was sent twice changes nothing the second time.
"""

from __future__ import annotations

import datetime as dt
import re
import uuid
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Greatest
from django.utils import timezone

from usability.access import get_alert, person
from usability.errors import Conflict, Invalid, NotFound
from usability.kinds import AlertSeverity, AlertState, AlertVerb
from usability.models import (
    AlertStep,
    Classroom,
    Enrollment,
    FrustrationEvent,
    Intervention,
    Student,
    TeacherDashboardAlert,
)
from usability.push import hint_after_commit
from usability.services.numbering import take_seqs
from usability.services.routing import classroom_of

if TYPE_CHECKING:
    from collections.abc import Callable

UNDO_WITHIN = dt.timedelta(seconds=10)
# A tap travels and a clock ticks: the button shows ten seconds, the server grants this much more.
UNDO_GRACE = dt.timedelta(seconds=5)
SNOOZE_LIMIT_MINUTES = 24 * 60
NOTE_LIMIT = 1000
KIND_PATTERN = re.compile(r"[a-z0-9_-]{1,50}")
EXPIRE_AFTER = dt.timedelta(minutes=60)
NEWS_EXPIRES_AFTER = dt.timedelta(minutes=10)
LOST_AFTER = dt.timedelta(hours=3)

# What a step may change, and so what undo puts back.
_RESTORED = (
    "state",
    "acknowledged_at",
    "acknowledged_by_id",
    "helping_at",
    "helping_by_id",
    "closed_at",
    "closed_by_id",
    "snoozed_until",
    "snoozed_by_id",
    "note",
)


_HOW_IT_ENDED = frozenset({"state", "closed_at", "closed_by_id"})
CLOSING = frozenset({AlertVerb.HELPED, AlertVerb.DISMISS, AlertVerb.RESOLVE})


def raise_alert(
    *,
    student_id: str | None,
    app_name: str,
    alert_type: str,
    severity: str,
    details: dict[str, Any],
    classroom: Classroom | None = None,
    event: FrustrationEvent | None = None,
    interrupts: bool = True,
    detected_at: dt.datetime | None = None,
    now: dt.datetime | None = None,
) -> TeacherDashboardAlert:
    """A new alert, routed to a classroom, numbered in it and pushed after commit.

    `student_id` None: about the whole class. Raises `NotFound` for a pupil nobody knows, `Invalid` where the
    pupil is in no classroom, for then there is nobody to tell.
    """
    now = now or timezone.now()
    if severity not in AlertSeverity.values:
        raise Invalid("severity", f"one of {', '.join(AlertSeverity.values)}, not {severity!r}")
    if student_id is not None and not Student.objects.filter(student_id=student_id).exists():
        raise NotFound
    where = classroom or (classroom_of(student_id, app_name) if student_id else None)
    if where is None:
        raise Invalid("student_id", "is enrolled in no classroom, so nobody can be told")
    with transaction.atomic():
        seq = take_seqs(where.pk)
        alert = TeacherDashboardAlert.objects.create(
            classroom=where,
            student_id=student_id,
            event=event,
            app_name=app_name,
            alert_type=alert_type,
            severity=severity,
            details=details,
            seq=seq,
            first_seq=seq,
            is_interrupting=interrupts,
            detected_at=detected_at or now,
            created_at=now,
        )
        hint_after_commit(where.pk, seq)
    return alert


def acknowledge_alert(
    alert_id: Any, *, who: Any, note: str = "", now: dt.datetime | None = None
) -> TeacherDashboardAlert:
    """Seen by a teacher. The first one is remembered; a note is kept where one is given."""

    def change(alert: TeacherDashboardAlert, at: dt.datetime) -> None:
        _acknowledge(alert, who, at)
        alert.note = note or alert.note

    return _step(alert_id, AlertVerb.ACKNOWLEDGE, change, who=who, note=note, now=now)


def on_my_way(alert_id: Any, *, who: Any, now: dt.datetime | None = None) -> TeacherDashboardAlert:
    """A teacher is going there; co-teachers see it. The first to say so stays the helper."""

    def change(alert: TeacherDashboardAlert, at: dt.datetime) -> None:
        _acknowledge(alert, who, at)
        if alert.state != AlertState.HELPING:
            alert.state = AlertState.HELPING
            alert.helping_at, alert.helping_by = at, person(who)

    return _step(alert_id, AlertVerb.ON_MY_WAY, change, who=who, now=now)


def helped(
    alert_id: Any, *, who: Any, category: str, note: str = "", now: dt.datetime | None = None
) -> TeacherDashboardAlert:
    """A teacher has helped: an intervention is kept and the alert resolved.

    An alert that closed meanwhile, because the pupil recovered, keeps its state; the help is kept all the same.
    """
    _check_kind(category, "category")

    def change(alert: TeacherDashboardAlert, at: dt.datetime) -> None:
        _acknowledge(alert, who, at)
        alert.note = note or alert.note
        if alert.is_open:
            _close(alert, AlertState.RESOLVED, who, at)

    kept = {"kind": category, "note": note}
    return _step(
        alert_id, AlertVerb.HELPED, change, who=who, note=note, now=now, closed=True, intervention=kept
    )


def dismiss_alert(
    alert_id: Any, *, who: Any, note: str = "", now: dt.datetime | None = None
) -> TeacherDashboardAlert:
    """Not a problem: closes the alert and labels it for the back-test. The episode goes on by itself."""

    def change(alert: TeacherDashboardAlert, at: dt.datetime) -> None:
        _acknowledge(alert, who, at)
        alert.note = note or alert.note
        _close(alert, AlertState.DISMISSED, who, at)

    return _step(alert_id, AlertVerb.DISMISS, change, who=who, note=note, now=now)


def resolve_alert(
    alert_id: Any, *, who: Any, note: str = "", now: dt.datetime | None = None
) -> TeacherDashboardAlert:
    """Dealt with, without saying how."""

    def change(alert: TeacherDashboardAlert, at: dt.datetime) -> None:
        _acknowledge(alert, who, at)
        alert.note = note or alert.note
        _close(alert, AlertState.RESOLVED, who, at)

    return _step(alert_id, AlertVerb.RESOLVE, change, who=who, note=note, now=now)


def snooze_alert(
    alert_id: Any, *, who: Any, minutes: float = 10, now: dt.datetime | None = None
) -> TeacherDashboardAlert:
    """Nothing about this pupil interrupts for so many minutes; help requests do. The alert stays open."""
    if not 0 < minutes <= SNOOZE_LIMIT_MINUTES:
        raise Invalid("minutes", f"more than 0 and at most {SNOOZE_LIMIT_MINUTES}, not {minutes}")

    def change(alert: TeacherDashboardAlert, at: dt.datetime) -> None:
        until = at + dt.timedelta(minutes=minutes)
        alert.snoozed_until, alert.snoozed_by = until, person(who)
        _snooze_pupil(alert, until)

    return _step(alert_id, AlertVerb.SNOOZE, change, who=who, now=now)


def record_intervention(
    alert_id: Any, *, who: Any, kind: str, note: str = "", now: dt.datetime | None = None
) -> Intervention:
    """What a teacher did about an alert; its effect is measured some minutes later. The alert stays as it is."""
    _check_kind(kind, "kind")
    _check_note(note)
    now = now or timezone.now()
    found = get_alert(who, alert_id)
    with transaction.atomic():
        seq = take_seqs(found.classroom_id)
        TeacherDashboardAlert.objects.filter(pk=found.pk).update(seq=seq, updated_at=now)
        kept = Intervention.objects.create(
            alert_id=found.pk, teacher=person(who), kind=kind, note=note, at=now
        )
        hint_after_commit(found.classroom_id, seq)
    return kept


def undo(alert_id: Any, *, who: Any, now: dt.datetime | None = None) -> TeacherDashboardAlert:
    """Takes back this person's last step with the alert, within ten seconds of it.

    "On my way" can be taken back for as long as nothing came of it: plans change.
    Raises `Conflict` where there is none, where it is too late, or where somebody else has acted since.
    """
    now = now or timezone.now()
    found = get_alert(who, alert_id)
    with transaction.atomic():
        seq = take_seqs(found.classroom_id)
        alert = TeacherDashboardAlert.objects.select_for_update(no_key=True).get(pk=found.pk)
        step = alert.steps.filter(undone_at__isnull=True).order_by("-at", "-id").first()
        if step is None or step.actor_id != getattr(person(who), "pk", None):
            raise Conflict(
                "There is no step of yours to undo: nothing was done, or somebody else acted since."
            )
        is_still_going = step.verb == AlertVerb.ON_MY_WAY and alert.state == AlertState.HELPING
        if now - step.at > UNDO_WITHIN + UNDO_GRACE and not is_still_going:
            raise Conflict(f"A step can be undone for {UNDO_WITHIN.seconds} s; this one is older.")
        _put_back(alert, step, seq)
        step.undone_at = now
        step.save(update_fields=["undone_at"])
        hint_after_commit(alert.classroom_id, seq)
    return alert


def expire_alerts(*, now: dt.datetime | None = None, limit: int = 500) -> int:
    """Close open alerts that nothing has touched for long and whose episode is over; how many, at most `limit`.

    An hour for a signal, ten minutes for good news. An episode that nobody has closed for three hours, because
    its state was lost, is ended where it was last heard of.
    """
    now = now or timezone.now()
    _end_lost_episodes(now)
    is_over = Q(event__isnull=True) | Q(event__ended_at__isnull=False) | Q(event__resolved_at__isnull=False)
    is_old_news = Q(alert_type="recovered", updated_at__lt=now - NEWS_EXPIRES_AFTER)
    stale = TeacherDashboardAlert.objects.open().filter(
        is_old_news | (is_over & Q(updated_at__lt=now - EXPIRE_AFTER)),
        Q(snoozed_until__isnull=True) | Q(snoozed_until__lt=now),
    )
    found = stale.order_by("classroom_id", "id").values_list("classroom_id", "pk")[:limit]
    return sum(_expire(classroom_id, alert_id, now) for classroom_id, alert_id in list(found))


def _expire(classroom_id: uuid.UUID, alert_id: uuid.UUID, now: dt.datetime) -> int:
    """Close one, if nobody has acted on it since it was found; 1 or 0."""
    with transaction.atomic():
        seq = take_seqs(classroom_id)
        changed = (
            TeacherDashboardAlert.objects.open()
            .filter(pk=alert_id, updated_at__lt=now - NEWS_EXPIRES_AFTER)
            .update(state=AlertState.EXPIRED, closed_at=now, closed_by=None, seq=seq, updated_at=now)
        )
        hint_after_commit(classroom_id, seq)
    return changed


def _end_lost_episodes(now: dt.datetime) -> None:
    FrustrationEvent.objects.open().exclude(revision=0).filter(updated_at__lt=now - LOST_AFTER).update(
        ended_at=Greatest(F("detected_at"), F("updated_at")), updated_at=now
    )


# ---------------------------------------------------------------- one step


def _step(
    alert_id: Any,
    verb: AlertVerb,
    change: Callable[[TeacherDashboardAlert, dt.datetime], None],
    *,
    who: Any,
    note: str = "",
    now: dt.datetime | None = None,
    closed: bool = False,
    intervention: dict[str, str] | None = None,
) -> TeacherDashboardAlert:
    """Apply `change` to the alert, remember it, number it, push it.

    The same step again by the same person returns the alert as it is. On a closed alert only a step with
    `closed` is taken; another raises `Conflict`.
    """
    _check_note(note)
    now = now or timezone.now()
    found = get_alert(who, alert_id)
    with transaction.atomic():
        seq = take_seqs(found.classroom_id)
        alert = TeacherDashboardAlert.objects.select_for_update(no_key=True).get(pk=found.pk)
        if _is_repeat(alert, verb, who, note):
            return alert
        if not alert.is_open and not closed:
            raise Conflict(f"The alert is {alert.state} since {alert.closed_at:%H:%M} UTC.")
        before = {name: _plain(getattr(alert, name)) for name in _RESTORED}
        change(alert, now)
        alert.seq = seq
        alert.save()
        if intervention is not None:
            kept = Intervention.objects.create(alert=alert, teacher=person(who), at=now, **intervention)
            before["intervention"] = str(kept.pk)
        AlertStep.objects.create(alert=alert, actor=person(who), verb=verb, at=now, before=before)
        hint_after_commit(alert.classroom_id, seq)
    return alert


def _is_repeat(alert: TeacherDashboardAlert, verb: AlertVerb, who: Any, note: str) -> bool:
    """Whether the last step was this very one: what a tap sent twice looks like."""
    last = alert.steps.filter(undone_at__isnull=True).order_by("-at", "-id").first()
    if last is None or last.verb != verb or verb == AlertVerb.SNOOZE:
        return False
    if last.actor_id != getattr(person(who), "pk", None):
        # A co-teacher says the same: only the closing ones and the first "on my way" are the same step.
        return not alert.is_open or verb in (AlertVerb.ACKNOWLEDGE, AlertVerb.ON_MY_WAY)
    return not note or note == alert.note


def _acknowledge(alert: TeacherDashboardAlert, who: Any, at: dt.datetime) -> None:
    """Note the first teacher who took notice, on the alert and on its event."""
    if alert.acknowledged_at is None:
        alert.acknowledged_at, alert.acknowledged_by = at, person(who)
    if alert.state == AlertState.NEW:
        alert.state = AlertState.ACKNOWLEDGED
    if alert.event_id is not None:
        FrustrationEvent.objects.filter(pk=alert.event_id, acknowledged_at__isnull=True).update(
            acknowledged_at=at, acknowledged_by=person(who), updated_at=at
        )


def _close(alert: TeacherDashboardAlert, state: AlertState, who: Any, at: dt.datetime) -> None:
    alert.state, alert.closed_at, alert.closed_by = state, at, person(who)


def _snooze_pupil(alert: TeacherDashboardAlert, until: dt.datetime | None) -> None:
    if alert.student_id is not None:
        Enrollment.objects.current().filter(
            classroom_id=alert.classroom_id, student_id=alert.student_id
        ).update(snoozed_until=until)


def _put_back(alert: TeacherDashboardAlert, step: AlertStep, seq: int) -> None:
    """The alert as it was before the step; what evidence closed since stays closed."""
    was_closed_since = not alert.is_open and step.verb not in CLOSING
    for name in _RESTORED:
        if not (was_closed_since and name in _HOW_IT_ENDED):
            setattr(alert, name, _parsed(name, step.before[name]))
    ended_at = alert.event.ended_at if alert.event is not None else None
    if alert.is_open and ended_at is not None and ended_at >= step.at:
        # Detection found the alert closed and left it alone; nobody else would close it now.
        alert.state, alert.closed_at, alert.closed_by = AlertState.RESOLVED, ended_at, None
    alert.seq = seq
    alert.save()
    if step.verb == AlertVerb.SNOOZE:
        _snooze_pupil(alert, alert.snoozed_until)
    if "intervention" in step.before:
        Intervention.objects.filter(pk=uuid.UUID(step.before["intervention"]), alert=alert).delete()


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, dt.datetime) else value


def _parsed(name: str, value: Any) -> Any:
    is_time = name.endswith(("_at", "_until"))
    return dt.datetime.fromisoformat(value) if is_time and value is not None else value


def _check_kind(kind: str, field: str) -> None:
    if not isinstance(kind, str) or not KIND_PATTERN.fullmatch(kind):
        raise Invalid(field, "1 to 50 of a-z, 0-9, _ and -")


def _check_note(note: str) -> None:
    if not isinstance(note, str) or len(note) > NOTE_LIMIT or "\0" in note:
        raise Invalid("note", f"a text of at most {NOTE_LIMIT} characters")
