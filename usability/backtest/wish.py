"""What a back-test is asked to do, checked field by field before anything is read."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from usability.detection.policy import InvalidProfile, Profile, from_dict, to_dict
from usability.detection.registry import DETECTORS
from usability.models import Classroom, DetectorProfile
from usability.policies import PRESETS, RoomPolicy, profile_of

LONGEST = dt.timedelta(days=92)
CLASSES_MOST = 500
CHANGES_MOST = 100
# What a change may name besides a detector.
PARTS = ("episodes", "budget", "class_stuck")

Change = tuple[str, Any]
"""A dotted name such as `error_streak.warn`, and its value."""


class WishError(ValueError):
    """A wish that cannot be granted: `errors` names each field and what is wrong there."""

    def __init__(self, errors: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{field}: {message}" for field, message in errors))
        self.errors = tuple(errors)


@dataclass(frozen=True, slots=True)
class Wish:
    """Which metrics, and the parameters to try: those of `profile` ("": what holds now) with `changes`."""

    classroom_ids: tuple[uuid.UUID, ...]
    since: dt.datetime
    until: dt.datetime
    app_name: str = ""
    profile: str = ""
    changes: tuple[Change, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """What is stored of it; `from_json` reads it again."""
        return {
            "classrooms": [str(one) for one in self.classroom_ids],
            "since": self.since.isoformat(),
            "until": self.until.isoformat(),
            "app_name": self.app_name,
            "profile": self.profile,
            "changes": [list(change) for change in self.changes],
        }


def from_json(stored: Mapping[str, Any]) -> Wish:
    """The wish `Wish.as_json` has written."""
    return Wish(
        classroom_ids=tuple(uuid.UUID(one) for one in stored["classrooms"]),
        since=dt.datetime.fromisoformat(stored["since"]),
        until=dt.datetime.fromisoformat(stored["until"]),
        app_name=stored["app_name"],
        profile=stored["profile"],
        changes=tuple((name, value) for name, value in stored["changes"]),
    )


def make_wish(
    *,
    classrooms: Iterable[str],
    since: dt.datetime,
    until: dt.datetime,
    app_name: str = "",
    profile: str = "",
    changes: Iterable[str] = (),
) -> Wish:
    """The wish these words make. `changes` are lines such as `error_streak.warn=4`. Raises `WishError`."""
    errors: list[tuple[str, str]] = []
    rooms = _classrooms(classrooms, errors)
    if since >= until:
        errors.append(("until", f"must be after since ({since.isoformat()}), not {until.isoformat()}"))
    elif until - since > LONGEST:
        errors.append(("since", f"at most {LONGEST.days} days before until: metrics are not kept longer"))
    if profile and profile not in PRESETS:
        _stored_profile(profile, errors)
    parsed = _changes(changes, errors)
    if not errors:
        try:
            changed(_base(profile) or from_dict({}), parsed)
        except WishError as wrong:
            errors += wrong.errors
    if errors:
        raise WishError(errors)
    return Wish(tuple(rooms), since, until, app_name, profile, parsed)


def _classrooms(given: Iterable[str], errors: list[tuple[str, str]]) -> list[uuid.UUID]:
    asked = [one for one in given if one]
    if asked == ["all"]:
        found = Classroom.objects.filter(is_archived=False).order_by("pk").values_list("pk", flat=True)
        return list(found[:CLASSES_MOST])
    if not asked:
        errors.append(("classroom", "at least one class, or all"))
    if len(asked) > CLASSES_MOST:
        errors.append(("classroom", f"at most {CLASSES_MOST} classes, not {len(asked)}"))
        return []
    keys = []
    for one in asked:
        try:
            keys.append(uuid.UUID(one))
        except ValueError:
            errors.append(("classroom", f"{one!r} is not the id of a class"))
    known = set(Classroom.objects.filter(pk__in=keys).values_list("pk", flat=True))
    errors += [("classroom", f"there is no class {key}") for key in keys if key not in known]
    return sorted(known)


def _stored_profile(profile: str, errors: list[tuple[str, str]]) -> DetectorProfile | None:
    expected = f"one of {', '.join(PRESETS)} or the id of a stored profile"
    try:
        row = DetectorProfile.objects.filter(pk=uuid.UUID(profile)).first()
    except ValueError:
        errors.append(("profile", f"{expected}, not {profile!r}"))
        return None
    if row is None:
        errors.append(("profile", f"{expected}; there is none with the id {profile}"))
    return row


def _changes(lines: Iterable[str], errors: list[tuple[str, str]]) -> tuple[Change, ...]:
    found: list[Change] = []
    for line in lines:
        name, sign, value = (part.strip() for part in line.partition("="))
        if not name and not sign:
            continue
        if not sign or not name or not value:
            errors.append(("set", f"{line.strip()!r} is not of the form detector.parameter=value"))
            continue
        found.append((name, _value(value)))
    if len(found) > CHANGES_MOST:
        errors.append(("set", f"at most {CHANGES_MOST} changes, not {len(found)}"))
    return tuple(found)


def _value(text: str) -> Any:
    """A number, true, false or text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def changed(profile: Profile, changes: Iterable[Change]) -> Profile:
    """The profile with these changes. Raises `WishError` that names each wrong one."""
    changes = tuple(changes)
    raw, errors = to_dict(profile), []
    for name, value in changes:
        where, message = _place(raw, name)
        if message:
            errors.append(("set", f"{name}: {message}"))
        else:
            where[name.rpartition(".")[2]] = value
    if errors:
        raise WishError(errors)
    try:
        return from_dict(raw)
    except InvalidProfile as invalid:
        raise WishError(
            [("set", _told(place, message, changes)) for place, message in invalid.errors]
        ) from invalid


