"""Django admin of the usability half: rosters and settings can be edited, what was measured is a window."""

from usability.admin import apps, backtests, bookkeeping, detected, profiles, reported, roster, xapi

__all__ = ["apps", "backtests", "bookkeeping", "detected", "profiles", "reported", "roster", "xapi"]
