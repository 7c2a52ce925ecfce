"""Effects of help: what came before and after, beside moments of the same kind in which nobody helped."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from usability_lessons import APP, Lesson

from usability import effects, selectors, services
from usability.effect_measures import BeforeAfter, Stretch, measure_of, measured
from usability.effects import comparison_of, landmark_of, similar_severities
from usability.models import FrustrationEvent, Intervention, TeacherDashboardAlert, UnhelpedMoment
from usability.proportions import Gap, Share, gap, gap_of_gaps, pooled

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("days")]
MINUTE = dt.timedelta(minutes=1)


@pytest.fixture
def noon() -> dt.datetime:
    """A past moment whose metrics have a day to lie in."""
    return dt.datetime.now(tz=dt.UTC).replace(second=0, microsecond=0) - 90 * MINUTE


def episode(room, student_id: str, begin: dt.datetime, minutes: float = 5, **more) -> FrustrationEvent:
    """An ended episode of wrong answers, as detection stores it."""
    end = begin + dt.timedelta(minutes=minutes)
    fields = {"event_type": "accuracy", "severity": "high", "app_name": APP, **more}
    return FrustrationEvent.objects.create(
        student_id=student_id, classroom=room, detected_at=begin, ended_at=end, resolved_at=end, **fields
    )


def alert_of(event: FrustrationEvent) -> TeacherDashboardAlert:
    return services.raise_alert(
        classroom=event.classroom,
        student_id=event.student_id,
        app_name=event.app_name,
        alert_type=event.event_type,
        severity="warning",
        details={},
        event=event,
        detected_at=event.detected_at,
    )


def answers_around(room, student_id: str, middle: dt.datetime, before: str, after: str) -> None:
    lesson = Lesson(room, middle - 10 * MINUTE)
    lesson.answers(student_id, before, begin_s=10, every_s=590 / len(before) - 1)
    lesson.answers(student_id, after, begin_s=610, every_s=590 / len(after) - 1)
    lesson.store()


# ---------------------------------------------------------------- what is measured


def test_answers_are_counted_before_and_after_for_the_pupil_and_app_alone(room, noon):
    answers_around(room, "p1", noon, "----+", "++++-+")
    answers_around(room, "p2", noon, "++++", "++++")
    Lesson(room, noon).answers("p1", "----", app_name="other-app").store()

    (found,) = measured([Stretch(("p1",), APP, noon, 10 * MINUTE, "right_answers")])

    assert (found.before, found.after) == (Share(1, 5), Share(5, 6))


def test_work_is_counted_in_half_minutes_and_silence_of_the_app_is_nothing(room, noon):
    lesson = Lesson(room, noon - 10 * MINUTE)
    for second in (0, 10, 40, 70):
        lesson.does(second, "p1", "keypress", 5)
    lesson.does(100, "p1", "hesitation", 20)
    lesson.store()

    (found,) = measured([Stretch(("p1",), APP, noon, 10 * MINUTE, "working")])

    assert found.before == Share(3, 20)
    assert found.after == Share(0, 0)


def test_corrections_are_a_mean_of_half_minutes_in_which_something_was_typed(room, noon):
    lesson = Lesson(room, noon - 10 * MINUTE)
    for begin, strokes, backspaces in ((0, 10, 10), (31, 30, 0), (62, 3, 1)):
        lesson.does(begin, "p1", "keypress", strokes)
        lesson.does(begin + 1, "p1", "backspace", backspaces)
    lesson.store()

    (found,) = measured([Stretch(("p1",), APP, noon, 10 * MINUTE, "uncorrected_typing")])

    assert (found.before.right, found.before.n) == (pytest.approx(1.5), 2)


def test_many_stretches_are_measured_together_in_their_order(room, noon):
    answers_around(room, "p1", noon, "-----", "+++++")
    answers_around(room, "p2", noon, "+++++", "-----")

    stretches = [
        Stretch((pupil,), "", noon, 10 * MINUTE, measure)
        for pupil in ("p2", "p1", "p3")
        for measure in ("right_answers", "working")
    ]
    found = measured(stretches)

    assert [one.after.right for one in found[::2]] == [0, 5, 0]
    assert all(one.before.n == 20 for one in found[1:4:2])


@pytest.mark.parametrize(
    ("family", "measure"),
    [
        ("accuracy", "right_answers"),
        ("class_stuck", "right_answers"),
        ("pause", "working"),
        ("typing", "uncorrected_typing"),
    ],
)
def test_a_family_has_its_measure(family, measure):
    assert measure_of(family) == measure


# ---------------------------------------------------------------- moments without help


def test_an_episode_nobody_came_to_is_measured_at_each_landmark_it_reached(room, noon):
    episode(room, "p1", noon, minutes=4)
    answers_around(room, "p1", noon, "-----", "--+++")

    effects.measure_unhelped(now=noon + 30 * MINUTE)

    moments = UnhelpedMoment.objects.order_by("after_s")
    assert [one.after_s for one in moments] == [0, 60, 180]
    assert (moments[0].before_good, moments[0].before_n, moments[0].after_good, moments[0].after_n) == (
        0,
        5,
        3,
        5,
    )
    assert effects.measure_unhelped(now=noon + 30 * MINUTE) == 0


def test_an_episode_is_not_measured_before_its_time_has_passed(room, noon):
    episode(room, "p1", noon, minutes=4)

    assert effects.measure_unhelped(now=noon + 14 * MINUTE) == 0
    assert effects.measure_unhelped(now=noon + 15 * MINUTE) > 0


def test_help_for_the_pupil_for_the_class_and_a_visit_are_no_moments_without_help(room, alice, noon):
    events = [episode(room, f"p{number}", noon + number * 40 * MINUTE) for number in (0,)]
    helped = alert_of(events[0])
    services.record_intervention(helped.pk, who=alice, kind="explained", now=noon + 2 * MINUTE)
    visited = alert_of(episode(room, "p1", noon))
    TeacherDashboardAlert.objects.filter(pk=visited.pk).update(state="helping", helping_at=noon)
    dealt_with = episode(room, "p2", noon)
    FrustrationEvent.objects.filter(pk=dealt_with.pk).update(resolved_by=alice)

    assert effects.measure_unhelped(now=noon + 60 * MINUTE) == 0

    alone = episode(room, "p3", noon)
    assert effects.measure_unhelped(now=noon + 60 * MINUTE) == 3
    assert set(UnhelpedMoment.objects.values_list("event", flat=True)) == {alone.pk}

    card = services.raise_alert(
        classroom=room, student_id=None, app_name="", alert_type="class_stuck", severity="warning", details={}
    )
    episode(room, "p4", noon)
    services.record_intervention(card.pk, who=alice, kind="explained", now=noon + 2 * MINUTE)
    assert effects.measure_unhelped(now=noon + 60 * MINUTE) == 0


# ---------------------------------------------------------------- the effect


def helped_and_unhelped(room, alice, noon, *, without: str, others: int = 6) -> Intervention:
    """p0 is helped two minutes into an episode and gets it right; `others` are left alone and answer `without`."""
    event = episode(room, "p0", noon)
    intervention = services.record_intervention(
        alert_of(event).pk, who=alice, kind="explained", now=noon + 2 * MINUTE
    )
    answers_around(room, "p0", noon + 2 * MINUTE, "-" * 20, "+" * 20)
    for number in range(others):
        pupil = f"p{1 + number % 5}"
        begin = noon - (number // 5) * 45 * MINUTE
        episode(room, pupil, begin, severity=("high", "medium", "critical")[number % 3])
        answers_around(room, pupil, begin + MINUTE, "-" * 20, without)
    effects.measure_due(now=noon + 30 * MINUTE)
    intervention.refresh_from_db()
    return intervention


def test_an_effect_is_told_beside_moments_without_help(room, alice, noon):
    effect = helped_and_unhelped(room, alice, noon, without="-" * 16 + "++++").effect

    assert effect["verdict"] == "better"
    assert (effect["before"]["n"], effect["after"]["n"]) == (20, 20)
    assert effect["unhelped"]["episodes"] == 6
    assert effect["unhelped"]["lasted_s"] == 60
    assert effect["unhelped"]["after"]["share"] == pytest.approx(0.2)
    assert effect["compared"] == "more_than_without_help"
    assert effect["change"]["low"] > 0
    assert "not proof" in effect["note"]


def test_what_gets_better_by_itself_is_no_more_than_without_help(room, alice, noon):
    effect = helped_and_unhelped(room, alice, noon, without="+" * 20).effect

    assert effect["verdict"] == "better"
    assert effect["compared"] == "like_without_help"


def test_too_few_moments_without_help_compare_with_nothing(room, alice, noon):
    effect = helped_and_unhelped(room, alice, noon, without="+" * 20, others=3).effect

    assert effect["unhelped"] is None
    assert effect["compared"] == "insufficient_data"


def test_the_page_and_the_api_have_the_same_effect(room, alice, noon):
    intervention = helped_and_unhelped(room, alice, noon, without="+" * 20)

    page = selectors.student_page("p0", who=alice, since=noon - 60 * MINUTE, until=noon + 60 * MINUTE)

    (given_help,) = page.interventions
    assert given_help.effect.verdict == intervention.effect["verdict"]
    assert given_help.effect.unhelped_episodes == 6
    assert given_help.effect.compared == "like_without_help"
    assert {"before", "after", "verdict"} <= intervention.effect.keys()


def test_a_help_without_data_is_called_insufficient(room, alice, noon):
    intervention = services.record_intervention(
        alert_of(episode(room, "p0", noon)).pk, who=alice, kind="hinted", now=noon
    )

    effects.measure_due(now=noon + 30 * MINUTE)

    intervention.refresh_from_db()
    assert intervention.effect["verdict"] == "insufficient_data"
    assert intervention.effect["compared"] == "insufficient_data"
    assert intervention.effect["change"] is None


def test_an_effect_measured_by_an_earlier_version_is_read(room, alice, noon):
    intervention = services.record_intervention(
        alert_of(episode(room, "p0", noon)).pk, who=alice, kind="hinted", now=noon
    )
    Intervention.objects.filter(pk=intervention.pk).update(
        effect={"before": {}, "after": {}, "verdict": "too_little_data", "measure": "share of right answers"}
    )

    (given_help,) = selectors.student_page(
        "p0", who=alice, since=noon - 60 * MINUTE, until=noon + 60 * MINUTE
    ).interventions

    assert (given_help.effect.verdict, given_help.effect.measure) == ("insufficient_data", "right_answers")


@pytest.mark.parametrize(("lasted_s", "landmark"), [(-5, 0), (59, 0), (60, 60), (599, 180), (4000, 600)])
def test_help_is_compared_from_the_landmark_its_episode_had_reached(lasted_s, landmark):
    assert landmark_of(lasted_s) == landmark


def test_severities_are_similar_to_their_neighbours():
    assert similar_severities("high") == ["medium", "high", "critical"]
    assert similar_severities("low") == ["low", "medium"]


# ---------------------------------------------------------------- intervals


counts = st.tuples(st.integers(1, 60), st.integers(0, 60)).map(lambda pair: Share(min(pair), pair[0]))


@given(counts, counts)
def test_a_gap_lies_in_its_interval_and_turns_round(one, other):
    there, back = gap(one, other), gap(other, one)

    assert -1 <= there.low <= there.value + 1e-12
    assert there.value - 1e-12 <= there.high <= 1
    assert there.low == pytest.approx(-back.high)


@given(counts, counts, counts, counts)
def test_a_gap_of_gaps_is_wider_than_each(a, b, c, d):
    one, other = gap(a, b), gap(c, d)
    between = gap_of_gaps(one, other)

    assert between.low <= between.value <= between.high
    assert between.high - between.low >= max(one.high - one.low, other.high - other.low) - 1e-9


@given(st.lists(counts, min_size=1, max_size=20))
def test_pooling_keeps_the_share_and_never_claims_more_than_was_counted(parts):
    found = pooled(parts)
    total = sum(part.n for part in parts)

    assert found.value == pytest.approx(sum(part.right for part in parts) / total)
    assert len(parts) <= found.n <= total


def test_moments_that_are_all_alike_inside_count_as_moments():
    parts = [Share(20, 20)] * 5 + [Share(0, 20)] * 5

    assert pooled(parts).n == 10


def test_a_comparison_needs_five_episodes():
    one = BeforeAfter(Share(2, 20), Share(18, 20))

    assert comparison_of(one, one, 4) == "insufficient_data"
    assert comparison_of(one, one, 5) == "like_without_help"


def test_nothing_has_no_gap():
    assert gap(Share(0, 0), Share(1, 2)) is None
    assert Gap(0.1, 0.0, 0.2).as_json() == {"value": 0.1, "low": 0.0, "high": 0.2}
