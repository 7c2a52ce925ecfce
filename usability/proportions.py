"""Shares with honest intervals: what every count of few things is told with."""

from __future__ import annotations

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
