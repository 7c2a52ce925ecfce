"""Writes what detection decided: events, alerts, their numbers; all of one classroom in one transaction.

Writing is idempotent, because a worker that takes over repeats the decisions around the moment its
predecessor stopped. An episode has one event and one alert, both named after it; its `revision` says which
decisions are written. A teacher's click is respected: what was dismissed stays dismissed while its episode
lasts, and what was resolved comes back only when the episode grows worse later, or the pupil asks again.
"""

from __future__ import annotations

import datetime as dt
import uuid
from typing import TYPE_CHECKING, Any

import msgspec
from django.db import connection
from prometheus_client import Counter, Histogram

from usability.detection.classroom import (
    AppHealth,
    ClassStuckClosed,
    ClassStuckOpened,
    ClassStuckUpdated,
    Decision,
    EpisodeClosed,
    EpisodeEscalated,
    EpisodeOpened,
    EpisodeUpdated,
    Recovered,
)
from usability.detection.kinds import AlertSeverity, SignalFamily
from usability.kinds import AlertState
from usability.models import FrustrationEvent, HelpRequest, Student, TeacherDashboardAlert
from usability.policies import from_ms
from usability.push import hint_after_commit
from usability.services.numbering import take_seqs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from usability.detection.episodes import Episode
    from usability.detection.signals import Reason

REOPEN_AFTER = dt.timedelta(minutes=5)
NAMESPACE = uuid.UUID("6f6d7c5e-64d5-4a3e-8f5b-5f0f3b6b7d11")

DECISIONS = Counter("gaia_detection_decisions_total", "Decisions of detection that were written", ["kind"])
DELAY = Histogram(
    "gaia_detection_delay_seconds",
    "From the moment an alert was due to its row",
    buckets=(0.1, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 3, 5, 10, 30),
)

Told = EpisodeOpened | EpisodeUpdated | EpisodeEscalated


def write(classroom_id: uuid.UUID, decisions: Sequence[Decision], *, now: dt.datetime) -> int:
    """Write the decisions of one classroom, in order; how many changed something.

    Must be called within a transaction. Numbers come first, which locks the classroom; one hint leaves after
    the commit. Decisions about a pupil whose row is gone (erased meanwhile) are left out.
    """
    assert connection.in_atomic_block, "decisions are written within the transaction that checks the owner"
    if not decisions:
        return 0
    known = _known_students(decisions)
    seq = take_seqs(classroom_id, len(decisions))
    changed = 0
    for number, decision in enumerate(decisions, start=seq):
        if _student_of(decision) in known:
            was_written = _write_one(classroom_id, decision, number, now)
            changed += was_written
            if was_written:
                DECISIONS.labels(type(decision).__name__).inc()
    if changed:
        hint_after_commit(classroom_id, seq + len(decisions) - 1)
    return changed


def alert_id_of(episode_id: str) -> uuid.UUID:
    """The id of an episode's alert."""
    return uuid.uuid5(NAMESPACE, episode_id)


def _student_of(decision: Decision) -> str | None:
    """Whom the decision is about; None: the class."""
    if isinstance(decision, Told | EpisodeClosed):
        return decision.episode.student_id
    return decision.student_id if isinstance(decision, Recovered | AppHealth) else None


def _known_students(decisions: Iterable[Decision]) -> set[str | None]:
    wanted = {student_id for decision in decisions if (student_id := _student_of(decision)) is not None}
    return {None, *Student.objects.filter(student_id__in=wanted).values_list("student_id", flat=True)}


def _write_one(classroom_id: uuid.UUID, decision: Decision, seq: int, now: dt.datetime) -> bool:
    match decision:
        case EpisodeOpened() | EpisodeUpdated() | EpisodeEscalated():
            return _write_episode(classroom_id, decision, seq, now)
        case EpisodeClosed(episode):
            return _close_episode(episode, seq, now)
        case Recovered():
            return _write_recovery(classroom_id, decision, seq, now)
        case ClassStuckOpened(card, interrupts, held_back):
            return _open_card(card, seq, now, interrupts=interrupts, held_back=held_back)
        case ClassStuckUpdated(card):
            return _update_card(card, seq, now)
        case ClassStuckClosed(card, _):
            return _close_alerts([uuid.UUID(card.id)], seq, now, AlertState.RESOLVED, "evidence")
        case AppHealth():
            # About the app and not about a pupil: the counts of ingest tell it, by item and hour.
            return False


# ---------------------------------------------------------------- episodes


