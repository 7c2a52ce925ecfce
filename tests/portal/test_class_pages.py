"""Trends, settings and exports of a class: what they show, what they save, and that they are nobody else's."""

from __future__ import annotations

import csv
import datetime as dt
import io
import re

import pytest
from django.urls import reverse
from django.utils import timezone

from usability import services
from usability.models import (
    ClassroomMetricsSnapshot,
    DetectorProfile,
    Enrollment,
    FrustrationEvent,
    Intervention,
    SatisfactionRating,
    Student,
    StudentAccess,
    UnhelpedMoment,
)
from usability.portal.forms import OFFERED

pytestmark = pytest.mark.django_db
HTMX = {"HX-Request": "true"}
DAY = dt.timedelta(days=1)
PAGES = ("trends", "signals-csv", "settings", "budget-preview")


def page_of(client, classroom, name, **query):
    return client.get(reverse(f"portal:{name}", args=[classroom.pk]), query)


@pytest.fixture
def history(classroom, alice):
    """Four more pupils; five weeks of signals, help with its effect, ratings and snapshots."""
    for number in range(3, 7):
        pupil = Student.objects.create(student_id=f"s-{number}", display_name=f"Pupil {number}")
        Enrollment.objects.create(student=pupil, classroom=classroom)
    now = timezone.now()
    for week in range(5):
        at = now - week * 7 * DAY - DAY
        ClassroomMetricsSnapshot.objects.create(
            classroom=classroom,
            app_name="fractions-lab",
            window_start=at,
            window_end=at + dt.timedelta(minutes=30),
            student_count=7,
            active_count=6,
            struggling_student_count=2,
            error_rate=0.3,
        )
        for number in range(3):
            event = FrustrationEvent.objects.create(
                student_id=f"s-{number}",
                classroom=classroom,
                app_name="fractions-lab",
                event_type="accuracy",
                severity="high",
                detected_at=at,
                ended_at=at + dt.timedelta(minutes=6),
                resolved_at=at + dt.timedelta(minutes=6),
            )
            alert = services.raise_alert(
                classroom=classroom,
                student_id=f"s-{number}",
                app_name="fractions-lab",
                alert_type="accuracy",
                severity="warning",
                details={"reason": "=5 wrong answers in a row"},
                event=event,
                detected_at=at,
                now=at,
            )
            if number == 0:
                services.record_intervention(
                    alert.pk, who=alice, kind="explained", now=at + dt.timedelta(minutes=2)
                )
            else:
                UnhelpedMoment.objects.create(
                    event=event,
                    classroom=classroom,
                    family="accuracy",
                    severity="high",
                    after_s=60,
                    at=at,
                    measure="right_answers",
                    before_good=4,
                    before_n=10,
                    after_good=5,
                    after_n=10,
                )
            SatisfactionRating.objects.create(
                student_id=f"s-{number}",
                classroom=classroom,
                app_name="fractions-lab",
                session_id=f"{week}",
                rating=3 + number % 2,
                created_at=at,
            )
    Intervention.objects.update(
        effect={
            "before": {"share": 0.2, "n": 20},
            "after": {"share": 0.8, "n": 20},
            "verdict": "better",
            "measure": "right_answers",
        }
    )


# ---------------------------------------------------------------- whose they are


@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_somebody_elses_class_is_not_found(name, as_charlie, classroom):
    assert page_of(as_charlie, classroom, name).status_code == 404


@pytest.mark.parametrize("name", PAGES)
def test_a_page_asks_for_a_sign_in(name, client, classroom):
    assert page_of(client, classroom, name).status_code == 302


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_for_both_teachers_of_the_class(name, client, classroom, alice, bob, history):
    for who in (alice, bob):
        client.force_login(who)
        assert page_of(client, classroom, name).status_code == 200


@pytest.mark.parametrize("part", ["rules", "seats", "pause"])
def test_nothing_of_somebody_elses_class_is_set(part, as_charlie, classroom):
    answer = as_charlie.post(
        reverse("portal:settings", args=[classroom.pk]), {"part": part, "minutes": "10", "seat:s-0": "A1"}
    )

    assert answer.status_code == 404
    assert not DetectorProfile.objects.exists()
    assert Enrollment.objects.get(student_id="s-0").seat == "B3"


# ---------------------------------------------------------------- trends


