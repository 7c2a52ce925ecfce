"""One errand over this checkout, as an agent runs it: the task comes as JSON on stdin, the result leaves on stdout.

Real work on real files, small enough for a laptop. Standard library only, for a process of its own each time.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BYTES_MOST = 2_000_000


class WrongErrand(Exception):
    """The task asks for something that is no errand, or for a file outside the checkout."""


def file_of(task_data: dict[str, Any]) -> Path:
    """The file the task is about. Raises WrongErrand unless it lies in the checkout and is small."""
    path = (ROOT / str(task_data.get("path", ""))).resolve()
    if not path.is_relative_to(ROOT) or not path.is_file() or path.stat().st_size > BYTES_MOST:
        raise WrongErrand(f"not a small file of the checkout: {task_data.get('path')!r}")
    return path


def count_lines(path: Path) -> dict[str, Any]:
    """Lines in all, of code, of comments, and blank ones."""
    lines = path.read_text(errors="replace").splitlines()
    blank = sum(1 for line in lines if not line.strip())
    comments = sum(1 for line in lines if line.lstrip().startswith("#"))
    return {"lines": len(lines), "blank": blank, "comments": comments, "code": len(lines) - blank - comments}


def check_syntax(path: Path) -> dict[str, Any]:
    """Does it parse, and what is in it? Raises SyntaxError where it does not."""
    nodes = list(ast.walk(ast.parse(path.read_text(), filename=str(path))))
    functions = sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in nodes)
    return {"functions": functions, "classes": sum(isinstance(node, ast.ClassDef) for node in nodes)}


def checksum(path: Path) -> dict[str, Any]:
    """The SHA-256 of the file."""
    content = path.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}


def find_long_functions(path: Path) -> dict[str, Any]:
    """The longest functions with their lengths in lines."""
    tree = ast.parse(path.read_text(), filename=str(path))
    lengths = [
        (node.end_lineno - node.lineno + 1, node.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None
    ]
    return {
        "longest": [{"name": name, "lines": length} for length, name in sorted(lengths, reverse=True)[:5]]
    }


ERRANDS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "count_lines": count_lines,
    "check_syntax": check_syntax,
    "checksum": checksum,
    "find_long_functions": find_long_functions,
}


def survey(task_data: dict[str, Any]) -> dict[str, Any]:
    """What a folder's other errands were for: its Python files and lines together."""
    folder = (ROOT / str(task_data.get("folder", ""))).resolve()
    if not folder.is_relative_to(ROOT) or not folder.is_dir():
        raise WrongErrand(f"not a folder of the checkout: {task_data.get('folder')!r}")
    files = sorted(folder.rglob("*.py"))
    return {"files": len(files), "lines": sum(count_lines(path)["lines"] for path in files)}


def run(task: dict[str, Any]) -> dict[str, Any]:
    """The result of a task. Raises WrongErrand, SyntaxError or OSError."""
    task_type, task_data = task.get("task_type"), task.get("task_data") or {}
    if task_type == "survey":
        return survey(task_data)
    if task_type not in ERRANDS:
        raise WrongErrand(f"no such errand: {task_type!r}")
    return ERRANDS[task_type](file_of(task_data))


def main() -> int:
    """Exit code 0 and the result on stdout, or 1 and the reason on stderr."""
    try:
        result = run(json.load(sys.stdin))
    except (WrongErrand, SyntaxError, OSError, ValueError) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    json.dump(result, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
