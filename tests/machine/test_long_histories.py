"""Long histories, weighted towards work that gets done: thousands of steps from one seed each."""

from __future__ import annotations

import random

import pytest

from coordination.machine.kinds import DependencyPolicy, SessionStatus
from tests.machine.test_properties import Histories

NAMES = ["ann", "ben", "cay", "dan"]
KEYS = ["k1", "k2", "k3"]
LESSONS = ["", "L1", "L2"]
STEPS = 1_500


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_every_rule_holds_through_a_long_history(seed):
    chance = random.Random(seed)
    history = Histories()
    history.begin()

    for step in range(STEPS):
        _step(history, chance)
        history.projected_events_are_the_rows_of_the_state()
        if step % 10 == 0:
            history.everything_holds()
            history.every_member_holds_the_same_bytes()
            history.no_task_is_lost()

    assert len(history.completed) > 10, "this history gets work done"
    history.everything_holds()


def _step(history: Histories, chance: random.Random) -> None:
    name, task_id, key = chance.choice(NAMES), f"t{chance.randrange(400)}", chance.choice(KEYS)
    ago, pick, lesson = chance.choice([0] * 12 + [1, 2]), chance.randrange(12), chance.choice(LESSONS)
    live = sorted(history.machine.state.tasks) or [task_id]
    steps = {
        lambda: history.register(name, chance.randint(1, 3), lesson, chance.random() < 0.5, ago): 4,
        lambda: history.heartbeat(name, ago, chance.sample(live, min(2, len(live))), None): 6,
        lambda: history.enqueue(
            task_id,
            chance.randint(-2, 2),
            lesson,
            chance.sample(live, min(chance.choice([0, 0, 1, 2]), len(live))),
            chance.randint(0, 2),
            chance.choice([0, 0, 4_000]),
            chance.choice(list(DependencyPolicy)),
            chance.choice(["", "", "", "ann"]),
            chance.choice([0, 0, 25_000]),
        ): 10,
        lambda: history.claim(name, ago, chance.randint(1, 3)): 8,
        history.everybody_lives_and_works: 2,
        lambda: history.assign(chance.choice(live), chance.choice(["", name])): 3,
        lambda: history.start(pick, ago): 3,
        lambda: history.renew(pick, ago, chance.randint(-1, 100)): 3,
        lambda: history.complete(pick, ago): 8,
        lambda: history.fail(pick, ago, chance.random() < 0.8): 3,
        lambda: history.tick(
            chance.choice([250] * 6 + [1_000] * 6 + [6_000, 35_000]), chance.random() < 0.03
        ): 8,
        lambda: history.acquire(
            key, name, chance.choice([1_000, 60_000]), chance.choice([0, 4_000, 90_000])
        ): 5,
        lambda: history.renew_lock(key, ago, name): 1,
        lambda: history.release(key, ago, name, force=chance.random() < 0.1): 3,
        lambda: history.stop_waiting(key, name): 1,
        lambda: history.cancel(chance.choice(live)): 1,
        lambda: history.retry(task_id, lesson): 2,
        lambda: history.delete(task_id): 1,
        lambda: history.update_task(
            chance.choice(live), chance.randint(-2, 2), chance.choice([None, 0, 3_000])
        ): 1,
        lambda: history.update_session(
            name, chance.choice([None, 1, 3]), chance.choice([None, *LESSONS]), None
        ): 1,
        lambda: history.ask(name, chance.choice([SessionStatus.PAUSED, SessionStatus.DRAINING])): 1,
        lambda: history.ask(name, SessionStatus.IDLE): 4,
        lambda: history.fail_session(name): 0.2,
        lambda: history.goodbye(name, ago): 0.5,
        lambda: history.archive(lesson, archived=chance.random() < 0.3): 0.5,
        lambda: history.delete_lesson("L2"): 0.2,
        lambda: history.set_affinity(name, lesson, chance.randint(0, 1_000)): 1,
        lambda: history.repeat(chance.randint(1, 10)): 3,
        history.replace_the_replica: 0.3,
    }
    chance.choices(list(steps), weights=list(steps.values()))[0]()
