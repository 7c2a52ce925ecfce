"""Real replicas under faults drawn from a seed, told step by step, and with one promise broken at a time.

Every run plays 300 seeds that nobody has seen before, drawn from the run's id, or from the date without pytest-xdist;
GAIA_SIMULATION_SEEDS=0-9999 plays those. A failing seed is named and plays again exactly: put it among
SEEDS_THAT_FAILED when it is mended. In odd seeds members come and go.
"""

import datetime as dt
import hashlib
import os

import pytest

from tests.log.directed import DIRECTED, play
from tests.log.faults import changing_history, random_history
from tests.log.mutations import MUTATIONS
from tests.log.world import Call, PowerLost, World, out_of_order

FRESH_SEEDS = 300
SEEDS_THAT_FAILED = (14, 18, 317, 409, 573, 1155, 2244, 2380, 62073810205, 868415101045)
CHUNK = 20
SEEDS_OF_MUTATIONS = 40

# What catches each mutation: a directed history, or seeds tried in order.
CAUGHT_BY_HISTORY = {
    "answer_before_sync": "power_lost_after_answer",
    "forget_vote": "second_vote",
    "forget_term": "second_vote",
    "keep_conflicts": "older_term_entry",
    "cut_always": "repeated_resend",
    "commit_old_term": "older_term_entry",
    "commit_alone": "repeated_resend",
    "stale_answer": "stale_acknowledgement",
    "trust_chunk_commit": "chunk_commits",
    "clear_tail": "compaction_window",
    "vote_without_log_check": "compaction_window",
    "count_the_wiped": "wiped_member_votes",
    "admit_at_once": "wiped_member_votes",
    "admit_a_majority": "wiped_majority",
    "confirm_for_one": "elected_and_wiped",
    "apply_twice": "chunk_commits",
    "read_without_round": "deposed_leader_reads",
    "call_discarded_applied": "replaced_entry",
    "count_uncounted": "wiped_member_votes",
    "count_learners": "learners_alone",
    "change_before_own_entry": "two_changes_raced",
    "two_changes_at_once": "changes_at_once",
    "forget_members_at_restart": "grown_then_restarted",
    "forget_members_in_snapshots": "members_in_a_snapshot",
    "keep_cut_members": "changes_at_once",
    "hear_strangers": "removed_member_campaigns",
    "remove_oneself": "leader_removed",
}


def size_of(seed: int) -> int:
    return (3, 3, 5)[seed % 3]


def play_seed(seed: int) -> None:
    with World(seed, size_of(seed)) as world:
        (changing_history if seed % 2 else random_history)(world)
        world.judge()


def chosen_seeds() -> list[int]:
    asked = os.environ.get("GAIA_SIMULATION_SEEDS")
    if asked:
        first, last = (int(number) for number in asked.split("-"))
    else:
        run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or dt.datetime.now(dt.UTC).date().isoformat()
        first = int.from_bytes(hashlib.sha256(run.encode()).digest()[:4]) * 1000
        last = first + FRESH_SEEDS - 1
    return [*SEEDS_THAT_FAILED, *range(first, last + 1)]


def chunks() -> list[list[int]]:
    seeds = chosen_seeds()
    return [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]


@pytest.mark.parametrize("seeds", chunks(), ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_nothing_acknowledged_is_lost_and_all_agree(seeds: list[int]) -> None:
    for seed in seeds:
        try:
            play_seed(seed)
        except BaseException as error:
            raise AssertionError(f"seed {seed} with {size_of(seed)} members: {error!r}") from error


@pytest.mark.parametrize("name", DIRECTED)
def test_it_survives_the_history(name: str) -> None:
    play(name)


def test_a_seed_plays_again_exactly() -> None:
    histories = []
    for _ in range(2):
        with World(7, 3) as world:
            random_history(world)
            world.judge()
            histories.append((world.history, world.acked))

    assert histories[0] == histories[1]


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_promise_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTATIONS[name](monkeypatch)

    assert is_caught(name), f"{name} went unnoticed"


def is_caught(name: str) -> bool:
    try:
        if name in CAUGHT_BY_HISTORY:
            play(CAUGHT_BY_HISTORY[name])
        else:
            for seed in range(SEEDS_OF_MUTATIONS):
                play_seed(seed)
    except (Exception, PowerLost):  # noqa: BLE001 - any way of breaking is being caught
        return True
    return False


def test_an_order_that_explains_no_answers_is_noticed() -> None:
    write, later = Call(0.0, 1.0, 0.5), Call(2.0, 3.0, 1.5)
    stale, fresh, overlapping = Call(4.0, 5.0, 1.0), Call(4.0, 5.0, 2.0), Call(0.5, 2.5, 0.0)

    assert out_of_order([write, later, fresh, overlapping]) is None
    assert out_of_order([write, later, stale]) == (later, stale)
    assert out_of_order([Call(2.0, 3.0, 0.5), Call(0.0, 1.0, 1.5)]) == (
        Call(0.0, 1.0, 1.5),
        Call(2.0, 3.0, 0.5),
    )
