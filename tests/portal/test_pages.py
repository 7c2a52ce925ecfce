"""Every page of the portal renders, and is the caller's own."""

import pytest
from django.urls import reverse

from usability.models import StudentAccess

pytestmark = pytest.mark.django_db


def test_it_asks_for_a_sign_in(client):
    answer = client.get("/")

    assert answer.status_code == 302
    assert answer["Location"].startswith("/sign-in/")


def test_it_signs_a_teacher_in_for_eight_hours(client, alice, classroom):
    answer = client.post("/sign-in/", {"username": "alice", "password": "a-long-password-1"}, follow=True)

    assert answer.redirect_chain[-1][0] == "/"
    assert b"7B Maths" in answer.content
    assert client.session["_session_expiry"] == 8 * 3600


def test_it_says_that_a_password_is_wrong_without_saying_which_part(client, alice):
    answer = client.post("/sign-in/", {"username": "alice", "password": "nope"})

    assert answer.status_code == 200
    assert b"sign-in-error" in answer.content


def test_it_lists_my_classes_only(as_alice, as_charlie, classroom):
    assert b"7B Maths" in as_alice.get("/").content

    nothing = as_charlie.get("/")

    assert b"7B Maths" not in nothing.content
    assert b"No class is assigned to you" in nothing.content


def test_it_shows_who_needs_me_and_why(as_alice, classroom, alert):
    page = as_alice.get(reverse("portal:live", args=[classroom.pk])).content.decode()

    assert "5 wrong answers in a row on item 8" in page
    assert f'data-card="{alert.pk}"' in page
    assert 'data-cursor="1"' in page


def test_the_fragment_is_what_the_page_shows(as_alice, classroom, alert):
    page = as_alice.get(reverse("portal:live", args=[classroom.pk])).content.decode()

    fragment = as_alice.get(reverse("portal:live-fragment", args=[classroom.pk])).content.decode()

    assert fragment.startswith('<div id="live-root"')
    card = f'data-card="{alert.pk}" data-version="1"'
    assert card in fragment
    assert card in page


@pytest.mark.parametrize("name", ["live", "live-fragment"])
def test_somebody_elses_class_is_not_found(as_charlie, classroom, name):
    assert as_charlie.get(reverse(f"portal:{name}", args=[classroom.pk])).status_code == 404


def test_somebody_elses_pupil_is_not_found(as_charlie, classroom):
    assert as_charlie.get(reverse("portal:student", args=[classroom.pk, "s-0"])).status_code == 404


def test_it_shows_one_pupil(as_alice, classroom, alert):
    page = as_alice.get(reverse("portal:student", args=[classroom.pk, "s-0"])).content.decode()

    assert "Bartek Wolski" in page
    assert "5 wrong answers in a row on item 8" in page


def test_a_pupil_of_no_class_is_not_found(as_alice, classroom):
    assert as_alice.get(reverse("portal:student", args=[classroom.pk, "s-99"])).status_code == 404


def test_the_live_page_asks_the_database_a_fixed_number_of_times(
    as_alice, classroom, alert, django_assert_max_num_queries
):
    with django_assert_max_num_queries(25):
        as_alice.get(reverse("portal:live", args=[classroom.pk]))


def test_a_look_at_a_pupil_is_recorded_and_the_page_says_so(as_alice, alice, classroom):
    page = as_alice.get(reverse("portal:student", args=[classroom.pk, "s-0"])).content.decode()

    assert "Views of this page are recorded" in page
    look = StudentAccess.objects.get()
    assert (look.user, look.student_id, look.action) == (alice, "s-0", "view_timeline")


def test_a_look_that_was_refused_is_no_look(as_charlie, classroom):
    as_charlie.get(reverse("portal:student", args=[classroom.pk, "s-0"]))

    assert not StudentAccess.objects.exists()
