"""Hard filters come first, each with its reason; then the score; then ties by load and name."""

from __future__ import annotations

import pytest

from coordination.machine import commands, scoring
from coordination.machine.commands import AffinitySet, SessionTransition, TaskAssign, TaskClaim, TimeWindow
from coordination.machine.kinds import RejectionCode, SessionStatus
from coordination.machine.policy import Policy
from coordination.machine.queue import Queue
from coordination.machine.state import Affinity
from tests.machine.wishes import STAMP_MS, Wishes

DAY_MS = 86_400_000
TUESDAY = 1 << 1
NOON = 12 * 60


@pytest.mark.parametrize(
    ("window", "is_open"),
    [
        (TimeWindow(), True),
        (TimeWindow(start_ms=STAMP_MS), True),
        (TimeWindow(start_ms=STAMP_MS + 1), False),
        (TimeWindow(end_ms=STAMP_MS), False),
        (TimeWindow(end_ms=STAMP_MS + 1), True),
        (TimeWindow(days=TUESDAY), True),
        (TimeWindow(days=127 - TUESDAY), False),
        (TimeWindow(from_minute=22 * 60, to_minute=23 * 60), True),
        (TimeWindow(to_minute=NOON), False),
        (TimeWindow(from_minute=22 * 60 + 13), True),
        (TimeWindow(from_minute=22 * 60 + 14), False),
        (TimeWindow(to_minute=22 * 60 + 13), False),
    ],
)
def test_a_window_is_open_from_its_start_until_before_its_end(window, is_open):
    assert scoring.is_open(window, STAMP_MS) is is_open


def test_a_session_outside_its_windows_takes_nothing_and_any_open_one_is_enough():
    wishes = Wishes()
    shut = TimeWindow(days=127 - TUESDAY)
    token = wishes.register("ann", time_windows=(shut,))
    wishes.enqueue("t")

    outside = wishes.ask(TaskClaim(session_name="ann", lease_token=token))
    wishes.ask(commands.SessionUpdate(session_name="ann", time_windows=(shut, TimeWindow(days=TUESDAY))))
    inside = wishes.ask(TaskClaim(session_name="ann", lease_token=token))

    assert (outside.value.reason, len(outside.value.grants)) == ("outside_window", 0)
    assert len(inside.value.grants) == 1


def test_affinity_halves_with_each_half_life():
    policy = Policy(affinity_half_life_ms=1_000)
    affinity = Affinity(
        affinity_id="",
        session_id="s",
        lesson_id="L",
        score_milli=800,
        window_start_ms=0,
        window_end_ms=0,
        last_used_ms=0,
    )

    decayed = [scoring.affinity_now(affinity, clock_ms, policy) for clock_ms in (0, 500, 1_000, 2_000, 10**6)]

    assert decayed == [800, 600, 400, 200, 0]


def test_affinity_counts_only_while_its_window_is_open():
    wishes = Wishes()
    wishes.register("ann")
    session = wishes.machine.state.sessions["id-ann"]
    wishes.ask(
        AffinitySet(affinity_id="a", session_name="ann", lesson_id="L", window_end_ms=STAMP_MS + 1_000)
    )

    now = scoring.affinity_for(wishes.machine.state, session, "L")
    wishes.stamp_ms += 1_000
    wishes.apply()

    assert (now, scoring.affinity_for(wishes.machine.state, session, "L")) == (1_000, 0)


def test_an_affinity_for_any_work_counts_where_there_is_none_for_the_lesson():
    wishes = Wishes()
    wishes.register("ann")
    session = wishes.machine.state.sessions["id-ann"]
    wishes.ask(AffinitySet(affinity_id="a", session_name="ann", lesson_id="", score_milli=600))
    wishes.ask(AffinitySet(affinity_id="b", session_name="ann", lesson_id="L", score_milli=100))

    counts = [scoring.affinity_for(wishes.machine.state, session, lesson) for lesson in ("L", "M", "")]

    assert counts == [100, 600, 600]


def test_an_affinity_for_any_work_sends_a_task_to_its_session_and_is_never_learned_away():
    wishes = Wishes(max_affinities=1)
    for name in ("ann", "ben"):
        wishes.register(name, accepts_push=True, max_concurrent_tasks=4)
    wishes.ask(AffinitySet(affinity_id="a", session_name="ben", lesson_id=""))
    for number, lesson in enumerate(["", "L"]):
        wishes.enqueue(f"t{number}", lesson_id=lesson)
        wishes.ask(TaskAssign(task_id=f"t{number}"))

    assert [wishes.machine.state.tasks[f"t{number}"].claim.session_name for number in (0, 1)] == [
        "ben",
        "ben",
    ]
    assert list(wishes.machine.state.affinities["id-ben"]) == [""]


def test_a_session_takes_the_lesson_it_knows_before_others_that_wait_as_long():
    wishes = Wishes()
    token = wishes.register("ann")
    wishes.ask(AffinitySet(affinity_id="a", session_name="ann", lesson_id="known"))
    wishes.enqueue("t1", lesson_id="other")
    wishes.enqueue("t2", lesson_id="known")
    wishes.enqueue("t3", priority=9)

    grants = wishes.ask(TaskClaim(session_name="ann", lease_token=token, max_tasks=3)).value.grants

    assert [grant.task_id for grant in grants] == ["t3", "t2", "t1"]


