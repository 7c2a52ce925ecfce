"""The shape of a detector. One file in `detectors/` defines one and is found by the registry."""

from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from usability.detection.kinds import MetricType, SignalFamily
from usability.detection.observations import Observation
from usability.detection.signals import Evidence, Reason, Signal, Strength

NO_EVIDENCE = Evidence()
NOTHING: tuple[Signal, ...] = ()

# What counts as the pupil doing something. Pauses, blur and the app's own counters do not.
ACTIVITY: frozenset[str] = frozenset(
    {
        MetricType.KEYPRESS,
        MetricType.BACKSPACE,
        MetricType.SCROLLING,
        MetricType.MOUSE_MOVEMENT,
        MetricType.CLICK,
        MetricType.ERROR,
        MetricType.COMPLETION,
        MetricType.FOCUS,
        MetricType.NAVIGATION,
        MetricType.ANSWER,
        MetricType.HINT,
        MetricType.HELP_REQUEST,
    }
)


def is_activity(observation: Observation) -> bool:
    """Whether the pupil did something; a count of nothing is nothing, a wrong answer (0) is something."""
    if observation.metric_type not in ACTIVITY:
        return False
    return observation.value > 0 or observation.metric_type == MetricType.ANSWER


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters every detector has. Subclasses add theirs, with their bounds in the types."""

    enabled: bool = True


S = TypeVar("S")
P = TypeVar("P", bound=Params)


class Detector(Generic[S, P]):
    """A rule over one pupil's observations in one app.

    `advance` and `on_time` are pure and O(1) in time and state; they return the next state and the signals
    of that moment. Observations come in event-time order. `on_time` is called at `due_ms` and later; when it
    was called for a time beyond a late-coming observation, that observation is still seen, in its turn.
    A raised signal must be cleared by evidence or by time: nothing stays raised for ever.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    family: ClassVar[SignalFamily]
    listens: ClassVar[frozenset[str]]
    # Metric types handed over on receipt, before the reordering delay; `advance` must not mind their order.
    at_once: ClassVar[frozenset[str]] = frozenset()
    # Whether answers at a skill come with the pupil's practice of it; see skill_detector.py.
    follows_practice: ClassVar[bool] = False
    State: ClassVar[type[Any]]
    Params: ClassVar[type[Any]]

    def start(self) -> S:
        """The state before the first observation."""
        state: S = self.State()
        return state

    def new_session(self, state: S) -> S:
        """What is carried into the pupil's next session; by default nothing."""
        return self.start()

    def advance(self, state: S, observation: Observation, params: P) -> tuple[S, tuple[Signal, ...]]:
        """Fold one observation of a type in `listens`."""
        raise NotImplementedError

    def due_ms(self, state: S, params: P) -> int | None:
        """The event time at which `on_time` has something to do; None: no timer runs."""
        return None

    def on_time(self, state: S, now_ms: int, params: P) -> tuple[S, tuple[Signal, ...]]:
        """Fold the passing of time up to `now_ms`. Signals carry the time they were due, not `now_ms`."""
        return state, NOTHING

    def near(self, state: S, now_ms: int, params: P) -> Evidence:
        """How far the condition is from being raised: numbers beside thresholds; none by default."""
        return NO_EVIDENCE

    def raised(
        self,
        *,
        at_ms: int,
        since_ms: int,
        strength: Strength,
        reason: Reason,
        evidence: Evidence = NO_EVIDENCE,
        item: str = "",
        skill: str = "",
        condition: str = "",
    ) -> Signal:
        """A raised signal of this detector; `condition` tells apart several that it keeps."""
        return Signal(
            detector=f"{self.name}.{condition}" if condition else self.name,
            version=self.version,
            family=self.family,
            raised=True,
            at_ms=at_ms,
            since_ms=since_ms,
            strength=strength,
            reason=reason,
            evidence=evidence,
            item=item,
            skill=skill,
        )

    def cleared(self, at_ms: int, condition: str = "") -> Signal:
        """The signal that takes a raised one back."""
        return Signal(
            detector=f"{self.name}.{condition}" if condition else self.name,
            version=self.version,
            family=self.family,
            raised=False,
            at_ms=at_ms,
            since_ms=at_ms,
        )
