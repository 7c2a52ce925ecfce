"""From signals to episodes: one open episode per pupil, app and family.

A condition must hold for `hold_s` before anything is shown (a request for help is shown at once). An open
episode closes when none of its conditions has held for `clear_s`; after that the family is silent for
`cooldown_s`, except for what is worse than the episode was: a short pause must not hide a long one. Severity is family weight x strength x persistence and never falls while the episode is open.
All times are event times in unix ms.
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Literal
from uuid import UUID

import msgspec

from usability.detection.kinds import SEVERITY_RANK, Severity, SignalFamily
from usability.detection.policy import EpisodePolicy
from usability.detection.signals import Evidence, Reason, Signal, Strength
from usability.detection.strip import StripPoint, shown

# Persistence steps: after so many ms the factor applies. Lumilo's labels change at the same times.
PERSISTENCE: tuple[tuple[int, float], ...] = (
    (0, 1.0),
    (45_000, 1.25),
    (60_000, 1.5),
    (120_000, 2.0),
    (300_000, 3.0),
    (600_000, 4.0),
)
SEVERITY_FROM: tuple[tuple[float, Severity], ...] = (
    (12.0, Severity.CRITICAL),
    (4.0, Severity.HIGH),
    (2.0, Severity.MEDIUM),
)

ClosedBy = Literal["evidence", "left"]
Change = Literal["opened", "updated", "escalated", "closed"]


class Finding(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one detector contributed to an episode."""

    detector: str
    version: int
    since_ms: int
    reason: Reason
    evidence: Evidence
    is_raised: bool = True


