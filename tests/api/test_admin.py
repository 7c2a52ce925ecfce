"""The admin of coordination and of keys: it shows, asks, and acts through the services."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth import get_user_model
from django.urls import reverse
from django.utils import timezone

from coordination.models import (
    ClaudeSession,
    CoordinationEvent,
    DistributedLock,
    DistributedTask,
    Lesson,
    Project,
    TaskAttempt,
)
from gaia_site.keys import principal_of
from gaia_site.models import ApiKey
from gaia_site.problems import Problem

pytestmark = pytest.mark.django_db

WINDOWS = [
    "claudesession",
    "distributedtask",
    "taskattempt",
    "distributedlock",
    "lesson",
    "project",
    "sessionaffinity",
]


@pytest.fixture
def operator(client):
    user = get_user_model().objects.create_superuser("ops")
    client.force_login(user)
    return user


@pytest.fixture
def fleet():
    project = Project.objects.create(name="gaia")
    lesson = Lesson.objects.create(title="Docs", project=project, tasks_total=2, tasks_completed=1)
    soon = timezone.now() + timedelta(seconds=20)
    sessions = [
        ClaudeSession.objects.create(
            session_name=f"east/{number}",
            tier="worker",
            provider="claude",
            status=status,
            lesson=lesson,
            lease_expires_at=soon,
            current_task_count=1,
        )
        for number, status in enumerate(("idle", "busy", "failed", "paused"))
    ]
    task = DistributedTask.objects.create(
        idempotency_key="k1",
        task_type="bug_fix",
        lesson=lesson,
        claimed_by=sessions[1],
        status="in_progress",
        claim_expires_at=soon,
        claim_token=7,
    )
    TaskAttempt.objects.create(
        task=task, session=sessions[1], attempt_number=1, claim_token=7, started_at=timezone.now()
    )
    DistributedLock.objects.create(
        lock_key="deploy", owner_id="east/1", acquired_at=timezone.now(), expires_at=soon, fencing_token=9
    )
    CoordinationEvent.objects.create(
        raft_index=3,
        sequence=0,
        kind="session_failed",
        subject="east/2",
        actor="key:x",
        occurred_at=timezone.now(),
    )
    return sessions


def page(client, name, *args, **query):
    answer = client.get(reverse(f"admin:{name}", args=args), query)
    assert answer.status_code == 200, answer
    return answer.content.decode()


@pytest.mark.parametrize("model", WINDOWS)
def test_every_list_shows_its_rows_and_offers_no_hand_editing(client, operator, fleet, model):
    text = page(client, f"coordination_{model}_changelist")

    assert "look/admin.css" in text
    assert 'class="addlink"' not in text.split('id="content-main"')[1]
    assert client.get(reverse(f"admin:coordination_{model}_add")).status_code == 403


@pytest.mark.parametrize("model", WINDOWS)
def test_a_list_asks_the_database_the_same_number_of_times_however_long_it_is(
    client, operator, fleet, model, django_assert_max_num_queries
):
    with django_assert_max_num_queries(22):
        page(client, f"coordination_{model}_changelist")


def test_the_troubled_sessions_stand_first(client, operator, fleet):
    text = page(client, "coordination_claudesession_changelist")

    names = re.findall(r">(east/\d)</a>", text)
    assert names[0] == "east/2"


def test_the_counters_are_filters(client, operator, fleet):
    text = page(client, "coordination_claudesession_changelist", status__exact="failed")

    assert re.search(r'aria-current="page"[^>]*><b>1</b>failed', text)
    assert "east/2" in text
    assert "east/0" not in text.split("result_list")[1]


def test_the_counters_are_served_alone_for_refreshing(client, operator, fleet):
    text = page(client, "coordination_fleet_counts")

    assert text.lstrip().startswith('<div id="fleet-counts"')
    assert "<b>4</b>all" in text


def test_a_session_shows_what_it_did(client, operator, fleet):
    text = page(client, "coordination_claudesession_change", fleet[1].pk)

    assert "bug_fix" in text


def test_tasks_are_found_by_key_id_and_session(client, operator, fleet):
    task = DistributedTask.objects.get()

    for term in ("k1", str(task.pk), "east/1"):
        assert "k1</a>" in page(client, "coordination_distributedtask_changelist", q=term)
    assert "k1</a>" not in page(client, "coordination_distributedtask_changelist", q="nothing")


@pytest.mark.parametrize(
    ("model", "action", "title"),
    [
        ("claudesession", "mark_failed", "Mark as failed?"),
        ("distributedtask", "cancel", "Cancel these tasks?"),
        ("distributedlock", "force_release", "Take these locks"),
    ],
)
def test_what_cannot_be_undone_asks_for_a_reason(client, operator, fleet, model, action, title):
    from django.apps import apps

    row = apps.get_model("coordination", model).objects.first()
    address = reverse(f"admin:coordination_{model}_changelist")

    asked = client.post(address, {"action": action, "_selected_action": [str(row.pk)]})
    again = client.post(address, {"action": action, "_selected_action": [str(row.pk)], "confirmed": "1"})

    assert title in asked.content.decode()
    assert str(row) in asked.content.decode()
    assert 'aria-invalid="true"' in again.content.decode()


def test_without_a_cluster_an_action_says_that_nothing_was_changed(client, operator, fleet, settings):
    import dataclasses

    settings.GAIA = dataclasses.replace(settings.GAIA, cluster_node_urls=("http://127.0.0.1:9",))

    answer = client.post(
        reverse("admin:coordination_claudesession_changelist"),
        {"action": "pause", "_selected_action": [str(row.pk) for row in fleet]},
        follow=True,
    )

    assert "nothing more was changed" in answer.content.decode()


def test_somebody_who_may_only_look_gets_no_actions(client, fleet):
    from django.contrib.auth.models import Permission

    user = get_user_model().objects.create_user("looker", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_claudesession"))
    client.force_login(user)

    text = page(client, "coordination_claudesession_changelist")

    assert "mark_failed" not in text


def test_the_audit_log_is_searched(client, operator, fleet):
    assert "session_failed" in page(client, "coordination_events", subject="east/2")
    assert "No event" in page(client, "coordination_events", kind="task_claimed")
    assert page(client, "coordination_events", before="x", actor="\0")


def test_a_new_key_is_shown_once_and_nowhere_kept(client, operator):
    answer = client.post(
        reverse("admin:gaia_site_apikey_add"),
        {"name": "ci", "owner": operator.pk, "scopes": ["agent"], "app_name": "", "allowed_origins": ""},
    )

    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    secret = re.search(r"gaia_[0-9a-f]{12}_[\w-]+", answer.content.decode()).group()
    assert principal_of(secret).name == "ci"
    assert secret not in str(answer.cookies)
    assert secret not in page(client, "gaia_site_apikey_changelist")
    assert secret not in page(client, "gaia_site_apikey_change", ApiKey.objects.get().pk)


@pytest.mark.parametrize(
    ("field", "value"),
    [("scopes", []), ("scopes", ["root"]), ("app_name", "two words"), ("name", "")],
)
def test_a_wrong_key_is_not_made(client, operator, field, value):
    body = {"name": "ci", "owner": operator.pk, "scopes": ["agent"], "app_name": "", "allowed_origins": ""}

    client.post(reverse("admin:gaia_site_apikey_add"), body | {field: value})

    assert not ApiKey.objects.exists()


def test_a_key_that_ends_in_the_past_is_not_made(client, operator):
    past = datetime(2020, 1, 1, tzinfo=UTC)

    client.post(
        reverse("admin:gaia_site_apikey_add"),
        {
            "name": "ci",
            "owner": operator.pk,
            "scopes": ["agent"],
            "expires_at_0": past.date(),
            "expires_at_1": past.time(),
        },
    )

    assert not ApiKey.objects.exists()


def test_a_key_is_revoked_from_the_list(client, operator, secret_of):
    secret = secret_of("agent")
    key = ApiKey.objects.get()
    principal_of(secret)

    client.post(
        reverse("admin:gaia_site_apikey_changelist"), {"action": "revoke", "_selected_action": [str(key.pk)]}
    )

    with pytest.raises(Problem):
        principal_of(secret)
