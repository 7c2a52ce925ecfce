"""Shares with honest intervals: what every count of few things is told with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

Z_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Share:
    """`right` of `n`, with the 95 % interval of the share; None where there was nothing to count.

    `right` may be a fraction: a mean of `n` shares has at most the spread of `n` yes-or-no counts, so its
    interval is on the careful side.
    """

    right: float
    n: int

    @property
    def value(self) -> float | None:
        """The share itself."""
        return self.right / self.n if self.n else None

    def interval(self) -> tuple[float, float] | None:
        """Wilson's score interval (Wilson 1927), which stays within 0..1 and holds for small counts."""
        if not self.n:
            return None
        share, z2 = self.right / self.n, Z_95**2
        middle = (share + z2 / (2 * self.n)) / (1 + z2 / self.n)
        spread = max(0.0, share * (1 - share)) / self.n + z2 / (4 * self.n**2)
        half = Z_95 * sqrt(spread) / (1 + z2 / self.n)
        # Rounding must not put the share itself outside.
        return min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))

    def as_json(self) -> dict[str, Any]:
        """What is stored: share, n, low, high."""
        low, high = self.interval() or (None, None)
        return {"share": self.value, "n": self.n, "low": low, "high": high}

    @classmethod
    def from_json(cls, stored: dict[str, Any] | None) -> Share:
        """The share `as_json` has written; of nothing where nothing is stored."""
        found = stored or {}
        n = int(found.get("n") or 0)
        return cls((found.get("share") or 0.0) * n, n)


@dataclass(frozen=True, slots=True)
class Gap:
    """A difference with its 95 % interval."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        """What is stored."""
        return {"value": self.value, "low": self.low, "high": self.high}


def gap(before: Share, after: Share) -> Gap | None:
    """`after` minus `before` (Newcombe 1998, method 10, from the two Wilson intervals); None if one is of nothing."""
    one, other = after.interval(), before.interval()
    if one is None or other is None or after.value is None or before.value is None:
        return None
    value = after.value - before.value
    low = value - sqrt((after.value - one[0]) ** 2 + (other[1] - before.value) ** 2)
    high = value + sqrt((one[1] - after.value) ** 2 + (before.value - other[0]) ** 2)
    return Gap(value, max(-1.0, low), min(1.0, high))


def gap_of_gaps(one: Gap, other: Gap) -> Gap:
    """`one` minus `other`, two independent differences (the same square-and-add rule; Zou and Donner 2008)."""
    value = one.value - other.value
    low = value - sqrt((one.value - one.low) ** 2 + (other.high - other.value) ** 2)
    high = value + sqrt((one.high - one.value) ** 2 + (other.value - other.low) ** 2)
    return Gap(value, low, high)


def pooled(parts: Sequence[Share]) -> Share:
    """Many counts together, as the share of so many independent ones as they are worth.

    The answers of one moment are alike, so their number overstates what is known: it is divided by the design
    effect, the variance between the parts over that of independent answers (Kish 1965; ratio estimator). Never
    more than there were, never fewer than the parts.
    """
    counted = [part for part in parts if part.n]
    total = sum(part.n for part in counted)
    if not total:
        return Share(0, 0)
    share = sum(part.right for part in counted) / total
    size = len(counted)
    if size == 1:
        return Share(share * total, total)
    between = size / (size - 1) * sum((part.right - share * part.n) ** 2 for part in counted) / total**2
    # Parts that agree but not wholly show no likeness; where all were good or none, it cannot be seen.
    unlike = total if 0 < share < 1 else size
    worth = share * (1 - share) / between if between > 0 else unlike
    n = int(min(total, max(size, worth)))
    return Share(share * n, n)
