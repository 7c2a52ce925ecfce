"""Who and what the demonstration needs in the database. Made once, found again at every later start."""

from __future__ import annotations

import secrets
import shlex
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from gaia_site.keys import issue_key, principal_of
from gaia_site.models import ApiKey, Scope
from gaia_site.problems import Problem
from usability.models import App, Classroom, ClassroomTeacher, Enrollment, School, Student

APP_NAME = "simulated-maths"
SCHOOL = "Demonstration School"
SUBJECT = "Mathematics, pupils played by a generator calibrated on published classroom data"
CLASS, OTHER_CLASS = "7b Mathematics (simulated)", "8a Mathematics (simulated)"
SEATS_A_ROW = 6
KEY_MARK = "demonstration: "

KEYS = {
    "agent": ("admin", [Scope.AGENT]),
    "metrics": ("teacher", [Scope.METRICS_WRITE, Scope.METRICS_READ]),
    "admin": ("admin", [Scope.ADMIN]),
    "teacher": ("teacher", [Scope.TEACHER]),
}
"""Name of a key in demo.json → its owner and scopes. What a metrics key reads is what its owner teaches."""

PUPILS = (
    *(
        "Ada Brandt",
        "Ben Okafor",
        "Clara Lindqvist",
        "Deniz Kaya",
        "Emil Novak",
        "Fatima Haddad",
        "Greta Olsen",
    ),
    *(
        "Hugo Marchetti",
        "Ida Sørensen",
        "Jonas Weber",
        "Kira Petrova",
        "Leon Fischer",
        "Mila Horvat",
        "Noah Dubois",
    ),
    *(
        "Olivia Costa",
        "Pavel Dvořák",
        "Rosa Jiménez",
        "Samir Aziz",
        "Tilda Berg",
        "Umut Demir",
        "Vera Kowalska",
    ),
    *(
        "Wim de Vries",
        "Xenia Papadaki",
        "Yusuf Rahman",
        "Zoe Laurent",
        "Anton Kraus",
        "Bea Rossi",
        "Carl Jansen",
    ),
)
OTHER_PUPILS = ("Dora Szabó", "Elias Moreau", "Frida Nyberg", "Gino Bianchi", "Hana Sato", "Ivan Petrov")


@dataclass(frozen=True, slots=True)
class Login:
    """A user name and its password, in clear: it is shown to whoever started the demonstration."""

    username: str
    password: str


def prepare(known: dict[str, Any], *, url: str) -> dict[str, Any]:
    """The content of demo.json. `known` is that of an earlier start; what of it still holds is kept."""
    with transaction.atomic():
        logins = {name: _login(name, known) for name in ("admin", "teacher", "other_teacher")}
        users = {user.username: user for user in User.objects.filter(username__in=logins)}
        school, _ = School.objects.get_or_create(name=SCHOOL, defaults={"time_zone": "UTC"})
        App.objects.get_or_create(name=APP_NAME, defaults={"title": "Simulated maths"})
        classroom = _classroom(school, CLASS, users["teacher"], PUPILS, "demo")
        _classroom(school, OTHER_CLASS, users["other_teacher"], OTHER_PUPILS, "demo-other")
        keys = {name: _key(name, users[owner], scopes, known) for name, (owner, scopes) in KEYS.items()}
        pupils = Enrollment.objects.filter(classroom=classroom, ended_on=None).order_by("student_id")
        return {
            "url": url,
            "logins": {
                name: {"username": one.username, "password": one.password} for name, one in logins.items()
            },
            "keys": keys,
            "classroom_id": str(classroom.id),
            "student_ids": list(pupils.values_list("student_id", flat=True)),
        }


def as_shell_variables(content: dict[str, Any]) -> str:
    """The content of demo.json that a shell wants: `. demo.env`, then paste an example."""
    variables = {
        "GAIA_URL": content["url"],
        **{f"GAIA_{name.upper()}_KEY": secret for name, secret in content["keys"].items()},
        "GAIA_CLASSROOM_ID": content["classroom_id"],
        "GAIA_STUDENT_ID": content["student_ids"][0],
    }
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


def _login(name: str, known: dict[str, Any]) -> Login:
    """The user of this name; a password that is no longer known, or was changed, is replaced."""
    user, _ = User.objects.get_or_create(username=name)
    password = known.get("logins", {}).get(name, {}).get("password", "")
    if not (password and user.check_password(password)):
        password = secrets.token_urlsafe(12)
        user.set_password(password)
    user.is_staff = user.is_superuser = name == "admin"
    user.is_active = True
    user.save()
    return Login(name, password)


def _classroom(school: School, name: str, teacher: User, pupils: tuple[str, ...], prefix: str) -> Classroom:
    classroom, _ = Classroom.objects.get_or_create(
        school=school, name=name, defaults={"subject": SUBJECT, "app_names": [APP_NAME]}
    )
    ClassroomTeacher.objects.get_or_create(classroom=classroom, user=teacher)
    for index, display_name in enumerate(pupils):
        student, _ = Student.objects.update_or_create(
            student_id=f"{prefix}-{index + 1:02d}", defaults={"display_name": display_name, "school": school}
        )
        seat = f"{'ABCDEF'[index % SEATS_A_ROW]}{index // SEATS_A_ROW + 1}"
        Enrollment.objects.get_or_create(
            classroom=classroom, student=student, ended_on=None, defaults={"seat": seat}
        )
    return classroom


def _key(name: str, owner: User, scopes: list[Scope], known: dict[str, Any]) -> str:
    """The secret of the key of this name: the known one if it still opens, else a new one in place of the old."""
    secret = known.get("keys", {}).get(name, "")
    if secret and _opens(secret, owner):
        return str(secret)
    ApiKey.objects.filter(name=KEY_MARK + name, revoked_at=None).update(revoked_at=timezone.now())
    _, secret = issue_key(name=KEY_MARK + name, owner=owner, scopes=[str(scope) for scope in scopes])
    return secret


def _opens(secret: str, owner: User) -> bool:
    try:
        return principal_of(secret).user == owner
    except Problem:
        return False
