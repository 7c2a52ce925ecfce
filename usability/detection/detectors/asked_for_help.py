"""asked_for_help: the pupil pressed the help button.

Rule: a `help_request` of 1 raises it at once, before the reordering delay and without a hold; 0 takes it back.
A completion or `right` (3) right answers in a row clear it, and so do `expire_s` (900 s).
Source: pupils want to ask without losing face, and teachers want to hear of it at once (Holstein, McLaren,
Aleven 2019); the request is seen by the teacher alone.
"""

from typing import Annotated

import msgspec

from usability.detection.detector import NOTHING, Detector, Params
from usability.detection.kinds import MetricType, SignalFamily
from usability.detection.observations import Observation
from usability.detection.signals import Evidence, Signal, Strength, newest
from usability.detection.words import on_item, say


class AskedForHelpParams(Params, frozen=True, kw_only=True):
    right: Annotated[int, msgspec.Meta(ge=1, le=10)] = 3
    expire_s: Annotated[int, msgspec.Meta(ge=60, le=7200)] = 900


class AskedForHelpState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    since_ms: int = 0  # 0: no request is open
    last_ms: int = 0
    requests: int = 0
    right: int = 0
    ids: tuple[str, ...] = ()
    item: str = ""


class AskedForHelp(Detector[AskedForHelpState, AskedForHelpParams]):
    name = "asked_for_help"
    version = 1
    family = SignalFamily.HELP
    listens = frozenset({MetricType.HELP_REQUEST, MetricType.ANSWER, MetricType.COMPLETION})
    at_once = frozenset({MetricType.HELP_REQUEST})
    State = AskedForHelpState
    Params = AskedForHelpParams

    def advance(
        self, state: AskedForHelpState, observation: Observation, params: AskedForHelpParams
    ) -> tuple[AskedForHelpState, tuple[Signal, ...]]:
        if observation.metric_type == MetricType.HELP_REQUEST:
            return (
                self._asked(state, observation, params)
                if observation.value > 0
                else self._ended(state, observation)
            )
        # Answers come later than requests that were handed over at once; older ones say nothing about them.
        if not state.since_ms or observation.at_ms <= state.last_ms:
            return state, NOTHING
        if observation.metric_type == MetricType.COMPLETION:
            return self._ended(state, observation)
        right = state.right + 1 if observation.correct else 0
        if right >= params.right:
            return self._ended(state, observation)
        return msgspec.structs.replace(state, right=right), NOTHING

    def due_ms(self, state: AskedForHelpState, params: AskedForHelpParams) -> int | None:
        return state.last_ms + params.expire_s * 1000 if state.since_ms else None

    def on_time(
        self, state: AskedForHelpState, now_ms: int, params: AskedForHelpParams
    ) -> tuple[AskedForHelpState, tuple[Signal, ...]]:
        due = self.due_ms(state, params)
        return (
            (AskedForHelpState(), (self.cleared(due),))
            if due is not None and due <= now_ms
            else (state, NOTHING)
        )

    def _ended(
        self, state: AskedForHelpState, observation: Observation
    ) -> tuple[AskedForHelpState, tuple[Signal, ...]]:
        return AskedForHelpState(), (self.cleared(observation.at_ms),) if state.since_ms else NOTHING

    def _asked(
        self, state: AskedForHelpState, observation: Observation, params: AskedForHelpParams
    ) -> tuple[AskedForHelpState, tuple[Signal, ...]]:
        after = AskedForHelpState(
            since_ms=min(state.since_ms or observation.at_ms, observation.at_ms),
            last_ms=max(state.last_ms, observation.at_ms),
            requests=state.requests + 1,
            ids=newest(state.ids, observation.id),
            item=observation.item,
        )
        template = (
            "Asked for help{on_item}" if after.requests == 1 else "Asked for help {times} times{on_item}"
        )
        signal = self.raised(
            at_ms=observation.at_ms,
            since_ms=after.since_ms,
            strength=Strength.STRONG,
            reason=say(
                "asked_for_help",
                template,
                on_item=on_item(after.item),
                times=after.requests,
                item=after.item,
            ),
            evidence=Evidence(
                numbers={"requests": after.requests},
                thresholds={"requests": 1},
                observations=after.ids,
            ),
            item=observation.item,
            skill=observation.skill,
        )
        return after, (signal,)


DETECTOR = AskedForHelp()
