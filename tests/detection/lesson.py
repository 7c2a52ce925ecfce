"""A lesson written down as what a pupil does, second by second, and what detection makes of it."""

from collections.abc import Iterable
from typing import Any

from usability.detection import classroom
from usability.detection.classroom import ClassroomState, Decision
from usability.detection.detector import Detector
from usability.detection.kinds import SignalFamily
from usability.detection.observations import Observation, from_metric
from usability.detection.policy import DEFAULT, Profile
from usability.detection.practice import NO_NORMS, NO_PRACTICE
from usability.detection.signals import Signal
from usability.detection.skill_detector import SkillDetector, Standing

START_MS = 1_760_000_000_000


class Pupil:
    """Writes observations of one pupil; times in seconds since the start of the lesson."""

    def __init__(self, student_id: str = "pupil-1", app_name: str = "maths", session_id: str = "") -> None:
        self.student_id = student_id
        self.app_name = app_name
        self.session_id = session_id
        self.observations: list[Observation] = []

    def does(
        self, at_s: float, metric_type: str, value: float = 1.0, *, delay_s: float = 0.0, **metadata: Any
    ) -> "Pupil":
        at_ms = START_MS + round(at_s * 1000)
        self.observations.append(
            from_metric(
                id=f"{self.student_id}-{len(self.observations):06d}",
                student_id=self.student_id,
                app_name=self.app_name,
                metric_type=metric_type,
                metric_value=value,
                at_ms=at_ms,
                received_ms=at_ms + round(delay_s * 1000),
                session_id=self.session_id,
                metadata=metadata,
            )
        )
        return self

    def answers(self, marks: str, *, from_s: float = 10.0, every_s: float = 10.0, **metadata: Any) -> "Pupil":
        """One answer a mark: "+" right, "-" wrong."""
        for index, mark in enumerate(marks):
            self.does(from_s + index * every_s, "answer", 1.0 if mark == "+" else 0.0, **metadata)
        return self


def signals_of(
    detector: Detector[Any, Any], pupil: Pupil, *, until_s: float | None = None, **params: Any
) -> list[Signal]:
    """What one detector alone says to a pupil's lesson, timers at the moments they are due."""
    chosen = detector.Params(**params)
    state, found, practice = detector.start(), [], NO_PRACTICE
    for observation in pupil.observations:
        state, found = _until(detector, state, found, observation.at_ms, chosen)
        if observation.metric_type not in detector.listens:
            continue
        if isinstance(detector, SkillDetector):
            if not observation.skill:
                continue
            practice = practice.after(observation.skill, correct=bool(observation.correct), norms=NO_NORMS)
            standing = Standing(observation.skill, practice, NO_NORMS)
            state, signals = detector.advance_practice(state, observation, chosen, standing)
        else:
            state, signals = detector.advance(state, observation, chosen)
        found = [*found, *signals]
    if until_s is not None:
        state, found = _until(detector, state, found, START_MS + round(until_s * 1000), chosen)
    return found


def _until(
    detector: Detector[Any, Any], state: Any, found: list[Signal], now_ms: int, params: Any
) -> tuple[Any, list[Signal]]:
    while (due := detector.due_ms(state, params)) is not None and due <= now_ms:
        state, signals = detector.on_time(state, due, params)
        found = [*found, *signals]
    return state, found


def told(signals: Iterable[Signal]) -> list[tuple[float, str]]:
    """Signals as (second, words); a cleared one has the words "cleared"."""
    return [
        ((signal.at_ms - START_MS) / 1000, signal.reason.text if signal.raised else "cleared")
        for signal in signals
    ]


def observed(*pupils: Pupil) -> list[Observation]:
    return [observation for pupil in pupils for observation in pupil.observations]


def run(
    *pupils: Pupil, until_s: float, profile: Profile = DEFAULT, **kwargs: Any
) -> tuple[ClassroomState, list[Decision]]:
    """The whole lesson in one step."""
    return classroom.rebuild(
        "room-1",
        observed(*pupils),
        now_ms=START_MS + round(until_s * 1000),
        profile=profile,
        **kwargs,
    )


def story(decisions: Iterable[Decision], family: SignalFamily | None = None) -> list[tuple[float, str, str]]:
    """Decisions about episodes as (event second, kind, severity), of one family if given."""
    return [
        (
            (decision.episode.changed_ms - START_MS) / 1000,
            type(decision).__name__,
            decision.episode.severity.value,
        )
        for decision in decisions
        if hasattr(decision, "episode") and family in {None, decision.episode.family}
    ]
