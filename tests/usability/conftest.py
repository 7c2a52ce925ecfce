"""7B with Alice and Bob as its teachers, and Charlie, who teaches 8C and must see nothing of 7B."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def days(db: None) -> None:
    """The days that metrics need; they are there after the migration, and this makes them if a flush took them."""
    from usability.partitions import ensure_partitions

    ensure_partitions(dt.datetime.now(tz=dt.UTC).date())


def _person(users: Any, name: str) -> Any:
    return users.objects.create_user(name, first_name=name.title())


@pytest.fixture
def alice(db: None, django_user_model: Any) -> Any:
    return _person(django_user_model, "alice")


@pytest.fixture
def bob(db: None, django_user_model: Any) -> Any:
    return _person(django_user_model, "bob")


@pytest.fixture
def charlie(db: None, django_user_model: Any) -> Any:
    return _person(django_user_model, "charlie")


@pytest.fixture
def operator(db: None, django_user_model: Any) -> Any:
    return django_user_model.objects.create_superuser("olga")


NAMES = ("Amara Obi", "Bartek Wolski", "Chiyo Sato", "Dario Rossi", "Emine Kaya", "Farid Haddad")


@pytest.fixture
def room(alice: Any, bob: Any) -> Any:
    """7B: six pupils p0 to p5 in seats A1 to C2, taught by Alice and Bob."""
    from usability.models import Classroom, ClassroomTeacher, Enrollment, School, Student

    school = School.objects.create(name="Oak Road School")
    classroom = Classroom.objects.create(
        school=school, name="7B Maths", subject="Maths", app_names=["fractions-lab"]
    )
    ClassroomTeacher.objects.create(classroom=classroom, user=alice)
    ClassroomTeacher.objects.create(classroom=classroom, user=bob, role="co_teacher")
    for number, name in enumerate(NAMES):
        pupil = Student.objects.create(student_id=f"p{number}", display_name=name, school=school)
        Enrollment.objects.create(
            student=pupil, classroom=classroom, seat=f"{'ABC'[number % 3]}{1 + number // 3}"
        )
    return classroom


@pytest.fixture
def other_room(charlie: Any, room: Any) -> Any:
    """8C: one pupil q0, taught by Charlie."""
    from usability.models import Classroom, ClassroomTeacher, Enrollment, Student

    classroom = Classroom.objects.create(school=room.school, name="8C Science")
    ClassroomTeacher.objects.create(classroom=classroom, user=charlie)
    pupil = Student.objects.create(student_id="q0", display_name="Quinn Ray", school=room.school)
    Enrollment.objects.create(student=pupil, classroom=classroom)
    return classroom


@pytest.fixture
def key_of(db: None) -> Callable[..., Any]:
    """The principal of a fresh API key: `key_of(owner, "teacher", app_name="")`."""
    from gaia_site.keys import issue_key, principal_of

    def make(owner: Any, *scopes: str, app_name: str = "") -> Any:
        _, secret = issue_key(name=f"key of {owner}", owner=owner, scopes=scopes, app_name=app_name)
        return principal_of(secret)

    return make


@pytest.fixture
def secret_of(db: None) -> Callable[..., str]:
    """A fresh API key as its owner holds it."""
    from gaia_site.keys import issue_key

    return lambda owner, *scopes: issue_key(name="a key", owner=owner, scopes=scopes)[1]


@pytest.fixture
def raised(room: Any) -> Callable[..., Any]:
    """An alert in 7B, about p1 unless somebody else is named."""
    from usability import services

    def make(student_id: str | None = "p1", **changed: Any) -> Any:
        fields = {
            "alert_type": "accuracy",
            "severity": "warning",
            "details": {"reason": "5 wrong answers in a row on item 8", "severity": "high"},
            **changed,
        }
        return services.raise_alert(classroom=room, student_id=student_id, app_name="fractions-lab", **fields)

    return make


@pytest.fixture
def committed(transactional_db: None) -> Iterator[None]:
    """A database whose rows other connections see, with the days that metrics need."""
    from django.db import connections

    from usability.partitions import ensure_partitions

    ensure_partitions(dt.datetime.now(tz=dt.UTC).date())
    yield
    connections.close_all()
