"""What a roster would change in the database, as data. It reads and never writes.

Rules:

- What carries no sourcedId was made by hand and is never ended here; a pupil, and a place in a class, that the
  roster names too is taken over.
- A bulk file is the whole truth about the schools it names: their classes it does not have are archived, places
  in them end, and a class it has is taught by whom it says alone. A delta changes what it names.
- Rows are never deleted: a class is archived, a place in a class ends; only the right to see a class goes.
- A row that points to something neither the file nor the database has is an orphan: told, and passed over.
- A pseudonym once given stays, whatever identifier or username a later file has.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from django.contrib.auth import get_user_model
from django.contrib.auth.validators import UnicodeUsernameValidator

from usability.kinds import TeacherRole
from usability.models import ID_PATTERN, Classroom, ClassroomTeacher, Enrollment, School, Student
from usability.roster.parse import Class, Enrolled, Issue, RosterError, RosterFile, User

PSEUDONYM_LIMIT = 50
USERNAME_LIMIT = 150
# Shorter parts of a name are in half of all ids by chance.
NAME_PART_AT_LEAST = 3

PUPIL_ROLES = frozenset({"student"})
TEACHER_ROLES = frozenset({"teacher", "aide"})

# Gives the stable pseudonym of a sourcedId; keyed, so that nobody without the key can tell whose it is.
Pseudonym = Callable[[str], str]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SchoolRow:
    """A school as it shall be."""

    sourced_id: str
    name: str


@dataclass(frozen=True, slots=True)
class ClassRow:
    """A class as it shall be; `school` is a sourcedId."""

    sourced_id: str
    school: str
    name: str
    subject: str


@dataclass(frozen=True, slots=True)
class PupilRow:
    """A pupil as it shall be; `school` is a sourcedId, or empty where the roster does not say."""

    sourced_id: str
    student_id: str
    display_name: str
    school: str


@dataclass(frozen=True, slots=True)
class AccountRow:
    """The account of a teacher nobody has an account of yet."""

    username: str
    first_name: str
    last_name: str


@dataclass(frozen=True, slots=True)
class PlaceRow:
    """A pupil's place in a class: the class by sourcedId, the pupil by pseudonym."""

    sourced_id: str
    classroom: str
    student_id: str


@dataclass(frozen=True, slots=True)
class TeacherRow:
    """Who teaches a class: the class by sourcedId, the account by username."""

    classroom: str
    username: str
    role: str


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """A row that is there and shall be `row`; `key` is its primary key, `fields` what of it changes."""

    key: Any
    row: T
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ending(Generic[T]):
    """A row that is there and shall be over; `on` is the day, where there is one."""

    key: Any
    row: T
    on: dt.date | None = None


@dataclass(slots=True)
class Diff(Generic[T]):
    """What happens to the rows of one table."""

    added: list[T] = field(default_factory=list)
    changed: list[Change[T]] = field(default_factory=list)
    ended: list[Ending[T]] = field(default_factory=list)
    unchanged: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing would be written."""
        return not (self.added or self.changed or self.ended)


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A row of the file that has no effect, and why."""

    file: str
    line: int
    sourced_id: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}, {self.sourced_id}: {self.reason}"


@dataclass(slots=True)
class Plan:
    """All a roster would do. `freed` are places that hold a sourcedId another place shall have."""

    schools: Diff[SchoolRow] = field(default_factory=Diff)
    classes: Diff[ClassRow] = field(default_factory=Diff)
    pupils: Diff[PupilRow] = field(default_factory=Diff)
    accounts: Diff[AccountRow] = field(default_factory=Diff)
    places: Diff[PlaceRow] = field(default_factory=Diff)
    teachers: Diff[TeacherRow] = field(default_factory=Diff)
    freed: list[Any] = field(default_factory=list)
    orphans: list[PassedOver] = field(default_factory=list)
    skipped: list[PassedOver] = field(default_factory=list)

    def tables(self) -> dict[str, Diff[Any]]:
        """The diffs by the words they are told in."""
        return {
            "schools": self.schools,
            "classes": self.classes,
            "pupils": self.pupils,
            "places": self.places,
            "accounts": self.accounts,
            "teachers": self.teachers,
        }

    @property
    def is_empty(self) -> bool:
        """Whether nothing would be written."""
        return not self.freed and all(diff.is_empty for diff in self.tables().values())


def plan_import(roster: RosterFile, *, today: dt.date, pseudonym: Pseudonym) -> Plan:
    """Compare a roster with the database. Raises RosterError where an account could not be made of a row."""
    return _Planner(roster, today, pseudonym).plan()


