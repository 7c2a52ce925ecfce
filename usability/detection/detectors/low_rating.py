"""low_rating: the pupil rated the work low.

Rule: a rating of `low` (2) or less of five joins, as evidence, whatever episode of the pupil is open at that moment.
It opens none and keeps none open: it is taken back after `joined_s` (10 s), and the episode goes on saying that it
was given. A rating above joins nothing.
Source: the reference's 1 to 5 ratings; a rating is an opinion about the work, given by the pupil.
"""

from typing import Annotated

import msgspec

from usability.detection.detector import NOTHING, Detector, Params
from usability.detection.kinds import MetricType, SignalFamily
from usability.detection.observations import Observation
from usability.detection.signals import Evidence, Signal, Strength
from usability.detection.words import say


class LowRatingParams(Params, frozen=True, kw_only=True):
    low: Annotated[int, msgspec.Meta(ge=1, le=4)] = 2
    joined_s: Annotated[int, msgspec.Meta(ge=1, le=60)] = 10


class LowRatingState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    at_ms: int = 0  # of the rating that is raised; 0: none is


class LowRating(Detector[LowRatingState, LowRatingParams]):
    name = "low_rating"
    version = 1
    family = SignalFamily.RATING
    listens = frozenset({MetricType.RATING})
    State = LowRatingState
    Params = LowRatingParams

    def advance(
        self, state: LowRatingState, observation: Observation, params: LowRatingParams
    ) -> tuple[LowRatingState, tuple[Signal, ...]]:
        if not 1 <= observation.value <= params.low:
            return state, NOTHING
        signal = self.raised(
            at_ms=observation.at_ms,
            since_ms=observation.at_ms,
            strength=Strength.WEAK,
            reason=say("low_rating", "Rated {rating} of 5", rating=int(observation.value)),
            evidence=Evidence(
                numbers={"rating": observation.value},
                thresholds={"low": params.low},
                observations=(observation.id,),
            ),
        )
        return LowRatingState(observation.at_ms), (signal,)

    def due_ms(self, state: LowRatingState, params: LowRatingParams) -> int | None:
        return state.at_ms + params.joined_s * 1000 if state.at_ms else None

    def on_time(
        self, state: LowRatingState, now_ms: int, params: LowRatingParams
    ) -> tuple[LowRatingState, tuple[Signal, ...]]:
        due = self.due_ms(state, params)
        if due is None or due > now_ms:
            return state, NOTHING
        return LowRatingState(), (self.cleared(due),)


DETECTOR = LowRating()
