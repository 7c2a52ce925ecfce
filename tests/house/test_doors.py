"""The rooms of the house and who may open which door, read from the imports of every module."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = ("gaia_site", "coordination", "usability")
PURE = ("coordination.machine", "usability.detection")
PURE_MAY_IMPORT = frozenset({"msgspec"})

CLOCK_CHANCE_AND_OUTSIDE = frozenset(
    {
        *("time", "random", "secrets", "os", "io", "socket", "ssl", "subprocess", "threading", "asyncio"),
        *(
            "logging",
            "pathlib",
            "tempfile",
            "shutil",
            "urllib",
            "http",
            "sqlite3",
            "multiprocessing",
            "signal",
        ),
        *("select", "selectors", "sys", "platform", "locale", "warnings"),
    }
)
"""Modules of the standard library that a pure package has no use for."""

CALLS_OUT = frozenset(
    {"open", "print", "input", "exec", "eval", "hash", "id", "globals", "__import__", "uuid1", "uuid4"}
)
"""Built-in functions whose effect or result depends on more than their arguments (`hash` of text, `id`)."""

READS_THE_CLOCK_OR_CHANCE = frozenset({"now", "utcnow", "today", "uuid1", "uuid4"})

# Who may not import whom. Each rule: the importing modules, what they may not import, the sentence it enforces.
FORBIDDEN = [
    (("coordination",), ("usability",), "coordination never imports usability"),
    (("usability",), ("coordination",), "usability never imports coordination"),
    (
        ("coordination.models", "usability.models"),
        (
            *("coordination.machine", "coordination.log", "coordination.node", "coordination.services"),
            *("coordination.projection", "coordination.selectors", "coordination.api", "usability.detection"),
            *(
                "usability.services",
                "usability.selectors",
                "usability.api",
                "usability.portal",
                "usability.ingest",
            ),
        ),
        "models know nothing of what is built on them (of the pure packages only kinds)",
    ),
    (
        ("coordination.projection",),
        (
            *("coordination.machine.rules", "coordination.machine.machine", "coordination.machine.scoring"),
            *("coordination.log", "coordination.node", "coordination.services", "coordination.api"),
        ),
        "the projector knows events, state and models, and no rules",
    ),
    (
        ("coordination.services", "coordination.selectors", "usability.services", "usability.selectors"),
        (
            *("coordination.api", "coordination.node", "coordination.consumers", "pysyncobj"),
            *("usability.api", "usability.portal", "usability.consumers", "rest_framework"),
        ),
        "services and selectors know no api, no node and no pysyncobj",
    ),
    (
        (
            *("coordination.api", "coordination.admin", "coordination.consumers"),
            *("usability.api", "usability.portal", "usability.admin", "usability.consumers"),
        ),
        (
            *(
                "coordination.log",
                "coordination.node",
                "coordination.projection",
                "coordination.machine.rules",
            ),
            *("coordination.machine.machine", "pysyncobj"),
        ),
        "api, portal, admin and consumers know services, selectors and access, and no log, rules or projection",
    ),
    (
        ("coordination.node", "usability.worker"),
        ("coordination.api", "usability.api", "usability.portal", "rest_framework"),
        "node and worker know no api and no views",
    ),
    (("gaia_site.env",), OURS, "env knows nothing of ours"),
]
ALLOWED_ALL_THE_SAME = frozenset(
    {
        ("coordination.models", "coordination.machine.kinds"),
        ("usability.models", "usability.detection.kinds"),
        ("gaia_site.env", "gaia_site.env"),
    }
)
ONLY_THERE = [
    ("pysyncobj", ("coordination.log",), "pysyncobj is known to coordination.log alone"),
    (
        "channels.layers",
        ("coordination.push", "usability.push"),
        "the channel layer is touched by the two push modules alone",
    ),
]


def modules() -> list[tuple[str, Path]]:
    """Every module of ours by its dotted name, without migrations."""
    found = []
    for package in OURS:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if "migrations" not in parts:
                found.append((".".join(parts).removesuffix(".__init__"), path))
    return found


def imports_of(module: str, tree: ast.AST, *, is_package: bool) -> Iterator[tuple[str, int]]:
    """What a module imports, absolute, with the line: for `from a import b` it is `a.b`, and `a` unless b is a module."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                yield f"{source}.{alias.name}", node.lineno
                if not is_module_of_ours(f"{source}.{alias.name}"):
                    yield source, node.lineno


