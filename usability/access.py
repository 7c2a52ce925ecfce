"""Who may see which row: every view, consumer and service starts from a queryset of this module.

    visible_classrooms(who), visible_students(who), visible_alerts(who), visible_events(who),
    visible_ratings(who), visible_interventions(who), visible_metrics(who), visible_snapshots(who)
    get_classroom(who, id), get_student(who, student_id), get_alert(who, id), get_event(who, id)

The getters raise `NotFound` for what is absent and for what is somebody else's, with the same words.
"""
