"""idle: an item is open and in front, and nothing is typed or tapped.

Rule: time since the last activity, while the app has the focus and an item is open (a completion or a right
answer closes it, anything else the pupil does opens it). Raised at `warn_s` (120 s), strong at `strong_s`
(300 s), or at once strong when the last thing was a wrong answer. Any activity, losing the focus or a
completion clears it. The seat shows "idle" from 20 s on without a signal.
Source: the tiers 20 s, 2 min, 5 min of the Lumilo idle detector (Holstein, McLaren, Aleven 2018). Idle alone
does not mean struggle: in our measurement its share did not predict grades (AUC 0.45), hence its low weight.
"""

from typing import Annotated

import msgspec

from usability.detection.detector import ACTIVITY, NOTHING, Detector, Params, is_activity
from usability.detection.kinds import MetricType, SignalFamily
from usability.detection.observations import Observation
from usability.detection.signals import Evidence, Signal, Strength
from usability.detection.words import duration, say

SAY_AGAIN_MS = 60_000  # the sentence names whole minutes


class IdleParams(Params, frozen=True, kw_only=True):
    warn_s: Annotated[int, msgspec.Meta(ge=10, le=3600)] = 120
    strong_s: Annotated[int, msgspec.Meta(ge=20, le=7200)] = 300

    def __post_init__(self) -> None:
        if self.strong_s <= self.warn_s:
            raise ValueError("strong_s must be greater than warn_s")


class IdleState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    last_ms: int = 0
    last_id: str = ""
    item: str = ""
    skill: str = ""
    is_open: bool = False
    is_after_wrong: bool = False
    said_ms: int = 0  # when it was last signalled; 0: not raised


class Idle(Detector[IdleState, IdleParams]):
    name = "idle"
    version = 1
    family = SignalFamily.PAUSE
    listens = ACTIVITY | {MetricType.BLUR}
    State = IdleState
    Params = IdleParams

    def advance(
        self, state: IdleState, observation: Observation, params: IdleParams
    ) -> tuple[IdleState, tuple[Signal, ...]]:
        kind = observation.metric_type
        if kind != MetricType.BLUR and not is_activity(observation):
            return state, NOTHING
        is_done = kind == MetricType.COMPLETION or (kind == MetricType.ANSWER and observation.correct is True)
        after = IdleState(
            last_ms=observation.at_ms,
            last_id=observation.id,
            item=observation.item or state.item,
            skill=observation.skill or state.skill,
            is_open=not is_done and kind != MetricType.BLUR,
            is_after_wrong=kind == MetricType.ANSWER and not observation.correct,
        )
        return after, (self.cleared(observation.at_ms),) if state.said_ms else NOTHING

    def near(self, state: IdleState, now_ms: int, params: IdleParams) -> Evidence:
        idle_s = (now_ms - state.last_ms) // 1000 if state.is_open else 0
        return Evidence({"idle_s": idle_s, "item_open": state.is_open}, {"warn_s": params.warn_s})

    def due_ms(self, state: IdleState, params: IdleParams) -> int | None:
        if not state.is_open:
            return None
        return state.said_ms + SAY_AGAIN_MS if state.said_ms else state.last_ms + params.warn_s * 1000

    def on_time(
        self, state: IdleState, now_ms: int, params: IdleParams
    ) -> tuple[IdleState, tuple[Signal, ...]]:
        signals: tuple[Signal, ...] = NOTHING
        while (due := self.due_ms(state, params)) is not None and due <= now_ms:
            state = msgspec.structs.replace(state, said_ms=due)
            signals = (*signals, self._signal(state, due, params))
        return state, signals

    def _signal(self, state: IdleState, at_ms: int, params: IdleParams) -> Signal:
        is_strong = state.is_after_wrong or at_ms - state.last_ms >= params.strong_s * 1000
        return self.raised(
            at_ms=at_ms,
            since_ms=state.last_ms,
            strength=Strength.STRONG if is_strong else Strength.WARN,
            reason=say(
                "idle_after_wrong" if state.is_after_wrong else "idle",
                "Nothing typed or tapped for {duration}"
                + (" after a wrong answer" if state.is_after_wrong else ""),
                duration=duration(at_ms - state.last_ms),
                idle_s=(at_ms - state.last_ms) // 1000,
            ),
            evidence=Evidence(
                numbers={"idle_s": (at_ms - state.last_ms) // 1000},
                thresholds={"warn_s": params.warn_s, "strong_s": params.strong_s},
                observations=(state.last_id,),
            ),
            item=state.item,
            skill=state.skill,
        )


DETECTOR = Idle()
