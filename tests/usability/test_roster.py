"""Rosters as OneRoster 1.2 CSV: what is read, what is refused and where, what changes and what never does."""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from usability.roster import parse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILES = ("orgs", "academicSessions", "courses", "classes", "users", "roles", "enrollments")

BULK = {
    "orgs": "sourcedId,status,dateLastModified,name,type\no1,,,Oak Road School,school\nd1,,,The District,district\n",
    "classes": (
        "sourcedId,status,dateLastModified,title,schoolSourcedId,termSourcedIds,subjects,courseSourcedId\n"
        'c1,,,7B Maths,o1,,"Maths,Logic",\nc2,,,8C Science,o1,,Science,\n'
    ),
    "users": (
        "sourcedId,status,dateLastModified,enabledUser,username,givenName,familyName,identifier,primaryOrgSourcedId\n"
        "u1,,,true,x11,Amara,Obi,S-001,o1\n"
        "u2,,,true,x12,Bartek,Wolski,,o1\n"
        "u3,,,true,chiyo@school.example,Chiyo,Sato,not an id,o1\n"
        "t1,,,true,ms.novak,Nina,Novak,,o1\n"
        "t2,,,true,mr.aide,Adam,Ide,,o1\n"
    ),
    "roles": (
        "sourcedId,status,dateLastModified,userSourcedId,roleType,role,orgSourcedId\n"
        "r1,,,u1,primary,student,o1\nr2,,,u2,primary,student,o1\nr3,,,u3,primary,student,o1\n"
        "r4,,,t1,primary,teacher,o1\nr5,,,t2,primary,aide,o1\n"
    ),
    "enrollments": (
        "sourcedId,status,dateLastModified,classSourcedId,schoolSourcedId,userSourcedId,role,primary,beginDate,endDate\n"
        "e1,,,c1,o1,u1,student,,,\ne2,,,c1,o1,u2,student,,,\ne3,,,c2,o1,u3,student,,,\n"
        "e4,,,c1,o1,t1,teacher,true,,\ne5,,,c1,o1,t2,teacher,,,\n"
    ),
}
DELTA_ENROLLMENTS = "sourcedId,status,dateLastModified,classSourcedId,userSourcedId,role\n"
NOW = "2026-09-01T08:00:00Z"


def manifest(modes: dict[str, str], version: str = "1.2") -> str:
    lines = ["propertyName,value", "manifest.version,1.0", f"oneroster.version,{version}"]
    return "\n".join([*lines, *(f"file.{name},{modes.get(name, 'absent')}" for name in FILES)])


def zipped(files: dict[str, str | bytes], mode: str = "bulk", **more: str | bytes) -> bytes:
    """A zip of these files, with a manifest that names them unless one is given."""
    out = io.BytesIO()
    files = {"manifest": manifest(dict.fromkeys(files, mode)), **files, **more}
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name if "." in name else f"{name}.csv", text)
    return out.getvalue()


