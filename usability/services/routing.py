"""Which classroom a pupil's signal belongs to when nobody says."""

from __future__ import annotations

from usability.models import Classroom, Enrollment


def classroom_of(student_id: str, app_name: str = "") -> Classroom | None:
    """The classroom the pupil is in now; None where no current enrollment says.

    Of several, one that lists the app comes first, then the one enrolled in last.
    """
    current = (
        Enrollment.objects.current()
        .filter(student_id=student_id, classroom__is_archived=False)
        .select_related("classroom")
        .order_by("-created_at", "-id")
    )
    classrooms = [enrollment.classroom for enrollment in current[:20]]
    listing = [classroom for classroom in classrooms if app_name and app_name in classroom.app_names]
    return next(iter(listing or classrooms), None)
