"""What a detector says: a condition was raised or cleared, why, and on what evidence."""

from collections.abc import Iterable
from enum import IntEnum

import msgspec

from usability.detection.kinds import SignalFamily

EVIDENCE_OBSERVATIONS = 12  # ids kept with a signal; the newest ones


class Strength(IntEnum):
    """How far beyond its threshold a condition is; in halves, a factor of severity, never a probability."""

    WEAK = 1
    WARN = 2
    STRONG = 4


class Reason(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Why, as a message key with parameters for translation and as the English sentence made of them."""

    key: str
    text: str
    params: dict[str, str | int | float] = {}


class Evidence(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What was found: numbers, the thresholds they were held against, ids of observations (oldest first)."""

    numbers: dict[str, float] = {}
    thresholds: dict[str, float] = {}
    observations: tuple[str, ...] = ()


class Signal(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A detector's condition at event time `at_ms`; it holds since `since_ms` (the onset, not its discovery).

    A raised signal replaces the earlier one of the same `detector`; `raised=False` takes it back.
    """

    detector: str
    version: int
    family: SignalFamily
    raised: bool
    at_ms: int
    since_ms: int
    strength: Strength = Strength.WARN
    reason: Reason = Reason("", "")
    evidence: Evidence = Evidence()
    item: str = ""
    skill: str = ""


def newest(ids: Iterable[str], added: str = "") -> tuple[str, ...]:
    """The ids to keep as evidence after one more."""
    kept = (*ids, added) if added else tuple(ids)
    return kept[-EVIDENCE_OBSERVATIONS:]
