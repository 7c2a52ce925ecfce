"""Every list of the admin: it opens, its name is a word, and twice the rows cost no more queries."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from coordination.models import (
    ClaudeSession,
    DistributedLock,
    DistributedTask,
    Lesson,
    Project,
    SessionAffinity,
    TaskAttempt,
)
from usability import services
from usability.models import StudentAccess

pytestmark = pytest.mark.django_db

admin.autodiscover()

LISTS = sorted(model._meta.label_lower for model in admin.site._registry)
MOST_QUERIES = 25


@pytest.fixture
def operator(django_user_model):
    client = Client()
    client.force_login(django_user_model.objects.create_superuser("operator", password="a-long-password-9"))
    return client


def add_rows(classroom, user, number: int) -> None:
    """One more of what lists show with the names of others beside it."""
    lesson = Lesson.objects.create(
        project=Project.objects.create(name=f"project {number}"), title=f"lesson {number}"
    )
    session = ClaudeSession.objects.create(
        session_name=f"east/{number}", user=user, tier="worker", provider="claude", lesson=lesson
    )
    SessionAffinity.objects.create(session=session, lesson=lesson, affinity_score=0.5)
    task = DistributedTask.objects.create(
        idempotency_key=f"key-{number}", task_type="survey", lesson=lesson, claimed_by=session
    )
    TaskAttempt.objects.create(
        task=task, session=session, attempt_number=1, claim_token=number + 1, started_at=timezone.now()
    )
    DistributedLock.objects.create(
        lock_key=f"lock-{number}",
        owner_id=session.session_name,
        fencing_token=number + 1,
        acquired_at=timezone.now(),
        expires_at=timezone.now(),
    )
    services.raise_alert(
        classroom=classroom,
        student_id=f"s-{number}",
        app_name="fractions-lab",
        alert_type="error_streak",
        severity="critical",
        details={"reason": "5 wrong answers in a row", "event_severity": "high"},
    )
    StudentAccess.objects.create(user=user, student_id=f"s-{number}", action="view_timeline")


def queries_of(client: Client, address: str) -> int:
    with CaptureQueriesContext(
        connection,
    ) as asked:
        assert client.get(address).status_code == 200
    return len(asked)


@pytest.mark.parametrize("label", LISTS)
def test_a_list_asks_the_database_a_bounded_number_of_times(label, operator, classroom, alice):
    address = reverse(f"admin:{label.replace('.', '_')}_changelist")
    add_rows(classroom, alice, 0)
    few = queries_of(operator, address)

    add_rows(classroom, alice, 1)
    add_rows(classroom, alice, 2)

    assert queries_of(operator, address) <= few
    assert few <= MOST_QUERIES


@pytest.mark.parametrize("label", LISTS)
def test_a_list_is_named_in_words(label):
    model = next(model for model in admin.site._registry if model._meta.label_lower == label)

    assert "claude" not in model._meta.verbose_name
    assert not str(model._meta.verbose_name_plural).endswith(("itys", "chs", "sss"))


def test_the_index_says_what_needs_an_operator_now(operator, classroom, alice):
    add_rows(classroom, alice, 0)

    page = operator.get("/admin/").content.decode()

    assert "<b>1</b>critical alerts open" in page
    assert "<b>1</b>tasks wait" in page
    assert "<b>1</b>critical alerts open" in operator.get("/admin/needs-now/").content.decode()


def test_what_needs_an_operator_is_for_staff(client):
    assert client.get("/admin/needs-now/").status_code == 302
