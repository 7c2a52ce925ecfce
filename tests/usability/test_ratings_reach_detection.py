"""A rating is an observation too: from the call of an app to the evidence of the pupil's open episode."""

from __future__ import annotations

import datetime as dt
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections
from django.test import Client
from django.utils import timezone
from usability_lessons import APP, Clock, Lesson, run_until, worker_at

from usability import services
from usability.models import FrustrationEvent, SatisfactionRating, UsabilityMetric

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("days")]


def stored() -> list[tuple[str, float]]:
    rows = UsabilityMetric.objects.filter(metric_type="rating").order_by("id")
    return list(rows.values_list("student_id", "metric_value"))


def rate(rating: int, session_id: str = "s1") -> SatisfactionRating:
    return services.record_rating(student_id="p1", app_name=APP, session_id=session_id, rating=rating)


@pytest.fixture
def post(alice, secret_of):
    secret = secret_of(alice, "metrics:write")

    def send(rating: int, **changed):
        body = {
            "student_id": "p1",
            "app_name": APP,
            "session_id": "s1",
            "rating": rating,
            **changed,
        }
        answer = Client().post(
            "/api/v1/usability/ratings",
            json.dumps(body),
            "application/json",
            headers={"Authorization": f"Bearer {secret}"},
        )
        assert answer.status_code == 201, answer.content
        return answer

    return send


def details_after(room, post, rating: int) -> dict:
    """What the event of p1's wrong answers says once the pupil has rated the work."""
    lesson = Lesson(room, timezone.now() - dt.timedelta(seconds=100))
    lesson.answers("p1", "-------", begin_s=30, every_s=9, item="8").store()
    post(rating)
    post(rating)
    clock = Clock(lesson.begin)
    run_until(worker_at(clock), clock, timezone.now() + dt.timedelta(seconds=4))
    return FrustrationEvent.objects.get(event_type="accuracy").details


def test_a_low_rating_joins_the_open_episode_and_one_sent_twice_joins_once(room, post):
    details = details_after(room, post, 2)

    (metric,) = UsabilityMetric.objects.filter(metric_type="rating")
    found = json.dumps(details)
    assert "low_rating" in found
    assert found.count(str(metric.pk)) >= 1
    assert stored() == [("p1", 2.0)]
    assert metric.classroom_id == room.pk


def test_a_good_rating_joins_nothing(room, post):
    assert "low_rating" not in json.dumps(details_after(room, post, 4))
    assert stored() == [("p1", 4.0)]


def test_the_same_rating_again_is_told_once_and_another_one_again(room):
    rate(1)
    rate(1)
    rate(3)
    rate(3)
    rate(1, session_id="s2")

    assert stored() == [("p1", 1.0), ("p1", 3.0), ("p1", 1.0)]


def test_a_rating_that_is_refused_is_not_told(room):
    with pytest.raises(services.ratings.Invalid):
        rate(6)

    assert stored() == []


def test_a_rating_that_is_undone_is_not_told(room):
    from django.db import transaction

    with transaction.atomic():
        rate(2)
        transaction.set_rollback(True)

    assert stored() == []
    assert not SatisfactionRating.objects.exists()


def test_detection_is_told_after_the_commit(room, django_capture_on_commit_callbacks):
    told = []
    with django_capture_on_commit_callbacks(execute=True):
        services.record_rating(
            student_id="p1",
            app_name=APP,
            session_id="s1",
            rating=2,
            committed=lambda rows, _received_us: told.extend(rows),
        )
        assert told == []

    assert len(told) == 1


def test_where_metrics_are_switched_off_a_rating_is_kept_and_nothing_else(room, settings):
    from dataclasses import replace

    settings.GAIA = replace(settings.GAIA, usability_metrics_enabled=False)
    rate(2)

    assert SatisfactionRating.objects.count() == 1
    assert stored() == []


@pytest.mark.django_db(transaction=True)
def test_the_same_rating_at_the_same_moment_by_several_is_told_once(committed, room):
    def one(_number: int) -> None:
        try:
            rate(2)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(one, range(12)))

    assert SatisfactionRating.objects.count() == 1
    assert stored() == [("p1", 2.0)]