@pytest.fixture
def written(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(raw: bytes) -> Path:
        path = tmp_path / "roster.zip"
        path.write_bytes(raw)
        return path

    return write


@pytest.fixture
def run(db: None, written: Callable[[bytes], Path]) -> Callable[..., dict[str, Any]]:
    """Import a zip; gives what `--json` prints."""

    def go(raw: bytes, *flags: str) -> dict[str, Any]:
        out = io.StringIO()
        call_command("import_roster", str(written(raw)), "--json", *flags, stdout=out)
        return json.loads(out.getvalue())

    return go


def everything() -> dict[str, Any]:
    """All rows an import may touch, with every column."""
    from django.contrib.auth import get_user_model

    from usability.models import Classroom, ClassroomTeacher, Enrollment, School, Student

    models = (School, Classroom, Student, Enrollment, ClassroomTeacher, get_user_model())
    return {model.__name__: list(model.objects.order_by("pk").values()) for model in models}


def places() -> set[tuple[str, str]]:
    from usability.models import Enrollment

    return set(Enrollment.objects.current().values_list("classroom__sourced_id", "student_id"))


def teachers() -> set[tuple[str, str, str]]:
    from usability.models import ClassroomTeacher

    return set(ClassroomTeacher.objects.values_list("classroom__sourced_id", "user__username", "role"))


def writes_nothing(told: dict[str, Any]) -> bool:
    tables = ("schools", "classes", "pupils", "places", "accounts", "teachers")
    return not any(told[name][verb] for name in tables for verb in ("added", "changed", "ended"))


def without(name: str, *sourced_ids: str) -> dict[str, str]:
    lines = BULK[name].splitlines(keepends=True)
    return BULK | {name: "".join(line for line in lines if line.split(",")[0] not in sourced_ids)}


def edited(name: str, old: str, new: str) -> dict[str, str]:
    assert old in BULK[name]
    return BULK | {name: BULK[name].replace(old, new)}


# ---------------------------------------------------------------- a first import


def test_a_bulk_roster_becomes_schools_classes_pupils_and_teachers(run: Any) -> None:
    from usability.models import Classroom, School

    told = run(zipped(BULK))

    assert told["applied"]
    assert [school.name for school in School.objects.all()] == ["Oak Road School"]
    assert list(Classroom.objects.values_list("name", "subject")) == [
        ("7B Maths", "Maths"),
        ("8C Science", "Science"),
    ]
    assert {("c1", "S-001"), ("c1", "x12")} < places()
    assert teachers() == {("c1", "ms.novak", "lead"), ("c1", "mr.aide", "assistant")}


def test_a_teacher_gets_an_account_nobody_can_sign_in_to_and_no_right_beyond_the_class(
    run: Any, django_user_model: Any
) -> None:
    run(zipped(BULK))

    account = django_user_model.objects.get(username="ms.novak")
    assert not account.has_usable_password()
    assert (account.first_name, account.last_name) == ("Nina", "Novak")
    assert not account.is_staff
    assert not account.is_superuser


def test_an_account_that_is_there_is_used_and_left_as_it_is(run: Any, django_user_model: Any) -> None:
    django_user_model.objects.create_user("ms.novak", first_name="Mine", password="a-password-of-hers")

    run(zipped(BULK))

    account = django_user_model.objects.get(username="ms.novak")
    assert account.first_name == "Mine"
    assert account.has_usable_password()


def test_the_name_of_a_pupil_is_its_display_name_and_in_no_other_place(run: Any) -> None:
    from usability.models import Student

    told = run(zipped(BULK))

    assert Student.objects.get(student_id="S-001").display_name == "Amara Obi"
    names = ("amara", "obi", "bartek", "wolski", "chiyo", "sato")
    rows = everything()
    kept = [{k: v for k, v in row.items() if k != "display_name"} for row in rows["Student"]]
    stored = str([kept, rows["Enrollment"], told]).casefold()
    assert not [name for name in names if name in stored]


def test_a_pupil_without_a_usable_id_gets_a_stable_pseudonym_that_needs_the_key(
    run: Any, settings: Any
) -> None:
    from usability.models import Student
    from usability.roster.apply import pseudonym_of

    run(zipped(BULK))

    given_id = Student.objects.get(sourced_id="u3").student_id
    assert given_id == pseudonym_of("u3")
    settings.SECRET_KEY = "another-key-of-at-least-thirty-two-characters"
    assert pseudonym_of("u3") != given_id
    assert writes_nothing(run(zipped(BULK)))


def test_an_id_that_tells_the_name_is_no_pseudonym(run: Any) -> None:
    from usability.models import Student

    run(zipped(edited("users", "x12,Bartek", "b.wolski,Bartek")))

    assert Student.objects.get(sourced_id="u2").student_id.startswith("p-")


def test_an_id_two_pupils_have_is_nobodys_pseudonym(run: Any) -> None:
    from usability.models import Student

    run(zipped(edited("users", "Wolski,,", "Wolski,S-001,")))

    assert {row.sourced_id: row.student_id for row in Student.objects.all()}.items() >= {
        ("u1", "x11"),
        ("u2", "x12"),
    }


def test_a_pupil_an_app_has_named_before_is_taken_over(run: Any) -> None:
    from usability.models import Student

    Student.objects.ensure(["S-001"], app_name="fractions-lab")

    told = run(zipped(BULK))

    assert [row["student_id"] for row in told["pupils"]["changed"]] == ["S-001"]
    pupil = Student.objects.get(student_id="S-001")
    assert (pupil.sourced_id, pupil.display_name, pupil.first_seen_app) == (
        "u1",
        "Amara Obi",
        "fractions-lab",
    )


def test_a_pseudonym_stays_when_the_identifier_changes(run: Any) -> None:
    from usability.models import Student

    run(zipped(BULK))

    run(zipped(edited("users", "S-001", "S-999")))

    assert Student.objects.get(sourced_id="u1").student_id == "S-001"


# ---------------------------------------------------------------- again, and dry


def test_importing_the_same_file_twice_changes_nothing(run: Any) -> None:
    run(zipped(BULK))
    before = everything()

    told = run(zipped(BULK))

    assert writes_nothing(told)
    assert not told["applied"]
    assert everything() == before


def test_a_dry_run_tells_what_would_change_and_writes_nothing(run: Any) -> None:
    before = everything()

    told = run(zipped(BULK), "--dry-run")

    assert len(told["pupils"]["added"]) == 3
    assert not told["applied"]
    assert everything() == before


def test_a_dry_run_tells_the_same_as_the_import_after_it(run: Any) -> None:
    run(zipped(BULK))
    later = zipped(without("enrollments", "e2", "e5"))

    dry, real = run(later, "--dry-run"), run(later)

    told = ("schools", "classes", "pupils", "places", "accounts", "teachers", "orphans", "skipped")
    assert {name: dry[name] for name in told} == {name: real[name] for name in told}


def named(row: tuple[str, ...]) -> tuple[str, ...]:
    """A row to nowhere has an id of its own: an orphan leaves the place that the database has by that id."""
    key, room, user, role, end = row
    return (f"x{key}" if room == "c9" or user == "u9" else key, room, user, role, end)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    rosters=st.lists(
        st.lists(
            st.tuples(
                st.sampled_from(["e1", "e2", "e3", "e4"]),
                st.sampled_from(["c1", "c2", "c9"]),
                st.sampled_from(["u1", "u2", "u3", "t1", "u9"]),
                st.sampled_from(["student", "teacher", "proctor"]),
                st.sampled_from(["", "2020-01-01", "2999-01-01"]),
            ),
            unique_by=lambda row: row[0],
            max_size=4,
        ),
        min_size=1,
        max_size=3,
    )
)
def test_after_any_rosters_the_last_one_again_changes_nothing_and_the_classes_are_as_it_says(
    run: Any, rosters: list[list[tuple[str, ...]]]
) -> None:
    header = "sourcedId,classSourcedId,userSourcedId,role,endDate\n"
    for rows in rosters:
        raw = zipped(BULK | {"enrollments": header + "".join(",".join(named(row)) + "\n" for row in rows)})
        run(raw)
    before = everything()

    assert writes_nothing(run(raw))

    assert everything() == before
    from usability.models import Student

    pupils = dict(Student.objects.values_list("sourced_id", "student_id"))
    assert places() == {
        (room, pupils[user])
        for _, room, user, role, end in rosters[-1]
        if role == "student" and room != "c9" and user != "u9" and end != "2020-01-01"
    }


