"""The store of metrics: one table divided by time, in TimescaleDB where it is there, else natively by day.

TimescaleDB makes and drops its chunks by itself. The native store has no default partition (a stray row in
one would block the creation of its own day), so the days must exist before their rows come:
`ensure_partitions` is called by the migration, by every worker and `up` at start, and daily after that.
"""

from __future__ import annotations

import datetime as dt

from django.db import DatabaseError, connection, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

TABLE = "usability_metrics"

# A row may be up to 7 days older than its receipt and 5 minutes younger; one more day behind covers the
# hours between midnight and the receipt, the days ahead cover a week without any worker.
DAYS_BEHIND = 8
DAYS_AHEAD = 7
RETENTION_DAYS = 90
COMPRESS_AFTER_DAYS = 8
DDL_LOCK_TIMEOUT = "5s"


def is_timescale_ready(db: BaseDatabaseWrapper = connection) -> bool:
    """Whether CREATE EXTENSION timescaledb would work: its files are there *and* it is preloaded."""
    with db.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('shared_preload_libraries') LIKE '%timescaledb%'"
            " AND EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')"
        )
        return cursor.fetchone()[0]


def is_native(db: BaseDatabaseWrapper = connection) -> bool:
    """Whether the metrics are in native partitions (else in a hypertable)."""
    with db.cursor() as cursor:
        cursor.execute("SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass(%s)", [TABLE])
        row = cursor.fetchone()
        return bool(row and row[0])


def partition_name(day: dt.date) -> str:
    """The table of one UTC day."""
    return f"{TABLE}_{day:%Y%m%d}"


def has_two_btrees(db: BaseDatabaseWrapper = connection) -> bool:
    """Whether the store was made when its key was (timestamp, id), beside an index by learner."""
    with db.cursor() as cursor:
        cursor.execute("SELECT to_regclass('metric_of_student') IS NOT NULL")
        return bool(cursor.fetchone()[0])


def existing_days(db: BaseDatabaseWrapper = connection) -> list[dt.date]:
    """The days that have a partition, oldest first."""
    with db.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
            " WHERE i.inhparent = to_regclass(%s)",
            [TABLE],
        )
        names = [row[0] for row in cursor.fetchall()]
    return sorted(dt.date.fromisoformat(name.removeprefix(f"{TABLE}_")) for name in names)


def ensure_partitions(
    today: dt.date,
    *,
    days_behind: int = DAYS_BEHIND,
    days_ahead: int = DAYS_AHEAD,
    db: BaseDatabaseWrapper = connection,
) -> list[dt.date]:
    """Create the days around `today` (a UTC day) that are missing; which. Nothing to do in a hypertable."""
    if not is_native(db):
        return []
    wanted = [today + dt.timedelta(days=n) for n in range(-days_behind, days_ahead + 1)]
    return create_days(wanted, db=db)


def create_days(days: list[dt.date], *, db: BaseDatabaseWrapper = connection) -> list[dt.date]:
    """Create partitions for exactly these days where they are missing, such as for an import of old data."""
    if not is_native(db):
        return []
    missing = sorted(set(days) - set(existing_days(db)))
    for day in missing:
        _create_day(day, db)
    return missing


def _create_day(day: dt.date, db: BaseDatabaseWrapper) -> None:
    """Create one day in a transaction of its own; two processes may try at once, and one of them wins."""
    after = day + dt.timedelta(days=1)
    with transaction.atomic(using=db.alias), db.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", [DDL_LOCK_TIMEOUT])
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [TABLE])
        cursor.execute(
            f"CREATE TABLE IF NOT EXISTS {partition_name(day)} PARTITION OF {TABLE}"
            f" FOR VALUES FROM ('{day} 00:00:00Z') TO ('{after} 00:00:00Z')"
        )


def drop_expired(
    today: dt.date, *, keep_days: int = RETENTION_DAYS, db: BaseDatabaseWrapper = connection
) -> list[dt.date]:
    """Drop the days that ended more than `keep_days` ago; which. A hypertable's policy does it by itself.

    A day that a long query holds is left for the next call.
    """
    if not is_native(db):
        return []
    expired = [day for day in existing_days(db) if day < today - dt.timedelta(days=keep_days)]
    return [day for day in expired if _drop_day(day, db)]


