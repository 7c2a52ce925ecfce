"""Playing recorded metrics through the public API: their intervals kept, divided by a speed, ending up now.

The parts are separate from the command so that tests can play without a server and without waiting.
"""

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from usability.recordings import RecordingError, Sequence, is_sequence_file, read_metrics, read_sequences

BATCH_METRICS = 500
FLUSH_MS = 1000  # what happened within a second goes out together
ATTEMPTS_MOST = 8
RETRY_MOST_S = 10.0
RETRY_STATUSES = frozenset({429, 503})

Metric = dict[str, Any]
Timed = tuple[int, Metric]
"""Unix milliseconds at which it was recorded, and the metric."""


class ReplayRefusedError(Exception):
    """The API refused a batch for good, or did not take it in time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API said to a batch: `retry_after_s` where it asked to come back."""

    status: int
    body: Mapping[str, Any]
    retry_after_s: float = 1.0


@dataclass(slots=True)
class Tally:
    """What became of what was sent."""

    batches: int = 0
    accepted: int = 0
    rejected: int = 0
    retries: int = 0


Post = Callable[[Metric], Answer]


def load(path: Path, *, app_name: str, every_s: float, students: int | None) -> list[Timed]:
    """The metrics of a recording in order of time; sequences get an answer each `every_s` seconds.

    `students` takes the first so many students of a sequence file; None takes all.
    """
    if is_sequence_file(path):
        return _from_sequences(read_sequences(path), app_name=app_name, every_s=every_s, students=students)
    timed = [(_recorded_ms(metric), metric) for metric in read_metrics(path)]
    return sorted(timed, key=lambda pair: pair[0])


def with_students(timed: Iterable[Timed], student_ids: Iterable[str]) -> list[Timed]:
    """The recording played by other pupils: the first recorded by the first given, and so on; the rest left out."""
    timed = list(timed)
    recorded = list(dict.fromkeys(metric.get("student_id") for _, metric in timed))
    played_by = dict(zip(recorded, student_ids, strict=False))
    return [
        (at_ms, metric | {"student_id": played_by[metric.get("student_id")]})
        for at_ms, metric in timed
        if metric.get("student_id") in played_by
    ]


def batches(timed: list[Timed], *, speed: float, start_ms: int) -> Iterator[tuple[int, list[Metric]]]:
    """Batches with the time at which each is due: the first moment at `start_ms`, the intervals divided."""
    if not timed:
        return
    first_ms = timed[0][0]
    waiting: list[Metric] = []
    flush_ms = start_ms + FLUSH_MS
    for at_ms, metric in timed:
        moved_ms = start_ms + round((at_ms - first_ms) / speed)
        if waiting and (moved_ms > flush_ms or len(waiting) >= BATCH_METRICS):
            yield min(flush_ms, moved_ms), waiting
            waiting = []
        if moved_ms > flush_ms:
            flush_ms = moved_ms + FLUSH_MS
        waiting.append(metric | {"timestamp": rfc3339(moved_ms)})
    yield flush_ms, waiting


def play(
    timed: list[Timed],
    *,
    speed: float,
    post: Post,
    clock_ms: Callable[[], int],
    sleep: Callable[[float], None],
) -> Iterator[Tally]:
    """Send a recording; gives the tally after each batch. Raises ReplayRefusedError."""
    tally = Tally()
    for due_ms, metrics in batches(timed, speed=speed, start_ms=clock_ms()):
        wait_ms = due_ms - clock_ms()
        if wait_ms > 0:
            sleep(wait_ms / 1000)
        answer = _sent(metrics, post=post, clock_ms=clock_ms, sleep=sleep, tally=tally)
        tally.batches += 1
        tally.accepted += answer.body.get("accepted", 0)
        tally.rejected += len(answer.body.get("rejected", ()))
        yield tally


def rfc3339(at_ms: int) -> str:
    """Unix milliseconds as the API writes times."""
    return f"{datetime.fromtimestamp(at_ms // 1000, UTC):%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}Z"


def _sent(
    metrics: list[Metric],
    *,
    post: Post,
    clock_ms: Callable[[], int],
    sleep: Callable[[float], None],
    tally: Tally,
) -> Answer:
    """The answer to a batch, sent again under the same id as often as the API asks for it."""
    batch_id = str(uuid.uuid4())
    for _ in range(ATTEMPTS_MOST):
        answer = post({"batch_id": batch_id, "sent_at": rfc3339(clock_ms()), "metrics": metrics})
        if answer.status not in RETRY_STATUSES:
            break
        tally.retries += 1
        sleep(min(RETRY_MOST_S, answer.retry_after_s))
    if answer.status not in {200, 202}:
        raise ReplayRefusedError(f"{answer.status}: {answer.body.get('detail') or answer.body.get('title')}")
    return answer


def _recorded_ms(metric: Metric) -> int:
    try:
        moment = datetime.fromisoformat(metric["timestamp"])
    except (KeyError, TypeError, ValueError) as error:
        raise RecordingError(f"expected a metric with a timestamp, found {metric}") from error
    if moment.tzinfo is None:
        raise RecordingError(f"expected a timestamp with its offset from UTC, found {metric['timestamp']}")
    return round(moment.timestamp() * 1000)


def _from_sequences(
    sequences: Iterable[Sequence], *, app_name: str, every_s: float, students: int | None
) -> list[Timed]:
    """All students begin together. Ids get a letter in front, so that a number is told from a name."""
    timed: list[Timed] = []
    for count, sequence in enumerate(sequences):
        if students is not None and count >= students:
            break
        for index, attempt in enumerate(sequence.attempts):
            metadata = {"skill": f"skill-{attempt.skill}", "correct": attempt.correct}
            if attempt.item:
                metadata["item"] = f"item-{attempt.item}"
            timed.append(
                (
                    round((index + 1) * every_s * 1000),
                    {
                        "student_id": f"student-{sequence.student}",
                        "app_name": app_name,
                        "metric_type": "answer",
                        "metric_value": int(attempt.correct),
                        "metadata": metadata,
                    },
                )
            )
    return sorted(timed, key=lambda pair: pair[0])
