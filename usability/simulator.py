"""A simulated class: what pupils' apps would send, for demonstrations, benchmarks and tests. No data set is in it.

Its numbers are aggregate quantiles measured on classroom writing sessions and tutor sequences: about one stroke
a second over a lesson (95th percentile of ten seconds 3.5), 8 / 15 / 26 % corrections (10th, 50th, 90th
percentile of pupils), a pause over 30 s in nine of ten sessions. The class is a calm one: nine of ten answers are
right, where tutor sequences have two of three. Some pupils are given struggles, each of one kind and with a
known beginning, so that detection can be measured on them.

Everything follows from the seed: a pupil's day does not depend on when, or how often, it is asked for.
Pure: no clock, no I/O; times are unix milliseconds handed in.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import merge
from typing import Any, Literal

StruggleKind = Literal[
    "stuck", "guessing", "wheel", "corrections", "silent", "away", "hints", "pauses", "help"
]

LESSON_S = 2700.0  # 45 minutes; then the pupil begins the next one
SKILLS = ("fractions", "common-denominator", "decimals", "percentages", "ratios", "equations")
ITEMS_A_SKILL = 6

# Kinds in the order in which a lesson's struggles are dealt out.
KINDS: tuple[StruggleKind, ...] = (
    "stuck",
    "corrections",
    "help",
    "silent",
    "wheel",
    "guessing",
    "pauses",
    "away",
    "hints",
)


@dataclass(frozen=True, slots=True)
class Struggle:
    """A struggle given to a pupil: from `start_s` to `end_s`, in seconds since the lesson began."""

    student_id: str
    kind: StruggleKind
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Temper:
    """What a pupil is like: shares and seconds."""

    ability: float  # of first answers right
    corrections: float  # share of strokes
    strokes_s: float  # while typing
    hints: float  # share of wrong answers followed by a hint
    read_s: float  # median time before work on an item begins


@dataclass(frozen=True, slots=True)
class Happening:
    """Something a pupil does at `at_s` of the lesson; `metadata` as in the API."""

    at_s: float
    metric_type: str
    value: float
    metadata: dict[str, Any]


class ClassSimulator:
    """A class that has been at work since `start_ms`; `until` gives what it did since the last call."""

    def __init__(
        self,
        student_ids: Sequence[str],
        *,
        seed: int,
        start_ms: int,
        app_name: str = "simulated-maths",
        struggles: int = 6,
        speed: float = 1.0,
    ) -> None:
        """`struggles` a lesson, at most one a pupil; `speed` is how many lesson seconds pass in one second."""
        self.student_ids = tuple(student_ids)
        self.app_name = app_name
        self.seed = seed
        self.start_ms = start_ms
        self.speed = speed
        self.struggles_a_lesson = struggles
        self._metrics = merge(
            *(self._pupil(student) for student in self.student_ids), key=lambda pair: pair[0]
        )
        self._next: tuple[int, dict[str, Any]] | None = None

    def until(self, now_ms: int) -> list[dict[str, Any]]:
        """Metrics in the API's form, in order of time, that happened up to `now_ms` and were not given yet."""
        found: list[dict[str, Any]] = []
        while True:
            if self._next is None:
                self._next = next(self._metrics, None)
            if self._next is None or self._next[0] > now_ms:
                return found
            found.append(self._next[1])
            self._next = None

    def struggles(self, lesson: int = 0) -> tuple[Struggle, ...]:
        """The struggles dealt out in a lesson (counted from 0), by their beginning."""
        rng = random.Random(f"{self.seed}:{lesson}:struggles")
        count = min(self.struggles_a_lesson, len(self.student_ids))
        students = rng.sample(self.student_ids, count)
        first_s, last_s = 240.0, LESSON_S - 600.0
        starts = [first_s + (last_s - first_s) * index / max(1, count - 1) for index in range(count)]
        return tuple(
            Struggle(student, KINDS[(index + lesson) % len(KINDS)], start_s, start_s + 300.0)
            for index, (student, start_s) in enumerate(zip(students, starts, strict=True))
        )

    def _pupil(self, student_id: str) -> Iterator[tuple[int, dict[str, Any]]]:
        lesson = 0
        while True:
            own = tuple(each for each in self.struggles(lesson) if each.student_id == student_id)
            rng = random.Random(f"{self.seed}:{lesson}:{student_id}")
            offset_s = lesson * LESSON_S
            for happening in _lesson(temper(self.seed, student_id), own, rng, lesson):
                at_ms = self.start_ms + round((offset_s + happening.at_s) * 1000 / self.speed)
                yield at_ms, self._metric(student_id, at_ms, happening, lesson)
            lesson += 1

    def _metric(self, student_id: str, at_ms: int, happening: Happening, lesson: int) -> dict[str, Any]:
        return {
            "student_id": student_id,
            "app_name": self.app_name,
            "metric_type": happening.metric_type,
            "metric_value": happening.value,
            "timestamp": _rfc3339(at_ms),
            "session_id": f"simulated-{self.seed}-{lesson}",
            "metadata": happening.metadata,
        }


