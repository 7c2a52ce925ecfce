"""A whole back-test: every class through the present and the candidate policy, over several processes.

A class is folded in one place, so a process takes a class with both policies, or, where there are fewer classes
than processes, with one of them. The limit of time is kept between chunks.
"""

from __future__ import annotations

import datetime as dt
import multiprocessing
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from django.db import connection, connections
from django.db.models import Exists, OuterRef
from django.utils import timezone

from usability.backtest import child, rows
from usability.backtest.compare import (
    EXAMPLES,
    Difference,
    Label,
    Tally,
    bins_with_work,
    difference,
    judged,
    matched,
)
from usability.backtest.replay import Outcome, Raised, replay
from usability.backtest.wish import Wish, candidate_of
from usability.kinds import AlertState
from usability.models import Classroom, Intervention, TeacherDashboardAlert
from usability.policies import RoomPolicy, from_ms, room_policies, to_ms

PRESENT, CANDIDATE = "present", "candidate"
LIMIT_S = 600.0
POLL_S = 0.25
BINS_AN_HOUR = 12
SMALL = 50_000

Tell = Callable[[int], None]
"""Called now and then with the number of metrics folded so far, each policy counted."""


class TooLongError(Exception):
    """The run came to its limit of time; nothing is said of what it had found."""


@dataclass(frozen=True, slots=True)
class Folded:
    """What one process found for one class: the outcome of each side it was given, and the work seen."""

    classroom_id: uuid.UUID
    outcomes: dict[str, Outcome]
    bins: frozenset[int]
    hold_ms: int


def run(
    wish: Wish, *, processes: int = 1, limit_s: float = LIMIT_S, tell: Tell = lambda _count: None
) -> dict[str, Any]:
    """The result of a back-test, as it is stored and printed. Raises `TooLongError`."""
    began_s = time.monotonic()
    deadline_s = began_s + limit_s
    if _is_small(wish):
        processes = 1
    units = _units(wish, processes)
    if processes > 1 and len(units) > 1:
        folded = _in_processes(wish, units, processes, deadline_s, tell)
    else:
        folded = _in_turn(wish, units, deadline_s, tell)
    return _result(wish, folded, time.monotonic() - began_s)


def _is_small(wish: Wish) -> bool:
    """Whether it is done before further processes would have begun."""
    count = 0
    for one in wish.classroom_ids:
        count += rows.count_of(one, wish.since, wish.until, wish.app_name)
        if count > SMALL:
            return False
    return True


Unit = tuple[uuid.UUID, tuple[str, ...]]


def _units(wish: Wish, processes: int) -> list[Unit]:
    both = (PRESENT, CANDIDATE)
    if len(wish.classroom_ids) >= processes:
        return [(one, both) for one in wish.classroom_ids]
    return [(one, (side,)) for one in wish.classroom_ids for side in both]


def _in_turn(wish: Wish, units: Sequence[Unit], deadline_s: float, tell: Tell) -> list[Folded]:
    done = 0

    def add(count: int) -> None:
        nonlocal done
        done += count
        tell(done)

    return [fold_class(wish, unit, deadline_s, add) for unit in units]


def _in_processes(
    wish: Wish, units: Sequence[Unit], processes: int, deadline_s: float, tell: Tell
) -> list[Folded]:
    # A fresh process: one that is forked would share the connections and threads of this one.
    context = multiprocessing.get_context("spawn")
    shared = context.Value("q", 0)
    database = connection.settings_dict["NAME"]
    with ProcessPoolExecutor(
        min(processes, len(units)), mp_context=context, initializer=child.begin, initargs=(database, shared)
    ) as pool:
        waiting = {pool.submit(_fold_in_child, wish, unit, deadline_s) for unit in units}
        folded = []
        try:
            while waiting:
                ended, waiting = wait(waiting, timeout=POLL_S, return_when=FIRST_COMPLETED)
                tell(shared.value)
                folded += [one.result() for one in ended]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return folded


