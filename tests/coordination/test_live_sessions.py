"""Sessions through the services, over a real node and a real database."""

import uuid

import pytest
from django.contrib.auth import get_user_model

from coordination import selectors, services
from coordination.errors import InvalidError, NotFound, RejectedError
from coordination.machine.commands import TimeWindow
from coordination.models import ClaudeSession, CoordinationEvent, DistributedLock, TaskAttempt
from coordination.services import Heartbeat, NewSession, Progress
from gaia_site.background import in_database
from tests.coordination.fleet import ACTOR, claimed, fresh, registered, session_row, task_row

pytestmark = pytest.mark.usefixtures("live_node")


@pytest.mark.operation(1)
def test_registering_grants_a_lease_and_a_row():
    window = TimeWindow(days=127, from_minute=0, to_minute=1440)

    grant = registered(
        tier="manager",
        provider="codex",
        max_concurrent_tasks=2,
        capabilities=("python", "sql"),
        time_windows=(window,),
        metadata={"host": "a"},
    )

    row = session_row(grant.session_name, grant.revision)
    assert (row.pk, row.tier, row.provider, row.status) == (grant.id, "manager", "codex", "idle")
    assert (row.capabilities, row.metadata, row.max_concurrent_tasks) == (["python", "sql"], {"host": "a"}, 2)
    assert row.lease_token == grant.lease_token
    assert abs((row.lease_expires_at - grant.lease_expires_at).total_seconds()) < 2
    assert row.can_take_task()
    assert (grant.how, grant.heartbeat_interval_s) == ("new", 10.0)


def test_a_live_name_is_refused_without_its_token_and_resumed_with_it():
    grant = registered()

    with pytest.raises(RejectedError) as refused:
        registered(session_name=grant.session_name)
    resumed = registered(session_name=grant.session_name, lease_token=grant.lease_token)

    assert refused.value.code == "conflict"
    assert (resumed.how, resumed.lease_token, resumed.id) == ("resumed", grant.lease_token, grant.id)


def test_a_name_whose_session_left_can_be_taken_over_and_keeps_its_id():
    grant = registered()
    services.deregister_session(grant.session_name, actor=ACTOR)

    again = registered(session_name=grant.session_name)

    assert (again.how, again.id) == ("takeover", grant.id)
    assert again.lease_token > grant.lease_token


def test_the_same_request_is_answered_with_the_first_answer():
    request_id = services.request_id_of(ACTOR, fresh("once"))
    wish = NewSession(session_name=fresh("session"))

    first = services.register_session(wish, actor=ACTOR, request_id=request_id)
    second = services.register_session(wish, actor=ACTOR, request_id=request_id)

    assert (second.lease_token, second.revision, second.how) == (first.lease_token, first.revision, "new")


def test_a_batch_is_answered_one_by_one():
    taken = registered()
    wishes = [NewSession(session_name=fresh("session")), NewSession(session_name=taken.session_name)]

    good, bad = services.register_sessions(wishes, actor=ACTOR)

    assert good.how == "new"
    assert isinstance(bad, RejectedError)


def test_a_session_belongs_to_its_user():
    user = get_user_model().objects.create_user(fresh("user"))
    try:
        grant = registered(user_id=user.pk)

        assert session_row(grant.session_name, grant.revision).user == user
    finally:
        ClaudeSession.objects.filter(user=user).update(user=None)
        user.delete()


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"tier": "boss"}, "tier"),
        ({"provider": "abacus"}, "provider"),
        ({"metadata": {"a": "\0"}}, "metadata"),
    ],
)
def test_what_cannot_be_registered_is_named(values, field):
    with pytest.raises(InvalidError) as wrong:
        registered(**values)

    assert wrong.value.field == field


@pytest.mark.operation(7)
def test_updating_changes_the_named_fields_only():
    grant = registered(capabilities=("python",), metadata={"a": 1})

    changed = services.update_session(grant.session_name, actor=ACTOR, max_concurrent_tasks=7)

    row = session_row(grant.session_name, changed.revision)
    assert (row.max_concurrent_tasks, row.capabilities, row.metadata) == (7, ["python"], {"a": 1})
    with pytest.raises(RejectedError) as unknown:
        services.update_session("nobody-at-all", actor=ACTOR, max_concurrent_tasks=7)
    assert unknown.value.code == "not-found"


@pytest.mark.operation(8)
def test_an_orderly_goodbye_gives_tasks_and_locks_back():
    grant = registered()
    task = claimed(grant)
    services.acquire_lock(key := fresh("lock"), grant.session_name, ttl_s=60, actor=ACTOR)

    left = services.deregister_session(grant.session_name, actor=ACTOR, lease_token=grant.lease_token)

    row = session_row(grant.session_name, left.revision)
    assert (left.requeued, row.status, row.current_task_count) == (1, "offline", 0)
    assert task_row(task.id).status == "pending"
    assert not DistributedLock.objects.is_locked(key)


