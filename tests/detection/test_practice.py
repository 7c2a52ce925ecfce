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
    total = SkillNorm(1000, 700, 100, 60, 80, 8)
    norms = Norms(total, {"known": SkillNorm(1000, 200, 100, 10, 80, 40)})

    new, known = norms.expected("new"), norms.expected("known")

    assert (new.right, new.first, new.spinning) == pytest.approx((0.7, 0.6, 0.1))
    assert known.right == pytest.approx((200 + 7) / 1010)
    assert known.spinning == pytest.approx(40.8 / 88)


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
    assert len(features(practised("-+-"), "a", NO_NORMS)) == len(weights.WEIGHTS) == len(weights.NAMES)