def temper(seed: int, student_id: str) -> Temper:
    """What a pupil is like, the same in every lesson."""
    rng = random.Random(f"{seed}:{student_id}:temper")
    return Temper(
        ability=min(0.98, max(0.7, rng.gauss(0.9, 0.05))),
        corrections=min(0.3, max(0.04, rng.betavariate(5, 27))),
        strokes_s=rng.uniform(1.4, 3.2),
        hints=rng.uniform(0.1, 0.6),
        read_s=rng.uniform(4.0, 12.0),
    )


def _rfc3339(at_ms: int) -> str:
    moment = datetime.fromtimestamp(at_ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}Z"


def _lesson(
    pupil: Temper, struggles: Sequence[Struggle], rng: random.Random, lesson: int
) -> Iterator[Happening]:
    """A pupil's lesson: item after item, with the struggles at their time."""
    waiting = sorted(struggles, key=lambda each: each.start_s)
    at_s = rng.uniform(1.0, 20.0)
    index = 0
    yield Happening(at_s, "focus", 1.0, {})
    while at_s < LESSON_S - 60.0:
        skill = SKILLS[(index // ITEMS_A_SKILL + lesson) % len(SKILLS)]
        item = f"{skill}-{index % ITEMS_A_SKILL + 1}"
        where = {"item": item, "skill": skill}
        until_s = waiting[0].start_s if waiting else LESSON_S
        if at_s >= until_s:
            struggle = waiting.pop(0)
            steps = _STRUGGLES[struggle.kind](pupil, at_s, struggle.end_s, where, rng)
            until_s = LESSON_S
        else:
            steps = _item(pupil, at_s, where, rng)
        for happening in steps:
            if happening.at_s >= until_s:
                at_s = until_s  # a struggle begins in the middle of an item
                break
            yield happening
            at_s = happening.at_s
        else:
            at_s += rng.uniform(1.0, 5.0)
        index += 1


def _item(pupil: Temper, at_s: float, where: dict[str, Any], rng: random.Random) -> Iterator[Happening]:
    """Reading, working, answering until right; a third wrong answer is followed by the last hint."""
    yield Happening(at_s, "navigation", 1.0, where)
    at_s += _thinking(pupil.read_s, rng)
    yield Happening(at_s, "scrolling", float(rng.randint(1, 4)), where)
    for attempt in range(1, 5):
        for happening in _typing(pupil, at_s, rng.uniform(6.0, 24.0), where, rng):
            yield happening
            at_s = happening.at_s
        at_s += _thinking(2.5, rng)
        is_right = rng.random() < min(0.98, pupil.ability + 0.06 * (attempt - 1)) or attempt == 4
        yield _answer(at_s, where, correct=is_right, attempt=attempt)
        if is_right:
            yield Happening(at_s + 0.2, "completion", 1.0, where)
            return
        at_s += rng.uniform(3.0, 9.0)
        if rng.random() < pupil.hints or attempt == 3:
            yield _hint(at_s, where, level=min(attempt, 3))
            at_s += rng.uniform(5.0, 14.0)


def _thinking(median_s: float, rng: random.Random) -> float:
    """A pause with a long tail, cut off before it would be a struggle of its own."""
    return min(55.0, max(0.4, rng.lognormvariate(0.0, 0.7) * median_s))


def _typing(
    pupil: Temper,
    at_s: float,
    length_s: float,
    where: dict[str, Any],
    rng: random.Random,
    corrections: float | None = None,
) -> Iterator[Happening]:
    """Strokes folded into one report a second, as the SDK does; a second without strokes is not reported."""
    share = pupil.corrections if corrections is None else corrections
    metadata = {**where, "bucket_ms": 1000}
    end_s = at_s + length_s
    while at_s < end_s:
        at_s += 1.0
        strokes = round(rng.gammavariate(3.0, pupil.strokes_s / 3.0))
        deleted = sum(rng.random() < share for _ in range(strokes))
        if strokes > deleted:
            yield Happening(at_s, "keypress", float(strokes - deleted), metadata)
        if deleted:
            yield Happening(at_s, "backspace", float(deleted), metadata)
        if rng.random() < 0.12:
            yield Happening(at_s, "mouse_movement", float(rng.randint(20, 900)), metadata)


def _answer(
    at_s: float, where: dict[str, Any], *, correct: bool, attempt: int, duration_ms: int | None = None
) -> Happening:
    metadata = {**where, "correct": correct, "attempt": attempt}
    if duration_ms is not None:
        metadata["duration_ms"] = duration_ms
    return Happening(at_s, "answer", float(correct), metadata)


def _hint(at_s: float, where: dict[str, Any], *, level: int) -> Happening:
    return Happening(at_s, "hint", float(level), {**where, "hint_level": level, "is_bottom": level == 3})


def _stuck(
    pupil: Temper, at_s: float, end_s: float, where: dict[str, Any], rng: random.Random
) -> Iterator[Happening]:
    """Wrong answer after wrong answer on one item, each worked for."""
    attempt = 1
    while at_s < end_s:
        for happening in _typing(pupil, at_s, rng.uniform(8.0, 16.0), where, rng):
            yield happening
            at_s = happening.at_s
        at_s += rng.uniform(4.0, 10.0)
        yield _answer(at_s, where, correct=False, attempt=attempt)
        attempt += 1
    yield from _item(pupil, at_s + 5.0, where, rng)


def _guessing(
    pupil: Temper, at_s: float, end_s: float, where: dict[str, Any], rng: random.Random
) -> Iterator[Happening]:
    """Answers every few seconds, most of them wrong."""
    attempt = 1
    while at_s < end_s:
        took_s = rng.uniform(1.2, 4.0)
        at_s += took_s + rng.uniform(0.5, 6.0)
        yield Happening(at_s - 0.3, "click", 1.0, where)
        is_right = rng.random() < 0.2
        yield _answer(at_s, where, correct=is_right, attempt=attempt, duration_ms=round(took_s * 1000))
        attempt += 1
    yield from _item(pupil, at_s + 5.0, where, rng)


def _wheel(
    pupil: Temper, at_s: float, end_s: float, where: dict[str, Any], rng: random.Random
) -> Iterator[Happening]:
    """Try after try at a skill that is new to the pupil, right now and then, never three in a row."""
    run, tries = 0, 0
    skill = f"{where['skill']}-advanced"
    while at_s < end_s or tries < 13:
        item = {"item": f"{skill}-{tries + 1}", "skill": skill}
        at_s += rng.uniform(8.0, 20.0)
        is_right = run < 2 and rng.random() < 0.4
        run = run + 1 if is_right else 0
        yield Happening(at_s - 2.0, "keypress", float(rng.randint(2, 6)), {**item, "bucket_ms": 1000})
        yield _answer(at_s, item, correct=is_right, attempt=1)
        tries += 1


def _corrections(
    pupil: Temper, at_s: float, end_s: float, where: dict[str, Any], rng: random.Random
) -> Iterator[Happening]:
    """Typing with far more corrections than usual."""
    yield from _typing(
        pupil, at_s, end_s - at_s, where, rng, corrections=min(0.6, pupil.corrections * 2 + 0.3)
    )
    yield from _item(pupil, end_s + 5.0, where, rng)


def _silent(
    pupil: Temper, at_s: float, end_s: float, where: dict[str, Any], rng: random.Random
) -> Iterator[Happening]:
    """A wrong answer, then nothing."""
    yield _answer(at_s + 3.0, where, correct=False, attempt=1)
    yield from _item(pupil, end_s, where, rng)


def _away(
    pupil: Temper, at_s: float, end_s: float, where: dict[str, Any], rng: random.Random
) -> Iterator[Happening]:
    """Another window in front of the app."""
    yield Happening(at_s + 2.0, "blur", 1.0, {})
    yield Happening(end_s, "focus", 1.0, {})
    yield from _item(pupil, end_s + 2.0, where, rng)


def _hints(
    pupil: Temper, at_s: float, end_s: float, where: dict[str, Any], rng: random.Random
) -> Iterator[Happening]:
    """Hints clicked through, item after item."""
    index = 0
    while at_s < end_s:
        item = {"item": f"{where['item']}-{index + 1}", "skill": where["skill"]}
        for level in (1, 2, 3, 3):
            at_s += rng.uniform(0.6, 2.0)
            yield _hint(at_s, item, level=level)
        at_s += rng.uniform(26.0, 40.0)
        yield _answer(at_s, item, correct=rng.random() < 0.3, attempt=1)
        at_s += 3.0
        index += 1
    yield from _item(pupil, at_s + 5.0, where, rng)


def _pauses(
    pupil: Temper, at_s: float, end_s: float, where: dict[str, Any], rng: random.Random
) -> Iterator[Happening]:
    """Some work, a long pause, some work, a long pause."""
    while at_s < end_s:
        for happening in _typing(pupil, at_s, rng.uniform(4.0, 8.0), where, rng):
            yield happening
            at_s = happening.at_s
        paused_s = rng.uniform(40.0, 75.0)
        at_s += paused_s
        yield Happening(at_s, "hesitation", round(paused_s, 1), where)
    yield from _item(pupil, at_s + 5.0, where, rng)


def _help(
    pupil: Temper, at_s: float, end_s: float, where: dict[str, Any], rng: random.Random
) -> Iterator[Happening]:
    """One wrong answer, then the help button; work goes on slowly."""
    yield _answer(at_s + 3.0, where, correct=False, attempt=1)
    yield Happening(at_s + 8.0, "help_request", 1.0, where)
    at_s += 20.0
    while at_s < end_s:
        yield Happening(at_s, "keypress", float(rng.randint(1, 5)), {**where, "bucket_ms": 1000})
        at_s += rng.uniform(8.0, 25.0)
    yield from _item(pupil, end_s + 5.0, where, rng)


_STRUGGLES = {
    "stuck": _stuck,
    "guessing": _guessing,
    "wheel": _wheel,
    "corrections": _corrections,
    "silent": _silent,
    "away": _away,
    "hints": _hints,
    "pauses": _pauses,
    "help": _help,
}