def _fold_in_child(wish: Wish, unit: Unit, deadline_s: float) -> Folded:
    shared = child.counter
    assert shared is not None, "child.begin has run"

    def add(count: int) -> None:
        with shared.get_lock():
            shared.value += count

    try:
        return fold_class(wish, unit, deadline_s, add)
    finally:
        connections.close_all()


def fold_class(wish: Wish, unit: Unit, deadline_s: float, add: Tell) -> Folded:
    """One class through the sides of a unit; `add` is told the metrics of each chunk. Raises `TooLongError`."""
    classroom_id, sides = unit
    policies = policies_of(wish, classroom_id)
    outcomes: list[Outcome] = []
    bins: set[int] = set()
    found = replay(
        str(classroom_id),
        _noted(rows.observations(classroom_id, wish.since, wish.until, wish.app_name), bins),
        [policies[side] for side in sides],
        time_zone=Classroom.objects.get(pk=classroom_id).school.time_zone,
        until=wish.until,
    )
    for step in found:
        if time.monotonic() > deadline_s:
            raise TooLongError
        if isinstance(step, int):
            add(step * len(sides))
        else:
            outcomes = step
    hold_s = max(policy.profile.episodes.hold_s for policy in policies.values())
    return Folded(
        classroom_id, dict(zip(sides, outcomes, strict=True)), frozenset(bins), max(1, hold_s) * 1000
    )


def policies_of(wish: Wish, classroom_id: uuid.UUID) -> dict[str, RoomPolicy]:
    """What holds in the class, and what is to be tried."""
    present = room_policies([classroom_id], timezone.now())[classroom_id]
    return {PRESENT: present, CANDIDATE: candidate_of(wish, present)}


def _noted(chunks: Iterator[Any], bins: set[int]) -> Iterator[Any]:
    for chunk in chunks:
        bins |= bins_with_work(one.at_ms for one in chunk)
        yield chunk


# ---------------------------------------------------------------- the result


def labels_of(classroom_id: uuid.UUID, since: dt.datetime, until: dt.datetime) -> list[Label]:
    """What teachers made of the alerts of a class in that stretch.

    "Not a problem" is a false alarm. Somebody who saw it, went there, helped or resolved it took it for a
    problem. Alerts that nobody touched say nothing.
    """
    helped = Exists(Intervention.objects.filter(alert=OuterRef("pk")))
    alerts = (
        TeacherDashboardAlert.objects.filter(
            classroom=classroom_id, detected_at__gte=since, detected_at__lt=until, student__isnull=False
        )
        .annotate(was_helped=helped)
        .values_list(
            *("student_id", "app_name", "alert_type", "detected_at", "state", "was_helped"),
            *("acknowledged_by", "helping_by", "closed_by"),
        )
    )
    labels = []
    for student_id, app_name, family, at, state, was_helped, *people in alerts:
        is_dismissed = state == AlertState.DISMISSED
        if is_dismissed or was_helped or any(one is not None for one in people):
            labels.append(Label(student_id, app_name, family, to_ms(at), not is_dismissed))
    return labels


