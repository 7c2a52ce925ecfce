"""What the rules about clicks that lead nowhere have in common.

The SDK finds such clicks itself and sends counts. They speak of the app: an element is told of once as app health.
Only where it goes on for one pupil is it also a weak signal about that pupil's work.
"""

from typing import Annotated, ClassVar

import msgspec

from usability.detection.detector import NOTHING, Detector, Params
from usability.detection.kinds import MetricType, SignalFamily
from usability.detection.observations import Observation
from usability.detection.signals import Evidence, Signal, Strength, newest
from usability.detection.words import on_item, say

COUNT_LIMIT = 100  # what one folded observation may add
KEPT = 16  # reports remembered
ELEMENTS = 8  # elements told of lately

REPEATED = "repeated"


class ClickParams(Params, frozen=True, kw_only=True):
    """`repeated` counts within `window_s` reach the pupil's card; `forget_s` without another clear it."""

    repeated: Annotated[int, msgspec.Meta(ge=2, le=50)] = 3
    window_s: Annotated[int, msgspec.Meta(ge=10, le=900)] = 120
    forget_s: Annotated[int, msgspec.Meta(ge=10, le=900)] = 60


class ClickState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Counts by event time in ms, the latest last; the elements told of; since when it is repeated (0: it is not)."""

    counts: tuple[tuple[int, int], ...] = ()
    elements: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    since_ms: int = 0


class ClickDetector(Detector[ClickState, ClickParams]):
    """Subclasses name the metric type and say it in words."""

    family = SignalFamily.APP_HEALTH
    State = ClickState
    Params = ClickParams
    what: ClassVar[str]

    def advance(
        self, state: ClickState, observation: Observation, params: ClickParams
    ) -> tuple[ClickState, tuple[Signal, ...]]:
        """Count a report, and tell of it."""
        if observation.metric_type == MetricType.COMPLETION:
            return self._ended(state, observation.at_ms)
        count = min(int(observation.value), COUNT_LIMIT)
        if count <= 0:
            return state, NOTHING
        at_ms = observation.at_ms
        from_ms = at_ms - params.window_s * 1000
        counts = (*(each for each in state.counts if each[0] > from_ms), (at_ms, count))[-KEPT:]
        place = observation.element or observation.item
        signals: tuple[Signal, ...] = (
            NOTHING if place in state.elements else (self._health(observation, count),)
        )
        total = sum(number for _, number in counts)
        is_repeated = total >= params.repeated
        after = ClickState(
            counts=counts,
            elements=(*(each for each in state.elements if each != place), place)[-ELEMENTS:],
            ids=newest(state.ids, observation.id),
            since_ms=(state.since_ms or counts[0][0]) if is_repeated else state.since_ms,
        )
        if is_repeated:
            signals = (*signals, self._repeated(after, observation, total, params))
        return after, signals

    def due_ms(self, state: ClickState, params: ClickParams) -> int | None:
        """When what is repeated is forgotten."""
        return state.counts[-1][0] + params.forget_s * 1000 if state.since_ms else None

    def on_time(
        self, state: ClickState, now_ms: int, params: ClickParams
    ) -> tuple[ClickState, tuple[Signal, ...]]:
        """Forget it."""
        due = self.due_ms(state, params)
        return self._ended(state, due) if due is not None and due <= now_ms else (state, NOTHING)

    def _ended(self, state: ClickState, at_ms: int) -> tuple[ClickState, tuple[Signal, ...]]:
        if not state.counts:
            return state, NOTHING
        cleared = msgspec.structs.replace(self.cleared(at_ms, REPEATED), family=SignalFamily.ACCURACY)
        return ClickState(elements=state.elements), (cleared,) if state.since_ms else NOTHING

    def _health(self, observation: Observation, count: int) -> Signal:
        return self.raised(
            at_ms=observation.at_ms,
            since_ms=observation.at_ms,
            strength=Strength.WEAK,
            reason=say(
                self.name,
                "{what}{on_item}",
                what=self.what,
                on_item=on_item(observation.item),
                element=observation.element,
            ),
            evidence=Evidence(numbers={"count": count}, observations=(observation.id,)),
            item=observation.item,
            skill=observation.skill,
        )

    def _repeated(
        self, state: ClickState, observation: Observation, total: int, params: ClickParams
    ) -> Signal:
        signal = self.raised(
            at_ms=observation.at_ms,
            since_ms=state.since_ms,
            strength=Strength.WEAK,
            reason=say(
                f"{self.name}_repeated",
                "{what}{on_item}, {times} times within {window_s} s",
                what=self.what,
                on_item=on_item(observation.item),
                times=total,
                window_s=params.window_s,
                item=observation.item,
            ),
            evidence=Evidence(
                numbers={"count": total},
                thresholds={"repeated": params.repeated, "window_s": params.window_s},
                observations=state.ids,
            ),
            item=observation.item,
            skill=observation.skill,
            condition=REPEATED,
        )
        return msgspec.structs.replace(signal, family=SignalFamily.ACCURACY)
