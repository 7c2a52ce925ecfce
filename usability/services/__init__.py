"""The verbs of usability: the only writers besides ingest and the detection worker.

`who` is a signed-in `User` or an API `Principal` (gaia_site.keys); it decides what is visible, and somebody
else's object is `NotFound`. `now` is an aware datetime, the clock of the shell where left out. Every service is
one transaction; each change of an alert takes the next `seq` of its classroom and is pushed after commit.

    metrics        record_metrics(metrics, *, batch_id=None, now=None) -> Recorded          (delegates to ingest)
    events         record_event(*, student_id, app_name, event_type, severity, details, detected_at,
                                detector, params_version, classroom=None) -> FrustrationEvent   (one open each)
                   acknowledge_event(event_id, *, who, now=None) -> FrustrationEvent         (first one wins)
                   resolve_event(event_id, *, who, now=None) -> FrustrationEvent
    alerts         raise_alert(*, classroom, student_id, app_name, alert_type, severity, details, event=None,
                               now=None) -> TeacherDashboardAlert
                   acknowledge_alert(alert_id, *, who, note="", now=None)
                   on_my_way(alert_id, *, who, now=None)           state helping, seen by co-teachers
                   helped(alert_id, *, who, category, note="", now=None)   resolved, with an intervention
                   dismiss_alert(alert_id, *, who, now=None)       "not a problem": a label for the back-test
                   snooze_alert(alert_id, *, who, minutes=10, now=None)
                   undo(alert_id, *, who, now=None)                the last step of this person, within 10 s
                   resolve_alert(alert_id, *, who, note="", now=None)
                   expire_alerts(*, now=None, limit=500) -> int
                   record_intervention(alert_id, *, who, kind, note="", now=None) -> Intervention
    ratings        record_rating(*, student_id, app_name, session_id, rating, feedback_text="", now=None)
                                -> SatisfactionRating             (a second one of the same sitting replaces)
    help requests  create_help_request(*, student_id, app_name, item="", now=None) -> HelpRequestState
                   see_help_request(alert_id, *, who, now=None)
    sessions       issue_session_token(*, who, student_id, app_name, ttl_s=3600, now=None) -> SessionToken
                   read_session_token(token, *, now=None) -> SessionClaims
    settings       pause_class(classroom_id, *, who, minutes, now=None), resume_class(classroom_id, *, who)
                   set_budget(classroom_id, *, who, alerts, per_minutes, burst=None)
                   set_quiet_hours(classroom_id, *, who, starts_at, ends_at, enabled=True)
                   set_profile(classroom_id, *, who, preset, switches=None)
                   set_seats(classroom_id, *, who, seats: dict[student_id, place])
    snapshots      take_snapshot(classroom, app_name, window_start, window_end) -> ClassroomMetricsSnapshot

Each returns the changed row. Errors are those of `usability.errors`.
"""
