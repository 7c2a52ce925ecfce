"""A class with Alice and Bob as its teachers, and Charlie, who must see nothing of it."""

from __future__ import annotations

import pytest
from django.test import Client

from usability import services
from usability.models import Classroom, ClassroomTeacher, Enrollment, School, Student


@pytest.fixture
def alice(django_user_model):
    return django_user_model.objects.create_user("alice", password="a-long-password-1", first_name="Alice")


@pytest.fixture
def bob(django_user_model):
    return django_user_model.objects.create_user("bob", password="a-long-password-2", first_name="Bob")


@pytest.fixture
def charlie(django_user_model):
    return django_user_model.objects.create_user("charlie", password="a-long-password-3")


@pytest.fixture
def classroom(alice, bob):
    school = School.objects.create(name="Oak Road School")
    room = Classroom.objects.create(school=school, name="7B Maths", subject="Adding fractions")
    ClassroomTeacher.objects.create(classroom=room, user=alice)
    ClassroomTeacher.objects.create(classroom=room, user=bob, role="co_teacher")
    for number, (name, seat) in enumerate(
        [("Bartek Wolski", "B3"), ("Noor Aziz", "C2"), ("Thandi Zulu", "D4")]
    ):
        pupil = Student.objects.create(student_id=f"s-{number}", display_name=name, school=school)
        Enrollment.objects.create(student=pupil, classroom=room, seat=seat)
    return room


@pytest.fixture
def alert(classroom):
    return services.raise_alert(
        classroom=classroom,
        student_id="s-0",
        app_name="fractions-lab",
        alert_type="error_streak",
        severity="critical",
        details={"reason": "5 wrong answers in a row on item 8", "event_severity": "high"},
    )


@pytest.fixture
def as_alice(alice):
    client = Client()
    client.force_login(alice)
    return client


@pytest.fixture
def as_charlie(charlie):
    client = Client()
    client.force_login(charlie)
    return client
