"""A real Chromium before the whole system, started by `manage.py up` with the demo's data and without its load."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.running import Up

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """They need a browser, and time for it."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.timeout(240))


class Demo:
    """The running system, what `.gaia/demo.json` says of it, and the lines of its log as they come."""

    def __init__(self, facts: dict[str, Any], data: Path, logged: list[str]) -> None:
        self.data = data
        self.logged = logged
        self.url: str = facts["url"]
        self.logins: dict[str, dict[str, str]] = facts["logins"]
        self.keys: dict[str, str] = facts["keys"]
        self.classroom_id: str = facts["classroom_id"]
        self.student_ids: list[str] = facts["student_ids"]
        self.live_path = f"/classes/{self.classroom_id}/"

    def post(self, path: str, body: Any, key: str = "metrics") -> dict[str, Any]:
        """The answer of the public API, which must be a success."""
        answer = urllib3.request(
            "POST",
            f"{self.url}/api/v1/{path}",
            json=body,
            headers={"Authorization": f"Bearer {self.keys[key]}"},
            timeout=15.0,
            retries=False,
        )
        assert answer.status < 300, answer.data
        return answer.json()

    def answers(self, student_id: str, values: list[int], item: str = "item-8") -> None:
        """A pupil answers, one after another, right (1) or wrong (0)."""
        metrics = [
            {
                "student_id": student_id,
                "app_name": "fractions-lab",
                "metric_type": "answer",
                "metric_value": value,
                "metadata": {"item": item, "skill": "fractions"},
            }
            for value in values
        ]
        self.post("usability/metrics", metrics)

    def asks_for_help(self, student_id: str) -> None:
        metric = {
            "student_id": student_id,
            "app_name": "fractions-lab",
            "metric_type": "help_request",
            "metric_value": 1,
        }
        self.post("usability/metrics", metric)


@pytest.fixture(scope="package")
def demo() -> Iterator[Demo]:
    folder = Path(tempfile.mkdtemp(prefix="gaia-b-", dir="/tmp"))
    folder.chmod(0o711)
    system = Up(folder / ".gaia", DEMO="quiet")
    try:
        system.wait_until_ready()
        facts = json.loads((folder / ".gaia" / "demo.json").read_text())
        yield Demo(facts, folder / ".gaia", system.lines)
    finally:
        if system.process.poll() is None:
            system.send(signal.SIGTERM)
            system.wait_for_end()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """For this folder alone: while Playwright runs, this thread has a running event loop, which Django refuses."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def tablet(chromium: Browser, demo: Demo) -> Iterator[BrowserContext]:
    """A context of its own: its cookies are nobody else's."""
    context = chromium.new_context(base_url=demo.url, viewport={"width": 1024, "height": 768})
    context.set_default_timeout(15_000)
    yield context
    context.close()


def signed_in(context: BrowserContext, demo: Demo, who: str) -> Page:
    """A page of that person, signed in through the form."""
    page = context.new_page()
    page.goto("/sign-in/")
    page.get_by_label("User name").fill(demo.logins[who]["username"])
    page.get_by_label("Password").fill(demo.logins[who]["password"])
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/")
    return page


@pytest.fixture
def teacher(tablet: BrowserContext, demo: Demo) -> Page:
    return signed_in(tablet, demo, "teacher")
