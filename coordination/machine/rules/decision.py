"""What a rule is: a generator that yields events and returns what the command comes to.

Each event has been evolved when the rule goes on, so a rule always reads the state its own events made.
A rule that refuses returns `Refusal` before its first event; the machine asserts it.
"""

import re
from collections.abc import Generator

import msgspec

from coordination.machine.events import AnyEvent, ClockMoved
from coordination.machine.kinds import RejectionCode
from coordination.machine.outcomes import Value


class Refusal(msgspec.Struct, gc=False, frozen=True):
    """A rule's no: why, and what stands in the way."""

    code: RejectionCode
    detail: str
    data: dict[str, str | int] = {}


class StepEnds(msgspec.Struct, gc=False, frozen=True):
    """The events so far have a revision of their own; what follows has the next.

    A tick ends many things, one after the other: were they one revision, a lock that goes from a dead
    session to one that is found dead next would be granted twice with one token.
    """


Decision = Generator[AnyEvent | ClockMoved | StepEnds, None, Value | Refusal]
Consequences = Generator[AnyEvent, None, None]

NAME = re.compile(r"[A-Za-z0-9._:/-]{1,255}")
MAX_ID = 255
MAX_TEXT = 4_096
MAX_METADATA = 16_384
MAX_LIST = 100
MAX_PRIORITY = 1_000
MAX_RETRIES = 100
MAX_ATTEMPTS = 1_000_000
MAX_MS = 10 * 366 * 86_400_000  # ten years


def invalid(detail: str) -> Refusal:
    """The refusal of a value that cannot be."""
    return Refusal(RejectionCode.VALIDATION, detail)


def is_id(text: str) -> bool:
    """Whether a text can be an id or a name."""
    return 0 < len(text) <= MAX_ID


def are_ids(texts: tuple[str, ...], limit: int = MAX_LIST) -> bool:
    """Whether these are at most so many ids."""
    return len(texts) <= limit and all(is_id(text) for text in texts)


def is_duration(value: int) -> bool:
    """Whether this is a possible duration in milliseconds, 0 included."""
    return 0 <= value <= MAX_MS
