"""The 87 operations: each has a name that exists and a test marked with its number.

`operations.tsv` lists what callers of the older system could ask of its storage, and what answers it here. A
test that proves one carries `@pytest.mark.operation(number)`; this one reads the marks from the sources, so
it holds whichever tests are run.
"""

import ast
import csv
from importlib import import_module
from pathlib import Path

import pytest
from django.apps import apps

TESTS = Path(__file__).parent
OPERATIONS = list(csv.DictReader((TESTS / "operations.tsv").open(encoding="utf-8"), delimiter="\t"))


def resolved(name: str) -> object:
    """What a dotted name of the list stands for: a manager's method or a function of a module."""
    if ".objects." in name:
        model_name, _, method = name.partition(".objects.")
        model = next(model for model in apps.get_models() if model.__name__ == model_name)
        return getattr(model.objects, method)
    module, _, function = name.rpartition(".")
    return getattr(import_module(module), function)


def marked_operations() -> set[int]:
    """The numbers in every `pytest.mark.operation(...)` of the tests."""
    found: set[int] = set()
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_mark = isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.operation"
            if is_mark:
                found.update(argument.value for argument in node.args)
    return found


def test_the_list_is_whole():
    assert [int(row["number"]) for row in OPERATIONS] == list(range(1, 88))


@pytest.mark.parametrize("row", OPERATIONS, ids=lambda row: f"{row['number']}-{row['name']}")
def test_every_operation_can_be_called(row):
    assert callable(resolved(row["name"]))


@pytest.mark.parametrize("row", OPERATIONS, ids=lambda row: f"{row['number']}-{row['name']}")
def test_every_operation_is_proved_by_a_test(row):
    assert int(row["number"]) in MARKED


MARKED = marked_operations()