def _write_episode(classroom_id: uuid.UUID, told: Told, seq: int, now: dt.datetime) -> bool:
    episode = told.episode
    event = FrustrationEvent.objects.filter(pk=episode.id).first()
    if event is not None and (event.revision >= episode.revision or event.ended_at is not None):
        return False
    if event is None:
        _supersede(episode)
        event = _new_event(classroom_id, episode)
        event.save(force_insert=True)
    else:
        event.severity, event.details, event.revision = (
            str(episode.severity),
            details_of(told),
            episode.revision,
        )
        event.save(update_fields=["severity", "details", "revision", "updated_at"])
    if episode.family != SignalFamily.REFERENCE:
        _write_alert(classroom_id, event, told, seq, now)
    return True


def _new_event(classroom_id: uuid.UUID, episode: Episode) -> FrustrationEvent:
    headline = min(
        episode.findings, key=lambda finding: (not finding.is_raised, finding.since_ms), default=None
    )
    return FrustrationEvent(
        id=uuid.UUID(episode.id),
        student_id=episode.student_id,
        classroom_id=classroom_id,
        app_name=episode.app_name,
        event_type=str(episode.family),
        severity=str(episode.severity),
        details=episode_details(episode),
        detected_at=from_ms(episode.onset_ms),
        revision=episode.revision,
        detector=headline.detector[:50] if headline else "",
        params_version=str(episode.profile_version),
    )


def _supersede(episode: Episode) -> None:
    """End another open event of the same kind, such as one that was recorded by hand: one is open at a time."""
    others = FrustrationEvent.objects.open().filter(
        student_id=episode.student_id, app_name=episode.app_name, event_type=str(episode.family)
    )
    for other in others.exclude(pk=episode.id):
        other.ended_at = max(other.detected_at, from_ms(episode.onset_ms))
        other.save(update_fields=["ended_at", "updated_at"])


def _write_alert(
    classroom_id: uuid.UUID, event: FrustrationEvent, told: Told, seq: int, now: dt.datetime
) -> None:
    episode = told.episode
    details = details_of(told)
    alert = (
        TeacherDashboardAlert.objects.select_for_update(no_key=True)
        .filter(pk=alert_id_of(episode.id))
        .first()
    )
    if alert is None:
        details["delay_s"] = _delay_s(told, now)
        DELAY.observe(details["delay_s"])
        alert = TeacherDashboardAlert.objects.create(
            id=alert_id_of(episode.id),
            classroom_id=classroom_id,
            student_id=episode.student_id,
            event=event,
            app_name=episode.app_name,
            alert_type=str(episode.family),
            severity=str(told.alert),
            details=details,
            seq=seq,
            first_seq=seq,
            is_interrupting=told.interrupts,
            detected_at=event.detected_at,
            created_at=now,
        )
    else:
        if _comes_back(alert, told, now):
            # What was asked before has been answered; only the new request is open.
            HelpRequest.objects.filter(alert=alert, done_at=None).update(done_at=now)
            alert.state, alert.closed_at, alert.closed_by = AlertState.NEW, None, None
            alert.helping_at, alert.helping_by = None, None
        if "delay_s" in alert.details:
            details["delay_s"] = alert.details["delay_s"]
        alert.details, alert.severity, alert.seq = details, str(told.alert), seq
        alert.is_interrupting = alert.is_interrupting or told.interrupts
        alert.save()
    if episode.family == SignalFamily.HELP:
        HelpRequest.objects.filter(pk__in=details["observations"], alert=None).update(alert=alert)


def _comes_back(alert: TeacherDashboardAlert, told: Told, now: dt.datetime) -> bool:
    """Whether a closed alert is a teacher's matter again."""
    if alert.is_open:
        return False
    if told.episode.family == SignalFamily.HELP:
        return not set(_observations(told.episode)) <= set(alert.details.get("observations", ()))
    grew_worse = isinstance(told, EpisodeEscalated) and alert.state == AlertState.RESOLVED
    return grew_worse and now - alert.closed_at >= REOPEN_AFTER


def _close_episode(episode: Episode, seq: int, now: dt.datetime) -> bool:
    event = FrustrationEvent.objects.filter(pk=episode.id).first()
    if event is None or event.ended_at is not None:
        return False
    ended_at = max(event.detected_at, from_ms(episode.closed_ms or episode.changed_ms))
    event.ended_at, event.revision = ended_at, episode.revision
    event.details = {**event.details, "closed_by": episode.closed_by}
    # Evidence resolves an episode as much as a person does; `resolved_by` stays empty then.
    event.resolved_at = event.resolved_at or ended_at
    event.save(update_fields=["ended_at", "resolved_at", "revision", "details", "updated_at"])
    state = AlertState.RESOLVED if episode.closed_by == "evidence" else AlertState.EXPIRED
    _close_alerts([alert_id_of(episode.id)], seq, now, state, episode.closed_by or "")
    return True


def _close_alerts(
    alert_ids: list[uuid.UUID], seq: int, now: dt.datetime, state: AlertState, closed_by: str
) -> bool:
    alert = (
        TeacherDashboardAlert.objects.open().select_for_update(no_key=True).filter(pk__in=alert_ids).first()
    )
    if alert is None:
        return False
    alert.state, alert.closed_at, alert.closed_by, alert.seq = state, now, None, seq
    alert.details = {**alert.details, "closed_by": closed_by}
    alert.save()
    return True


