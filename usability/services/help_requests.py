"""A pupil asks for help: told to the teacher at once, past every budget, and answered on the pupil's page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import transaction
from django.utils import timezone

from usability.models import Classroom, HelpRequest, Student
from usability.services.routing import classroom_of

if TYPE_CHECKING:
    import datetime as dt
    import uuid


def create_help_request(
    *,
    student_id: str,
    app_name: str,
    request_id: uuid.UUID | None = None,
    classroom: Classroom | None = None,
    now: dt.datetime | None = None,
) -> HelpRequest:
    """The request of that id, made once; the alert that detection raises for it is tied to it there.

    `request_id` is the id of the `help_request` metric, by which the app asks how it stands.
    """
    now = now or timezone.now()
    with transaction.atomic():
        Student.objects.ensure([student_id], app_name=app_name)
        request = HelpRequest(
            student_id=student_id,
            app_name=app_name,
            classroom=classroom or classroom_of(student_id, app_name),
            requested_at=now,
        )
        if request_id is not None:
            request.id = request_id
        HelpRequest.objects.bulk_create([request], ignore_conflicts=True)
    return HelpRequest.objects.select_related("alert").get(pk=request.pk)
