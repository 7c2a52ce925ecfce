"""One pupil in one app: detectors and episodes, folded together in event time.

Timers run before each observation up to its time, in the order in which they are due, so the result does not
depend on how often a worker looks.
"""

from copy import copy
from functools import lru_cache
from typing import Any, NamedTuple, cast

import msgspec

from usability.detection import episodes
from usability.detection.detector import ACTIVITY, Detector, Params
from usability.detection.episodes import EpisodeChange, FamilyState, Subject
from usability.detection.kinds import MetricType, Presence, SignalFamily
from usability.detection.observations import Observation
from usability.detection.policy import Profile
from usability.detection.practice import NO_NORMS, NO_PRACTICE, Norms, Practice
from usability.detection.registry import DETECTORS, AnyDetector
from usability.detection.signals import Signal
from usability.detection.skill_detector import AnySkillDetector, Standing
from usability.detection.strip import StripPoint, extended

NEVER = 1 << 62
IDLE_SEAT_MS = 20_000  # Lumilo's first tier: a state of the seat, not a signal
FORGET_MS = 7_200_000  # silent for so long: the pupil's state is dropped

# Signals of these make no episode: recovery makes a positive card, app health speaks of the app, a rating
# joins what is open.
WITHOUT_EPISODES = frozenset({SignalFamily.RECOVERY, SignalFamily.APP_HEALTH, SignalFamily.RATING})

Happening = EpisodeChange | Signal


class StudentState(msgspec.Struct, array_like=True):
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
    practice: Practice = NO_PRACTICE
    # When each detector's timer is due, and in the last place the families'; they hold for the plan below only.
    dues: list[int] = []
    plan: Any = None

    def copied(self) -> "StudentState":
        """A copy whose lists may be changed."""
        other = copy(self)
        other.states = list(self.states)
        other.families = dict(self.families)
        other.dues = list(self.dues)
        return other

    def kept(self) -> "StudentState":
        """What a snapshot needs of it: without the times of timers, which follow from the rest."""
        return msgspec.structs.replace(self, dues=[], plan=None)


class Listener(NamedTuple):
    """An enabled detector with its parameters; `slot` is the place of its state."""

    slot: int
    detector: AnyDetector
    params: Params
    has_timer: bool


class Audience(NamedTuple):
    """Who hears a metric type: in turn, on receipt, and with the practice of a skill."""

    in_turn: tuple[Listener, ...] = ()
    at_once: tuple[Listener, ...] = ()
    of_practice: tuple[Listener, ...] = ()
    is_activity: bool = False


NOBODY = Audience()


class Plan(NamedTuple):
    """A profile made ready: who listens to what, who has timers."""

    profile: Profile
    audiences: dict[str, Audience]
    enabled: tuple[Listener, ...]
    timers: tuple[Listener, ...]
    left_ms: int

    def audience(self, metric_type: str) -> Audience:
        """Who hears this type; nobody where no detector knows it."""
        return self.audiences.get(metric_type, NOBODY)


@lru_cache(maxsize=512)
def plan(profile: Profile) -> Plan:
    """The plan of a profile: its enabled detectors by what they listen to."""
    enabled = tuple(
        Listener(slot, detector, params, _has_timer(detector))
        for slot, (detector, params) in enumerate(zip(DETECTORS, profile.detectors, strict=True))
        if params.enabled
    )
    types = {name for listener in enabled for name in listener.detector.listens} | ACTIVITY
    return Plan(
        profile=profile,
        audiences={name: _audience(name, enabled) for name in types},
        enabled=enabled,
        timers=tuple(listener for listener in enabled if listener.has_timer),
        left_ms=profile.episodes.left_s * 1000,
    )


def _has_timer(detector: AnyDetector) -> bool:
    return type(detector).due_ms is not Detector.due_ms


def _audience(name: str, enabled: tuple[Listener, ...]) -> Audience:
    hears = [listener for listener in enabled if name in listener.detector.listens]
    return Audience(
        in_turn=tuple(
            each for each in hears if name not in each.detector.at_once and not each.detector.follows_practice
        ),
        at_once=tuple(each for each in hears if name in each.detector.at_once),
        of_practice=tuple(each for each in hears if each.detector.follows_practice),
        is_activity=name in ACTIVITY,
    )


