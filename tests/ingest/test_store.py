"""The tables by themselves: days, constraints, what SQL users see, what the key order costs."""

from __future__ import annotations

import datetime as dt
import importlib
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from usability import partitions
from usability.models import (
    Classroom,
    ClassroomTeacher,
    Enrollment,
    FrustrationEvent,
    SatisfactionRating,
    School,
    Student,
    TeacherDashboardAlert,
    UsabilityMetric,
)

pytestmark = pytest.mark.django_db

TODAY = dt.datetime.now(tz=dt.UTC).date()
NOW = timezone.now()


def stored(**fields: Any) -> UsabilityMetric:
    whole = {
        "timestamp": NOW,
        "student_id": "ada",
        "app_name": "maths",
        "metric_type": "keypress",
        "metric_value": 1.0,
    }
    return UsabilityMetric.objects.create(**whole | fields)


def refused() -> Any:
    return pytest.raises(IntegrityError)


# ---------------------------------------------------------------- days


@pytest.fixture
def days(db: None) -> None:
    partitions.ensure_partitions(TODAY)


@pytest.fixture
def native_days(days: None) -> None:
    if not partitions.is_native():
        pytest.skip("the metrics are in a hypertable here, whose days come and go by themselves")


@pytest.fixture
def hypertable(days: None) -> None:
    if partitions.is_native():
        pytest.skip("this server has no TimescaleDB; DATABASE_URL may name one that has")


def test_every_day_a_metric_may_be_of_exists(native_days: None) -> None:
    existing = partitions.existing_days()

    wanted = [TODAY + dt.timedelta(days=n) for n in range(-8, 8)]
    assert set(wanted) <= set(existing)
    for edge in (NOW - dt.timedelta(days=7), NOW + dt.timedelta(minutes=5)):
        stored(timestamp=edge)


def test_making_the_days_again_makes_nothing(native_days: None) -> None:
    assert partitions.ensure_partitions(TODAY) == []
    assert partitions.ensure_partitions(TODAY + dt.timedelta(days=1)) == [TODAY + dt.timedelta(days=8)]


def test_a_stray_row_is_refused_rather_than_kept_in_a_default_partition(native_days: None) -> None:
    with refused(), transaction.atomic():
        stored(timestamp=NOW - dt.timedelta(days=400))


def test_days_beyond_retention_are_dropped_with_their_rows_and_no_others(native_days: None) -> None:
    old = [TODAY - dt.timedelta(days=n) for n in (91, 92, 90)]
    partitions.create_days(old)
    for day in old:
        stored(timestamp=dt.datetime.combine(day, dt.time(12), tzinfo=dt.UTC))
    stored()

    dropped = partitions.drop_expired(TODAY, keep_days=90)

    assert dropped == sorted(old[:2])
    assert UsabilityMetric.objects.count() == 2
    assert partitions.drop_expired(TODAY, keep_days=90) == []


def test_a_day_is_a_utc_day(native_days: None) -> None:
    stored(timestamp=dt.datetime.combine(TODAY, dt.time(23, 59, 59, 999_999), tzinfo=dt.UTC))

    with connection.cursor() as cursor:
        cursor.execute("SELECT tableoid::regclass::text FROM usability_metrics")
        assert cursor.fetchall() == [(partitions.partition_name(TODAY),)]


def test_a_hypertable_is_made_by_the_same_migration_where_timescaledb_is_ready() -> None:
    statements = partitions.store_statements(timescale=True)

    assert statements[0].startswith("CREATE TABLE usability_metrics")
    assert "PARTITION BY" not in statements[0]
    assert 'PRIMARY KEY (student_id, "timestamp", id)' in statements[0]
    assert statements[1] == "CREATE EXTENSION IF NOT EXISTS timescaledb"
    assert "by_range('timestamp', INTERVAL '1 day')" in statements[2]


def test_days_are_compressed_and_dropped_by_policies_where_the_licence_allows_them() -> None:
    statements = partitions.policy_statements("timescale")

    assert any("add_compression_policy" in statement for statement in statements)
    assert any("add_retention_policy('usability_metrics', INTERVAL '90 days'" in one for one in statements)
    assert partitions.policy_statements("apache") == ()
    assert partitions.policy_statements(None) == ()


def test_the_native_store_is_divided_by_day_and_asks_for_no_extension() -> None:
    statements = partitions.store_statements(timescale=False)

    assert statements[0].endswith('PARTITION BY RANGE ("timestamp")')
    assert not any("EXTENSION" in statement or "hypertable" in statement for statement in statements)


