"""Practice of skills, what a class finds hard, and the chance that a skill is not mastered in ten tries."""

from itertools import product
from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usability.detection import practice, weights
from usability.detection.practice import (
    GRID_SD,
    NO_NORMS,
    NO_PRACTICE,
    POINTS,
    PRIOR,
    STEP_CHANCE,
    Norms,
    Practice,
    SkillNorm,
    Weighing,
    centred,
    features,
    has_run,
    learned,
    no_mastery,
    score,
)

MARKS = st.text("+-", min_size=1, max_size=14)


def practised(
    marks: str, skill: str = "a", norms: Norms = NO_NORMS, before: Practice = NO_PRACTICE
) -> Practice:
    for mark in marks:
        before = before.after(skill, correct=mark == "+", norms=norms)
    return before


def coded(marks: str) -> int:
    return int("1" + marks.replace("+", "1").replace("-", "0"), 2)


def by_every_path(marks: str, base: int) -> float:
    """The same chance from its definition: every path of the hidden part, every future."""
    chances = [1 / (1 + exp(-(base / 20 + GRID_SD * point))) for point in POINTS]
    last = len(POINTS) - 1
    weight_of_end = [0.0] * len(POINTS)
    for path in product(range(len(POINTS)), repeat=len(marks) + 1):
        weight = PRIOR[path[0]]
        for mark, here, then in zip(marks, path, path[1:], strict=False):
            weight *= chances[here] if mark == "+" else 1 - chances[here]
            up, down = min(last, here + 1), max(0, here - 1)
            weight *= (1 - 2 * STEP_CHANCE) * (then == here) + STEP_CHANCE * ((then == up) + (then == down))
        weight_of_end[path[-1]] += weight
    total = 0.0
    for point, weight in enumerate(weight_of_end):
        for future in product("+-", repeat=10 - len(marks)):
            if "+++" not in marks + "".join(future):
                rights = future.count("+")
                total += weight * chances[point] ** rights * (1 - chances[point]) ** (len(future) - rights)
    return total / sum(weight_of_end)


@pytest.mark.parametrize("marks", ["-", "+", "-+", "++", "--", "-++", "+-+", "---"])
@pytest.mark.parametrize("base", [-20, 13])
def test_the_chance_is_that_of_its_definition(marks, base):
    assert no_mastery(coded(marks), base) == pytest.approx(by_every_path(marks, base))


@given(MARKS)
def test_three_in_a_row_are_found_wherever_they_are(marks):
    assert has_run(coded(marks)) == ("+++" in marks)


@given(MARKS)
def test_practice_counts_what_it_says(marks):
    done = practised(marks).of("a")

    assert (done.opportunities, done.right) == (len(marks), marks.count("+"))
    assert done.run == len(marks) - len(marks.rstrip("+"))
    assert done.is_mastered == ("+++" in marks)
    assert done.marks == coded(marks[:10])
    assert done.was_mastered_in_time == ("+++" in marks[:10])


@given(MARKS)
def test_the_score_is_a_chance_and_certain_where_it_is_decided(marks):
    found = score(practised(marks), "a", NO_NORMS)

    assert 0.0 <= found <= 1.0
    assert (found == 0.0) == ("+++" in marks[:10])
    assert (found == 1.0) == (len(marks) >= 10 and "+++" not in marks[:10])


@given(st.text("+-", min_size=0, max_size=7), st.text("+-", min_size=0, max_size=6))
def test_a_wrong_answer_never_lowers_the_score_below_that_of_a_right_one(before, elsewhere):
    begun = practised(before, before=practised(elsewhere, "b"))

    wrong, right = (score(practised(mark, before=begun), "a", NO_NORMS) for mark in "-+")

    assert wrong > right or "+++" in before


def test_a_skill_that_others_found_hard_scores_higher():
    easy = Norms(skills={"a": SkillNorm(100, 90, 20, 18, 20, 0)})
    hard = Norms(skills={"a": SkillNorm(100, 30, 20, 5, 20, 12)})

    scores = [score(practised("-+-+", norms=norms), "a", norms) for norms in (easy, NO_NORMS, hard)]

    assert scores == sorted(scores)
    assert scores[2] - scores[0] > 0.2


def test_a_pupil_who_does_well_elsewhere_scores_lower():
    well, badly = (practised("-+-+", before=practised(mark * 8, "b")) for mark in "+-")

    assert score(well, "a", NO_NORMS) < score(badly, "a", NO_NORMS)


def test_what_is_new_is_expected_to_be_as_usual_and_what_is_known_as_it_is():
    total = SkillNorm(1000, 700, 100, 60, 80, 8, 32)
    norms = Norms(total, {"known": SkillNorm(1000, 200, 100, 10, 80, 40, 60)})

    new, known = norms.expected("new"), norms.expected("known")

    assert (new.right, new.first, new.spinning) == pytest.approx((0.7, 0.6, 0.1))
    assert known.right == pytest.approx((200 + 7) / 1010)
    assert known.spinning == pytest.approx(40.8 / 88)
    assert (new.stuck, known.stuck) == pytest.approx((0.25, 42 / 68))


