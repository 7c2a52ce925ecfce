"""The evidence strip: what a pupil did in the last minutes, small enough to be stored with an episode."""

from typing import Literal

import msgspec

from usability.detection.kinds import MetricType
from usability.detection.observations import Observation

STRIP_MS = 600_000
STRIP_POINTS = 40
TYPING_BIN_MS = 30_000

StripKind = Literal["right", "wrong", "error", "hint", "pause", "help", "completion", "typing"]


class StripPoint(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One mark. `value`: a count, the seconds of a pause, the strokes of a typing bin; `corrections` of those."""

    at_ms: int
    kind: StripKind
    value: float = 1.0
    corrections: float = 0.0


_KINDS: dict[str, StripKind] = {
    MetricType.ERROR: "error",
    MetricType.HINT: "hint",
    MetricType.HESITATION: "pause",
    MetricType.PAUSE: "pause",
    MetricType.HELP_REQUEST: "help",
    MetricType.COMPLETION: "completion",
}

_TYPING = frozenset({MetricType.KEYPRESS, MetricType.BACKSPACE})


def extended(strip: tuple[StripPoint, ...], observation: Observation) -> tuple[StripPoint, ...]:
    """The strip after one more observation; strokes gather in bins of 30 s."""
    kind = observation.metric_type
    if kind in _TYPING:
        return _typed(strip, observation)
    if kind == MetricType.ANSWER:
        point = StripPoint(observation.at_ms, "right" if observation.correct else "wrong")
    elif kind in _KINDS:
        point = StripPoint(observation.at_ms, _KINDS[kind], observation.value)
    else:
        return strip
    return (*strip, point)[-STRIP_POINTS:]


def shown(strip: tuple[StripPoint, ...], now_ms: int) -> tuple[StripPoint, ...]:
    """The part of the strip that is not older than ten minutes."""
    return tuple(point for point in strip if point.at_ms > now_ms - STRIP_MS)


def _typed(strip: tuple[StripPoint, ...], observation: Observation) -> tuple[StripPoint, ...]:
    corrections = observation.value if observation.metric_type == MetricType.BACKSPACE else 0.0
    last = strip[-1] if strip else None
    if last is None or last.kind != "typing" or observation.at_ms >= last.at_ms + TYPING_BIN_MS:
        return (*strip, StripPoint(observation.at_ms, "typing", observation.value, corrections))[
            -STRIP_POINTS:
        ]
    merged = StripPoint(last.at_ms, "typing", last.value + observation.value, last.corrections + corrections)
    return (*strip[:-1], merged)
