"""Every command of the README and of docs/ works when pasted, in the order in which it stands there."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from gaia_site.env import Environment
from tests.running import GIVEN_BY_THE_TESTS, ROOT, Up

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What a whole run of its own proves: `manage.py up` by test_up.py, the rest by being what runs this test.
RUN_ELSEWHERE = {"make run", "make test", "make bench", "make check"}
LIMIT_S = 120

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("docs")]


@dataclass(frozen=True)
class Reader:
    """Somebody who pastes one command after another into one shell, beside a running system."""

    data: Path
    home: Path

    def paste(self, block: str) -> subprocess.CompletedProcess[str]:
        """The block as it stands; only the data folder is another than that of a checkout."""
        told = block.replace(" .gaia/", f" {self.data}/")
        script = f"set -eu\ntest -f '{self.data}/demo.env' && . '{self.data}/demo.env'\n{told}"
        environment = {name: value for name, value in os.environ.items() if name not in GIVEN_BY_THE_TESTS}
        environment |= {"GAIA_DATA_DIR": str(self.data), "HOME": str(self.home)}
        command = ["sh", "-c", script]
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    folder = Path(tempfile.mkdtemp(prefix="gaia-d-", dir="/tmp"))
    folder.chmod(0o711)
    system = Up(folder / ".gaia", DEMO="quiet")
    try:
        system.wait_until_ready()
        yield Reader(folder / ".gaia", folder)
    finally:
        if system.process.poll() is None:
            system.send(signal.SIGTERM)
            system.wait_for_end()
        shutil.rmtree(folder, ignore_errors=True)
        (ROOT / "scores.csv").unlink(missing_ok=True)


def blocks_of(page: Path) -> list[str]:
    return [block for block in BLOCK.findall(page.read_text()) if block.strip() not in RUN_ELSEWHERE]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_works_when_pasted(page: Path, reader: Reader) -> None:
    for block in blocks_of(page):
        done = reader.paste(block)

        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        for answer in filter(None, [done.stdout.strip()]):
            problem = (
                answer.startswith("{")
                and "errors" not in answer
                and json.loads(answer.splitlines()[0]).get("status", 0)
            )
            assert not (isinstance(problem, int) and problem >= 400), f"{block}\n{answer}"


def test_the_readme_shows_the_two_commands_first() -> None:
    commands = [block.strip() for block in BLOCK.findall((ROOT / "README.md").read_text())]

    assert commands[:2] == ["make run", "make test"]


def test_make_run_is_the_command_that_the_tests_start() -> None:
    shown = subprocess.run(["make", "-n", "run"], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert "manage.py up" in shown


def test_every_setting_is_documented_with_its_default() -> None:
    table = (ROOT / "docs" / "operating.md").read_text()

    for declared in fields(Environment):
        variable = declared.metadata["variable"]
        row = next(
            (
                line
                for line in table.splitlines()
                if line.startswith(f"| `{variable.name}` |") and line.count("|") > 4
            ),
            None,
        )
        assert row is not None, f"{variable.name} is not in docs/operating.md"
        assert not variable.default or f"`{variable.default}`" in row, row


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"