def test_trends_say_how_it_went_and_with_what_certainty(as_alice, classroom, history):
    page = page_of(as_alice, classroom, "trends").content.decode()

    assert "No clear change in how many pupils had a signal" in page
    assert "Explained it" in page
    assert "More right after" in page
    assert "No help (similar moments)" in page
    assert "regression to the mean" in page
    assert "Nothing here compares teachers" in page
    assert "Alice" not in re.sub(r"<header.*?</header>", "", page, flags=re.DOTALL)


def test_a_period_is_chosen_as_a_fragment(as_alice, classroom, history):
    fragment = as_alice.get(
        reverse("portal:trends", args=[classroom.pk]), {"period": "days"}, headers=HTMX
    ).content.decode()

    assert "<html" not in fragment
    assert 'aria-current="page">2 weeks, by day' in fragment
    assert "in a day" in fragment


def test_trends_of_a_class_without_data_say_unknown(as_alice, classroom):
    page = page_of(as_alice, classroom, "trends").content.decode()

    assert "Nothing to draw yet" in page
    assert "Too few ratings to show" in page


def test_few_ratings_are_not_shown_and_enough_are(as_alice, classroom, history):
    assert "3.3 of 5 on average, 15 ratings" in page_of(as_alice, classroom, "trends").content.decode()

    SatisfactionRating.objects.exclude(session_id="0").delete()
    assert "Too few ratings to show" in page_of(as_alice, classroom, "trends").content.decode()


def test_trends_ask_the_database_a_fixed_number_of_times(
    as_alice, classroom, history, django_assert_max_num_queries
):
    with django_assert_max_num_queries(20):
        page_of(as_alice, classroom, "trends")


# ---------------------------------------------------------------- the signals as a table


def test_signals_are_exported_and_the_look_at_each_pupil_is_recorded(as_alice, classroom, history):
    answer = page_of(as_alice, classroom, "signals-csv", period="weeks")
    rows = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))

    assert answer["Content-Type"].startswith("text/csv")
    assert "signals-7B-Maths-" in answer["Content-Disposition"]
    assert len(rows) == 15
    assert rows[0]["pupil"] in {"Bartek Wolski", "Noor Aziz", "Thandi Zulu"}
    assert {row["help"] for row in rows} == {"explained", ""}
    looks = StudentAccess.objects.filter(action="export_signals")
    assert set(looks.values_list("student_id", flat=True)) == {"s-0", "s-1", "s-2"}


def test_a_cell_is_never_a_formula(as_alice, classroom, history):
    rows = csv.DictReader(
        io.StringIO(page_of(as_alice, classroom, "signals-csv").content.decode("utf-8-sig"))
    )

    assert {row["reason"] for row in rows} == {"'=5 wrong answers in a row"}


# ---------------------------------------------------------------- settings


def rules(**changed):
    return {
        "part": "rules",
        "version": "0",
        "alerts": "2",
        "per_minutes": "10",
        "burst": "4",
        "preset": "later",
        "detectors": [name for name in OFFERED if name != "idle"],
        "quiet": "on",
        "quiet_from": "15:30",
        "quiet_until": "07:45",
        "days": ["1", "5"],
        **changed,
    }


def save(client, classroom, **changed):
    return client.post(reverse("portal:settings", args=[classroom.pk]), rules(**changed))


def test_all_rules_are_one_version_and_the_page_says_who_made_it(as_alice, alice, classroom):
    answer = save(as_alice, classroom)

    assert answer["Location"].endswith("?saved=rules")
    row = DetectorProfile.objects.get()
    assert (row.alerts_per_10_min, row.alert_burst, row.created_by) == (2.0, 4, alice)
    assert row.quiet_hours == [{"days": [1, 5], "from": "15:30", "until": "07:45"}]
    assert row.parameters["episodes"]["hold_s"] == 60
    assert row.parameters["detectors"] == {"idle": {"enabled": False}}
    page = as_alice.get(answer["Location"]).content.decode()
    assert "Budget: 2 in 10 min, 4 at once (was 1 in 10 min, 3 at once)" in page
    assert "Off: Nothing typed or tapped for a while" in page
    assert "Saved at" in page


def test_saving_what_holds_already_makes_no_version(as_alice, classroom):
    save(as_alice, classroom)
    save(as_alice, classroom, version="1")

    assert DetectorProfile.objects.count() == 1