def _place(raw: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    """The mapping the last part of a dotted name stands in, or why there is none."""
    first, *inner = name.split(".")
    if not inner:
        return {}, "names a detector without a parameter: write detector.parameter=value"
    if first not in raw["detectors"] and first not in PARTS:
        return {}, f"{first} is not a detector (nor {', '.join(PARTS)})"
    where = raw["detectors"].get(first) or raw[first]
    for part in inner[:-1]:
        where = where.get(part)
        if not isinstance(where, dict):
            return {}, f"{first} has no parameter {'.'.join(inner)}"
    if inner[-1] not in where or isinstance(where[inner[-1]], dict):
        return {}, f"{first} has no parameter {'.'.join(inner)}; it has {', '.join(sorted(where))}"
    return where, ""


def _told(place: tuple[str, ...], message: str, changes: tuple[Change, ...]) -> str:
    """The error under the name it was written by; values themselves may be wrong only where they were changed."""
    name = ".".join(part for part in place if part != "detectors")
    given = dict(changes).get(name)
    return f"{name}: {message}" + (f", not {given!r}" if name in dict(changes) else "")


def _base(profile: str) -> Profile | None:
    """The profile a wish begins from; None: for each class and app what holds there now."""
    if not profile:
        return None
    if profile in PRESETS:
        return from_dict(PRESETS[profile])
    row = DetectorProfile.objects.filter(pk=profile).first()
    if row is None:
        raise WishError([("profile", f"there is no profile {profile} any more")])
    return profile_of(row)


def candidate_of(wish: Wish, present: RoomPolicy) -> RoomPolicy:
    """The policy to try in a class, made of the one that holds there. Budget and quiet hours belong to it too."""
    base = _base(wish.profile)
    app_profiles = {} if base else present.app_profiles
    return replace(
        present,
        profile=changed(base or present.profile, wish.changes),
        app_profiles={app: changed(own, wish.changes) for app, own in app_profiles.items()},
    )


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter that a change may name, with its default and what is allowed, for people to read."""

    name: str
    default: Any
    allowed: str


def parameters() -> list[Parameter]:
    """Every parameter of every detector and part, by name."""
    named = {detector.name: params for detector, params in zip(DETECTORS, Profile().detectors, strict=True)}
    named |= {part: getattr(Profile(), part) for part in PARTS}
    return [one for name in sorted(named) for one in _of_struct(name, named[name])]


def _of_struct(prefix: str, struct: Any) -> list[Parameter]:
    found = []
    for field in msgspec.inspect.type_info(type(struct)).fields:
        value = getattr(struct, field.name)
        if isinstance(value, msgspec.Struct):
            found += _of_struct(f"{prefix}.{field.name}", value)
        else:
            found.append(Parameter(f"{prefix}.{field.name}", value, _allowed(field.type)))
    return found


def _allowed(kind: Any) -> str:
    """The type and its bounds in words."""
    if isinstance(kind, msgspec.inspect.BoolType):
        return "true or false"
    words = "whole number" if isinstance(kind, msgspec.inspect.IntType) else "number"
    if not isinstance(kind, msgspec.inspect.IntType | msgspec.inspect.FloatType):
        return type(kind).__name__.removesuffix("Type").lower()
    bounds = [
        f"{word} {value:g}"
        for word, value in (("over", kind.gt), ("from", kind.ge), ("under", kind.lt), ("to", kind.le))
        if value is not None
    ]
    return " ".join([words, *bounds])
