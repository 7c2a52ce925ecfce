"""Attempt sequences: reading them, the scores of evaluate_detectors, and the area under the curve."""

import csv
import gzip
import json
import random
import re
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from usability.evaluation import Collector, Judged, quality, scores
from usability.recordings import RecordingError, is_sequence_file, read_metrics, read_sequences

OURS = Path(__file__).parent.parent / "data" / "sequences.txt"
SHARED = Path(__file__).parents[3] / "shared" / "data" / "assist2009" / "sequences.txt.gz"


def first_lines(path: Path, count: int) -> list[str]:
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    return text.split("\n")[:count]


def plain_groups(path: Path, students: int):
    """The file read the plain way, for comparison: (index, skills, marks)."""
    lines = first_lines(path, 4 * students)
    for at in range(0, len(lines), 4):
        head, _, skills, marks = lines[at : at + 4]
        if head:
            yield head.split(",")[0], skills.split(","), [mark == "1" for mark in marks.split(",")]


def plain_decisions(path: Path, students: int):
    """By the definition: which rows there are, and 0 or 1 where it is decided (None: it is not)."""
    for student, skills, marks in plain_groups(path, students):
        history = {}
        for skill, mark in zip(skills, marks, strict=True):
            history[skill] = history.get(skill, "") + ("+" if mark else "-")
            tries = len(history[skill])
            is_mastered = "+++" in history[skill][:10]
            yield student, skill, tries, 0.0 if is_mastered else 1.0 if tries >= 10 else None


@pytest.mark.parametrize(
    ("path", "students"),
    [
        (OURS, 6),
        pytest.param(
            SHARED,
            40,
            marks=pytest.mark.skipif(not SHARED.exists(), reason="the shared development data is not here"),
        ),
    ],
    ids=["ours", "shared"],
)
def test_a_row_is_written_for_each_attempt_and_says_what_is_decided(path, students, tmp_path):
    slice_path = tmp_path / "slice.txt"
    slice_path.write_text("\n".join(first_lines(path, 4 * students)) + "\n")
    out = StringIO()

    call_command("evaluate_detectors", slice_path, scores=tmp_path / "scores.csv", resamples=20, stdout=out)

    with (tmp_path / "scores.csv").open() as file:
        header, *rows = list(csv.reader(file))
    expected = list(plain_decisions(path, students))
    assert header == ["student", "skill", "k", "score"]
    assert [(row[0], row[1], int(row[2])) for row in rows] == [each[:3] for each in expected]
    for row, (*_, decided) in zip(rows, expected, strict=True):
        assert float(row[3]) == decided if decided is not None else 0 < float(row[3]) < 1
    assert [line.split(":")[0] for line in out.getvalue().splitlines()] == [
        f"after {k} attempts" for k in (4, 5, 6)
    ]


def test_a_gzipped_file_gives_the_same_scores(tmp_path):
    packed = tmp_path / "sequences.txt.gz"
    packed.write_bytes(gzip.compress(OURS.read_bytes()))

    assert list(scores(read_sequences(packed))) == list(scores(read_sequences(OURS)))


def test_a_score_depends_on_nothing_that_comes_later():
    whole = list(scores(read_sequences(OURS)))
    sequences = list(read_sequences(OURS))
    cut = [sequences[0], sequences[1].__class__(sequences[1].student, sequences[1].attempts[:9])]

    assert list(scores(cut)) == whole[: len(sequences[0].attempts) + 9]


def test_figures_can_be_had_as_json(tmp_path):
    out = StringIO()

    call_command("evaluate_detectors", OURS, scores=tmp_path / "s.csv", resamples=10, json=True, stdout=out)

    found = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [each["k"] for each in found] == [4, 5, 6]
    # By hand, as (student, skill): (1,2), (2,3) and (4,1) never had three right in a row; (0,2), (0,3), (1,1) and
    # (2,1) had them at the 6th, 5th, 10th and 8th; the others were mastered before or had too few attempts.
    assert (found[0]["pairs"], found[0]["spinning"]) == (7, 3)


def test_only_decided_pairs_are_judged_and_only_until_they_are_mastered():
    collector = Collector()
    for score in scores(read_sequences(OURS)):
        collector.add(score)

    at_four = {(each.student, each.is_spinning) for each in collector.judged(4)}
    assert ("3", True) not in at_four  # eight attempts decide nothing
    assert ("1", True) in at_four
    assert len(collector.judged(6)) <= len(collector.judged(4))


