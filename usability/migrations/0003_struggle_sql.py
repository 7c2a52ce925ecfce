"""The SQL function and view that analysts know from the reference. Runs before the code.

The function keeps the reference's cut-offs. The view aggregates events and ratings each on its own before
it joins them, so that they do not multiply, and is scoped by classroom, app and hour.
"""

from django.db import migrations

CREATE_FUNCTION = """
CREATE FUNCTION calculate_frustration_level(errors bigint, backspaces bigint, hesitation_s double precision)
RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN e > 5 OR b > 20 OR h > 60 THEN 'critical'
    WHEN e > 3 OR b > 10 OR h > 30 THEN 'high'
    WHEN e > 1 OR b > 5 OR h > 10 THEN 'medium'
    ELSE 'low'
  END
  FROM (SELECT coalesce(errors, 0) AS e, coalesce(backspaces, 0) AS b, coalesce(hesitation_s, 0) AS h) AS given
$$
"""

CREATE_VIEW = """
CREATE VIEW classroom_struggle_analysis AS
WITH events AS (
  SELECT classroom_id, app_name, date_bin('1 hour', detected_at, TIMESTAMPTZ '2000-01-01Z') AS window_start,
         count(*) AS event_count,
         count(*) FILTER (WHERE severity = 'critical') AS critical_event_count,
         count(*) FILTER (WHERE severity = 'high') AS high_event_count,
         count(*) FILTER (WHERE resolved_at IS NULL) AS unresolved_event_count,
         count(DISTINCT student_id) AS struggling_student_count
  FROM frustration_events WHERE classroom_id IS NOT NULL GROUP BY 1, 2, 3
), ratings AS (
  SELECT classroom_id, app_name, date_bin('1 hour', created_at, TIMESTAMPTZ '2000-01-01Z') AS window_start,
         count(*) AS rating_count, avg(rating)::double precision AS average_rating
  FROM satisfaction_ratings WHERE classroom_id IS NOT NULL GROUP BY 1, 2, 3
), enrolled AS (
  SELECT classroom_id, count(*) AS student_count
  FROM usability_enrollment WHERE ended_on IS NULL GROUP BY 1
)
SELECT classroom_id, app_name, window_start, window_start + interval '1 hour' AS window_end,
       coalesce(enrolled.student_count, 0) AS student_count,
       coalesce(events.struggling_student_count, 0) AS struggling_student_count,
       coalesce(events.event_count, 0) AS event_count,
       coalesce(events.critical_event_count, 0) AS critical_event_count,
       coalesce(events.high_event_count, 0) AS high_event_count,
       coalesce(events.unresolved_event_count, 0) AS unresolved_event_count,
       coalesce(ratings.rating_count, 0) AS rating_count,
       ratings.average_rating
FROM events FULL JOIN ratings USING (classroom_id, app_name, window_start)
LEFT JOIN enrolled USING (classroom_id)
"""


class Migration(migrations.Migration):
    dependencies = [("usability", "0002_metric_store")]

    operations = [
        migrations.RunSQL(
            CREATE_FUNCTION, "DROP FUNCTION calculate_frustration_level(bigint, bigint, double precision)"
        ),
        migrations.RunSQL(CREATE_VIEW, "DROP VIEW classroom_struggle_analysis"),
    ]
