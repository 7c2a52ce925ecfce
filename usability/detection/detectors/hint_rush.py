"""hint_rush: hints clicked through faster than they can be read.

Rule: `hints` (3) hints in a row, each less than `fast_s` (3 s) after the one before (or, where the app says so,
read for less than that: `duration_ms`). Five make it strong. An answer or a completion clears it, and so do
`forget_s` (60 s) without another hint.
Source: 3 s a hint is Lumilo's limit for hunting the last hint (after Paquette, de Carvalho and Baker 2014).
"""

from typing import Annotated

import msgspec

from usability.detection.detector import NOTHING, Detector, Params
from usability.detection.kinds import MetricType, SignalFamily
from usability.detection.observations import Observation
from usability.detection.signals import Evidence, Signal, Strength, newest
from usability.detection.words import on_item, say


class HintRushParams(Params, frozen=True, kw_only=True):
    hints: Annotated[int, msgspec.Meta(ge=2, le=20)] = 3
    strong: Annotated[int, msgspec.Meta(ge=3, le=40)] = 5
    fast_s: Annotated[float, msgspec.Meta(ge=0.5, le=30)] = 3.0
    forget_s: Annotated[int, msgspec.Meta(ge=10, le=600)] = 60

    def __post_init__(self) -> None:
        if self.strong <= self.hints:
            raise ValueError("strong must be greater than hints")


class HintRushState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    count: int = 0
    since_ms: int = 0
    last_ms: int = 0
    ids: tuple[str, ...] = ()
    is_bottom: bool = False
    is_raised: bool = False


class HintRush(Detector[HintRushState, HintRushParams]):
    name = "hint_rush"
    version = 1
    family = SignalFamily.GUESSING
    listens = frozenset({MetricType.HINT, MetricType.ANSWER, MetricType.COMPLETION})
    State = HintRushState
    Params = HintRushParams

    def advance(
        self, state: HintRushState, observation: Observation, params: HintRushParams
    ) -> tuple[HintRushState, tuple[Signal, ...]]:
        if observation.metric_type != MetricType.HINT:
            return self._ended(state, observation.at_ms)
        took_ms = observation.duration_ms
        if took_ms is None:
            took_ms = observation.at_ms - state.last_ms
        is_next = state.count > 0 and took_ms < params.fast_s * 1000
        after = HintRushState(
            count=state.count + 1 if is_next else 1,
            since_ms=state.since_ms if is_next else observation.at_ms,
            last_ms=observation.at_ms,
            ids=newest(state.ids if is_next else (), observation.id),
            is_bottom=observation.is_bottom is True,
            is_raised=state.is_raised,
        )
        if after.count < params.hints:
            return after, NOTHING
        after = msgspec.structs.replace(after, is_raised=True)
        return after, (self._signal(after, observation, params),)

    def near(self, state: HintRushState, now_ms: int, params: HintRushParams) -> Evidence:
        return Evidence({"hints": state.count}, {"hints": params.hints})

    def due_ms(self, state: HintRushState, params: HintRushParams) -> int | None:
        return state.last_ms + params.forget_s * 1000 if state.is_raised else None

    def on_time(
        self, state: HintRushState, now_ms: int, params: HintRushParams
    ) -> tuple[HintRushState, tuple[Signal, ...]]:
        due = self.due_ms(state, params)
        return self._ended(state, due) if due is not None and due <= now_ms else (state, NOTHING)

    def _ended(self, state: HintRushState, at_ms: int) -> tuple[HintRushState, tuple[Signal, ...]]:
        return HintRushState(), (self.cleared(at_ms),) if state.is_raised else NOTHING

    def _signal(self, state: HintRushState, observation: Observation, params: HintRushParams) -> Signal:
        return self.raised(
            at_ms=state.last_ms,
            since_ms=state.since_ms,
            strength=Strength.STRONG if state.count >= params.strong else Strength.WARN,
            reason=say(
                "hint_rush",
                "{count} hints opened{on_item}, each within {fast_s:g} s",
                count=state.count,
                fast_s=params.fast_s,
                on_item=on_item(observation.item),
                item=observation.item,
            ),
            evidence=Evidence(
                numbers={"hints": state.count, "last_hint_seen": int(state.is_bottom)},
                thresholds={"hints": params.hints, "fast_s": params.fast_s},
                observations=state.ids,
            ),
            item=observation.item,
            skill=observation.skill,
        )


DETECTOR = HintRush()
