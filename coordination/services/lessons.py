"""Lessons and projects: descriptions are rows of their own; counters and status follow the tasks."""

import uuid
from collections.abc import Mapping
from typing import Any

from coordination.errors import InvalidError, NotFound
from coordination.machine import commands
from coordination.machine.outcomes import Done, LessonAnswer
from coordination.models import Lesson, Project
from coordination.services.sessions import metadata_text
from coordination.services.submitting import id_or_fresh, submit_one

TITLE_MAX = 255
CHANGEABLE = frozenset(
    {"title", "description", "priority", "estimated_duration_minutes", "metadata", "project"}
)


def create_project(name: str) -> Project:
    """The project of that name, made if there is none."""
    if not 1 <= len(name) <= TITLE_MAX:
        raise InvalidError("project", f"must be 1 to {TITLE_MAX} characters")
    return Project.objects.get_or_create(name=name)[0]


def create_lesson(
    title: str,
    *,
    project: str | uuid.UUID | None = None,
    description: str = "",
    priority: int = 0,
    estimated_duration_minutes: int | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Lesson:
    """A new lesson, pending. `project` is an id, or a name that is made if it does not exist."""
    values = _checked({"title": title, "description": description, "metadata": metadata or {}})
    return Lesson.objects.create(
        **values,
        project=_project(project),
        priority=priority,
        estimated_duration_minutes=estimated_duration_minutes,
    )


def update_lesson(lesson_id: uuid.UUID, **changes: Any) -> Lesson:
    """Change the named fields; counters and status are nobody's to write. Raises NotFound, InvalidError."""
    for name in changes:
        if name not in CHANGEABLE:
            raise InvalidError(name, f"cannot be changed; only {', '.join(sorted(CHANGEABLE))}")
    if "project" in changes:
        changes["project"] = _project(changes["project"])
    lesson = _row_of(lesson_id)
    for name, value in _checked(changes).items():
        setattr(lesson, name, value)
    lesson.save(update_fields=[*changes, "updated_at"])
    return lesson


def archive_lesson(
    lesson_id: uuid.UUID, *, actor: str, archived: bool = True, request_id: bytes = b""
) -> tuple[str, int]:
    """Archive a lesson or open it again: its status and the revision. Its tasks go on."""
    _row_of(lesson_id)
    command = commands.LessonArchive(
        request_id=id_or_fresh(request_id), actor=actor, lesson_id=str(lesson_id), archived=archived
    )
    answer, revision = submit_one(command, LessonAnswer)
    return answer.status, revision


def delete_lesson(lesson_id: uuid.UUID, *, actor: str, request_id: bytes = b"") -> int:
    """Delete a lesson; its tasks stay, without lesson. The revision. Raises NotFound."""
    lesson = _row_of(lesson_id)
    command = commands.LessonDelete(request_id=id_or_fresh(request_id), actor=actor, lesson_id=str(lesson_id))
    _, revision = submit_one(command, Done)
    lesson.delete()
    return revision


def _row_of(lesson_id: uuid.UUID) -> Lesson:
    lesson = Lesson.objects.select_related("project").filter(pk=lesson_id).first()
    if lesson is None:
        raise NotFound("lesson", lesson_id)
    return lesson


def _project(project: str | uuid.UUID | None) -> Project | None:
    if project is None or project == "":
        return None
    try:
        project_id = project if isinstance(project, uuid.UUID) else uuid.UUID(project)
    except ValueError:
        return create_project(str(project))
    found = Project.objects.filter(pk=project_id).first()
    if found is None:
        raise NotFound("project", project_id)
    return found


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    if "title" in values and not 1 <= len(values["title"]) <= TITLE_MAX:
        raise InvalidError("title", f"must be 1 to {TITLE_MAX} characters")
    for name in ("title", "description"):
        if "\0" in values.get(name, ""):
            raise InvalidError(name, "a NUL character cannot be stored")
    if "metadata" in values:
        metadata_text(values["metadata"])
        values = values | {"metadata": dict(values["metadata"])}
    return values
