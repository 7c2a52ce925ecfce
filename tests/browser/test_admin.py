"""The admin and the API's page in a real browser: their rules of accessibility, and an operator's verbs."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import urllib3
from playwright.sync_api import Browser, Page

from tests.browser.conftest import Demo
from tests.browser.test_accessibility import broken_rules

ADMIN = "/admin/coordination/"
PAGES = [
    "/admin/",
    f"{ADMIN}claudesession/",
    f"{ADMIN}distributedtask/",
    f"{ADMIN}distributedlock/",
    f"{ADMIN}lesson/",
    f"{ADMIN}projectionstate/",
    f"{ADMIN}projectionstate/events/",
    "/admin/usability/teacherdashboardalert/",
    "/admin/usability/usabilitymetric/",
    "/admin/usability/student/",
    "/admin/gaia_site/apikey/",
    "/api/docs",
]
PATIENCE_S = 15.0


@pytest.fixture(scope="module")
def cookies(chromium: Browser, demo: Demo) -> list[Any]:
    """An operator's sign-in through the admin's own form, shared by the tests here."""
    context = chromium.new_context(base_url=demo.url)
    page = context.new_page()
    page.goto("/admin/login/?next=/admin/")
    page.get_by_label("Username").fill(demo.logins["admin"]["username"])
    page.get_by_label("Password").fill(demo.logins["admin"]["password"])
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/admin/")
    found = context.cookies()
    context.close()
    return found


@pytest.fixture(params=["light", "dark"])
def page(request: Any, chromium: Browser, demo: Demo, cookies: list[Any]) -> Iterator[Page]:
    """Both schemes, on a tablet."""
    yield from opened(chromium, demo, cookies, scheme=request.param, width=820, height=1180)


@pytest.fixture
def desk(chromium: Browser, demo: Demo, cookies: list[Any]) -> Iterator[Page]:
    """An operator's screen."""
    yield from opened(chromium, demo, cookies, scheme="light", width=1366, height=900)


def opened(
    chromium: Browser, demo: Demo, cookies: list[Any], *, scheme: Any, width: int, height: int
) -> Iterator[Page]:
    context = chromium.new_context(
        base_url=demo.url,
        color_scheme=scheme,
        viewport={"width": width, "height": height},
        reduced_motion="reduce",
    )
    context.set_default_timeout(15_000)
    context.add_cookies(cookies)
    yield context.new_page()
    context.close()


def answer(demo: Demo, path: str) -> tuple[int, dict[str, Any]]:
    """Status and body of the public API, as an agent reads them."""
    got = urllib3.request(
        "GET",
        f"{demo.url}/api/v1/{path}",
        headers={"Authorization": f"Bearer {demo.keys['agent']}"},
        timeout=15.0,
        retries=False,
    )
    return got.status, got.json()


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.1)


def a_name() -> str:
    return uuid.uuid4().hex[:12]


def a_session(demo: Demo) -> str:
    name = f"browser-{a_name()}"
    demo.post("sessions", {"session_name": name, "tier": "worker", "provider": "claude"}, key="agent")
    return name


def a_task(demo: Demo) -> str:
    made = demo.post(
        "tasks",
        {
            "task_type": "survey",
            "idempotency_key": f"browser-{a_name()}",
            "required_capabilities": ["nobody"],
        },
        key="agent",
    )
    return made["id"]


def choose(page: Page, model: str, asked: str, action: str) -> None:
    """Searches the list, ticks the one row there and asks for the action."""
    wait_until(lambda: is_listed(page, model, asked))
    page.locator("input.action-select").check()
    page.get_by_label("Action:").select_option(action)
    page.get_by_role("button", name="Go", exact=True).click()


def is_listed(page: Page, model: str, asked: str) -> bool:
    page.goto(f"{ADMIN}{model}/?q={asked}")
    return page.locator("input.action-select").count() == 1


def give_reason(page: Page, verb: str) -> None:
    page.get_by_label("Reason, for the history").fill("Said so in the browser")
    page.get_by_role("button", name=verb).click()
    page.locator(".messagelist .success").wait_for()


def test_the_pages_of_an_operator(page: Page, demo: Demo) -> None:
    name, task = a_session(demo), a_task(demo)
    demo.post(f"locks/{name}/acquire", {"owner_id": name, "ttl_s": 60}, key="agent")
    wait_until(lambda: is_listed(page, "distributedtask", task))
    failures: list[str] = []
    page.on("console", lambda said: failures.append(said.text) if said.type == "error" else None)

    broken: dict[str, list[str]] = {}
    for address in [
        *PAGES,
        f"{ADMIN}distributedtask/{task}/change/",
        f"{ADMIN}distributedtask/{task}/explain/",
    ]:
        failures.clear()
        page.goto(address)
        if failures:  # while it loads: axe-core then tries things on the page that the policy may refuse
            broken[address] = list(failures)
        if found := broken_rules(page):
            broken.setdefault(address, []).extend(found)
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            broken.setdefault(address, []).append("wider than the screen")

    assert broken == {}


def test_the_sign_in_of_an_operator(chromium: Browser, demo: Demo) -> None:
    for page in opened(chromium, demo, [], scheme="light", width=820, height=1180):
        page.goto("/admin/login/")

        assert broken_rules(page) == []


def test_an_operator_pauses_and_resumes_a_session(desk: Page, demo: Demo) -> None:
    name = a_session(demo)

    choose(desk, "claudesession", name, "pause")
    desk.locator(".messagelist .success").wait_for()
    wait_until(lambda: answer(demo, f"sessions/{name}")[1]["status"] == "paused")

    choose(desk, "claudesession", name, "resume")
    desk.locator(".messagelist .success").wait_for()
    wait_until(lambda: answer(demo, f"sessions/{name}")[1]["status"] == "idle")


def test_an_operator_cancels_a_task_with_a_reason_and_requeues_it(desk: Page, demo: Demo) -> None:
    task = a_task(demo)

    choose(desk, "distributedtask", task, "cancel")
    assert broken_rules(desk) == []
    give_reason(desk, "Cancel tasks")
    wait_until(lambda: answer(demo, f"tasks/{task}")[1]["status"] == "cancelled")

    choose(desk, "distributedtask", task, "requeue")
    desk.locator(".messagelist .success").wait_for()
    wait_until(lambda: answer(demo, f"tasks/{task}")[1]["status"] == "pending")


def test_an_operator_takes_a_lock_from_its_holder_with_a_reason(desk: Page, demo: Demo) -> None:
    key = f"browser-{a_name()}"
    demo.post(f"locks/{key}/acquire", {"owner_id": "somebody", "ttl_s": 120}, key="agent")

    choose(desk, "distributedlock", key, "force_release")
    give_reason(desk, "Force release")

    wait_until(lambda: answer(demo, f"locks/{key}")[0] == 404)
