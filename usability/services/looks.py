"""Who has looked at one learner: the record that the law and the parents may ask for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gaia_site.keys import Principal
from usability.access import person
from usability.models import StudentAccess


def record_look(who: Any, *, student_id: str, action: str) -> None:
    """Note that the caller has seen, or done something with, one learner's records. Never changed later."""
    record_looks(who, student_ids=[student_id], action=action)


def record_looks(who: Any, *, student_ids: Iterable[str], action: str) -> None:
    """The same for several learners at once, such as those of a list."""
    key_name = who.name if isinstance(who, Principal) and who.kind == "key" else ""
    user = person(who)
    StudentAccess.objects.bulk_create(
        StudentAccess(user=user, key_name=key_name, student_id=student_id, action=action)
        for student_id in sorted(set(student_ids))
    )
