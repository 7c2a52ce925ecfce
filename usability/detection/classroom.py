"""The fold a worker runs for a classroom: observations and time in, decisions out.

Order. An observation is folded once it is `REORDER_MS` (1 s) old in event time and `GATHER_MS` (0.25 s) after
its receipt, so observations up to a second late come out in order and a batch is seen whole. One that comes
later than something already folded for its pupil, is older than `late_s` on receipt, or is marked late by the
client, is never folded: it stays in the database and signals nothing. A repeated one is recognised by its id.
Help requests are handed over on receipt.

Time. `step` moves a clock from receipt to receipt and then to `now_ms`, and does everything at the moment it
was due. So the decisions depend on the observations and their receipt stamps alone, not on how they were cut
into steps, and `rebuild` from stored rows gives the undisturbed state. A worker that is behind its stream
passes the receipt stamp of the last entry it has read as `now_ms`.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heappush

import msgspec

from usability.detection import class_stuck, engine
from usability.detection.budget import Budget, Controls, HeldBack, Verdict, decide, full
from usability.detection.class_stuck import ClassCard, Topic
from usability.detection.engine import Happening, Plan, StudentState
from usability.detection.episodes import Episode, EpisodeChange
from usability.detection.kinds import (
    ALERT_RANK,
    ALERT_SEVERITY,
    STRUGGLE_FAMILIES,
    AlertSeverity,
    SignalFamily,
)
from usability.detection.observations import Observation
from usability.detection.policy import DEFAULT, Profile
from usability.detection.practice import NO_NORMS, Norms, learned
from usability.detection.registry import DETECTORS
from usability.detection.signals import Evidence, Reason, Signal

FORMAT = 3  # of a snapshot; one of another format is not read
REORDER_MS = 1000
GATHER_MS = 250
PENDING_LIMIT = 5000  # observations of one pupil waiting for their turn
AT_ONCE_IDS = 16
ACTIVE_MS = 300_000  # a pupil counts as active for so long after the last activity
RECOVERY_MS = 900_000  # a positive card only so long after an episode

Key = tuple[str, str]  # student id, app name


class EpisodeOpened(msgspec.Struct, frozen=True, tag=True):
    """A new episode: store the event and the alert. `held_back` says why it does not interrupt."""

    episode: Episode
    alert: AlertSeverity
    interrupts: bool
    held_back: HeldBack


class EpisodeUpdated(msgspec.Struct, frozen=True, tag=True):
    """New evidence or words, same severity."""

    episode: Episode
    alert: AlertSeverity
    interrupts: bool
    held_back: HeldBack


class EpisodeEscalated(msgspec.Struct, frozen=True, tag=True):
    """The episode's severity has grown."""

    episode: Episode
    alert: AlertSeverity
    interrupts: bool
    held_back: HeldBack


class EpisodeClosed(msgspec.Struct, frozen=True, tag=True):
    """The episode is over; `episode.closed_ms` and `closed_by` say when and why."""

    episode: Episode


class Recovered(msgspec.Struct, frozen=True, tag=True):
    """Good news of a pupil who had an episode shortly before; never interrupts."""

    student_id: str
    app_name: str
    at_ms: int
    reason: Reason
    evidence: Evidence


class AppHealth(msgspec.Struct, frozen=True, tag=True):
    """Something about the app itself, found while this pupil used it."""

    student_id: str
    app_name: str
    signal: Signal


class LeftOut(msgspec.Struct, frozen=True, tag=True):
    """An observation that a detector failed on. Every fold leaves out the same; the rest is judged without it."""

    student_id: str
    app_name: str
    metric_type: str
    observation_id: str
    error: str


class ClassStuckOpened(msgspec.Struct, frozen=True, tag=True):
    """Several pupils struggle with the same thing: one card instead of many."""

    card: ClassCard
    interrupts: bool
    held_back: HeldBack


class ClassStuckUpdated(msgspec.Struct, frozen=True, tag=True):
    """The pupils of a class card have changed."""

    card: ClassCard


class ClassStuckClosed(msgspec.Struct, frozen=True, tag=True):
    """Too few are left for a class card."""

    card: ClassCard
    at_ms: int


Decision = (
    EpisodeOpened
    | EpisodeUpdated
    | EpisodeEscalated
    | EpisodeClosed
    | Recovered
    | AppHealth
    | LeftOut
    | ClassStuckOpened
    | ClassStuckUpdated
    | ClassStuckClosed
)


