"""The questions teachers, apps and operators ask; answers are the frozen data of `shapes`.

`who` is a signed-in `User` or an API `Principal`; somebody else's classroom or pupil is `NotFound`.

    classrooms_of(who, *, now=None) -> list[ClassCard]
    live_class(classroom_id, *, who, now=None) -> LiveClass
    live_signal(alert_id, *, who, now=None) -> Signal                  one card, for a fragment
    alerts_after(classroom_id, seq, *, limit=200, now=None) -> list[AlertChange]
    cursor_of(classroom_id) -> int
    student_page(student_id, *, who, since, until, bucket_s=None, now=None) -> StudentPage
    student_buckets(student_id, *, who, since, until, bucket_s, app_name=None) -> list[Bucket]
    classroom_metrics(classroom_id, *, who, app_name=None, since, until) -> ClassroomMetrics
    struggling(classroom_id, *, who, app_name=None, now=None) -> list[Struggling]
    snapshots(classroom_id, *, who, since, until, app_name=None) -> QuerySet
    trends(classroom_id, *, who, since, until) -> Trends
    ratings_summary(*, who, app_name=None, since=None) -> RatingsSummary
    app_health(app_name, *, who, since, until) -> AppHealth
    help_request_state(alert_id, *, student_id, app_name) -> str       sent, seen, coming or done
"""