# ---------------------------------------------------------------- what ends and what does not


def test_a_pupil_who_is_not_in_the_next_bulk_file_leaves_the_class_and_keeps_the_row(run: Any) -> None:
    from usability.models import Enrollment, Student

    run(zipped(BULK))

    told = run(zipped(without("enrollments", "e2")))

    assert [row["student_id"] for row in told["places"]["ended"]] == ["x12"]
    assert Enrollment.objects.get(sourced_id="e2").ended_on is not None
    assert Student.objects.filter(student_id="x12").exists()


def test_a_pupil_who_comes_back_sits_in_no_seat_somebody_else_has_by_now(run: Any) -> None:
    from usability.models import Enrollment

    run(zipped(BULK))
    Enrollment.objects.filter(sourced_id="e2").update(seat="A1")
    run(zipped(without("enrollments", "e2")))
    Enrollment.objects.filter(sourced_id="e1").update(seat="A1")

    run(zipped(BULK))

    back = Enrollment.objects.get(sourced_id="e2")
    assert (back.ended_on, back.seat) == (None, "")


def test_an_export_with_new_enrollment_numbers_keeps_every_seat(run: Any) -> None:
    from usability.models import Enrollment

    run(zipped(BULK))
    Enrollment.objects.filter(sourced_id="e1").update(seat="A1")

    run(zipped(edited("enrollments", "\ne1,", "\nnew1,")))

    assert Enrollment.objects.current().get(student_id="S-001").seat == "A1"
    assert Enrollment.objects.current().get(student_id="S-001").sourced_id == "new1"


