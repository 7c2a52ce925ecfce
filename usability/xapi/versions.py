"""Which version of the specification a request speaks (xAPI 1.0.3, part three, section 3.3; IEEE 9274.1.1, 4.1.3).

The answer names the newest patch we know of the version that was asked for. A request that names none, or one we
do not speak, is refused in the version its caller spoke last: each generation of clients looks for its own there.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from enum import Enum

HEADER = "X-Experience-API-Version"
CALLERS_REMEMBERED = 10_000

_ASKED = re.compile(r"(1|2)\.0(?:\.\d{1,3})?")


class Version(Enum):
    """The two we speak, each by its newest patch."""

    V1 = "1.0.3"
    V2 = "2.0.0"


SPOKEN = ("1.0.0", "1.0.1", "1.0.2", "1.0.3", "2.0.0")

_last: OrderedDict[str, Version] = OrderedDict()


def asked_for(text: str | None) -> Version | None:
    """The version a header names; None where it names none of ours."""
    found = _ASKED.fullmatch(text or "")
    if found is None:
        return None
    return Version.V1 if found[1] == "1" else Version.V2


def remember(caller: str, version: Version) -> None:
    """Note what a caller speaks."""
    _last[caller] = version
    _last.move_to_end(caller)
    while len(_last) > CALLERS_REMEMBERED:
        _last.popitem(last=False)


def last_of(caller: str) -> Version:
    """What this caller spoke last; 1.0.3, which most clients speak, where it is new."""
    return _last.get(caller, Version.V1)
