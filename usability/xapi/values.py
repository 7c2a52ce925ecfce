"""The atoms of xAPI data: strings with rules. Each check raises `Wrong`, which names the place and never the value.

Sources: xAPI 1.0.3, part two, sections 2.2, 2.4 and 4; IEEE 9274.1.1-2023, section 4.2.7. IRIs: RFC 3987; times: RFC 3339;
language tags: RFC 5646; durations: ISO 8601:2004, section 4.4.3.2.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Collection
from typing import Any

Place = tuple[str | int, ...]

IRI_LIMIT = 4_000
SHOWN_LIMIT = 60

_IRI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"{}|\\^`\x00-\x1f]+")
_IRL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s<>\"{}|\\^`\x00-\x1f/?#]+[^\s<>\"{}|\\^`\x00-\x1f]*")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE)
_MBOX = re.compile(r"mailto:[^\s@:/?#<>\"]+@[^\s@:/?#<>\"]+", re.IGNORECASE)
_SHA1 = re.compile(r"[0-9a-f]{40}", re.IGNORECASE)
_SHA2 = re.compile(r"[0-9a-f]{56}(?:[0-9a-f]{8}|[0-9a-f]{40}|[0-9a-f]{72})?", re.IGNORECASE)
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+(?: *;[\x20-\x7e]*)?")
_TIME = re.compile(
    r"(?P<day>\d{4}-\d{2}-\d{2}|\d{8})[Tt ](?P<time>\d{2}(?::?\d{2}(?::?\d{2}(?:[.,]\d{1,30})?)?)?)"
    r"(?P<zone>[Zz]|[+-]\d{2}(?::?\d{2})?)?"
)
_DURATION = re.compile(
    r"P(?=.)(?:(?P<weeks>\d+(?:[.,]\d+)?)W"
    r"|(?:(?P<years>\d+(?:[.,]\d+)?)Y)?(?:(?P<months>\d+(?:[.,]\d+)?)M)?(?:(?P<days>\d+(?:[.,]\d+)?)D)?"
    r"(?:T(?=\d)(?:(?P<hours>\d+(?:[.,]\d+)?)H)?(?:(?P<minutes>\d+(?:[.,]\d+)?)M)?(?:(?P<seconds>\d+(?:[.,]\d+)?)S)?)?)"
)
# RFC 5646, section 2.1: langtag, privateuse, and the grandfathered tags that do not follow it.
_LANGUAGE = re.compile(
    r"(?:(?:[a-z]{2,3}(?:-[a-z]{3}){0,3}|[a-z]{4,8})"
    r"(?:-[a-z]{4})?(?:-(?:[a-z]{2}|\d{3}))?(?:-(?:[a-z0-9]{5,8}|\d[a-z0-9]{3}))*"
    r"(?:-[0-9a-wyz](?:-[a-z0-9]{2,8})+)*(?:-x(?:-[a-z0-9]{1,8})+)?"
    r"|x(?:-[a-z0-9]{1,8})+"
    r"|i-(?:ami|bnn|default|enochian|hak|klingon|lux|mingo|navajo|pwn|tao|tay|tsu)|en-gb-oed"
    r"|sgn-(?:be-fr|be-nl|ch-de)|art-lojban|cel-gaulish|no-(?:bok|nyn)|zh-(?:guoyu|hakka|min|min-nan|xiang))",
    re.IGNORECASE,
)
_YEAR_DAYS, _MONTH_DAYS = 365.25, 365.25 / 12


class Wrong(ValueError):
    """A rule of the data is broken at `loc`; `msg` says which, without the value."""

    def __init__(self, loc: Place, msg: str) -> None:
        super().__init__(msg)
        self.loc = loc
        self.msg = msg


def object_at(
    value: Any, loc: Place, known: Collection[str], required: Collection[str] = ()
) -> dict[str, Any]:
    """The object there, with no property beyond `known`, all of `required`, and nothing null."""
    if not isinstance(value, dict):
        raise Wrong(loc, "must be an object")
    for name, inner in value.items():
        if name not in known:
            raise Wrong((*loc, name[:SHOWN_LIMIT]), f"unknown property; known here: {', '.join(known)}")
        if inner is None:
            raise Wrong((*loc, name), "must not be null")
    for name in required:
        if name not in value:
            raise Wrong((*loc, name), "required")
    return value


def list_at(value: Any, loc: Place) -> list[Any]:
    """The list there."""
    if not isinstance(value, list):
        raise Wrong(loc, "must be a list")
    return value


def string(value: Any, loc: Place) -> str:
    """Any string."""
    if not isinstance(value, str):
        raise Wrong(loc, "must be a string")
    return value


def boolean(value: Any, loc: Place) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise Wrong(loc, "must be true or false")
    return value


def number(value: Any, loc: Place) -> float:
    """A number; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Wrong(loc, "must be a number")
    return value


