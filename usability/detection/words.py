"""Small pieces of the sentences a teacher reads: behaviour and numbers, never a feeling."""

from usability.detection.signals import Reason


def on_item(item: str) -> str:
    """Say " on item 8", or nothing where the app names no item."""
    return f" on item {item}" if item else ""


def at_skill(skill: str) -> str:
    """Say " at fractions", or nothing where the app names no skill."""
    return f" at {skill}" if skill else ""


def duration(ms: int) -> str:
    """Say "40 s" under two minutes, then whole minutes: "4 min"."""
    seconds = ms // 1000
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"


def hints_opened(count: int) -> str:
    """Say "no hint opened", "1 hint opened", "2 hints opened"."""
    if count == 0:
        return "no hint opened"
    return f"{count} hint opened" if count == 1 else f"{count} hints opened"


def percent(share: float) -> int:
    """A share of 0..1 in whole per cent."""
    return round(share * 100)


def say(key: str, template: str, **params: str | float) -> Reason:
    """The reason with this key: its English template filled with `params`."""
    return Reason(key=key, text=template.format(**params), params=params)
