"""Back-tests and profiles in the admin: asked for, run, shown, kept; wrong input told at its field."""

from __future__ import annotations

import datetime as dt
import json
import re

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from usability import services
from usability.backtest import queue
from usability.models import BackTest, DetectorProfile, ShadowCount, UsabilityMetric
from usability.partitions import ensure_partitions
from usability.services.profiles import save_version

pytestmark = pytest.mark.django_db
ADD = "admin:usability_backtest_add"


@pytest.fixture
def operator(django_user_model):
    client = Client()
    client.force_login(django_user_model.objects.create_superuser("operator", password="a-long-password-9"))
    return client


@pytest.fixture
def wrong_answers(classroom):
    """Ten wrong answers of one pupil in the last minutes."""
    now = timezone.now()
    ensure_partitions(now.date())
    begin = now - dt.timedelta(minutes=4)
    UsabilityMetric.objects.bulk_create(
        UsabilityMetric(
            timestamp=begin + dt.timedelta(seconds=15 * number),
            received_at=now,
            metric_value=0.0,
            classroom=classroom,
            student_id="s-0",
            app_name="fractions-lab",
            metric_type="answer",
        )
        for number in range(10)
    )
    return now


def asked(classroom, now, **changed):
    return {
        "classrooms": [str(classroom.pk)],
        "app_name": "",
        "since": f"{now - dt.timedelta(hours=1):%Y-%m-%dT%H:%M}",
        "until": f"{now + dt.timedelta(minutes=2):%Y-%m-%dT%H:%M}",
        "profile": "",
        "changes": "error_streak.enabled=false\nlow_recent_success.enabled=false",
        "_save": "Run",
        **changed,
    }


def test_a_back_test_is_asked_for_run_and_shown(operator, classroom, wrong_answers):
    answer = operator.post(reverse(ADD), asked(classroom, wrong_answers))
    row = BackTest.objects.get()
    assert answer["Location"] == reverse("admin:usability_backtest_change", args=[row.pk])
    assert "Waits for a worker" in operator.get(answer["Location"]).content.decode()

    queue.run_next(processes=1)

    page = operator.get(answer["Location"]).content.decode()
    assert "10 metrics of" in page
    assert "error_streak.enabled=false" in page
    assert reverse("portal:student", args=[classroom.pk, "s-0"]) in page
    fragment = operator.get(reverse("admin:usability_backtest_state", args=[row.pk])).content.decode()
    assert fragment.startswith('<div id="run"')
    assert "hx-trigger" not in fragment
    assert "1 lost" in operator.get(reverse("admin:usability_backtest_changelist")).content.decode()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("classrooms", [], "This field is required"),
        ("since", "yesterday", "Enter a valid date/time"),
        ("since", "2020-01-01T00:00", "at most 92 days before until"),
        ("until", "2020-01-01T00:00", "must be after since"),
        ("changes", "error_streek.warn=4", "error_streek is not a detector"),
        ("changes", "error_streak.warn=-4", "error_streak.warn"),
        ("profile", "boldest", "boldest"),
    ],
)
def test_wrong_input_is_told_at_its_field(operator, classroom, wrong_answers, field, value, said):
    answer = operator.post(reverse(ADD), asked(classroom, wrong_answers, **{field: value}))

    assert answer.status_code == 200
    errors = answer.context["adminform"].form.errors
    assert list(errors) == [field]
    assert said in str(errors[field])
    assert not BackTest.objects.exists()


def test_the_candidate_is_kept_as_a_version(operator, classroom, wrong_answers):
    operator.post(reverse(ADD), asked(classroom, wrong_answers))
    queue.run_next(processes=1)
    row = BackTest.objects.get()

    answer = operator.post(
        reverse("admin:usability_backtest_save", args=[row.pk]),
        {"classroom": str(classroom.pk), "state": "shadow", "note": "quieter"},
    )

    made = DetectorProfile.objects.get()
    assert answer["Location"] == reverse("admin:usability_detectorprofile_change", args=[made.pk])
    assert (made.state, made.note, made.created_by.username) == ("shadow", "quieter", "operator")
    assert made.parameters["detectors"]["error_streak"] == {"enabled": False}


def test_back_tests_are_for_operators(as_alice, classroom, wrong_answers):
    assert as_alice.get(reverse(ADD)).status_code == 302
    assert as_alice.post(reverse(ADD), asked(classroom, wrong_answers)).status_code == 302
    assert not BackTest.objects.exists()


def test_too_many_that_wait_are_refused_with_the_reason(operator, classroom, wrong_answers):
    for _ in range(10):
        operator.post(reverse(ADD), asked(classroom, wrong_answers))

    page = operator.post(reverse(ADD), asked(classroom, wrong_answers), follow=True).content.decode()

    assert "10 back-tests wait already" in page
    assert BackTest.objects.count() == 10


# ---------------------------------------------------------------- profiles


def a_profile(**changed):
    return {
        "classroom": "",
        "app_name": "",
        "state": "draft",
        "note": "",
        "alerts_per_10_min": "1",
        "alert_burst": "3",
        "quiet_hours": "[]",
        "parameters": '{"error_streak": {"warn": 4}}',
        **changed,
    }