@pytest.mark.operation(9)
def test_status_changes_go_the_allowed_ways_only():
    grant = registered()

    paused = services.pause_session(grant.session_name, actor=ACTOR)
    assert session_row(grant.session_name, paused.revision).status == "paused"
    resumed = services.resume_session(grant.session_name, actor=ACTOR)
    assert session_row(grant.session_name, resumed.revision).status == "idle"
    drained = services.drain_session(grant.session_name, actor=ACTOR)
    assert session_row(grant.session_name, drained.revision).status == "draining"

    with pytest.raises(RejectedError):
        services.set_session_status(grant.session_name, "busy", actor=ACTOR)
    with pytest.raises(InvalidError):
        services.set_session_status(grant.session_name, "asleep", actor=ACTOR)


@pytest.mark.operation(10)
def test_health_set_to_healthy_forgets_failures_in_a_row():
    grant = registered()
    task = claimed(grant)
    failed = services.fail(task.id, task.claim_token, "no", actor=ACTOR)
    assert session_row(grant.session_name, failed.revision).consecutive_failures == 1
    services.set_session_health(grant.session_name, "degraded", actor=ACTOR)

    healed = services.set_session_health(grant.session_name, "healthy", actor=ACTOR)

    row = session_row(grant.session_name, healed.revision)
    assert (row.health_status, row.consecutive_failures) == ("healthy", 0)


@pytest.mark.operation(11)
def test_a_heartbeat_renews_the_lease_and_leaves_the_status_alone():
    """Heartbeats once set every session idle, also paused and failed ones."""
    grant = registered()
    services.pause_session(grant.session_name, actor=ACTOR)

    beat = services.record_heartbeat(Heartbeat(grant.session_name, grant.lease_token, load=0.5), actor=ACTOR)

    row = session_row(grant.session_name, beat.revision)
    assert (row.status, row.load, row.health_status) == ("paused", 0.5, "healthy")
    assert row.lease_expires_at >= grant.lease_expires_at
    assert [directive["kind"] for directive in beat.directives] == ["pause"]
    with pytest.raises(RejectedError) as foreign:
        services.record_heartbeat(Heartbeat(grant.session_name, grant.lease_token + 1), actor=ACTOR)
    assert foreign.value.code == "lease-expired"


def test_progress_in_a_heartbeat_renews_the_claim():
    grant = registered()
    task = claimed(grant)
    before = task_row(task.id, grant.revision)

    beat = services.record_heartbeat(
        Heartbeat(
            grant.session_name, grant.lease_token, progress=(Progress(task.id, task.claim_token, 40, "half"),)
        ),
        actor=ACTOR,
    )

    row = task_row(task.id, beat.revision)
    assert (row.progress, row.progress_note) == (40.0, "half")
    assert row.claim_expires_at >= (before.claim_expires_at or row.claim_expires_at)


async def test_heartbeats_that_arrive_together_are_answered_each(async_client):
    grants = [await in_database(registered) for _ in range(3)]
    beats = [Heartbeat(grant.session_name, grant.lease_token) for grant in grants]
    beats.append(Heartbeat("nobody-at-all", 1))

    *good, unknown = await services.record_heartbeats_async(beats, actor=ACTOR)

    assert [beat.session_id for beat in good] == [grant.id for grant in grants]
    assert isinstance(unknown, RejectedError)


@pytest.mark.operation(78)
def test_failing_a_session_requeues_its_tasks_with_the_retry_counted_and_frees_its_locks():
    grant = registered()
    task = claimed(grant)
    services.acquire_lock(key := fresh("lock"), grant.session_name, ttl_s=60, actor=ACTOR)

    released = services.fail_session(grant.session_name, "stuck", actor=ACTOR)

    row = task_row(task.id, released.revision)
    assert (released.requeued, row.status, row.retry_count) == (1, "pending", 1)
    assert session_row(grant.session_name).status == "failed"
    assert not DistributedLock.objects.is_locked(key)
    attempt = TaskAttempt.objects.get(task_id=task.id)
    assert (attempt.outcome, attempt.session_id) == ("session_lost", grant.id)
    events = CoordinationEvent.objects.filter(subject=grant.session_name, kind="session_failed")
    assert events.count() == 1
    assert events.get().actor == ACTOR


@pytest.mark.operation(39)
def test_requeueing_a_sessions_tasks_voids_their_tokens():
    grant = registered()
    task = claimed(grant)
    session_row(grant.session_name, grant.revision)

    assert services.requeue_session_tasks(grant.id, actor=ACTOR) == 1

    with pytest.raises(RejectedError) as stale:
        services.complete(task.id, task.claim_token, actor=ACTOR)
    assert stale.value.code == "stale-token"
    with pytest.raises(NotFound):
        services.requeue_session_tasks(uuid.uuid4(), actor=ACTOR)


def test_three_failures_in_a_row_stop_a_session_until_it_is_resumed():
    grant = registered()
    for _ in range(3):
        task = claimed(grant)
        change = services.fail(task.id, task.claim_token, "no", actor=ACTOR)

    assert session_row(grant.session_name, change.revision).status == "failed"
    found = services.claim(grant.session_name, grant.lease_token, actor=ACTOR)
    assert (found.tasks, found.reason) == ((), "failed")
    resumed = services.resume_session(grant.session_name, actor=ACTOR)
    assert session_row(grant.session_name, resumed.revision).can_take_task()


def test_a_session_that_was_never_there_is_not_found():
    with pytest.raises(NotFound):
        selectors.session("nobody-at-all")
