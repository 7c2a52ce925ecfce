"""Django admin of the usability half: rosters and settings can be edited, what was measured is a window."""

from usability.admin import bookkeeping, detected, reported, roster, xapi

__all__ = ["bookkeeping", "detected", "reported", "roster", "xapi"]
