"""The OpenAPI document: valid, complete, and true of what the site answers."""

from __future__ import annotations

import re

import pytest
import schemathesis
from django.urls import URLPattern, URLResolver, get_resolver
from hypothesis import HealthCheck, Phase, given, settings

from gaia_site.api.docs import schema, sections

VERBS = {"get", "post", "put", "patch", "delete"}


def api_routes(patterns=None, prefix=""):
    """Every address under /api/v1/ with its endpoint class."""
    for pattern in patterns if patterns is not None else get_resolver().url_patterns:
        here = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from api_routes(pattern.url_patterns, here)
        elif (
            isinstance(pattern, URLPattern)
            and here.startswith("api/v1/")
            and hasattr(pattern.callback, "view_class")
        ):
            yield "/" + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", here), pattern.callback.view_class


def test_every_call_is_described():
    document = schema()

    missing = [
        (verb, path)
        for path, view in api_routes()
        for verb in VERBS
        if hasattr(view, verb) and verb not in document["paths"].get(path, {})
    ]

    assert not missing


def test_hot_calls_are_described_too():
    from gaia_site.api.routes import hot_routes

    described = {
        (verb.upper(), re.sub(r"\{\w+\}", "{}", path))
        for path, item in schema()["paths"].items()
        for verb in item
    }

    for route in hot_routes():
        assert (route.method, re.sub(r"\{\w+\}", "{}", route.path)) in described


def operations():
    return [
        (f"{verb} {path}", verb, operation)
        for path, item in schema()["paths"].items()
        for verb, operation in item.items()
        if verb in VERBS
    ]


def test_every_call_has_a_name_of_its_own_a_summary_and_its_errors():
    names = [operation["operationId"] for _, _, operation in operations()]

    assert len(names) == len(set(names))
    for where, _, operation in operations():
        assert operation.get("summary"), where
        assert {"401", "403", "429", "503"} <= set(operation["responses"]), where
        assert any(status.startswith("2") for status in operation["responses"]), where
        if "requestBody" in operation:
            assert {"400", "413", "415"} <= set(operation["responses"]), where


def test_references_resolve():
    document = schema()

    def references(part):
        if isinstance(part, dict):
            if "$ref" in part:
                yield part["$ref"]
            for inner in part.values():
                yield from references(inner)
        elif isinstance(part, list):
            for inner in part:
                yield from references(inner)

    for reference in set(references(document)):
        name = reference.removeprefix("#/components/schemas/")
        assert name in document["components"]["schemas"], reference


def test_the_page_shows_every_call():
    shown = sum(len(section.operations) for section in sections(schema()))

    assert shown == len(operations())


OPERATIONS = [
    operation["operationId"]
    for path, item in schema()["paths"].items()
    for verb, operation in item.items()
    if verb in VERBS and not path.startswith("/api/v1/usability")
]


@pytest.mark.parametrize("operation_id", OPERATIONS)
def test_what_the_site_answers_is_what_the_document_says(site, operation_id):
    loaded = schemathesis.openapi.from_dict(schema())
    selected = loaded.include(operation_id=operation_id)
    checks = [
        schemathesis.specs.openapi.checks.response_schema_conformance,
        schemathesis.specs.openapi.checks.status_code_conformance,
        schemathesis.specs.openapi.checks.content_type_conformance,
    ]
    for result in selected.get_all_operations():
        operation = result.ok()
        _fuzz(operation, site, checks)


def _fuzz(operation, site, checks):
    @settings(
        max_examples=6,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def answers_as_described(case):
        case.query.pop("min_index", None)  # an index far ahead is waited for, 5 s each
        answer = case.call(
            base_url=site.url, headers={"Authorization": f"Bearer {site.secrets['admin']}"}, timeout=40
        )
        case.validate_response(answer, checks=checks)

    answers_as_described()