def _drop_day(day: dt.date, db: BaseDatabaseWrapper) -> bool:
    try:
        with transaction.atomic(using=db.alias), db.cursor() as cursor:
            cursor.execute("SELECT set_config('lock_timeout', %s, true)", [DDL_LOCK_TIMEOUT])
            cursor.execute(f"DROP TABLE IF EXISTS {partition_name(day)}")
    except DatabaseError:
        return False
    return True


COLUMNS = """
    id uuid NOT NULL,
    "timestamp" timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    metric_value double precision NOT NULL,
    classroom_id uuid,
    student_id varchar(50) NOT NULL,
    app_name varchar(50) NOT NULL,
    metric_type varchar(100) NOT NULL,
    session_id varchar(100),
    metadata jsonb,
    -- NaN = NaN is true in PostgreSQL, and one NaN makes every mean NaN.
    CONSTRAINT metric_value_is_finite CHECK (metric_value < 'Infinity' AND metric_value > '-Infinity'),
    CONSTRAINT metric_student_is_an_id CHECK (student_id <> '' AND app_name <> '' AND metric_type <> ''),
    PRIMARY KEY (student_id, "timestamp", id)
"""

CREATE_NATIVE = f'CREATE TABLE {TABLE} ({COLUMNS}) PARTITION BY RANGE ("timestamp")'
CREATE_PLAIN = f"CREATE TABLE {TABLE} ({COLUMNS})"

# The key serves every question about a learner, and it is the only btree: upkeep of a second one cost 0.4 of what
# the server spends on a row. Questions about a classroom go by its learners; those about a stretch of receipt, such
# as a detector's that reads on after a loss, or of time go by BRIN, which is almost free to keep: rows lie nearly in
# that order.
CREATE_RECEIPT_INDEX = (
    f"CREATE INDEX metric_by_receipt ON {TABLE} USING brin (received_at) WITH (pages_per_range = 32)"
)
CREATE_TIME_INDEX = (
    f'CREATE INDEX metric_by_time ON {TABLE} USING brin ("timestamp") WITH (pages_per_range = 32)'
)

# A store made before the key began with the learner. The name of the key is PostgreSQL's own.
REPLACE_KEY = (
    (f'ALTER TABLE {TABLE} DROP CONSTRAINT {TABLE}_pkey, ADD PRIMARY KEY (student_id, "timestamp", id)'),
    "DROP INDEX metric_of_student",
    CREATE_TIME_INDEX,
)

TIMESCALE_STATEMENTS = (
    "CREATE EXTENSION IF NOT EXISTS timescaledb",
    (
        f"SELECT create_hypertable('{TABLE}', by_range('timestamp', INTERVAL '1 day'),"
        " create_default_indexes => false)"
    ),
)
# These are under TimescaleDB's community licence; a build without it lacks them.
TIMESCALE_POLICIES = (
    (
        f"ALTER TABLE {TABLE} SET (timescaledb.compress, timescaledb.compress_segmentby = 'student_id',"
        " timescaledb.compress_orderby = 'timestamp, id')"
    ),
    f"SELECT add_compression_policy('{TABLE}', INTERVAL '{COMPRESS_AFTER_DAYS} days', if_not_exists => true)",
    f"SELECT add_retention_policy('{TABLE}', INTERVAL '{RETENTION_DAYS} days', if_not_exists => true)",
)


def store_statements(*, timescale: bool) -> list[str]:
    """The statements that make the store, in order."""
    statements = [CREATE_PLAIN, *TIMESCALE_STATEMENTS] if timescale else [CREATE_NATIVE]
    return [*statements, CREATE_RECEIPT_INDEX, CREATE_TIME_INDEX]


def policy_statements(licence: str | None) -> tuple[str, ...]:
    """The statements that compress and drop old days by themselves; none without the community licence.

    `licence` is the setting `timescaledb.license`, which is known once the extension has been created.
    """
    return TIMESCALE_POLICIES if licence == "timescale" else ()
