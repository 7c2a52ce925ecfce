"""One class through one policy: the fold of production, with the alerts it would have raised."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import msgspec

from usability.detection import classroom as fold
from usability.detection.classroom import (
    ClassStuckOpened,
    Decision,
    EpisodeClosed,
    EpisodeEscalated,
    EpisodeOpened,
    EpisodeUpdated,
)
from usability.detection.kinds import SignalFamily
from usability.detection.observations import Observation
from usability.policies import RoomPolicy, from_ms, to_ms, utc_offset_minutes

CLASS_STUCK = "class_stuck"


class Raised(msgspec.Struct):
    """One alert: an episode, or a card about the class (`student_id` "", the topic as `item`). Unix ms."""

    key: str
    student_id: str
    app_name: str
    family: str
    onset_ms: int
    opened_ms: int
    closed_ms: int
    severity: str
    interrupts: bool
    reason: str
    item: str = ""


@dataclass(slots=True)
class Outcome:
    """What a policy makes of the metrics of one class, alerts in order of opening."""

    raised: list[Raised]
    metrics: int = 0


class Replay:
    """Folds chunks as they come; `outcome` ends it. Snoozes and pauses of then are not stored: none is assumed."""

    def __init__(self, classroom_id: str, policy: RoomPolicy, time_zone: str) -> None:
        self._policy = policy
        self._time_zone = time_zone
        self._state = fold.start(classroom_id)
        self._raised: dict[str, Raised] = {}
        self._metrics = 0

    def take(self, chunk: list[Observation]) -> None:
        """Fold the next chunk, which begins where the last one ended."""
        self._metrics += len(chunk)
        self._step(chunk, max(one.received_ms for one in chunk))

    def outcome(self, until: dt.datetime) -> Outcome:
        """Let the rest of the time pass, and say what was raised."""
        self._step([], max(to_ms(until), self._state.clock_ms))
        raised = sorted(self._raised.values(), key=lambda one: (one.opened_ms, one.key))
        return Outcome(raised, self._metrics)

    def _step(self, chunk: list[Observation], now_ms: int) -> None:
        offset = utc_offset_minutes(self._time_zone, from_ms(now_ms))
        self._state, decisions = fold.step(
            self._state,
            chunk,
            now_ms=now_ms,
            roster=self._policy.roster,
            profile=self._policy.profile,
            app_profiles=self._policy.app_profiles,
            controls=fold.Controls(utc_offset_minutes=offset),
        )
        for decision in decisions:
            self._hear(decision)

    def _hear(self, decision: Decision) -> None:
        match decision:
            case EpisodeOpened() | EpisodeUpdated() | EpisodeEscalated():
                self._hear_episode(decision)
            case EpisodeClosed(episode) if episode.id in self._raised:
                self._raised[episode.id].closed_ms = episode.closed_ms or episode.changed_ms
            case ClassStuckOpened(card, interrupts, _):
                self._raised[card.id] = Raised(
                    key=card.id,
                    student_id="",
                    app_name="",
                    family=CLASS_STUCK,
                    onset_ms=card.opened_ms,
                    opened_ms=card.opened_ms,
                    closed_ms=0,
                    severity="high",
                    interrupts=interrupts,
                    reason=card.reason.text,
                    item=card.topic.name,
                )

    def _hear_episode(self, told: EpisodeOpened | EpisodeUpdated | EpisodeEscalated) -> None:
        episode = told.episode
        if episode.family == SignalFamily.REFERENCE:
            return  # a comparison: it makes an event and no alert
        known = self._raised.get(episode.id)
        if known is not None:
            known.severity = str(episode.severity)
            known.interrupts = known.interrupts or told.interrupts
            return
        self._raised[episode.id] = Raised(
            key=episode.id,
            student_id=episode.student_id,
            app_name=episode.app_name,
            family=str(episode.family),
            onset_ms=episode.onset_ms,
            opened_ms=episode.opened_ms,
            closed_ms=0,
            severity=str(episode.severity),
            interrupts=told.interrupts,
            reason=episode.reason.text,
            item=episode.item,
        )


def replay(
    classroom_id: str,
    chunks: Iterable[list[Observation]],
    policies: list[RoomPolicy],
    *,
    time_zone: str,
    until: dt.datetime,
) -> Iterator[int | list[Outcome]]:
    """Fold the same chunks through several policies; gives the number of metrics of each, then the outcomes."""
    replays = [Replay(classroom_id, replace(policy), time_zone) for policy in policies]
    for chunk in chunks:
        for one in replays:
            one.take(chunk)
        yield len(chunk)
    yield [one.outcome(until) for one in replays]
