"""Addresses of the usability API, below /api/v1/. A pseudonym may hold slashes."""

from __future__ import annotations

from django.conf import settings

from gaia_site.api.addresses import address
from usability.api import alerts, apps, classrooms, events, metrics, ratings, standards, students

# Taking metrics in can be switched off; then these calls do not exist.
ingest = (
    [
        address("usability/metrics", metrics.Metrics),
        address("usability/sessions", apps.SessionTokens),
        address("usability/xapi/statements", standards.XapiStatements),
        address("usability/caliper", standards.CaliperEvents),
    ]
    if settings.GAIA.usability_metrics_enabled
    else []
)

urlpatterns = [
    *ingest,
    address("usability/students/<path:student_id>/metrics", students.StudentMetrics),
    address("usability/students/<path:student_id>/frustration", students.StudentFrustration),
    address("usability/students/<path:student_id>/ratings", students.StudentRatings),
    address("usability/students/<path:student_id>/timeline", students.StudentTimeline),
    address("usability/students/<path:student_id>/explain", students.StudentExplain),
    address("usability/classrooms", classrooms.Classrooms),
    address("usability/classrooms/<uuid:classroom_id>/metrics", classrooms.ClassroomMetricsView),
    address("usability/classrooms/<uuid:classroom_id>/live", classrooms.ClassroomLive),
    address("usability/classrooms/<uuid:classroom_id>/snapshots", classrooms.ClassroomSnapshots),
    address("usability/classrooms/<uuid:classroom_id>/struggling", classrooms.ClassroomStruggling),
    address("usability/frustration-events", events.FrustrationEvents),
    address("usability/frustration-events/<uuid:event_id>/acknowledge", events.AcknowledgeEvent),
    address("usability/frustration-events/<uuid:event_id>/resolve", events.ResolveEvent),
    address("usability/alerts", alerts.Alerts),
    address("usability/alerts/<uuid:alert_id>", alerts.Alert),
    address("usability/alerts/<uuid:alert_id>/acknowledge", alerts.AcknowledgeAlert),
    address("usability/alerts/<uuid:alert_id>/snooze", alerts.SnoozeAlert),
    address("usability/alerts/<uuid:alert_id>/resolve", alerts.ResolveAlert),
    address("usability/alerts/<uuid:alert_id>/dismiss", alerts.DismissAlert),
    address("usability/alerts/<uuid:alert_id>/on-my-way", alerts.OnMyWay),
    address("usability/alerts/<uuid:alert_id>/undo", alerts.UndoAlert),
    address("usability/alerts/<uuid:alert_id>/interventions", alerts.Interventions),
    address("usability/ratings", ratings.Ratings),
    address("usability/ratings/summary", ratings.RatingsSummaryView),
    address("usability/help-requests/<uuid:request_id>", apps.HelpRequestState),
    address("usability/apps/<path:app_name>/health", apps.AppHealthView),
]
