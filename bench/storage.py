"""What pages and snapshots ask, beside a month of a city's metrics. Goal: every question under 100 ms (p95).

A PostgreSQL of its own, in a temporary folder that is removed afterwards, gets 10,000 pupils in 400 classes and
50 million metrics: one lesson of 45 minutes a pupil on each of 30 days, six lessons a day, stored in the order in
which they would have come, so that a pupil's rows lie far apart. It takes about 260 bytes a metric. "Now" is in
the last lesson. Each question is asked for a pupil or class drawn anew, by the teacher whose class it is, through
the functions that the API and the pages call.

Run: python -m bench.storage [--rows 50000000] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import django
import psycopg

from bench.figures import percentile, report
from gaia_site.embedded.servers import servers_in

BENCH = "storage"
APP = "fractions-lab"
ROWS = 50_000_000
DAYS = 30
CLASSES = 400
PUPILS_A_CLASS = 25
LESSONS_A_DAY = 6
FIRST_HOUR = 8
LESSON = dt.timedelta(minutes=45)
QUESTIONS = 100
RUNS = 3
WRITERS = 2
GOAL_MS = 100

CITY = """
INSERT INTO auth_user (username, password, is_superuser, is_staff, is_active, first_name, last_name, email, date_joined)
SELECT 'teacher-' || n, '!', false, false, true, '', '', '', now() FROM generate_series(1, %(classes)s) n;
INSERT INTO usability_school (id, name, time_zone, created_at, updated_at)
VALUES (gen_random_uuid(), 'City', 'UTC', now(), now());
INSERT INTO usability_classroom (id, school_id, name, subject, app_names, alert_seq, is_archived, created_at, updated_at)
SELECT gen_random_uuid(), (SELECT id FROM usability_school), 'class-' || n, '', '[]', 0, false, now(), now()
FROM generate_series(1, %(classes)s) n;
INSERT INTO usability_classroomteacher (id, classroom_id, user_id, role, created_at, updated_at)
SELECT gen_random_uuid(), c.id, u.id, 'lead', now(), now()
FROM usability_classroom c JOIN auth_user u ON u.username = replace(c.name, 'class', 'teacher');
INSERT INTO usability_student (id, student_id, display_name, first_seen_app, created_at, updated_at)
SELECT gen_random_uuid(), 'stu-' || n, 'Pupil ' || n, '', now(), now()
FROM generate_series(1, %(classes)s * %(size)s) n;
INSERT INTO usability_enrollment (id, student_id, classroom_id, seat, created_at, updated_at)
SELECT gen_random_uuid(), 'stu-' || n, c.id, '', now(), now()
FROM generate_series(1, %(classes)s * %(size)s) n
JOIN usability_classroom c ON c.name = 'class-' || (1 + (n - 1) / %(size)s);
CREATE TABLE bench_pupil AS
SELECT student_id, classroom_id, replace(c.name, 'class-', '')::int %% %(lessons)s AS lesson
FROM usability_enrollment JOIN usability_classroom c ON c.id = classroom_id;
ANALYZE;
"""
"""What is not named here is left to the defaults of the database."""

# One lesson of all the classes that have it then; `steps` metrics a pupil, step by step. An id carries the receipt.
LESSON_ROWS = """
INSERT INTO usability_metrics (id, "timestamp", received_at, metric_value, classroom_id, student_id, app_name,
  metric_type, session_id, metadata)
SELECT (lpad(to_hex((extract(epoch FROM received) * 1000)::bigint), 12, '0') || '7' || substr(noise, 1, 3) || '8'
    || substr(noise, 4, 15))::uuid,
  received - interval '1 second', received, CASE kind WHEN 'answer' THEN (chance < 0.35)::int ELSE 1 END,
  classroom_id, student_id, %(app)s, kind, student_id || '-' || %(number)s,
  CASE WHEN kind IN ('answer', 'hint') THEN
    jsonb_build_object('item', 'item-' || step %% 50, 'skill', 'fractions', 'correct', chance < 0.35) END
