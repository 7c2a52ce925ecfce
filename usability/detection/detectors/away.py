"""away: the app is not in front.

Rule: raised when `away_s` (60 s) have passed since `blur` without `focus` or anything else done in the app;
strong after `strong_s` (300 s). A profile may choose 30 or 15 s.
Source: the lenient, moderate and strict settings (60, 30, 15 s) of GoGuardian's off-task alerts. A pupil may
work in another window for good reasons, hence its low weight.
"""

from typing import Annotated

import msgspec

from usability.detection.detector import ACTIVITY, NOTHING, Detector, Params, is_activity
from usability.detection.kinds import MetricType, SignalFamily
from usability.detection.observations import Observation
from usability.detection.signals import Evidence, Signal, Strength
from usability.detection.words import duration, say

SAY_AGAIN_MS = 60_000  # the sentence names whole minutes


class AwayParams(Params, frozen=True, kw_only=True):
    away_s: Annotated[int, msgspec.Meta(ge=5, le=3600)] = 60
    strong_s: Annotated[int, msgspec.Meta(ge=10, le=7200)] = 300

    def __post_init__(self) -> None:
        if self.strong_s <= self.away_s:
            raise ValueError("strong_s must be greater than away_s")


class AwayState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    since_ms: int = 0  # when the focus was lost; 0: the app is in front
    blur_id: str = ""
    said_ms: int = 0  # when it was last signalled; 0: not raised


class Away(Detector[AwayState, AwayParams]):
    name = "away"
    version = 1
    family = SignalFamily.AWAY
    listens = ACTIVITY | {MetricType.BLUR}
    State = AwayState
    Params = AwayParams

    def advance(
        self, state: AwayState, observation: Observation, params: AwayParams
    ) -> tuple[AwayState, tuple[Signal, ...]]:
        if observation.metric_type == MetricType.BLUR:
            return (state if state.since_ms else AwayState(observation.at_ms, observation.id)), NOTHING
        if not state.since_ms or not is_activity(observation):
            return state, NOTHING
        return AwayState(), (self.cleared(observation.at_ms),) if state.said_ms else NOTHING

    def near(self, state: AwayState, now_ms: int, params: AwayParams) -> Evidence:
        away_s = (now_ms - state.since_ms) // 1000 if state.since_ms else 0
        return Evidence({"away_s": away_s}, {"away_s": params.away_s})

    def due_ms(self, state: AwayState, params: AwayParams) -> int | None:
        if not state.since_ms:
            return None
        return state.said_ms + SAY_AGAIN_MS if state.said_ms else state.since_ms + params.away_s * 1000

    def on_time(
        self, state: AwayState, now_ms: int, params: AwayParams
    ) -> tuple[AwayState, tuple[Signal, ...]]:
        signals: tuple[Signal, ...] = NOTHING
        while (due := self.due_ms(state, params)) is not None and due <= now_ms:
            state = msgspec.structs.replace(state, said_ms=due)
            signals = (*signals, self._signal(state, due, params))
        return state, signals

    def _signal(self, state: AwayState, at_ms: int, params: AwayParams) -> Signal:
        return self.raised(
            at_ms=at_ms,
            since_ms=state.since_ms,
            strength=Strength.STRONG if at_ms - state.since_ms >= params.strong_s * 1000 else Strength.WARN,
            reason=say(
                "away",
                "The app has not been in front for {duration}",
                duration=duration(at_ms - state.since_ms),
                away_s=(at_ms - state.since_ms) // 1000,
            ),
            evidence=Evidence(
                numbers={"away_s": (at_ms - state.since_ms) // 1000},
                thresholds={"away_s": params.away_s, "strong_s": params.strong_s},
                observations=(state.blur_id,),
            ),
        )


DETECTOR = Away()
