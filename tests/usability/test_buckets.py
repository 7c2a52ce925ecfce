"""Stretches of time are the same on a hypertable and without one."""

from __future__ import annotations

import datetime as dt

import pytest
from django.db import connection

from usability import services
from usability.buckets import ORIGIN, bucket_start
from usability.models import UsabilityMetric
from usability.selectors.activity import buckets_of

NOON = dt.datetime.now(dt.UTC).replace(hour=12, minute=0, second=0, microsecond=0) - dt.timedelta(days=1)


def sql_of(expression) -> str:
    return str(UsabilityMetric.objects.annotate(at=expression).values("at").query)


def test_a_hypertable_is_asked_with_the_functions_of_timescaledb():
    asked = sql_of(bucket_start(60, hypertable=True))

    assert "time_bucket(60 seconds," in asked
    assert "date_bin" not in asked


def test_a_plain_table_is_asked_with_the_functions_of_postgresql():
    asked = sql_of(bucket_start(60, hypertable=False))

    assert "date_bin(" in asked
    assert str(ORIGIN) in asked


@pytest.mark.django_db(transaction=True)
def test_counts_fall_into_their_stretch_and_a_flag_overrides_the_value():
    moments = [(0, 1, None), (59, 0, None), (60, 1, {"correct": False}), (61, 1, {"correct": True})]
    services.record_metrics(
        [
            {
                "student_id": "s-1",
                "app_name": "fractions-lab",
                "metric_type": "answer",
                "metric_value": value,
                "timestamp": (NOON + dt.timedelta(seconds=at)).isoformat().replace("+00:00", "Z"),
                **({"metadata": metadata} if metadata else {}),
            }
            for at, value, metadata in moments
        ]
    )

    buckets = buckets_of(["s-1"], since=NOON, until=NOON + dt.timedelta(minutes=5), bucket_s=60)

    assert [(one.at, one.attempts, one.right) for one in buckets] == [
        (NOON, 2, 1),
        (NOON + dt.timedelta(seconds=60), 2, 1),
    ]
    assert [one.error_rate for one in buckets] == [0.5, 0.5]


@pytest.mark.django_db
def test_postgresql_aligns_to_the_origin_of_timescaledb():
    with connection.cursor() as cursor:
        cursor.execute("SELECT date_bin('7 days', %s, %s)", [NOON, ORIGIN])

        assert cursor.fetchone()[0].weekday() == 0