class Desk(msgspec.Struct, array_like=True):
    """One pupil in one app, with the observations that wait for their turn."""

    student: StudentState
    pending: list[Observation] = []  # by (at_ms, id)
    at_once_ids: tuple[str, ...] = ()
    seen_ms: int = 0  # last receipt
    due_ms: int = 0  # clock time of what comes next

    def copied(self) -> "Desk":
        """A copy whose lists may be changed."""
        return Desk(self.student.copied(), list(self.pending), self.at_once_ids, self.seen_ms, self.due_ms)


class ClassroomState(msgspec.Struct):
    """Everything the fold knows of a classroom. `step` returns a new one and leaves the given one alone."""

    classroom_id: str
    clock_ms: int = 0
    desks: dict[Key, Desk] = {}
    budget: Budget | None = None
    told: dict[str, AlertSeverity] = {}  # open episodes that have interrupted, and how severe they were then
    cards: dict[Topic, ClassCard] = {}
    cards_closed_ms: dict[Topic, int] = {}
    late: int = 0  # observations that came too late to be folded, and repeated ones
    norms: dict[str, Norms] = {}  # by app, what pupils whose day is over have found hard


def start(classroom_id: str) -> ClassroomState:
    """A classroom of which nothing is known yet."""
    return ClassroomState(classroom_id)


def step(
    state: ClassroomState,
    observations: Iterable[Observation],
    *,
    now_ms: int,
    roster: frozenset[str] = frozenset(),
    profile: Profile = DEFAULT,
    app_profiles: Mapping[str, Profile] | None = None,
    controls: Controls | None = None,
) -> tuple[ClassroomState, list[Decision]]:
    """The classroom at `now_ms`, with the decisions on the way, in order.

    `profile` is the classroom's; `app_profiles` may give an app another one for its detectors and episodes
    (budget, quiet hours and class_stuck are always the classroom's). An empty `roster` counts whoever is seen.
    """
    room = _Room(state, roster, profile, app_profiles or {}, controls or Controls())
    for observation in sorted(observations, key=receipt_order):
        room.pass_time(observation.received_ms)
        room.receive(observation)
    room.pass_time(now_ms)
    return room.finished(), room.decisions


def rebuild(
    classroom_id: str,
    observations: Iterable[Observation],
    *,
    now_ms: int,
    roster: frozenset[str] = frozenset(),
    profile: Profile = DEFAULT,
    app_profiles: Mapping[str, Profile] | None = None,
    controls: Controls | None = None,
) -> tuple[ClassroomState, list[Decision]]:
    """The state an undisturbed fold would have, from stored observations, and the decisions it would have taken."""
    return step(
        start(classroom_id),
        observations,
        now_ms=now_ms,
        roster=roster,
        profile=profile,
        app_profiles=app_profiles,
        controls=controls,
    )


def open_episodes(state: ClassroomState) -> list[Episode]:
    """All open episodes, longest first."""
    found = [
        family.episode
        for desk in state.desks.values()
        for family in desk.student.families.values()
        if family.episode is not None
    ]
    return sorted(found, key=lambda episode: (episode.onset_ms, episode.id))


def encode(state: ClassroomState) -> bytes:
    """The state as bytes, for a snapshot."""
    return msgspec.msgpack.encode(
        {
            "format": FORMAT,
            "detectors": [(detector.name, detector.version) for detector in DETECTORS],
            "room": msgspec.structs.replace(state, desks={}, cards={}, cards_closed_ms={}),
            "desks": [
                msgspec.structs.replace(desk, student=desk.student.kept()) for desk in state.desks.values()
            ],
            "cards": list(state.cards.values()),
            "cards_closed": list(state.cards_closed_ms.items()),
        }
    )


def decode(payload: bytes) -> ClassroomState | None:
    """The state `encode` wrote; None where other detectors or another version wrote it, then rebuild from the rows."""
    try:
        stored = msgspec.msgpack.decode(payload, type=_Stored)
        detectors = [(detector.name, detector.version) for detector in DETECTORS]
        if stored.format != FORMAT or stored.detectors != detectors:
            return None
        for desk in stored.desks:
            desk.student.states = [
                msgspec.convert(raw, detector.State)
                for raw, detector in zip(desk.student.states, DETECTORS, strict=True)
            ]
    except msgspec.DecodeError:
        return None
    state = stored.room
    state.desks = {(desk.student.student_id, desk.student.app_name): desk for desk in stored.desks}
    state.cards = {card.topic: card for card in stored.cards}
    state.cards_closed_ms = dict(stored.cards_closed)
    return state


