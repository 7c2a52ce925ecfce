"""Which errands the demonstration enqueues: lesson after lesson, one folder of this checkout each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gaia_site.demo.errand import ERRANDS, ROOT

PROJECT = "This checkout"
FOLDERS = ("coordination", "usability", "gaia_site", "tests")
FILES_A_LESSON = 4
PRIORITIES = 3


@dataclass(frozen=True, slots=True)
class Errands:
    """One lesson: errands over a few files of a folder, and a survey of the folder once they are all done."""

    folder: str
    paths: tuple[str, ...]

    @property
    def lesson(self) -> dict[str, Any]:
        """The body of `POST lessons`."""
        return {
            "project": PROJECT,
            "title": f"Look through {self.folder}",
            "description": f"{len(self.paths)} files, then the whole folder.",
        }

    def tasks(self, lesson_id: str) -> list[dict[str, Any]]:
        """The body of `POST tasks` for the files. Keys come from the lesson, so a retry enqueues nothing twice."""
        return [
            {
                "idempotency_key": f"{lesson_id}:{task_type}:{path}",
                "task_type": task_type,
                "task_data": {"path": path},
                "lesson_id": lesson_id,
                "priority": index % PRIORITIES,
                "timeout_s": 60,
            }
            for path in self.paths
            for index, task_type in enumerate(ERRANDS)
        ]

    def survey(self, lesson_id: str, depends_on: list[str]) -> dict[str, Any]:
        """The body of `POST tasks` for what waits for all the others."""
        return {
            "idempotency_key": f"{lesson_id}:survey",
            "task_type": "survey",
            "task_data": {"folder": self.folder},
            "lesson_id": lesson_id,
            "depends_on": depends_on,
            "timeout_s": 60,
        }


def round_of(root: Path = ROOT) -> Iterator[Errands]:
    """Every Python file of our folders once, a few at a time."""
    for top in FOLDERS:
        folders = sorted({path.parent for path in (root / top).rglob("*.py")})
        for folder in folders:
            paths = sorted(str(path.relative_to(root)) for path in folder.glob("*.py") if path.stat().st_size)
            for start in range(0, len(paths), FILES_A_LESSON):
                yield Errands(str(folder.relative_to(root)), tuple(paths[start : start + FILES_A_LESSON]))