def new_student(student_id: str, app_name: str) -> StudentState:
    """A pupil of whom nothing is known yet."""
    return StudentState(student_id, app_name, [detector.start() for detector in DETECTORS], {})


def advance(
    student: StudentState, observation: Observation, profile: Profile, norms: Norms = NO_NORMS
) -> tuple[StudentState, list[Happening]]:
    """The pupil after one observation, with what happened up to it and by it; the given state stays as it is."""
    after, ready = student.copied(), plan(profile)
    happenings = run_timers(after, observation.at_ms, ready)
    return after, happenings + fold(after, observation, ready, norms)


def advance_time(
    student: StudentState, now_ms: int, profile: Profile
) -> tuple[StudentState, list[Happening]]:
    """The pupil at event time `now_ms`, with what time alone brought about."""
    after = student.copied()
    return after, run_timers(after, now_ms, plan(profile))


def fold(student: StudentState, observation: Observation, ready: Plan, norms: Norms) -> list[Happening]:
    """Fold one observation into `student`, whose timers have been run up to it."""
    happenings: list[Happening] = []
    at_ms, kind = observation.at_ms, observation.metric_type
    audience = ready.audiences.get(kind, NOBODY)
    if student.plan is not ready:
        _plan_timers(student, ready)
    if student.has_left or (observation.session_id and observation.session_id != student.session_id):
        happenings += _new_session(student, observation, ready)
    student.watermark_ms, student.watermark_id = at_ms, observation.id
    if audience.is_activity:
        if observation.value > 0 or kind == MetricType.ANSWER:
            student.last_activity_ms = at_ms
            student.is_in_front = True
    elif kind == MetricType.BLUR:
        student.is_in_front = False
    student.strip = extended(student.strip, observation)
    signals = _told(student, audience.in_turn, observation)
    if kind == MetricType.ANSWER and observation.skill:
        signals += _told_practice(student, audience.of_practice, observation, norms)
    if signals:
        happenings += _heard(student, signals, ready)
    student.due_ms = _next_due(student, ready)
    return happenings


def fold_at_once(student: StudentState, observation: Observation, ready: Plan) -> list[Happening]:
    """Fold an observation into the detectors that take its type on receipt, whatever else is still on its way."""
    if student.plan is not ready:
        _plan_timers(student, ready)
    signals = _told(student, ready.audience(observation.metric_type).at_once, observation)
    happenings = _heard(student, signals, ready) if signals else []
    student.has_left = False
    student.due_ms = _next_due(student, ready)
    return happenings


def run_timers(student: StudentState, until_ms: int, ready: Plan) -> list[Happening]:
    """Let time pass for `student` up to `until_ms`, each timer at the moment it is due."""
    if student.plan is not ready:
        _plan_timers(student, ready)
    happenings: list[Happening] = []
    while student.due_ms <= until_ms:
        happenings += _run_due(student, student.due_ms, ready)
        student.due_ms = _next_due(student, ready)
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


def _plan_timers(student: StudentState, ready: Plan) -> None:
    """Find when everything is due under a plan that is new to this pupil."""
    student.plan = ready
    student.dues = [NEVER] * (len(DETECTORS) + 1)
    for listener in ready.timers:
        _plan_timer(student, listener)
    _plan_families(student, ready)
    student.due_ms = _next_due(student, ready)


def _next_due(student: StudentState, ready: Plan) -> int:
    due, left_ms = min(student.dues), _left_at(student, ready)
    return due if due < left_ms else left_ms  # noqa: FURB136  called for every observation


def _plan_timer(student: StudentState, listener: Listener) -> None:
    due = listener.detector.due_ms(student.states[listener.slot], listener.params)
    student.dues[listener.slot] = NEVER if due is None else due


def _plan_families(student: StudentState, ready: Plan) -> None:
    policy = ready.profile.episodes
    dues = [episodes.due_ms(state, policy, family) for family, state in student.families.items()]
    student.dues[-1] = min((due for due in dues if due is not None), default=NEVER)


