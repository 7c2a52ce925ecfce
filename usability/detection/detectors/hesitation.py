"""hesitation: long pauses that end with work.

Rule: a pause is what the app reports (`hesitation`, `pause`: seconds), or, for an app that reports none, a gap
between two activities while an item is open and in front. A pause of at least `pause_s` (30 s) is prolonged.
One is a weak signal, `repeated` (2) within `window_s` (300 s), or one of `long_s` (60 s), raise it, twice that
makes it strong. A right answer or a completion clears it, and so do `settle_s` (60 s) after the last one.
A pause that has not ended is the business of idle; one with the app in the background is of away.
Source: 30 s is the reference engine's threshold; 90 % of the writing sessions we measured hold one such pause,
therefore a single one never gets beyond the list.
"""

from typing import Annotated

import msgspec

from usability.detection.detector import ACTIVITY, NOTHING, Detector, Params, is_activity
from usability.detection.kinds import MetricType, SignalFamily
from usability.detection.observations import Observation
from usability.detection.signals import Evidence, Signal, Strength
from usability.detection.words import duration, on_item, say

KEPT_PAUSES = 8
REPORTED = frozenset({MetricType.HESITATION, MetricType.PAUSE})
LONGEST_PAUSE_S = 3600.0  # a longer one is a pupil who left


class HesitationParams(Params, frozen=True, kw_only=True):
    pause_s: Annotated[int, msgspec.Meta(ge=5, le=600)] = 30
    long_s: Annotated[int, msgspec.Meta(ge=10, le=1200)] = 60
    repeated: Annotated[int, msgspec.Meta(ge=2, le=4)] = 2
    window_s: Annotated[int, msgspec.Meta(ge=30, le=3600)] = 300
    settle_s: Annotated[int, msgspec.Meta(ge=10, le=600)] = 60

    def __post_init__(self) -> None:
        if self.long_s <= self.pause_s:
            raise ValueError("long_s must be greater than pause_s")


class Pause(msgspec.Struct, frozen=True, array_like=True, gc=False):
    started_ms: int
    ended_ms: int
    id: str


class HesitationState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    pauses: tuple[Pause, ...] = ()
    last_ms: int = 0  # last activity
    is_open: bool = False  # an item is open and in front
    has_reports: bool = False
    item: str = ""
    skill: str = ""
    is_raised: bool = False


class Hesitation(Detector[HesitationState, HesitationParams]):
    name = "hesitation"
    version = 1
    family = SignalFamily.PAUSE
    listens = ACTIVITY | REPORTED | {MetricType.BLUR}
    State = HesitationState
    Params = HesitationParams

    def advance(
        self, state: HesitationState, observation: Observation, params: HesitationParams
    ) -> tuple[HesitationState, tuple[Signal, ...]]:
        kind = observation.metric_type
        if kind in REPORTED:
            state = msgspec.structs.replace(
                state,
                has_reports=True,
                item=observation.item or state.item,
                skill=observation.skill or state.skill,
            )
            paused_ms = int(min(observation.value, LONGEST_PAUSE_S) * 1000)
            return self._paused(state, observation, paused_ms, params)
        if kind != MetricType.BLUR and not is_activity(observation):
            return state, NOTHING
        is_done = kind == MetricType.COMPLETION or (kind == MetricType.ANSWER and observation.correct is True)
        gap_ms = observation.at_ms - state.last_ms if state.is_open and not state.has_reports else 0
        signals: tuple[Signal, ...] = NOTHING
        if kind != MetricType.BLUR and not is_done and gap_ms <= LONGEST_PAUSE_S * 1000:
            state, signals = self._paused(state, observation, gap_ms, params)
        state = msgspec.structs.replace(
            state,
            last_ms=observation.at_ms,
            is_open=not is_done and kind != MetricType.BLUR,
            item=observation.item or state.item,
            skill=observation.skill or state.skill,
        )
        return self._calm(state, observation.at_ms) if is_done else (state, signals)

    def due_ms(self, state: HesitationState, params: HesitationParams) -> int | None:
        return state.pauses[-1].ended_ms + params.settle_s * 1000 if state.is_raised else None

    def on_time(
        self, state: HesitationState, now_ms: int, params: HesitationParams
    ) -> tuple[HesitationState, tuple[Signal, ...]]:
        due = self.due_ms(state, params)
        if due is None or due > now_ms:
            return state, NOTHING
        return msgspec.structs.replace(state, is_raised=False), (self.cleared(due),)

    def _calm(self, state: HesitationState, at_ms: int) -> tuple[HesitationState, tuple[Signal, ...]]:
        calm = msgspec.structs.replace(state, pauses=(), is_raised=False)
        return calm, (self.cleared(at_ms),) if state.is_raised else NOTHING

    def _paused(
        self, state: HesitationState, observation: Observation, paused_ms: int, params: HesitationParams
    ) -> tuple[HesitationState, tuple[Signal, ...]]:
        if paused_ms < params.pause_s * 1000:
            return state, NOTHING
        ended_ms = observation.at_ms
        from_ms = ended_ms - params.window_s * 1000
        pauses = (
            *(pause for pause in state.pauses if pause.ended_ms >= from_ms),
            Pause(ended_ms - paused_ms, ended_ms, observation.id),
        )[-KEPT_PAUSES:]
        state = msgspec.structs.replace(state, pauses=pauses, is_raised=True)
        return state, (self._signal(state, params),)

    def _signal(self, state: HesitationState, params: HesitationParams) -> Signal:
        longest_ms = max(pause.ended_ms - pause.started_ms for pause in state.pauses)
        count = len(state.pauses)
        if count >= 2 * params.repeated or longest_ms >= 2 * params.long_s * 1000:
            strength = Strength.STRONG
        elif count >= params.repeated or longest_ms >= params.long_s * 1000:
            strength = Strength.WARN
        else:
            strength = Strength.WEAK
        template = "Paused for {duration}{on_item}, then went on"
        if count > 1:
            template = "{count} long pauses{on_item} within {window}, the longest {duration}"
        return self.raised(
            at_ms=state.pauses[-1].ended_ms,
            since_ms=state.pauses[0].started_ms,
            strength=strength,
            reason=say(
                "hesitation" if count == 1 else "hesitation_repeated",
                template,
                count=count,
                duration=duration(longest_ms),
                window=duration(params.window_s * 1000),
                on_item=on_item(state.item),
                item=state.item,
            ),
            evidence=Evidence(
                numbers={"pauses": count, "longest_s": longest_ms / 1000},
                thresholds={"pause_s": params.pause_s, "repeated": params.repeated, "long_s": params.long_s},
                observations=tuple(pause.id for pause in state.pauses),
            ),
            item=state.item,
            skill=state.skill,
        )


DETECTOR = Hesitation()
