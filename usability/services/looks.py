"""Who has looked at one learner: the record that the law and the parents may ask for."""

from __future__ import annotations

from typing import Any

from gaia_site.keys import Principal
from usability.access import person
from usability.models import StudentAccess


def record_look(who: Any, *, student_id: str, action: str) -> None:
    """Note that the caller has seen, or done something with, one learner's records. Never changed later."""
    key_name = who.name if isinstance(who, Principal) and who.kind == "key" else ""
    StudentAccess.objects.create(user=person(who), key_name=key_name, student_id=student_id, action=action)
