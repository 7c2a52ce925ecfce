"""The pages on which those who make an app find what it did wrong."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from usability.admin.apps import ADVICE
from usability.models import App, AppHealthCount

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator(django_user_model):
    client = Client()
    client.force_login(django_user_model.objects.create_superuser("operator", password="a-long-password-9"))
    return client


@pytest.fixture
def counts():
    hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    App.objects.create(name="quiet-app")
    for app_name, measure, label, count in (
        ("maths", "accepted", "", 80),
        ("maths", "late", "", 20),
        ("maths", "rejected", "bad_id", 7),
        ("maths", "dead_click", "item-9", 5),
        ("maths", "rage_click", "", 2),
        ("maths", "sdk", "1.0.0", 80),
        ("piano", "accepted", "", 3),
    ):
        AppHealthCount.objects.create(app_name=app_name, hour=hour, measure=measure, label=label, count=count)


def page(client, name, *args, **query):
    return client.get(reverse(f"admin:{name}", args=args), query)


def test_every_app_is_listed_with_the_refused_first(operator, counts):
    text = page(operator, "usability_apps_health").content.decode()

    assert text.index("maths") < text.index("piano") < text.index("quiet-app")
    assert "bad_id" in text
    assert "25 %" in text
    assert reverse("admin:usability_app_health", args=["maths"]) in text


def test_an_app_says_what_to_do_and_where(operator, counts):
    text = page(operator, "usability_app_health", "maths", span="week").content.decode()

    assert ADVICE["bad_id"] in text
    assert "item-9" in text
    assert "not told" in text
    assert "1.0.0 (80)" in text
    assert "validate_only=1" in text


def test_the_lists_lead_there(operator, counts):
    assert (
        reverse("admin:usability_apps_health")
        in page(operator, "usability_apphealthcount_changelist").content.decode()
    )
    assert (
        reverse("admin:usability_app_health", args=["quiet-app"])
        in page(operator, "usability_app_changelist").content.decode()
    )


def test_an_app_nobody_knows_is_not_found_and_a_stranger_sees_nothing(operator, counts, django_user_model):
    assert page(operator, "usability_app_health", "nothing").status_code == 404
    stranger = Client()
    stranger.force_login(django_user_model.objects.create_user("clerk", is_staff=True))

    assert page(stranger, "usability_apps_health").status_code == 403
    assert page(stranger, "usability_app_health", "maths").status_code == 403


def test_every_reason_that_ingest_counts_has_its_advice():
    import re

    from tests.running import ROOT

    source = (ROOT / "usability" / "ingest" / "decode.py").read_text()
    counted = set(re.findall(r'"((?:bad|unknown|too|not|wrong)_[a-z]+|missing)"', source))

    assert counted - {"foreign_app", "foreign_student"} == ADVICE.keys()
