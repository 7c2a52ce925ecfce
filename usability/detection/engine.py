"""One pupil in one app: detectors and episodes, folded together in event time.

Timers run before each observation up to its time, in the order in which they are due, so the result does not
depend on how often a worker looks.
"""

from copy import copy
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from usability.detection import episodes
from usability.detection.detector import Params, is_activity
from usability.detection.episodes import EpisodeChange, FamilyState, Subject
from usability.detection.kinds import MetricType, Presence, SignalFamily
from usability.detection.observations import Observation
from usability.detection.policy import Profile
from usability.detection.registry import DETECTORS, AnyDetector
from usability.detection.signals import Signal
from usability.detection.strip import StripPoint, extended

NEVER = 1 << 62
IDLE_SEAT_MS = 20_000  # Lumilo's first tier: a state of the seat, not a signal
FORGET_MS = 7_200_000  # silent for so long: the pupil's state is dropped

# Signals of these make no episode: recovery makes a positive card, app health speaks of the app, a rating
# joins what is open.
WITHOUT_EPISODES = frozenset({SignalFamily.RECOVERY, SignalFamily.APP_HEALTH, SignalFamily.RATING})

Happening = EpisodeChange | Signal


class StudentState(msgspec.Struct):
    """Everything known of one pupil in one app. `step` copies it before it changes it."""

    student_id: str
    app_name: str
    states: list[Any]  # one a detector, in the order of the registry
    families: dict[SignalFamily, FamilyState]
    session_id: str = ""
    watermark_ms: int = 0  # (watermark_ms, watermark_id): the last observation folded
    watermark_id: str = ""
    last_activity_ms: int = 0
    is_in_front: bool = True
    has_left: bool = False
    strip: tuple[StripPoint, ...] = ()
    last_episode_ms: int = 0  # when an episode was last open
    due_ms: int = NEVER  # event time of the next timer

    def copied(self) -> "StudentState":
        """A copy whose lists may be changed."""
        other = copy(self)
        other.states = list(self.states)
        other.families = dict(self.families)
        return other


class Listener(NamedTuple):
    """An enabled detector with its parameters; `slot` is the place of its state."""

    slot: int
    detector: AnyDetector
    params: Params


class Plan(NamedTuple):
    """A profile made ready: who listens to what, who has timers."""

    listeners: dict[str, tuple[Listener, ...]]
    at_once: dict[str, tuple[Listener, ...]]
    timers: tuple[Listener, ...]


@lru_cache(maxsize=512)
def plan(profile: Profile) -> Plan:
    """The plan of a profile: its enabled detectors by what they listen to."""
    enabled = tuple(
        Listener(slot, detector, params)
        for slot, (detector, params) in enumerate(zip(DETECTORS, profile.detectors, strict=True))
        if params.enabled
    )
    types = {name for listener in enabled for name in listener.detector.listens}
    return Plan(
        listeners={
            name: tuple(
                listener
                for listener in enabled
                if name in listener.detector.listens and name not in listener.detector.at_once
            )
            for name in types
        },
        at_once={
            name: tuple(listener for listener in enabled if name in listener.detector.at_once)
            for name in types
            if any(name in listener.detector.at_once for listener in enabled)
        },
        timers=tuple(listener for listener in enabled if "on_time" in type(listener.detector).__dict__),
    )


def new_student(student_id: str, app_name: str) -> StudentState:
    """A pupil of whom nothing is known yet."""
    return StudentState(student_id, app_name, [detector.start() for detector in DETECTORS], {})


def advance(
    student: StudentState, observation: Observation, profile: Profile
) -> tuple[StudentState, list[Happening]]:
    """The pupil after one observation, with what happened up to it and by it; the given state stays as it is."""
    after = student.copied()
    happenings = run_timers(after, observation.at_ms, profile)
    return after, happenings + fold(after, observation, profile)


def advance_time(
    student: StudentState, now_ms: int, profile: Profile
) -> tuple[StudentState, list[Happening]]:
    """The pupil at event time `now_ms`, with what time alone brought about."""
    after = student.copied()
    return after, run_timers(after, now_ms, profile)


def fold(student: StudentState, observation: Observation, profile: Profile) -> list[Happening]:
    """Fold one observation into `student`, whose timers have been run up to it."""
    happenings: list[Happening] = []
    at_ms = observation.at_ms
    if student.has_left or (observation.session_id and observation.session_id != student.session_id):
        happenings += _new_session(student, observation, profile)
    student.watermark_ms, student.watermark_id = at_ms, observation.id
    if is_activity(observation):
        student.last_activity_ms = at_ms
        student.is_in_front = True
    elif observation.metric_type == MetricType.BLUR:
        student.is_in_front = False
    student.strip = extended(student.strip, observation)
    ready = plan(profile)
    happenings += _listened(student, ready.listeners.get(observation.metric_type, ()), observation, profile)
    student.due_ms = _next_due(student, ready, profile)
    return happenings


def fold_at_once(student: StudentState, observation: Observation, profile: Profile) -> list[Happening]:
    """Fold an observation into the detectors that take its type on receipt, whatever else is still on its way."""
    ready = plan(profile)
    happenings = _listened(student, ready.at_once.get(observation.metric_type, ()), observation, profile)
    student.has_left = False
    student.due_ms = _next_due(student, ready, profile)
    return happenings


