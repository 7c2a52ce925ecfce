"""Who may see which row: every view, consumer and service starts from a queryset of this module.

`who` is a signed-in user or a `Principal` (gaia_site.keys). Three kinds of caller see anything at all:
an operator (staff, or a key with the scope admin) everything; a teacher (a login, or a key with the scope
teacher) the classrooms this person teaches and the pupils enrolled in them; an app (a key with metrics:read
that belongs to an app) the pseudonymous records of that app. The getters raise `NotFound` for what is
absent and for what is somebody else's, in the same words.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet

from gaia_site.keys import Principal, principal_of_user
from gaia_site.models import Scope
from usability.errors import NotFound
from usability.models import (
    Classroom,
    ClassroomMetricsSnapshot,
    ClassroomTeacher,
    Enrollment,
    FrustrationEvent,
    HelpRequest,
    Intervention,
    SatisfactionRating,
    Student,
    TeacherDashboardAlert,
    UsabilityMetric,
)


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a caller sees: everything, a teacher's own classrooms, an app's own records, or nothing."""

    everything: bool = False
    teacher_id: Any = None
    app_name: str = ""


def reach_of(who: Any) -> Reach:
    """The reach of a user or principal; nobody and pupils' session tokens reach nothing."""
    principal = who if isinstance(who, Principal) else _principal_of(who)
    if principal is None or principal.kind == "student":
        return Reach()
    if principal.is_admin:
        return Reach(everything=True)
    if principal.app_name and principal.has_any(Scope.METRICS_READ) and not principal.has_any(Scope.TEACHER):
        return Reach(app_name=principal.app_name)
    if principal.user is not None and principal.has_any(Scope.TEACHER, Scope.METRICS_READ):
        return Reach(teacher_id=principal.user.pk)
    return Reach()


def _principal_of(user: Any) -> Principal | None:
    if user is None or not user.is_authenticated or not user.is_active:
        return None
    return principal_of_user(user)


def person(who: Any) -> Any:
    """The user behind a caller, for the columns that say who did it; None for nobody."""
    if isinstance(who, Principal):
        return who.user
    return who if who is not None and who.is_authenticated else None


# ---------------------------------------------------------------- querysets


def visible_classrooms(who: Any) -> QuerySet[Classroom]:
    """Classrooms the caller teaches (an operator: all); an app sees none."""
    reach = reach_of(who)
    if reach.everything:
        return Classroom.objects.all()
    if reach.teacher_id is None:
        return Classroom.objects.none()
    return Classroom.objects.filter(_taught_by(reach.teacher_id))


def visible_students(who: Any) -> QuerySet[Student]:
    """Pupils now enrolled in a visible classroom; for an app, pupils it has reported about."""
    reach = reach_of(who)
    if reach.everything:
        return Student.objects.all()
    if reach.teacher_id is not None:
        return Student.objects.filter(_enrolled_with(reach.teacher_id, "student_id"))
    if reach.app_name:
        reported = UsabilityMetric.objects.filter(student_id=OuterRef("student_id"), app_name=reach.app_name)
        return Student.objects.filter(Q(first_seen_app=reach.app_name) | Exists(reported))
    return Student.objects.none()


def visible_metrics(who: Any) -> QuerySet[UsabilityMetric]:
    """Metrics of visible pupils; for an app, its own."""
    return _of_students(UsabilityMetric.objects.all(), who)


def visible_events(who: Any) -> QuerySet[FrustrationEvent]:
    """Frustration events of visible pupils; for an app, its own."""
    return _of_students(FrustrationEvent.objects.all(), who)


def visible_ratings(who: Any) -> QuerySet[SatisfactionRating]:
    """Ratings of visible pupils; for an app, its own."""
    return _of_students(SatisfactionRating.objects.all(), who)