def test_what_a_co_teacher_changed_meanwhile_is_not_overwritten(as_alice, classroom, bob):
    services.set_budget(classroom.pk, who=bob, alerts=3)

    answer = save(as_alice, classroom)

    assert answer.status_code == 409
    assert "Bob has changed these settings meanwhile" in answer.content.decode()
    assert DetectorProfile.objects.get().alerts_per_10_min == 3


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("alerts", "many", "A number from 0 to 20."),
        ("alerts", "21", "A number from 0 to 20."),
        ("burst", "-1", "A whole number from 0 to 20."),
        ("quiet_from", "25:00", "A time such as 15:30."),
        ("quiet_until", "", "A time such as 15:30."),
        ("days", [], "At least one day."),
        ("preset", "wild", "wild"),
        ("detectors", ["mood"], "mood"),
    ],
)
def test_a_wrong_value_is_told_and_nothing_is_saved(as_alice, classroom, field, value, said):
    answer = save(as_alice, classroom, **{field: value})

    assert answer.status_code == 422
    assert said in answer.content.decode()
    assert not DetectorProfile.objects.exists()


def test_what_an_admin_has_tuned_stays_when_a_teacher_saves(as_alice, alice, classroom):
    services.profiles.save_version(
        who=alice,
        classroom=classroom,
        changes={"parameters": {"detectors": {"error_streak": {"warn": 4}}, "episodes": {"hold_s": 33}}},
    )
    page = page_of(as_alice, classroom, "settings").content.decode()
    assert "As set by an admin" in page

    save(as_alice, classroom, version="1", preset="custom")

    row = DetectorProfile.objects.get(version=2)
    assert row.parameters["episodes"] == {"hold_s": 33}
    assert row.parameters["detectors"] == {"error_streak": {"warn": 4}, "idle": {"enabled": False}}


def test_seats_are_saved_and_a_taken_one_is_told_by_name(as_alice, classroom):
    where = reverse("portal:settings", args=[classroom.pk])

    swapped = as_alice.post(where, {"part": "seats", "seat:s-0": "c2", "seat:s-1": "B3"})
    taken = as_alice.post(where, {"part": "seats", "seat:s-0": "D4"})

    assert swapped["Location"].endswith("?saved=seats")
    assert Enrollment.objects.get(student_id="s-0").seat == "C2"
    assert taken.status_code == 422
    assert "seat D4 is taken by" in taken.content.decode().lower().replace("seat d4", "seat D4")


def test_a_pause_is_set_and_ended_here_too(as_alice, classroom):
    where = reverse("portal:settings", args=[classroom.pk])

    as_alice.post(where, {"part": "pause", "minutes": "45"})
    classroom.refresh_from_db()
    assert classroom.paused_until > timezone.now() + dt.timedelta(minutes=40)
    assert "Alerts rest until" in as_alice.get(where).content.decode()

    as_alice.post(where, {"part": "pause", "minutes": "0"})
    classroom.refresh_from_db()
    assert classroom.paused_until is None


def test_a_budget_is_tried_on_the_last_two_weeks(as_alice, classroom, history):
    little = page_of(as_alice, classroom, "budget-preview", alerts="0", per_minutes="10", burst="0")
    much = page_of(as_alice, classroom, "budget-preview", alerts="20", per_minutes="5", burst="20")
    wrong = page_of(as_alice, classroom, "budget-preview", alerts="x", per_minutes="10", burst="0")

    assert "0 would have interrupted you" in little.content.decode()
    assert "6 would have interrupted you" in much.content.decode()
    assert "Three numbers are needed" in wrong.content.decode()


# ---------------------------------------------------------------- the pupil's page


def test_a_pupils_page_tells_an_effect_in_words(as_alice, classroom, history):
    page = as_alice.get(
        reverse("portal:student", args=[classroom.pk, "s-0"]), {"span": "week"}
    ).content.decode()

    assert "More right after: 20 % right before (20 answers), 80 % after (20)." in page
    assert "Too few moments without help to compare with." in page


def test_a_pupils_page_looks_back_from_a_moment(as_alice, classroom, history):
    where = reverse("portal:student", args=[classroom.pk, "s-0"])
    then = (timezone.now() - 29 * DAY + dt.timedelta(minutes=20)).isoformat()

    assert "Explained it" in as_alice.get(where, {"until": then}).content.decode()
    assert as_alice.get(where, {"until": "whenever"}).status_code == 200
