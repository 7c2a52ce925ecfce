"""A detector profile: every parameter of detection, as versioned data that can be checked and compared."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from usability.detection.detector import Params
from usability.detection.kinds import SignalFamily
from usability.detection.registry import BY_NAME, DETECTORS

Seconds = Annotated[int, msgspec.Meta(ge=0, le=86_400)]
Weight = Annotated[float, msgspec.Meta(ge=0, le=10)]
Clock = Annotated[str, msgspec.Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]


class InvalidProfile(ValueError):
    """A profile that is not acceptable. `errors` names each place (`loc`) and what is wrong there (`msg`)."""

    def __init__(self, errors: list[tuple[tuple[str, ...], str]]) -> None:
        super().__init__("; ".join(f"{'.'.join(loc) or 'profile'}: {msg}" for loc, msg in errors))
        self.errors = errors


class Weights(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a family contributes to severity. Idle and away weigh least: alone they do not mean struggle."""

    help: Weight = 2.0
    accuracy: Weight = 2.0
    progress: Weight = 2.0
    typing: Weight = 1.5
    pace: Weight = 1.5
    pause: Weight = 1.0
    away: Weight = 0.5
    guessing: Weight = 1.5
    reference: Weight = 2.0

    def of(self, family: SignalFamily) -> float:
        """The weight of a family; 0 for one that makes no episodes."""
        return float(getattr(self, family.value, 0.0))


class EpisodePolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When signals become an episode and when it ends. `hold_s`: Lumilo shows a state only after 25 s."""

    hold_s: Seconds = 25
    clear_s: Seconds = 10  # nothing raised for so long ends it; shorter gaps do not
    cooldown_s: Seconds = 300
    left_s: Annotated[int, msgspec.Meta(ge=60, le=86_400)] = 900  # nothing received: the pupil has left
    weights: Weights = Weights()


class BudgetPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Interruptions of a classroom: one in `interval_s` sustained, `burst` at once (after EEMUA 191)."""

    interval_s: Annotated[int, msgspec.Meta(ge=30, le=86_400)] = 600
    burst: Annotated[int, msgspec.Meta(ge=0, le=50)] = 3


class ClassStuckPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many of the active pupils, on one item or skill within `window_s`, make a class card."""

    minimum: Annotated[int, msgspec.Meta(ge=2, le=100)] = 4
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.25
    window_s: Annotated[int, msgspec.Meta(ge=30, le=3600)] = 300


class QuietHours(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Local times between which nothing interrupts; `end` before `start` goes over midnight. Monday is 0."""

    start: Clock
    end: Clock
    days: tuple[Annotated[int, msgspec.Meta(ge=0, le=6)], ...] = (0, 1, 2, 3, 4, 5, 6)


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Everything detection is told. `detectors` holds parameters in the order of the registry."""

    name: str = "default"
    version: int = 1
    detectors: tuple[Params, ...] = tuple(detector.Params() for detector in DETECTORS)
    late_s: Annotated[int, msgspec.Meta(ge=30, le=604_800)] = 600
    episodes: EpisodePolicy = EpisodePolicy()
    budget: BudgetPolicy = BudgetPolicy()
    class_stuck: ClassStuckPolicy = ClassStuckPolicy()
    quiet_hours: tuple[QuietHours, ...] = ()


DEFAULT = Profile()

_PARTS: dict[str, Any] = {
    "name": Annotated[str, msgspec.Meta(min_length=1, max_length=100)],
    "version": Annotated[int, msgspec.Meta(ge=1)],
    "late_s": Annotated[int, msgspec.Meta(ge=30, le=604_800)],
    "episodes": EpisodePolicy,
    "budget": BudgetPolicy,
    "class_stuck": ClassStuckPolicy,
    "quiet_hours": tuple[QuietHours, ...],
}


def from_dict(raw: Mapping[str, object]) -> Profile:
    """The profile a stored or submitted mapping describes; what is absent has its default.

    Raises InvalidProfile with every error found, each with its place.
    """
    errors: list[tuple[tuple[str, ...], str]] = []
    parts: dict[str, Any] = {}
    for name, value in raw.items():
        if name == "detectors":
            parts[name] = _detectors(value, errors)
        elif name in _PARTS:
            parts[name] = _converted(value, _PARTS[name], (name,), errors)
        else:
            errors.append(((name,), "is not part of a profile"))
    if errors:
        raise InvalidProfile(errors)
    return Profile(**parts)


def to_dict(profile: Profile) -> dict[str, Any]:
    """The complete mapping of a profile, defaults included; `from_dict` gives the same profile again."""
    raw: dict[str, Any] = {name: msgspec.to_builtins(getattr(profile, name)) for name in _PARTS}
    raw["detectors"] = {
        detector.name: msgspec.to_builtins(params)
        for detector, params in zip(DETECTORS, profile.detectors, strict=True)
    }
    return raw


def errors_of(raw: Mapping[str, object]) -> list[tuple[tuple[str, ...], str]]:
    """What is wrong with a profile's mapping, each with its place; empty where it is acceptable."""
    try:
        from_dict(raw)
    except InvalidProfile as invalid:
        return invalid.errors
    return []


def with_detectors(profile: Profile, **changed: Mapping[str, object]) -> Profile:
    """The profile with some parameters of some detectors changed."""
    raw = to_dict(profile)
    for name, values in changed.items():
        raw["detectors"].setdefault(name, {}).update(values)
    return from_dict(raw)


def only(name: str, *detectors: str) -> Profile:
    """A profile of this name with these detectors and no others, otherwise the default."""
    chosen = {detector.name: {"enabled": detector.name in detectors} for detector in DETECTORS}
    return from_dict({"name": name, "detectors": chosen})


def _detectors(value: object, errors: list[tuple[tuple[str, ...], str]]) -> tuple[Params, ...]:
    if not isinstance(value, Mapping):
        errors.append((("detectors",), "must be an object with a detector's name for each key"))
        return ()
    errors.extend((("detectors", str(name)), "is not a detector") for name in value if name not in BY_NAME)
    return tuple(
        _converted(value.get(detector.name, {}), detector.Params, ("detectors", detector.name), errors)
        for detector in DETECTORS
    )


def _converted(
    value: object, kind: Any, loc: tuple[str, ...], errors: list[tuple[tuple[str, ...], str]]
) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as invalid:
        # msgspec appends the place within the value: "Expected `int` - at `$.warn`".
        message, _, place = str(invalid).partition(" - at `")
        inner = tuple(
            part
            for part in place.rstrip("`").lstrip("$").replace("[", ".").replace("]", "").split(".")
            if part
        )
        errors.append(((*loc, *inner), message))
        return None


# The thresholds of the reference engine alone, for comparison: what it says is listed and interrupts nobody.
REFERENCE = only("reference", "reference")
