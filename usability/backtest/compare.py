"""Two outcomes of the same metrics, told apart: what is new, what is lost, what moved, and whether it was right.

Pure: alerts in, counts and examples out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from usability.backtest.replay import Outcome, Raised
from usability.proportions import Share

EXAMPLES = 25
# Two alerts of a pupil and family that overlap or lie within this are the same struggle, seen earlier or later.
SAME_STRUGGLE_MS = 300_000
BIN_MS = 300_000

Key = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Label:
    """What a teacher made of an alert that was really raised: `is_problem` False is "not a problem"."""

    student_id: str
    app_name: str
    family: str
    onset_ms: int
    is_problem: bool


@dataclass(frozen=True, slots=True)
class Pair:
    """An alert of the present profile and the one of the candidate it corresponds to."""

    before: Raised
    after: Raised


@dataclass(slots=True)
class Difference:
    """How the candidate differs in one class."""

    kept: list[Pair] = field(default_factory=list)
    moved: list[Pair] = field(default_factory=list)
    new: list[Raised] = field(default_factory=list)
    lost: list[Raised] = field(default_factory=list)


def difference(before: Sequence[Raised], after: Sequence[Raised], *, hold_ms: int) -> Difference:
    """Pair alerts of the same pupil, app and family by time; a pair that lies more than `hold_ms` apart has moved."""
    found = Difference()
    theirs = _by_key(after)
    for key, own in _by_key(before).items():
        others = theirs.pop(key, [])
        for one in own:
            match = min(
                (other for other in others if _is_same_struggle(one, other)),
                key=lambda other, one=one: (abs(other.opened_ms - one.opened_ms), other.opened_ms),
                default=None,
            )
            if match is None:
                found.lost.append(one)
                continue
            others.remove(match)
            has_moved = abs(match.opened_ms - one.opened_ms) > hold_ms
            (found.moved if has_moved else found.kept).append(Pair(one, match))
        found.new += others
    found.new += [one for others in theirs.values() for one in others]
    found.new.sort(key=_opening)
    found.lost.sort(key=_opening)
    return found


def _opening(one: Raised) -> tuple[int, str]:
    return one.opened_ms, one.key


def _by_key(raised: Iterable[Raised]) -> dict[Key, list[Raised]]:
    found: dict[Key, list[Raised]] = defaultdict(list)
    for one in raised:
        topic = one.item if not one.student_id else ""
        found[(one.student_id, one.app_name, one.family, topic)].append(one)
    return found


def _is_same_struggle(one: Raised, other: Raised) -> bool:
    if abs(one.opened_ms - other.opened_ms) <= SAME_STRUGGLE_MS:
        return True
    overlap = min(_end(one), _end(other)) - max(one.onset_ms, other.onset_ms)
    return overlap > 0


def _end(one: Raised) -> int:
    return one.closed_ms or one.opened_ms + SAME_STRUGGLE_MS


@dataclass(frozen=True, slots=True)
class Judged:
    """Alerts that teachers have labelled: `right` of `n` were a problem; `dismissed` were none."""

    right: int
    n: int

    @property
    def dismissed(self) -> int:
        """How many were "not a problem"."""
        return self.n - self.right

    def as_json(self) -> dict[str, Any]:
        """Share with its 95 % interval (Wilson) and counts."""
        share = Share(self.right, self.n)
        low, high = share.interval() or (None, None)
        return {
            "precision": share.value,
            "n": self.n,
            "problems": self.right,
            "dismissed": self.dismissed,
            "low": low,
            "high": high,
        }


def matched(raised: Iterable[Raised], labels: Sequence[Label]) -> list[bool]:
    """For each label, whether an outcome would have raised its alert.

    A label belongs to an alert of the same pupil, app and family that began within five minutes of it or was
    open then.
    """
    by_key = _by_key(raised)
    return [
        any(
            abs(one.onset_ms - label.onset_ms) <= SAME_STRUGGLE_MS
            or one.onset_ms <= label.onset_ms <= _end(one)
            for one in by_key.get((label.student_id, label.app_name, label.family, ""), ())
        )
        for label in labels
    ]


def judged(found: Sequence[bool], labels: Sequence[Label]) -> Judged:
    """The labels that `matched` found; what nobody labelled does not count."""
    own = [label for label, is_found in zip(labels, found, strict=True) if is_found]
    return Judged(sum(label.is_problem for label in own), len(own))


def bins_with_work(at_ms: Iterable[int]) -> set[int]:
    """The five-minute stretches in which anything was reported; twelve are a class-hour."""
    return {moment // BIN_MS for moment in at_ms}


@dataclass(slots=True)
class Tally:
    """The sums of one side over all classes."""

    raised: int = 0
    interrupting: int = 0
    by_family: Counter[str] = field(default_factory=Counter)
    right: int = 0
    labelled: int = 0

    def add(self, outcome: Outcome, found: Judged) -> None:
        """Add one class."""
        self.raised += len(outcome.raised)
        self.interrupting += sum(one.interrupts for one in outcome.raised)
        self.by_family.update(one.family for one in outcome.raised)
        self.right += found.right
        self.labelled += found.n

    def as_json(self, class_hours: float) -> dict[str, Any]:
        """Counts and rates; rates are None where nobody worked."""
        return {
            "alerts": self.raised,
            "interrupting": self.interrupting,
            "listed": self.raised - self.interrupting,
            "alerts_per_class_hour": _rate(self.raised, class_hours),
            "interrupting_per_class_hour": _rate(self.interrupting, class_hours),
            "by_family": dict(sorted(self.by_family.items())),
            "against_teachers": Judged(self.right, self.labelled).as_json(),
        }


def _rate(count: int, hours: float) -> float | None:
    return round(count / hours, 3) if hours else None
