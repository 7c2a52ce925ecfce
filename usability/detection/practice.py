"""How a pupil's practice of each skill goes, and how likely it is not to be mastered in time.

A skill is mastered by three right answers in a row; a pupil is wheel-spinning on a skill when that has not
happened within the first ten opportunities (Beck and Gong 2013).

The score answers: after these answers, how likely are ten opportunities to pass without three right in a row?
First a small model of the answers: the logit of a right answer is the skill's (as far as the class is known)
plus the pupil's (from the other skills) plus a part of its own for this pupil at this skill, which starts
unknown, moves a little from answer to answer, and is followed exactly on a grid of seven points (a hidden
Markov model). For each point the chance of no three in a row in the tries that remain is a walk over the states
"0, 1, 2 right in a row". That chance and a few plain numbers are then weighed by a logistic model. It begins with weights (`weights.py`)
that were fitted by `bench/fit_wheel_spin.py`, which says on what, as worth some thousand examples, and goes on
learning in use: each pair of a pupil and skill whose end is known moves them a little (online Newton, that is
recursive Bayes for a logistic model; Bishop 2006, 4.5, and West and Harrison 1997, 14).

Everything is O(1) an answer, looks at nothing later, and knows no pupil by name: what is known of a pupil
begins with the first answer of the day, what is known of a skill with the first pupil whose day is over.
The intercept of the score stays that of `weights.py`: a score means the same in the morning and at night.
"""

from collections.abc import Iterable
from functools import lru_cache
from math import exp, log
from operator import mul

import msgspec

from usability.detection import weights

MASTERY_RUN = 3
SPINNING_AFTER = 10
OPEN_AFTER = 4
KEPT_SKILLS = 128  # the latest practised ones; a year of a tutor's exercises has about as many
KEPT_NORMS = 512  # skills of one app that a class remembers
LEARNED_AFTER = (4, 5, 6)  # tries; what was seen then is kept until it is known what became of it
EXAMPLE = 0.5  # what each of these counts, as up to three are of one pair and say much the same

# The grid of the pupil's own part at a skill: standard normal points -2 … 2 times GRID_SD logits.
GRID_SD = 0.9
GRID_MOVE = 0.2  # variance of its movement from one answer to the next, in logits squared
POINTS = tuple(-2.0 + 4.0 * index / 6 for index in range(7))
BASE_STEPS = 20  # the logit both share is rounded to a twentieth, so that equal histories are computed once

# What is taken for granted of a skill or pupil before anything is known, as so many answers.
SKILL_ANSWERS = 10.0
SKILL_PUPILS = 8.0
PUPIL_INFORMATION = 4.0
LATELY = 0.15  # weight of the newest answer in `lately`


