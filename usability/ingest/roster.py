"""Where a learner sits, remembered for a short while, so that storing a batch asks no roster.

A pseudonym no roster knows is given a `Student` row without a classroom: an admin sees it there.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass

from usability.models import App, Enrollment, Student

REMEMBER_S = 20.0
REMEMBER_LIMIT = 200_000
APPS_REMEMBER_S = 5.0


@dataclass(frozen=True, slots=True)
class Place:
    """One class of a learner, and the apps it lists."""

    classroom_id: uuid.UUID
    app_names: frozenset[str]


class Roster:
    """A memory of one process. Not thread-safe: use it from the event loop; `look_up` runs in a thread.

    `on_forget` is called when all is forgotten, for who remembers what came from here.
    """

    def __init__(self, on_forget: Callable[[], None] = lambda: None) -> None:
        self._on_forget = on_forget
        self._places: dict[str, tuple[Place, ...]] = {}
        self._begun_s = 0.0

    def unknown(self, student_ids: Collection[str], now_s: float) -> set[str]:
        """Which of these must be looked up before `classroom_of` answers for them."""
        if now_s - self._begun_s > REMEMBER_S or len(self._places) > REMEMBER_LIMIT:
            # All at once: one moment to forget is cheaper than one for each learner.
            self._places = {}
            self._begun_s = now_s
            self._on_forget()
        return {student_id for student_id in student_ids if student_id not in self._places}

    def learn(self, places: dict[str, tuple[Place, ...]]) -> None:
        """Remember what `look_up` found."""
        self._places.update(places)

    def classroom_of(self, student_id: str, app_name: str) -> uuid.UUID | None:
        """The class in which this app counts: the latest that lists it, else the latest."""
        places = self._places.get(student_id, ())
        for place in places:
            if app_name in place.app_names:
                return place.classroom_id
        return places[0].classroom_id if places else None


def look_up(student_ids: Collection[str], app_name: str) -> dict[str, tuple[Place, ...]]:
    """The classes of these learners, latest enrollment first; makes the rows that are missing."""
    found: dict[str, tuple[Place, ...]] = dict.fromkeys(student_ids, ())
    rows = (
        Enrollment.objects.current()
        .filter(student_id__in=list(student_ids), classroom__is_archived=False)
        .order_by("-created_at", "-id")
        .values_list("student_id", "classroom_id", "classroom__app_names")
    )
    for student_id, classroom_id, app_names in rows:
        found[student_id] += (Place(classroom_id, frozenset(app_names)),)
    without = [student_id for student_id, places in found.items() if not places]
    known = set(Student.objects.filter(student_id__in=without).values_list("student_id", flat=True))
    if missing := set(without) - known:
        Student.objects.ensure(missing, app_name=app_name)
    return found


class OwnTypes:
    """The metric types apps have registered, remembered for a few seconds."""

    def __init__(self) -> None:
        self._types: dict[str, frozenset[str]] = {}
        self._read_s = float("-inf")

    def is_due(self, now_s: float) -> bool:
        """Whether what is remembered is too old."""
        return now_s - self._read_s > APPS_REMEMBER_S

    def read(self) -> None:
        """Ask the database; runs in a thread."""
        rows = App.objects.exclude(metric_types=[]).values_list("name", "metric_types")
        self._types = {name: frozenset(types) for name, types in rows}
        self._read_s = time.monotonic()

    def of(self, app_name: str) -> frozenset[str]:
        """The types of one app."""
        return self._types.get(app_name, frozenset())
