"""reference: the thresholds of the reference engine, for comparison. Off unless a profile turns it on.

Rule: within `window_s` (60 s), `errors_warn` and `errors_strong` (3, 5) errors, `corrections_warn` and
`corrections_strong` (10, 20) backspaces, or a reported hesitation over `hesitation_s` (30 s). Each is a
condition of its own, with its own evidence, cleared when the window no longer holds it.
Source: the reference engine's constants. Not taken over: its tumbling window, that success and time clear
nothing, and that one check overwrites another.
"""

from typing import Annotated

import msgspec

from usability.detection.detector import NOTHING, Detector, Params
from usability.detection.kinds import MetricType, SignalFamily
from usability.detection.observations import Observation
from usability.detection.signals import Evidence, Signal, Strength, newest
from usability.detection.words import duration, say

COUNT_LIMIT = 1000.0
CONDITIONS = ("errors", "corrections", "hesitation")


class ReferenceParams(Params, frozen=True, kw_only=True):
    enabled: bool = False
    window_s: Annotated[int, msgspec.Meta(ge=10, le=600)] = 60
    errors_warn: Annotated[int, msgspec.Meta(ge=1, le=100)] = 3
    errors_strong: Annotated[int, msgspec.Meta(ge=1, le=100)] = 5
    corrections_warn: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 10
    corrections_strong: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 20
    hesitation_s: Annotated[int, msgspec.Meta(ge=1, le=600)] = 30


class Second(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one second held: errors, corrections, the longest hesitation."""

    at_s: int
    errors: float = 0.0
    corrections: float = 0.0
    hesitation_s: float = 0.0


class ReferenceState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    seconds: tuple[Second, ...] = ()  # at most window_s of them
    first_ms: int = 0  # seconds are counted from here, so that a shift of all times changes nothing
    ids: tuple[str, ...] = ()
    since_ms: dict[str, int] = {}  # of what is raised, by condition


class Reference(Detector[ReferenceState, ReferenceParams]):
    name = "reference"
    version = 1
    family = SignalFamily.REFERENCE
    listens = frozenset({MetricType.ERROR, MetricType.BACKSPACE, MetricType.HESITATION})
    State = ReferenceState
    Params = ReferenceParams

    def advance(
        self, state: ReferenceState, observation: Observation, params: ReferenceParams
    ) -> tuple[ReferenceState, tuple[Signal, ...]]:
        if observation.value <= 0:
            return state, NOTHING
        first_ms = state.first_ms or observation.at_ms
        second = _second((observation.at_ms - first_ms) // 1000, observation)
        state = msgspec.structs.replace(
            state,
            first_ms=first_ms,
            seconds=_with(state.seconds, second, params.window_s),
            ids=newest(state.ids, observation.id),
        )
        return self._judged(state, observation.at_ms, params)

    def due_ms(self, state: ReferenceState, params: ReferenceParams) -> int | None:
        if not state.since_ms:
            return None
        return state.first_ms + (state.seconds[0].at_s + params.window_s) * 1000

    def on_time(
        self, state: ReferenceState, now_ms: int, params: ReferenceParams
    ) -> tuple[ReferenceState, tuple[Signal, ...]]:
        signals: tuple[Signal, ...] = NOTHING
        while (due := self.due_ms(state, params)) is not None and due <= now_ms:
            state = msgspec.structs.replace(state, seconds=state.seconds[1:])
            state, more = self._judged(state, due, params)
            signals += tuple(signal for signal in more if not signal.raised)
        return state, signals

    def _judged(
        self, state: ReferenceState, at_ms: int, params: ReferenceParams
    ) -> tuple[ReferenceState, tuple[Signal, ...]]:
        found = {
            "errors": sum(second.errors for second in state.seconds),
            "corrections": sum(second.corrections for second in state.seconds),
            "hesitation": max((second.hesitation_s for second in state.seconds), default=0.0),
        }
        since_ms = {
            name: state.since_ms.get(name, at_ms)
            for name in CONDITIONS
            if _strength(name, found[name], params)
        }
        raised = tuple(
            self._signal(name, found[name], at_ms=at_ms, since_ms=since_ms[name], state=state, params=params)
            for name in since_ms
        )
        cleared = tuple(self.cleared(at_ms, name) for name in state.since_ms if name not in since_ms)
        return msgspec.structs.replace(state, since_ms=since_ms), raised + cleared

    def _signal(
        self,
        name: str,
        number: float,
        *,
        at_ms: int,
        since_ms: int,
        state: ReferenceState,
        params: ReferenceParams,
    ) -> Signal:
        templates = {
            "errors": "{number:g} errors within {window}",
            "corrections": "{number:g} corrections within {window}",
            "hesitation": "Paused for {number:g} s",
        }
        return self.raised(
            at_ms=at_ms,
            since_ms=since_ms,
            strength=_strength(name, number, params) or Strength.WARN,
            reason=say(
                f"reference_{name}", templates[name], number=number, window=duration(params.window_s * 1000)
            ),
            evidence=Evidence(
                numbers={name: number},
                thresholds=_thresholds(name, params),
                observations=state.ids,
            ),
            condition=name,
        )


def _second(at_s: int, observation: Observation) -> Second:
    value = min(observation.value, COUNT_LIMIT)
    if observation.metric_type == MetricType.ERROR:
        return Second(at_s, errors=value)
    if observation.metric_type == MetricType.BACKSPACE:
        return Second(at_s, corrections=value)
    return Second(at_s, hesitation_s=value)


def _with(seconds: tuple[Second, ...], new: Second, window_s: int) -> tuple[Second, ...]:
    kept = tuple(second for second in seconds if second.at_s > new.at_s - window_s)
    if not kept or kept[-1].at_s != new.at_s:
        return (*kept, new)
    old = kept[-1]
    merged = Second(
        new.at_s,
        old.errors + new.errors,
        old.corrections + new.corrections,
        max(old.hesitation_s, new.hesitation_s),
    )
    return (*kept[:-1], merged)


def _thresholds(name: str, params: ReferenceParams) -> dict[str, float]:
    if name == "errors":
        return {"warn": params.errors_warn, "strong": params.errors_strong}
    if name == "corrections":
        return {"warn": params.corrections_warn, "strong": params.corrections_strong}
    return {"over_s": params.hesitation_s}


def _strength(name: str, number: float, params: ReferenceParams) -> Strength | None:
    """How far the number is beyond its threshold; None: not at all."""
    if name == "hesitation":
        return Strength.WEAK if number > params.hesitation_s else None
    limits = _thresholds(name, params)
    if number >= limits["strong"]:
        return Strength.STRONG
    return Strength.WARN if number >= limits["warn"] else None


DETECTOR = Reference()
