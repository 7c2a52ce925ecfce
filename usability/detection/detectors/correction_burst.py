"""correction_burst: far more corrections than this pupil usually makes.

Rule: key presses are gathered in bins of `bin_s` (30 s) from the first stroke on; a bin with at least
`bin_strokes` (15) strokes counts, with x = asin(sqrt(corrections / strokes)). Each pupil has a running mean and
variance of x (exponentially weighted, weight `weight` 0.1, winsorised at 3 standard deviations, variance at
least 1 / 4n, the variance of x for n strokes). After `warm_up` (6) bins, two bins in a row with z >= `z` (2)
and at least `corrections` (5) corrections raise it; four make it strong. A bin under `z_clear` (1), or
`forget_s` (120 s) without typing, clears it.
Units: shares of strokes; strokes are key presses and corrections together.
Source: our measurement on 323 classroom writing sessions (4.3 alerts a class at z 2, 1.5 at z 2.5); the
transform is the variance-stabilising one of a binomial share (Anscombe 1948).
"""

from math import asin, sin, sqrt
from typing import Annotated

import msgspec

from usability.detection.detector import NOTHING, Detector, Params
from usability.detection.kinds import MetricType, SignalFamily
from usability.detection.observations import Observation
from usability.detection.signals import Evidence, Signal, Strength, newest
from usability.detection.words import percent, say

WINSOR_SD = 3.0
STRONG_BINS = 4


class CorrectionBurstParams(Params, frozen=True, kw_only=True):
    bin_s: Annotated[int, msgspec.Meta(ge=5, le=300)] = 30
    bin_strokes: Annotated[int, msgspec.Meta(ge=5, le=1000)] = 15
    weight: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.1
    warm_up: Annotated[int, msgspec.Meta(ge=2, le=100)] = 6
    z: Annotated[float, msgspec.Meta(ge=0.5, le=6)] = 2.0
    z_clear: Annotated[float, msgspec.Meta(ge=0, le=6)] = 1.0
    bins: Annotated[int, msgspec.Meta(ge=1, le=20)] = 2
    corrections: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 5
    forget_s: Annotated[int, msgspec.Meta(ge=30, le=3600)] = 120

    def __post_init__(self) -> None:
        if self.z_clear >= self.z:
            raise ValueError("z_clear must be less than z")


class CorrectionBurstState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    bin_ms: int = 0  # start of the open bin; 0: no bin is open
    strokes: float = 0.0
    corrections: float = 0.0
    ids: tuple[str, ...] = ()
    mean: float = 0.0
    variance: float = 0.0
    seen: int = 0  # bins in the baseline
    high: int = 0  # high bins in a row
    since_ms: int = 0
    last_ms: int = 0
    item: str = ""
    skill: str = ""
    is_raised: bool = False


