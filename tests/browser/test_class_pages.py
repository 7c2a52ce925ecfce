"""Trends, settings, back-tests and profiles in a real browser: rules of accessibility, keyboard, live parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Demo, signed_in
from tests.browser.test_accessibility import broken_rules
from usability.portal.words import FAMILIES

WIDTHS = {"light": 820, "dark": 1280}


def opened(chromium: Browser, demo: Demo, scheme: Any) -> Any:
    context = chromium.new_context(
        base_url=demo.url,
        color_scheme=scheme,
        viewport={"width": WIDTHS[scheme], "height": 1180},
        reduced_motion="reduce",
    )
    context.set_default_timeout(30_000)
    return context


@pytest.fixture(params=["light", "dark"])
def as_teacher(request: Any, chromium: Browser, demo: Demo) -> Iterator[Page]:
    context = opened(chromium, demo, request.param)
    yield signed_in(context, demo, "teacher")
    context.close()


@pytest.fixture(params=["light", "dark"])
def as_admin(request: Any, chromium: Browser, demo: Demo) -> Iterator[Page]:
    context = opened(chromium, demo, request.param)
    page = context.new_page()
    page.goto("/admin/login/?next=/admin/")
    page.get_by_label("Username").fill(demo.logins["admin"]["username"])
    page.get_by_label("Password").fill(demo.logins["admin"]["password"])
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/admin/")
    yield page
    context.close()


def refusals(page: Page) -> list[str]:
    """What the browser refuses or complains of, from now on. To be looked at before axe, which styles inline."""
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text) if message.type == "error" else None)
    return heard


def fits(page: Page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


# ---------------------------------------------------------------- the teacher's pages


def test_trends_and_their_periods(as_teacher: Page, demo: Demo) -> None:
    heard = refusals(as_teacher)
    as_teacher.goto(f"{demo.live_path}trends/")
    as_teacher.get_by_role("link", name="2 weeks, by day").click()
    expect(as_teacher.locator("[aria-current=page]", has_text="2 weeks")).to_be_visible()
    for more in as_teacher.locator("details.more > summary").all():
        more.click()

    assert heard == []
    assert broken_rules(as_teacher) == []
    assert as_teacher.url.endswith("?period=days")
    assert fits(as_teacher)


def test_every_kind_of_signal_has_room_before_its_bar(as_teacher: Page, demo: Demo) -> None:
    as_teacher.goto(f"{demo.live_path}trends/")

    widths = as_teacher.evaluate(
        """names => {
            const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
            svg.setAttribute("class", "chart");
            svg.setAttribute("viewBox", "0 0 620 40");
            const text = svg.appendChild(document.createElementNS(svg.namespaceURI, "text"));
            document.querySelector("main").append(svg);
            return names.map(name => { text.textContent = name; return text.getBBox().width; });
        }""",
        [str(name) for name in FAMILIES.values()],
    )

    assert max(widths) < 246  # the bars begin at 250


def test_the_settings(as_teacher: Page, demo: Demo) -> None:
    heard = refusals(as_teacher)
    as_teacher.goto(f"{demo.live_path}settings/")
    for more in as_teacher.locator("details.more > summary").all():
        more.click()

    assert heard == []
    assert broken_rules(as_teacher) == []
    assert fits(as_teacher)


def test_errors_of_the_settings(as_teacher: Page, demo: Demo) -> None:
    as_teacher.goto(f"{demo.live_path}settings/")
    as_teacher.get_by_label("Alerts", exact=True).fill("99")
    as_teacher.get_by_role("button", name="Save changes").click()

    expect(as_teacher.get_by_text("A number from 0 to 20.").first).to_be_visible()
    assert broken_rules(as_teacher) == []


def test_a_budget_is_told_while_it_is_typed(teacher: Page, demo: Demo) -> None:
    teacher.goto(f"{demo.live_path}settings/")

    teacher.get_by_label("at most at once").fill("")

    expect(teacher.locator("#budget-hint")).to_contain_text("Three numbers are needed")


def test_a_pupil_is_seated_by_keyboard_alone_and_it_is_said(teacher: Page, demo: Demo) -> None:
    teacher.goto(f"{demo.live_path}settings/")
    seat = teacher.locator("[data-place=A1]")
    name = (seat.get_attribute("aria-label") or "").split(",")[0]
    row = len(teacher.locator("[data-place^=A]").all())

    seat.focus()
    teacher.keyboard.press("Enter")
    expect(teacher.locator("#seat-status")).to_have_text(f"{name} picked up. Choose a place.")
    for _ in range(row - 1):
        teacher.keyboard.press("ArrowDown")
    teacher.keyboard.press("Enter")

    expect(teacher.locator("#seat-status")).to_have_text(f"{name} sits at A{row}.")
    expect(teacher.locator("#seat-changes")).to_contain_text("1 changes not saved")
    teacher.get_by_role("button", name="Save seats").click()
    teacher.wait_for_url("**/?saved=seats")
    assert (teacher.locator(f"[data-place=A{row}]").get_attribute("aria-label") or "").startswith(name)


def test_escape_puts_a_pupil_back_and_delete_takes_one_off_the_map(teacher: Page, demo: Demo) -> None:
    teacher.goto(f"{demo.live_path}settings/")
    seat = teacher.locator("[data-place=B1]")
    name = (seat.get_attribute("aria-label") or "").split(",")[0]

    seat.focus()
    teacher.keyboard.press("Enter")
    teacher.keyboard.press("Escape")
    expect(teacher.locator("#seat-status")).to_have_text("Put back.")
    seat.focus()
    teacher.keyboard.press("Delete")

    expect(teacher.locator("#seat-status")).to_have_text(f"{name} is off the map.")
    expect(teacher.locator("#unseated button")).to_have_count(1)


# ---------------------------------------------------------------- the operator's pages


@pytest.mark.parametrize(
    "path",
    [
        "/admin/usability/backtest/",
        "/admin/usability/backtest/add/",
        "/admin/usability/detectorprofile/",
        "/admin/usability/detectorprofile/add/",
    ],
)
def test_a_page_of_the_admin(path: str, as_admin: Page) -> None:
    heard = refusals(as_admin)
    as_admin.goto(path)
    as_admin.wait_for_load_state("networkidle")

    assert heard == []
    assert broken_rules(as_admin) == []


def test_a_back_test_is_asked_for_runs_beside_a_worker_and_is_kept(as_admin: Page, demo: Demo) -> None:
    heard = refusals(as_admin)
    demo.answers(demo.student_ids[5], [0, 0, 0, 0, 0, 1])
    as_admin.goto("/admin/usability/backtest/add/")
    as_admin.get_by_label("Classes").select_option(demo.classroom_id)
    as_admin.get_by_label("Changes").fill("error_streak.enabled=false")

    as_admin.get_by_role("button", name="Run the back-test").click()
    as_admin.get_by_role("heading", name="Volume, and what teachers made of it").wait_for(timeout=120_000)

    assert heard == []
    assert broken_rules(as_admin) == []
    as_admin.locator("select[name=state]").select_option("draft")
    as_admin.get_by_role("button", name="Save version").click()
    as_admin.wait_for_url("**/detectorprofile/**")
    expect(as_admin.get_by_text("error_streak.enabled is false (default true)")).to_be_visible()
    assert broken_rules(as_admin) == []
