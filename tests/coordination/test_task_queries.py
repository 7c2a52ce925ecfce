"""Questions about tasks."""

import uuid

import pytest
from django.db import IntegrityError, connection, transaction

from coordination.models import DistributedTask
from tests.coordination import rows
from tests.coordination.rows import NOW, minutes

pytestmark = pytest.mark.django_db


@pytest.mark.operation(25)
def test_by_id_answers_one_task():
    wanted = rows.task()

    assert DistributedTask.objects.by_id(wanted.pk) == wanted
    with pytest.raises(DistributedTask.DoesNotExist):
        DistributedTask.objects.by_id(uuid.uuid4())


@pytest.mark.operation(37)
def test_by_idempotency_key_answers_the_task_of_a_key():
    wanted = rows.task(idempotency_key="once")

    assert DistributedTask.objects.by_idempotency_key("once") == wanted
    with pytest.raises(DistributedTask.DoesNotExist):
        DistributedTask.objects.by_idempotency_key("twice")


@pytest.mark.operation(26)
def test_listed_shows_the_newest_first():
    old, new = rows.task(created_at=NOW), rows.task(created_at=minutes(1))

    assert list(DistributedTask.objects.listed()) == [new, old]


@pytest.mark.operation(27)
def test_with_status_takes_known_statuses_only():
    failed = rows.task(status="failed")
    rows.task()

    assert list(DistributedTask.objects.with_status("failed")) == [failed]
    with pytest.raises(ValueError, match="lost"):
        DistributedTask.objects.with_status("lost")


@pytest.mark.operation(28)
def test_pending_answers_what_can_be_claimed_best_first():
    done, open_ = rows.task(status="completed"), rows.task(status="failed")
    late = rows.task(created_at=minutes(2))
    urgent = rows.task(priority=5, created_at=minutes(3))
    ready = rows.task(created_at=minutes(1))
    ready.depends_on.add(done)
    rows.task(run_after=minutes(60))
    rows.task().depends_on.add(open_)

    assert list(DistributedTask.objects.pending(10, minutes(5))) == [urgent, ready, late]
    assert list(DistributedTask.objects.pending(1, minutes(5))) == [urgent]
    with pytest.raises(ValueError, match="limit"):
        DistributedTask.objects.pending(0)


@pytest.mark.operation(29)
def test_for_lesson_answers_the_tasks_of_one_lesson():
    lesson = rows.lesson()
    of_it = rows.task(lesson=lesson)
    rows.task()

    assert list(DistributedTask.objects.for_lesson(lesson.pk)) == [of_it]


@pytest.mark.operation(30)
def test_for_session_answers_live_claims_only():
    session = rows.session()
    claimed = rows.claimed_task(session)
    rows.claimed_task(rows.session())
    rows.task(status="completed", claimed_by=session)

    assert list(DistributedTask.objects.for_session(session.pk)) == [claimed]


@pytest.mark.operation(38)
def test_release_expired_claims_touches_live_claims_alone_and_counts_the_retry():
    """A finished task once came back to the queue ten minutes after its claim, again and again."""
    session = rows.session()
    lost = rows.claimed_task(session, claim_expires_at=minutes(-5))
    spent = rows.claimed_task(session, claim_expires_at=minutes(-5), retry_count=3)
    live = rows.claimed_task(session)
    done = rows.task(status="completed")

    assert DistributedTask.objects.release_expired_claims(NOW) == 2
    for row in (lost, spent, live, done):
        row.refresh_from_db()
    assert (lost.status, lost.retry_count, lost.claimed_by, lost.claim_expires_at) == (
        "pending",
        1,
        None,
        None,
    )
    assert spent.retry_count == 3
    assert (live.status, done.status) == ("assigned", "completed")


def test_the_order_of_the_queue_comes_from_its_index():
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(
            "EXPLAIN SELECT id FROM coordination_distributedtask WHERE status = 'pending'"
            " ORDER BY priority DESC, created_at, id LIMIT 10"
        )
        plan = "\n".join(line for (line,) in cursor.fetchall())

    assert "task_pending_order" in plan
    assert "Sort" not in plan


@pytest.mark.parametrize(
    "values",
    [
        {"status": "lost"},
        {"retry_count": 4, "max_retries": 3},
        {"progress": 101.0},
        {"required_tier": "boss"},
        {"status": "completed", "claim_expires_at": NOW},
    ],
    ids=str,
)
def test_the_database_refuses_an_impossible_task(values):
    with pytest.raises(IntegrityError), transaction.atomic():
        rows.task(**values)


def test_a_key_belongs_to_one_task():
    rows.task(idempotency_key="once")

    with pytest.raises(IntegrityError), transaction.atomic():
        rows.task(idempotency_key="once")


def test_a_claim_is_over_at_its_expiry():
    session = rows.session()

    assert rows.claimed_task(session, claim_expires_at=NOW).is_expired(NOW)
    assert not rows.claimed_task(session, claim_expires_at=minutes(1)).is_expired(NOW)
    assert not rows.task().is_expired(NOW)
