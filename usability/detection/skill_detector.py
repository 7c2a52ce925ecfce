"""What the rules about a pupil's practice of a skill have in common.

The engine counts practice once (`practice.py`) and hands it to each of them with the answer. A condition is about
one skill at a time: it holds while the predicate does, and ends with an answer at another skill or after
`forget_s` without an answer.
"""

from typing import Annotated, Any, Generic, NamedTuple, TypeVar

import msgspec

from usability.detection.detector import NOTHING, Detector, Params
from usability.detection.kinds import MetricType, SignalFamily
from usability.detection.observations import Observation
from usability.detection.practice import Norms, Practice, SkillPractice, score
from usability.detection.signals import Evidence, Reason, Signal, Strength, newest


class Standing(NamedTuple):
    """Where a pupil stands at a skill after an answer."""

    skill: str
    practice: Practice
    norms: Norms

    @property
    def done(self) -> SkillPractice:
        """The pupil's answers at the skill."""
        return self.practice.of(self.skill)

    def score(self) -> float:
        """How likely the skill is not to be mastered in ten tries, as `practice.score` says."""
        return score(self.practice, self.skill, self.norms)


class SkillParams(Params, frozen=True, kw_only=True):
    """Parameters of every rule about a skill."""

    forget_s: Annotated[int, msgspec.Meta(ge=30, le=3600)] = 300


class SkillState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The skill a condition is raised about ("" where none is), since when, and on which answers."""

    skill: str = ""
    since_ms: int = 0
    last_ms: int = 0
    ids: tuple[str, ...] = ()


NOT_RAISED = SkillState()

P = TypeVar("P", bound=SkillParams)


class SkillDetector(Detector[SkillState, P], Generic[P]):
    """A rule over a pupil's practice of one skill. Subclasses give `found` and its words."""

    family = SignalFamily.PROGRESS
    listens = frozenset({MetricType.ANSWER})
    follows_practice = True
    State = SkillState

    def found(self, standing: Standing, params: P, *, is_raised: bool) -> "Finding | None":
        """What the rule has found at the skill, given whether it is raised about it already."""
        raise NotImplementedError

    def advance_practice(
        self, state: SkillState, observation: Observation, params: P, standing: Standing
    ) -> tuple[SkillState, tuple[Signal, ...]]:
        """Fold one answer at a skill; `standing` includes it."""
        is_raised = state.skill == standing.skill
        found = self.found(standing, params, is_raised=is_raised)
        if found is None:
            return NOT_RAISED, (self.cleared(observation.at_ms),) if state.skill else NOTHING
        after = SkillState(
            skill=standing.skill,
            since_ms=state.since_ms if is_raised else observation.at_ms,
            last_ms=observation.at_ms,
            ids=newest(state.ids if is_raised else (), observation.id),
        )
        return after, (self._signal(after, observation, found),)

    def near_practice(self, standing: Standing, params: P) -> Evidence:
        """How far the condition is from being raised about the skill of the latest answer."""
        raise NotImplementedError

    def due_ms(self, state: SkillState, params: P) -> int | None:
        """When a raised condition is forgotten."""
        return state.last_ms + params.forget_s * 1000 if state.skill else None

    def on_time(self, state: SkillState, now_ms: int, params: P) -> tuple[SkillState, tuple[Signal, ...]]:
        """Forget it."""
        due = self.due_ms(state, params)
        return (NOT_RAISED, (self.cleared(due),)) if due is not None and due <= now_ms else (state, NOTHING)

    def _signal(self, state: SkillState, observation: Observation, found: "Finding") -> Signal:
        return self.raised(
            at_ms=observation.at_ms,
            since_ms=state.since_ms,
            strength=found.strength,
            reason=found.reason,
            evidence=Evidence(found.numbers, found.thresholds, state.ids),
            item=observation.item,
            skill=state.skill,
        )


class Finding(NamedTuple):
    """How strongly a rule holds, in words and numbers."""

    strength: Strength
    reason: Reason
    numbers: dict[str, float]
    thresholds: dict[str, float]


AnySkillDetector = SkillDetector[Any]