FROM (
  SELECT *, md5(chance::text) AS noise,
    (ARRAY['answer','keypress','keypress','keypress','keypress','keypress','backspace','hesitation','hint',
      'mouse_movement'])[1 + (chance * 10)::int %% 10] AS kind,
    %(begin)s::timestamptz + (step + random()) * %(pause)s::interval + interval '1 second' AS received
  FROM (
    SELECT step, student_id, classroom_id, random() AS chance
    FROM generate_series(0, %(steps)s - 1) step CROSS JOIN bench_pupil WHERE lesson = %(lesson)s
    ORDER BY step, student_id
  ) ordered
) made
"""

SNAPSHOTS = """
INSERT INTO classroom_metrics_snapshots (id, classroom_id, app_name, window_start, window_end, student_count,
  active_count, struggling_student_count, snapshot_data, created_at, updated_at)
SELECT gen_random_uuid(), c.id, %(app)s, at, at + interval '5 minutes', %(size)s, %(size)s, 2,
  '{"counts": {}, "attempts": 40, "right": 20}', now(), now()
FROM usability_classroom c
CROSS JOIN generate_series(0, %(days)s - 1) day
CROSS JOIN LATERAL generate_series(
  %(first)s::timestamptz + day * interval '1 day'
    + (replace(c.name, 'class-', '')::int %% %(lessons)s) * interval '1 hour',
  %(first)s::timestamptz + day * interval '1 day'
    + (replace(c.name, 'class-', '')::int %% %(lessons)s) * interval '1 hour' + interval '40 minutes',
  interval '5 minutes') at
"""


@contextmanager
def store(folder: Path) -> Iterator[str]:
    """A running PostgreSQL with the site's tables; its address is in the environment, and Django set up."""
    servers = servers_in(folder)
    servers.start()
    try:
        os.environ |= {
            "DATABASE_URL": servers.postgres.url,
            "REDIS_URL": servers.redis.url,
            "DJANGO_SETTINGS_MODULE": "gaia_site.settings",
            "SECRET_KEY": "a-key-for-this-benchmark-alone-0123456789",
            "GAIA_DATA_DIR": str(folder / "data"),
        }
        django.setup()
        from django.core.management import call_command  # noqa: PLC0415  Django is set up just now

        call_command("migrate", verbosity=0)
        yield servers.postgres.url
    finally:
        servers.stop()


def first_day(today: dt.date) -> dt.date:
    """The month ends yesterday."""
    return today - dt.timedelta(days=DAYS)


def lesson_begin(day: dt.date, lesson: int) -> dt.datetime:
    """When that lesson of the day begins."""
    return dt.datetime.combine(day, dt.time(FIRST_HOUR + lesson), tzinfo=dt.UTC)