class SkillNorm(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What pupils whose day is over have done at a skill, in their first ten opportunities each."""

    answers: float = 0.0
    right: float = 0.0
    firsts: float = 0.0
    firsts_right: float = 0.0
    decided: float = 0.0  # mastered, or ten opportunities had
    spinning: float = 0.0  # of those, not mastered
    open: float = 0.0  # of those decided, not mastered after four tries

    def plus(self, other: "SkillNorm") -> "SkillNorm":
        """Both together."""
        return SkillNorm(
            self.answers + other.answers,
            self.right + other.right,
            self.firsts + other.firsts,
            self.firsts_right + other.firsts_right,
            self.decided + other.decided,
            self.spinning + other.spinning,
            self.open + other.open,
        )


NO_NORM = SkillNorm()
# Before a class is known: what tutors usually see, weighing as much as one pupil.
USUAL = SkillNorm(10.0, 6.5, 10.0, 6.0, 8.0, 1.0, 4.0)


class Weighing(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the weights are believed to be, of features less their centres: means, and how they vary together."""

    means: tuple[float, ...] = weights.WEIGHTS
    spread: tuple[tuple[float, ...], ...] = weights.SPREAD

    def logit(self, x: tuple[float, ...]) -> float:
        """What the means make of centred features, with the intercept that does not move."""
        return weights.WEIGHTS[0] + _product(self.means[1:], x[1:])

    def after(self, x: tuple[float, ...], *, is_spinning: bool) -> "Weighing":
        """The belief after an example: centred features, and what became of the pair."""
        along = tuple(_product(row, x) for row in self.spread)
        chance = _logistic(_product(self.means, x))
        information = EXAMPLE * chance * (1.0 - chance)
        doubt = 1.0 + information * _product(along, x)
        step, shrinkage = EXAMPLE * (is_spinning - chance) / doubt, information / doubt
        return Weighing(
            tuple(mean + step * each for mean, each in zip(self.means, along, strict=True)),
            tuple(
                tuple(each - shrinkage * (here * there) for each, there in zip(row, along, strict=True))
                for row, here in zip(self.spread, along, strict=True)
            ),
        )


class Norms(msgspec.Struct, frozen=True, array_like=True):
    """What a class is known to find hard in one app, and what its practice has taught of the weights.

    A new one replaces it when a pupil's day is over.
    """

    total: SkillNorm = USUAL
    skills: dict[str, SkillNorm] = {}
    weighing: Weighing = Weighing()

    def expected(self, skill: str) -> "Expected":
        """What is to be expected of a pupil nobody knows."""
        known, total = self.skills.get(skill, NO_NORM), self.total
        right, first, spinning, stuck = (
            total.right / total.answers,
            total.firsts_right / total.firsts,
            total.spinning / total.decided,
            total.spinning / total.open,
        )
        return Expected(
            right=_within((known.right + SKILL_ANSWERS * right) / (known.answers + SKILL_ANSWERS)),
            first=_within((known.firsts_right + SKILL_ANSWERS * first) / (known.firsts + SKILL_ANSWERS)),
            spinning=_within(
                (known.spinning + SKILL_PUPILS * spinning) / (known.decided + SKILL_PUPILS), 0.01
            ),
            spinning_usual=_within(spinning, 0.01),
            stuck=_within((known.spinning + SKILL_PUPILS * stuck) / (known.open + SKILL_PUPILS), 0.01),
            stuck_usual=_within(stuck, 0.01),
        )


class Expected(msgspec.Struct, frozen=True, gc=False):
    """Chances at a skill, shrunk towards those of all skills.

    Of a right answer, of the first one, of wheel-spinning, and of it when four tries have not been enough.
    """

    right: float
    first: float
    spinning: float
    spinning_usual: float
    stuck: float
    stuck_usual: float


NO_NORMS = Norms()


class SkillPractice(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One pupil's answers at one skill so far.

    `run` counts right answers in a row. `marks` holds the first ten, 1 right, 0 wrong, behind a leading 1.
    `seen` holds the centred features as they were after each of `LEARNED_AFTER`, while not mastered.
    """

    opportunities: int = 0
    right: int = 0
    run: int = 0
    is_mastered: bool = False
    marks: int = 1
    seen: tuple[tuple[float, ...], ...] = ()

    def after(self, *, correct: bool) -> "SkillPractice":
        """The practice after one more answer."""
        run = self.run + 1 if correct else 0
        return SkillPractice(
            self.opportunities + 1,
            self.right + correct,
            run,
            self.is_mastered or run >= MASTERY_RUN,
            self.marks << 1 | correct if self.opportunities < SPINNING_AFTER else self.marks,
            self.seen,
        )

    @property
    def was_mastered_in_time(self) -> bool:
        """Whether three in a row were among the first ten."""
        return has_run(self.marks)


UNPRACTISED = SkillPractice()


class Practice(msgspec.Struct, frozen=True, array_like=True):
    """One pupil's day in one app.

    `surprise` sums (answer - its chance) and `information` chance x (1 - chance), over all answers and over the
    first ones at each skill; `lately` is the surprise weighted towards the latest answers.
    """

    skills: dict[str, SkillPractice] = {}
    surprise: float = 0.0
    information: float = 0.0
    first_surprise: float = 0.0
    first_information: float = 0.0
    lately: float = 0.0

    def of(self, skill: str) -> SkillPractice:
        """The pupil's practice of a skill."""
        return self.skills.get(skill, UNPRACTISED)

    def after(self, skill: str, *, correct: bool, norms: Norms) -> "Practice":
        """The day after one more answer; beyond `KEPT_SKILLS` the skill practised longest ago is forgotten."""
        expected = norms.expected(skill)
        before = self.skills.get(skill, UNPRACTISED)
        skills = {name: known for name, known in self.skills.items() if name != skill}
        if len(skills) >= KEPT_SKILLS:
            del skills[next(iter(skills))]
        skills[skill] = before.after(correct=correct)
        is_first = before.opportunities == 0
        surprise = correct - expected.right
        after = Practice(
            skills,
            self.surprise + surprise,
            self.information + expected.right * (1.0 - expected.right),
            self.first_surprise + (correct - expected.first if is_first else 0.0),
            self.first_information + (expected.first * (1.0 - expected.first) if is_first else 0.0),
            self.lately + LATELY * (surprise - self.lately),
        )
        done = skills[skill]
        if done.opportunities in LEARNED_AFTER and not done.is_mastered:
            seen = (*done.seen, centred(features(after, skill, norms)))
            skills[skill] = msgspec.structs.replace(done, seen=seen)
        return after


NO_PRACTICE = Practice()


def learned(norms: Norms, practice: Practice) -> Norms:
    """The norms after a pupil's day; beyond `KEPT_NORMS` the skill heard of longest ago is forgotten."""
    total, skills, weighing = norms.total, dict(norms.skills), norms.weighing
    for skill, done in practice.skills.items():
        added = _norm_of(done)
        total = total.plus(added)
        known = skills.pop(skill, NO_NORM)
        if len(skills) >= KEPT_NORMS:
            del skills[next(iter(skills))]
        skills[skill] = known.plus(added)
        if added.decided:
            for x in done.seen:
                weighing = weighing.after(x, is_spinning=bool(added.spinning))
    return Norms(total, skills, weighing)


def score(practice: Practice, skill: str, norms: Norms) -> float:
    """How likely the pupil is not to master the skill within ten opportunities, 0 … 1, after the last answer."""
    done = practice.of(skill)
    if done.is_mastered and done.was_mastered_in_time:
        return 0.0
    if done.opportunities >= SPINNING_AFTER:
        return 1.0
    return _logistic(norms.weighing.logit(centred(features(practice, skill, norms))))


def features(practice: Practice, skill: str, norms: Norms) -> tuple[float, ...]:
    """What the score weighs, in the order of `weights.NAMES`; for a skill not mastered yet, before the tenth try."""
    done, expected = practice.of(skill), norms.expected(skill)
    tries = done.opportunities
    # What this skill has told of the pupil is left out of what the other skills tell.
    surprise = practice.surprise - (done.right - tries * expected.right)
    information = practice.information - tries * expected.right * (1.0 - expected.right)
    ability = surprise / (max(0.0, information) + PUPIL_INFORMATION)
    firsts, first_information = practice.first_surprise, practice.first_information
    if tries:
        firsts -= (done.marks >> (tries - 1) & 1) - expected.first
        first_information -= expected.first * (1.0 - expected.first)
    chance = no_mastery(done.marks, round(BASE_STEPS * (_logit(expected.right) + ability)))
    return (
        1.0,
        _logit(_within(chance, 0.001)),
        tries - 5.0,
        _logit(expected.spinning) - _logit(expected.spinning_usual),
        float(done.run),
        firsts / (max(0.0, first_information) + 1.0),
        practice.lately,
        _logit(expected.stuck) - _logit(expected.stuck_usual),
    )


def centred(found: tuple[float, ...]) -> tuple[float, ...]:
    """Features less what they usually are, so that a weight that moves leaves the usual score where it was."""
    return tuple(x - centre for x, centre in zip(found, weights.CENTRES, strict=True))


@lru_cache(maxsize=1 << 16)
def no_mastery(marks: int, base: int) -> float:
    """The chance that no three right in a row come by the tenth try, after these marks (see `SkillPractice`).

    `base` is the logit of a right answer for this pupil at this skill, without the own part, in twentieths.
    """
    chances = [_logistic(base / BASE_STEPS + GRID_SD * point) for point in POINTS]
    belief, run = list(PRIOR), 0
    tries = marks.bit_length() - 1
    for place in reversed(range(tries)):
        is_right = marks >> place & 1
        run = run + 1 if is_right else 0
        belief = _moved([w * (p if is_right else 1.0 - p) for w, p in zip(belief, chances, strict=True)])
    return sum(
        w * _without_run(p, min(run, 2), SPINNING_AFTER - tries) for w, p in zip(belief, chances, strict=True)
    )


def has_run(marks: int) -> bool:
    """Whether three right in a row are among the marks (behind a leading 1)."""
    body = marks & ~(1 << (marks.bit_length() - 1))
    return bool(body & body >> 1 & body >> 2)


def _norm_of(done: SkillPractice) -> SkillNorm:
    tries = done.marks.bit_length() - 1
    in_time = done.was_mastered_in_time
    is_decided = in_time or tries >= SPINNING_AFTER
    return SkillNorm(
        float(tries),
        float(done.marks.bit_count() - 1),
        1.0,
        float(done.marks >> (tries - 1) & 1),
        float(is_decided),
        float(is_decided and not in_time),
        float(is_decided and not has_run(done.marks >> max(0, tries - OPEN_AFTER))),
    )


def _moved(belief: list[float]) -> list[float]:
    """The belief, made to sum to one, after the own part may have moved one point up or down."""
    total = sum(belief)
    last = len(belief) - 1
    moved = [0.0] * len(belief)
    for index, raw in enumerate(belief):
        weight = raw / total
        moved[index] += weight * (1.0 - 2.0 * STEP_CHANCE)
        moved[max(0, index - 1)] += weight * STEP_CHANCE
        moved[min(last, index + 1)] += weight * STEP_CHANCE
    return moved


def _without_run(chance: float, run: int, tries: int) -> float:
    """The chance of no three right in a row in so many tries that begin after `run` right ones."""
    zero, one, two = float(run == 0), float(run == 1), float(run == 2)
    for _ in range(tries):
        zero, one, two = (zero + one + two) * (1.0 - chance), zero * chance, one * chance
    return zero + one + two


def _product(left: Iterable[float], right: Iterable[float]) -> float:
    total: float = sum(map(mul, left, right))
    return total


def _within(share: float, margin: float = 0.02) -> float:
    return min(1.0 - margin, max(margin, share))


def _logit(share: float) -> float:
    return log(share / (1.0 - share))


def _logistic(x: float) -> float:
    return 1.0 / (1.0 + exp(-max(-30.0, min(30.0, x))))


_DENSITY = tuple(exp(-point * point / 2.0) for point in POINTS)
PRIOR = tuple(density / sum(_DENSITY) for density in _DENSITY)
STEP_CHANCE = min(0.33, GRID_MOVE / (2.0 * (GRID_SD * (POINTS[1] - POINTS[0])) ** 2))
