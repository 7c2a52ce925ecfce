"""A lesson as a teacher sees it: signals come without a reload, and what is tapped is seen by all."""

from __future__ import annotations

from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Demo, signed_in

SECONDS = 1000


def card_of(page: Page, name: str):
    return page.locator("[data-card]").filter(has_text=name).first


def name_of(page: Page, demo: Demo, student_id: str) -> str:
    """The short name on the seat of a pupil, as this teacher's page has it."""
    return page.locator(f'#map a[href$="/students/{student_id}/"] span').first.inner_text()


def opened(page: Page, demo: Demo) -> Page:
    page.goto(demo.live_path)
    expect(page.locator("#fresh")).to_have_attribute("data-state", "live", timeout=10 * SECONDS)
    return page


def test_a_help_request_comes_up_without_a_reload_and_within_two_seconds(teacher: Page, demo: Demo) -> None:
    page = opened(teacher, demo)
    pupil = demo.student_ids[0]
    name = name_of(page, demo, pupil)

    demo.asks_for_help(pupil)

    expect(card_of(page, name)).to_contain_text("Asked for help", timeout=4 * SECONDS)


def test_two_browsers_see_the_same_step(chromium: Browser, demo: Demo, teacher: Page) -> None:
    one = opened(teacher, demo)
    context = chromium.new_context(base_url=demo.url)
    two = opened(signed_in(context, demo, "teacher"), demo)
    pupil = demo.student_ids[1]
    name = name_of(one, demo, pupil)
    demo.asks_for_help(pupil)
    expect(card_of(two, name)).to_contain_text("Asked for help")

    card_of(one, name).get_by_role("button", name="On my way").click()

    expect(card_of(two, name)).to_contain_text("Helping")
    expect(one.locator("#toasts")).to_contain_text("You are on your way")
    context.close()


def test_undo_takes_a_step_back(teacher: Page, demo: Demo) -> None:
    page = opened(teacher, demo)
    pupil = demo.student_ids[2]
    name = name_of(page, demo, pupil)
    demo.asks_for_help(pupil)
    card_of(page, name).get_by_role("button", name="On my way").click()
    expect(card_of(page, name)).to_contain_text("Helping")

    page.locator("#toasts").get_by_role("button", name="Undo").click()

    expect(card_of(page, name)).to_contain_text("Asked for help")


def test_i_helped_closes_the_card_and_is_on_the_pupils_page(teacher: Page, demo: Demo) -> None:
    page = opened(teacher, demo)
    pupil = demo.student_ids[3]
    name = name_of(page, demo, pupil)
    demo.asks_for_help(pupil)
    card = card_of(page, name)

    card.get_by_text("I helped").click()
    card.get_by_role("button", name="Explained it").click()

    expect(page.locator("#signals")).not_to_contain_text(name)
    page.goto(f"{demo.live_path}students/{pupil}/")
    expect(page.get_by_role("heading", name="Help given")).to_be_visible()
    expect(page.locator("main")).to_contain_text("Explained")


def test_nothing_moves_under_a_finger(teacher: Page, demo: Demo) -> None:
    page = opened(teacher, demo)
    first, second = demo.student_ids[4], demo.student_ids[5]
    names = [name_of(page, demo, pupil) for pupil in (first, second)]
    demo.asks_for_help(first)
    card_of(page, names[0]).hover()

    demo.asks_for_help(second)

    expect(page.locator("#updates")).to_be_visible()
    expect(page.locator("#signals")).not_to_contain_text(names[1])
    page.mouse.move(5, 5)
    expect(page.locator("#signals")).to_contain_text(names[1])


def test_a_lost_connection_is_said_and_made_good(teacher: Page, demo: Demo) -> None:
    page = opened(teacher, demo)
    pupil = demo.student_ids[6]
    name = name_of(page, demo, pupil)

    page.context.set_offline(True)
    page.evaluate("socket.close()")
    expect(page.locator("#note-offline")).to_be_visible(timeout=20 * SECONDS)
    demo.asks_for_help(pupil)
    page.context.set_offline(False)

    expect(card_of(page, name)).to_contain_text("Asked for help", timeout=20 * SECONDS)
    expect(page.locator("#note-offline")).to_be_hidden()


def test_it_can_be_worked_by_keyboard_alone(teacher: Page, demo: Demo) -> None:
    page = opened(teacher, demo)
    pupil = demo.student_ids[7]
    name = name_of(page, demo, pupil)
    demo.asks_for_help(pupil)
    expect(card_of(page, name)).to_contain_text("Asked for help")

    card_of(page, name).focus()
    page.keyboard.press("w")

    expect(page.locator("#toasts")).to_contain_text("You are on your way")
    page.keyboard.press("u")
    expect(page.locator("#toasts")).to_contain_text("Undone")


def test_projector_mode_hides_every_name(teacher: Page, demo: Demo) -> None:
    page = opened(teacher, demo)
    name = name_of(page, demo, demo.student_ids[0])

    page.get_by_role("switch", name="Projector mode").click()

    expect(page.locator("#without-names")).to_be_visible()
    expect(page.locator("#without-names")).not_to_contain_text(name)
    expect(page.locator("#with-names")).to_be_hidden()


def test_another_teacher_sees_nothing_of_it(tablet, demo: Demo) -> None:
    page = signed_in(tablet, demo, "other_teacher")

    answer = page.goto(demo.live_path)

    assert answer is not None
    assert answer.status == 404
