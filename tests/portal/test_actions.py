"""What a teacher taps on a card, as a browser without script and as htmx."""

import pytest
from django.urls import reverse

from usability.models import Intervention

pytestmark = pytest.mark.django_db
HTMX = {"HX-Request": "true"}


def tap(client, classroom, alert, verb, **more):
    return client.post(reverse("portal:act", args=[classroom.pk, alert.pk, verb]), more, headers=HTMX)


def state_of(alert):
    alert.refresh_from_db()
    return alert.state


def test_on_my_way_is_seen_by_co_teachers(as_alice, classroom, alert, bob, client):
    answer = tap(as_alice, classroom, alert, "on-my-way")
    client.force_login(bob)
    page = client.get(reverse("portal:live", args=[classroom.pk])).content.decode()

    assert answer.status_code == 200
    assert "You are on your way to" in answer.content.decode()
    assert state_of(alert) == "helping"
    assert "On the way: Alice" in page


def test_i_helped_notes_how(as_alice, classroom, alert):
    tap(as_alice, classroom, alert, "helped", kind="explained")

    assert state_of(alert) == "resolved"
    assert Intervention.objects.get(alert=alert).kind == "explained"


def test_not_a_problem_is_kept_as_a_label(as_alice, classroom, alert):
    tap(as_alice, classroom, alert, "dismiss")

    assert state_of(alert) == "dismissed"


def test_a_snoozed_card_leaves_the_list(as_alice, classroom, alert):
    tap(as_alice, classroom, alert, "snooze")
    fragment = as_alice.get(reverse("portal:live-fragment", args=[classroom.pk])).content.decode()

    assert f'data-card="{alert.pk}"' not in fragment
    assert "1 signal is snoozed" in fragment


def test_undo_puts_it_back(as_alice, classroom, alert):
    tap(as_alice, classroom, alert, "dismiss")

    tap(as_alice, classroom, alert, "undo")

    assert state_of(alert) == "new"


def test_without_script_it_comes_back_to_the_page(as_alice, classroom, alert):
    answer = as_alice.post(reverse("portal:act", args=[classroom.pk, alert.pk, "on-my-way"]))

    assert answer.status_code == 302
    assert answer["Location"] == reverse("portal:live", args=[classroom.pk])


def test_somebody_elses_alert_is_not_found_and_unchanged(as_charlie, classroom, alert):
    assert tap(as_charlie, classroom, alert, "dismiss").status_code == 404
    assert state_of(alert) == "new"


def test_an_unknown_verb_is_not_found(as_alice, classroom, alert):
    assert tap(as_alice, classroom, alert, "promote").status_code == 404


def test_pause_lets_alerts_rest_and_resume_wakes_them(as_alice, classroom):
    where = reverse("portal:pause", args=[classroom.pk])

    as_alice.post(where, {"minutes": "10"})
    classroom.refresh_from_db()
    paused = classroom.paused_until
    as_alice.post(where, {"minutes": "0"})
    classroom.refresh_from_db()

    assert paused is not None
    assert classroom.paused_until is None or classroom.paused_until < paused


def test_a_theme_is_remembered_and_a_foreign_address_is_not_followed(client):
    answer = client.post("/theme/", {"theme": "dark", "next": "https://elsewhere.example/"})

    assert answer["Location"] == "/"
    assert answer.cookies["theme"].value == "dark"