class _Planner:
    def __init__(self, roster: RosterFile, today: dt.date, pseudonym: Pseudonym) -> None:
        self.roster, self.today, self.pseudonym = roster, today, pseudonym
        self.made = Plan()
        self.schools = {row.sourced_id: row for row in School.objects.exclude(sourced_id=None)}
        self.classes = {
            row.sourced_id: row for row in Classroom.objects.exclude(sourced_id=None).select_related("school")
        }
        self.school_ids = set(self.schools)
        # The classes that go on: of the database until `_classes` has read the file.
        self.live_classes = {key for key, row in self.classes.items() if not row.is_archived}
        self.gone_classes: dict[str, str] = {}
        self.scope = self._scope()

    def plan(self) -> Plan:
        self._schools()
        self._classes()
        enrolled = self._enrolled()
        pupils = [row for row in enrolled if row.role in PUPIL_ROLES]
        student_ids = self._pupils({row.user for row in pupils})
        self._places(pupils, student_ids)
        self._teachers([row for row in enrolled if row.role in TEACHER_ROLES])
        return self.made

    def _orphan(self, file: str, row: Any, reason: str) -> None:
        self.made.orphans.append(PassedOver(file, row.line, row.sourced_id, reason))

    def _skip(self, file: str, row: Any, reason: str) -> None:
        self.made.skipped.append(PassedOver(file, row.line, row.sourced_id, reason))

    # ------------------------------------------------------------ schools and classes

    def _schools(self) -> None:
        for org in self.roster.orgs.rows.values():
            if org.kind != "school":
                continue
            if org.is_deleted:
                self._skip("orgs.csv", org, "a school is never deleted by a roster; its classes are archived")
                continue
            self.school_ids.add(org.sourced_id)
            row, there = SchoolRow(org.sourced_id, org.name), self.schools.get(org.sourced_id)
            if there is None:
                self.made.schools.added.append(row)
            else:
                _compare(self.made.schools, there.pk, row, {"name": there.name != row.name})

    def _classes(self) -> None:
        """The classes of the file, and what becomes of those it lacks."""
        table = self.roster.classes
        for row in table.rows.values():
            if row.is_deleted:
                self._end_class(row.sourced_id, "the class is deleted")
            elif self._is_over(row):
                self._end_class(row.sourced_id, "all terms of the class are over")
            elif row.school not in self.school_ids:
                self._orphan("classes.csv", row, f"no school has the sourcedId {row.school}")
                # Not known whose it is: what the database has of it stays as it is.
            else:
                self._class(row)
        if table.mode == "bulk":
            for key, there in self.classes.items():
                if key not in table.rows and there.school.sourced_id in self.scope:
                    self._end_class(key, "the class is not in the roster any more")

    def _class(self, row: Class) -> None:
        there = self.classes.get(row.sourced_id)
        course = self.roster.courses.rows.get(row.course)
        subject = row.subject or (course.subject if course else "") or (there.subject if there else "")
        wanted = ClassRow(row.sourced_id, row.school, row.title, subject)
        self.live_classes.add(row.sourced_id)
        if there is None:
            self.made.classes.added.append(wanted)
            return
        differs = {
            "school": there.school.sourced_id != row.school,
            "name": there.name != row.title,
            "subject": there.subject != subject,
            "is_archived": there.is_archived,
        }
        _compare(self.made.classes, there.pk, wanted, differs)

    def _end_class(self, sourced_id: str, reason: str) -> None:
        self.gone_classes[sourced_id] = reason
        self.live_classes.discard(sourced_id)
        there = self.classes.get(sourced_id)
        if there is not None and not there.is_archived:
            row = ClassRow(sourced_id, there.school.sourced_id or "", there.name, there.subject)
            self.made.classes.ended.append(Ending(there.pk, row))

    def _is_over(self, row: Class) -> bool:
        terms = [self.roster.sessions.rows.get(term) for term in row.terms]
        return bool(terms) and all(
            term is not None and (term.is_deleted or _is_past(term.end_date, self.today)) for term in terms
        )

    def _scope(self) -> set[str]:
        """The schools a bulk file speaks of."""
        named = {org.sourced_id for org in self.roster.orgs.rows.values() if org.kind == "school"}
        named |= {row.school for row in self.roster.classes.rows.values()}
        enrolled_in = {row.classroom for row in self.roster.enrollments.rows.values()} & self.classes.keys()
        return named | {self.classes[key].school.sourced_id or "" for key in enrolled_in}

    # ------------------------------------------------------------ who is in which class

    def _enrolled(self) -> list[Enrolled]:
        """The enrollments that hold today, in classes that go on; the others told with their reason."""
        holding = []
        for row in self.roster.enrollments.rows.values():
            if row.is_deleted:
                continue
            if row.role not in PUPIL_ROLES | TEACHER_ROLES:
                self._skip("enrollments.csv", row, f"the role {row.role} has no part in a class here")
            elif _is_past(row.end_date, self.today):
                self._skip("enrollments.csv", row, f"over since {row.end_date}")
            elif row.begin_date and row.begin_date > self.today:
                self._skip("enrollments.csv", row, f"begins on {row.begin_date}")
            elif row.classroom in self.live_classes:
                if self._has_user(row):
                    holding.append(row)
            elif row.classroom in self.gone_classes:
                self._skip("enrollments.csv", row, self.gone_classes[row.classroom])
            elif row.classroom in self.classes:
                self._skip("enrollments.csv", row, "the class is archived")
            else:
                self._orphan("enrollments.csv", row, f"no class has the sourcedId {row.classroom}")
        return holding

    def _has_user(self, row: Enrolled) -> bool:
        user = self.roster.users.rows.get(row.user)
        if user is not None and user.is_deleted:
            self._skip("enrollments.csv", row, f"the user {row.user} is deleted")
            return False
        if user is not None:
            return True
        if row.role in TEACHER_ROLES:
            # An account keeps no sourcedId: it is found by the username, which is in users.csv alone.
            self._orphan("enrollments.csv", row, f"users.csv has no teacher with the sourcedId {row.user}")
            return False
        return True

    # ------------------------------------------------------------ pupils

    def _pupils(self, enrolled: set[str]) -> dict[str, str]:
        """Compare the pupils; gives the pseudonym of each by sourcedId."""
        users = self.roster.users.rows
        at_school = self._roles()
        pupils = [
            user
            for user in users.values()
            if not user.is_deleted
            and (user.sourced_id in enrolled or (user.sourced_id, "student") in at_school)
        ]
        known = {
            row.sourced_id: row
            for row in Student.objects.filter(
                sourced_id__in=enrolled | {user.sourced_id for user in users.values()}
            ).select_related("school")
        }
        student_ids = {key: row.student_id for key, row in known.items()}
        student_ids |= self._pseudonyms([user for user in pupils if user.sourced_id not in known])
        by_pseudonym = {
            row.student_id: row
            for row in Student.objects.filter(student_id__in=student_ids.values()).select_related("school")
        }
        for user in pupils:
            school = user.school if user.school in self.school_ids else ""
            school = school or at_school.get((user.sourced_id, "student"), "")
            row = PupilRow(
                user.sourced_id,
                student_ids[user.sourced_id],
                " ".join(filter(None, (user.given_name, user.family_name))),
                school if school in self.school_ids else "",
            )
            self._pupil(row, by_pseudonym.get(row.student_id))
        return student_ids

    def _pupil(self, row: PupilRow, there: Student | None) -> None:
        if there is None:
            self.made.pupils.added.append(row)
            return
        school = there.school.sourced_id if there.school else None
        differs = {
            "sourced_id": there.sourced_id != row.sourced_id,
            "display_name": there.display_name != row.display_name,
            "school": bool(row.school) and school != row.school,
        }
        _compare(self.made.pupils, there.pk, row, differs)

    def _roles(self) -> dict[tuple[str, str], str]:
        """The org of each (user, role) that holds today."""
        return {
            (row.user, row.role): row.org
            for row in self.roster.roles.rows.values()
            if not row.is_deleted
            and not _is_past(row.end_date, self.today)
            and not (row.begin_date and row.begin_date > self.today)
        }

    def _pseudonyms(self, users: list[User]) -> dict[str, str]:
        """The pseudonyms of pupils who have none: identifier, else username, else the hash."""
        wished = {user.sourced_id: _ids_of(user) for user in users}
        holders = Counter(name for names in wished.values() for name in set(names))
        taken = set(
            Student.objects.filter(student_id__in=holders)
            .exclude(sourced_id=None)
            .values_list("student_id", flat=True)
        )
        return {
            key: next(
                (name for name in names if holders[name] == 1 and name not in taken), self.pseudonym(key)
            )
            for key, names in wished.items()
        }

    # ------------------------------------------------------------ places

    def _places(self, rows: list[Enrolled], student_ids: dict[str, str]) -> None:
        """Compare who sits in which class.

        A place is known by its class and pupil first, by its sourcedId second: an export that numbers its
        enrollments anew neither empties a class nor loses its seats.
        """
        there = list(
            Enrollment.objects.select_related("classroom").filter(classroom__sourced_id__in=self.classes)
        )
        current = {(row.classroom.sourced_id, row.student_id): row for row in there if row.ended_on is None}
        by_id = {
            row.sourced_id: row
            for row in Enrollment.objects.exclude(sourced_id=None).select_related("classroom")
        }
        kept: set[Any] = set()
        wanted: set[tuple[str, str]] = set()
        for row in rows:
            if row.user not in student_ids:
                self._orphan("enrollments.csv", row, f"no pupil has the sourcedId {row.user}")
                continue
            place = PlaceRow(row.sourced_id, row.classroom, student_ids[row.user])
            pair = (place.classroom, place.student_id)
            if pair in wanted:
                self._skip("enrollments.csv", row, "the pupil is in this class by another row already")
                continue
            wanted.add(pair)
            holder = by_id.get(row.sourced_id)
            mine = current.get(pair) or (holder if holder and _pair_of(holder) == pair else None)
            self._place(place, mine, holder)
            if mine is not None:
                kept.add(mine.pk)
        self._end_places(there, kept)

    def _place(self, place: PlaceRow, mine: Enrollment | None, holder: Enrollment | None) -> None:
        if holder is not None and (mine is None or holder.pk != mine.pk):
            self.made.freed.append(holder.pk)
        if mine is None:
            self.made.places.added.append(place)
            return
        differs = {
            "sourced_id": mine.sourced_id != place.sourced_id,
            "ended_on": mine.ended_on is not None,
        }
        _compare(self.made.places, mine.pk, place, differs)

    def _end_places(self, there: list[Enrollment], kept: set[Any]) -> None:
        table = self.roster.enrollments
        named = {row.sourced_id: row for row in table.rows.values()}
        left = self._students_of(user for user in self.roster.users.rows.values() if user.is_deleted)
        scope = self.scope if table.mode == "bulk" else set()
        freed = set(self.made.freed)
        # An orphan says nothing about the place the database has.
        orphans = {orphan.sourced_id for orphan in self.made.orphans if orphan.file == "enrollments.csv"}
        for row in there:
            key = row.classroom.sourced_id
            if row.ended_on is not None or row.pk in kept or row.sourced_id is None or key is None:
                continue
            said = named.get(row.sourced_id)
            is_over = (
                said is not None
                or row.pk in freed
                or key in self.gone_classes
                or row.student_id in left
                or self.classes[key].school.sourced_id in scope
            )
            if is_over and row.sourced_id not in orphans:
                on = said.end_date if said and said.end_date and said.end_date < self.today else self.today
                place = PlaceRow(row.sourced_id, key, row.student_id)
                self.made.places.ended.append(Ending(row.pk, place, on))

    def _students_of(self, users: Iterable[User]) -> set[str]:
        keys = [user.sourced_id for user in users]
        return set(Student.objects.filter(sourced_id__in=keys).values_list("student_id", flat=True))

    # ------------------------------------------------------------ teachers

    def _teachers(self, rows: list[Enrolled]) -> None:
        users = self.roster.users.rows
        roles = self._roles()
        aides = {user for user, role in roles if role == "aide" and (user, "teacher") not in roles}
        wanted: dict[tuple[str, str], TeacherRow] = {}
        issues: list[Issue] = []
        accounts: dict[str, User] = {}
        for row in rows:
            user = users[row.user]
            if not user.is_enabled:
                self._skip("enrollments.csv", row, f"the user {row.user} is not enabled")
                continue
            if msg := _wrong_username(user, accounts):
                issues.append(Issue("users.csv", user.line, "username", msg))
                continue
            accounts[user.username] = user
            role = _role_of(row, is_aide=row.user in aides)
            pair = (row.classroom, user.username)
            # Several rows of one teacher: the highest of the roles.
            if pair not in wanted or _RANK[role] < _RANK[wanted[pair].role]:
                wanted[pair] = TeacherRow(row.classroom, user.username, role)
        if issues:
            raise RosterError(list(dict.fromkeys(issues)))
        self._accounts(accounts)
        self._compare_teachers(wanted)

    def _accounts(self, accounts: dict[str, User]) -> None:
        known = set(get_user_model().objects.filter(username__in=accounts).values_list("username", flat=True))
        self.made.accounts.unchanged = len(known)
        for username, user in accounts.items():
            if username not in known:
                row = AccountRow(username, user.given_name, user.family_name)
                self.made.accounts.added.append(row)

    def _compare_teachers(self, wanted: dict[tuple[str, str], TeacherRow]) -> None:
        diff = self.made.teachers
        there = {
            (row.classroom.sourced_id, row.user.get_username()): row
            for row in ClassroomTeacher.objects.filter(
                classroom__sourced_id__in=self.live_classes
            ).select_related("classroom__school", "user")
        }
        for pair, row in wanted.items():
            if pair in there:
                _compare(diff, there[pair].pk, row, {"role": there[pair].role != row.role})
            else:
                diff.added.append(row)
        leaving = self._leaving()
        is_bulk = self.roster.enrollments.mode == "bulk"
        # A class with a teacher nobody can find keeps those it has.
        unsure = {
            row.classroom
            for row in self.roster.enrollments.rows.values()
            if row.role in TEACHER_ROLES and not row.is_deleted and row.user not in self.roster.users.rows
        }
        for (key, username), has in there.items():
            in_scope = is_bulk and key not in unsure and has.classroom.school.sourced_id in self.scope
            if (key, username) not in wanted and (
                in_scope or (key, username) in leaving or (None, username) in leaving
            ):
                row = TeacherRow(str(key), username, has.role)
                diff.ended.append(Ending(has.pk, row))

    def _leaving(self) -> set[tuple[str | None, str]]:
        """Who leaves which class by name: (class, username); no class is all of them."""
        # A pupil may have the username of an account that a person was given by hand.
        roles = self._roles()
        pupils = set(
            Student.objects.filter(sourced_id__in=self.roster.users.rows).values_list("sourced_id", flat=True)
        )
        leaving: set[tuple[str | None, str]] = set()
        for user in self.roster.users.rows.values():
            is_pupil = (user.sourced_id, "student") in roles or user.sourced_id in pupils
            if user.username and not is_pupil and (user.is_deleted or not user.is_enabled):
                leaving.add((None, user.username))
        for row in self.roster.enrollments.rows.values():
            is_over = row.is_deleted or _is_past(row.end_date, self.today)
            if not is_over or row.role not in TEACHER_ROLES:
                continue
            if row.user in self.roster.users.rows:
                leaving.add((row.classroom, self.roster.users.rows[row.user].username))
            elif row.is_deleted:
                self._orphan(
                    "enrollments.csv", row, f"users.csv has no teacher with the sourcedId {row.user}"
                )
        return leaving