def _run_due(student: StudentState, now_ms: int, ready: Plan) -> list[Happening]:
    signals: list[Signal] = []
    for listener in ready.timers:
        slot = listener.slot
        if student.dues[slot] <= now_ms:
            student.states[slot], found = listener.detector.on_time(
                student.states[slot], now_ms, listener.params
            )
            _plan_timer(student, listener)
            signals += found
    happenings = _heard(student, signals, ready) if signals else []
    if student.dues[-1] <= now_ms:
        policy = ready.profile.episodes
        for family, state in list(student.families.items()):
            due = episodes.due_ms(state, policy, family)
            if due is not None and due <= now_ms:
                after, changes = episodes.on_time(state, now_ms, policy, _subject(student, family, ready))
                happenings += _changed(student, family, after, changes)
        _plan_families(student, ready)
    if _left_at(student, ready) <= now_ms:
        happenings += _leave(student, now_ms, ready)
    return happenings


def _told(student: StudentState, listeners: tuple[Listener, ...], observation: Observation) -> list[Signal]:
    """Hand an observation to detectors; the signals they give."""
    signals: list[Signal] = []
    states, dues = student.states, student.dues
    for slot, detector, params, has_timer in listeners:
        before = states[slot]
        after, found = detector.advance(before, observation, params)
        if after is not before:
            states[slot] = after
            if has_timer:
                due = detector.due_ms(after, params)
                dues[slot] = NEVER if due is None else due
        if found:
            signals += found
    return signals


def _told_practice(
    student: StudentState, listeners: tuple[Listener, ...], observation: Observation, norms: Norms
) -> list[Signal]:
    """Count an answer at a skill, and hand it to the detectors of practice."""
    signals: list[Signal] = []
    student.practice = student.practice.after(
        observation.skill, correct=bool(observation.correct), norms=norms
    )
    standing = Standing(observation.skill, student.practice, norms)
    for listener in listeners:
        detector = cast("AnySkillDetector", listener.detector)
        student.states[listener.slot], found = detector.advance_practice(
            student.states[listener.slot], observation, listener.params, standing
        )
        _plan_timer(student, listener)
        signals += found
    return signals


def _heard(student: StudentState, signals: list[Signal], ready: Plan) -> list[Happening]:
    """Hand the signals of one moment to their families, each family's together."""
    happenings: list[Happening] = [
        signal
        for signal in signals
        if signal.family in WITHOUT_EPISODES - {SignalFamily.RATING} and signal.raised
    ]
    policy = ready.profile.episodes
    for family, heard in _by_family(student, signals).items():
        state = student.families.get(family, FamilyState())
        after, changes = episodes.hear(state, heard, policy, _subject(student, family, ready))
        happenings += _changed(student, family, after, changes)
    _plan_families(student, ready)
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


def _subject(student: StudentState, family: SignalFamily, ready: Plan) -> Subject:
    return Subject(student.student_id, student.app_name, family, student.strip, ready.profile.version)


def _left_at(student: StudentState, ready: Plan) -> int:
    if student.has_left or not student.watermark_ms:
        return NEVER
    return student.watermark_ms + ready.left_ms


def _leave(student: StudentState, at_ms: int, ready: Plan) -> list[Happening]:
    """Nothing was received for so long that the pupil must have left: whatever is open is closed."""
    happenings = _close_all(student, at_ms, ready)
    student.has_left = True
    return happenings


def _new_session(student: StudentState, observation: Observation, ready: Plan) -> list[Happening]:
    happenings = _close_all(student, observation.at_ms, ready)
    student.session_id = observation.session_id
    student.has_left = False
    return happenings


def _close_all(student: StudentState, at_ms: int, ready: Plan) -> list[Happening]:
    """End what is open and let every detector begin a new session. A request for help outlives a reload."""
    happenings: list[Happening] = []
    for slot, detector in enumerate(DETECTORS):
        if not detector.at_once:
            student.states[slot] = detector.new_session(student.states[slot])
    for family, state in list(student.families.items()):
        if family != SignalFamily.HELP:
            after, changes = episodes.close(state, at_ms, "left", _subject(student, family, ready))
            happenings += _changed(student, family, after, changes)
    _plan_timers(student, ready)
    return happenings
