"""The search: what is linearizable is accepted, what is not is refused with a small part that shows it."""

import itertools
import math
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from coordination.verify.history import Operation
from coordination.verify.linearizability import Access, accesses, judge, search
from tests.verify.histories import Script, overlapping

seeds = st.integers(0, 2**32)


def slow_judgement(found: list[Access]) -> bool:
    """The definition: some order of all that returned and some that did not keeps real time and explains the reads."""
    must = [one for one in found if one.returned < math.inf]
    may = [one for one in found if one.returned == math.inf]
    for count in range(len(may) + 1):
        for chosen in itertools.combinations(may, count):
            for order in itertools.permutations([*must, *chosen]):
                if _keeps_time(order) and _explains(order):
                    return True
    return False


def _keeps_time(order: tuple[Access, ...]) -> bool:
    return not any(late.returned < early.invoked for early, late in itertools.combinations(order, 2))


def _explains(order: tuple[Access, ...]) -> bool:
    value = None
    for one in order:
        if one.is_write:
            value = one.value
        elif one.value != value:
            return False
    return True


def is_good(operations: list[Operation]) -> bool | None:
    return judge(operations).is_linearizable


def test_an_empty_history_is_linearizable() -> None:
    assert is_good([]) is True


def test_a_read_may_see_the_old_or_the_new_value_while_a_write_is_under_way() -> None:
    for value in (None, 1):
        script = Script()
        script.write(0, 10, 1)
        script.read(1, 2, value)

        assert is_good(script.operations) is True


def test_two_reads_during_one_write_do_not_go_back() -> None:
    script = Script()
    script.write(0, 10, 1)
    script.read(1, 2, 1)
    script.read(3, 4, None)

    assert is_good(script.operations) is False


def test_a_stale_read_is_refused() -> None:
    script = Script()
    script.write(0, 1, 1)
    script.write(2, 3, 2)
    script.read(4, 5, 1)

    assert is_good(script.operations) is False


def test_a_lost_write_is_refused() -> None:
    script = Script()
    script.write(0, 1, 1)
    script.read(2, 3, None)

    assert is_good(script.operations) is False


def test_a_refused_write_that_is_read_is_refused() -> None:
    script = Script()
    script.write(0, 1, 1, status=503)
    script.read(2, 3, 1)

    assert is_good(script.operations) is False


def test_an_unknown_write_may_have_happened_late_or_never() -> None:
    script = Script()
    script.write(0, 1, 1, status=None)
    script.write(2, 3, 2)
    script.read(4, 5, 2)
    assert is_good(script.operations) is True

    script.read(6, 7, 1)
    assert is_good(script.operations) is True

    script.read(8, 9, 2)
    assert is_good(script.operations) is False


def test_a_write_that_is_applied_twice_is_refused() -> None:
    script = Script()
    script.write(0, 10, 1)
    script.read(1, 2, 1)
    script.write(3, 4, 2)
    script.read(5, 6, 2)
    script.read(7, 8, 1)

    assert is_good(script.operations) is False


def test_the_witness_is_small_and_fails_by_itself() -> None:
    script = Script()
    for number in range(1, 200):
        script.write(number, number + 0.5, number)
        script.read(number + 0.6, number + 0.9, number)
    script.read(300, 301, 150)
    script.write(302, 303, 500)

    judgement = judge(script.operations)

    assert judgement.is_linearizable is False
    assert len(judgement.witness) <= 3
    assert is_good(list(judgement.witness)) is False


def test_a_search_that_takes_too_long_is_given_up_and_says_so() -> None:
    script = Script()
    for number in range(1, 12):
        script.write(0, 100, number)
    script.read(101, 102, 99)

    assert judge(script.operations, steps_max=100).is_linearizable is None


def test_a_long_history_of_many_processes_is_decided_quickly() -> None:
    operations = overlapping(random.Random(7), 4_000)

    judgement = judge(operations)

    assert judgement.is_linearizable is True
    assert judgement.steps < 200_000


@given(seeds)
@settings(max_examples=150, deadline=None)
def test_what_a_sequential_model_gives_is_accepted(seed: int) -> None:
    assert is_good(overlapping(random.Random(seed), 60)) is True


@given(seeds)
@settings(max_examples=150, deadline=None)
def test_the_search_agrees_with_the_definition(seed: int) -> None:
    rng = random.Random(seed)
    script = Script()
    for number in range(1, 6):
        begin = rng.uniform(0, 6)
        end = begin + rng.uniform(0, 4)
        if rng.random() < 0.5:
            script.write(begin, end, number, status=rng.choice([200, 200, None]))
        else:
            script.read(begin, end, rng.choice([None, 1, 2, 3, 4, 5]))
    found = accesses(script.operations)

    assert search(found, None, 1_000_000)[0] is slow_judgement(found)


def test_most_single_mutations_of_a_sequential_history_are_refused() -> None:
    refused = tried = 0
    for seed in range(100):
        rng = random.Random(seed)
        operations = overlapping(rng, 40, unknown=0.0, spread_s=0.5)
        reads = [place for place, one in enumerate(operations) if one.op == "register.read"]
        if not reads:
            continue
        place = rng.choice(reads)
        values = {one.input["value"] for one in operations if one.op == "register.write"} | {None, 1_000}
        told = operations[place].output or {}
        wrong = rng.choice(sorted(values - {told["value"]}, key=str))
        broken = Operation(
            process=operations[place].process,
            op="register.read",
            key="r",
            input={},
            output={"status": 200, "value": wrong},
            invoke_ns=operations[place].invoke_ns,
            return_ns=operations[place].return_ns,
        )
        tried += 1
        refused += is_good([*operations[:place], broken, *operations[place + 1 :]]) is False

    assert tried > 90
    assert refused > 0.8 * tried
