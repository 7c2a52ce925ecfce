"""Why a pupil is, or is not, on the teacher's screen at a moment. Pure: the state of that moment and its policy in.

The state of a moment in the past is `rebuild(..., now_ms=moment)` of the rows received up to it.
"""

from collections.abc import Mapping
from typing import Literal, cast

import msgspec

from usability.detection import engine, episodes
from usability.detection.budget import Controls, HeldBack, decide, full
from usability.detection.classroom import REORDER_MS, ClassroomState, Desk, topics_of
from usability.detection.engine import Listener
from usability.detection.episodes import FamilyState
from usability.detection.kinds import ALERT_SEVERITY, SignalFamily
from usability.detection.policy import DEFAULT, Profile
from usability.detection.practice import NO_NORMS, Norms
from usability.detection.signals import Evidence, Reason
from usability.detection.skill_detector import AnySkillDetector, Standing

Status = Literal[
    "interrupted",  # an open episode that has interrupted
    "listed",  # an open episode in the ranked list; `held_back` says what keeps it from interrupting now
    "held",  # something is raised, but not for long enough yet: until `until_ms`
    "cooldown",  # something is raised, soon after an episode of its family: until `until_ms`
    "closing",  # nothing is raised any more; the episode closes at `until_ms` unless it comes back
    "below",  # the rule is below its threshold, by the numbers of `evidence`
    "gone",  # nothing was received for so long that the pupil counts as gone
    "unknown",  # nothing of this pupil is known at that moment
]


class Explanation(msgspec.Struct, frozen=True):
    """Where one family, or below a threshold one rule, of a pupil stands. Times in unix ms, 0 where there is none."""

    status: Status
    app_name: str = ""
    family: str = ""
    detector: str = ""
    held_back: HeldBack = ""
    since_ms: int = 0
    until_ms: int = 0
    reason: Reason = Reason("", "")
    evidence: Evidence = Evidence()


def explain(
    state: ClassroomState,
    student_id: str,
    *,
    now_ms: int,
    profile: Profile = DEFAULT,
    app_profiles: Mapping[str, Profile] | None = None,
    controls: Controls | None = None,
) -> list[Explanation]:
    """Everything that answers "why (not)?" for a pupil at `now_ms`, the clock of `state`; never empty."""
    found: list[Explanation] = []
    for (student, app_name), desk in sorted(state.desks.items()):
        if student == student_id:
            own = (app_profiles or {}).get(app_name, profile)
            found += _of_desk(state, desk, now_ms, profile, own, controls or Controls())
    return found or [Explanation("unknown")]


def _of_desk(
    state: ClassroomState, desk: Desk, now_ms: int, room: Profile, own: Profile, controls: Controls
) -> list[Explanation]:
    student = desk.student
    found = [
        _of_family(state, desk, family, known, now_ms, room, own, controls)
        for family, known in sorted(student.families.items())
        if known.active or known.episode is not None
    ]
    if student.has_left:
        found.append(Explanation("gone", student.app_name, since_ms=student.watermark_ms))
    raised = {signal.detector.partition(".")[0] for signal in engine.raised_signals(student)}
    norms = state.norms.get(student.app_name, NO_NORMS)
    for listener in engine.plan(own).enabled:
        if listener.detector.name in raised:
            continue
        evidence = _near(desk, listener, now_ms - REORDER_MS, norms)
        if evidence.numbers:
            found.append(
                Explanation(
                    "below",
                    student.app_name,
                    listener.detector.family,
                    listener.detector.name,
                    evidence=evidence,
                )
            )
    return found


def _of_family(
    state: ClassroomState,
    desk: Desk,
    family: SignalFamily,
    known: FamilyState,
    now_ms: int,
    room: Profile,
    own: Profile,
    controls: Controls,
) -> Explanation:
    app_name = desk.student.app_name
    episode = known.episode
    due_ms = episodes.due_ms(known, own.episodes, family) or 0
    if episode is None:
        signal = episodes.headline(known.active)
        is_cooling = due_ms > known.onset_ms + own.episodes.hold_s * 1000
        return Explanation(
            "cooldown" if is_cooling else "held",
            app_name,
            family,
            signal.detector,
            since_ms=known.onset_ms,
            until_ms=due_ms,
            reason=signal.reason,
            evidence=signal.evidence,
        )
    told = episodes.Finding("", 0, 0, episode.reason, Evidence())
    first = next((each for each in episode.findings if each.reason == episode.reason), told)
    status: Status = "closing" if not known.active else "listed"
    held_back: HeldBack = ""
    if known.active and episode.id in state.told:
        status = "interrupted"
    elif known.active:
        _, verdict = decide(
            state.budget or full(room.budget),
            now_ms=now_ms,
            severity=ALERT_SEVERITY[episode.severity],
            family=family,
            student_id=desk.student.student_id,
            is_in_class_card=any(topic in state.cards for topic in topics_of(episode)),
            policy=room.budget,
            quiet_hours=room.quiet_hours,
            controls=controls,
        )
        held_back = verdict.held_back
    return Explanation(
        status,
        app_name,
        family,
        first.detector,
        held_back,
        since_ms=episode.onset_ms,
        until_ms=due_ms if status == "closing" else 0,
        reason=episode.reason,
        evidence=first.evidence,
    )


def _near(desk: Desk, listener: Listener, now_ms: int, norms: Norms) -> Evidence:
    detector, student = listener.detector, desk.student
    if not detector.follows_practice:
        return detector.near(student.states[listener.slot], now_ms, listener.params)
    skill = next(reversed(student.practice.skills), None)
    if skill is None:
        return Evidence()
    standing = Standing(skill, student.practice, norms)
    return cast("AnySkillDetector", detector).near_practice(standing, listener.params)
