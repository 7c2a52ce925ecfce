"""A stored metric becomes an observation."""

import pytest

from usability.detection.observations import from_metric


def observation(metric_type="answer", metric_value=1.0, **metadata):
    return from_metric(
        id="1",
        student_id="pupil-1",
        app_name="maths",
        metric_type=metric_type,
        metric_value=metric_value,
        at_ms=1000,
        received_ms=2000,
        metadata=metadata,
    )


@pytest.mark.parametrize(
    ("value", "metadata", "correct"),
    [(1, {}, True), (0, {}, False), (0, {"correct": True}, True), (1, {"correct": False}, False)],
)
def test_an_answer_is_right_by_its_mark_or_its_value(value, metadata, correct):
    assert observation(metric_value=value, **metadata).correct is correct


def test_only_an_answer_is_right_or_wrong_by_its_value():
    assert observation("keypress").correct is None


def test_metadata_is_taken_over_by_name():
    found = observation(
        item="8",
        skill="s",
        element="e",
        similar=True,
        is_bottom=False,
        hint_level=2,
        attempt=3,
        duration_ms=1500.0,
    )

    assert (found.item, found.skill, found.element) == ("8", "s", "e")
    assert (found.similar, found.is_bottom) == (True, False)
    assert (found.hint_level, found.attempt, found.duration_ms) == (2, 3, 1500)
    assert not found.late


def test_metadata_of_another_shape_is_left_out():
    found = observation(item=8, correct=1, hint_level="2", attempt=True, late="yes")

    assert (found.item, found.correct, found.hint_level, found.attempt, found.late) == (
        "",
        True,
        None,
        None,
        False,
    )


def test_no_metadata_is_fine():
    found = from_metric(
        id="1", student_id="p", app_name="a", metric_type="click", metric_value=2, at_ms=1, received_ms=1
    )

    assert (found.value, found.item, found.session_id) == (2.0, "", "")


def test_a_stamp_after_its_receipt_is_its_receipt():
    found = from_metric(
        id="1", student_id="p", app_name="a", metric_type="click", metric_value=2, at_ms=9, received_ms=5
    )

    assert found.at_ms == 5
