"""Whether a history of one register is linearizable, decided by search; and which few operations show that it is not.

The search is Wing and Gong's ("Testing and verifying concurrent objects", 1993) with Lowe's memory of the
configurations that were tried ("Testing for linearizability", 2017). Registers are independent, so each is judged
alone (the locality of Herlihy and Wing, 1990; "P-compositionality" in Horn and Kroening, 2015).

A configuration is the first operation that has not taken effect, the set of later ones that have, and the value.
Only operations that overlap are in that set, so it stays small however long the history is.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from coordination.verify.history import Operation

STEPS_MAX = 2_000_000
SHRINK_STEPS_MAX = 200_000
SHRINK_TRIES_MAX = 400


class Access(NamedTuple):
    """A read or a write of one register; `returned` is infinite where the outcome is unknown."""

    invoked: int
    returned: float
    is_write: bool
    value: Any
    operation: Operation


class Judgement(NamedTuple):
    """`is_linearizable` None: the search was given up after so many steps."""

    is_linearizable: bool | None
    steps: int
    witness: tuple[Operation, ...] = ()


def accesses(operations: Sequence[Operation]) -> list[Access]:
    """What counts of a register's history.

    Left out: reads that gave nothing, writes that were refused, and unknown writes whose value nobody read. Such
    a write can always be taken as one that has not happened yet.
    """
    read = {_frozen(one.output.get("value")) for one in operations if _is_read(one) and one.output}
    found = []
    for one in operations:
        if _is_read(one):
            assert one.output is not None
            assert one.return_ns is not None
            found.append(Access(one.invoke_ns, one.return_ns, False, _frozen(one.output.get("value")), one))
        elif one.op == "register.write" and one.may_have_happened:
            value = _frozen(one.input.get("value"))
            if one.is_known or value in read:
                returned = math.inf if one.return_ns is None else one.return_ns
                found.append(Access(one.invoke_ns, returned, True, value, one))
    return sorted(found, key=lambda access: access.invoked)


def _is_read(operation: Operation) -> bool:
    return operation.op == "register.read" and operation.is_ok


def _frozen(value: Any) -> Any:
    """A value that can be compared and hashed; JSON's lists and objects by their text."""
    return repr(value) if isinstance(value, list | dict) else value


def judge(operations: Sequence[Operation], *, initial: Any = None, steps_max: int = STEPS_MAX) -> Judgement:
    """Whether one register's history is linearizable. Where it is not, the witness is a small part that is not."""
    found = accesses(operations)
    verdict, steps = search(found, initial, steps_max)
    if verdict is not False:
        return Judgement(verdict, steps)
    return Judgement(False, steps, tuple(access.operation for access in shrink(found, initial)))


def search(found: Sequence[Access], initial: Any, steps_max: int) -> tuple[bool | None, int]:
    """Whether there is an order that explains every answer; None after `steps_max` steps. With the steps taken."""
    must = [access for access in found if access.returned < math.inf]
    may = [access for access in found if access.returned == math.inf]
    tried: set[tuple[int, int, int, Any]] = set()
    # first: all of `must` before it have taken effect; later, unknown: sets of places as bits.
    stack: list[tuple[int, int, int, Any]] = [(0, 0, 0, initial)]
    steps = 0
    while stack:
        first, later, unknown, value = stack.pop()
        if first == len(must):
            return True, steps
        for configuration in _successors(must, may, first, later, unknown, value):
            steps += 1
            if steps > steps_max:
                return None, steps
            if configuration not in tried:
                tried.add(configuration)
                stack.append(configuration)
    return False, steps


def _successors(
    must: Sequence[Access],
    may: Sequence[Access],
    first: int,
    later: int,
    unknown: int,
    value: Any,
) -> Iterator[tuple[int, int, int, Any]]:
    """What one more operation can make of a configuration: any that was invoked before a pending one returned."""
    limit = math.inf
    place = first
    candidates = []
    while place < len(must) and must[place].invoked <= limit:
        if not later >> (place - first) & 1:
            limit = min(limit, must[place].returned)
            candidates.append(place)
        place += 1
    for number, access in enumerate(may):
        if access.invoked <= limit and not unknown >> number & 1:
            yield first, later, unknown | 1 << number, access.value
    # Pushed last, tried first: the one that returned first usually took effect first.
    for place in sorted(candidates, key=lambda one: -must[one].returned):
        access = must[place]
        if access.invoked > limit or not (access.is_write or access.value == value):
            continue
        done, ahead = later | 1 << (place - first), first
        while done & 1:
            done, ahead = done >> 1, ahead + 1
        yield ahead, done, unknown, access.value


def shrink(found: Sequence[Access], initial: Any) -> list[Access]:
    """A small part of a history that is not linearizable and is still none.

    First the shortest beginning that fails (a beginning of a linearizable history is one), then without each value
    (its write together with its reads, so that nothing is read that nobody wrote), then without each read.
    """

    def fails(part: Sequence[Access]) -> bool:
        return search(part, initial, SHRINK_STEPS_MAX)[0] is False

    part = _shortest_beginning(found, fails)
    tries = 0
    values = list(dict.fromkeys(access.value for access in reversed(part)))
    for value in values:
        smaller = [access for access in part if access.value != value]
        if tries < SHRINK_TRIES_MAX and len(smaller) < len(part) and fails(smaller):
            part = smaller
        tries += 1
    for access in [one for one in part if not one.is_write]:
        smaller = [one for one in part if one is not access]
        if tries < SHRINK_TRIES_MAX and fails(smaller):
            part = smaller
        tries += 1
    return part


def _shortest_beginning(found: Sequence[Access], fails: Callable[[Sequence[Access]], bool]) -> list[Access]:
    ends = sorted(access.returned for access in found if access.returned < math.inf)
    low, high = 0, len(ends) - 1
    while low < high:
        middle = (low + high) // 2
        if fails(_until(found, ends[middle])):
            high = middle
        else:
            low = middle + 1
    return _until(found, ends[high]) if ends else list(found)


def _until(found: Sequence[Access], end: float) -> list[Access]:
    """What was known at a moment: writes under way may have happened, reads under way have given nothing."""
    known = []
    for access in found:
        if access.invoked > end:
            break
        if access.returned <= end:
            known.append(access)
        elif access.is_write:
            known.append(access._replace(returned=math.inf))
    return known
