"""Questions about sessions."""

import uuid
from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordination.models import ClaudeSession
from tests.coordination import rows
from tests.coordination.rows import NOW, minutes

pytestmark = pytest.mark.django_db


@pytest.mark.operation(2)
def test_by_name_answers_the_one_session_of_that_name():
    wanted = rows.session(session_name="a/b:1")
    rows.session()

    assert ClaudeSession.objects.by_name("a/b:1") == wanted
    with pytest.raises(ClaudeSession.DoesNotExist):
        ClaudeSession.objects.by_name("nobody")


@pytest.mark.operation(3)
def test_by_id_answers_the_one_session_of_that_id():
    wanted = rows.session()

    assert ClaudeSession.objects.by_id(wanted.pk) == wanted
    with pytest.raises(ClaudeSession.DoesNotExist):
        ClaudeSession.objects.by_id(uuid.uuid4())


@pytest.mark.operation(4)
def test_listed_has_a_stable_order():
    young, old = rows.session(created_at=minutes(2)), rows.session(created_at=minutes(1))
    twins = sorted([rows.session(created_at=NOW), rows.session(created_at=NOW)], key=lambda row: row.pk)

    assert list(ClaudeSession.objects.listed()) == [*twins, old, young]


@pytest.mark.operation(5)
def test_with_status_takes_known_statuses_only():
    paused = rows.session(status="paused")
    rows.session(status="idle")

    assert list(ClaudeSession.objects.with_status("paused")) == [paused]
    with pytest.raises(ValueError, match="asleep"):
        ClaudeSession.objects.with_status("asleep")


@pytest.mark.operation(6)
def test_of_tier_answers_those_of_one_tier():
    manager = rows.session(tier="manager")
    rows.session(tier="worker")

    assert list(ClaudeSession.objects.of_tier("manager")) == [manager]


@pytest.mark.operation(75)
def test_of_provider_answers_those_of_one_provider():
    gemini = rows.session(provider="gemini")
    rows.session(provider="claude")

    assert list(ClaudeSession.objects.of_provider("gemini")) == [gemini]


@pytest.mark.operation(76)
def test_for_lesson_answers_those_bound_to_it_now():
    lesson = rows.lesson()
    bound = rows.session(lesson=lesson)
    rows.session()

    assert list(ClaudeSession.objects.for_lesson(lesson.pk)) == [bound]


@pytest.mark.operation(14)
def test_healthy_leaves_out_a_missed_heartbeat_and_a_failure():
    well = rows.session()
    rows.session(health_status="degraded")
    rows.session(consecutive_failures=1)

    assert list(ClaudeSession.objects.healthy()) == [well]


@pytest.mark.operation(77)
def test_expired_answers_leases_that_are_over_and_not_yet_dealt_with():
    due = rows.session(lease_expires_at=NOW)
    rows.session(lease_expires_at=NOW, status="offline")
    rows.session(lease_expires_at=NOW, status="failed")
    rows.session(lease_expires_at=minutes(1))

    assert list(ClaudeSession.objects.expired(NOW)) == [due]


@pytest.mark.operation(12)
def test_recount_tasks_repairs_drift_and_nothing_else():
    drifted, right = rows.session(current_task_count=4), rows.session(current_task_count=1)
    rows.claimed_task(drifted)
    rows.claimed_task(right, status="in_progress")
    rows.task(status="completed")

    assert ClaudeSession.objects.recount_tasks() == 1
    drifted.refresh_from_db()
    assert drifted.current_task_count == 1


sessions = st.fixed_dictionaries(
    {
        "status": st.sampled_from(["idle", "busy", "paused", "draining", "failed", "offline"]),
        "health_status": st.sampled_from(["healthy", "degraded", "unhealthy"]),
        "consecutive_failures": st.integers(0, 3),
        "current_task_count": st.integers(0, 2),
        "max_concurrent_tasks": st.integers(1, 2),
        "lease_expires_at": st.sampled_from([None, minutes(-1), NOW, minutes(1)]),
        "time_windows": st.lists(
            st.fixed_dictionaries(
                {
                    "start_ms": st.sampled_from(
                        [0, *(_ms := [int(minutes(m).timestamp() * 1000) for m in (-5, 0, 5)])]
                    ),
                    "end_ms": st.sampled_from([0, *_ms]),
                    "days": st.sampled_from([0, 1, 2, 127]),
                    "from_minute": st.sampled_from([0, 9 * 60 + 30, 600]),
                    "to_minute": st.sampled_from([9 * 60 + 30, 600, 1440]),
                }
            ),
            max_size=2,
        ),
    }
)


@pytest.mark.operation(13, 15)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=sessions)
def test_the_queries_agree_with_the_methods_for_every_session(values):
    with transaction.atomic():
        row = rows.session(**values)
        only = ClaudeSession.objects.filter(pk=row.pk)

        assert only.active(NOW).exists() == row.is_active(NOW)
        assert only.available(NOW).exists() == row.can_take_task(NOW)
        assert only.healthy().exists() == row.is_healthy()
        transaction.set_rollback(True)


@pytest.mark.parametrize(
    "values",
    [
        {"session_name": "with space"},
        {"session_name": ""},
        {"tier": "boss"},
        {"status": "asleep"},
        {"health_status": "fine"},
        {"max_concurrent_tasks": 0},
        {"time_window_start": minutes(1), "time_window_end": minutes(0)},
    ],
    ids=str,
)
def test_the_database_refuses_an_impossible_session(values):
    with pytest.raises(IntegrityError), transaction.atomic():
        rows.session(**values)


def test_a_lease_ends_at_its_expiry_not_after_it():
    row = rows.session(lease_expires_at=NOW)

    assert not row.is_active(NOW)
    assert row.is_active(NOW - timedelta(microseconds=1))