# ---------------------------------------------------------------- good news, and the class


def _write_recovery(classroom_id: uuid.UUID, good: Recovered, seq: int, now: dt.datetime) -> bool:
    recovery_id = uuid.uuid5(NAMESPACE, f"{good.student_id}\n{good.app_name}\n{good.at_ms}")
    if TeacherDashboardAlert.objects.filter(pk=recovery_id).exists():
        return False
    TeacherDashboardAlert.objects.create(
        id=recovery_id,
        classroom_id=classroom_id,
        student_id=good.student_id,
        app_name=good.app_name,
        alert_type="recovered",
        severity=AlertSeverity.INFO,
        details={
            "family": str(SignalFamily.RECOVERY),
            "severity": "low",
            **_words(good.reason),
            "numbers": good.evidence.numbers,
            "observations": list(good.evidence.observations),
            "evidence": "",
        },
        seq=seq,
        first_seq=seq,
        is_interrupting=False,
        detected_at=from_ms(good.at_ms),
        created_at=now,
    )
    return True


def _open_card(card: Any, seq: int, now: dt.datetime, *, interrupts: bool, held_back: str) -> bool:
    if TeacherDashboardAlert.objects.filter(pk=card.id).exists():
        return False
    TeacherDashboardAlert.objects.create(
        id=uuid.UUID(card.id),
        classroom_id=uuid.UUID(card.classroom_id),
        student_id=None,
        app_name="",
        alert_type="class_stuck",
        severity=AlertSeverity.WARNING,
        details=_card_details(card, held_back),
        seq=seq,
        first_seq=seq,
        is_interrupting=interrupts,
        detected_at=from_ms(card.opened_ms),
        created_at=now,
    )
    return True


def _update_card(card: Any, seq: int, now: dt.datetime) -> bool:
    alert = TeacherDashboardAlert.objects.open().select_for_update(no_key=True).filter(pk=card.id).first()
    if alert is None or alert.details.get("students") == list(card.students):
        return False
    alert.details = _card_details(card, alert.details.get("held_back", ""))
    alert.seq = seq
    alert.save()
    return True


def _card_details(card: Any, held_back: str) -> dict[str, Any]:
    return {
        "family": "class_stuck",
        "severity": "high",
        **_words(card.reason),
        "evidence": f"{len(card.students)} of {card.active_pupils} working now",
        "students": list(card.students),
        "active_pupils": card.active_pupils,
        card.topic.kind: card.topic.name,
        "held_back": held_back,
    }


# ---------------------------------------------------------------- details


def details_of(told: Told) -> dict[str, Any]:
    """The details of an alert and its event: the reason in words, what it rests on, and the strip."""
    return {**episode_details(told.episode), "held_back": told.held_back}


def episode_details(episode: Episode) -> dict[str, Any]:
    """What is stored of an episode: words, numbers with their thresholds, ids of observations; no typed text."""
    raised = [finding for finding in episode.findings if finding.is_raised]
    shown = raised or list(episode.findings)
    return {
        "family": str(episode.family),
        "severity": str(episode.severity),
        **_words(episode.reason),
        "evidence": "; ".join(
            finding.reason.text for finding in shown if finding.reason.text != episode.reason.text
        ),
        "item": episode.item,
        "skill": episode.skill,
        "findings": [
            {
                "detector": finding.detector,
                "version": finding.version,
                "since": from_ms(finding.since_ms).isoformat(),
                "reason": finding.reason.text,
                "reason_key": finding.reason.key,
                "numbers": finding.evidence.numbers,
                "thresholds": finding.evidence.thresholds,
                "is_raised": finding.is_raised,
            }
            for finding in episode.findings
        ],
        "observations": _observations(episode),
        "strip": [msgspec.structs.asdict(point) for point in episode.strip],
        "opened_at": from_ms(episode.opened_ms).isoformat(),
    }


def _observations(episode: Episode) -> list[str]:
    return sorted({key for finding in episode.findings for key in finding.evidence.observations})


def _words(reason: Reason) -> dict[str, Any]:
    return {"reason": reason.text, "reason_key": reason.key, "reason_params": dict(reason.params)}


def _delay_s(told: Told, now: dt.datetime) -> float:
    """Seconds from the moment the alert was due to its row.

    It is due when its newest evidence was received (which the observation's id tells, a UUIDv7) and, where it
    had to hold on for a while, at the end of that while.
    """
    received_ms = [uuid.UUID(key).int >> 80 for key in _observations(told.episode)]
    due_ms = max([told.episode.opened_ms, *received_ms])
    return max(0.0, round(now.timestamp() - due_ms / 1000, 3))
