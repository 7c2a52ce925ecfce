"""What an operator does in the admin reaches the replicated log."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from django.urls import reverse

from tests.cluster import eventually


@pytest.fixture
def operator(site, client, name):
    user = get_user_model().objects.create_superuser(name("ops"))
    client.force_login(user)
    yield client
    user.delete()


def act(client, model, action, pk, **more):
    answer = client.post(
        reverse(f"admin:coordination_{model}_changelist"),
        {"action": action, "_selected_action": [str(pk)], **more},
        follow=True,
    )
    return answer.content.decode()


def projected(site):
    site.agent("GET", "tasks?limit=1&consistency=linearizable")


def test_sessions_are_paused_resumed_drained_and_failed(site, operator, name):
    session = site.session(name("s"))
    projected(site)

    def status():
        return site.agent("GET", f"sessions/{session['session_name']}?consistency=linearizable").json()[
            "status"
        ]

    for action, expected in (("pause", "paused"), ("resume", "idle"), ("drain", "draining")):
        assert "1 " in act(operator, "claudesession", action, session["id"])
        assert status() == expected
    act(operator, "claudesession", "mark_failed", session["id"], confirmed="1", reason="stuck")

    assert status() == "failed"
    events = operator.get(
        reverse("admin:coordination_events"), {"subject": session["session_name"]}
    ).content.decode()
    assert "stuck" in events
    assert "admin:ops" in events


def test_a_task_is_explained_cancelled_and_requeued(site, operator, name):
    made = site.task(name("t"))
    projected(site)

    page = operator.get(reverse("admin:coordination_task_explain", args=[made["id"]]))
    act(operator, "distributedtask", "cancel", made["id"], confirmed="1", reason="not needed")
    cancelled = site.agent("GET", f"tasks/{made['id']}?consistency=linearizable").json()["status"]
    act(operator, "distributedtask", "requeue", made["id"])
    requeued = site.agent("GET", f"tasks/{made['id']}?consistency=linearizable").json()["status"]

    assert page.status_code == 200
    assert (cancelled, requeued) == ("cancelled", "pending")


def test_a_refused_verb_says_why(site, operator, name):
    made = site.task(name("t"))
    projected(site)

    text = act(operator, "distributedtask", "requeue", made["id"])

    assert 'class="warning"' in text


def test_a_lock_is_freed_by_force(site, operator, name):
    key = name("lock")
    held = site.agent("POST", f"locks/{key}/acquire", {"owner_id": "a", "ttl_s": 60})
    site.agent("GET", f"locks?min_index={held.index}")

    act(operator, "distributedlock", "force_release", key, confirmed="1", reason="holder is gone")

    eventually(
        lambda: site.agent("POST", f"locks/{key}/acquire", {"owner_id": "b", "ttl_s": 1}).status == 200
    )


def test_lessons_are_archived_and_affinities_forgotten(site, operator, name):
    lesson = site.agent("POST", "lessons", {"title": name("lesson")}).json()
    session = site.session(name("s"))
    made = site.agent(
        "POST", "affinities", {"session_name": session["session_name"], "lesson_id": lesson["id"]}
    )
    site.agent("GET", f"affinities?min_index={made.index}")

    act(operator, "lesson", "archive", lesson["id"])
    act(operator, "sessionaffinity", "forget", made.json()["id"])

    seen = site.agent("GET", f"lessons/{lesson['id']}?consistency=linearizable").json()
    assert seen["status"] == "archived"
    assert site.agent("GET", f"affinities/{made.json()['id']}?consistency=linearizable").status == 404


def test_the_cluster_page_says_in_one_sentence_how_it_is(site, operator):
    text = operator.get(reverse("admin:coordination_projectionstate_changelist")).content.decode()

    assert "Healthy: n0 leads, one node, none may fail." in text


def test_leadership_goes_to_members_only(site, operator):
    answer = operator.post(reverse("admin:coordination_cluster_transfer"), {"node_id": "nobody"}, follow=True)

    assert "Leadership was not handed over" in answer.content.decode()


def test_members_are_added_and_removed_with_a_reason_where_it_cannot_be(site, operator):
    """The node of these tests runs alone: the page passes on what the leader says."""
    page = reverse("admin:coordination_projectionstate_changelist")
    assert "Add a member" in operator.get(page).content.decode()

    for wish in ({"node_id": "no way", "address": "host:1"}, {"node_id": "n9", "address": "nowhere"}):
        answer = operator.post(reverse("admin:coordination_cluster_add"), wish, follow=True)
        assert "A member has an id" in answer.content.decode()
    answer = operator.post(
        reverse("admin:coordination_cluster_add"), {"node_id": "n9", "address": "127.0.0.1:9"}, follow=True
    )
    assert "CLUSTER_ENABLED is false" in answer.content.decode()

    asked = operator.post(reverse("admin:coordination_cluster_remove"), {"node_id": "n0"}).content.decode()
    assert "Remove n0?" in asked
    answer = operator.post(
        reverse("admin:coordination_cluster_remove"), {"node_id": "n0", "confirmed": "1"}, follow=True
    )
    assert "the only voting member" in answer.content.decode()