def visible_alerts(who: Any) -> QuerySet[TeacherDashboardAlert]:
    """Alerts of visible classrooms, without those addressed to another teacher alone; an app sees none."""
    reach = reach_of(who)
    if reach.everything:
        return TeacherDashboardAlert.objects.all()
    if reach.teacher_id is None:
        return TeacherDashboardAlert.objects.none()
    mine = Q(teacher__isnull=True) | Q(teacher_id=reach.teacher_id)
    return TeacherDashboardAlert.objects.filter(_taught_by(reach.teacher_id, "classroom_id"), mine)


def visible_interventions(who: Any) -> QuerySet[Intervention]:
    """What was done about visible alerts."""
    return Intervention.objects.filter(alert__in=visible_alerts(who))


def visible_snapshots(who: Any) -> QuerySet[ClassroomMetricsSnapshot]:
    """Snapshots of visible classrooms; an app sees none."""
    reach = reach_of(who)
    if reach.everything:
        return ClassroomMetricsSnapshot.objects.all()
    if reach.teacher_id is None:
        return ClassroomMetricsSnapshot.objects.none()
    return ClassroomMetricsSnapshot.objects.filter(_taught_by(reach.teacher_id, "classroom_id"))


def visible_help_requests(who: Any) -> QuerySet[HelpRequest]:
    """Help requests: a pupil's session token sees its own, a writing app those of its pupils."""
    if isinstance(who, Principal) and who.kind == "student":
        return HelpRequest.objects.filter(student_id=who.student_id, app_name=who.app_name)
    reach = reach_of(who)
    if reach.everything:
        return HelpRequest.objects.all()
    if isinstance(who, Principal) and who.app_name and who.has_any(Scope.METRICS_WRITE, Scope.METRICS_READ):
        return HelpRequest.objects.filter(app_name=who.app_name)
    if reach.teacher_id is not None:
        return HelpRequest.objects.filter(_enrolled_with(reach.teacher_id, "student_id"))
    return HelpRequest.objects.none()


def _taught_by(teacher_id: Any, classroom: str = "pk") -> Exists:
    return Exists(ClassroomTeacher.objects.filter(classroom_id=OuterRef(classroom), user_id=teacher_id))


def _enrolled_with(teacher_id: Any, student: str) -> Exists:
    return Exists(
        Enrollment.objects.current().filter(
            student_id=OuterRef(student), classroom__teachers__user_id=teacher_id
        )
    )


def _of_students(rows: QuerySet, who: Any) -> QuerySet:
    reach = reach_of(who)
    if reach.everything:
        return rows
    if reach.teacher_id is not None:
        return rows.filter(_enrolled_with(reach.teacher_id, "student_id"))
    if reach.app_name:
        return rows.filter(app_name=reach.app_name)
    return rows.none()


# ---------------------------------------------------------------- getters


def get_classroom(who: Any, classroom_id: Any) -> Classroom:
    """The classroom, if it is the caller's. Raises `NotFound`."""
    return _one(visible_classrooms(who), id=_uuid(classroom_id))


def get_student(who: Any, student_id: str) -> Student:
    """The pupil of that pseudonym, if the caller may see this pupil. Raises `NotFound`."""
    return _one(visible_students(who), student_id=student_id)


def get_alert(who: Any, alert_id: Any) -> TeacherDashboardAlert:
    """The alert, if it is of the caller's classroom. Raises `NotFound`."""
    return _one(visible_alerts(who), id=_uuid(alert_id))


def get_event(who: Any, event_id: Any) -> FrustrationEvent:
    """The frustration event, if it is about a pupil the caller may see. Raises `NotFound`."""
    return _one(visible_events(who), id=_uuid(event_id))


def get_help_request(who: Any, request_id: Any) -> HelpRequest:
    """The help request, if it is the caller's. Raises `NotFound`."""
    return _one(visible_help_requests(who), id=_uuid(request_id))


def _one(rows: QuerySet, **where: Any) -> Any:
    found = rows.filter(**where).first()
    if found is None:
        raise NotFound
    return found


def _uuid(value: Any) -> uuid.UUID:
    if isinstance(value, uuid.UUID):
        return value
    try:
        return uuid.UUID(str(value))
    except ValueError:
        raise NotFound from None
