"""A filter by app that has a word for rows of no app in particular."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.utils.translation import gettext as _


class AppFilter(admin.AllValuesFieldListFilter):
    """The apps there are; a row without an app's name is about every app."""

    def choices(self, changelist: ChangeList) -> Iterator[dict[str, Any]]:
        """Each with words to show: a link must have a name."""
        for choice in super().choices(changelist):
            yield {**choice, "display": choice["display"] or _("every app")}