def test_two_enrollments_that_swap_their_numbers_are_swapped(run: Any) -> None:
    run(zipped(BULK))
    before = places()
    text = BULK["enrollments"].replace("\ne1,", "\ntmp,").replace("\ne2,", "\ne1,").replace("\ntmp,", "\ne2,")

    run(zipped(BULK | {"enrollments": text}))

    assert places() == before


def test_a_teacher_who_is_not_in_the_next_bulk_file_sees_the_class_no_more(run: Any) -> None:
    run(zipped(BULK))

    run(zipped(without("enrollments", "e4")))

    assert teachers() == {("c1", "mr.aide", "assistant")}


def test_a_class_that_is_not_in_the_next_bulk_file_is_archived_and_comes_back(run: Any) -> None:
    from usability.models import Classroom

    run(zipped(BULK))

    told = run(zipped(without("classes", "c2")))

    assert Classroom.objects.get(sourced_id="c2").is_archived
    assert "c2" not in {room for room, _ in places()}
    assert [row["reason"] for row in told["skipped"]] == ["the class is not in the roster any more"]
    run(zipped(BULK))
    assert not Classroom.objects.get(sourced_id="c2").is_archived
    assert "c2" in {room for room, _ in places()}


def test_what_was_made_by_hand_and_what_other_schools_have_stays(
    run: Any, other_room: Any, room: Any
) -> None:
    from usability.models import Classroom, Enrollment, Student

    run(zipped(BULK))
    by_hand = Student.objects.get(student_id="p0")
    place = Enrollment.objects.create(student=by_hand, classroom=Classroom.objects.get(sourced_id="c1"))
    other = {
        name: text.replace("o1", "o2").replace("c1", "k1").replace("c2", "k2") for name, text in BULK.items()
    }
    other["enrollments"] = BULK["enrollments"].splitlines()[0] + "\n"

    run(zipped(other))
    run(zipped(without("enrollments", "e2")))

    place.refresh_from_db()
    assert place.ended_on is None
    assert room.enrollments.current().count() == 6
    assert other_room.enrollments.current().count() == 1
    assert ("c1", "S-001") in places()


def test_a_delta_changes_what_it_names_and_nothing_else(run: Any) -> None:
    run(zipped(BULK))
    text = DELTA_ENROLLMENTS + f"e2,tobedeleted,{NOW},c1,u2,student\ne9,active,{NOW},c2,u1,student\n"

    run(zipped({"enrollments": text}, "delta"))

    from usability.roster.apply import pseudonym_of

    assert places() == {("c1", "S-001"), ("c2", "S-001"), ("c2", pseudonym_of("u3"))}
    assert len(teachers()) == 2