def naive_auc(judged):
    spinning = [each.score for each in judged if each.is_spinning]
    others = [each.score for each in judged if not each.is_spinning]
    wins = sum((high > low) + (high == low) / 2 for high in spinning for low in others)
    return wins / (len(spinning) * len(others))


def test_the_auc_is_the_share_of_pairs_in_the_right_order():
    rng = random.Random(3)
    judged = [
        Judged(f"{index % 23}", round(rng.random(), 1) + 0.1 * (index % 3 == 0), index % 3 == 0)
        for index in range(200)
    ]

    found = quality(judged, k=4, resamples=100, seed=1)

    assert found.auc.value == pytest.approx(naive_auc(judged))
    assert found.auc.low < found.auc.value < found.auc.high
    assert (found.students, found.pairs, found.spinning) == (23, 200, 67)


@pytest.mark.parametrize("judged", [[], [Judged("1", 0.4, True)]])
def test_without_both_outcomes_there_is_no_auc(judged):
    found = quality(judged, k=4, resamples=5, seed=1)

    assert found.auc.value != found.auc.value
    assert found.auc.low != found.auc.low


def test_resampling_is_by_student_and_repeatable():
    judged = [Judged(f"{index // 4}", index % 7, index % 3 == 0) for index in range(80)]

    assert quality(judged, k=4, resamples=30, seed=5) == quality(judged, k=4, resamples=30, seed=5)
    assert quality(judged, k=4, resamples=30, seed=5) != quality(judged, k=4, resamples=30, seed=6)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,2\n3\n4\n", "line 1: expected four lines"),
        ("1\n1,2\n3\n1\n", "expected as many problems, skills and marks, found 2, 1 and 1"),
        ("1\n\n3\n7\n", "line 4: expected marks 0 and 1, found '7'"),
        ("\n1\n3\n1\n", "expected the index of a student"),
    ],
)
def test_a_malformed_sequence_is_named_with_its_line(text, words, tmp_path):
    path = tmp_path / "broken.txt"
    path.write_text(text)

    with pytest.raises(RecordingError, match=re.escape(words)):
        list(read_sequences(path))
    with pytest.raises(CommandError, match=r"broken\.txt"):
        call_command("evaluate_detectors", path, scores=tmp_path / "s.csv")


def test_sequences_may_lack_problem_ids_and_end_with_blank_lines(tmp_path):
    path = tmp_path / "few.txt"
    path.write_text("7\n\n3,3,\n1,0,\n\n\n\n\n")

    (sequence,) = read_sequences(path)

    assert sequence.student == "7"
    assert [(each.item, each.skill, each.correct) for each in sequence.attempts] == [
        ("", "3", True),
        ("", "3", False),
    ]


def test_metrics_are_read_line_by_line_and_broken_lines_are_named(tmp_path):
    path = tmp_path / "metrics.ndjson"
    path.write_text('{"a": 1}\n\n{"a": 2}\n')
    assert list(read_metrics(path)) == [{"a": 1}, {"a": 2}]
    assert not is_sequence_file(path)
    assert is_sequence_file(OURS)

    path.write_text('{"a": 1}\n[]\n')
    with pytest.raises(RecordingError, match="line 2: expected a JSON object, found list"):
        list(read_metrics(path))
    path.write_text("{\n")
    with pytest.raises(RecordingError, match="line 1: expected a metric as JSON"):
        list(read_metrics(path))


def test_precision_and_recall_are_those_at_the_operating_point():
    judged = [Judged(f"{index}", index / 10, index in {5, 8, 9}) for index in range(10)]

    found = quality(judged, k=4, resamples=50, seed=1, threshold=0.7)

    assert found.precision.value == pytest.approx(2 / 3)
    assert found.recall.value == pytest.approx(2 / 3)
    assert found.flagged.value == pytest.approx(0.3)
    assert found.precision.low <= found.precision.value <= found.precision.high


def test_students_later_in_the_file_change_nothing_before_them():
    sequences = list(read_sequences(OURS))

    backwards = list(scores(sequences[:3][::-1]))

    assert backwards[: len(sequences[2].attempts)] == list(scores([sequences[2]]))
