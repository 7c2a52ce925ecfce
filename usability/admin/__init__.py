"""Django admin of the usability half: rosters and settings can be edited, what was measured is a window."""

from usability.admin import backtests, bookkeeping, detected, profiles, reported, roster, xapi

__all__ = ["backtests", "bookkeeping", "detected", "profiles", "reported", "roster", "xapi"]
