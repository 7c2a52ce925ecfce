"""Events become rows exactly once, and the rows are those of the state the events made."""

import threading
import uuid
from typing import Any

import pytest
from django.db import connection, connections, transaction
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from coordination.machine.codec import decode_snapshot
from coordination.machine.commands import (
    LockAcquire,
    RevisionRaise,
    SessionRegister,
    TaskClaim,
    TaskComplete,
    TaskEnqueue,
    TaskFail,
    TaskSpec,
)
from coordination.machine.policy import Policy
from coordination.machine.state import State, state_of
from coordination.models import (
    ClaudeSession,
    CoordinationEvent,
    DistributedLock,
    DistributedTask,
    Lesson,
    LockToken,
    ProjectionState,
    SessionAffinity,
    TaskAttempt,
    TaskResult,
)
from coordination.projection import Author, Behind, Gap, project, read_watermark, reconcile
from tests.coordination.histories import LESSONS, TASKS, History

pytestmark = pytest.mark.django_db

US = Author(node_id="n1", cluster_id="c1", term=1)
OTHERS = Author(node_id="n1", cluster_id="c2", term=1)


def base_rows(without: set[str] = frozenset()) -> None:
    """The rows that are there before any event: tasks with payloads, lessons with titles."""
    Lesson.objects.bulk_create(
        Lesson(pk=uuid.UUID(lesson_id), title="x") for lesson_id in LESSONS if lesson_id not in without
    )
    DistributedTask.objects.bulk_create(
        DistributedTask(pk=uuid.UUID(task_id), idempotency_key=task_id, task_type="t") for task_id in TASKS
    )


def copy_of(state: State, history: History) -> State:
    return state_of(decode_snapshot(history.machine.snapshot()))


def shown(state: State) -> dict[str, Any]:
    """What the rows say about everything that lives in a state."""
    session_names = [session.session_name for session in state.sessions.values()]
    sessions = ClaudeSession.objects.filter(session_name__in=session_names)
    tasks = DistributedTask.objects.filter(pk__in=list(state.tasks))
    return {
        "sessions": list(
            sessions.order_by("session_name").values(
                "session_name",
                "tier",
                "provider",
                "status",
                "health_status",
                "lesson_id",
                "time_windows",
                "time_window_start",
                "time_window_end",
                "last_heartbeat",
                "consecutive_failures",
                "load",
                "max_concurrent_tasks",
                "current_task_count",
                "capabilities",
                "metadata",
                "accepts_push",
                "lease_token",
                "lease_expires_at",
                "tasks_completed",
                "tasks_failed",
                "avg_task_s",
            )
        ),
        "tasks": list(
            tasks.order_by("id").values(
                "id",
                "status",
                "priority",
                "claimed_by__session_name",
                "claimed_at",
                "claim_expires_at",
                "run_after",
                "retry_count",
                "max_retries",
                "progress",
                "progress_note",
                "error_message",
                "completed_at",
            )
        ),
        "tokens": list(tasks.exclude(status="pending").order_by("id").values_list("id", "claim_token")),
        "finals": list(
            DistributedTask.objects.filter(pk__in=list(state.finals))
            .order_by("id")
            .values_list("id", "status", "claim_expires_at", "claimed_by")
        ),
        "running": list(
            TaskAttempt.objects.filter(outcome="running")
            .order_by("task_id")
            .values_list("task_id", "claim_token", "session__session_name", "attempt_number", "started_at")
        ),
        "lessons": list(
            Lesson.objects.filter(pk__in=list(state.lessons))
            .order_by("id")
            .values_list("id", "tasks_total", "tasks_completed", "tasks_failed", "status")
        ),
        "locks": list(DistributedLock.objects.order_by("lock_key").values()),
        "affinities": list(
            SessionAffinity.objects.filter(session__session_name__in=session_names)
            .order_by("session__session_name", "lesson_id")
            .values_list(
                "session__session_name", "lesson_id", "affinity_score", "time_window_start", "last_used"
            )
        ),
    }


def without_stamps(rows: dict[str, Any]) -> dict[str, Any]:
    for lock in rows["locks"]:
        del lock["created_at"], lock["updated_at"]
    return rows