class _Stored(msgspec.Struct):
    format: int
    detectors: list[tuple[str, int]]
    room: ClassroomState
    desks: list[Desk]
    cards: list[ClassCard]
    cards_closed: list[tuple[Topic, int]]


def receipt_order(observation: Observation) -> tuple[int, int, str]:
    """The order in which `step` takes observations."""
    return observation.received_ms, observation.at_ms, observation.id


def _turn(observation: Observation) -> tuple[int, str]:
    return observation.at_ms, observation.id


def _is_waiting(pending: list[Observation], turn: tuple[int, str]) -> bool:
    place = bisect_left(pending, turn, key=_turn)
    return place < len(pending) and _turn(pending[place]) == turn


class _Room:
    """The working copy of one `step`. Desks are copied when first touched."""

    def __init__(
        self,
        state: ClassroomState,
        roster: frozenset[str],
        profile: Profile,
        app_profiles: Mapping[str, Profile],
        controls: Controls,
    ) -> None:
        self.state = ClassroomState(
            state.classroom_id,
            state.clock_ms,
            dict(state.desks),
            state.budget or full(profile.budget),
            dict(state.told),
            dict(state.cards),
            dict(state.cards_closed_ms),
            state.late,
            dict(state.norms),
        )
        self.budget = state.budget or full(profile.budget)
        self.roster = roster
        self.profile = profile
        self.app_profiles = app_profiles
        self.controls = controls
        self.decisions: list[Decision] = []
        self.plans: dict[str, Plan] = {}
        self.copied: set[Key] = set()
        # (clock ms, key); an entry that is no longer a desk's next moment is skipped when it comes up.
        self.agenda: list[tuple[int, Key]] = [(desk.due_ms, key) for key, desk in self.state.desks.items()]
        heapify(self.agenda)

    def finished(self) -> ClassroomState:
        self.state.budget = self.budget
        return self.state

    def pass_time(self, clock_ms: int) -> None:
        """Do everything due up to `clock_ms`, in order."""
        agenda = self.agenda
        while agenda and agenda[0][0] <= clock_ms:
            due, key = heappop(agenda)
            desk = self.state.desks.get(key)
            if desk is None or due != desk.due_ms:
                continue
            self.state.clock_ms = max(self.state.clock_ms, due)
            self._catch_up(key, due)
        self.state.clock_ms = max(self.state.clock_ms, clock_ms)

    def receive(self, observation: Observation) -> None:
        """Put an observation in its place among those waiting."""
        plan = self._plan(observation.app_name)
        late_ms = plan.profile.late_s * 1000
        if observation.late or observation.received_ms - observation.at_ms > late_ms:
            self.state.late += 1
            return
        key = (observation.student_id, observation.app_name)
        desk = self._desk(key)
        desk.seen_ms = max(desk.seen_ms, observation.received_ms)
        if plan.audience(observation.metric_type).at_once:
            self._receive_at_once(desk, observation, plan)
        if self._put(desk, observation) and len(desk.pending) > PENDING_LIMIT:
            self._fold_next(desk, plan)
        due = _due(desk)
        if due != desk.due_ms:
            self._schedule(key, desk, due)

    def _put(self, desk: Desk, observation: Observation) -> bool:
        """Let it wait for its turn; False where it is behind what was folded, or waits already."""
        turn, pending = _turn(observation), desk.pending
        if not pending or _turn(pending[-1]) < turn:
            if turn > (desk.student.watermark_ms, desk.student.watermark_id):
                pending.append(observation)
                return True
        elif turn > (desk.student.watermark_ms, desk.student.watermark_id) and not _is_waiting(pending, turn):
            insort(pending, observation, key=_turn)
            return True
        self.state.late += 1
        return False

    def _receive_at_once(self, desk: Desk, observation: Observation, plan: Plan) -> None:
        if observation.id in desk.at_once_ids:
            return
        desk.at_once_ids = (*desk.at_once_ids, observation.id)[-AT_ONCE_IDS:]
        self._tell(desk, engine.fold_at_once(desk.student, observation, plan))

    def _catch_up(self, key: Key, clock_ms: int) -> None:
        """Bring one desk to the clock: fold what has its turn, run its timers, or clear it away."""
        desk, plan = self._desk(key), self._plan(key[1])
        while desk.pending and _settles_at(desk.pending[0]) <= clock_ms:
            self._fold_next(desk, plan)
        student, horizon_ms = desk.student, clock_ms - REORDER_MS
        if student.due_ms <= horizon_ms or student.plan is not plan:
            happenings = engine.run_timers(student, horizon_ms, plan)
            if happenings:
                self._tell(desk, happenings)
        if _forget_at(desk) <= clock_ms:
            self._forget(key, desk)
            return
        self._schedule(key, desk, _due(desk))

    def _forget(self, key: Key, desk: Desk) -> None:
        """A pupil's day is over: what it says about skills stays, without saying whose it was."""
        del self.state.desks[key]
        app_name = key[1]
        if desk.student.practice.skills:
            known = self.state.norms.get(app_name, NO_NORMS)
            self.state.norms[app_name] = learned(known, desk.student.practice)

    def _fold_next(self, desk: Desk, plan: Plan) -> None:
        observation, student = desk.pending.pop(0), desk.student
        norms = self.state.norms.get(student.app_name, NO_NORMS)
        if student.due_ms <= observation.at_ms or student.plan is not plan:
            happenings = engine.run_timers(student, observation.at_ms, plan)
        else:
            happenings = []
        try:
            happenings += engine.fold(student, observation, plan, norms)
        except Exception as error:  # noqa: BLE001  one bad row must not stop a class; the caller tells it
            self.decisions.append(
                LeftOut(
                    observation.student_id,
                    observation.app_name,
                    observation.metric_type,
                    observation.id,
                    type(error).__name__,
                )
            )
        if happenings:
            self._tell(desk, happenings)

    def _desk(self, key: Key) -> Desk:
        if key in self.copied:
            return self.state.desks[key]
        desk = self.state.desks.get(key)
        desk = desk.copied() if desk else Desk(engine.new_student(*key))
        self.state.desks[key] = desk
        self.copied.add(key)
        return desk

    def _schedule(self, key: Key, desk: Desk, due_ms: int) -> None:
        desk.due_ms = due_ms
        heappush(self.agenda, (due_ms, key))

    def _plan(self, app_name: str) -> Plan:
        plan = self.plans.get(app_name)
        if plan is None:
            plan = self.plans[app_name] = engine.plan(self.app_profiles.get(app_name, self.profile))
        return plan

    def _tell(self, desk: Desk, happenings: list[Happening]) -> None:
        for happening in happenings:
            if isinstance(happening, EpisodeChange):
                self._tell_change(happening)
            elif happening.family == SignalFamily.RECOVERY:
                self._tell_recovery(desk.student, happening)
            else:
                self.decisions.append(AppHealth(desk.student.student_id, desk.student.app_name, happening))
        if self.state.cards:
            self._review_cards()

    def _tell_recovery(self, student: StudentState, signal: Signal) -> None:
        if student.last_episode_ms and signal.at_ms - student.last_episode_ms <= RECOVERY_MS:
            self.decisions.append(
                Recovered(student.student_id, student.app_name, signal.at_ms, signal.reason, signal.evidence)
            )

    def _tell_change(self, change: EpisodeChange) -> None:
        episode = change.episode
        if change.change == "closed":
            self.state.told.pop(episode.id, None)
            self.decisions.append(EpisodeClosed(episode))
            return
        if change.change == "opened":
            self._open_card(episode)
        alert = ALERT_SEVERITY[episode.severity]
        verdict = self._verdict(episode, alert)
        if verdict.interrupts:
            self.state.told[episode.id] = alert
        kind = _DECISIONS[change.change]
        self.decisions.append(kind(episode, alert, verdict.interrupts, verdict.held_back))

    def _verdict(self, episode: Episode, alert: AlertSeverity) -> Verdict:
        told = self.state.told.get(episode.id)
        if told is not None and ALERT_RANK[alert] <= ALERT_RANK[told]:
            return Verdict(False, "already_told")
        self.budget, verdict = decide(
            self.budget,
            now_ms=self.state.clock_ms,
            severity=alert,
            family=episode.family,
            student_id=episode.student_id,
            is_in_class_card=any(topic in self.state.cards for topic in topics_of(episode)),
            policy=self.profile.budget,
            quiet_hours=self.profile.quiet_hours,
            controls=self.controls,
        )
        return verdict

    def _open_card(self, episode: Episode) -> None:
        """Open a class card if, with this episode, enough pupils are stuck on the same thing."""
        if episode.family not in STRUGGLE_FAMILIES or any(
            topic in self.state.cards for topic in topics_of(episode)
        ):
            return
        active = self._active_pupils()
        for topic in topics_of(episode):
            students = self._stuck_on(topic)
            closed_ms = self.state.cards_closed_ms.get(topic, 0)
            is_cooling = (
                closed_ms and self.state.clock_ms < closed_ms + self.profile.episodes.cooldown_s * 1000
            )
            if len(students) < class_stuck.needed(active, self.profile.class_stuck) or is_cooling:
                continue
            card = class_stuck.card(
                self.state.classroom_id,
                topic,
                opened_ms=self.state.clock_ms,
                students=students,
                active_pupils=active,
            )
            self.state.cards[topic] = card
            self._tell_card(card)
            return

    def _tell_card(self, card: ClassCard) -> None:
        self.budget, verdict = decide(
            self.budget,
            now_ms=self.state.clock_ms,
            severity=AlertSeverity.WARNING,
            family=None,
            student_id="",
            is_in_class_card=False,
            policy=self.profile.budget,
            quiet_hours=self.profile.quiet_hours,
            controls=self.controls,
        )
        self.decisions.append(ClassStuckOpened(card, verdict.interrupts, verdict.held_back))

    def _review_cards(self) -> None:
        """Close the cards too few are left for, and say where their pupils have changed."""
        active = self._active_pupils()
        for topic, card in list(self.state.cards.items()):
            students = self._stuck_on(topic)
            if 2 * len(students) < class_stuck.needed(active, self.profile.class_stuck):
                del self.state.cards[topic]
                self.state.cards_closed_ms[topic] = self.state.clock_ms
                self.decisions.append(ClassStuckClosed(card, self.state.clock_ms))
            elif students != card.students:
                changed = class_stuck.with_students(card, students, active)
                self.state.cards[topic] = changed
                self.decisions.append(ClassStuckUpdated(changed))
        self._forget_closed_cards()

    def _forget_closed_cards(self) -> None:
        oldest_ms = self.state.clock_ms - self.profile.episodes.cooldown_s * 1000
        self.state.cards_closed_ms = {
            topic: closed_ms
            for topic, closed_ms in self.state.cards_closed_ms.items()
            if closed_ms > oldest_ms
        }

    def _stuck_on(self, topic: Topic) -> tuple[str, ...]:
        signals = (
            (desk.student.student_id, signal)
            for desk in self.state.desks.values()
            for signal in engine.raised_signals(desk.student)
            if signal.family in STRUGGLE_FAMILIES
        )
        return class_stuck.stuck_on(
            topic, signals, self.state.clock_ms - REORDER_MS, self.profile.class_stuck
        )

    def _active_pupils(self) -> int:
        from_ms = self.state.clock_ms - ACTIVE_MS
        active = {
            desk.student.student_id
            for desk in self.state.desks.values()
            if desk.student.last_activity_ms >= from_ms
        }
        return len(active & self.roster if self.roster else active)


_DECISIONS: dict[str, type[EpisodeOpened] | type[EpisodeUpdated] | type[EpisodeEscalated]] = {
    "opened": EpisodeOpened,
    "updated": EpisodeUpdated,
    "escalated": EpisodeEscalated,
}


def _due(desk: Desk) -> int:
    """The clock time at which a desk has something to do next."""
    due, forget_ms = desk.student.due_ms + REORDER_MS, desk.seen_ms + engine.FORGET_MS
    due = min(due, forget_ms)
    if desk.pending and (settles_ms := _settles_at(desk.pending[0])) < due:
        return settles_ms
    return due


def _settles_at(observation: Observation) -> int:
    """The clock time from which an observation may be folded."""
    return max(observation.at_ms + REORDER_MS, observation.received_ms + GATHER_MS)


def _forget_at(desk: Desk) -> int:
    """The clock time at which a silent pupil's state is dropped."""
    return desk.seen_ms + engine.FORGET_MS


def topics_of(episode: Episode) -> tuple[Topic, ...]:
    """What the episode is about: its item, its skill."""
    item = (Topic("item", episode.item),) if episode.item else ()
    return (*item, Topic("skill", episode.skill)) if episode.skill else item
