"""Coordination of sessions, tasks and locks through a replicated log."""