def _matching(value: Any, loc: Place, pattern: re.Pattern[str], what: str) -> str:
    text = string(value, loc)
    if len(text) > IRI_LIMIT or not pattern.fullmatch(text):
        raise Wrong(loc, f"must be {what}")
    return text


def iri(value: Any, loc: Place) -> str:
    """An absolute IRI with its scheme."""
    return _matching(value, loc, _IRI, f"an IRI with its scheme, of at most {IRI_LIMIT:,} characters")


def irl(value: Any, loc: Place) -> str:
    """An IRI that says where something is."""
    return _matching(
        value, loc, _IRL, f"an address such as https://example.com/x, of at most {IRI_LIMIT:,} characters"
    )


def uuid(value: Any, loc: Place) -> str:
    """A UUID in its usual form."""
    return _matching(value, loc, _UUID, "a UUID")


def mbox(value: Any, loc: Place) -> str:
    """mailto: and an address."""
    return _matching(value, loc, _MBOX, "mailto: and an e-mail address")


def sha1(value: Any, loc: Place) -> str:
    """40 hexadecimal digits."""
    return _matching(value, loc, _SHA1, "40 hexadecimal digits")


def sha2(value: Any, loc: Place) -> str:
    """A digest of the SHA-2 family in hexadecimal digits: 224, 256, 384 or 512 bits."""
    return _matching(value, loc, _SHA2, "a SHA-2 digest in hexadecimal digits")


def media_type(value: Any, loc: Place) -> str:
    """An internet media type, parameters allowed."""
    return _matching(value, loc, _MEDIA_TYPE, "a media type such as text/plain")


def language(value: Any, loc: Place) -> str:
    """A language tag."""
    return _matching(value, loc, _LANGUAGE, "a language tag of RFC 5646")


def language_map(value: Any, loc: Place) -> dict[str, str]:
    """Language tags and strings."""
    if not isinstance(value, dict):
        raise Wrong(loc, "must be a map from language tags to strings")
    for tag, text in value.items():
        language(tag, (*loc, tag[:SHOWN_LIMIT]))
        string(text, (*loc, tag[:SHOWN_LIMIT]))
    return value


def extensions(value: Any, loc: Place) -> dict[str, Any]:
    """IRIs and anything at all, null included."""
    if not isinstance(value, dict):
        raise Wrong(loc, "must be a map from IRIs to values")
    for name in value:
        iri(name, (*loc, name[:SHOWN_LIMIT]))
    return value


def moment(value: Any, loc: Place) -> dt.datetime:
    """A moment in UTC; without an offset it is taken as UTC. Digits beyond microseconds are cut.

    An offset of -00:00 says that the zone is unknown (RFC 3339, section 4.3) and is refused.
    """
    text = string(value, loc)
    found = _TIME.fullmatch(text) if len(text) <= 80 else None
    if found is None:
        raise Wrong(loc, "must be a time of RFC 3339 such as 2026-01-31T12:00:00Z")
    zone = found["zone"] or "Z"
    if zone[0] == "-" and not zone.strip("-0:"):
        raise Wrong(loc, "the offset -00:00 is not allowed")
    try:
        parsed = dt.datetime.fromisoformat(found["day"] + "T" + _six_digits(found["time"]) + zone.upper())
        parsed = parsed.astimezone(dt.UTC)
    except (ValueError, OverflowError) as error:
        raise Wrong(loc, "there is no such time") from error
    if not 1 < parsed.year < 9999:
        raise Wrong(loc, "there is no such time")
    return parsed


def _six_digits(time: str) -> str:
    """The time of day with at most six digits after the point, which is what a datetime holds."""
    whole, _, fraction = time.replace(",", ".").partition(".")
    return f"{whole}.{fraction[:6].ljust(6, '0')}" if fraction else whole


def moment_text(at: dt.datetime) -> str:
    """A moment as we write it: RFC 3339 in UTC, at least milliseconds."""
    if at.microsecond % 1000:
        return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")
    return at.strftime("%Y-%m-%dT%H:%M:%S.").rjust(20, "0") + f"{at.microsecond // 1000:03d}Z"


def duration_s(value: Any, loc: Place) -> float:
    """A duration in seconds; a year counts as 365.25 days and a month as its twelfth."""
    text = string(value, loc)
    found = _DURATION.fullmatch(text) if len(text) <= 200 else None
    if found is None:
        raise Wrong(loc, "must be a duration of ISO 8601 such as PT4H35M59.14S")
    part = {name: float((text or "0").replace(",", ".")) for name, text in found.groupdict().items()}
    days = part["weeks"] * 7 + part["years"] * _YEAR_DAYS + part["months"] * _MONTH_DAYS + part["days"]
    return days * 86_400 + part["hours"] * 3_600 + part["minutes"] * 60 + part["seconds"]
