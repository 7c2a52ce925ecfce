"""pace_drop: answers take several times as long as this pupil's usual.

Rule: x is the logarithm of the seconds an answer took (the app's `duration_ms`, else since the item was shown or
the answer before). Against the pupil's own last `kept` (20) answers, z = (x - median) / (1.4826 x MAD), the spread
at least `floor` (0.4, that is half as long again). Raised at `times` (2) answers in a row with z >= `z` (2.5), once
`warm_up` (8) answers are known; cleared by an answer with z < `z_clear` (1.5) and after `forget_s` (300 s) without
an answer. Slow answers enter the baseline, so a pace that stays slow becomes the usual one.
Source: median and MAD as robust baseline (Hampel 1974); "hesitates relative to usual" as in Domoscio's alerts.
"""

from math import exp, log
from statistics import median
from typing import Annotated

import msgspec

from usability.detection.answer_times import LISTENS, AnswerClock
from usability.detection.detector import NOTHING, Detector, Params
from usability.detection.kinds import MetricType, SignalFamily
from usability.detection.observations import Observation
from usability.detection.signals import Evidence, Signal, Strength, newest
from usability.detection.words import duration, on_item, say

MAD_TO_SD = 1.4826


class PaceDropParams(Params, frozen=True, kw_only=True):
    kept: Annotated[int, msgspec.Meta(ge=5, le=50)] = 20
    warm_up: Annotated[int, msgspec.Meta(ge=4, le=50)] = 8
    z: Annotated[float, msgspec.Meta(ge=1, le=10)] = 2.5
    z_clear: Annotated[float, msgspec.Meta(ge=0, le=10)] = 1.5
    floor: Annotated[float, msgspec.Meta(ge=0.05, le=2)] = 0.4
    times: Annotated[int, msgspec.Meta(ge=1, le=10)] = 2
    forget_s: Annotated[int, msgspec.Meta(ge=30, le=3600)] = 300

    def __post_init__(self) -> None:
        if self.z_clear > self.z:
            raise ValueError("z_clear must not be greater than z")
        if self.warm_up > self.kept:
            raise ValueError("warm_up must not be greater than kept")


class PaceDropState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    clock: AnswerClock = AnswerClock()
    logs: tuple[float, ...] = ()  # logarithms of seconds, the latest last
    slow: int = 0
    since_ms: int = 0
    last_ms: int = 0
    ids: tuple[str, ...] = ()
    is_raised: bool = False


class PaceDrop(Detector[PaceDropState, PaceDropParams]):
    name = "pace_drop"
    version = 1
    family = SignalFamily.PACE
    listens = LISTENS
    State = PaceDropState
    Params = PaceDropParams

    def new_session(self, state: PaceDropState) -> PaceDropState:
        """The baseline is the pupil's own and outlives the session."""
        return PaceDropState(logs=state.logs)

    def advance(
        self, state: PaceDropState, observation: Observation, params: PaceDropParams
    ) -> tuple[PaceDropState, tuple[Signal, ...]]:
        clock = state.clock.after(observation)
        if observation.metric_type != MetricType.ANSWER:
            return msgspec.structs.replace(state, clock=clock), NOTHING
        took_ms = state.clock.took_ms(observation)
        if took_ms is None:
            return msgspec.structs.replace(state, clock=clock), NOTHING
        x = log(took_ms / 1000)
        logs = (*state.logs, round(x, 3))[-params.kept :]
        after = msgspec.structs.replace(state, clock=clock, logs=logs, last_ms=observation.at_ms)
        if len(state.logs) < params.warm_up:
            return after, NOTHING
        usual = median(state.logs)
        spread = max(params.floor, MAD_TO_SD * median(abs(each - usual) for each in state.logs))
        z = (x - usual) / spread
        if z >= params.z:
            after = msgspec.structs.replace(
                after,
                slow=state.slow + 1,
                since_ms=state.since_ms if state.slow else observation.at_ms - took_ms,
                ids=newest(state.ids if state.slow else (), observation.id),
            )
            if not state.is_raised and after.slow < params.times:
                return after, NOTHING
            after = msgspec.structs.replace(after, is_raised=True)
            return after, (self._signal(after, observation, took_ms, usual, z, params),)
        if state.is_raised and z >= params.z_clear:
            return after, NOTHING
        return self._ended(after, observation.at_ms)

    def near(self, state: PaceDropState, now_ms: int, params: PaceDropParams) -> Evidence:
        numbers: dict[str, float] = {"slow_answers": state.slow, "answers_seen": len(state.logs)}
        return Evidence(numbers, {"times": params.times, "warm_up": params.warm_up})

    def due_ms(self, state: PaceDropState, params: PaceDropParams) -> int | None:
        return state.last_ms + params.forget_s * 1000 if state.is_raised else None

    def on_time(
        self, state: PaceDropState, now_ms: int, params: PaceDropParams
    ) -> tuple[PaceDropState, tuple[Signal, ...]]:
        due = self.due_ms(state, params)
        return self._ended(state, due) if due is not None and due <= now_ms else (state, NOTHING)

    def _ended(self, state: PaceDropState, at_ms: int) -> tuple[PaceDropState, tuple[Signal, ...]]:
        after = PaceDropState(clock=state.clock, logs=state.logs)
        return after, (self.cleared(at_ms),) if state.is_raised else NOTHING

    def _signal(
        self,
        state: PaceDropState,
        answer: Observation,
        took_ms: int,
        usual: float,
        z: float,
        params: PaceDropParams,
    ) -> Signal:
        usual_s = exp(usual)
        return self.raised(
            at_ms=state.last_ms,
            since_ms=state.since_ms,
            strength=Strength.WARN if state.slow > params.times else Strength.WEAK,
            reason=say(
                "pace_drop",
                "The last {slow} answers took much longer than usual{on_item}: {took}, usual {usual}",
                slow=state.slow,
                on_item=on_item(answer.item),
                took=duration(took_ms),
                usual=duration(round(usual_s * 1000)),
                item=answer.item,
            ),
            evidence=Evidence(
                numbers={
                    "took_s": round(took_ms / 1000, 1),
                    "usual_s": round(usual_s, 1),
                    "z": round(z, 2),
                    "slow_answers": state.slow,
                },
                thresholds={"z": params.z, "times": params.times, "z_clear": params.z_clear},
                observations=state.ids,
            ),
            item=answer.item,
            skill=answer.skill,
        )


DETECTOR = PaceDrop()
