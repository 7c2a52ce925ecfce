"""Tasks through the services, over a real node and a real database."""

import dataclasses
import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.conf import settings

from coordination import selectors, services
from coordination.api.refusals import problem_of
from coordination.errors import InvalidError, NotFound, RejectedError, Stored
from coordination.log.client import NodeClient
from coordination.models import DistributedTask, TaskAttempt, TaskResult
from coordination.services import Completion, NewTask
from gaia_site.background import in_database
from tests.cluster import eventually, free_ports
from tests.coordination.fleet import (
    ACTOR,
    claim,
    claimed,
    enqueued,
    fresh,
    in_thread,
    registered,
    session_row,
    task_row,
)

pytestmark = pytest.mark.usefixtures("live_node")


@pytest.mark.operation(24)
def test_a_known_key_answers_its_task_or_conflicts():
    """Every call once made a key of its own, so that a repeated request was a second task."""
    key = fresh("key")
    wish = NewTask(key, "review", {"file": "a.py"}, priority=2)

    first = services.enqueue(wish, actor=ACTOR)
    again = services.enqueue(wish, actor=ACTOR)
    with pytest.raises(RejectedError) as other:
        services.enqueue(NewTask(key, "review", {"file": "b.py"}, priority=2), actor=ACTOR)

    assert (first.is_new, again.is_new) == (True, False)
    assert again.task.pk == first.task.pk
    assert other.value.code == "conflict"
    assert DistributedTask.objects.filter(idempotency_key=key).count() == 1