steps = st.lists(st.tuples(st.integers(0, 16), st.integers(0, 7), st.integers(0, 4)), min_size=5, max_size=60)
BUSY = [(0, 0, 2), (0, 1, 2), (2, 0, 0), (2, 1, 0), (3, 0, 2), (5, 0, 1), (4, 0, 1), (6, 0, 4), (9, 1, 1)]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps, parts=st.integers(1, 9))
@example(steps=BUSY, parts=1)
@example(steps=BUSY, parts=9)
def test_projecting_the_events_gives_the_rows_of_the_state(steps, parts):
    """project(events, rows) == rows(evolve(state, events)), for any history cut into any parts."""
    history = History()
    history.tick(0)
    history.play(steps)
    deleted = {
        recorded.event.lesson_id for recorded in history.events if recorded.event.kind == "lesson_deleted"
    }
    gone = {recorded.event.task_id for recorded in history.events if recorded.event.kind == "task_deleted"}
    with transaction.atomic():
        base_rows()
        revision = history.state.revision
        for part in range(1, parts + 1):
            until = revision * part // parts
            project([recorded for recorded in history.events if recorded.revision <= until], US)
        by_events = without_stamps(shown(history.state))
        assert read_watermark().revision == revision
        transaction.set_rollback(True)
    with transaction.atomic():
        base_rows(without=deleted)
        reconcile(copy_of(history.state, history), US)
        by_state = without_stamps(shown(history.state))
        transaction.set_rollback(True)
    if gone:  # a row that was deleted and offered again is no row
        for rows in (by_events, by_state):
            rows["tasks"] = [row for row in rows["tasks"] if str(row["id"]) not in gone]
            for part in ("tokens", "finals", "running"):
                rows[part] = [row for row in rows[part] if str(row[0]) not in gone]

    assert by_events == by_state


def busy_history(**values: Any) -> History:
    history = History(**values)
    history.tick(0)
    history.play(BUSY)
    return history


def all_rows() -> dict[str, Any]:
    return {
        model.__name__: list(model.objects.order_by("pk").values())
        for model in (ClaudeSession, DistributedTask, TaskAttempt, Lesson, DistributedLock, CoordinationEvent)
    }


def test_projecting_twice_is_projecting_once():
    base_rows()
    history = busy_history()
    project(history.events, US)
    before = all_rows()

    assert project(history.events, US) == history.state.revision
    assert project(history.events[:5], US) == history.state.revision

    assert all_rows() == before
    assert CoordinationEvent.objects.count() == sum(one.event.audited for one in history.events)


def test_a_gap_is_noticed_and_nothing_is_written():
    base_rows()
    history = busy_history()
    project([one for one in history.events if one.revision <= 3], US)
    before = all_rows()

    with pytest.raises(Gap) as gap:
        project(history.after(4), US)

    assert gap.value.watermark.revision == 3
    assert all_rows() == before


def test_reconciling_closes_a_gap_and_is_recorded():
    base_rows()
    history = busy_history()
    project([one for one in history.events if one.revision <= 3], US)

    assert reconcile(copy_of(history.state, history), US) == history.state.revision

    note = CoordinationEvent.objects.get(kind="projection_reconciled")
    assert note.data == {
        "from_revision": 3,
        "to_revision": history.state.revision,
        "cluster_was_lost": False,
    }
    state = ProjectionState.objects.get()
    assert (state.reconciled_count, state.node_id, state.cluster_id) == (1, "n1", "c1")
    assert reconcile(copy_of(history.state, history), US) == history.state.revision
    assert ProjectionState.objects.get().reconciled_count == 1


def test_a_task_that_ended_in_a_gap_does_not_run_again():
    base_rows()
    history = busy_history(policy=Policy(claim_ttl_ms=20_000, max_elapsed_ms=60_000))
    claimed_at = next(one.revision for one in history.events if one.event.kind == "task_claimed")
    project([one for one in history.events if one.revision <= claimed_at], US)
    TaskResult.objects.create(task_id=uuid.UUID(TASKS[0]), claim_token=claimed_at, result={"ok": True})

    reconcile(copy_of(history.state, history), US)

    row = DistributedTask.objects.get(pk=TASKS[0])
    assert (row.status, row.result, row.claim_expires_at) == ("completed", {"ok": True}, None)
    assert row.attempts.get().outcome == "completed"


def test_a_task_that_may_have_ended_unseen_is_left_to_a_person():
    base_rows()
    history = busy_history(policy=Policy(claim_ttl_ms=20_000, max_elapsed_ms=60_000, remembered_finals=0))
    claimed_at = next(one.revision for one in history.events if one.event.kind == "task_claimed")
    project([one for one in history.events if one.revision <= claimed_at], US)

    reconcile(copy_of(history.state, history), US)

    row = DistributedTask.objects.get(pk=TASKS[0])
    assert row.status == "failed"
    assert "longer than the cluster remembers" in row.error_message


def test_after_the_loss_of_all_data_a_new_cluster_begins_above_the_rows():
    """Tokens must never go back, or an old holder could write again."""
    base_rows()
    old = busy_history()
    project(old.events, US)
    live = DistributedTask.objects.get(pk=TASKS[1])
    assert live.enqueued_revision is not None
    new = History()
    new.tick(0)

    with pytest.raises(Gap):
        project(new.events, OTHERS)
    with pytest.raises(Behind):
        reconcile(copy_of(new.state, new), OTHERS)
    new.wish(RevisionRaise(revision=old.state.revision + 1000))
    reconcile(copy_of(new.state, new), OTHERS)
    new.wish(SessionRegister(session_id=str(uuid.uuid4()), session_name="ann"))
    project(new.events, OTHERS)

    assert set(ClaudeSession.objects.exclude(session_name="ann").values_list("status", flat=True)) == {
        "offline"
    }
    ann = ClaudeSession.objects.get(session_name="ann")
    assert ann.lease_token > old.state.revision + 1000
    row = DistributedTask.objects.get(pk=TASKS[1])
    assert (row.status, row.claimed_by, row.enqueued_revision) == ("pending", None, None)
    assert list(DistributedTask.objects.unknown_to_machine(10)) == [row] or row in set(
        DistributedTask.objects.unknown_to_machine(10)
    )
    assert DistributedTask.objects.get(pk=TASKS[0]).status == "completed"
    assert CoordinationEvent.objects.get(kind="projection_reconciled").data["cluster_was_lost"] is True