def test_only_the_latest_skills_are_remembered():
    day = NO_PRACTICE
    for index in range(136):
        day = practised("-", f"skill-{index}", before=day)

    assert list(day.skills) == [f"skill-{index}" for index in range(8, 136)]


def test_a_class_remembers_a_bounded_number_of_skills(monkeypatch):
    monkeypatch.setattr(practice, "KEPT_NORMS", 3)
    norms = NO_NORMS
    for skill in "abcad":
        norms = learned(norms, practised("-", skill))

    assert list(norms.skills) == ["c", "a", "d"]
    assert norms.skills["a"].firsts == 2
    assert norms.total.firsts == NO_NORMS.total.firsts + 5


def test_each_feature_has_a_weight_and_a_name():
    sizes = {
        len(features(practised("-+-"), "a", NO_NORMS)),
        *map(len, (weights.WEIGHTS, weights.NAMES, weights.CENTRES, weights.SPREAD)),
        *map(len, weights.SPREAD),
    }

    assert sizes == {8}


def test_a_skill_known_to_leave_those_stuck_who_are_not_quick_scores_higher_where_that_has_counted():
    norms = [Norms(skills={"a": SkillNorm(100, 60, 20, 12, 20, 2, still)}) for still in (18, 2)]
    seldom, often = (features(practised("-+-+", norms=each), "a", each) for each in norms)

    assert seldom[:-1] == often[:-1]
    assert seldom[-1] < 0 < often[-1]


@given(MARKS)
def test_what_was_seen_after_four_to_six_tries_is_kept_while_the_skill_is_not_mastered(marks):
    done = practised(marks).of("a")

    expected = [
        centred(features(practised(marks[:tries]), "a", NO_NORMS))
        for tries in (4, 5, 6)
        if len(marks) >= tries and "+++" not in marks[:tries]
    ]
    assert list(done.seen) == expected


def test_only_pairs_whose_end_is_known_move_the_weights():
    open_, mastered, spun = (learned(NO_NORMS, practised(marks)) for marks in ("-+-+-", "-+-+++", "-+" * 5))

    assert open_.weighing == NO_NORMS.weighing
    assert mastered.weighing.means[0] < NO_NORMS.weighing.means[0] < spun.weighing.means[0]
    assert (mastered.total.open, spun.total.open) == (5, 5)
    assert learned(NO_NORMS, practised("+++-")).total.open == NO_NORMS.total.open


ROWS = st.lists(
    st.tuples(st.lists(st.floats(-3, 3), min_size=7, max_size=7), st.booleans()), min_size=1, max_size=30
)


@given(ROWS)
def test_each_example_makes_its_outcome_likelier_and_the_weights_more_certain(rows):
    weighing = Weighing()
    for values, is_spinning in rows:
        x = (1.0, *values)
        after = weighing.after(x, is_spinning=is_spinning)
        moved = sum(
            (new - old) * value for new, old, value in zip(after.means, weighing.means, x, strict=True)
        )

        assert moved > 0 if is_spinning else moved < 0
        for place, row in enumerate(after.spread):
            assert 0 < row[place] <= weighing.spread[place][place]
            assert row == tuple(each[place] for each in after.spread)
        weighing = after


def test_one_example_moves_the_weights_to_the_mode_of_prior_and_example():
    """Beside the definition: a Newton step from the mean on the log posterior, by finite differences."""
    x, before = (1.0, 0.5, -1.0, 0.2, 1.0, 0.3, -0.1, 0.4), Weighing()
    after = before.after(x, is_spinning=True)

    chance = 1 / (1 + exp(-sum(mean * value for mean, value in zip(before.means, x, strict=True))))
    information = practice.EXAMPLE * chance * (1 - chance)
    step = [new - old for new, old in zip(after.means, before.means, strict=True)]
    along = sum(each * value for each, value in zip(step, x, strict=True))
    for place, row in enumerate(before.spread):
        slope = sum(
            each * value * (practice.EXAMPLE * (1 - chance) - information * along)
            for each, value in zip(row, x, strict=True)
        )
        assert step[place] == pytest.approx(slope)


def test_the_intercept_of_the_score_stays_though_all_are_found_to_spin():
    norms = NO_NORMS
    for _ in range(30):
        norms = learned(norms, practised("-" * 10, norms=norms))
    usual = (1.0, *(0.0,) * 7)

    assert norms.weighing.means[0] > NO_NORMS.weighing.means[0] + 0.3
    assert norms.weighing.logit(usual) == NO_NORMS.weighing.logit(usual) == weights.WEIGHTS[0]


def test_weights_learn_what_matters_elsewhere():
    """Where a run of right answers is a bad sign, its weight, negative at first, comes to say so."""
    weighing, run = Weighing(), weights.NAMES.index("run")
    for index in range(2000):
        x = [1.0, *(0.0,) * 7]
        x[run] = 1.0 if index % 2 else -1.0
        weighing = weighing.after(tuple(x), is_spinning=index % 10 < 2 or bool(index % 2))

    assert weights.WEIGHTS[run] < 0 < weighing.means[run]
