"""The encoding is fixed: old logs replay, and a field or command a later version adds does no harm."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from coordination.machine import codec, commands, events
from coordination.machine.commands import AnyCommand, Batch, TaskSpec, Tick
from coordination.machine.machine import Machine
from coordination.machine.policy import Policy
from tests.machine.wishes import STAMP_MS

GOLDEN = Path(__file__).parent / "golden.json"

# One of every command, so that each wire form is fixed below.
EVERY: list[AnyCommand] = [
    Tick(elapsed_ms=0, term=1),
    commands.SessionRegister(
        request_id=bytes(16),
        actor="user:1",
        session_id="s-1",
        session_name="ann",
        capabilities=("gpu",),
        time_windows=(commands.TimeWindow(days=127),),
        accepts_push=True,
    ),
    commands.SessionHeartbeat(
        session_name="ann", lease_token=2, progress=(commands.TaskProgress(task_id="t-9", claim_token=1),)
    ),
    commands.SessionUpdate(session_name="ann", max_concurrent_tasks=9),
    commands.SessionTransition(session_name="ann", to="paused", reason="lunch"),
    commands.SessionTransition(session_name="ann", to="idle"),
    commands.TaskEnqueue(task_id="t-1", spec=TaskSpec(task_type="review", lesson_id="L", priority=3)),
    commands.TaskEnqueue(task_id="t-2", spec=TaskSpec(task_type="review"), depends_on=("t-1",), delay_ms=5),
    commands.TaskAssign(task_id="t-1", session_name="ann"),
    commands.TaskClaim(session_name="ann", lease_token=2, max_tasks=2, task_types=("review",)),
    commands.TaskStart(task_id="t-1", claim_token=8),
    commands.TaskRenew(task_id="t-1", claim_token=8, percent=50, note="half"),
    commands.TaskFail(request_id=b"f" * 16, task_id="t-1", claim_token=8, error="boom"),
    commands.TaskUpdate(task_id="t-2", priority=5),
    commands.TaskCancel(task_id="t-2", reason="enough"),
    commands.TaskRetry(task_id="t-2", spec=TaskSpec(task_type="review")),
    commands.TaskComplete(task_id="t-2", claim_token=8),
    commands.TaskDelete(task_id="t-2"),
    commands.LessonArchive(lesson_id="L"),
    commands.AffinitySet(affinity_id="a-1", session_name="ann", lesson_id="L", score_milli=700),
    commands.AffinityDelete(session_name="ann", lesson_id="L"),
    commands.LessonDelete(lesson_id="L"),
    commands.LockAcquire(request_id=b"l" * 16, lock_key="k", owner_id="o", ttl_ms=1_000),
    commands.LockAcquire(request_id=b"m" * 16, lock_key="k", owner_id="p", ttl_ms=1_000, wait_ms=9_000),
    commands.LockRenew(lock_key="k", owner_id="o", fencing_token=18),
    commands.LockWaitCancel(lock_key="k", owner_id="p"),
    commands.LockRelease(lock_key="k", force=True, reason="stuck"),
    commands.SessionFailure(session_name="ann", reason="test"),
    commands.SessionDeregister(session_name="ann"),
    commands.PolicySet(policy=Policy(failure_threshold=4)),
    commands.RevisionRaise(revision=1_000),
]


def golden() -> dict[str, str]:
    payload = codec.encode_batch(Batch(stamp_ms=STAMP_MS, commands=EVERY))
    machine = Machine()
    applied = machine.apply(payload)
    return {
        "batch": payload.hex(),
        "outcomes": codec.encode_outcomes(applied.outcomes).hex(),
        "events": codec.encode_events(applied.events).hex(),
        "snapshot": machine.snapshot().hex(),
    }


def test_the_golden_log_replays_to_the_golden_bytes():
    """If this fails, logs and snapshots of running clusters no longer mean what they meant."""
    fixed = json.loads(GOLDEN.read_text())
    machine = Machine()

    applied = machine.apply(bytes.fromhex(fixed["batch"]))

    assert codec.encode_outcomes(applied.outcomes).hex() == fixed["outcomes"]
    assert codec.encode_events(applied.events).hex() == fixed["events"]
    assert machine.snapshot().hex() == fixed["snapshot"]


def test_a_snapshot_of_an_earlier_version_is_restored():
    """It had no memory of requests that changed nothing."""
    machine, fixed = Machine(), json.loads(GOLDEN.read_text())

    machine.restore(bytes.fromhex(fixed["earlier_snapshot"]))

    today = codec.decode_snapshot(bytes.fromhex(fixed["snapshot"]))
    assert (machine.state.revision, machine.state.clock_ms) == (today.revision, today.clock_ms)
    assert list(machine.state.tasks.values()) == today.tasks
    assert machine.state.remembered_idle == {}


def test_commands_encode_to_the_golden_bytes():
    assert golden()["batch"] == json.loads(GOLDEN.read_text())["batch"]


def test_the_golden_log_has_every_command():
    assert {type(command) for command in EVERY} == set(AnyCommand.__args__)


def test_a_batch_survives_the_wire():
    batch = Batch(stamp_ms=STAMP_MS, commands=EVERY)

    assert codec.decode_batch(codec.encode_batch(batch)) == batch


def test_fields_a_later_version_adds_are_left_out():
    wire = msgspec.msgpack.decode(
        codec.encode_batch(Batch(stamp_ms=STAMP_MS, commands=[Tick(elapsed_ms=5, term=1)]))
    )
    wire[2][0] += ["a field of a later version", 7]

    batch = codec.decode_batch(msgspec.msgpack.encode([*wire, "another"]))

    assert batch.commands == [Tick(elapsed_ms=5, term=1)]


def test_fields_an_earlier_version_lacks_have_their_defaults():
    early = msgspec.msgpack.encode([1, STAMP_MS, [[50, b"", "", "k", "o", 1_000]]])

    batch = codec.decode_batch(early)

    assert batch.commands == [commands.LockAcquire(lock_key="k", owner_id="o", ttl_ms=1_000)]


@pytest.mark.parametrize("union", [commands.AnyCommand, events.AnyEvent])
def test_no_tag_is_used_twice(union):
    tags = [kind.__struct_config__.tag for kind in union.__args__]

    assert len(tags) == len(set(tags))


def test_every_event_names_what_it_happened_to():
    for kind in events.AnyEvent.__args__:
        assert kind.subject_field in ("", *kind.__struct_fields__)


@pytest.mark.parametrize("damaged", [b"", b"\xc1", b"\x93\x01\x02", b"\x91\xa1\xff"])
def test_what_does_not_decode_says_why(damaged):
    for decode in (codec.decode_batch, codec.decode_outcomes, codec.decode_events, codec.decode_snapshot):
        with pytest.raises(codec.Undecodable):
            decode(damaged)