def build(url: str, rows: int, today: dt.date) -> float:
    """Fill the store; metrics a second."""
    from usability.partitions import create_days  # noqa: PLC0415

    days = [first_day(today) + dt.timedelta(days=n) for n in range(DAYS)]
    create_days(days)
    steps = round(rows / (DAYS * CLASSES * PUPILS_A_CLASS))
    sizes = {"classes": CLASSES, "size": PUPILS_A_CLASS, "lessons": LESSONS_A_DAY}
    with psycopg.connect(url, autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute(CITY, sizes)
    begun = time.perf_counter()
    left = [*reversed(days)]

    def write() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while left:
                fill_day(connection, left.pop(), steps)

    writers = [threading.Thread(target=write) for _ in range(WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    took_s = time.perf_counter() - begun
    with psycopg.connect(url, autocommit=True) as connection:
        first = lesson_begin(days[0], 0)
        connection.execute(SNAPSHOTS, {**sizes, "app": APP, "days": DAYS, "first": first})
        connection.execute("VACUUM (ANALYZE) usability_metrics")
        connection.execute("VACUUM (ANALYZE) classroom_metrics_snapshots")
    return steps * DAYS * CLASSES * PUPILS_A_CLASS / took_s


def fill_day(connection: psycopg.Connection, day: dt.date, steps: int) -> None:
    """All lessons of one day, one transaction each."""
    for lesson in range(LESSONS_A_DAY):
        begin = lesson_begin(day, lesson)
        given = {"app": APP, "number": f"{day:%m%d}", "begin": begin, "pause": LESSON / steps}
        connection.execute(LESSON_ROWS, {**given, "steps": steps, "lesson": lesson})


def add_signals(now: dt.datetime) -> None:
    """Two episodes a pupil, and an open alert for every eighth."""
    from usability.models import Enrollment, FrustrationEvent, TeacherDashboardAlert  # noqa: PLC0415

    chance = random.Random(7)
    events, alerts = [], []
    for number, enrollment in enumerate(Enrollment.objects.order_by("student_id").iterator()):
        who = {"student_id": enrollment.student_id, "classroom_id": enrollment.classroom_id, "app_name": APP}
        for age in (chance.uniform(1, DAYS), chance.uniform(1, DAYS)):
            at = now - dt.timedelta(days=age)
            events.append(
                FrustrationEvent(
                    **who,
                    event_type="accuracy",
                    severity="medium",
                    detected_at=at,
                    ended_at=at,
                    resolved_at=at,
                )
            )
        if number % 8 == 0:
            at = now - dt.timedelta(minutes=chance.uniform(1, 20))
            event = FrustrationEvent(**who, event_type="accuracy", severity="high", detected_at=at)
            events.append(event)
            alerts.append(
                TeacherDashboardAlert(
                    **who,
                    event=event,
                    alert_type="accuracy",
                    severity="warning",
                    seq=number + 1,
                    detected_at=at,
                    details={"reason": "four wrong answers in a row", "delay_s": 0.2},
                )
            )
    FrustrationEvent.objects.bulk_create(events, batch_size=2_000)
    TeacherDashboardAlert.objects.bulk_create(alerts, batch_size=2_000)


Question = Callable[[Any, Any, str], object]
"""Asks for (teacher, classroom id, pupil)."""


def questions(now: dt.datetime) -> dict[str, Question]:
    """What is asked, by name."""
    from usability.ingest.rows import rows_of_class, rows_of_students, rows_received  # noqa: PLC0415
    from usability.models import Classroom  # noqa: PLC0415
    from usability.selectors.classrooms import classroom_metrics, snapshots, struggling  # noqa: PLC0415
    from usability.selectors.live import live_class  # noqa: PLC0415
    from usability.selectors.students import student_page  # noqa: PLC0415
    from usability.snapshots import take_due, take_snapshot  # noqa: PLC0415

    def since(**length: float) -> dict[str, dt.datetime]:
        return {"since": now - dt.timedelta(**length), "until": now}

    def snapshot(_: Any, classroom: Any, __: str) -> object:
        window = now - dt.timedelta(minutes=5), now
        return take_snapshot(Classroom.objects.get(pk=classroom), APP, *window)

    def rebuilt(_: Any, classroom: Any, __: str) -> object:
        pupils = [f"stu-{n}" for n in pupils_of(classroom)]
        return list(rows_of_students(pupils, **since(minutes=30)))

    return {
        "timeline of a pupil, a lesson": lambda who, _, pupil: student_page(
            pupil, who=who, now=now, **since(minutes=45)
        ),
        "timeline of a pupil, a day": lambda who, _, pupil: student_page(
            pupil, who=who, now=now, **since(days=1)
        ),
        "timeline of a pupil, a week": lambda who, _, pupil: student_page(
            pupil, who=who, now=now, **since(days=7)
        ),
        "timeline of a pupil, a month": lambda who, _, pupil: student_page(
            pupil, who=who, now=now, **since(days=DAYS)
        ),
        "numbers of a class, a lesson": lambda who, room, _: classroom_metrics(
            room, who=who, **since(minutes=45)
        ),
        "numbers of a class, a day": lambda who, room, _: classroom_metrics(room, who=who, **since(days=1)),
        "numbers of a class, a week": lambda who, room, _: classroom_metrics(room, who=who, **since(days=7)),
        "snapshots of a class, a week": lambda who, room, _: list(snapshots(room, who=who, **since(days=7))),
        "taking a snapshot": snapshot,
        "taking what is due of a class": lambda _, room, __: take_due([room], now=now),
        "live page": lambda who, room, _: live_class(room, who=who, now=now),
        "struggling pupils": lambda who, room, _: struggling(room, who=who, now=now),
        "rows of a class, to rebuild 30 minutes": rebuilt,
        "rows of a class received in 10 minutes": lambda _, room, __: rows_of_class(
            room,
            [f"stu-{n}" for n in pupils_of(room)],
            received_since=now - dt.timedelta(minutes=10),
            event_since=now - dt.timedelta(days=7),
            event_until=now,
            limit=5_000,
        ),
        "rows received in 2 seconds": lambda *_: rows_received(after=None, **since(seconds=2)),
    }


_numbers: dict[Any, int] = {}
"""Classroom id → number of the class."""


def pupils_of(classroom: Any) -> range:
    """The numbers of the pupils of a class."""
    number = _numbers[classroom]
    return range((number - 1) * PUPILS_A_CLASS + 1, number * PUPILS_A_CLASS + 1)


def ask_all(now: dt.datetime, lesson: int) -> dict[str, list[float]]:
    """Milliseconds of every question, each for a class in its lesson and a pupil of it, drawn anew."""
    from usability.models import ClassroomTeacher  # noqa: PLC0415

    taught = list(ClassroomTeacher.objects.select_related("classroom", "user"))
    _numbers.update((one.classroom_id, int(one.classroom.name.removeprefix("class-"))) for one in taught)
    at_work = [one for one in taught if _numbers[one.classroom_id] % LESSONS_A_DAY == lesson]
    chance = random.Random()
    took: dict[str, list[float]] = {}
    for name, ask in questions(now).items():
        for _ in range(QUESTIONS):
            one = chance.choice(at_work)
            pupil = f"stu-{chance.choice(pupils_of(one.classroom_id))}"
            begun = time.perf_counter()
            ask(one.user, one.classroom_id, pupil)
            took.setdefault(name, []).append((time.perf_counter() - begun) * 1000)
    return took


def measure(folder: Path, rows: int) -> None:
    """Build, ask, report."""
    today = dt.datetime.now(tz=dt.UTC).date()
    lesson = LESSONS_A_DAY - 1
    now = lesson_begin(today - dt.timedelta(days=1), lesson) + dt.timedelta(minutes=40)
    with store(folder) as url:
        with psycopg.connect(url) as connection:
            is_empty = connection.execute("SELECT NOT EXISTS (SELECT FROM usability_metrics)").fetchone()[0]
        if is_empty:
            rate = build(url, rows, today)
            add_signals(now)
        with psycopg.connect(url) as connection:
            count = connection.execute("SELECT count(*) FROM usability_metrics").fetchone()[0]
            size = connection.execute(
                "SELECT sum(pg_total_relation_size(inhrelid))::float8 FROM pg_inherits"
                " WHERE inhparent = 'usability_metrics'::regclass"
            ).fetchone()[0]
        if is_empty:
            report(BENCH, "metrics stored by SQL", [rate], "1/s", rows=count, writers=WRITERS)
        report(BENCH, "a metric on disk, with its indexes", [size / count], "bytes", rows=count)
        p50, p95 = {}, {}
        for _ in range(RUNS):
            for name, took in ask_all(now, lesson).items():
                p50.setdefault(name, []).append(percentile(took, 0.5))
                p95.setdefault(name, []).append(percentile(took, 0.95))
        for name, values in p95.items():
            report(BENCH, f"{name}, p50", p50[name], "ms", rows=count)
            report(BENCH, f"{name}, p95", values, "ms", goal=GOAL_MS, rows=count)


def main(rows: int, keep: Path | None) -> None:
    folder = keep or Path(tempfile.mkdtemp(prefix="gaia-storage-", dir="/tmp"))
    folder.mkdir(exist_ok=True)
    folder.chmod(0o711)  # PostgreSQL may run under another account
    try:
        measure(folder, rows)
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--keep", type=Path, help="where the data is kept, or was: it is not made again")
    given = parser.parse_args()
    main(given.rows, given.keep)
