"""Why no alert at 10:42? The section of the pupil's page that answers it, without a script."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest
from django.urls import reverse
from django.utils import timezone

from usability import services
from usability.detection.registry import DETECTORS
from usability.errors import UsabilityError
from usability.ingest.copy import ids_from
from usability.models import Classroom, FrustrationEvent, StudentAccess, UsabilityMetric
from usability.partitions import ensure_partitions
from usability.portal import why
from usability.selectors.explain import ClassWhy, Recorded, Why

pytestmark = pytest.mark.django_db

MOMENT = dt.datetime(2026, 3, 2, 10, 42, tzinfo=dt.UTC)


@pytest.fixture
def lesson(classroom) -> dt.datetime:
    """Five wrong answers in a row by s-0, from ten minutes ago on; gives the minute at whose end they stand."""
    begin = (timezone.now() - dt.timedelta(minutes=10)).replace(second=0, microsecond=0)
    ensure_partitions(begin.date())
    for number in range(5):
        received = begin + dt.timedelta(seconds=5 + 8 * number)
        UsabilityMetric.objects.create(
            id=uuid.UUID(int=ids_from(int(received.timestamp() * 1e6), 1)[0]),
            timestamp=received,
            received_at=received,
            metric_value=0.0,
            classroom=classroom,
            student_id="s-0",
            app_name="fractions-lab",
            metric_type="answer",
            metadata={"item": "8"},
        )
    return begin


def asked(client, classroom, minute: dt.datetime | str | None, student_id: str = "s-0"):
    query = (
        {} if minute is None else {"why": minute if isinstance(minute, str) else f"{minute:%Y-%m-%dT%H:%M}"}
    )
    return client.get(reverse("portal:student", args=[classroom.pk, student_id]), query)


def words_of(found: why.Answers) -> str:
    return " ".join(sentence for one in found.answers for sentence in (one.title, *one.sentences))


def test_the_form_is_there_and_nothing_is_judged_before_it_is_sent(as_alice, classroom, monkeypatch):
    monkeypatch.setattr("usability.selectors.student_why", None)

    page = asked(as_alice, classroom, None).content.decode()

    assert 'name="why" type="datetime-local"' in page
    assert "At the end" not in page


def test_a_minute_is_explained_with_its_rules_and_numbers(as_alice, classroom, lesson):
    answer = asked(as_alice, classroom, lesson)

    page = answer.content.decode()
    assert "5 wrong answers in a row" in page
    assert "It interrupted." in page
    assert "No alert about it is stored" in page
    assert "Nothing typed or tapped for a while" in page
    assert "counts from" in page
    assert "When the class was paused is not stored" in page
    assert f'value="{lesson:%Y-%m-%dT%H:%M}"' in page


def test_a_moment_with_its_offset_is_taken_from_a_link(as_alice, classroom, lesson):
    page = asked(as_alice, classroom, f"{lesson:%Y-%m-%dT%H:%M}Z").content.decode()

    assert "5 wrong answers in a row" in page


def test_the_present_minute_can_be_asked_for(as_alice, classroom, lesson):
    page = asked(as_alice, classroom, timezone.now()).content.decode()

    assert 'id="why-error"' not in page


def test_a_pause_of_now_is_told(as_alice, classroom, lesson):
    Classroom.objects.filter(pk=classroom.pk).update(paused_until=timezone.now() + dt.timedelta(minutes=5))

    page = asked(as_alice, classroom, timezone.now()).content.decode()

    assert "Alerts of the class are paused" in page


@pytest.mark.parametrize("text", ["", "10:42", "tomorrow", "2026-13-40T99:99", "0001-01-01T00:00"])
def test_what_is_no_minute_is_told_at_the_field(as_alice, classroom, text):
    page = asked(as_alice, classroom, text).content.decode()

    assert 'aria-invalid="true"' in page
    assert "A day and a time" in page


def test_a_minute_to_come_is_told_at_the_field(as_alice, classroom):
    page = asked(as_alice, classroom, timezone.now() + dt.timedelta(minutes=5)).content.decode()

    assert "still to come" in page


def test_a_class_that_takes_too_long_is_told_and_the_page_stands(as_alice, classroom, monkeypatch):
    def too_long(*_args, **_kwargs):
        raise UsabilityError("overloaded", "too long")

    monkeypatch.setattr("usability.selectors.student_why", too_long)

    answer = asked(as_alice, classroom, timezone.now())

    assert answer.status_code == 200
    assert "Try again in a minute" in answer.content.decode()


def test_asking_is_recorded_as_a_look(as_alice, alice, as_charlie, classroom, lesson):
    asked(as_alice, classroom, lesson)
    assert asked(as_charlie, classroom, lesson).status_code == 404

    looks = StudentAccess.objects.order_by("id").values_list("user", "student_id", "action")
    assert list(looks) == [(alice.pk, "s-0", "view_timeline"), (alice.pk, "s-0", "view_explanation")]


def test_the_admin_leads_from_an_event_to_its_minute(classroom, admin_client):
    event = services.record_event(
        student_id="s-0",
        app_name="fractions-lab",
        event_type="accuracy",
        severity="high",
        details={},
        detected_at=timezone.now(),
    )
    FrustrationEvent.objects.filter(pk=event.pk).update(classroom=classroom)

    page = admin_client.get(
        reverse("admin:usability_frustrationevent_change", args=[event.pk])
    ).content.decode()

    link = reverse("portal:student", args=[classroom.pk, "s-0"])
    assert f'{link}?why={event.created_at:%Y-%m-%dT%H:%M}Z#why"' in page


# ---------------------------------------------------------------- words


def explained(status: str, **changed) -> why.Answers:
    fields = {
        "status": status,
        "app_name": "maths",
        "family": "accuracy",
        "detector": "error_streak",
        "held_back": "",
        "since": MOMENT,
        "until": MOMENT + dt.timedelta(seconds=25),
        "reason": "3 wrong answers in a row",
        "numbers": {},
        "thresholds": {},
        **changed,
    }
    found = ClassWhy(uuid.uuid4(), MOMENT, 1, (), (), (Why(**fields),))
    return why.answers_of(found)


@pytest.mark.parametrize(
    ("status", "held_back", "said"),
    [
        ("interrupted", "", "It interrupted. It had been there since 10:42:00."),
        ("listed", "budget", "alert budget was spent"),
        ("listed", "quiet_hours", "Quiet hours held"),
        ("listed", "snoozed", "snoozed"),
        ("listed", "paused", "Alerts of the class were paused"),
        ("listed", "class_card", "one card about the class"),
        ("listed", "info", "too slight to interrupt"),
        ("listed", "already_told", "told before"),
        ("listed", "", "did not interrupt"),
        ("held", "", "not lasted long enough to be shown: that would be from 10:42:25"),
        ("cooldown", "", "not shown before 10:42:25"),
        ("closing", "", "about to end, at 10:42:25"),
        ("gone", "", "Nothing came after 10:42:00"),
        ("unknown", "", "No report of this pupil"),
    ],
)
def test_every_reason_has_words(status, held_back, said):
    assert said in words_of(explained(status, held_back=held_back))


def test_what_a_teacher_did_about_it_is_told():
    recorded = Recorded(uuid.uuid4(), MOMENT, interrupted=False, held_back="budget", closed_as="dismissed")

    said = words_of(explained("listed", held_back="budget", recorded=recorded))

    assert "Stored as an alert at 10:42:00." in said
    assert "not a problem" in said


def test_comparison_signals_are_not_for_teachers():
    assert explained("listed", family="reference", held_back="comparison").answers == ()


def test_each_rule_with_numbers_has_a_sentence_that_takes_them():
    for detector in DETECTORS:
        if detector.follows_practice:
            continue
        params = detector.Params()
        evidence = detector.near(detector.State(), 0, params)
        if not evidence.numbers:
            continue
        found = explained(
            "below",
            detector=detector.name,
            numbers=dict(evidence.numbers),
            thresholds=dict(evidence.thresholds),
        )
        (one,) = found.below
        assert str(why.BELOW[detector.name]).partition("%")[0] in one.found, detector.name
        assert "%(" not in one.found


def test_a_rule_without_a_sentence_is_told_by_its_numbers():
    found = explained("below", detector="brand_new", numbers={"odd_things": 2.0}, thresholds={"most": 3.0})

    assert found.below[0].found == "odd things 2; counts by most 3"
