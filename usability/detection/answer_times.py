"""How long a pupil's answers take: one clock, used by the rules about pace."""

import msgspec

from usability.detection.kinds import MetricType
from usability.detection.observations import Observation

SHORTEST_MS = 500
LONGEST_MS = 1_800_000  # longer than half an hour is an absence, not work
BEGINS = frozenset({MetricType.NAVIGATION, MetricType.FOCUS, MetricType.COMPLETION, MetricType.HINT})
LISTENS = BEGINS | {MetricType.ANSWER, MetricType.BLUR}


class AnswerClock(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """When the work on the present answer began; 0: not known."""

    from_ms: int = 0

    def after(self, observation: Observation) -> "AnswerClock":
        """The clock after one observation of a type in `LISTENS`; the app out of sight stops it."""
        return AnswerClock(0 if observation.metric_type == MetricType.BLUR else observation.at_ms)

    def took_ms(self, answer: Observation) -> int | None:
        """How long this answer took: what the app says, else since work on it began; None: not known."""
        took_ms = answer.duration_ms
        if took_ms is None:
            took_ms = answer.at_ms - self.from_ms if self.from_ms else None
        if took_ms is None or took_ms > LONGEST_MS:
            return None
        return max(SHORTEST_MS, took_ms)