def test_learning_moves_the_score_towards_the_result():
    wishes = Wishes()
    token = wishes.register("ann")
    scores = []
    for number, kind in enumerate(["complete", "complete", "fail"]):
        wishes.enqueue(f"t{number}", lesson_id="L", max_retries=0)
        grant = wishes.ask(TaskClaim(session_name="ann", lease_token=token)).value.grants[0]
        done = commands.TaskComplete if kind == "complete" else commands.TaskFail
        wishes.ask(done(task_id=grant.task_id, claim_token=grant.claim_token))
        scores.append(wishes.machine.state.affinities["id-ann"]["L"].score_milli)

    assert scores == [562, 616, 539]


def test_the_best_session_is_the_one_with_affinity_then_the_freest_then_the_first_by_name():
    wishes = Wishes()
    for name in ("cay", "ben", "ann"):
        wishes.register(name, accepts_push=True, max_concurrent_tasks=4)
    wishes.ask(AffinitySet(affinity_id="a", session_name="cay", lesson_id="L"))
    for number, lesson in enumerate(["L", "", "", ""]):
        wishes.enqueue(f"t{number}", lesson_id=lesson)
        wishes.ask(TaskAssign(task_id=f"t{number}"))

    holders = [wishes.machine.state.tasks[f"t{number}"].claim.session_name for number in range(4)]

    assert holders == ["cay", "ann", "ben", "ann"]


def test_reliability_falls_with_failures():
    wishes = Wishes()
    token = wishes.register("ann")
    session = wishes.machine.state.sessions["id-ann"]
    seen = [scoring.reliability(session)]
    for number in range(2):
        wishes.enqueue(f"t{number}", max_retries=0)
        grant = wishes.ask(TaskClaim(session_name="ann", lease_token=token)).value.grants[0]
        wishes.ask(commands.TaskFail(task_id=grant.task_id, claim_token=grant.claim_token))
        seen.append(scoring.reliability(session))

    assert seen == [1_000, 333, 111]


def test_tasks_worth_pushing_are_what_each_push_session_would_take_next():
    wishes = Wishes()
    wishes.register("puller")
    wishes.register("ann", accepts_push=True, capabilities=("gpu",))
    wishes.register("ben", accepts_push=True)
    wishes.register("cay", accepts_push=True)
    wishes.enqueue("plain")
    wishes.enqueue("chip", required_capabilities=("gpu",), priority=5)
    wishes.ask(SessionTransition(session_name="cay", to=SessionStatus.PAUSED))

    assert scoring.plan_assignments(wishes.machine.state, 10) == ["chip", "plain"]
    assert scoring.plan_assignments(wishes.machine.state, 1) == ["chip"]


def test_nothing_is_worth_pushing_without_tasks():
    wishes = Wishes()
    wishes.register("ann", accepts_push=True)

    assert scoring.plan_assignments(wishes.machine.state, 10) == []


def test_a_push_to_a_session_that_may_not_have_the_task_says_why():
    wishes = Wishes()
    wishes.register("ann", accepts_push=True)
    wishes.enqueue("t", required_capabilities=("gpu",), tier="manager", target_session="ben")

    refused = wishes.ask(TaskAssign(task_id="t", session_name="ann"))

    assert refused.code is RejectionCode.CONFLICT
    assert refused.detail == "session ann: task is for session ben, task asks for tier manager, lacks gpu"


def test_explain_says_why_and_gives_the_parts_of_each_score():
    wishes = Wishes()
    wishes.register("ann", lesson_id="L")
    wishes.register("ben")
    wishes.ask(SessionTransition(session_name="ben", to=SessionStatus.PAUSED))
    wishes.enqueue("t", lesson_id="L")

    explained = scoring.explain(wishes.machine.state, "t")

    best, other = explained.candidates
    assert (best.session_name, best.reasons, best.score.total) == ("ann", (), 600)
    assert (best.score.same_lesson, best.score.capacity, best.score.reliability) == (1_000, 1_000, 1_000)
    assert (other.session_name, other.reasons, other.score) == ("ben", ("paused",), None)
    assert scoring.explain(wishes.machine.state, "gone") is None


def test_the_queue_drops_what_was_discarded():
    from coordination.machine.commands import TaskSpec

    queue = Queue()
    spec = TaskSpec(task_type="work", lesson_id="L")
    for number in range(400):
        queue.add(f"t{number}", spec, number, number)
    for number in range(1, 400):
        queue.discard(f"t{number}")
    queue.discard("t1")

    lane = next(iter(queue._lanes[""].values()))
    assert len(queue) == 1
    assert len(lane.everything) < 100
    assert len(lane.lessons["L"]) < 100
    queue.discard("t0")
    assert not queue._lanes


def test_a_task_that_left_a_lesson_is_not_found_under_it():
    wishes = Wishes()
    token = wishes.register("ann", lesson_id="L")
    wishes.enqueue("first", lesson_id="M")
    wishes.enqueue("moved", lesson_id="L")
    wishes.enqueue("stays", lesson_id="M")
    wishes.ask(commands.LessonDelete(lesson_id="L"))
    wishes.ask(commands.SessionUpdate(session_name="ann", lesson_id="L"))
    wishes.enqueue("new", lesson_id="L", priority=-1)

    grants = wishes.ask(TaskClaim(session_name="ann", lease_token=token, max_tasks=4)).value.grants

    assert [grant.task_id for grant in grants] == ["first", "moved", "stays", "new"]