def asked(sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def test_a_hypertable_keeps_its_key_its_day_chunks_and_its_policies(hypertable: None) -> None:
    stored()
    stored(timestamp=NOW - dt.timedelta(days=3))

    key = (
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'p'"
    )
    chunks = "SELECT range_end - range_start FROM timescaledb_information.chunks WHERE hypertable_name = %s"
    jobs = "SELECT proc_name, config ->> 'drop_after', config ->> 'compress_after' FROM"
    jobs += " timescaledb_information.jobs WHERE hypertable_name = %s ORDER BY proc_name"
    assert asked(key, partitions.TABLE) == [('PRIMARY KEY (student_id, "timestamp", id)',)]
    assert asked(chunks, partitions.TABLE) == [(dt.timedelta(days=1),)] * 2
    assert [(drop, compress) for _, drop, compress in asked(jobs, partitions.TABLE)] == [
        (None, f"{partitions.COMPRESS_AFTER_DAYS} days"),
        (f"{partitions.RETENTION_DAYS} days", None),
    ]


def test_a_compressed_day_still_answers_takes_late_rows_and_forgets_a_learner(hypertable: None) -> None:
    long_ago = NOW - dt.timedelta(days=20)
    for student_id in ("ada", "ben"):
        for minute in range(50):
            stored(student_id=student_id, timestamp=long_ago + dt.timedelta(minutes=minute))

    asked("SELECT compress_chunk(c) FROM show_chunks(%s, older_than => %s) c", partitions.TABLE, NOW)
    packed = (
        "SELECT count(*) FROM timescaledb_information.chunks WHERE hypertable_name = %s AND is_compressed"
    )
    assert asked(packed, partitions.TABLE)[0][0] >= 1
    stored(timestamp=long_ago, metric_value=7.0)
    UsabilityMetric.objects.filter(student_id="ben").delete()

    found = UsabilityMetric.objects.for_student("ada", "maths", long_ago - dt.timedelta(hours=1))
    assert len(found) == 51
    assert not UsabilityMetric.objects.filter(student_id="ben").exists()


def test_a_store_with_two_btrees_becomes_one_with_one_and_keeps_its_rows(native_days: None) -> None:
    """Begins with the native store as it was made before."""
    asked_for = (
        f'ALTER TABLE {partitions.TABLE} DROP CONSTRAINT {partitions.TABLE}_pkey, ADD PRIMARY KEY ("timestamp", id)',
        f'CREATE INDEX metric_of_student ON {partitions.TABLE} (student_id, "timestamp")',
        "DROP INDEX metric_by_time",
    )
    with connection.cursor() as cursor:
        for statement in asked_for:
            cursor.execute(statement)
    kept = stored()
    migration = importlib.import_module("usability.migrations.0010_one_btree")

    for _ in range(2):
        with connection.schema_editor() as editor:
            migration.replace_key(None, editor)

    indexes = "SELECT indexdef FROM pg_indexes WHERE tablename = %s ORDER BY indexdef"
    methods = [definition.partition(" USING ")[2] for (definition,) in asked(indexes, partitions.TABLE)]
    assert methods == [
        "brin (received_at) WITH (pages_per_range='32')",
        "brin (\"timestamp\") WITH (pages_per_range='32')",
        'btree (student_id, "timestamp", id)',
    ]
    assert UsabilityMetric.objects.with_id(kept.id) == kept


# ---------------------------------------------------------------- the table


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_no_number_is_refused_by_the_database(days: None, value: float) -> None:
    with refused(), transaction.atomic():
        stored(metric_value=value)


def test_finding_a_metric_by_its_id_asks_the_days_that_can_hold_it_alone(days: None) -> None:
    partitions.create_days([TODAY - dt.timedelta(days=n) for n in range(20, 40)])
    late = stored(timestamp=NOW - dt.timedelta(days=6, hours=23))

    assert UsabilityMetric.objects.with_id(late.id) == late
    with pytest.raises(UsabilityMetric.DoesNotExist):
        UsabilityMetric.objects.with_id(Student().id)


def plan_of(queryset: Any) -> str:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        return queryset.explain()


def test_questions_about_a_learner_use_the_learners_index(days: None) -> None:
    since = NOW - dt.timedelta(hours=1)

    stored()
    plan = plan_of(UsabilityMetric.objects.for_student("ada", "maths", since))

    assert (
        "usability_metrics_pkey" in plan or "_pkey on usability_metrics_2" in plan
    )  # a chunk's, a partition's name
    assert plan.count("usability_metrics_2") <= 2 * 9  # today and the days to come: the past is not asked


def test_metrics_of_a_student_come_oldest_first_and_by_app_and_time(days: None) -> None:
    for minutes, app_name in ((5, "maths"), (15, "maths"), (10, "piano"), (90, "maths")):
        stored(timestamp=NOW - dt.timedelta(minutes=minutes), metric_value=minutes, app_name=app_name)
    stored(student_id="ben")

    found = UsabilityMetric.objects.for_student("ada", "maths", NOW - dt.timedelta(hours=1))

    assert [row.metric_value for row in found] == [15, 5]


def test_metrics_are_found_by_type_and_by_sitting(days: None) -> None:
    stored(metric_type="error", session_id="s-1")
    stored(metric_type="error", timestamp=NOW - dt.timedelta(hours=3))
    stored(session_id="s-2")

    assert UsabilityMetric.objects.of_type("error", NOW - dt.timedelta(hours=1)).count() == 1
    assert UsabilityMetric.objects.of_type("error").count() == 2
    assert [row.session_id for row in UsabilityMetric.objects.of_session("ada", "s-2")] == ["s-2"]


# ---------------------------------------------------------------- what SQL users see


@pytest.mark.parametrize(
    ("errors", "backspaces", "hesitation_s", "level"),
    [
        (0, 0, 0, "low"),
        (1, 5, 10, "low"),
        (2, 0, 0, "medium"),
        (0, 6, 0, "medium"),
        (0, 0, 10.5, "medium"),
        (3, 10, 30, "medium"),
        (4, 0, 0, "high"),
        (0, 11, 0, "high"),
        (0, 0, 30.5, "high"),
        (5, 20, 60, "high"),
        (6, 0, 0, "critical"),
        (0, 21, 0, "critical"),
        (0, 0, 60.5, "critical"),
        (None, None, None, "low"),
        (None, 21, None, "critical"),
    ],
)
def test_the_frustration_level_of_sql_has_the_known_cut_offs(
    errors: int, backspaces: int, hesitation_s: float, level: str
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT calculate_frustration_level(%s, %s, %s)", [errors, backspaces, hesitation_s])
        assert cursor.fetchone() == (level,)


@pytest.fixture
def room(db: None) -> Classroom:
    room = Classroom.objects.create(school=School.objects.create(name="North"), name="5a")
    for student_id in ("ada", "ben", "cleo"):
        Student.objects.create(student_id=student_id)
        Enrollment.objects.create(classroom=room, student_id=student_id)
    return room


def event(
    room: Classroom | None, student_id: str, at: dt.datetime, severity: str = "critical", **more: Any
) -> FrustrationEvent:
    return FrustrationEvent.objects.create(
        student_id=student_id,
        classroom=room,
        app_name="maths",
        event_type=more.pop("event_type", "accuracy"),
        severity=severity,
        detected_at=at,
        **more,
    )


def rating(
    room: Classroom, student_id: str, stars: int, at: dt.datetime, session_id: str = "s"
) -> SatisfactionRating:
    return SatisfactionRating.objects.create(
        student_id=student_id,
        classroom=room,
        app_name="maths",
        session_id=session_id,
        rating=stars,
        created_at=at,
    )


def test_the_view_counts_events_and_ratings_each_once_by_class_and_hour(room: Classroom) -> None:
    hour = dt.datetime(2026, 3, 2, 9, tzinfo=dt.UTC)
    inside, later = hour + dt.timedelta(minutes=20), hour + dt.timedelta(minutes=70)
    event(room, "ada", inside)
    event(room, "ben", inside, resolved_at=later)
    event(room, "ben", inside, "high", event_type="typing")
    event(room, "ada", later, "low", event_type="pause")
    event(None, "cleo", inside)
    for number, stars in enumerate((1, 2, 3, 4, 5)):
        rating(room, "ada", stars, inside, f"s-{number}")

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT window_start, student_count, struggling_student_count, event_count, critical_event_count,"
            " high_event_count, unresolved_event_count, rating_count, average_rating"
            " FROM classroom_struggle_analysis WHERE classroom_id = %s ORDER BY window_start",
            [room.pk],
        )
        rows = cursor.fetchall()

    # Two critical events beside five ratings are two, not ten.
    assert rows == [
        (hour, 3, 2, 3, 2, 1, 2, 5, 3.0),
        (hour + dt.timedelta(hours=1), 3, 1, 1, 0, 0, 1, 0, None),
    ]


def test_an_hour_with_ratings_alone_is_in_the_view(room: Classroom) -> None:
    rating(room, "ada", 2, dt.datetime(2026, 3, 2, 9, 5, tzinfo=dt.UTC))

    with connection.cursor() as cursor:
        cursor.execute("SELECT event_count, rating_count, average_rating FROM classroom_struggle_analysis")
        assert cursor.fetchall() == [(0, 1, 2.0)]


# ---------------------------------------------------------------- what the database itself holds to


def test_one_event_of_a_kind_is_open_at_a_time(room: Classroom) -> None:
    first = event(room, "ada", NOW)
    with refused(), transaction.atomic():
        event(room, "ada", NOW)
    event(room, "ada", NOW, event_type="typing")
    event(room, "ben", NOW)

    first.resolved_at = NOW
    first.save()

    event(room, "ada", NOW)


def test_an_event_does_not_end_before_it_began(room: Classroom) -> None:
    with refused(), transaction.atomic():
        event(room, "ada", NOW, ended_at=NOW - dt.timedelta(seconds=1))


def test_a_severity_nobody_knows_is_refused(room: Classroom) -> None:
    with refused(), transaction.atomic():
        event(room, "ada", NOW, "dreadful")


@pytest.mark.parametrize("stars", [0, 6])
def test_a_rating_is_from_one_to_five(room: Classroom, stars: int) -> None:
    with refused(), transaction.atomic():
        rating(room, "ada", stars, NOW)


def test_a_sitting_has_one_rating(room: Classroom) -> None:
    rating(room, "ada", 3, NOW)
    with refused(), transaction.atomic():
        rating(room, "ada", 4, NOW)


def alert(room: Classroom, seq: int, **more: Any) -> TeacherDashboardAlert:
    whole = {"student_id": "ada", "app_name": "maths", "alert_type": "accuracy", "severity": "warning"}
    return TeacherDashboardAlert.objects.create(classroom=room, seq=seq, **whole | more)


def test_a_number_in_a_classroom_is_given_once(room: Classroom) -> None:
    alert(room, 1)
    with refused(), transaction.atomic():
        alert(room, 1)


@pytest.mark.parametrize(("state", "closed"), [("resolved", False), ("new", True), ("gone", False)])
def test_a_closed_alert_says_when_and_an_open_one_does_not(room: Classroom, state: str, closed: bool) -> None:
    with refused(), transaction.atomic():
        alert(room, 1, state=state, closed_at=NOW if closed else None)


@pytest.mark.parametrize("seat", ["c2", "2C", "C0", "CCC1", "somewhere"[:4]])
def test_a_seat_is_a_column_and_a_row(room: Classroom, seat: str) -> None:
    with refused(), transaction.atomic():
        Enrollment.objects.filter(student_id="ada").update(seat=seat)


def test_two_pupils_do_not_share_a_seat_and_a_pupil_is_enrolled_once(room: Classroom) -> None:
    Enrollment.objects.filter(student_id="ada").update(seat="C2")
    with refused(), transaction.atomic():
        Enrollment.objects.filter(student_id="ben").update(seat="C2")
    with refused(), transaction.atomic():
        Enrollment.objects.create(classroom=room, student_id="ada")


def test_a_name_cannot_be_a_pseudonym(db: None) -> None:
    with refused(), transaction.atomic():
        Student.objects.create(student_id="Ada Lovelace")


def test_erasing_a_student_takes_events_ratings_and_alerts_along(room: Classroom) -> None:
    alert(room, 1, event=event(room, "ada", NOW))
    rating(room, "ada", 3, NOW)
    rating(room, "ben", 3, NOW)

    Student.objects.get(student_id="ada").delete()

    assert (FrustrationEvent.objects.count(), TeacherDashboardAlert.objects.count()) == (0, 0)
    assert [row.student_id for row in SatisfactionRating.objects.all()] == ["ben"]


# ---------------------------------------------------------------- the named questions


def test_unresolved_events_come_worst_and_oldest_first(room: Classroom) -> None:
    old, new = NOW - dt.timedelta(hours=1), NOW
    event(room, "ada", new, "low")
    event(room, "ben", new, "critical")
    event(room, "cleo", old, "critical")
    event(room, "ada", old, "high", event_type="typing", resolved_at=NOW)

    found = FrustrationEvent.objects.unresolved()

    assert [(row.student_id, row.severity) for row in found] == [
        ("cleo", "critical"),
        ("ben", "critical"),
        ("ada", "low"),
    ]
    assert [row.event_type for row in FrustrationEvent.objects.for_student("ada")] == ["accuracy", "typing"]
    assert FrustrationEvent.objects.with_severity("critical").count() == 2


def test_old_resolved_events_are_deleted_and_unresolved_ones_stay(room: Classroom) -> None:
    old = NOW - dt.timedelta(days=40)
    event(room, "ada", old, resolved_at=old)
    event(room, "ben", old)
    event(room, "cleo", old, resolved_at=NOW)

    assert FrustrationEvent.objects.delete_older_than(dt.timedelta(days=30), now=NOW) == 1
    assert FrustrationEvent.objects.count() == 2


def test_means_of_ratings_are_none_where_there_is_none(room: Classroom) -> None:
    assert SatisfactionRating.objects.average_for_app("maths") is None
    rating(room, "ada", 2, NOW - dt.timedelta(days=9), "s-1")
    rating(room, "ada", 5, NOW, "s-2")
    rating(room, "ben", 5, NOW)

    ratings = SatisfactionRating.objects

    assert ratings.average_for_app("maths") == 4
    assert ratings.recent_average_for_student("ada", NOW - dt.timedelta(days=1)) == 5
    assert ratings.recent_average_for_student("cleo", NOW - dt.timedelta(days=1)) is None
    assert [row.rating for row in ratings.for_student("ada")] == [5, 2]
    assert len(ratings.recent(2)) == 2
    with pytest.raises(ValueError, match="at least 1"):
        ratings.recent(0)
    assert not ratings.with_feedback("maths").exists()


def test_alerts_of_a_teacher_are_those_of_the_teachers_classrooms(room: Classroom) -> None:
    rosa, otto = (get_user_model().objects.create_user(name) for name in ("rosa", "otto"))
    ClassroomTeacher.objects.create(classroom=room, user=rosa)
    shared, private = alert(room, 1), alert(room, 2, teacher=otto)
    other = Classroom.objects.create(school=room.school, name="5b")
    ClassroomTeacher.objects.create(classroom=other, user=otto)
    ClassroomTeacher.objects.create(classroom=room, user=otto)

    assert list(TeacherDashboardAlert.objects.for_teacher(rosa.pk)) == [shared]
    assert list(TeacherDashboardAlert.objects.for_teacher(otto)) == [private, shared]


def test_unacknowledged_alerts_come_worst_first_and_struggling_students_once(room: Classroom) -> None:
    alert(room, 1, severity="info")
    alert(room, 2, severity="critical", student_id="ben")
    alert(room, 3, severity="critical", student_id="ben", detected_at=NOW - dt.timedelta(hours=1))
    alert(room, 4, acknowledged_at=NOW, student_id="cleo")
    alert(room, 5, student_id=None)
    alert(room, 6, student_id="cleo", state="resolved", closed_at=NOW, app_name="piano")

    alerts = TeacherDashboardAlert.objects

    assert [row.seq for row in alerts.unacknowledged()] == [3, 2, 5, 1]
    assert list(alerts.struggling_students("maths")) == ["ada", "ben", "cleo"]
    assert list(alerts.struggling_students("piano")) == []


def test_old_closed_alerts_are_deleted_and_open_ones_stay(room: Classroom) -> None:
    old = NOW - dt.timedelta(days=40)
    alert(room, 1, state="expired", closed_at=old)
    alert(room, 2, created_at=old)
    alert(room, 3, state="resolved", closed_at=NOW, created_at=old)

    assert TeacherDashboardAlert.objects.delete_older_than(dt.timedelta(days=30), now=NOW) == 1
    assert [row.seq for row in TeacherDashboardAlert.objects.order_by("seq")] == [2, 3]


def test_students_without_a_current_class_are_unassigned(room: Classroom) -> None:
    Student.objects.ensure(["dan", "ada"], app_name="maths")
    Enrollment.objects.filter(student_id="ben").update(ended_on=TODAY)

    assert sorted(student.student_id for student in Student.objects.unassigned()) == ["ben", "dan"]
    assert Student.objects.get(student_id="ada").first_seen_app == ""
