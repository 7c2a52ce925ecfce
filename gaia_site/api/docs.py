"""The schema at /api/schema, and a page that explains it without scripts or anything from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import msgspec
import yaml
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.generic import View
from drf_spectacular.generators import SchemaGenerator

from gaia_site.schema import DESCRIPTION

VERBS = ("get", "post", "put", "patch", "delete")


@cache
def schema() -> dict[str, Any]:
    """The OpenAPI 3.1 document as plain data; made once a process, for it follows from the code alone."""
    made = SchemaGenerator().get_schema(request=None, public=True)
    made["info"]["description"] = DESCRIPTION
    return msgspec.json.decode(msgspec.json.encode(made, enc_hook=str))


@cache
def _encoded(*, is_yaml: bool) -> bytes:
    if is_yaml:
        return yaml.safe_dump(schema(), sort_keys=False, allow_unicode=True).encode()
    return msgspec.json.encode(schema())


class SchemaView(View):
    """The document as JSON, or as YAML with `?format=yaml`."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """200 for everybody: it holds nothing but what these pages say."""
        is_yaml = request.GET.get("format") == "yaml"
        kind = "application/yaml" if is_yaml else "application/vnd.oai.openapi+json; charset=utf-8"
        return HttpResponse(_encoded(is_yaml=is_yaml), content_type=kind)


@dataclass(frozen=True, slots=True)
class Field:
    """One line of a body, an answer or a list of parameters."""

    name: str
    kind: str
    is_required: bool
    about: str


@dataclass(frozen=True, slots=True)
class Answer:
    """One status an operation answers."""

    status: str
    about: str
    fields: tuple[Field, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """One call as the page shows it."""

    anchor: str
    verb: str
    path: str
    summary: str
    about: str
    parameters: tuple[Field, ...] = ()
    body: tuple[Field, ...] = ()
    answers: tuple[Answer, ...] = ()


@dataclass(slots=True)
class Section:
    """The calls of one noun."""

    name: str
    operations: list[Operation] = field(default_factory=list)


def sections(document: Mapping[str, Any]) -> list[Section]:
    """The document by noun, in its own order."""
    found: dict[str, Section] = {}
    for path, item in document["paths"].items():
        for verb in VERBS:
            if verb in item:
                operation = _operation(document, path, verb, item[verb])
                name = (item[verb].get("tags") or ["other"])[0]
                found.setdefault(name, Section(name)).operations.append(operation)
    return list(found.values())


def _operation(document: Mapping[str, Any], path: str, verb: str, said: Mapping[str, Any]) -> Operation:
    body = next(iter((said.get("requestBody") or {}).get("content", {}).values()), {})
    return Operation(
        anchor=said["operationId"],
        verb=verb.upper(),
        path=path,
        summary=said.get("summary", ""),
        about=said.get("description", ""),
        parameters=tuple(
            Field(one["name"], _kind(one["schema"]), one.get("required", False), one.get("description", ""))
            for one in said.get("parameters", [])
        ),
        body=tuple(_fields(document, body.get("schema", {}))),
        answers=tuple(
            Answer(
                status,
                answer.get("description", ""),
                tuple(
                    _fields(document, next(iter(answer.get("content", {}).values()), {}).get("schema", {}))
                ),
            )
            for status, answer in said.get("responses", {}).items()
        ),
    )


def _fields(document: Mapping[str, Any], shape: Mapping[str, Any]) -> Iterator[Field]:
    """The top fields of an object, of a list's items, or of the first alternative."""
    shape = _resolved(document, shape)
    for name, inner in shape.get("properties", {}).items():
        yield Field(name, _kind(inner), name in shape.get("required", []), inner.get("description", ""))


def _resolved(document: Mapping[str, Any], shape: Mapping[str, Any]) -> Mapping[str, Any]:
    for _ in range(10):
        if "$ref" in shape:
            shape = document["components"]["schemas"][shape["$ref"].rpartition("/")[2]]
        elif shape.get("type") == "array":
            shape = shape.get("items", {})
        elif alternatives := shape.get("oneOf") or shape.get("anyOf") or shape.get("allOf"):
            shape = alternatives[0]
        else:
            break
    return shape


def _kind(shape: Mapping[str, Any]) -> str:
    """A type in a word or two."""
    if "$ref" in shape:
        return shape["$ref"].rpartition("/")[2]
    if "enum" in shape:
        return " · ".join(str(value) for value in shape["enum"] if value not in (None, ""))
    for how in ("oneOf", "anyOf", "allOf"):
        if how in shape:
            return " or ".join(dict.fromkeys(_kind(inner) for inner in shape[how]))
    kinds = shape.get("type", "any")
    names = kinds if isinstance(kinds, list) else [kinds]
    named = [f"list of {_kind(shape.get('items', {}))}" if name == "array" else name for name in names]
    return " or ".join(named) + (f" ({shape['format']})" if "format" in shape else "")


class DocumentationView(View):
    """A page for people: every call with its parameters, body and answers."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """The page."""
        document = schema()
        return render(request, "api/docs.html", {"info": document["info"], "sections": sections(document)})