class Episode(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A continuous stretch of one kind of struggle signal.

    `id` is made from student, app, family and onset: the same observations give the same episode.
    `revision` counts its changes from 1. `closed_ms` and `closed_by` are None while it is open.
    """

    id: str
    student_id: str
    app_name: str
    family: SignalFamily
    onset_ms: int
    opened_ms: int
    severity: Severity
    revision: int
    reason: Reason
    findings: tuple[Finding, ...]
    item: str
    skill: str
    strip: tuple[StripPoint, ...]
    profile_version: int
    changed_ms: int
    closed_ms: int | None = None
    closed_by: ClosedBy | None = None


class EpisodeChange(msgspec.Struct, frozen=True):
    """One change of an episode, in the order they happened."""

    change: Change
    episode: Episode


class FamilyState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where one family of one pupil stands. Zero times mean "none"."""

    active: tuple[Signal, ...] = ()
    onset_ms: int = 0
    episode: Episode | None = None
    clear_ms: int = 0  # since when nothing is raised, while an episode is open
    closed_ms: int = 0  # when the last episode closed; the cooldown counts from here
    closed_severity: Severity = Severity.LOW


class Subject(msgspec.Struct, frozen=True):
    """Whose family it is and what an episode takes along."""

    student_id: str
    app_name: str
    family: SignalFamily
    strip: tuple[StripPoint, ...]
    profile_version: int


Changes = tuple[EpisodeChange, ...]
NO_CHANGES: Changes = ()


def severity_of(signals: tuple[Signal, ...], persisted_ms: int, weight: float) -> Severity:
    """Severity of what is raised, after it has persisted for so long."""
    factor = max(value for from_ms, value in PERSISTENCE if persisted_ms >= from_ms or from_ms == 0)
    score = weight * factor * max(signal.strength for signal in signals) / Strength.WARN
    return next((severity for least, severity in SEVERITY_FROM if score >= least), Severity.LOW)


def hear(
    state: FamilyState, signals: Iterable[Signal], policy: EpisodePolicy, subject: Subject
) -> tuple[FamilyState, Changes]:
    """The family after the signals of one moment, with one change at most."""
    active, before, at_ms = state.active, state.active, 0
    for signal in signals:
        at_ms = max(at_ms, signal.at_ms)
        active = tuple(known for known in active if known.detector != signal.detector)
        active = (*active, signal) if signal.raised else active
    if active == before:
        return state, NO_CHANGES
    if active:
        return _raised(state, active, at_ms, policy, subject)
    if state.episode is None:
        return _without_signals(state), NO_CHANGES
    return msgspec.structs.replace(state, active=(), clear_ms=at_ms), NO_CHANGES


def due_ms(state: FamilyState, policy: EpisodePolicy, family: SignalFamily) -> int | None:
    """When time alone changes the family next; None: never."""
    if state.episode is None:
        return _open_at(state, policy, family) if state.active else None
    if not state.active:
        return state.clear_ms + _clear_ms(policy, family)
    return _exceeds_at(state, state.episode.severity, policy.weights.of(family))


def on_time(
    state: FamilyState, now_ms: int, policy: EpisodePolicy, subject: Subject
) -> tuple[FamilyState, Changes]:
    """The family at `now_ms`, with one change at most: call again while `due_ms` is not after `now_ms`."""
    due = due_ms(state, policy, subject.family)
    if due is None or due > now_ms:
        return state, NO_CHANGES
    if state.episode is None:
        return _opened(state, due, policy, subject)
    if state.active:
        return _judged(state, due, policy, subject)
    return close(state, due, "evidence", subject)


def close(
    state: FamilyState, at_ms: int, closed_by: ClosedBy, subject: Subject
) -> tuple[FamilyState, Changes]:
    """The family with nothing raised and no open episode."""
    if state.episode is None:
        return _without_signals(state), NO_CHANGES
    ended_ms = state.clear_ms or at_ms
    closed = msgspec.structs.replace(
        state.episode,
        revision=state.episode.revision + 1,
        changed_ms=at_ms,
        closed_ms=ended_ms,
        closed_by=closed_by,
        findings=tuple(
            msgspec.structs.replace(finding, is_raised=False) for finding in state.episode.findings
        ),
        strip=shown(subject.strip, at_ms),
    )
    after = FamilyState(closed_ms=at_ms, closed_severity=closed.severity)
    return after, (EpisodeChange("closed", closed),)


def _raised(
    state: FamilyState, active: tuple[Signal, ...], at_ms: int, policy: EpisodePolicy, subject: Subject
) -> tuple[FamilyState, Changes]:
    if state.episode is not None:
        return _judged(msgspec.structs.replace(state, active=active, clear_ms=0), at_ms, policy, subject)
    onset_ms = min(signal.since_ms for signal in active)
    if state.active:
        onset_ms = min(onset_ms, state.onset_ms)
    # What held before the last episode closed belongs to that one.
    state = msgspec.structs.replace(state, active=active, onset_ms=max(onset_ms, state.closed_ms))
    if at_ms >= _open_at(state, policy, subject.family):
        return _opened(state, at_ms, policy, subject)
    return state, NO_CHANGES


def _without_signals(state: FamilyState) -> FamilyState:
    return FamilyState(closed_ms=state.closed_ms, closed_severity=state.closed_severity)


def _opened(
    state: FamilyState, at_ms: int, policy: EpisodePolicy, subject: Subject
) -> tuple[FamilyState, Changes]:
    severity = severity_of(state.active, at_ms - state.onset_ms, policy.weights.of(subject.family))
    told = headline(state.active)
    episode = Episode(
        id=episode_id(subject.student_id, subject.app_name, subject.family, state.onset_ms),
        student_id=subject.student_id,
        app_name=subject.app_name,
        family=subject.family,
        onset_ms=state.onset_ms,
        opened_ms=at_ms,
        severity=severity,
        revision=1,
        reason=told.reason,
        findings=_findings(state.active, ()),
        item=told.item,
        skill=told.skill,
        strip=shown(subject.strip, at_ms),
        profile_version=subject.profile_version,
        changed_ms=at_ms,
    )
    return msgspec.structs.replace(state, episode=episode), (EpisodeChange("opened", episode),)


def _judged(
    state: FamilyState, at_ms: int, policy: EpisodePolicy, subject: Subject
) -> tuple[FamilyState, Changes]:
    """The family with its open episode brought up to date with what is raised."""
    episode = state.episode
    assert episode is not None, "only an open episode is judged"
    now = severity_of(state.active, at_ms - state.onset_ms, policy.weights.of(subject.family))
    severity = max(episode.severity, now, key=SEVERITY_RANK.__getitem__)
    told = headline(state.active)
    findings = _findings(state.active, episode.findings)
    if severity == episode.severity and findings == episode.findings:
        return state, NO_CHANGES
    changed = msgspec.structs.replace(
        episode,
        severity=severity,
        revision=episode.revision + 1,
        reason=told.reason,
        findings=findings,
        item=told.item,
        skill=told.skill,
        strip=shown(subject.strip, at_ms),
        changed_ms=at_ms,
    )
    change: Change = "escalated" if severity != episode.severity else "updated"
    return msgspec.structs.replace(state, episode=changed), (EpisodeChange(change, changed),)


def headline(active: tuple[Signal, ...]) -> Signal:
    """The signal whose words stand on the card: the strongest, of those the one that has held longest."""
    return min(active, key=lambda signal: (-signal.strength, signal.since_ms, signal.detector))


def _findings(active: tuple[Signal, ...], before: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """What is raised, and what was raised earlier in the episode, by detector name."""
    found = {known.detector: msgspec.structs.replace(known, is_raised=False) for known in before}
    for signal in active:
        found[signal.detector] = Finding(
            signal.detector, signal.version, signal.since_ms, signal.reason, signal.evidence
        )
    return tuple(found[name] for name in sorted(found))


def _open_at(state: FamilyState, policy: EpisodePolicy, family: SignalFamily) -> int:
    if family == SignalFamily.HELP:
        return state.onset_ms
    held_ms = state.onset_ms + policy.hold_s * 1000
    if not state.closed_ms:
        return held_ms
    cooled_ms = state.closed_ms + policy.cooldown_s * 1000
    worse_ms = _exceeds_at(state, state.closed_severity, policy.weights.of(family))
    return max(held_ms, cooled_ms if worse_ms is None else min(cooled_ms, worse_ms))


def _clear_ms(policy: EpisodePolicy, family: SignalFamily) -> int:
    return 0 if family == SignalFamily.HELP else policy.clear_s * 1000


def _exceeds_at(state: FamilyState, known: Severity, weight: float) -> int | None:
    """The persistence step at which what is raised is worse than `known`; None: it never gets worse."""
    for step_ms, _ in PERSISTENCE:
        severity = severity_of(state.active, step_ms, weight)
        if SEVERITY_RANK[severity] > SEVERITY_RANK[known]:
            return state.onset_ms + step_ms
    return None


def episode_id(student_id: str, app_name: str, family: SignalFamily, onset_ms: int) -> str:
    """A UUID that names the episode; the parts are length-prefixed, so no two pupils can collide."""
    parts = msgspec.msgpack.encode((student_id, app_name, family.value, onset_ms))
    return str(UUID(bytes=blake2b(parts, digest_size=16).digest(), version=5))
