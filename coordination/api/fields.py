"""Fields that several nouns of the coordination API share."""

from __future__ import annotations

from datetime import UTC, datetime, time
from typing import Any

import msgspec
from django.core.validators import RegexValidator
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from coordination.machine.commands import TimeWindow
from coordination.models import SESSION_NAME_PATTERN
from gaia_site.api.endpoint import StrictSerializer

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
INTEGER_MOST = 2**63 - 1
KEY_PATTERN = r"\A[A-Za-z0-9._:/@+-]+\Z"
MINUTES_A_DAY = 1440


class SessionNameField(serializers.CharField):
    """The name of a session."""

    def __init__(self, **options: Any) -> None:
        validator = RegexValidator(
            SESSION_NAME_PATTERN.replace("$", r"\Z"), "Only letters, digits and . _ : / - are allowed."
        )
        super().__init__(max_length=255, trim_whitespace=False, validators=[validator], **options)

    def to_internal_value(self, data: Any) -> str:
        """Text only: a number is not silently made a name."""
        return super().to_internal_value(text_only(self, data))


class StrictCharField(serializers.CharField):
    """Text that must come as text: numbers and booleans are not converted, spaces not trimmed."""

    def __init__(self, **options: Any) -> None:
        super().__init__(trim_whitespace=False, **options)

    def to_internal_value(self, data: Any) -> str:
        """The text as it came."""
        return super().to_internal_value(text_only(self, data))


class StrictIntegerField(serializers.IntegerField):
    """A whole number that must come as a JSON number."""

    def to_internal_value(self, data: Any) -> int:
        """Refuses text, booleans and fractions."""
        if isinstance(data, bool) or not isinstance(data, int | float) or data != int(data):
            self.fail("invalid")
        return super().to_internal_value(int(data))


class StrictFloatField(serializers.FloatField):
    """A finite number that must come as a JSON number."""

    def to_internal_value(self, data: Any) -> float:
        """Refuses text and booleans."""
        if isinstance(data, bool) or not isinstance(data, int | float):
            self.fail("invalid")
        return super().to_internal_value(data)


class StrictBooleanField(serializers.BooleanField):
    """true or false, not a word for it."""

    def to_internal_value(self, data: Any) -> bool:
        """Refuses everything else."""
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class MomentField(serializers.DateTimeField):
    """RFC 3339 with an offset; a time without one is refused, not guessed."""

    def to_internal_value(self, data: Any) -> datetime:
        """The moment in UTC, between the years 1970 and 2999: what every later reader can hold."""
        if not isinstance(data, str):
            self.fail("invalid", format="RFC 3339, such as 2026-01-31T12:00:00Z")
        try:
            moment = _with_offset(datetime.fromisoformat(data))
        except (ValueError, OverflowError):
            self.fail("invalid", format="RFC 3339 with an offset, such as 2026-01-31T12:00:00Z")
        if not 1970 <= moment.year <= 2999:
            raise serializers.ValidationError("Must lie between the years 1970 and 2999.")
        return moment


@extend_schema_field({"type": "object", "additionalProperties": True})
class ObjectField(serializers.Field):
    """A JSON object of the client's own, at most `bytes_most` long as compact JSON."""

    default_error_messages = {
        "invalid": "Must be a JSON object.",
        "too_long": "Must be at most {most} bytes as JSON.",
    }

    def __init__(self, *, bytes_most: int, **options: Any) -> None:
        self.bytes_most = bytes_most
        super().__init__(**options)

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """The object unchanged."""
        if not isinstance(data, dict):
            self.fail("invalid")
        if len(msgspec.json.encode(data)) > self.bytes_most:
            self.fail("too_long", most=self.bytes_most)
        return data

    def to_representation(self, value: Any) -> Any:
        """As stored."""
        return value


@extend_schema_field({})
class AnyJSONField(serializers.Field):
    """Any JSON value of at most `bytes_most`."""

    default_error_messages = {"too_long": "Must be at most {most} bytes as JSON."}

    def __init__(self, *, bytes_most: int, **options: Any) -> None:
        self.bytes_most = bytes_most
        super().__init__(**options)

    def to_internal_value(self, data: Any) -> Any:
        """The value unchanged."""
        if len(msgspec.json.encode(data)) > self.bytes_most:
            self.fail("too_long", most=self.bytes_most)
        return data

    def to_representation(self, value: Any) -> Any:
        """As stored."""
        return value


def capabilities(**options: Any) -> serializers.ListField:
    """A list of distinct short words."""
    word = StrictCharField(
        max_length=100,
        validators=[RegexValidator(KEY_PATTERN, "Only letters, digits and . _ : / @ + - are allowed.")],
    )
    return serializers.ListField(child=word, max_length=100, **options)


def text_only(field: serializers.Field, data: Any) -> str:
    """`data` if it is text."""
    if not isinstance(data, str):
        field.fail("invalid")
    return data


class TimeWindowSerializer(StrictSerializer):
    """When a session works: an absolute span, a weekly recurrence, or both. All times are UTC."""

    start = MomentField(required=False, allow_null=True, help_text="Not before this moment.")
    end = MomentField(required=False, allow_null=True, help_text="Not from this moment on.")
    days = serializers.ListField(
        child=serializers.ChoiceField(choices=DAYS),
        required=False,
        max_length=7,
        help_text="Empty: every day.",
    )
    from_time = serializers.RegexField(r"\A([01]\d|2[0-3]):[0-5]\d\Z", required=False, help_text="HH:MM")
    to_time = serializers.RegexField(
        r"\A(([01]\d|2[0-3]):[0-5]\d|24:00)\Z",
        required=False,
        help_text="HH:MM, 24:00 for the end of the day.",
    )

    def validate(self, attrs: dict[str, Any]) -> TimeWindow:
        """The window; an end not after its start is refused."""
        start, end = attrs.get("start"), attrs.get("end")
        if start and end and start >= end:
            raise serializers.ValidationError({"end": "Must be after start."})
        window = TimeWindow(
            start_ms=_unix_ms(start),
            end_ms=_unix_ms(end),
            days=sum(1 << DAYS.index(day) for day in set(attrs.get("days", ()))),
            from_minute=_minute(attrs.get("from_time", "00:00")),
            to_minute=_minute(attrs.get("to_time", "24:00")),
        )
        if window.from_minute >= window.to_minute:
            raise serializers.ValidationError({"to_time": "Must be after from_time."})
        return window

    def to_representation(self, window: Any) -> dict[str, Any]:
        """The same shape, from a row's or a command's window."""
        if isinstance(window, TimeWindow):
            window = {name: getattr(window, name) for name in window.__struct_fields__}
        return {
            "start": _moment(window["start_ms"]),
            "end": _moment(window["end_ms"]),
            "days": [day for bit, day in enumerate(DAYS) if window["days"] & 1 << bit],
            "from_time": _clock(window["from_minute"]),
            "to_time": _clock(window["to_minute"]),
        }


def _with_offset(moment: datetime) -> datetime:
    """`moment` in UTC; ValueError where it does not say its offset."""
    if moment.tzinfo is None:
        raise ValueError(f"no offset: {moment}")
    return moment.astimezone(UTC)


def _unix_ms(moment: datetime | None) -> int:
    return 0 if moment is None else int(moment.timestamp() * 1000)


def _moment(unix_ms: int) -> datetime | None:
    return datetime.fromtimestamp(unix_ms / 1000, UTC) if unix_ms else None


def _minute(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


def _clock(minute: int) -> str:
    return "24:00" if minute == MINUTES_A_DAY else time(minute // 60, minute % 60).strftime("%H:%M")
