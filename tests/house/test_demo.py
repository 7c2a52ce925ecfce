"""The demonstration: its people and keys, its errands, and that it comes through the public API."""

from __future__ import annotations

import hashlib
import json
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import urllib3
from django.contrib.auth.models import User
from django.core.management import call_command

from gaia_site.demo import errand, errands, load, setting
from gaia_site.demo.errand import ROOT, WrongErrand
from gaia_site.keys import principal_of
from gaia_site.models import ApiKey
from gaia_site.problems import Problem
from usability.models import Classroom, Enrollment, Student

URL = "http://127.0.0.1:8000"


@pytest.fixture
def made(db: None) -> dict[str, Any]:
    """A demonstration made from nothing."""
    return setting.prepare({}, url=URL)


def test_its_file_has_the_agreed_shape(made: dict[str, Any]) -> None:
    assert set(made) == {"url", "logins", "keys", "classroom_id", "student_ids"}
    assert set(made["logins"]) == {"admin", "teacher", "other_teacher"}
    assert all(set(login) == {"username", "password"} for login in made["logins"].values())
    assert set(made["keys"]) == {"agent", "metrics", "admin", "teacher"}
    assert len(made["student_ids"]) == 28


def test_its_logins_work_and_the_admin_alone_is_staff(made: dict[str, Any]) -> None:
    users = {user.username: user for user in User.objects.all()}

    assert all(
        users[login["username"]].check_password(login["password"]) for login in made["logins"].values()
    )
    assert {name for name, user in users.items() if user.is_staff} == {"admin"}


def test_its_keys_have_the_scopes_of_their_names(made: dict[str, Any]) -> None:
    scopes = {name: principal_of(secret).scopes for name, secret in made["keys"].items()}

    assert scopes["agent"] == {"agent"}
    assert scopes["metrics"] == {"metrics:write", "metrics:read"}
    assert "admin" in scopes["admin"]
    assert scopes["teacher"] == {"teacher"}
    assert principal_of(made["keys"]["teacher"]).user.get_username() == "teacher"


def test_each_teacher_has_a_class_of_their_own(made: dict[str, Any]) -> None:
    taught = {
        name: set(Classroom.objects.filter(teachers__user__username=name).values_list("id", flat=True))
        for name in ("teacher", "other_teacher")
    }
    pupils = Enrollment.objects.filter(classroom_id=made["classroom_id"])

    assert {str(one) for one in taught["teacher"]} == {made["classroom_id"]}
    assert taught["teacher"].isdisjoint(taught["other_teacher"])
    assert set(pupils.values_list("student_id", flat=True)) == set(made["student_ids"])
    assert "simulated" in Classroom.objects.get(pk=made["classroom_id"]).name


def test_made_again_it_changes_nothing(made: dict[str, Any]) -> None:
    counts = [model.objects.count() for model in (User, ApiKey, Classroom, Student, Enrollment)]

    again = setting.prepare(made, url=URL)

    assert again == made
    assert [model.objects.count() for model in (User, ApiKey, Classroom, Student, Enrollment)] == counts


def test_after_its_file_was_lost_new_secrets_replace_the_old_ones(made: dict[str, Any]) -> None:
    again = setting.prepare({}, url=URL)

    assert again["student_ids"] == made["student_ids"]
    assert ApiKey.objects.filter(revoked_at=None).count() == len(setting.KEYS)
    assert principal_of(again["keys"]["agent"]).scopes == {"agent"}
    with pytest.raises(Problem):
        principal_of(made["keys"]["agent"])