_RANK = {TeacherRole.LEAD: 0, TeacherRole.CO_TEACHER: 1, TeacherRole.ASSISTANT: 2}


def _role_of(row: Enrolled, *, is_aide: bool) -> TeacherRole:
    if row.role == "aide" or is_aide:
        return TeacherRole.ASSISTANT
    return TeacherRole.LEAD if row.is_primary else TeacherRole.CO_TEACHER


def _compare(diff: Diff[T], key: Any, row: T, differs: dict[str, bool]) -> None:
    """Count a row that is there as changed or unchanged."""
    fields = tuple(name for name, is_other in differs.items() if is_other)
    if fields:
        diff.changed.append(Change(key, row, fields))
    else:
        diff.unchanged += 1


def _is_past(end: dt.date | None, today: dt.date) -> bool:
    """Whether an end date has come: OneRoster counts the end date itself out."""
    return end is not None and end <= today


def _pair_of(row: Enrollment) -> tuple[str | None, str]:
    return row.classroom.sourced_id, row.student_id


def _ids_of(user: User) -> tuple[str, ...]:
    """What of a user may serve as a pseudonym: an id by its form that does not tell the name."""
    parts = re.findall(r"\w+", f"{user.given_name} {user.family_name}".casefold())
    names = [part for part in parts if len(part) >= NAME_PART_AT_LEAST]
    return tuple(
        value
        for value in dict.fromkeys((user.identifier, user.username))
        if len(value) <= PSEUDONYM_LIMIT
        and re.match(ID_PATTERN, value)
        and not any(name in value.casefold() for name in names)
    )


def _wrong_username(user: User, accounts: dict[str, User]) -> str:
    """Why no account can have this username; empty if one can."""
    if not user.username:
        return "is empty, and a teacher signs in by it"
    if len(user.username) > USERNAME_LIMIT:
        return f"at most {USERNAME_LIMIT} characters, not {len(user.username)}"
    if not re.match(UnicodeUsernameValidator.regex, user.username):
        return "letters, digits and @ . + - _ alone make a username"
    other = accounts.get(user.username)
    if other is not None and other.sourced_id != user.sourced_id:
        return f"is the username of line {other.line} too"
    return ""
