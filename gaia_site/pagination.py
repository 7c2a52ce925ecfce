"""Lists of the API: a cursor that stays right while rows come and go, strict filters, whitelisted order.

A cursor is the sort key of the last row of a page, not a count of rows: nothing is skipped or seen twice
when rows are added meanwhile. It is opaque to clients but not secret, and is checked like any input.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import F, Q, QuerySet
from django.http import QueryDict
from django.utils.dateparse import parse_datetime
from django_filters import FilterSet
from rest_framework.request import Request

from gaia_site.problems import FieldError, invalid, validation

LIMIT_DEFAULT = 100
LIMIT_MOST = 500
LIST_PARAMETERS = frozenset({"limit", "cursor", "ordering"})
READ_PARAMETERS = frozenset({"consistency", "min_index"})


@dataclass(frozen=True, slots=True)
class Page:
    """One page of rows with the addresses of its neighbours."""

    rows: list[Any]
    next: str | None
    previous: str | None

    def as_json(self, results: Any) -> dict[str, Any]:
        """The answer with `results` in place of the rows."""
        return {"next": self.next, "previous": self.previous, "results": results}


class _Cursor(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """Where a page starts: after (or, `is_backward`, before) the row with this sort value and key."""

    ordering: str
    is_backward: bool
    value: str
    key: str


def check_parameters(query: QueryDict, allowed: Iterable[str]) -> None:
    """Refuses query parameters that mean nothing here, naming each, and one given twice."""
    known = set(allowed)
    errors = [
        FieldError(("query", name), f"Unknown parameter. Known here: {', '.join(sorted(known)) or 'none'}.")
        for name in query
        if name not in known
    ]
    errors += [
        FieldError(("query", name), "Given more than once.")
        for name in query
        if name in known and len(query.getlist(name)) > 1
    ]
    errors += [
        FieldError(("query", name), "Must not contain the NUL character.")
        for name, value in query.items()
        if "\0" in value
    ]
    if errors:
        raise validation(errors)


def filtered(
    filterset: type[FilterSet], query: QueryDict, rows: QuerySet[Any], *, extra: Iterable[str] = ()
) -> QuerySet[Any]:
    """`rows` narrowed by the query's filters; unknown ones and bad values are validation errors."""
    check_parameters(query, {*filterset.base_filters, *LIST_PARAMETERS, *READ_PARAMETERS, *extra})
    bound = filterset(data=query, queryset=rows)
    if not bound.is_valid():
        raise validation(
            [
                FieldError(("query", name), str(message))
                for name, messages in bound.errors.items()
                for message in messages
            ]
        )
    return bound.qs


def page(request: Request, rows: QuerySet[Any], *, orderings: Sequence[str], key: str = "pk") -> Page:
    """One page of `rows` as `limit`, `ordering` and `cursor` of the query ask.

    `orderings` are the allowed fields (without sign), none of them nullable; the first entry, which may
    carry a minus, is the default. Ties are broken by `key`.
    """
    limit = _limit(request.query_params)
    ordering = _ordering(request.query_params, orderings)
    cursor = _read_cursor(request.query_params.get("cursor"), ordering)
    field, is_descending = ordering.lstrip("-"), ordering.startswith("-")
    is_backward = cursor is not None and cursor.is_backward
    if cursor is not None:
        rows = rows.filter(_beyond(rows.model, field, key, cursor, is_downward=is_descending != is_backward))
    order = [F(name).desc() if is_descending != is_backward else F(name).asc() for name in (field, key)]
    found = list(rows.order_by(*order)[: limit + 1])
    has_more, found = len(found) > limit, found[:limit]
    if is_backward:
        found.reverse()
    has_next = bool(found) and (has_more or is_backward)
    has_previous = bool(found) and (has_more if is_backward else cursor is not None)
    return Page(
        found,
        _link(request, _cursor_at(found[-1], ordering, field, key, is_backward=False)) if has_next else None,
        _link(request, _cursor_at(found[0], ordering, field, key, is_backward=True))
        if has_previous
        else None,
    )


def _limit(query: Mapping[str, str]) -> int:
    text = query.get("limit")
    if text is None:
        return LIMIT_DEFAULT
    if not (text.isascii() and text.isdigit() and len(text) < 7 and 1 <= int(text) <= LIMIT_MOST):
        raise invalid(("query", "limit"), f"Must be a whole number from 1 to {LIMIT_MOST}.")
    return int(text)


def _ordering(query: Mapping[str, str], orderings: Sequence[str]) -> str:
    asked = query.get("ordering")
    if asked is None:
        return orderings[0]
    known = {name.lstrip("-") for name in orderings}
    if asked.removeprefix("-") not in known:
        raise invalid(
            ("query", "ordering"), f"Must be one of {', '.join(sorted(known))}, with - for descending."
        )
    return asked


def _cursor_at(row: Any, ordering: str, field: str, key: str, *, is_backward: bool) -> _Cursor:
    value = getattr(row, field)
    return _Cursor(
        ordering,
        is_backward,
        value.isoformat() if isinstance(value, datetime) else str(value),
        str(getattr(row, key)),
    )


def _read_cursor(text: str | None, ordering: str) -> _Cursor | None:
    if text is None:
        return None
    try:
        cursor = msgspec.json.decode(base64.urlsafe_b64decode(text.encode() + b"=="), type=_Cursor)
    except (binascii.Error, msgspec.MsgspecError, UnicodeError, ValueError) as error:
        raise invalid(("query", "cursor"), "Not a cursor of this list.") from error
    if cursor.ordering != ordering:
        raise invalid(("query", "cursor"), "Belongs to another ordering.")
    if "\0" in cursor.value + cursor.key:
        raise invalid(("query", "cursor"), "Not a cursor of this list.")
    return cursor


def _beyond(model: type[models.Model], field: str, key: str, cursor: _Cursor, *, is_downward: bool) -> Q:
    """The rows past the cursor in reading direction."""
    side = "lt" if is_downward else "gt"
    try:
        value = _typed(model, field, cursor.value)
        key_value = _typed(model, key, cursor.key)
    except (ValidationError, ValueError, TypeError) as error:
        raise invalid(("query", "cursor"), "Not a cursor of this list.") from error
    if field in (key, model._meta.pk.name if key == "pk" else key):  # noqa: SLF001  Django documents it
        return Q(**{f"{field}__{side}": value})
    return Q(**{f"{field}__{side}": value}) | Q(**{field: value, f"{key}__{side}": key_value})


def _typed(model: type[models.Model], name: str, text: str) -> Any:
    column = model._meta.pk if name == "pk" else model._meta.get_field(name)  # noqa: SLF001  Django documents it
    if isinstance(column, models.DateTimeField):
        value = parse_datetime(text)
        if value is None or value.tzinfo is None:
            raise ValueError(f"not a time: {text!r}")
        return value
    value = column.to_python(text)
    if isinstance(column, models.FloatField) and math.isnan(value):
        raise ValueError("not a number")
    if isinstance(column, models.IntegerField) and abs(value) >= 2**63:
        raise ValueError("out of range")
    return value


def _link(request: Request, cursor: _Cursor) -> str:
    query = request.query_params.copy()
    query["cursor"] = base64.urlsafe_b64encode(msgspec.json.encode(cursor)).rstrip(b"=").decode()
    return request.build_absolute_uri(f"{request.path}?{query.urlencode()}")


def whole_number(query: Mapping[str, str], name: str, *, least: int = 0, most: int = 2**63 - 1) -> int | None:
    """A whole number of the query, None where it is not given."""
    text = query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise invalid(("query", name), f"Must be a whole number from {least} to {most}.")
    return int(text)
