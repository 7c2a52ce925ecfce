"""Django admin of the coordination half: windows onto the projection, with actions through the services."""

from coordination.admin import cluster, lessons, locks, sessions, tasks

__all__ = ["cluster", "lessons", "locks", "sessions", "tasks"]
