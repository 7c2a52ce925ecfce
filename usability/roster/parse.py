"""Reading a OneRoster 1.2 CSV zip into typed rows, or into a list of what is wrong and where.

Nothing here knows the database. Source: 1EdTech, "OneRoster 1.2 CSV Binding": a `manifest.csv` that says of
each file whether it is there in full (`bulk`), holds changes alone (`delta`) or is `absent`. Columns may stand
in any order, those nobody needs here are passed over, and so are files nobody needs here. `userProfiles`,
passwords, telephone numbers, demographics and results are never read.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Literal, TypeVar

MIB = 1024 * 1024
ZIP_LIMIT_BYTES = 64 * MIB
ENTRIES_LIMIT = 100
FILE_LIMIT_BYTES = 64 * MIB
TOTAL_LIMIT_BYTES = 256 * MIB
ROWS_LIMIT = 1_000_000
ISSUES_LIMIT = 20

VERSION = "1.2"
MANIFEST = "manifest"
# Control characters are in no name; NUL would not even be taken by the database.
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
WRONG_BOMS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}

Mode = Literal["bulk", "delta", "absent"]
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Issue:
    """What is wrong, and where: `line` 0 is the file as a whole, `column` empty the whole line."""

    file: str
    line: int
    column: str
    msg: str

    def __str__(self) -> str:
        line = f", line {self.line}" if self.line else ""
        column = f", column {self.column}" if self.column else ""
        return f"{self.file}{line}{column}: {self.msg}"


class RosterError(Exception):
    """The roster cannot be used; `issues` says why, at most `ISSUES_LIMIT` of them, `found` how many in all."""

    def __init__(self, issues: list[Issue], found: int | None = None) -> None:
        self.issues = issues[:ISSUES_LIMIT]
        self.found = len(issues) if found is None else found
        super().__init__("; ".join(map(str, self.issues)))


@dataclass(frozen=True, slots=True)
class Org:
    """A school, or what schools belong to."""

    sourced_id: str
    line: int
    is_deleted: bool
    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Session:
    """A term or school year; over on `end_date` itself, which OneRoster counts out."""

    sourced_id: str
    line: int
    is_deleted: bool
    end_date: dt.date | None


@dataclass(frozen=True, slots=True)
class Course:
    """What several classes teach."""

    sourced_id: str
    line: int
    is_deleted: bool
    subject: str


@dataclass(frozen=True, slots=True)
class Class:
    """A class of a school."""

    sourced_id: str
    line: int
    is_deleted: bool
    title: str
    subject: str
    school: str
    course: str
    terms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class User:
    """A pupil, a teacher or anybody else."""

    sourced_id: str
    line: int
    is_deleted: bool
    is_enabled: bool
    username: str
    identifier: str
    given_name: str
    family_name: str
    school: str


@dataclass(frozen=True, slots=True)
class Role:
    """What somebody is at an org."""

    sourced_id: str
    line: int
    is_deleted: bool
    user: str
    role: str
    org: str
    begin_date: dt.date | None
    end_date: dt.date | None


@dataclass(frozen=True, slots=True)
class Enrolled:
    """Somebody in a class, as pupil or as teacher, from `begin_date` until the day before `end_date`."""

    sourced_id: str
    line: int
    is_deleted: bool
    classroom: str
    user: str
    role: str
    is_primary: bool
    begin_date: dt.date | None
    end_date: dt.date | None


@dataclass(frozen=True, slots=True)
class Table(Generic[R]):
    """One file: how it is meant, and its rows by sourcedId in their order."""

    mode: Mode = "absent"
    rows: Mapping[str, R] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RosterFile:
    """All of a zip that is used."""

    orgs: Table[Org]
    sessions: Table[Session]
    courses: Table[Course]
    classes: Table[Class]
    users: Table[User]
    roles: Table[Role]
    enrollments: Table[Enrolled]


class _Issues:
    """Everything found wrong so far, so that a file is mended in one go."""

    def __init__(self) -> None:
        self.found = 0
        self.first: list[Issue] = []

    def add(self, file: str, line: int, column: str, msg: str) -> None:
        self.found += 1
        if len(self.first) < ISSUES_LIMIT:
            self.first.append(Issue(file, line, column, msg))

    def stop_if_any(self) -> None:
        if self.found:
            raise RosterError(self.first, self.found)


class _Cells:
    """The cells of one line; a cell that cannot be read is noted and read as empty."""

    def __init__(self, file: str, line: int, mode: Mode, cells: dict[str, str], issues: _Issues) -> None:
        self._file, self.line, self._cells, self._issues = file, line, cells, issues
        for column, value in cells.items():
            if CONTROL.search(value):
                self._wrong(column, "has a control character")
        self.is_deleted = self._status(mode)
        self.sourced_id = self.text("sourcedId", limit=255, is_needed=True)

    def _wrong(self, column: str, msg: str) -> None:
        self._issues.add(self._file, self.line, column, msg)

    def _status(self, mode: Mode) -> bool:
        status = self._cells.get("status", "").casefold()
        if mode == "delta":
            if not self.moment("dateLastModified"):
                self._wrong("dateLastModified", "a delta needs the moment of the change")
            if not status:
                self._wrong("status", "a delta needs active or tobedeleted, and it is empty")
        if status not in {"", "active", "tobedeleted"}:
            self._wrong("status", f"active or tobedeleted, not {_shown(status)}")
        return status == "tobedeleted"

    def text(self, column: str, *, limit: int = 255, is_needed: bool = False) -> str:
        value = self._cells.get(column, "")
        if is_needed and not value and (column == "sourcedId" or not self.is_deleted):
            self._wrong(column, "is empty")
        if len(value) > limit:
            self._wrong(column, f"at most {limit} characters, not {len(value)}")
            return ""
        return value

    def names(self, column: str) -> tuple[str, ...]:
        return tuple(name for part in self._cells.get(column, "").split(",") if (name := part.strip()))

    def truth(self, column: str, *, default: bool) -> bool:
        value = self._cells.get(column, "").casefold()
        if value not in {"", "true", "false"}:
            self._wrong(column, f"true or false, not {_shown(value)}")
        return value == "true" if value else default

    def date(self, column: str) -> dt.date | None:
        value = self._cells.get(column, "")
        try:
            return dt.date.fromisoformat(value) if value else None
        except ValueError:
            self._wrong(column, f"a date such as 2026-09-01, not {_shown(value)}")
            return None

    def moment(self, column: str) -> dt.datetime | None:
        value = self._cells.get(column, "")
        try:
            return dt.datetime.fromisoformat(value) if value else None
        except ValueError:
            self._wrong(column, f"a moment such as 2026-09-01T08:00:00Z, not {_shown(value)}")
            return None


def _org(row: _Cells) -> Org:
    name = row.text("name", limit=200, is_needed=True)
    return Org(row.sourced_id, row.line, row.is_deleted, name, row.text("type", is_needed=True).casefold())


def _session(row: _Cells) -> Session:
    return Session(row.sourced_id, row.line, row.is_deleted, row.date("endDate"))


def _course(row: _Cells) -> Course:
    return Course(row.sourced_id, row.line, row.is_deleted, _subject(row))


def _class(row: _Cells) -> Class:
    return Class(
        row.sourced_id,
        row.line,
        row.is_deleted,
        title=row.text("title", limit=200, is_needed=True),
        subject=_subject(row),
        school=row.text("schoolSourcedId", is_needed=True),
        course=row.text("courseSourcedId"),
        terms=row.names("termSourcedIds"),
    )


def _subject(row: _Cells) -> str:
    return next(iter(row.names("subjects")), "")[:100]


def _user(row: _Cells) -> User:
    return User(
        row.sourced_id,
        row.line,
        row.is_deleted,
        is_enabled=row.truth("enabledUser", default=True),
        username=row.text("username"),
        identifier=row.text("identifier"),
        given_name=row.text("preferredGivenName", limit=100) or row.text("givenName", limit=100),
        family_name=row.text("preferredFamilyName", limit=99) or row.text("familyName", limit=99),
        school=row.text("primaryOrgSourcedId"),
    )


def _role(row: _Cells) -> Role:
    return Role(
        row.sourced_id,
        row.line,
        row.is_deleted,
        user=row.text("userSourcedId", is_needed=True),
        role=row.text("role", is_needed=True).casefold(),
        org=row.text("orgSourcedId"),
        begin_date=row.date("beginDate"),
        end_date=row.date("endDate"),
    )


def _enrolled(row: _Cells) -> Enrolled:
    return Enrolled(
        row.sourced_id,
        row.line,
        row.is_deleted,
        classroom=row.text("classSourcedId", is_needed=True),
        user=row.text("userSourcedId", is_needed=True),
        role=row.text("role", is_needed=True).casefold(),
        is_primary=row.truth("primary", default=False),
        begin_date=row.date("beginDate"),
        end_date=row.date("endDate"),
    )


# The files that are read: how a row is read, and the columns without which no row can be.
READ: dict[str, tuple[Callable[[_Cells], object], tuple[str, ...]]] = {
    "orgs": (_org, ("name", "type")),
    "academicSessions": (_session, ("endDate",)),
    "courses": (_course, ()),
    "classes": (_class, ("title", "schoolSourcedId")),
    "users": (_user, ("username", "givenName", "familyName")),
    "roles": (_role, ("userSourcedId", "role")),
    "enrollments": (_enrolled, ("classSourcedId", "userSourcedId", "role")),
}


def read_roster(path: Path) -> RosterFile:
    """The rows of a zip. Raises RosterError with everything that is wrong, OSError where it cannot be read."""
    issues = _Issues()
    texts = _texts(path, issues)
    modes = _manifest(texts, issues)
    issues.stop_if_any()
    tables = {name: _table(name, modes[name], texts, issues) for name in READ}
    issues.stop_if_any()
    return RosterFile(**{"sessions" if name == "academicSessions" else name: t for name, t in tables.items()})


# ---------------------------------------------------------------- the zip


def _texts(path: Path, issues: _Issues) -> dict[str, str]:
    """The text of each file that is used, by its name without `.csv`."""
    size = path.stat().st_size
    if size > ZIP_LIMIT_BYTES:
        raise RosterError(
            [Issue(path.name, 0, "", f"at most {ZIP_LIMIT_BYTES // MIB} MiB, not {size} bytes")]
        )
    try:
        with zipfile.ZipFile(path) as archive:
            return _members(path.name, archive, issues)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise RosterError([Issue(path.name, 0, "", f"is not a zip that can be read ({error})")]) from error


def _members(zip_name: str, archive: zipfile.ZipFile, issues: _Issues) -> dict[str, str]:
    entries = archive.infolist()
    if len(entries) > ENTRIES_LIMIT:
        raise RosterError([Issue(zip_name, 0, "", f"at most {ENTRIES_LIMIT} files, not {len(entries)}")])
    wanted = {f"{name}.csv": name for name in (MANIFEST, *READ)}
    texts: dict[str, str] = {}
    room = TOTAL_LIMIT_BYTES
    for entry in entries:
        name = wanted.get(entry.filename)
        if name is None:
            if entry.filename.endswith(f"/{MANIFEST}.csv") and not entry.filename.startswith("__MACOSX/"):
                issues.add(entry.filename, 0, "", "lies in a folder; all files belong at the top of the zip")
            continue
        if name in texts:
            issues.add(entry.filename, 0, "", "is in the zip twice")
        elif entry.flag_bits & 1:
            issues.add(entry.filename, 0, "", "is encrypted")
        else:
            raw = _bytes(archive, entry, min(FILE_LIMIT_BYTES, room))
            room -= len(raw)
            texts[name] = _text(entry.filename, raw, issues)
    return texts


def _bytes(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limit: int) -> bytes:
    # What the entry says of its size is not believed: no more is unpacked than may be.
    with archive.open(entry) as stream:
        raw = stream.read(limit + 1)
    if len(raw) > limit:
        raise RosterError([Issue(entry.filename, 0, "", f"unpacks to more than {limit} bytes")])
    return raw


def _text(file: str, raw: bytes, issues: _Issues) -> str:
    if encoding := WRONG_BOMS.get(raw[:2]):
        issues.add(file, 1, "", f"is {encoding}; save it as UTF-8")
        return ""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The text without its byte order mark is what `start` counts in.
        before = raw.removeprefix(b"\xef\xbb\xbf")[: error.start]
        place = len(before) - (before.rfind(b"\n") + 1) + 1
        msg = f"byte {place} of the line is not UTF-8; save the file as UTF-8"
        issues.add(file, before.count(b"\n") + 1, "", msg)
        return ""


# ---------------------------------------------------------------- the files


def _manifest(texts: dict[str, str], issues: _Issues) -> dict[str, Mode]:
    file = f"{MANIFEST}.csv"
    if MANIFEST not in texts:
        issues.add(file, 0, "", "is missing; a OneRoster zip has it at its top")
        issues.stop_if_any()
    issues.stop_if_any()
    said = {
        cells.get("propertyName", ""): (line, cells.get("value", ""))
        for line, cells in _lines(file, texts[MANIFEST], ("propertyName", "value"), issues)
    }
    issues.stop_if_any()
    line, version = said.get("oneroster.version", (0, ""))
    if version != VERSION:
        issues.add(file, line, "value", f"oneroster.version is {VERSION} here, not {_shown(version)}")
    return {name: _mode(name, said, texts, issues) for name in READ}


def _mode(name: str, said: dict[str, tuple[int, str]], texts: Collection[str], issues: _Issues) -> Mode:
    line, value = said.get(f"file.{name}", (0, "absent"))
    is_there = name in texts
    match value.casefold():
        case "bulk" | "delta" as mode:
            if not is_there:
                issues.add(f"{name}.csv", 0, "", f"is missing, and the manifest says {mode}")
            return mode  # type: ignore[return-value]  # one of the two words
        case "absent":
            if is_there:
                issues.add(f"{name}.csv", 0, "", "is there, and the manifest says absent")
        case _:
            msg = f"file.{name} is bulk, delta or absent, not {_shown(value)}"
            issues.add(f"{MANIFEST}.csv", line, "value", msg)
    return "absent"


def _table(name: str, mode: Mode, texts: dict[str, str], issues: _Issues) -> Table:
    if mode == "absent":
        return Table()
    read, columns = READ[name]
    file = f"{name}.csv"
    needed = ("sourcedId", *columns, *(("status", "dateLastModified") if mode == "delta" else ()))
    rows: dict[str, object] = {}
    seen: dict[str, int] = {}
    for line, cells in _lines(file, texts[name], needed, issues):
        row = _Cells(file, line, mode, cells, issues)
        if row.sourced_id in seen:
            msg = f"{_shown(row.sourced_id)} stands in line {seen[row.sourced_id]} already"
            issues.add(file, line, "sourcedId", msg)
        seen.setdefault(row.sourced_id, line)
        rows[row.sourced_id] = read(row)
    return Table(mode, rows)


def _lines(
    file: str, text: str, needed: tuple[str, ...], issues: _Issues
) -> list[tuple[int, dict[str, str]]]:
    """The number of the line each row begins in, and its cells by column."""
    rows: list[tuple[int, dict[str, str]]] = []
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            begun, line = line, reader.line_num + 1
            if not any(cells):
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                if not _is_header(file, begun, header, needed, issues):
                    return []
            elif len(cells) != len(header):
                issues.add(file, begun, "", f"{len(cells)} columns, and the header has {len(header)}")
            elif len(rows) >= ROWS_LIMIT:
                issues.add(file, begun, "", f"at most {ROWS_LIMIT} rows")
                return rows
            else:
                rows.append((begun, dict(zip(header, map(str.strip, cells), strict=True))))
    except csv.Error as error:
        issues.add(file, line, "", f"is not CSV ({error})")
    if header is None:
        issues.add(file, 1, "", "has no header")
    return rows


def _is_header(file: str, line: int, header: list[str], needed: tuple[str, ...], issues: _Issues) -> bool:
    before = issues.found
    for column in dict.fromkeys(header):
        if header.count(column) > 1:
            issues.add(file, line, column, "is there more than once")
    for column in needed:
        if column not in header:
            issues.add(file, line, column, "is missing")
    return issues.found == before


def _shown(value: str) -> str:
    """A value as a message shows it: short and on one line."""
    return repr(value if len(value) <= 40 else f"{value[:39]}…")
