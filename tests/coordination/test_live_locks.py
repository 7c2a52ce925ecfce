"""Locks, lessons and affinities through the services, over a real node and a real database."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from coordination import selectors, services
from coordination.errors import InvalidError, NotFound, RejectedError
from coordination.models import (
    CoordinationEvent,
    DistributedLock,
    Lesson,
    LockToken,
    Project,
    SessionAffinity,
)
from tests.cluster import eventually
from tests.coordination.fleet import (
    ACTOR,
    claimed,
    enqueued,
    fresh,
    in_thread,
    registered,
    session_row,
    task_row,
)

pytestmark = pytest.mark.usefixtures("live_node")


@pytest.mark.operation(40)
def test_acquire_takes_renews_or_is_refused():
    key = fresh("lock")

    held = services.acquire_lock(key, "a", ttl_s=60, metadata={"why": "test"}, actor=ACTOR)
    renewed = services.acquire_lock(key, "a", ttl_s=60, actor=ACTOR)
    with pytest.raises(RejectedError) as refused:
        services.acquire_lock(key, "b", ttl_s=60, actor=ACTOR)

    selectors.wait_until_projected(renewed.revision)
    row = DistributedLock.objects.get(pk=key)
    assert (renewed.fencing_token, renewed.renewed_count) == (held.fencing_token, 1)
    assert (row.owner_id, row.fencing_token, row.renewed_count) == ("a", held.fencing_token, 1)
    assert refused.value.code == "conflict"
    assert refused.value.data["owner_id"] == "a"
    assert isinstance(refused.value.data["expires_at"], datetime)


@pytest.mark.parametrize("values", [{"ttl_s": 0}, {"ttl_s": -1}, {"owner_id": ""}, {"lock_key": ""}], ids=str)
def test_an_impossible_lock_is_refused(values):
    wish = {"lock_key": fresh("lock"), "owner_id": "a", "ttl_s": 60} | values

    with pytest.raises(RejectedError) as refused:
        services.acquire_lock(wish["lock_key"], wish["owner_id"], ttl_s=wish["ttl_s"], actor=ACTOR)

    assert refused.value.code == "validation-error"


@pytest.mark.operation(41)
def test_release_is_the_holders_alone_and_the_next_token_is_greater():
    key = fresh("lock")
    held = services.acquire_lock(key, "a", ttl_s=60, actor=ACTOR)

    for owner, token in [("b", held.fencing_token), ("a", held.fencing_token - 1)]:
        with pytest.raises(RejectedError) as refused:
            services.release_lock(key, owner, token, actor=ACTOR)
        assert refused.value.code == "stale-token"
    revision = services.release_lock(key, "a", held.fencing_token, actor=ACTOR)

    selectors.wait_until_projected(revision)
    assert not DistributedLock.objects.filter(pk=key).exists()
    assert LockToken.objects.get(pk=key).fencing_token == held.fencing_token
    assert services.acquire_lock(key, "b", ttl_s=60, actor=ACTOR).fencing_token > held.fencing_token


@pytest.mark.operation(83)
def test_renew_keeps_the_token_and_the_beginning():
    key = fresh("lock")
    held = services.acquire_lock(key, "a", ttl_s=5, actor=ACTOR)
    selectors.wait_until_projected(held.revision)
    began = DistributedLock.objects.get(pk=key).acquired_at

    renewed = services.renew_lock(key, "a", held.fencing_token, ttl_s=60, actor=ACTOR)

    selectors.wait_until_projected(renewed.revision)
    row = DistributedLock.objects.get(pk=key)
    assert (row.acquired_at, row.fencing_token, row.renewed_count) == (began, held.fencing_token, 1)
    assert renewed.expires_at > held.expires_at
    with pytest.raises(RejectedError):
        services.renew_lock(key, "a", held.fencing_token + 1, actor=ACTOR)


def test_a_lock_ends_by_itself_and_the_waiter_is_given_it():
    key = fresh("lock")
    first = services.acquire_lock(key, "a", ttl_s=0.5, actor=ACTOR)

    second = services.acquire_lock(key, "b", ttl_s=60, wait_s=20, actor=ACTOR)

    assert second.owner_id == "b"
    assert second.fencing_token > first.fencing_token


def test_waiters_are_served_in_order():
    key = fresh("lock")
    held = services.acquire_lock(key, "holder", ttl_s=60, actor=ACTOR)
    order: list[str] = []

    def wait_for_it(owner: str) -> None:
        got = services.acquire_lock(key, owner, ttl_s=60, wait_s=20, actor=ACTOR)
        order.append(owner)
        services.release_lock(key, owner, got.fencing_token, actor=ACTOR)

    threads = []
    for place, owner in enumerate(("first", "second", "third")):
        threads.append(in_thread(wait_for_it, owner))
        eventually(lambda place=place: waiters(key) == place + 1, what="a waiter")
    services.release_lock(key, "holder", held.fencing_token, actor=ACTOR)
    for thread in threads:
        thread.join(20)

    assert order == ["first", "second", "third"]


def waiters(key: str) -> int:
    """How many wait for a lock, as the machine has it."""
    from coordination.log.client import node_client
    from coordination.machine.codec import decode_snapshot

    locks = decode_snapshot(node_client().state()).locks
    return sum(len(lock.waiters) for lock in locks if lock.lock_key == key)


def test_waiting_in_vain_names_the_holder():
    key = fresh("lock")
    services.acquire_lock(key, "a", ttl_s=60, actor=ACTOR)

    with pytest.raises(RejectedError) as refused:
        services.acquire_lock(key, "b", ttl_s=60, wait_s=0.3, actor=ACTOR)

    assert (refused.value.code, refused.value.data["owner_id"]) == ("conflict", "a")
    assert waiters(key) == 0


def test_a_forced_release_needs_a_reason_and_is_recorded():
    key = fresh("lock")
    services.acquire_lock(key, "a", ttl_s=60, actor=ACTOR)

    with pytest.raises(RejectedError):
        services.force_release_lock(key, "", actor="user:admin")
    revision = services.force_release_lock(key, "owner is gone", actor="user:admin")

    selectors.wait_until_projected(revision)
    event = CoordinationEvent.objects.get(subject=key, kind="lock_released")
    assert (event.actor, "owner is gone" in event.data["reason"]) == ("user:admin", True)


# Lessons


@pytest.mark.operation(16)
def test_a_lesson_is_made_with_its_project():
    project = fresh("project")

    lesson = services.create_lesson("Parser", project=project, priority=2, metadata={"level": 3})
    same = services.create_lesson("Printer", project=str(lesson.project_id))

    row = Lesson.objects.by_id(lesson.pk)
    assert (row.title, row.status, row.priority, row.metadata) == ("Parser", "pending", 2, {"level": 3})
    assert same.project == Project.objects.get(name=project)
    with pytest.raises(InvalidError):
        services.create_lesson("")
    with pytest.raises(NotFound):
        services.create_lesson("x", project=uuid.uuid4())


@pytest.mark.operation(21)
def test_a_lessons_counters_are_nobodys_to_write():
    lesson = services.create_lesson("Parser")

    services.update_lesson(lesson.pk, title="Lexer", priority=4)

    lesson.refresh_from_db()
    assert (lesson.title, lesson.priority) == ("Lexer", 4)
    for field in ("tasks_completed", "status", "id"):
        with pytest.raises(InvalidError):
            services.update_lesson(lesson.pk, **{field: 1})
    with pytest.raises(NotFound):
        services.update_lesson(uuid.uuid4(), title="x")


@pytest.mark.operation(22)
def test_deleting_a_lesson_keeps_its_tasks():
    lesson = services.create_lesson("Parser")
    session = registered(lesson_id=lesson.pk)
    session_row(session.session_name, session.revision)
    task = enqueued(lesson_id=lesson.pk)

    revision = services.delete_lesson(lesson.pk, actor=ACTOR)

    assert task_row(task.pk, revision).lesson is None
    assert session_row(session.session_name).lesson is None
    assert not Lesson.objects.filter(pk=lesson.pk).exists()
    with pytest.raises(NotFound):
        services.delete_lesson(lesson.pk, actor=ACTOR)


def test_an_archived_lesson_stays_archived_while_its_tasks_go_on():
    lesson = services.create_lesson("Parser")

    status, _ = services.archive_lesson(lesson.pk, actor=ACTOR)
    task = claimed(registered(), lesson_id=lesson.pk)
    done = services.complete(task.id, task.claim_token, actor=ACTOR)

    selectors.wait_until_projected(done.revision)
    lesson.refresh_from_db()
    assert (status, lesson.status, lesson.tasks_completed) == ("archived", "archived", 1)


# Affinities


@pytest.mark.operation(46)
def test_an_affinity_is_inserted_or_changed():
    lesson, session = services.create_lesson("Parser"), registered()
    session_row(session.session_name, session.revision)

    affinity_id, first = services.set_affinity(session.session_name, lesson.pk, 0.4, actor=ACTOR)
    selectors.wait_until_projected(first)
    again, revision = services.set_affinity(session.session_name, lesson.pk, 0.9, actor=ACTOR)

    selectors.wait_until_projected(revision)
    row = SessionAffinity.objects.get(session__session_name=session.session_name)
    assert (again, row.pk, row.affinity_score) == (affinity_id, affinity_id, 0.9)
    now = datetime.now(UTC)
    for wrong in ({"affinity_score": 1.5}, {"time_window_start": now, "time_window_end": now}):
        with pytest.raises(InvalidError):
            services.set_affinity(session.session_name, lesson.pk, actor=ACTOR, **wrong)


@pytest.mark.operation(49)
def test_an_affinitys_score_and_window_can_be_changed():
    affinity_id, _, _ = an_affinity()
    start = datetime.now(UTC).replace(microsecond=0)

    _, revision = services.update_affinity(
        affinity_id, affinity_score=0.25, time_window=(start, start + timedelta(hours=1)), actor=ACTOR
    )

    selectors.wait_until_projected(revision)
    row = selectors.affinity(affinity_id)
    assert (row.affinity_score, row.time_window_start) == (0.25, start)


@pytest.mark.operation(50)
def test_an_affinity_can_be_deleted_once():
    affinity_id, _, _ = an_affinity()

    selectors.wait_until_projected(services.delete_affinity(affinity_id, actor=ACTOR))

    with pytest.raises(NotFound):
        services.delete_affinity(affinity_id, actor=ACTOR)


@pytest.mark.operation(52)
def test_each_assignment_marks_the_affinity_as_used():
    affinity_id, session, lesson = an_affinity()
    before = SessionAffinity.objects.get(pk=affinity_id).last_used
    _, revision = services.mark_affinity_used(affinity_id, actor=ACTOR)
    selectors.wait_until_projected(revision)
    marked = SessionAffinity.objects.get(pk=affinity_id).last_used

    claimed(session, lesson_id=lesson.pk)
    selectors.wait_until_projected(services.cluster_status().revision)

    row = SessionAffinity.objects.get(pk=affinity_id)
    assert before <= marked <= row.last_used
    assert row.affinity_score <= 0.5


def an_affinity():
    lesson, session = services.create_lesson("Parser"), registered()
    session_row(session.session_name, session.revision)
    affinity_id, revision = services.set_affinity(session.session_name, lesson.pk, 0.5, actor=ACTOR)
    selectors.wait_until_projected(revision)
    return affinity_id, session, lesson


# The cluster and its history


def test_the_cluster_says_how_it_is():
    status = services.cluster_status()

    assert (status.role, status.leader, status.healthy) == ("leader", status.node_id, True)
    assert status.applied_index <= status.commit_index
    assert status.term >= 1


def test_the_history_is_in_order_and_can_be_followed():
    before = services.cluster_status().revision
    session = registered()
    task = claimed(session)
    done = services.complete(task.id, task.claim_token, actor=ACTOR)
    selectors.wait_until_projected(done.revision)

    events = list(selectors.events_after(before))

    places = [(event.raft_index, event.sequence) for event in events]
    assert places == sorted(set(places))
    mine = [event.kind for event in events if event.subject in (session.session_name, str(task.id))]
    assert mine == ["session_registered", "task_enqueued", "task_claimed", "task_completed"]
    assert list(selectors.events_after(before, limit=1)) == events[:1]


def test_a_linearizable_read_waits_for_what_was_acknowledged():
    session = registered()

    revision = selectors.wait_for_consistency("linearizable")

    assert revision >= session.revision
    assert selectors.session(session.session_name).pk == session.id
    assert selectors.wait_for_consistency(min_index=session.revision) >= session.revision


def test_the_fleet_is_counted():
    session = registered()
    claimed(session)
    enqueued()
    selectors.wait_until_projected(services.cluster_status().revision)

    fleet = selectors.fleet()

    assert fleet.sessions_active >= 1
    assert fleet.tasks_by_status["assigned"] >= 1
    assert fleet.tasks_by_status["pending"] >= 1
    assert fleet.oldest_pending_s >= 0