def test_a_delta_ends_a_teacher_whose_user_it_names(run: Any) -> None:
    run(zipped(BULK))
    users = "sourcedId,status,dateLastModified,username,givenName,familyName\n"
    users += f"t1,active,{NOW},ms.novak,Nina,Novak\n"

    run(
        zipped(
            {"users": users, "enrollments": f"{DELTA_ENROLLMENTS}e4,tobedeleted,{NOW},c1,t1,teacher\n"},
            "delta",
        )
    )

    assert teachers() == {("c1", "mr.aide", "assistant")}


def test_a_delta_that_deletes_a_user_ends_every_place_of_it(run: Any) -> None:
    run(zipped(BULK))
    users = "sourcedId,status,dateLastModified,username,givenName,familyName\n"

    run(zipped({"users": f"{users}u1,tobedeleted,{NOW},,,\n"}, "delta"))

    assert "S-001" not in {student_id for _, student_id in places()}


def test_a_pupil_who_is_deleted_takes_no_class_from_an_account_of_the_same_username(run: Any) -> None:
    run(zipped(edited("users", "x11", "ms.novak")))
    users = "sourcedId,status,dateLastModified,username,givenName,familyName\n"

    run(zipped({"users": f"{users}u1,tobedeleted,{NOW},ms.novak,,\n"}, "delta"))

    assert ("c1", "ms.novak", "lead") in teachers()


def test_a_teacher_who_is_disabled_sees_no_class_any_more(run: Any) -> None:
    run(zipped(BULK))

    run(zipped(edited("users", "true,ms.novak", "false,ms.novak")))

    assert teachers() == {("c1", "mr.aide", "assistant")}


def test_a_bulk_file_that_cannot_tell_who_teaches_takes_nobody_away(run: Any) -> None:
    run(zipped(BULK))

    run(zipped({"enrollments": BULK["enrollments"]}))

    assert len(teachers()) == 2
    assert len(places()) == 3


def test_orphans_are_told_with_their_line_and_the_rest_is_imported(run: Any) -> None:
    more = "o1x,,,c9,o1,u1,student,,,\no2x,,,c1,o1,u9,student,,,\no3x,,,c1,o1,t9,teacher,,,\n"

    told = run(zipped(BULK | {"enrollments": BULK["enrollments"] + more}))

    assert {(row["sourced_id"], row["line"]) for row in told["orphans"]} == {
        ("o1x", 7),
        ("o2x", 8),
        ("o3x", 9),
    }
    assert len(places()) == 3


def test_an_enrollment_holds_from_its_first_day_until_the_day_before_its_end(written: Any, db: None) -> None:
    import datetime as dt

    from usability.roster.apply import import_roster

    text = BULK["enrollments"].replace("u1,student,,,", "u1,student,,2026-09-01,2027-07-01")
    roster = parse.read_roster(written(zipped(BULK | {"enrollments": text})))
    seen = {}
    for day in ("2026-08-31", "2026-09-01", "2027-06-30", "2027-07-01"):
        today = dt.date.fromisoformat(day)
        import_roster(roster, today=today, now=dt.datetime(2026, 8, 1, tzinfo=dt.UTC))
        seen[day] = ("c1", "S-001") in places()

    assert list(seen.values()) == [False, True, True, False]


def test_a_class_whose_terms_are_over_is_not_made(run: Any) -> None:
    from usability.models import Classroom

    files = edited("classes", "8C Science,o1,,", "8C Science,o1,y1,")
    files["academicSessions"] = "sourcedId,title,endDate\ny1,Last year,2020-07-01\n"

    run(zipped(files))

    assert not Classroom.objects.filter(sourced_id="c2").exists()


# ---------------------------------------------------------------- reading


def test_columns_in_any_order_a_byte_order_mark_and_unknown_columns_and_files_are_read(run: Any) -> None:
    files = dict(BULK)
    files["orgs"] = b"\xef\xbb\xbf" + b"extra,type,name,sourcedId\r\n,school,Oak Road School,o1\r\n"
    more = {"lineItems": "anything", "__MACOSX/manifest": b"\x00"}

    told = run(zipped(files, manifest=manifest(dict.fromkeys(files, "bulk")), **more))

    assert [row["name"] for row in told["schools"]["added"]] == ["Oak Road School"]