def test_a_batch_is_stored_and_answered_one_by_one():
    key = fresh("key")
    wishes = [
        NewTask(key, "review"),
        NewTask(key, "review"),
        NewTask(key, "other"),
        NewTask(fresh("key"), "review", lesson_id=uuid.uuid4()),
        NewTask(fresh("key"), "review"),
    ]

    one, same, conflict, unknown, last = services.enqueue_many(wishes, actor=ACTOR)

    assert (one.is_new, same.is_new, same.task.pk) == (True, False, one.task.pk)
    assert isinstance(conflict, RejectedError)
    assert isinstance(unknown, NotFound)
    assert last.is_new
    assert task_row(last.task.pk, last.revision).enqueued_revision is not None


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"idempotency_key": ""}, "idempotency_key"),
        ({"task_type": ""}, "task_type"),
        ({"task_data": {"a": "x" * 300_000}}, "task_data"),
        ({"task_data": {"a": "\0"}}, "task_data"),
        ({"task_data": {"a": float("nan")}}, "task_data"),
        ({"required_tier": "boss"}, "required_tier"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_enqueued_is_named(values, field):
    with pytest.raises(InvalidError) as wrong:
        enqueued(**values)

    assert wrong.value.field == field


def test_what_a_rule_refuses_leaves_no_row():
    key = fresh("key")

    with pytest.raises(RejectedError):
        services.enqueue(NewTask(key, "review", max_retries=10_000), actor=ACTOR)

    assert not DistributedTask.objects.filter(idempotency_key=key).exists()


@pytest.mark.operation(33)
def test_one_of_many_claims_wins():
    task_type = fresh("type")
    task = enqueued(task_type=task_type, task_data={"file": "a.py"})
    sessions = [registered() for _ in range(6)]
    found = []

    def take(session):
        found.append(
            services.claim(session.session_name, session.lease_token, actor=ACTOR, task_types=(task_type,))
        )

    for thread in [in_thread(take, session) for session in sessions]:
        thread.join(20)

    won = [result for result in found if result.tasks]
    assert (len(found), len(won)) == (6, 1)
    grant = won[0].tasks[0]
    assert (grant.id, grant.task_data, grant.attempt) == (task.pk, {"file": "a.py"}, 1)
    row = task_row(task.pk, won[0].revision)
    assert (row.status, row.claim_token) == ("assigned", grant.claim_token)
    attempt = TaskAttempt.objects.get(task=task)
    assert (attempt.outcome, attempt.session_id, attempt.claim_token) == (
        "running",
        row.claimed_by_id,
        grant.claim_token,
    )


def test_a_session_without_room_or_lease_claims_nothing():
    full = registered(max_concurrent_tasks=1)
    claimed(full)
    enqueued(task_type=(task_type := fresh("type")))

    found = services.claim(full.session_name, full.lease_token, actor=ACTOR, task_types=(task_type,))
    assert (found.tasks, found.reason) == ((), "no_room")
    with pytest.raises(RejectedError) as foreign:
        services.claim(full.session_name, full.lease_token + 1, actor=ACTOR)
    assert foreign.value.code == "lease-expired"


def test_a_target_and_its_capabilities_are_hard_filters():
    wanted = registered(capabilities=("gpu",))
    other = registered()
    session_row(other.session_name, other.revision)
    task_type = fresh("type")
    enqueued(task_type=task_type, target_session=wanted.session_name)
    enqueued(task_type=task_type, required_capabilities=("gpu",))

    assert not services.claim(
        other.session_name, other.lease_token, actor=ACTOR, task_types=(task_type,)
    ).tasks
    assert (
        len(
            services.claim(
                wanted.session_name, wanted.lease_token, actor=ACTOR, max_tasks=5, task_types=(task_type,)
            ).tasks
        )
        == 2
    )


def test_a_waiting_claim_is_given_the_task_that_comes():
    session = registered()
    task_type = fresh("type")
    found = []
    waiting = in_thread(
        lambda: found.append(
            services.claim(
                session.session_name, session.lease_token, actor=ACTOR, wait_s=15, task_types=(task_type,)
            )
        )
    )
    time.sleep(0.1)  # so that it most likely waits already; the assertion does not depend on it
    began_s = time.monotonic()

    task = enqueued(task_type=task_type)
    waiting.join(20)

    assert [grant.id for grant in found[0].tasks] == [task.pk]
    assert time.monotonic() - began_s < 5


def test_a_waiting_claim_is_empty_when_its_time_is_over():
    session = registered()

    found = services.claim(
        session.session_name, session.lease_token, actor=ACTOR, wait_s=0.2, task_types=(fresh("type"),)
    )

    assert (found.tasks, found.reason) == ((), "nothing_pending")


def test_waiting_claims_are_served_in_order():
    task_type = fresh("type")
    sessions = [registered() for _ in range(3)]
    found: dict[int, list[uuid.UUID]] = {}
    threads = []

    def wait_for_one(place, session):
        result = services.claim(
            session.session_name, session.lease_token, actor=ACTOR, wait_s=10, task_types=(task_type,)
        )
        found[place] = [grant.id for grant in result.tasks]

    for place, session in enumerate(sessions):
        threads.append(in_thread(wait_for_one, place, session))
        eventually(lambda place=place: claims_waiting() >= place + 1, what="a waiting claim")
    tasks = []
    for place in range(3):
        tasks.append(enqueued(task_type=task_type))
        eventually(lambda place=place: place in found, what=f"claim {place}")
    for thread in threads:
        thread.join(20)

    assert found == {place: [task.pk] for place, task in enumerate(tasks)}


def claims_waiting() -> int:
    """How many claims the node says are waiting."""
    import urllib.request

    from django.conf import settings

    with urllib.request.urlopen(f"{settings.GAIA.cluster_node_urls[0]}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return int(float(next(line for line in lines if line.startswith("gaia_node_claims_waiting ")).split()[1]))


@pytest.mark.operation(80)
def test_start_makes_a_claim_in_progress():
    task = claimed(registered())

    started = services.start(task.id, task.claim_token, actor=ACTOR)

    assert started.status == "in_progress"
    assert task_row(task.id, started.revision).status == "in_progress"
    with pytest.raises(RejectedError) as stale:
        services.start(task.id, task.claim_token - 1, actor=ACTOR)
    assert stale.value.code == "stale-token"


@pytest.mark.operation(81)
def test_renew_extends_a_live_claim_only():
    task = claimed(registered(), claim_ttl_s=30.0)

    renewed = services.renew(task.id, task.claim_token, percent=50, note="half", actor=ACTOR)

    row = task_row(task.id, renewed.revision)
    assert renewed.claim_expires_at >= task.claim_expires_at
    assert (row.progress, row.progress_note) == (50.0, "half")
    with pytest.raises(RejectedError):
        services.renew(task.id, task.claim_token + 1, actor=ACTOR)


@pytest.mark.operation(34)
def test_completion_takes_the_current_token_and_answers_the_same_twice():
    lesson = services.create_lesson("Parser")
    session = registered()
    task = claimed(session, lesson_id=lesson.pk)

    done = services.complete(task.id, task.claim_token, {"lines": 3}, actor=ACTOR)
    again = services.complete(task.id, task.claim_token, {"lines": 3}, actor=ACTOR)
    with pytest.raises(RejectedError) as stale:
        services.complete(task.id, task.claim_token - 1, {"lines": 99}, actor=ACTOR)

    row = task_row(task.id, done.revision)
    assert (row.status, row.result, row.claimed_by_id, row.claim_expires_at) == (
        "completed",
        {"lines": 3},
        None,
        None,
    )
    assert (again.status, again.known, stale.value.code) == ("completed", True, "stale-token")
    lesson.refresh_from_db()
    assert (lesson.tasks_total, lesson.tasks_completed, lesson.status) == (1, 1, "completed")
    assert TaskAttempt.objects.get(task_id=task.id).outcome == "completed"
    assert session_row(session.session_name).tasks_completed == 1


def test_a_result_under_a_stale_token_never_becomes_the_tasks():
    """A late worker's result once won over the right one."""
    session = registered()
    late = claimed(session)
    services.fail_session(session.session_name, "gone", actor=ACTOR)
    row = task_row(late.id)
    other = registered()
    eventually(
        lambda: (
            (
                found := services.claim(
                    other.session_name, other.lease_token, actor=ACTOR, task_types=(row.task_type,)
                ).tasks
            )
            and found
        ),
        what="the retry",
    )
    token = DistributedTask.objects.get(pk=late.id)

    with pytest.raises(RejectedError):
        services.complete(late.id, late.claim_token, "late", actor=ACTOR)
    token = task_row(late.id, services.cluster_status().revision).claim_token
    done = services.complete(late.id, token, "right", actor=ACTOR)

    assert task_row(late.id, done.revision).result == "right"
    assert not TaskResult.objects.filter(task_id=late.id).exists()


def test_a_batch_of_completions_is_answered_one_by_one():
    session = registered()
    tasks = [claimed(session) for _ in range(2)]

    one, stale, two = services.complete_many(
        [
            Completion(tasks[0].id, tasks[0].claim_token, 1),
            Completion(tasks[1].id, tasks[1].claim_token - 1, 2),
            Completion(tasks[1].id, tasks[1].claim_token, 3),
        ],
        actor=ACTOR,
    )

    assert isinstance(stale, RejectedError)
    assert task_row(tasks[0].id, two.revision).result == 1
    assert (one.status, task_row(tasks[1].id).result) == ("completed", 3)


async def test_the_hot_paths_work_from_an_event_loop(async_client):
    session = await in_database(registered)
    task_type = fresh("type")
    task = await in_database(enqueued, task_type=task_type, task_data={"n": 1})

    found = await services.claim_async(
        session.session_name, session.lease_token, actor=ACTOR, task_types=(task_type,)
    )
    done = await services.complete_async(task.pk, found.tasks[0].claim_token, [1, 2], actor=ACTOR)

    row = await in_database(task_row, task.pk, done.revision)
    assert (found.tasks[0].task_data, row.result) == ({"n": 1}, [1, 2])


@pytest.mark.operation(35)
def test_failing_retries_until_the_last_and_then_ends():
    session = registered()
    task = claimed(session, max_retries=1)

    again = services.fail(task.id, task.claim_token, "first", actor=ACTOR)
    assert (again.status, again.retry_count) == ("pending", 1)
    assert again.run_after is not None
    row = task_row(task.id, again.revision)
    assert (row.status, row.claimed_by_id, row.claim_expires_at) == ("pending", None, None)
    services.update_task(task.id, run_after=datetime.now(UTC), actor=ACTOR)
    second = claim(session, task_types=(row.task_type,))
    ended = services.fail(second.id, second.claim_token, "second", actor=ACTOR)

    row = task_row(task.id, ended.revision)
    assert (ended.status, row.status, row.error_message) == ("failed", "failed", "second")
    assert [attempt.error for attempt in selectors.attempts(task.id)] == ["first", "second"]


def test_a_failure_that_is_not_retryable_ends_at_once():
    task = claimed(registered())

    ended = services.fail(task.id, task.claim_token, "broken", retryable=False, actor=ACTOR)

    assert ended.status == "failed"
    with pytest.raises(RejectedError):
        services.fail(task.id, task.claim_token - 1, "again", actor=ACTOR)


@pytest.mark.operation(36)
def test_retrying_a_failed_task_counts_anew_and_keeps_the_error_in_the_attempt():
    task = claimed(registered())
    ended = services.fail(task.id, task.claim_token, "broken", retryable=False, actor=ACTOR)
    task_row(task.id, ended.revision)

    retried = services.retry(task.id, actor=ACTOR)

    row = task_row(task.id, retried.revision)
    assert (row.status, row.retry_count, row.error_message, row.completed_at) == ("pending", 0, "", None)
    assert [attempt.error for attempt in selectors.attempts(task.id)] == ["broken"]
    with pytest.raises(RejectedError):
        services.retry(task.id, actor=ACTOR)
    with pytest.raises(NotFound):
        services.retry(uuid.uuid4(), actor=ACTOR)


@pytest.mark.operation(82)
def test_cancelling_voids_the_token_and_tells_the_session():
    session = registered()
    task = claimed(session)

    cancelled = services.cancel(task.id, reason="not needed", actor=ACTOR)

    assert task_row(task.id, cancelled.revision).status == "cancelled"
    beat = services.record_heartbeat(
        services.Heartbeat(session.session_name, session.lease_token), actor=ACTOR
    )
    assert [(told["kind"], told["task_id"]) for told in beat.directives] == [("cancel_task", str(task.id))]
    with pytest.raises(RejectedError):
        services.complete(task.id, task.claim_token, actor=ACTOR)


@pytest.mark.operation(31)
def test_updating_is_for_pending_tasks_and_named_fields():
    session = registered()
    task = enqueued(task_type=(task_type := fresh("type")))
    later = datetime.now(UTC) + timedelta(hours=1)

    changed = services.update_task(task.pk, priority=9, max_retries=5, run_after=later, actor=ACTOR)

    row = task_row(task.pk, changed.revision)
    assert (row.priority, row.max_retries) == (9, 5)
    assert abs((row.run_after - later).total_seconds()) < 2
    services.update_task(task.pk, run_after=datetime.now(UTC), actor=ACTOR)
    claim(session, task_types=(task_type,))
    with pytest.raises(RejectedError):
        services.update_task(task.pk, priority=1, actor=ACTOR)


@pytest.mark.operation(32)
def test_deleting_is_for_pending_and_final_tasks():
    session = registered()
    pending = enqueued()
    held = claimed(session)

    gone = services.delete_task(pending.pk, actor=ACTOR)

    selectors.wait_until_projected(gone)
    assert not DistributedTask.objects.filter(pk=pending.pk).exists()
    with pytest.raises(RejectedError):
        services.delete_task(held.id, actor=ACTOR)
    done = services.complete(held.id, held.claim_token, actor=ACTOR)
    task_row(held.id, done.revision)
    selectors.wait_until_projected(services.delete_task(held.id, actor=ACTOR))
    assert not TaskAttempt.objects.filter(task_id=held.id).exists()
    with pytest.raises(NotFound):
        services.delete_task(uuid.uuid4(), actor=ACTOR)


def test_a_claimed_task_is_not_deleted_while_its_row_lags_behind():
    """The row of a task that was claimed a moment ago may still look as if nobody had been offered it."""
    held = claimed(registered())
    row = task_row(held.id, services.cluster_status().revision)
    DistributedTask.objects.filter(pk=row.pk).update(
        status="pending", enqueued_revision=None, claim_expires_at=None
    )

    with pytest.raises(RejectedError):
        services.delete_task(held.id, actor=ACTOR)

    assert DistributedTask.objects.filter(pk=held.id).exists()


def test_a_row_the_machine_never_had_can_be_deleted():
    waiting = DistributedTask.objects.create(
        idempotency_key=fresh("key"), task_type="review", max_retries=10_000
    )

    services.delete_task(waiting.pk, actor=ACTOR)

    assert not DistributedTask.objects.filter(pk=waiting.pk).exists()


def test_a_task_waits_for_the_tasks_it_depends_on():
    session = registered()
    task_type = fresh("type")
    first = enqueued(task_type=task_type)
    second = enqueued(task_type=task_type, depends_on=(first.pk,))

    one = claim(session, task_types=(task_type,), max_tasks=5)
    assert one.id == first.pk
    services.complete(one.id, one.claim_token, actor=ACTOR)
    assert claim(session, task_types=(task_type,)).id == second.pk
    with pytest.raises(NotFound):
        enqueued(depends_on=(uuid.uuid4(),))


def test_a_row_that_was_never_offered_is_fed_to_the_machine():
    """A crash between the row and its command loses no task."""
    session = registered()
    task_type = fresh("type")
    row = DistributedTask.objects.create(idempotency_key=fresh("key"), task_type=task_type)

    found = services.claim(
        session.session_name, session.lease_token, actor=ACTOR, wait_s=20, task_types=(task_type,)
    )

    assert [grant.id for grant in found.tasks] == [row.pk]


@pytest.mark.parametrize("invalid", [(), (NewTask("", "x"),)], ids=["alone", "beside a bad one"])
def test_a_task_that_the_log_did_not_take_is_stored_and_queued_later_as_is_said(monkeypatch, invalid):
    """The refusal once said that nothing was changed."""
    session, key, task_type = registered(), fresh("key"), fresh("type")
    wish = NewTask(key, task_type)
    monkeypatch.setitem(NodeClient.submit.__kwdefaults__, "deadline_s", 0.3)
    nobody = dataclasses.replace(settings.GAIA, cluster_node_urls=(f"http://127.0.0.1:{free_ports(1)[0]}",))
    with monkeypatch.context() as patch:
        patch.setattr(settings, "GAIA", nobody)
        with pytest.raises(Stored) as refused:
            services.enqueue_many([wish, *invalid], actor=ACTOR)

    (task_id,) = refused.value.task_ids
    said = problem_of(refused.value).as_json()
    assert (said["status"], said["outcome"], said["task_ids"]) == (503, "stored", [str(task_id)])
    assert "is stored" in said["detail"]
    assert task_row(task_id).status == "pending"  # what GET shows
    again = services.enqueue(wish, actor=ACTOR)
    assert (again.is_new, again.task.pk) == (False, task_id)
    found = services.claim(
        session.session_name, session.lease_token, actor=ACTOR, wait_s=20, task_types=(task_type,)
    )
    assert [grant.id for grant in found.tasks] == [task_id]


def test_a_task_is_pushed_to_a_session_that_takes_pushed_ones():
    session = registered(accepts_push=True, capabilities=(special := fresh("capability"),))
    task = enqueued(required_capabilities=(special,), task_data={"n": 1})

    def told():
        beat = services.record_heartbeat(
            services.Heartbeat(session.session_name, session.lease_token), actor=ACTOR
        )
        return [directive for directive in beat.directives if directive["kind"] == "assigned"]

    (assigned,) = eventually(told, what="an assignment")
    assert assigned["task_id"] == str(task.pk)
    assert claim(session).id == task.pk


def test_a_task_is_explained():
    session = registered()
    task = enqueued(required_capabilities=(fresh("nobody-has"),))

    explained = services.explain_task(task.pk)

    assert explained["status"] == "pending"
    reasons = {seen["session_name"]: seen["reasons"] for seen in explained["candidates"]}
    assert any("lacks" in reason for reason in reasons[session.session_name])
    assert services.explain_task(uuid.uuid4()) is None