def is_module_of_ours(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def is_within(name: str, room: str) -> bool:
    return name == room or name.startswith(f"{room}.")


def wrong_doors(name: str, imported: str) -> Iterator[str]:
    """The sentences that this import goes against."""
    allowed = any(is_within(name, a) and is_within(imported, b) for a, b in ALLOWED_ALL_THE_SAME)
    for rooms, closed, sentence in FORBIDDEN:
        is_inside, is_closed = (
            any(is_within(name, room) for room in rooms),
            any(is_within(imported, one) for one in closed),
        )
        if is_inside and is_closed and not allowed:
            yield sentence
    for library, rooms, sentence in ONLY_THERE:
        if is_within(imported, library) and not any(is_within(name, room) for room in rooms):
            yield sentence


@pytest.mark.parametrize("package", OURS)
def test_no_module_goes_through_a_closed_door(package: str) -> None:
    wrong = []
    for name, path in modules():
        if not is_within(name, package):
            continue
        tree = ast.parse(path.read_text())
        for imported, line in imports_of(name, tree, is_package=path.name == "__init__.py"):
            wrong += [
                f"{path.relative_to(ROOT)}:{line} imports {imported}: {why}"
                for why in wrong_doors(name, imported)
            ]

    assert not wrong, "\n".join(sorted(set(wrong)))


@pytest.mark.parametrize("package", PURE)
def test_pure_packages_import_themselves_the_standard_library_and_msgspec_alone(package: str) -> None:
    wrong = []
    for name, path in modules():
        if not is_within(name, package):
            continue
        tree = ast.parse(path.read_text())
        for imported, line in imports_of(name, tree, is_package=path.name == "__init__.py"):
            top = imported.partition(".")[0]
            is_pure = top in sys.stdlib_module_names and top not in CLOCK_CHANCE_AND_OUTSIDE
            if not (
                is_within(imported, package)
                or top in PURE_MAY_IMPORT
                or is_pure
                or imported == package.partition(".")[0]
            ):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {imported}")

    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", PURE)
def test_pure_packages_ask_no_clock_and_touch_nothing_outside(package: str) -> None:
    wrong = []
    for name, path in modules():
        if not is_within(name, package):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = node.func
            if isinstance(called, ast.Name) and called.id in CALLS_OUT:
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} calls {called.id}()")
            if isinstance(called, ast.Attribute) and called.attr in READS_THE_CLOCK_OR_CHANCE:
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} calls .{called.attr}()")

    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("name", "imported"),
    [
        ("coordination.api.tasks", "coordination.log.client"),
        ("usability.services.alerts", "rest_framework.response"),
        ("coordination.services", "pysyncobj"),
        ("usability.worker", "channels.layers.get_channel_layer"),
        ("coordination.models", "coordination.machine.state"),
        ("coordination.agent.gaia_agent", "usability.models"),
    ],
)
def test_a_closed_door_is_noticed(name: str, imported: str) -> None:
    assert list(wrong_doors(name, imported))


@pytest.mark.parametrize(
    ("name", "imported"),
    [
        ("coordination.models", "coordination.machine.kinds.TaskStatus"),
        ("coordination.log.raft", "pysyncobj.SyncObj"),
        ("usability.push", "channels.layers.get_channel_layer"),
        ("coordination.services", "coordination.log.client"),
        ("coordination.api.tasks", "coordination.services"),
    ],
)
def test_an_open_door_is_left_open(name: str, imported: str) -> None:
    assert not list(wrong_doors(name, imported))


def test_relative_imports_are_read_as_absolute_ones() -> None:
    tree = ast.parse("from ..machine import kinds\nfrom .endpoints import listing")

    found = {imported for imported, _ in imports_of("coordination.api.tasks", tree, is_package=False)}

    assert found == {
        "coordination.machine.kinds",
        "coordination.api.endpoints",
        "coordination.api.endpoints.listing",
    }