def test_a_new_term_extends_what_the_rows_show():
    base_rows()
    history = busy_history()
    history.wish(LockAcquire(lock_key="k", owner_id="x", ttl_ms=60_000))
    project(history.events, US)
    before = DistributedLock.objects.get(pk="k").expires_at

    history.tick(0, term=9)
    project(history.events, US)

    extended = DistributedLock.objects.get(pk="k").expires_at - before
    assert extended.total_seconds() * 1000 == history.state.policy.lease_ms


def test_a_lock_keeps_its_last_token_after_release():
    history = History()
    history.tick(0)
    history.wish(LockAcquire(lock_key="k", owner_id="x", ttl_ms=1_000))
    history.tick(5_000)
    project(history.events, US)

    assert not DistributedLock.objects.exists()
    assert LockToken.objects.get(pk="k").fencing_token == 2


def test_the_result_handed_in_under_the_winning_token_becomes_the_tasks():
    base_rows()
    history = busy_history()
    token = next(one.event.claim_token for one in history.events if one.event.kind == "task_claimed")
    for claim_token, result in ((token - 1, "stale"), (token, "right")):
        TaskResult.objects.create(task_id=uuid.UUID(TASKS[0]), claim_token=claim_token, result=result)

    project(history.events, US)

    assert DistributedTask.objects.get(pk=TASKS[0]).result == "right"
    assert not TaskResult.objects.exists()


def test_no_text_can_stop_the_projection():
    """PostgreSQL refuses NUL; one such error message would stop all rows for ever."""
    base_rows()
    history = History()
    history.wish(
        SessionRegister(
            session_id="not a uuid", session_name="s", metadata='{"a": "\\u0000", "b": "\\ud800"}'
        ),
        SessionRegister(session_id="x", session_name="t", metadata="no json\0", user="not a number"),
        TaskEnqueue(task_id=TASKS[0], spec=TaskSpec(task_type="t")),
        TaskEnqueue(task_id="not a uuid", spec=TaskSpec(task_type="t", lesson_id="none either")),
        LockAcquire(lock_key="k\0", owner_id="o\0", ttl_ms=60_000, metadata='{"n": NaN}'),
    )
    lease = history.lease_of("s")
    history.wish(TaskClaim(session_name="s", lease_token=lease, max_tasks=5))
    history.wish(
        TaskFail(task_id=TASKS[0], claim_token=history.token_of(TASKS[0]), error="a\0b", retryable=False),
        TaskComplete(task_id="not a uuid", claim_token=history.token_of("not a uuid")),
    )

    assert project(history.events, US) == history.state.revision

    assert DistributedTask.objects.get(pk=TASKS[0]).error_message == "a�b"
    assert DistributedLock.objects.get().owner_id == "o�"
    assert ClaudeSession.objects.count() == 2


def test_events_about_rows_that_are_gone_are_no_error():
    history = busy_history()

    assert project(history.events, US) == history.state.revision
    assert not DistributedTask.objects.exists()
    assert not TaskAttempt.objects.exists()


def test_a_batch_is_written_by_statements_not_by_rows(django_assert_max_num_queries):
    base_rows()
    history = History()
    history.wish(*(SessionRegister(session_id=str(uuid.uuid4()), session_name=f"s{n}") for n in range(200)))

    with django_assert_max_num_queries(8):
        project(history.events, US)

    assert ClaudeSession.objects.count() == 200


@pytest.mark.django_db(transaction=True)
def test_two_projectors_take_turns_and_write_everything_once():
    base_rows()
    history = busy_history()
    parts = [
        [one for one in history.events if one.revision <= until]
        for until in range(1, history.state.revision + 1)
    ]
    failures: list[BaseException] = []

    def run(node_id: str) -> None:
        try:
            for part in parts:
                project(part, Author(node_id=node_id, cluster_id="c1", term=1))
        except BaseException as failure:  # noqa: BLE001  handed to the test
            failures.append(failure)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(node_id,)) for node_id in ("n1", "n2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert not failures
    assert read_watermark().revision == history.state.revision
    assert CoordinationEvent.objects.count() == sum(one.event.audited for one in history.events)
    assert connection.settings_dict["NAME"]
