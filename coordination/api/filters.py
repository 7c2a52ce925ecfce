"""Filters that several lists of the coordination API share."""

from __future__ import annotations

from typing import Any

import django_filters
from django.db import models


def choices_filter(choices: type[models.TextChoices], **options: Any) -> django_filters.ChoiceFilter:
    """Equality with one of the values; another value is a validation error that names them."""
    known = ", ".join(choices.values)
    return django_filters.ChoiceFilter(
        choices=choices.choices, error_messages={"invalid_choice": f"Must be one of {known}."}, **options
    )


class Flag(django_filters.TypedChoiceFilter):
    """`true` or `false`; anything else is a validation error."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            choices=[("true", "true"), ("false", "false")],
            coerce=lambda text: text == "true",
            error_messages={"invalid_choice": "Must be true or false."},
            **options,
        )
