"""Which classroom a pupil's signal belongs to when nobody says: the same rule as at the door of ingest."""

from __future__ import annotations

from usability.ingest.roster import Roster, look_up
from usability.models import Classroom


def classroom_of(student_id: str, app_name: str = "") -> Classroom | None:
    """The classroom the pupil is in now for that app; None where no current enrollment says."""
    roster = Roster()
    roster.learn(look_up([student_id], app_name))
    classroom_id = roster.classroom_of(student_id, app_name)
    return None if classroom_id is None else Classroom.objects.filter(pk=classroom_id).first()
