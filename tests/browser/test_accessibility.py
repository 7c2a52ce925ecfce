"""Every page holds the rules of axe-core (WCAG 2.2 AA), light and dark, on a tablet either way up."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tests.browser.conftest import Demo, signed_in

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


def broken_rules(page: Page) -> list[str]:
    found = Axe().run(page, options=RULES).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found]


@pytest.fixture(params=["light", "dark"])
def page(request, chromium: Browser, demo: Demo):
    context = chromium.new_context(
        base_url=demo.url,
        color_scheme=request.param,
        viewport={"width": 768, "height": 1024},
        reduced_motion="reduce",
    )
    context.set_default_timeout(15_000)
    yield context.new_page()
    context.close()


def test_the_sign_in_page(page: Page) -> None:
    page.goto("/sign-in/")

    assert broken_rules(page) == []


def test_my_classes(page: Page, demo: Demo) -> None:
    page = signed_in(page.context, demo, "teacher")

    assert broken_rules(page) == []


def test_the_live_class_with_signals(page: Page, demo: Demo) -> None:
    demo.asks_for_help(demo.student_ids[8])
    page = signed_in(page.context, demo, "teacher")
    page.goto(demo.live_path)
    page.locator("[data-card]").first.wait_for()

    assert broken_rules(page) == []


def test_the_page_of_a_pupil(page: Page, demo: Demo) -> None:
    demo.answers(demo.student_ids[9], [1, 0, 0, 1])
    page = signed_in(page.context, demo, "teacher")
    page.goto(f"{demo.live_path}students/{demo.student_ids[9]}/")

    assert broken_rules(page) == []


def test_why_there_was_no_alert_at_a_minute(page: Page, demo: Demo) -> None:
    demo.answers(demo.student_ids[7], [0, 0, 1])
    page = signed_in(page.context, demo, "teacher")
    page.goto(f"{demo.live_path}students/{demo.student_ids[7]}/")
    page.get_by_role("button", name="Explain").click()

    page.get_by_text("Below the threshold").wait_for()
    assert page.url.endswith("#why")
    assert broken_rules(page) == []

    page.evaluate("document.getElementById('why-at').type = 'text'")
    page.get_by_label("Day and minute").fill("half past ten")
    page.get_by_role("button", name="Explain").click()

    page.get_by_text("A day and a time").wait_for()
    assert broken_rules(page) == []


def test_the_page_that_is_not_there(page: Page) -> None:
    page.goto("/no-such-page/")

    assert broken_rules(page) == []


def test_no_page_calls_another_host(page: Page, demo: Demo) -> None:
    asked: list[str] = []
    page.context.on("request", lambda request: asked.append(request.url))
    page = signed_in(page.context, demo, "teacher")
    page.goto(demo.live_path)
    page.wait_for_load_state("load")

    assert [url for url in asked if not url.startswith(demo.url)] == []
