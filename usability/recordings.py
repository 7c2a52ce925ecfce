"""Recorded attempts and metrics read from files, one at a time: NDJSON of the API's metrics, and attempt sequences.

An attempt sequence file has four lines a student: the student's index (and what else the set says of them),
problem ids, skill ids, correctness (1 or 0), each comma-separated in order of time; the second line is empty
where a set has no problem ids. There are no time stamps. Files may be gzipped.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

LINES_A_STUDENT = 4


class RecordingError(ValueError):
    """A recording that is not what it should be; the message names the line and what was expected."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One answer of a sequence. `item` is empty where the set names no problems."""

    item: str
    skill: str
    correct: bool


@dataclass(frozen=True, slots=True)
class Sequence:
    """All attempts of one student, in order."""

    student: str
    attempts: tuple[Attempt, ...]


def read_sequences(path: Path) -> Iterator[Sequence]:
    """The students of an attempt sequence file. Raises RecordingError at the first group that is malformed."""
    with _opened(path) as lines:
        number = 0
        while group := [line.rstrip("\r\n") for line in islice(lines, LINES_A_STUDENT)]:
            if not any(group):
                return
            yield _sequence(group, number + 1)
            number += LINES_A_STUDENT


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The metrics of an NDJSON file, in its order, blank lines left out."""
    with _opened(path) as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _metric(line, number)


def is_sequence_file(path: Path) -> bool:
    """Whether a file holds attempt sequences: its first line is no JSON object."""
    with _opened(path) as lines:
        return not lines.readline().lstrip().startswith("{")


def _open(path: Path) -> TextIO:
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    try:
        with _open(path) as lines:
            yield lines
    except (UnicodeDecodeError, EOFError, zlib.error) as error:
        raise RecordingError(f"expected a text in UTF-8, plain or gzipped whole: {error}") from error


def _sequence(group: list[str], number: int) -> Sequence:
    if len(group) < LINES_A_STUDENT:
        raise RecordingError(f"line {number}: expected four lines a student, found {len(group)}")
    head, items, skills, marks = (_fields(line) for line in group)
    if not head:
        raise RecordingError(f"line {number}: expected the index of a student, found nothing")
    if len(skills) != len(marks) or (items and len(items) != len(marks)):
        raise RecordingError(
            f"line {number}: expected as many problems, skills and marks, "
            f"found {len(items)}, {len(skills)} and {len(marks)}"
        )
    if not set(marks) <= {"0", "1"}:
        raise RecordingError(
            f"line {number + 3}: expected marks 0 and 1, found {min(set(marks) - {'0', '1'})!r}"
        )
    attempts = (
        Attempt(item, skill, mark == "1")
        for item, skill, mark in zip(items or [""] * len(marks), skills, marks, strict=True)
    )
    return Sequence(head[0], tuple(attempts))


def _fields(line: str) -> list[str]:
    return [field.strip() for field in line.strip().rstrip(",").split(",")] if line.strip() else []


def _metric(line: str, number: int) -> dict[str, Any]:
    try:
        metric = json.loads(line)
    except ValueError as error:
        raise RecordingError(f"line {number}: expected a metric as JSON, found {error}") from error
    if not isinstance(metric, dict):
        raise RecordingError(f"line {number}: expected a JSON object, found {type(metric).__name__}")
    return metric