class CorrectionBurst(Detector[CorrectionBurstState, CorrectionBurstParams]):
    name = "correction_burst"
    version = 1
    family = SignalFamily.TYPING
    listens = frozenset({MetricType.KEYPRESS, MetricType.BACKSPACE})
    State = CorrectionBurstState
    Params = CorrectionBurstParams

    def new_session(self, state: CorrectionBurstState) -> CorrectionBurstState:
        """The baseline is the pupil's own and outlives the session."""
        return CorrectionBurstState(mean=state.mean, variance=state.variance, seen=state.seen)

    def advance(
        self, state: CorrectionBurstState, observation: Observation, params: CorrectionBurstParams
    ) -> tuple[CorrectionBurstState, tuple[Signal, ...]]:
        if observation.value <= 0:
            return state, NOTHING
        state, signals = self._close_bin(state, observation.at_ms, params)
        is_correction = observation.metric_type == MetricType.BACKSPACE
        return (
            msgspec.structs.replace(
                state,
                bin_ms=state.bin_ms or observation.at_ms,
                strokes=state.strokes + observation.value,
                corrections=state.corrections + (observation.value if is_correction else 0.0),
                ids=newest(state.ids, observation.id) if is_correction else state.ids,
                last_ms=observation.at_ms,
                item=observation.item or state.item,
                skill=observation.skill or state.skill,
            ),
            signals,
        )

    def near(self, state: CorrectionBurstState, now_ms: int, params: CorrectionBurstParams) -> Evidence:
        numbers = {
            "high_bins": state.high,
            "usual_share": round(_share(state.mean), 4),
            "bins_seen": state.seen,
        }
        return Evidence(numbers, {"bins": params.bins, "z": params.z, "warm_up": params.warm_up})

    def due_ms(self, state: CorrectionBurstState, params: CorrectionBurstParams) -> int | None:
        if state.bin_ms:
            return state.bin_ms + params.bin_s * 1000
        return state.last_ms + params.forget_s * 1000 if state.high else None

    def on_time(
        self, state: CorrectionBurstState, now_ms: int, params: CorrectionBurstParams
    ) -> tuple[CorrectionBurstState, tuple[Signal, ...]]:
        state, signals = self._close_bin(state, now_ms, params)
        forget_ms = state.last_ms + params.forget_s * 1000
        if state.bin_ms or not state.high or now_ms < forget_ms:
            return state, signals
        calm = msgspec.structs.replace(state, high=0, is_raised=False)
        return calm, (*signals, self.cleared(forget_ms)) if state.is_raised else signals

    def _close_bin(
        self, state: CorrectionBurstState, now_ms: int, params: CorrectionBurstParams
    ) -> tuple[CorrectionBurstState, tuple[Signal, ...]]:
        end_ms = state.bin_ms + params.bin_s * 1000
        if not state.bin_ms or now_ms < end_ms:
            return state, NOTHING
        emptied = msgspec.structs.replace(state, bin_ms=0, strokes=0.0, corrections=0.0, ids=())
        if state.strokes < params.bin_strokes:
            return emptied, NOTHING
        x = asin(sqrt(min(1.0, state.corrections / state.strokes)))
        sd = sqrt(max(state.variance, 1.0 / (4.0 * state.strokes)))
        z = (x - state.mean) / sd
        is_known = state.seen >= params.warm_up
        learned = _learn(emptied, x, sd, params)
        if is_known and z >= params.z and state.corrections >= params.corrections:
            return self._high_bin(state, learned, z=z, sd=sd, end_ms=end_ms, params=params)
        if is_known and z >= params.z_clear and state.is_raised:
            return learned, NOTHING
        calm = msgspec.structs.replace(learned, high=0, is_raised=False)
        return calm, (self.cleared(end_ms),) if state.is_raised else NOTHING

    def _high_bin(
        self,
        before: CorrectionBurstState,
        learned: CorrectionBurstState,
        *,
        z: float,
        sd: float,
        end_ms: int,
        params: CorrectionBurstParams,
    ) -> tuple[CorrectionBurstState, tuple[Signal, ...]]:
        high = before.high + 1
        since_ms = before.since_ms if before.high else before.bin_ms
        is_raised = before.is_raised or high >= params.bins
        after = msgspec.structs.replace(learned, high=high, since_ms=since_ms, is_raised=is_raised)
        if not is_raised:
            return after, NOTHING
        share = before.corrections / before.strokes
        low, top = _share(before.mean - sd), _share(before.mean + sd)
        signal = self.raised(
            at_ms=end_ms,
            since_ms=since_ms,
            strength=Strength.STRONG if high >= STRONG_BINS else Strength.WARN,
            reason=say(
                "correction_burst",
                "{share} % of key presses are corrections, usual {low}–{top} %",
                share=percent(share),
                low=percent(low),
                top=percent(top),
            ),
            evidence=Evidence(
                numbers={
                    "corrections": before.corrections,
                    "strokes": before.strokes,
                    "share": round(share, 4),
                    "usual_low": round(low, 4),
                    "usual_high": round(top, 4),
                    "z": round(z, 2),
                    "bins": high,
                },
                thresholds={"z": params.z, "bins": params.bins, "corrections": params.corrections},
                observations=before.ids,
            ),
            item=before.item,
            skill=before.skill,
        )
        return after, (signal,)


def _learn(
    state: CorrectionBurstState, x: float, sd: float, params: CorrectionBurstParams
) -> CorrectionBurstState:
    """The baseline after one more bin: a plain mean at first, exponentially weighted from then on."""
    weight = max(params.weight, 1.0 / (state.seen + 1))
    if state.seen >= params.warm_up:
        x = min(max(x, state.mean - WINSOR_SD * sd), state.mean + WINSOR_SD * sd)
    delta = x - state.mean
    return msgspec.structs.replace(
        state,
        mean=state.mean + weight * delta,
        variance=(1.0 - weight) * (state.variance + weight * delta * delta),
        seen=state.seen + 1,
    )


def _share(x: float) -> float:
    """The share whose transform is x."""
    return sin(max(0.0, x)) ** 2


DETECTOR = CorrectionBurst()
