"""The machine's contract with the log: total, deterministic, exactly once, restorable."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordination.machine import codec, commands
from coordination.machine.capture import array_head
from coordination.machine.commands import (
    Batch,
    LockAcquire,
    LockRelease,
    SessionHeartbeat,
    SessionRegister,
    TaskClaim,
    TaskComplete,
    TaskEnqueue,
    TaskFail,
    TaskSpec,
    Tick,
)
from coordination.machine.deadlines import Deadlines, DueKind
from coordination.machine.invariants import broken_rules, check_invariants
from coordination.machine.kinds import Health, RejectionCode, SessionStatus, TaskStatus
from coordination.machine.machine import Machine
from coordination.machine.outcomes import Accepted, Rejected
from coordination.machine.policy import Policy
from coordination.machine.rules.endings import backoff_ms
from coordination.machine.state import has_outstanding, next_due_ms, wall_ms
from tests.machine.test_long_histories import Histories, _step
from tests.machine.wishes import STAMP_MS, Wishes

# Total


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_and_change_nothing(payload):
    machine = Machine()
    before = machine.snapshot()

    applied = machine.apply(payload)

    assert all(isinstance(outcome, Accepted | Rejected) for outcome in applied.outcomes)
    assert applied.events == []
    assert machine.snapshot() == before


@st.composite
def any_commands(draw):
    """A command whose fields have the right types and any values."""
    kind = draw(st.sampled_from(list(commands.AnyCommand.__args__)))
    odd_ints = st.integers(-(2**63), 2**64 - 1) | st.integers(-2, 20)
    texts = st.sampled_from(["", "a", "b", "t1"]) | st.text(max_size=12)
    wanted = {
        bytes: st.sampled_from([b"", b"\0" * 16, b"r"]),
        str: texts,
        int: odd_ints,
        tuple[str, ...]: st.lists(texts, max_size=2).map(tuple),
        int | None: st.none() | odd_ints,
        str | None: st.none() | texts,
        TaskSpec: st.builds(
            TaskSpec,
            task_type=texts,
            priority=odd_ints,
            lesson_id=texts,
            max_retries=odd_ints,
            claim_ttl_ms=odd_ints,
            timeout_ms=odd_ints,
        ),
        Policy: st.builds(Policy, lease_ms=odd_ints, max_tasks=odd_ints, backoff_base_ms=odd_ints),
        tuple[commands.TimeWindow, ...]: st.lists(
            st.builds(commands.TimeWindow, start_ms=odd_ints, end_ms=odd_ints, days=odd_ints), max_size=1
        ).map(tuple),
        tuple[commands.TimeWindow, ...] | None: st.none(),
        tuple[str, ...] | None: st.none() | st.just(("x",)),
        tuple[commands.TaskProgress, ...]: st.lists(
            st.builds(commands.TaskProgress, task_id=texts, claim_token=odd_ints, percent=odd_ints),
            max_size=2,
        ).map(tuple),
    }
    fields = {
        field.name: draw(wanted[field.type] if field.type in wanted else st.from_type(field.type))
        for field in msgspec.structs.fields(kind)
    }
    return kind(**fields)


@settings(max_examples=30, deadline=None)
@given(st.lists(any_commands(), max_size=20))
def test_odd_values_are_refused_and_the_state_stays_sound(wishes):
    machine = Machine()
    for wish in wishes:
        machine.apply(codec.encode_batch(Batch(stamp_ms=STAMP_MS, commands=[wish])))
    snapshot = machine.snapshot()

    machine.restore(snapshot)

    assert machine.snapshot() == snapshot
    broken = [rule for rule in broken_rules(machine.state) if "exceed their bound" not in rule]
    assert not broken  # a policy may set a bound below what is there


def test_a_command_that_does_not_decode_is_refused_alone():
    good = LockAcquire(lock_key="k", owner_id="o", ttl_ms=1_000)
    payload = msgspec.msgpack.encode(
        [1, STAMP_MS, [[999, b"", "from a later version"], good, [50, b"", "", 7]]]
    )

    outcomes = Machine().apply(payload).outcomes

    assert [type(outcome) for outcome in outcomes] == [Rejected, Accepted, Rejected]
    assert outcomes[0].code is RejectionCode.UNDECODABLE


def test_deep_nesting_is_refused():
    applied = Machine().apply(b"\x91" * 100_000)

    assert applied.outcomes[0].code is RejectionCode.UNDECODABLE


def test_a_batch_of_another_version_is_refused():
    applied = Machine().apply(msgspec.msgpack.encode([2, STAMP_MS, []]))

    assert "version 1 expected, 2 found" in applied.outcomes[0].detail


# Deterministic


def test_replaying_a_log_gives_the_same_bytes():
    history = Histories()
    payloads: list[bytes] = []
    history.begin()
    real = history.machine.apply
    history.machine.apply = lambda payload: payloads.append(payload) or real(payload)  # type: ignore[method-assign]
    chance = random.Random(99)
    start = history.machine.snapshot()
    for _ in range(300):
        _step(history, chance)

    again = Machine()
    again.restore(start)
    for payload in payloads:
        again.apply(payload)

    assert again.snapshot() == history.machine.snapshot()


def test_a_damaged_snapshot_is_refused_and_the_state_stays():
    wishes = Wishes()
    wishes.register("ann")
    before = wishes.machine.snapshot()

    for damaged in (b"", before[:-1], b"\x91\x07"):
        with pytest.raises(codec.Undecodable):
            wishes.machine.restore(damaged)

    assert wishes.machine.snapshot() == before


def test_the_stamp_never_runs_backwards():
    wishes = Wishes()
    wishes.apply()
    wishes.stamp_ms -= 5_000

    wishes.register("ann")

    assert wishes.machine.state.stamp_ms == STAMP_MS
    assert wall_ms(wishes.machine.state, 1_000) == STAMP_MS + 1_000


def test_backoff_doubles_within_its_ceiling_and_its_jitter_is_drawn_from_the_request():
    policy = Policy(backoff_base_ms=1_000, backoff_max_ms=8_000)
    seeds = [str(number).encode() for number in range(200)]

    for retry, ceiling in [(1, 1_000), (2, 2_000), (3, 4_000), (4, 8_000), (50, 8_000)]:
        drawn = [backoff_ms(policy, retry, seed) for seed in seeds]
        assert drawn == [backoff_ms(policy, retry, seed) for seed in seeds]
        assert 0 <= min(drawn) < ceiling * 0.1
        assert ceiling * 0.9 < max(drawn) <= ceiling


# Exactly once


def test_a_repeated_request_is_answered_with_the_first_result_and_applied_once():
    wishes = Wishes()
    wishes.enqueue("t")
    token = wishes.register("ann")
    claim = TaskClaim(request_id=b"c" * 16, session_name="ann", lease_token=token)

    first, second = wishes.apply(claim, claim).outcomes
    revision = wishes.machine.state.revision
    third = wishes.ask(claim)

    assert first == second == third
    assert len(first.value.grants) == 1
    assert wishes.machine.state.revision == revision


def test_a_restored_member_remembers_the_requests():
    wishes, other = Wishes(), Machine()
    register = SessionRegister(request_id=b"r" * 16, session_id="i", session_name="ann")
    first = wishes.ask(register)
    other.restore(wishes.machine.snapshot())

    again = other.apply(codec.encode_batch(Batch(stamp_ms=STAMP_MS, commands=[register])))

    assert again.outcomes == [first]
    assert again.events == []


def test_the_oldest_outcomes_are_forgotten_first():
    wishes = Wishes(remembered_outcomes=2)
    keys = [bytes([number]) * 16 for number in range(1, 4)]
    for key in keys:
        wishes.ask(LockAcquire(request_id=key, lock_key=key.hex(), owner_id="o", ttl_ms=1_000))

    assert list(wishes.machine.state.remembered) == keys[1:]


def test_empty_claims_crowd_out_no_grant_and_are_remembered_by_themselves():
    wishes = Wishes(remembered_outcomes=2, remembered_idle=3)
    token = wishes.register("ann")
    wishes.enqueue("t1")
    claims = [
        TaskClaim(request_id=bytes([n] * 16), session_name="ann", lease_token=token) for n in range(1, 8)
    ]
    granted = wishes.ask(claims[0])

    empty = [wishes.ask(claim) for claim in claims[1:]]
    wishes.enqueue("t2")

    assert wishes.ask(claims[0]) == granted
    assert wishes.ask(claims[-1]) == empty[-1], "it acts no more although there is a task by now"
    assert len(wishes.machine.state.remembered_idle) == 3


def test_pieces_of_a_snapshot_are_of_its_moment_whatever_changes_meanwhile():
    wishes = Wishes()
    token = wishes.register("ann", max_concurrent_tasks=1_000)
    for number in range(600):
        wishes.enqueue(f"t{number}")
    whole = wishes.machine.snapshot()
    capture = wishes.machine.capture()

    pieces = []
    for piece in capture:
        pieces.append(piece)
        wishes.ask(TaskClaim(session_name="ann", lease_token=token, max_tasks=100))

    assert len(pieces) > 10
    assert b"".join(pieces) == whole
    assert wishes.machine.snapshot() != whole
    assert not wishes.machine.state.captures


def test_a_lock_that_changes_meanwhile_is_in_the_snapshot_as_it_was():
    wishes = Wishes()
    wishes.ask(LockAcquire(lock_key="k", owner_id="me", ttl_ms=1_000))
    whole = wishes.machine.snapshot()
    capture = wishes.machine.capture()

    wishes.ask(LockAcquire(lock_key="k", owner_id="me", ttl_ms=9_000))

    assert b"".join(capture) == whole
    assert wishes.machine.snapshot() != whole


def test_a_snapshot_that_is_given_up_is_forgotten():
    wishes = Wishes()
    capture = wishes.machine.capture()
    next(capture)

    capture.close()
    capture.close()

    assert not wishes.machine.state.captures
    assert list(capture) == []


@pytest.mark.parametrize("length", [0, 1, 15, 16, 65_535, 65_536, 100_000])
def test_the_head_of_an_array_is_that_of_msgpack(length):
    head = array_head(length)

    assert msgspec.msgpack.encode([None] * length) == head + b"\xc0" * length


def test_a_command_without_request_id_is_not_remembered():
    wishes = Wishes()
    token = wishes.register("ann")

    wishes.ask(SessionHeartbeat(session_name="ann", lease_token=token))

    assert not wishes.machine.state.remembered


# Revisions and events


def test_only_what_changes_something_makes_a_revision():
    wishes = Wishes()
    token = wishes.register("ann")
    refused = LockRelease(lock_key="k", owner_id="o", fencing_token=1)
    empty = TaskClaim(session_name="ann", lease_token=token)

    applied = wishes.apply(refused, empty, LockAcquire(lock_key="k", owner_id="o", ttl_ms=1_000))

    assert (applied.first_revision, applied.last_revision) == (2, 2)
    assert [outcome.revision for outcome in applied.outcomes] == [1, 1, 2]


def test_a_tick_that_changes_nothing_makes_no_revision():
    wishes = Wishes()
    wishes.ask(Tick(elapsed_ms=0, term=1))

    applied = wishes.apply(Tick(elapsed_ms=250, term=1))

    assert applied.last_revision < applied.first_revision
    assert applied.events == []
    assert wishes.machine.state.clock_ms == 250


def test_the_ring_gives_the_events_after_a_revision_and_says_when_it_cannot():
    wishes = Wishes(event_ring=3)
    for number in range(6):
        wishes.ask(
            LockAcquire(
                lock_key=f"k{number}",
                owner_id="o",
                ttl_ms=1_000,
            )
        )

    assert [one.revision for one in wishes.machine.events_after(4)] == [5, 6]
    assert [one.revision for one in wishes.machine.events_after(3)] == [4, 5, 6]
    assert wishes.machine.events_after(6) == []
    assert wishes.machine.events_after(2) is None


def test_a_ring_that_lost_part_of_a_revision_does_not_give_the_rest_of_it():
    wishes = Wishes(event_ring=2)
    token = wishes.register("ann")
    wishes.enqueue("t", lesson_id="L")
    wishes.ask(TaskClaim(session_name="ann", lease_token=token))  # more than two events

    assert wishes.machine.events_after(2) is None


def test_events_name_their_kind_subject_and_actor():
    wishes = Wishes()
    applied = wishes.apply(
        SessionRegister(session_id="i", session_name="ann", actor="user:1"), Tick(elapsed_ms=0, term=3)
    )

    registered, term = applied.events
    assert (registered.event.kind, registered.event.subject, registered.actor) == (
        "session_registered",
        "ann",
        "user:1",
    )
    assert (term.event.kind, term.event.subject) == ("term_started", "cluster")
    assert wishes.machine.state.term == 3


def test_outcomes_and_events_survive_the_wire():
    wishes = Wishes()
    applied = wishes.apply(
        SessionRegister(session_id="i", session_name="ann"),
        LockRelease(lock_key="k", owner_id="o", fencing_token=1),
        LockAcquire(lock_key="k", owner_id="o", ttl_ms=1),
        LockAcquire(lock_key="k", owner_id="p", ttl_ms=1),
    )

    assert codec.decode_outcomes(codec.encode_outcomes(applied.outcomes)) == applied.outcomes
    assert codec.decode_events(codec.encode_events(applied.events)) == applied.events


# Time


def test_nothing_outstanding_needs_no_tick():
    wishes = Wishes()
    wishes.enqueue("t")
    assert not has_outstanding(wishes.machine.state)
    assert next_due_ms(wishes.machine.state) is None

    wishes.register("ann")

    assert has_outstanding(wishes.machine.state)
    assert next_due_ms(wishes.machine.state) == 15_250
    wishes.wait(31_000)
    assert not has_outstanding(wishes.machine.state)


def test_a_released_lock_is_no_longer_waited_for():
    wishes = Wishes()
    token = wishes.ask(LockAcquire(lock_key="k", owner_id="o", ttl_ms=2_000)).value.fencing_token
    wishes.ask(LockRelease(lock_key="k", owner_id="o", fencing_token=token))

    wishes.wait(3_000)

    assert not has_outstanding(wishes.machine.state)


def test_a_lease_over_that_no_tick_has_come_to_is_over_all_the_same():
    wishes = Wishes(max_expiries_per_tick=1, max_elapsed_ms=60_000)
    ann, ben = wishes.register("ann"), wishes.register("ben")
    wishes.enqueue("t")
    wishes.ask(TaskClaim(session_name="ben", lease_token=ben))
    wishes.ask(LockAcquire(lock_key="k", owner_id="ben", ttl_ms=20_000))
    wishes.ask(Tick(elapsed_ms=60_000, term=0))
    assert wishes.machine.state.sessions["id-ben"].is_online

    refused = wishes.ask(SessionHeartbeat(session_name="ben", lease_token=ben))
    taken = wishes.ask(LockAcquire(lock_key="k", owner_id="ann", ttl_ms=1_000))
    again = wishes.register("ben", lease_token=ben)

    assert refused.code is RejectionCode.LEASE_EXPIRED
    assert taken.value.state == "held"
    assert again > ben > ann
    assert wishes.machine.state.tasks["t"].retry_count == 1
    check_invariants(wishes.machine.state)


def test_a_claim_over_that_no_tick_has_come_to_may_still_be_completed():
    """The token is current until somebody else has it, so the work is not lost."""
    wishes = Wishes(max_expiries_per_tick=1, max_elapsed_ms=60_000, lease_ms=600_000)
    token = wishes.register("ann")
    wishes.enqueue("t", claim_ttl_ms=1_000)
    claimed = wishes.ask(TaskClaim(session_name="ann", lease_token=token)).value.grants[0]
    wishes.ask(LockAcquire(lock_key="k", owner_id="o", ttl_ms=500))
    wishes.ask(Tick(elapsed_ms=60_000, term=0))

    completed = wishes.ask(TaskComplete(task_id="t", claim_token=claimed.claim_token))

    assert completed.value.status is TaskStatus.COMPLETED


def test_a_lock_passed_on_twice_within_one_tick_has_two_tokens():
    wishes = Wishes(max_elapsed_ms=60_000)
    wishes.register("ann")
    wishes.register("ben")
    wishes.ask(LockAcquire(lock_key="k", owner_id="ann", ttl_ms=600_000))
    for waiter in ("ben", "cay"):
        wishes.ask(LockAcquire(lock_key="k", owner_id=waiter, ttl_ms=600_000, wait_ms=600_000))

    applied = wishes.apply(Tick(elapsed_ms=40_000, term=0))

    granted = [one.event for one in applied.events if one.event.kind == "lock_acquired"]
    assert [event.owner_id for event in granted] == ["ben", "cay"]
    assert granted[0].fencing_token < granted[1].fencing_token


# Bounds


def test_a_long_chain_of_dependants_fails_without_recursion():
    wishes = Wishes()
    token = wishes.register("ann")
    wishes.enqueue("t0", max_retries=0)
    for number in range(1, 3_000):
        wishes.enqueue(f"t{number}", depends_on=(f"t{number - 1}",))
    claimed = wishes.ask(TaskClaim(session_name="ann", lease_token=token)).value.grants[0]

    wishes.ask(TaskFail(task_id="t0", claim_token=claimed.claim_token))

    assert not wishes.machine.state.tasks
    assert wishes.machine.state.finals["t2999"].status is TaskStatus.FAILED


def test_the_machine_is_bounded():
    wishes = Wishes(max_tasks=2, max_dependents=1)
    wishes.enqueue("a")
    wishes.enqueue("b", depends_on=("a",))

    assert wishes.enqueue("c").code is RejectionCode.OVERLOADED
    wishes.machine.state.policy = msgspec.structs.replace(wishes.machine.state.policy, max_tasks=9)
    assert wishes.enqueue("c", depends_on=("a",)).code is RejectionCode.OVERLOADED


def test_a_retry_beyond_the_bound_of_tasks_waits_in_its_row():
    wishes = Wishes(max_tasks=1)
    wishes.enqueue("a")

    refused = wishes.ask(commands.TaskRetry(task_id="old", spec=TaskSpec(task_type="work")))

    assert refused.code is RejectionCode.OVERLOADED


def test_a_session_with_many_directives_undelivered_keeps_the_first():
    wishes = Wishes(max_directives=2)
    token = wishes.register("ann", max_concurrent_tasks=5)
    for number in range(4):
        wishes.enqueue(f"t{number}")
    wishes.ask(TaskClaim(session_name="ann", lease_token=token, max_tasks=4))
    for number in range(4):
        wishes.ask(commands.TaskCancel(task_id=f"t{number}"))

    directives = wishes.ask(SessionHeartbeat(session_name="ann", lease_token=token)).value.directives

    assert [directive.task_id for directive in directives] == ["t0", "t1"]


def test_progress_of_a_void_claim_is_answered_with_its_cancellation_once():
    wishes = Wishes()
    token = wishes.register("ann")
    wishes.enqueue("t")
    grant = wishes.ask(TaskClaim(session_name="ann", lease_token=token)).value.grants[0]
    wishes.ask(commands.TaskCancel(task_id="t"))
    progress = (commands.TaskProgress(task_id="t", claim_token=grant.claim_token, percent=400),)
    beat = SessionHeartbeat(session_name="ann", lease_token=token, progress=progress)

    first, second = wishes.apply(beat, beat).outcomes

    assert [d.kind for d in first.value.directives] == ["cancel_task"]
    assert [d.kind for d in second.value.directives] == ["cancel_task"]


def test_progress_renews_the_claim():
    wishes = Wishes()
    token = wishes.register("ann")
    wishes.enqueue("t", claim_ttl_ms=20_000)
    grant = wishes.ask(TaskClaim(session_name="ann", lease_token=token)).value.grants[0]
    progress = (commands.TaskProgress(task_id="t", claim_token=grant.claim_token, percent=30, note="half"),)

    for _ in range(5):
        wishes.wait(10_000)
        wishes.ask(SessionHeartbeat(session_name="ann", lease_token=token, progress=progress))

    task = wishes.machine.state.tasks["t"]
    assert (task.claim.token, task.claim.percent, task.claim.note) == (grant.claim_token, 30, "half")


def test_more_progress_than_a_session_can_have_tasks_is_refused():
    wishes = Wishes(max_concurrent_tasks=1)
    token = wishes.register("ann", max_concurrent_tasks=1)
    progress = (
        commands.TaskProgress(task_id="a", claim_token=1),
        commands.TaskProgress(task_id="b", claim_token=1),
    )

    refused = wishes.ask(SessionHeartbeat(session_name="ann", lease_token=token, progress=progress))

    assert refused.code is RejectionCode.VALIDATION


def test_a_policy_must_be_possible():
    assert Policy().problems() == []
    assert Policy(tick_slack_ms=0).problems() == []
    assert Policy(failure_threshold=0).problems() == ["failure_threshold must be positive, not 0"]
    assert "must be at least 0" in Policy(event_ring=-1).problems()[0]
    assert "must be at most" in Policy(lease_ms=10**15).problems()[0]


@pytest.mark.parametrize(
    "spec",
    [
        {"task_type": ""},
        {"priority": 1_001},
        {"max_retries": -1},
        {"lesson_id": "x" * 256},
        {"required_capabilities": ("",)},
        {"timeout_ms": -1},
    ],
)
def test_a_task_that_cannot_be_is_refused(spec):
    assert Wishes().enqueue("t", **spec).code is RejectionCode.VALIDATION


def test_a_task_needs_an_id_possible_times_and_possible_dependencies():
    wishes = Wishes()
    spec = TaskSpec(task_type="work")

    for wish in (
        TaskEnqueue(task_id="", spec=spec),
        TaskEnqueue(task_id="t", spec=spec, delay_ms=-1),
        TaskEnqueue(task_id="t", spec=spec, depends_on=("",)),
        commands.TaskRetry(task_id="t", spec=spec, attempts=-1),
        commands.TaskRetry(task_id="", spec=spec),
    ):
        assert wishes.ask(wish).code is RejectionCode.VALIDATION


@pytest.mark.parametrize(
    "fields",
    [
        {"capabilities": ("",)},
        {"metadata": "x" * 16_385},
        {"lesson_id": "x" * 256},
        {"time_windows": (commands.TimeWindow(start_ms=5, end_ms=5),)},
        {"time_windows": (commands.TimeWindow(from_minute=600, to_minute=600),)},
    ],
)
def test_a_session_that_cannot_be_is_refused(fields):
    wish = SessionRegister(session_id="i", session_name="ann", **fields)

    assert Wishes().ask(wish).code is RejectionCode.VALIDATION


@pytest.mark.parametrize(
    "fields", [{"lock_key": ""}, {"metadata": "x" * 16_385}, {"wait_ms": 600_001}, {"owner_id": ""}]
)
def test_a_lock_that_cannot_be_is_refused(fields):
    wish = LockAcquire(**({"lock_key": "k", "owner_id": "o", "ttl_ms": 1} | fields))

    assert Wishes().ask(wish).code is RejectionCode.VALIDATION


def test_other_commands_check_their_values_too():
    wishes = Wishes()
    token = wishes.register("ann")
    held = wishes.ask(LockAcquire(lock_key="k", owner_id="o", ttl_ms=1_000)).value.fencing_token
    wishes.enqueue("t", max_retries=3)
    grant = wishes.ask(TaskClaim(session_name="ann", lease_token=token)).value.grants[0]

    for wish in (
        TaskClaim(session_name="ann", lease_token=token, task_types=("",)),
        commands.TaskRenew(task_id="t", claim_token=grant.claim_token, note="x" * 256),
        commands.LockRenew(lock_key="k", owner_id="o", fencing_token=held, ttl_ms=-1),
        commands.LessonArchive(lesson_id=""),
        commands.LessonDelete(lesson_id=""),
        commands.AffinitySet(affinity_id="", session_name="ann", lesson_id="L" * 1_000),
        commands.RevisionRaise(revision=2**63),
    ):
        assert wishes.ask(wish).code is RejectionCode.VALIDATION, wish


def test_retries_may_not_be_cut_below_those_used():
    wishes = Wishes()
    token = wishes.register("ann")
    wishes.enqueue("t")
    grant = wishes.ask(TaskClaim(session_name="ann", lease_token=token)).value.grants[0]
    wishes.ask(TaskFail(task_id="t", claim_token=grant.claim_token))

    assert wishes.ask(commands.TaskUpdate(task_id="t", max_retries=0)).code is RejectionCode.VALIDATION


def test_a_new_lease_begins_healthy_idle_and_without_failures():
    wishes = Wishes()
    wishes.register("ann")
    wishes.ask(commands.SessionFailure(session_name="ann", reason="test"))
    wishes.ask(commands.SessionDeregister(session_name="ann"))

    wishes.register("ann")

    session = wishes.machine.state.sessions["id-ann"]
    assert (session.status, session.health, session.consecutive_failures) == (
        SessionStatus.IDLE,
        Health.HEALTHY,
        0,
    )


def test_invariants_name_what_is_broken():
    wishes = Wishes()
    token = wishes.register("ann", max_concurrent_tasks=1)
    wishes.enqueue("t", lesson_id="L")
    wishes.ask(TaskClaim(session_name="ann", lease_token=token))
    wishes.ask(LockAcquire(lock_key="k", owner_id="o", ttl_ms=1_000))
    state = wishes.machine.state
    session, task, lock = state.sessions["id-ann"], state.tasks["t"], state.locks["k"]
    check_invariants(state)

    session.current_task_count = 2
    session.status = SessionStatus.IDLE
    session.lease_token = 99
    task.status = TaskStatus.COMPLETED
    task.retry_count = 9
    task.claim.token = 99
    task.claim.deadline_ms = 1
    task.waiting_on = ("t", "gone")
    lock.owner_id = ""
    lock.fencing_token = 99
    state.lessons["L"].tasks_failed = -1
    state.claims_index.clear()

    found = " ".join(broken_rules(state))
    for words in (
        "counts 2 tasks",
        "more than its 1",
        "is idle with",
        "from the future",
        "still live",
        "retried 9 of 3",
        "before it may run",
        "outlives its attempt",
        "which are over",
        "wait for each other",
        "below nothing",
        "held by nobody",
        "claims_index is",
    ):
        assert words in found
    with pytest.raises(AssertionError, match="counts 2 tasks"):
        check_invariants(state)


def test_invariants_see_dead_holders_doubled_owners_and_bounds():
    wishes = Wishes()
    token = wishes.register("ann", max_concurrent_tasks=2)
    wishes.enqueue("t", lesson_id="L")
    wishes.ask(TaskClaim(session_name="ann", lease_token=token))
    wishes.ask(LockAcquire(lock_key="k", owner_id="o", ttl_ms=1_000))
    wishes.ask(LockAcquire(lock_key="k", owner_id="p", ttl_ms=1_000, wait_ms=1_000))
    state = wishes.machine.state
    session = state.sessions["id-ann"]
    session.status = SessionStatus.OFFLINE
    session.directives = (msgspec.msgpack.decode(b"\x91\xabcancel_task", type=type_of_directive()),)
    state.locks["k"].owner_id = "p"
    state.lessons.clear()
    state.policy = msgspec.structs.replace(state.policy, max_locks=0)
    state.queue.add("ghost", TaskSpec(task_type="work"), 0, 0)

    found = " ".join(broken_rules(state))

    for words in (
        "with lease token",
        "offline with directives",
        "which is not live",
        "stands twice",
        "no counters",
        "1 locks exceed",
        "should hold",
    ):
        assert words in found


def test_invariants_see_claims_without_status_and_idle_work():
    wishes = Wishes()
    token = wishes.register("ann")
    wishes.enqueue("t")
    wishes.ask(TaskClaim(session_name="ann", lease_token=token))
    wishes.enqueue("u")
    state = wishes.machine.state
    state.tasks["u"].status = TaskStatus.ASSIGNED
    state.sessions["id-ann"].current_task_count = 0
    state.finals["t"] = msgspec.convert(["t", "failed", 0, 0, 0, "", 1], type=type_of_final())
    state.sessions["id-ann"].lease_expires_ms = 5

    found = " ".join(broken_rules(state))

    for words in ("busy without a task", "both live and final", "assigned with claim None", "is due next"):
        assert words in found


def type_of_directive():
    from coordination.machine.outcomes import Directive

    return Directive


def type_of_final():
    from coordination.machine.state import Final

    return Final


def test_the_memory_of_departures_is_bounded():
    wishes = Wishes(max_sessions=2)
    wishes.register("ben")
    wishes.ask(commands.SessionDeregister(session_name="ben"))
    for _ in range(200):
        wishes.register("ann")
        wishes.ask(commands.SessionDeregister(session_name="ann"))

    assert len(wishes.machine.state.departures) < 100
    wishes.register("cay")
    assert [session.session_name for session in wishes.machine.state.sessions.values()] == ["ann", "cay"]


def test_a_failover_leaves_healthy_sessions_healthy():
    wishes = Wishes(max_elapsed_ms=60_000)
    wishes.register("ann")
    wishes.ask(Tick(elapsed_ms=14_000, term=0))

    wishes.ask(Tick(elapsed_ms=20_000, term=1))

    assert wishes.machine.state.sessions["id-ann"].health is Health.HEALTHY


def test_only_failures_in_a_row_stop_a_session():
    wishes = Wishes()
    token = wishes.register("ann")
    for number, kind in enumerate([TaskFail, TaskFail, TaskComplete, TaskFail, TaskFail, TaskFail]):
        assert wishes.machine.state.sessions["id-ann"].status is SessionStatus.IDLE
        wishes.enqueue(f"t{number}", max_retries=0)
        grant = wishes.ask(TaskClaim(session_name="ann", lease_token=token)).value.grants[0]
        wishes.ask(kind(task_id=grant.task_id, claim_token=grant.claim_token))

    assert wishes.machine.state.sessions["id-ann"].status is SessionStatus.FAILED


def test_a_deadline_that_moved_by_a_moment_is_not_due_before_it():
    deadlines = Deadlines()
    deadlines.touch(DueKind.LOCK, "k", 10)
    deadlines.touch(DueKind.LOCK, "k", 11)

    assert deadlines.lower_bound_ms() == 10
    assert deadlines.head(lambda kind, key: 11) == (11, DueKind.LOCK, "k")
    assert deadlines.head(lambda kind, key: None) is None
