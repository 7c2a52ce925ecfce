"""Fields of bodies: values come as what they are, and ids as ids."""

from __future__ import annotations

import dataclasses
import datetime as dt
import types
import typing
import uuid
from typing import Any

from django.core.validators import RegexValidator
from django_filters import ChoiceFilter, TypedChoiceFilter
from rest_framework import serializers

ID_PATTERN = r"\A[A-Za-z0-9._:/-]+\Z"
SLUG_PATTERN = r"\A[a-z0-9_-]{1,50}\Z"


class IdField(serializers.CharField):
    """An id: letters, digits and . _ : / - and nothing that could be a text."""

    def __init__(self, *, max_length: int, **options: Any) -> None:
        validator = RegexValidator(ID_PATTERN, "Only letters, digits and . _ : / - are allowed.")
        super().__init__(max_length=max_length, trim_whitespace=False, validators=[validator], **options)

    def to_internal_value(self, data: Any) -> str:
        """Text only: a number is not silently made an id."""
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class NoteField(serializers.CharField):
    """A text a person wrote: as it came, without control characters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(trim_whitespace=False, allow_blank=True, **options)

    def to_internal_value(self, data: Any) -> str:
        """Text only."""
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class SlugField(serializers.CharField):
    """A word of a-z, 0-9, _ and -, at most 50 of them."""

    def __init__(self, **options: Any) -> None:
        validator = RegexValidator(SLUG_PATTERN, "Must be 1 to 50 of a-z, 0-9, _ and -.")
        super().__init__(max_length=50, trim_whitespace=False, validators=[validator], **options)

    def to_internal_value(self, data: Any) -> str:
        """Text only: a number is not silently made a word."""
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class WholeNumberField(serializers.IntegerField):
    """A whole number that comes as a JSON number."""

    def to_internal_value(self, data: Any) -> int:
        """Refuses text, booleans and fractions."""
        if isinstance(data, bool) or not isinstance(data, int | float) or data != data // 1:
            self.fail("invalid")
        return super().to_internal_value(int(data))


def one_of(values: Any, **options: Any) -> ChoiceFilter:
    """A filter on one of the values; another value is an error that names them."""
    names = ", ".join(values.values)
    return ChoiceFilter(
        choices=values.choices, error_messages={"invalid_choice": f"Must be one of {names}."}, **options
    )


class Flag(TypedChoiceFilter):
    """`true` or `false`, also as `1` and `0`; anything else is an error."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            choices=[("true", "true"), ("false", "false"), ("1", "true"), ("0", "false")],
            coerce=lambda text: text in ("true", "1"),
            error_messages={"invalid_choice": "Must be true or false."},
            **options,
        )


# ---------------------------------------------------------------- answers made of frozen data

# Modules of shapes may import these for type checkers alone.
_NAMES = {"datetime": dt.datetime, "date": dt.date, "dt": dt, "UUID": uuid.UUID, "uuid": uuid, "Any": Any}

_serializers: dict[Any, type[serializers.Serializer]] = {}

_PLAIN: dict[Any, type[serializers.Field]] = {
    str: serializers.CharField,
    int: serializers.IntegerField,
    float: serializers.FloatField,
    bool: serializers.BooleanField,
    dt.datetime: serializers.DateTimeField,
    dt.date: serializers.DateField,
    uuid.UUID: serializers.UUIDField,
}


def described(
    shape: type, *, name: str | None = None, without: tuple[str, ...] = ()
) -> type[serializers.Serializer]:
    """The serializer that describes a frozen dataclass in the schema; the data itself is encoded as it is."""
    hints = typing.get_type_hints(shape, localns=_NAMES)
    fields = {
        one.name: _field(hints[one.name]) for one in dataclasses.fields(shape) if one.name not in without
    }
    doc = {"__doc__": (shape.__doc__ or "").strip()}
    return type(f"{name or shape.__name__}Serializer", (serializers.Serializer,), doc | fields)


def _field(hint: Any, **options: Any) -> serializers.Field:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        inner = next(one for one in arguments if one is not type(None))
        return _field(inner, allow_null=True)
    if origin in (tuple, list):
        if typing.get_origin(arguments[0]) is tuple:
            return serializers.ListField(child=serializers.ListField(), **options)
        child = _field(arguments[0])
        if isinstance(child, serializers.Serializer):
            return type(child)(many=True, **options)
        return serializers.ListField(child=child, **options)
    if origin is dict:
        return serializers.DictField(**options)
    if dataclasses.is_dataclass(hint):
        return _remember(hint)(**options)
    return _PLAIN.get(hint, serializers.JSONField)(**options)


def _remember(shape: Any) -> type[serializers.Serializer]:
    """One serializer a shape, so that the schema names each once."""
    made = _serializers.get(shape)
    if made is None:
        # A shape may have the name of a row the API shows as well.
        made = _serializers[shape] = described(shape, name=f"{shape.__name__}Shape")
    return made