def test_a_profile_is_a_version_with_its_author(operator, classroom):
    for _ in range(2):
        operator.post(reverse("admin:usability_detectorprofile_add"), a_profile(classroom=str(classroom.pk)))

    versions = DetectorProfile.objects.order_by("version")
    assert [(row.version, row.state, row.created_by.username) for row in versions] == [
        (1, "draft", "operator"),
        (2, "draft", "operator"),
    ]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("parameters", '{"error_streek": {"warn": 4}}', "is not a detector"),
        ("parameters", '{"error_streak": {"warn": "many"}}', "detectors.error_streak.warn"),
        ("parameters", '{"error_streak": {"worn": 4}}', "worn"),
        ("parameters", '{"episodes": {"hold_s": -1}}', "episodes.hold_s"),
        ("parameters", "[1]", "An object such as"),
        ("parameters", "{", "Enter a valid JSON"),
        ("quiet_hours", '[{"from": "12:00"}]', "A list of"),
        ("quiet_hours", '[{"from": "noon", "until": "13:00"}]', "quiet_hours"),
        ("alert_burst", "-1", "greater than or equal to 0"),
    ],
)
def test_a_profile_that_detection_would_refuse_is_told_at_its_field(operator, field, value, said):
    answer = operator.post(reverse("admin:usability_detectorprofile_add"), a_profile(**{field: value}))

    assert answer.status_code == 200
    errors = answer.context["adminform"].form.errors
    assert list(errors) == [field]
    assert said in str(errors[field])
    assert not DetectorProfile.objects.exists()


def test_a_version_is_shown_in_words_and_moved_by_an_action(operator, classroom, alice):
    row = save_version(
        who=alice,
        classroom=classroom,
        state="shadow",
        changes={"parameters": {"error_streak": {"warn": 4}}},
    )
    begin = timezone.now()
    ShadowCount.objects.create(
        profile=row,
        classroom=classroom,
        window_start=begin,
        window_end=begin + dt.timedelta(minutes=15),
        raised=7,
        interrupting=2,
        present_raised=9,
        present_interrupting=3,
    )

    page = operator.get(reverse("admin:usability_detectorprofile_change", args=[row.pk])).content.decode()
    operator.post(
        reverse("admin:usability_detectorprofile_changelist"),
        {"action": "make_active", "_selected_action": [str(row.pk)]},
    )

    assert "error_streak.warn is 4 (default 3)" in page
    assert "would have raised 7 (2 interrupting); what holds raised 9 (3 interrupting)" in page
    row.refresh_from_db()
    assert (row.state, row.state_by.username) == ("active", "operator")
    history = operator.get(reverse("admin:usability_detectorprofile_history", args=[row.pk]))
    assert "State: active." in history.content.decode()


def test_a_new_version_begins_from_another(operator, classroom, alice):
    row = save_version(
        who=alice,
        classroom=classroom,
        changes={"parameters": {"error_streak": {"warn": 4}}, "alert_burst": 1},
    )

    page = operator.get(reverse("admin:usability_detectorprofile_add"), {"from": str(row.pk)})

    initial = page.context["adminform"].form.initial
    assert (initial["alert_burst"], initial["parameters"]) == (1, {"error_streak": {"warn": 4}})
    assert operator.get(reverse("admin:usability_detectorprofile_add"), {"from": "x"}).status_code == 200


# ---------------------------------------------------------------- pages of single rows


def test_the_page_of_an_alert_and_its_help_speak_in_words(operator, classroom, alert, alice):
    given = services.record_intervention(alert.pk, who=alice, kind="explained")
    given.effect = {
        "before": {"share": 0.2, "n": 10},
        "after": {"share": 0.9, "n": 10},
        "verdict": "better",
        "measure": "right_answers",
    }
    given.save()

    of_alert = operator.get(reverse("admin:usability_teacherdashboardalert_change", args=[alert.pk]))
    of_help = operator.get(reverse("admin:usability_intervention_change", args=[given.pk]))

    assert "What was done" in of_alert.content.decode()
    assert "5 wrong answers in a row on item 8" in of_alert.content.decode()
    assert "more right after: 20 % right before (10 answers), 90 % after (10)" in of_help.content.decode()
    assert "not proof of what helped" in of_help.content.decode()


def test_the_page_of_an_event_tells_numbers_with_their_thresholds(operator, classroom):
    event = services.record_event(
        student_id="s-0",
        app_name="fractions-lab",
        event_type="accuracy",
        severity="high",
        details={
            "reason": "5 wrong answers in a row",
            "findings": [
                {
                    "detector": "error_streak",
                    "reason": "5 in a row",
                    "numbers": {"in_a_row": 5},
                    "thresholds": {"in_a_row": 3},
                }
            ],
        },
        detected_at=timezone.now(),
    )

    page = operator.get(reverse("admin:usability_frustrationevent_change", args=[event.pk])).content.decode()

    assert "error streak: 5 in a row – in a row 5 (threshold 3)" in page
    assert json.dumps("error_streak") not in page.split("As stored")[0]


def test_a_profile_of_every_app_has_a_word_in_the_filter(admin_client: Client) -> None:
    for version, app_name in enumerate(("", "fractions-lab"), start=1):
        DetectorProfile.objects.create(app_name=app_name, version=version, parameters={})

    page = admin_client.get("/admin/usability/detectorprofile/").content.decode()

    assert re.search(r'href="\?app_name="[^>]*>\s*every app', page)