def test_a_shell_can_read_what_it_needs(made: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "demo.env"
    file.write_text(setting.as_shell_variables(made))

    script = (
        f'. {shlex.quote(str(file))}; echo "$GAIA_URL $GAIA_AGENT_KEY $GAIA_METRICS_KEY $GAIA_STUDENT_ID"'
    )
    said = subprocess.run(
        ["/bin/sh", "-c", script], capture_output=True, text=True, check=True, timeout=10
    ).stdout

    assert said.split() == [URL, made["keys"]["agent"], made["keys"]["metrics"], made["student_ids"][0]]


@pytest.mark.django_db
def test_the_command_writes_files_that_nobody_else_may_read(settings: Any, tmp_path: Path) -> None:
    import dataclasses

    settings.GAIA = dataclasses.replace(settings.GAIA, data_dir=tmp_path / "data")

    call_command("demo_setup", url=URL)

    for name in ("demo.json", "demo.env"):
        assert stat.S_IMODE((tmp_path / "data" / name).stat().st_mode) == 0o600
    assert json.loads((tmp_path / "data" / "demo.json").read_text())["url"] == URL


def run_errand(task: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, errand.__file__],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_an_errand_takes_its_task_from_stdin_and_leaves_its_result_on_stdout() -> None:
    done = run_errand({"task_type": "checksum", "task_data": {"path": "LICENSE"}})

    expected = hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest()
    assert (done.returncode, json.loads(done.stdout)["sha256"]) == (0, expected)


def test_an_errand_that_cannot_be_done_fails_with_its_reason() -> None:
    done = run_errand({"task_type": "checksum", "task_data": {"path": "../../etc/passwd"}})

    assert done.returncode == 1
    assert "not a small file of the checkout" in done.stderr


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one module."""
    monkeypatch.setattr(errand, "ROOT", tmp_path)
    (tmp_path / "module.py").write_text("# why\n\ndef f():\n    return 1\n\n\nclass C:\n    pass\n")
    return tmp_path / "module.py"


@pytest.mark.parametrize(
    ("task_type", "result"),
    [
        ("count_lines", {"lines": 8, "blank": 3, "comments": 1, "code": 4}),
        ("check_syntax", {"functions": 1, "classes": 1}),
        ("find_long_functions", {"longest": [{"name": "f", "lines": 2}]}),
    ],
)
def test_errands_are_real_work(module: Path, task_type: str, result: dict[str, Any]) -> None:
    assert errand.run({"task_type": task_type, "task_data": {"path": module.name}}) == result


def test_a_survey_looks_at_a_whole_folder(module: Path) -> None:
    assert errand.run({"task_type": "survey", "task_data": {"folder": "."}}) == {"files": 1, "lines": 8}


def test_a_module_that_does_not_parse_fails_its_errand(module: Path) -> None:
    module.write_text("def f(:\n")

    with pytest.raises(SyntaxError):
        errand.run({"task_type": "check_syntax", "task_data": {"path": module.name}})


@pytest.mark.parametrize(
    "task",
    [
        {"task_type": "delete", "task_data": {"path": "module.py"}},
        {"task_type": "count_lines", "task_data": {"path": "/etc/passwd"}},
        {"task_type": "count_lines", "task_data": {}},
        {"task_type": "survey", "task_data": {"folder": ".."}},
    ],
)
def test_what_is_no_errand_here_is_refused(module: Path, task: dict[str, Any]) -> None:
    with pytest.raises(WrongErrand):
        errand.run(task)


def test_one_round_goes_over_every_file_once() -> None:
    paths = [path for one in errands.round_of() for path in one.paths]

    assert len(paths) == len(set(paths)) > 50
    assert all((ROOT / path).is_file() for path in paths)


def test_a_lesson_ends_with_a_survey_that_waits_for_all_the_rest() -> None:
    first = next(errands.round_of())
    tasks = first.tasks("lesson-1")

    survey = first.survey("lesson-1", ["a", "b"])

    assert (
        len({task["idempotency_key"] for task in tasks})
        == len(tasks)
        == len(first.paths) * len(errand.ERRANDS)
    )
    assert survey["depends_on"] == ["a", "b"]
    assert {task["lesson_id"] for task in [*tasks, survey]} == {"lesson-1"}


class Answers:
    """The API's end of the wire, as a list of what was posted; `refusing` makes it unreachable."""

    def __init__(self) -> None:
        self.posted: list[tuple[str, Any]] = []
        self.refusing = False

    def post(self, path: str, body: Any, *, idempotency_key: str) -> Any:
        if self.refusing:
            raise urllib3.exceptions.ConnectTimeoutError
        self.posted.append((path, body))
        return (
            {"id": "lesson"} if path == "lessons" else [{"id": f"task-{index}"} for index in range(len(body))]
        )


def test_what_the_class_did_while_the_site_was_away_is_sent_later() -> None:
    answers = Answers()
    lesson = load.ClassAtWork(answers, ["demo-01", "demo-02"], now_ms=load.wall_clock_ms())

    answers.refusing = True
    with pytest.raises(urllib3.exceptions.HTTPError):
        lesson.send()
    answers.refusing = False
    lesson.send()

    sent = [metric for _, body in answers.posted for metric in body["metrics"]]
    assert {metric["student_id"] for metric in sent} == {"demo-01", "demo-02"}
    assert len({body["batch_id"] for _, body in answers.posted}) == len(answers.posted)


def test_each_errand_of_a_lesson_is_given_before_its_survey() -> None:
    answers = Answers()

    load.ErrandGiver(answers).give()

    (_, lesson), (_, tasks), (_, survey) = answers.posted
    assert lesson["project"] == errands.PROJECT
    assert survey["depends_on"] == [f"task-{index}" for index in range(len(tasks))]


def test_an_activity_that_fails_is_tried_again_when_it_is_due() -> None:
    tried = []

    def fail() -> None:
        tried.append(1)
        raise load.Refused("503")

    activity = load.Repeating("errands", 20.0, fail)

    assert [activity.step(now) for now in (100.0, 101.0, 120.0)] == [True, False, True]
    assert len(tried) == 2
