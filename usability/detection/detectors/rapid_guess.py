"""rapid_guess: wrong answers given too fast to have been worked out.

Rule: among the last `clip` (5) answers, at least `wrong` (3) are wrong and took less than `fast_s` (5 s). The
time is the app's `duration_ms`, else the time since the pupil's answer before it. Four make it strong. Cleared
when the clip holds fewer than `wrong` - 1 of them, or after `forget_s` (300 s) without an answer.
Source: clips of five actions and the 5 s limit of the gaming detector of Paquette, de Carvalho and Baker 2014,
as used in Lumilo. Answers the app marks as `similar` to the one before are counted as evidence.
"""

from typing import Annotated

import msgspec

from usability.detection.detector import NOTHING, Detector, Params
from usability.detection.kinds import MetricType, SignalFamily
from usability.detection.observations import Observation
from usability.detection.signals import Evidence, Signal, Strength
from usability.detection.words import on_item, say


class RapidGuessParams(Params, frozen=True, kw_only=True):
    clip: Annotated[int, msgspec.Meta(ge=3, le=20)] = 5
    wrong: Annotated[int, msgspec.Meta(ge=2, le=20)] = 3
    fast_s: Annotated[float, msgspec.Meta(ge=0.5, le=60)] = 5.0
    forget_s: Annotated[int, msgspec.Meta(ge=30, le=3600)] = 300

    def __post_init__(self) -> None:
        if self.wrong > self.clip:
            raise ValueError("wrong must not be greater than clip")


class Guess(msgspec.Struct, frozen=True, array_like=True, gc=False):
    is_fast_wrong: bool
    is_similar: bool
    at_ms: int
    id: str


class RapidGuessState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    clip: tuple[Guess, ...] = ()
    last_ms: int = 0
    since_ms: int = 0
    is_raised: bool = False


class RapidGuess(Detector[RapidGuessState, RapidGuessParams]):
    name = "rapid_guess"
    version = 1
    family = SignalFamily.GUESSING
    listens = frozenset({MetricType.ANSWER})
    State = RapidGuessState
    Params = RapidGuessParams

    def advance(
        self, state: RapidGuessState, observation: Observation, params: RapidGuessParams
    ) -> tuple[RapidGuessState, tuple[Signal, ...]]:
        guess = Guess(
            is_fast_wrong=not observation.correct and _took_ms(state, observation) < params.fast_s * 1000,
            is_similar=observation.similar is True,
            at_ms=observation.at_ms,
            id=observation.id,
        )
        clip = (*state.clip, guess)[-params.clip :]
        fast_wrong = tuple(guess for guess in clip if guess.is_fast_wrong)
        if state.is_raised:
            is_raised = len(fast_wrong) >= params.wrong - 1
        else:
            is_raised = guess.is_fast_wrong and len(fast_wrong) >= params.wrong
        after = RapidGuessState(
            clip=clip,
            last_ms=observation.at_ms,
            since_ms=_onset(state, fast_wrong, observation.at_ms - params.forget_s * 1000)
            if is_raised
            else 0,
            is_raised=is_raised,
        )
        if is_raised:
            return after, (self._signal(after, fast_wrong, observation, params),)
        return after, (self.cleared(observation.at_ms),) if state.is_raised else NOTHING

    def near(self, state: RapidGuessState, now_ms: int, params: RapidGuessParams) -> Evidence:
        fast_wrong = sum(guess.is_fast_wrong for guess in state.clip)
        return Evidence({"fast_wrong": fast_wrong, "answers": len(state.clip)}, {"wrong": params.wrong})

    def due_ms(self, state: RapidGuessState, params: RapidGuessParams) -> int | None:
        return state.last_ms + params.forget_s * 1000 if state.is_raised else None

    def on_time(
        self, state: RapidGuessState, now_ms: int, params: RapidGuessParams
    ) -> tuple[RapidGuessState, tuple[Signal, ...]]:
        due = self.due_ms(state, params)
        if due is None or due > now_ms:
            return state, NOTHING
        return msgspec.structs.replace(state, is_raised=False), (self.cleared(due),)

    def _signal(
        self,
        state: RapidGuessState,
        fast_wrong: tuple[Guess, ...],
        observation: Observation,
        params: RapidGuessParams,
    ) -> Signal:
        count = len(fast_wrong)
        return self.raised(
            at_ms=observation.at_ms,
            since_ms=state.since_ms,
            strength=Strength.STRONG if count > params.wrong else Strength.WARN,
            reason=say(
                "rapid_guess",
                "{wrong} of the last {clip} answers wrong{on_item}, each within {fast_s:g} s",
                wrong=count,
                clip=len(state.clip),
                fast_s=params.fast_s,
                on_item=on_item(observation.item),
                item=observation.item,
            ),
            evidence=Evidence(
                numbers={
                    "fast_wrong": count,
                    "answers": len(state.clip),
                    "similar": sum(guess.is_similar for guess in fast_wrong),
                },
                thresholds={"wrong": params.wrong, "clip": params.clip, "fast_s": params.fast_s},
                observations=tuple(guess.id for guess in fast_wrong),
            ),
            item=observation.item,
            skill=observation.skill,
        )


def _onset(state: RapidGuessState, fast_wrong: tuple[Guess, ...], from_ms: int) -> int:
    """Since when it holds; a guess older than `forget_s` has been forgotten and does not date the onset."""
    return (
        state.since_ms if state.is_raised else next(each.at_ms for each in fast_wrong if each.at_ms > from_ms)
    )


def _took_ms(state: RapidGuessState, observation: Observation) -> float:
    """Time for this answer; unknown for a first answer without a duration, which is then not fast."""
    if observation.duration_ms is not None:
        return observation.duration_ms
    return observation.at_ms - state.last_ms if state.last_ms else float("inf")


DETECTOR = RapidGuess()
