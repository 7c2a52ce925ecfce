"""Clicks that lead nowhere speak of the app: the app's health counts them by place."""

from __future__ import annotations

import json

import pytest
from django.test import Client
from usability_lessons import APP

from gaia_site.keys import forget_keys
from usability.detection.click_detector import ClickDetector
from usability.detection.kinds import MetricType
from usability.detection.registry import DETECTORS
from usability.ingest.decode import CLICK_TYPES
from usability.models import AppHealthCount

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("days")]


def clicks(kind: str, count: int = 4) -> dict:
    return {
        "student_id": "p1",
        "app_name": APP,
        "metric_type": kind,
        "metric_value": count,
        "metadata": {"element": "check"},
    }


def counted() -> dict[str, int]:
    rows = AppHealthCount.objects.filter(app_name=APP, measure__in=CLICK_TYPES, label="check")
    return dict(rows.values_list("measure", "count"))


def test_every_kind_of_click_that_detection_hears_is_counted():
    heard = {
        str(kind)
        for detector in DETECTORS
        if isinstance(detector, ClickDetector)
        for kind in detector.listens - {MetricType.COMPLETION}
    }

    assert heard == CLICK_TYPES


def test_clicks_of_a_request_without_an_event_loop_are_counted_once(room, alice, secret_of):
    forget_keys()
    headers = {"Authorization": f"Bearer {secret_of(alice, 'metrics:write')}"}
    batch = json.dumps({"batch_id": "b-1", "metrics": [clicks(kind) for kind in CLICK_TYPES]})
    for _again in range(2):
        answer = Client().post("/api/v1/usability/metrics", batch, "application/json", headers=headers)
        assert answer.status_code == 202
    Client().post("/api/v1/usability/metrics?validate_only=1", batch, "application/json", headers=headers)

    assert counted() == dict.fromkeys(CLICK_TYPES, 4)
