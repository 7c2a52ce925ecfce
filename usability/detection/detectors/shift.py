"""shift: answers have become slower than this pupil's usual, a little each, for a while. Off unless turned on.

Rule: a one-sided CUSUM of x, the logarithm of the seconds an answer took: S = max(0, S + z - `k`), z = (x - mean) /
sd but at most 2, mean and sd the pupil's own, exponentially weighted (`weight` 0.05) after the first `warm_up` (15)
answers and held still while S > 0. Raised at S >= `h` (8) where S has grown by at least `k` (0.5) an answer, cleared
under `h` / 2, and after `forget_s` (300 s) without an answer. S is kept at most 2 `h`, so that a pupil who is back at
the usual pace clears it soon. pace_drop sees two very slow answers; this sees many that are somewhat slow.
Off, because the time an answer takes depends on the item as much as on the pupil: in two calm simulated lessons it
was above information three times and twice, about half of what a teacher should get from all rules together.
Source: Page 1954; k = 0.5 sd answers a shift by 1 sd soonest (Montgomery, Statistical Quality Control, who takes
h = 5 where mean and sd are known; here they are estimated, hence more).
"""

from math import exp, log, sqrt
from typing import Annotated

import msgspec

from usability.detection.answer_times import LISTENS, AnswerClock
from usability.detection.detector import NOTHING, Detector, Params
from usability.detection.kinds import MetricType, SignalFamily
from usability.detection.observations import Observation
from usability.detection.signals import Evidence, Signal, Strength, newest
from usability.detection.words import duration, say

WINSOR_SD = 2.0  # what one answer may count for at most


class ShiftParams(Params, frozen=True, kw_only=True):
    enabled: bool = False
    k: Annotated[float, msgspec.Meta(ge=0.1, le=3)] = 0.5
    h: Annotated[float, msgspec.Meta(ge=1, le=50)] = 8.0
    warm_up: Annotated[int, msgspec.Meta(ge=5, le=100)] = 15
    weight: Annotated[float, msgspec.Meta(gt=0, le=0.5)] = 0.05
    floor: Annotated[float, msgspec.Meta(ge=0.05, le=2)] = 0.3  # least standard deviation of x
    forget_s: Annotated[int, msgspec.Meta(ge=30, le=3600)] = 300


class ShiftState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    clock: AnswerClock = AnswerClock()
    mean: float = 0.0
    variance: float = 0.0
    seen: int = 0
    total: float = 0.0  # S
    answers: int = 0  # since S left zero
    since_ms: int = 0
    last_ms: int = 0
    ids: tuple[str, ...] = ()
    is_raised: bool = False


class Shift(Detector[ShiftState, ShiftParams]):
    name = "shift"
    version = 1
    family = SignalFamily.PACE
    listens = LISTENS
    State = ShiftState
    Params = ShiftParams

    def new_session(self, state: ShiftState) -> ShiftState:
        """The baseline is the pupil's own and outlives the session."""
        return ShiftState(mean=state.mean, variance=state.variance, seen=state.seen)

    def advance(
        self, state: ShiftState, observation: Observation, params: ShiftParams
    ) -> tuple[ShiftState, tuple[Signal, ...]]:
        clock = state.clock.after(observation)
        timed = msgspec.structs.replace(state, clock=clock)
        if observation.metric_type != MetricType.ANSWER:
            return timed, NOTHING
        took_ms = state.clock.took_ms(observation)
        if took_ms is None:
            return timed, NOTHING
        x = log(took_ms / 1000)
        timed = msgspec.structs.replace(timed, last_ms=observation.at_ms)
        if state.seen < params.warm_up:
            return _learned(timed, x, 1.0 / (state.seen + 1)), NOTHING
        sd = max(params.floor, sqrt(state.variance))
        step = min(WINSOR_SD, (x - state.mean) / sd) - params.k
        total = min(2.0 * params.h, max(0.0, state.total + step))
        if total == 0.0:
            return self._ended(_learned(timed, x, params.weight), observation.at_ms)
        after = msgspec.structs.replace(
            timed,
            total=total,
            answers=state.answers + 1,
            since_ms=state.since_ms or observation.at_ms - took_ms,
            ids=newest(state.ids, observation.id),
            is_raised=total >= params.h / 2
            if state.is_raised
            else _is_shift(total, state.answers + 1, params),
        )
        if after.is_raised:
            return after, (self._signal(after, observation, took_ms, sd, params),)
        return after, (self.cleared(observation.at_ms),) if state.is_raised else NOTHING

    def due_ms(self, state: ShiftState, params: ShiftParams) -> int | None:
        return state.last_ms + params.forget_s * 1000 if state.is_raised else None

    def on_time(
        self, state: ShiftState, now_ms: int, params: ShiftParams
    ) -> tuple[ShiftState, tuple[Signal, ...]]:
        due = self.due_ms(state, params)
        return self._ended(state, due) if due is not None and due <= now_ms else (state, NOTHING)

    def _ended(self, state: ShiftState, at_ms: int) -> tuple[ShiftState, tuple[Signal, ...]]:
        after = ShiftState(
            clock=state.clock,
            mean=state.mean,
            variance=state.variance,
            seen=state.seen,
            last_ms=state.last_ms,
        )
        return after, (self.cleared(at_ms),) if state.is_raised else NOTHING

    def _signal(
        self, state: ShiftState, answer: Observation, took_ms: int, sd: float, params: ShiftParams
    ) -> Signal:
        usual_ms = round(exp(state.mean) * 1000)
        return self.raised(
            at_ms=state.last_ms,
            since_ms=state.since_ms,
            strength=Strength.WEAK,
            reason=say(
                "shift",
                "Answers have been slower than usual for {answers} answers, the last {took}, usual {usual}",
                answers=state.answers,
                took=duration(took_ms),
                usual=duration(usual_ms),
            ),
            evidence=Evidence(
                numbers={
                    "cusum": round(state.total, 2),
                    "answers": state.answers,
                    "took_s": round(took_ms / 1000, 1),
                    "usual_s": round(usual_ms / 1000, 1),
                    "usual_sd_log": round(sd, 3),
                },
                thresholds={"h": params.h, "k": params.k},
                observations=state.ids,
            ),
            item=answer.item,
            skill=answer.skill,
        )


def _is_shift(total: float, answers: int, params: ShiftParams) -> bool:
    """Whether S is reached at a pace: what drifts there in many small steps is chance."""
    return total >= params.h and total >= params.k * answers


def _learned(state: ShiftState, x: float, weight: float) -> ShiftState:
    delta = x - state.mean
    return msgspec.structs.replace(
        state,
        mean=state.mean + weight * delta,
        variance=(1.0 - weight) * (state.variance + weight * delta * delta),
        seen=state.seen + 1,
    )


DETECTOR = Shift()