def run_timers(student: StudentState, until_ms: int, profile: Profile) -> list[Happening]:
    """Let time pass for `student` up to `until_ms`, each timer at the moment it is due."""
    happenings: list[Happening] = []
    while student.due_ms <= until_ms:
        happenings += _run_due(student, student.due_ms, profile)
        student.due_ms = _next_due(student, plan(profile), profile)
    return happenings


def presence(student: StudentState, now_ms: int) -> Presence:
    """What the pupil's seat shows besides signals."""
    if student.has_left:
        return Presence.GONE
    if not student.is_in_front:
        return Presence.AWAY
    return Presence.IDLE if now_ms - student.last_activity_ms > IDLE_SEAT_MS else Presence.ACTIVE


def raised_signals(student: StudentState) -> list[Signal]:
    """All that is raised now, shown or not yet."""
    return [signal for family in student.families.values() for signal in family.active]


def _run_due(student: StudentState, now_ms: int, profile: Profile) -> list[Happening]:
    signals: list[Signal] = []
    for slot, detector, params in plan(profile).timers:
        due = detector.due_ms(student.states[slot], params)
        if due is not None and due <= now_ms:
            student.states[slot], found = detector.on_time(student.states[slot], now_ms, params)
            signals += found
    happenings = _heard(student, signals, profile)
    for family, state in list(student.families.items()):
        due = episodes.due_ms(state, profile.episodes, family)
        if due is not None and due <= now_ms:
            after, changes = episodes.on_time(
                state, now_ms, profile.episodes, _subject(student, family, profile)
            )
            happenings += _changed(student, family, after, changes)
    if _left_at(student, profile) <= now_ms:
        happenings += _leave(student, now_ms, profile)
    return happenings


def _next_due(student: StudentState, ready: Plan, profile: Profile) -> int:
    due = _left_at(student, profile)
    states = student.states
    for slot, detector, params in ready.timers:
        timer = detector.due_ms(states[slot], params)
        if timer is not None and timer < due:
            due = timer
    for family, state in student.families.items():
        timer = episodes.due_ms(state, profile.episodes, family)
        if timer is not None and timer < due:
            due = timer
    return due


def _listened(
    student: StudentState, listeners: tuple[Listener, ...], observation: Observation, profile: Profile
) -> list[Happening]:
    signals: list[Signal] = []
    for slot, detector, params in listeners:
        student.states[slot], found = detector.advance(student.states[slot], observation, params)
        signals += found
    return _heard(student, signals, profile) if signals else []


def _heard(student: StudentState, signals: list[Signal], profile: Profile) -> list[Happening]:
    """Hand the signals of one moment to their families, each family's together."""
    happenings: list[Happening] = [
        signal
        for signal in signals
        if signal.family in WITHOUT_EPISODES - {SignalFamily.RATING} and signal.raised
    ]
    for family, heard in _by_family(student, signals).items():
        state = student.families.get(family, FamilyState())
        after, changes = episodes.hear(state, heard, profile.episodes, _subject(student, family, profile))
        happenings += _changed(student, family, after, changes)
    return happenings


def _by_family(student: StudentState, signals: list[Signal]) -> dict[SignalFamily, list[Signal]]:
    """The signals by the family that hears them; a rating is heard by whatever is open."""
    heard: dict[SignalFamily, list[Signal]] = {}
    for signal in signals:
        if signal.family == SignalFamily.RATING:
            for family, state in student.families.items():
                if state.episode is not None and state.active:
                    heard.setdefault(family, []).append(msgspec.structs.replace(signal, family=family))
        elif signal.family not in WITHOUT_EPISODES:
            heard.setdefault(signal.family, []).append(signal)
    return heard


def _changed(
    student: StudentState, family: SignalFamily, after: FamilyState, changes: episodes.Changes
) -> list[Happening]:
    student.families[family] = after
    for change in changes:
        student.last_episode_ms = max(student.last_episode_ms, change.episode.changed_ms)
    return list(changes)


def _subject(student: StudentState, family: SignalFamily, profile: Profile) -> Subject:
    return Subject(student.student_id, student.app_name, family, student.strip, profile.version)


def _left_at(student: StudentState, profile: Profile) -> int:
    if student.has_left or not student.watermark_ms:
        return NEVER
    return student.watermark_ms + profile.episodes.left_s * 1000


def _leave(student: StudentState, at_ms: int, profile: Profile) -> list[Happening]:
    """Nothing was received for so long that the pupil must have left: whatever is open is closed."""
    happenings = _close_all(student, at_ms, profile)
    student.has_left = True
    return happenings


def _new_session(student: StudentState, observation: Observation, profile: Profile) -> list[Happening]:
    happenings = _close_all(student, observation.at_ms, profile)
    student.session_id = observation.session_id
    student.has_left = False
    return happenings


def _close_all(student: StudentState, at_ms: int, profile: Profile) -> list[Happening]:
    """End what is open and let every detector begin a new session. A request for help outlives a reload."""
    happenings: list[Happening] = []
    for slot, detector in enumerate(DETECTORS):
        if not detector.at_once:
            student.states[slot] = detector.new_session(student.states[slot])
    for family, state in list(student.families.items()):
        if family != SignalFamily.HELP:
            after, changes = episodes.close(state, at_ms, "left", _subject(student, family, profile))
            happenings += _changed(student, family, after, changes)
    return happenings