def _result(wish: Wish, folded: Sequence[Folded], elapsed_s: float) -> dict[str, Any]:
    by_class: dict[uuid.UUID, list[Folded]] = {}
    for one in folded:
        by_class.setdefault(one.classroom_id, []).append(one)
    names = dict(Classroom.objects.filter(pk__in=by_class).values_list("pk", "name"))
    tallies = {PRESENT: Tally(), CANDIDATE: Tally()}
    counts = dict.fromkeys(("kept", "moved", "new", "lost", "starts_interrupting", "stops_interrupting"), 0)
    labelled = {"problems_missed": 0, "problems_found": 0, "dismissals_spared": 0, "dismissals_added": 0}
    examples: dict[str, list[dict[str, Any]]] = {"new": [], "lost": [], "moved": []}
    classes, bins, metrics = [], 0, 0
    for classroom_id, parts in sorted(by_class.items(), key=lambda pair: names.get(pair[0], "")):
        outcomes = {side: outcome for part in parts for side, outcome in part.outcomes.items()}
        labels = labels_of(classroom_id, wish.since, wish.until)
        marks = {side: matched(outcome.raised, labels) for side, outcome in outcomes.items()}
        for side, outcome in outcomes.items():
            tallies[side].add(outcome, judged(marks[side], labels))
        _add_labels(labelled, labels, marks)
        found = difference(outcomes[PRESENT].raised, outcomes[CANDIDATE].raised, hold_ms=parts[0].hold_ms)
        _add_counts(counts, found)
        _add_examples(examples, found, classroom_id, names.get(classroom_id, ""))
        bins += len(parts[0].bins)
        metrics += outcomes[PRESENT].metrics
        classes.append(
            {
                "id": str(classroom_id),
                "name": names.get(classroom_id, ""),
                "metrics": outcomes[PRESENT].metrics,
                "class_hours": round(len(parts[0].bins) / BINS_AN_HOUR, 2),
                PRESENT: len(outcomes[PRESENT].raised),
                CANDIDATE: len(outcomes[CANDIDATE].raised),
            }
        )
    hours = bins / BINS_AN_HOUR
    return {
        "wish": wish.as_json(),
        "metrics": metrics,
        "class_hours": round(hours, 2),
        PRESENT: tallies[PRESENT].as_json(hours),
        CANDIDATE: tallies[CANDIDATE].as_json(hours),
        "difference": counts,
        "labels": labelled,
        "examples": examples,
        "classes": classes,
        "elapsed_s": round(elapsed_s, 2),
    }


def _add_labels(labelled: dict[str, int], labels: Sequence[Label], marks: dict[str, list[bool]]) -> None:
    for label, was, would in zip(labels, marks[PRESENT], marks[CANDIDATE], strict=True):
        if was == would:
            continue
        if label.is_problem:
            labelled["problems_found" if would else "problems_missed"] += 1
        else:
            labelled["dismissals_added" if would else "dismissals_spared"] += 1


def _add_counts(counts: dict[str, int], found: Difference) -> None:
    for kind in ("kept", "moved", "new", "lost"):
        counts[kind] += len(getattr(found, kind))
    for pair in (*found.kept, *found.moved):
        counts["starts_interrupting"] += pair.after.interrupts and not pair.before.interrupts
        counts["stops_interrupting"] += pair.before.interrupts and not pair.after.interrupts


def _add_examples(
    examples: dict[str, list[dict[str, Any]]], found: Difference, classroom_id: uuid.UUID, name: str
) -> None:
    """Some of each kind, the gravest first: they are what a person looks at to believe the counts."""
    for kind, raised in (("new", found.new), ("lost", found.lost)):
        shown = [_example(one, classroom_id, name) for one in sorted(raised, key=_gravest)]
        examples[kind] += shown[: max(0, EXAMPLES - len(examples[kind]))]
    for pair in found.moved[: max(0, EXAMPLES - len(examples["moved"]))]:
        shift_s = round((pair.after.opened_ms - pair.before.opened_ms) / 1000)
        examples["moved"].append({**_example(pair.before, classroom_id, name), "shift_s": shift_s})


_GRAVITY = {"critical": 0, "high": 1, "medium": 2, "low": 3}


def _gravest(one: Raised) -> tuple[int, int]:
    return _GRAVITY.get(one.severity, 4), one.opened_ms


def _example(one: Raised, classroom_id: uuid.UUID, name: str) -> dict[str, Any]:
    return {
        "classroom": str(classroom_id),
        "classroom_name": name,
        "student_id": one.student_id,
        "app_name": one.app_name,
        "family": one.family,
        "at": from_ms(one.opened_ms).isoformat(),
        "severity": one.severity,
        "interrupts": one.interrupts,
        "reason": one.reason,
        "key": one.key,
    }