def test_files_that_may_be_missing_may_be_missing(run: Any) -> None:
    files = {name: text for name, text in BULK.items() if name != "roles"}

    run(zipped(files))

    assert len(places()) == 3
    assert teachers() == {("c1", "ms.novak", "lead"), ("c1", "mr.aide", "co_teacher")}


MODES = dict.fromkeys(BULK, "bulk")
REFUSED = {
    "a date": (
        edited("enrollments", "e1,,,c1,o1,u1,student,,,", "e1,,,c1,o1,u1,student,,,soon"),
        "enrollments.csv, line 2, column endDate: a date such as 2026-09-01, not 'soon'",
    ),
    "a missing column": (edited("orgs", ",type", ",sort"), "orgs.csv, line 1, column type: is missing"),
    "a column twice": (
        edited("orgs", ",type", ",name"),
        "orgs.csv, line 1, column name: is there more than once",
    ),
    "too few cells": (
        edited("orgs", "o1,,,Oak Road School,school", "o1,school"),
        "orgs.csv, line 2: 2 columns, and the header has 5",
    ),
    "an empty sourcedId": (edited("orgs", "o1,,", ",,"), "orgs.csv, line 2, column sourcedId: is empty"),
    "a sourcedId twice": (
        edited("users", "u2,", "u1,"),
        "users.csv, line 3, column sourcedId: 'u1' stands in line 2 already",
    ),
    "a quote left open": (edited("orgs", "Oak Road", '"Oak Road'), "orgs.csv, line 2: is not CSV"),
    "an unknown status": (
        edited("orgs", "o1,,", "o1,gone,"),
        "orgs.csv, line 2, column status: active or tobedeleted, not 'gone'",
    ),
    "a control character": (
        edited("orgs", "Oak", "O\x00k"),
        "orgs.csv, line 2, column name: has a control character",
    ),
    "a title too long": (
        edited("classes", "7B Maths", "7" * 201),
        "classes.csv, line 2, column title: at most 200 characters, not 201",
    ),
    "latin-1": (
        BULK | {"orgs": BULK["orgs"].replace("Oak", "Caf\xe9").encode("latin-1")},
        "orgs.csv, line 2: byte 9 of the line is not UTF-8",
    ),
    "UTF-16": (
        BULK | {"orgs": BULK["orgs"].encode("utf-16")},
        "orgs.csv, line 1: is UTF-16; save it as UTF-8",
    ),
    "an empty file": (BULK | {"orgs": ""}, "orgs.csv, line 1: has no header"),
    "no manifest": (BULK | {"manifest.txt": "", "manifest": None}, "manifest.csv: is missing"),
    "another version": (
        BULK | {"manifest": manifest(MODES, "1.1")},
        "manifest.csv, line 3, column value: oneroster.version is 1.2 here, not '1.1'",
    ),
    "a file that is not there": (
        BULK | {"manifest": manifest(MODES | {"courses": "bulk"})},
        "courses.csv: is missing, and the manifest says bulk",
    ),
    "a file that should not be there": (
        BULK | {"manifest": manifest(MODES | {"roles": "absent"})},
        "roles.csv: is there, and the manifest says absent",
    ),
    "an unknown mode": (
        BULK | {"manifest": manifest(MODES | {"roles": "some"})},
        "column value: file.roles is bulk, delta or absent, not 'some'",
    ),
    "a delta without its columns": (
        BULK | {"manifest": manifest(MODES | {"roles": "delta"})},
        "roles.csv, line 2, column status: a delta needs active",
    ),
    "a folder": (
        {"school/manifest.csv": manifest(MODES), "manifest": None},
        "school/manifest.csv: lies in a folder",
    ),
    "two teachers of one username": (
        BULK | {"users": BULK["users"].replace("mr.aide", "ms.novak")},
        "users.csv, line 6, column username: is the username of line 5 too",
    ),
    "a teacher without a username": (
        BULK | {"users": BULK["users"].replace("mr.aide", "")},
        "users.csv, line 6, column username: is empty",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_told_by_file_line_and_column_and_nothing_is_written(run: Any, name: str) -> None:
    files, sentence = REFUSED[name]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for file, text in {"manifest": manifest(MODES), **files}.items():
            if text is not None:
                archive.writestr(file if "." in file else f"{file}.csv", text)
    before = everything()

    with pytest.raises(CommandError) as refused:
        run(out.getvalue())

    assert sentence in str(refused.value)
    assert "Nothing was changed." in str(refused.value)
    assert everything() == before


def test_many_mistakes_are_told_in_one_go_and_bounded(run: Any) -> None:
    rows = "".join(f"x{n},,,c1,o1,u1,student,perhaps,,\n" for n in range(50))

    with pytest.raises(CommandError) as refused:
        run(zipped(BULK | {"enrollments": BULK["enrollments"] + rows}))

    assert str(refused.value).count("true or false") == 20
    assert "and 30 more" in str(refused.value)


def test_a_line_number_counts_lines_inside_quotes(run: Any) -> None:
    text = BULK["orgs"].replace("Oak Road School", '"Oak\nRoad"') + "x,odd,,Name,school\n"

    with pytest.raises(CommandError, match=r"orgs.csv, line 5, column status"):
        run(zipped(BULK | {"orgs": text}))


def test_no_more_is_unpacked_than_may_be(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse, "FILE_LIMIT_BYTES", 100_000)

    with pytest.raises(CommandError, match=r"users.csv: unpacks to more than 100000 bytes"):
        run(zipped(BULK | {"users": BULK["users"] + "0" * 5_000_000}))


def test_all_files_together_have_a_bound_too(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse, "TOTAL_LIMIT_BYTES", 500)

    with pytest.raises(CommandError, match=r"unpacks to more than"):
        run(zipped(BULK))


@pytest.mark.parametrize("raw", [b"", b"sourcedId,name", b"PK\x03\x04 and no more"])
def test_what_is_no_zip_is_refused_in_a_sentence(run: Any, raw: bytes) -> None:
    with pytest.raises(CommandError, match="is not a zip that can be read"):
        run(raw)


def test_a_damaged_zip_is_refused_in_a_sentence(run: Any) -> None:
    raw = bytearray(zipped(BULK))
    at = raw.index(b"orgs.csv") + 20
    raw[at : at + 8] = bytes(byte ^ 0xFF for byte in raw[at : at + 8])

    with pytest.raises(CommandError, match="is not a zip that can be read"):
        run(bytes(raw))


def test_a_file_that_is_not_there_is_told(db: None, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be read"):
        call_command("import_roster", str(tmp_path / "none.zip"))


def test_people_read_counts_rows_and_what_was_done(db: None, written: Any) -> None:
    path = str(written(zipped(BULK)))
    out = io.StringIO()

    call_command("import_roster", path, "--dry-run", stdout=out)
    call_command("import_roster", path, stdout=out)
    call_command("import_roster", path, stdout=out)

    assert "  + pupils: u1 S-001" in out.getvalue()
    assert [line for line in out.getvalue().splitlines() if line.endswith(".")] == [
        "Dry run: nothing was written.",
        "Applied.",
        "Nothing to change.",
    ]


def test_an_import_takes_the_same_number_of_statements_for_more_pupils(
    db: None, written: Any, django_assert_max_num_queries: Any
) -> None:
    pupils = range(500)
    users = BULK["users"] + "".join(f"v{n},,,true,w{n},Ann,Other,,o1\n" for n in pupils)
    rows = BULK["enrollments"] + "".join(f"f{n},,,c1,o1,v{n},student,,,\n" for n in pupils)
    path = str(written(zipped(BULK | {"users": users, "enrollments": rows})))

    with django_assert_max_num_queries(60):
        call_command("import_roster", path, stdout=io.StringIO())

    assert len(places()) == 503
