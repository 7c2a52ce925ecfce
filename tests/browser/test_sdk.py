"""gaia.js in a real Chromium, in pages of another origin with a strict policy, before the running system."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import urllib3
from playwright.sync_api import Browser, BrowserContext, Page, Request

from tests.browser.conftest import Demo
from tests.browser.pages import APP, AppSite, new_key, pupil, serve, until
from tests.running import ROOT, wait_for

FOLDER = ROOT / "static" / "usability"
STORED_S = 20


@pytest.fixture(scope="module")
def app(demo: Demo) -> Iterator[AppSite]:
    """The app's own origin, with a key that may only write, and only from there."""
    server = serve(demo.url)
    origin = f"http://127.0.0.1:{server.server_port}"
    key = new_key(demo, "--scope", "metrics:write", "--app", APP, "--origin", origin)
    database_url = json.loads((demo.data / "run.json").read_text())["database_url"]
    yield AppSite(demo, origin, key, database_url)
    server.shutdown()
    server.server_close()


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    made = chromium.new_context(viewport={"width": 1024, "height": 768})
    made.set_default_timeout(15_000)
    yield made
    made.close()


def eventually(app: AppSite, student: str, expected: dict[str, float], within_s: float = STORED_S) -> None:
    """Polls the database until these sums are there; then they are exactly these."""
    deadline = time.monotonic() + within_s
    while True:
        found = {name: app.stored(student).get(name, 0) for name in expected}
        if found == expected:
            return
        assert time.monotonic() < deadline, (found, expected)
        time.sleep(0.1)


def posts(page: Page) -> list[Request]:
    """The metrics requests a page makes from now on."""
    seen: list[Request] = []

    def note(request: Request) -> None:
        if request.method == "POST" and "/usability/metrics" in request.url:
            seen.append(request)

    page.on("request", note)
    return seen


def settled(page: Page) -> None:
    """Until nothing waits to be sent."""
    page.evaluate("GAIA.flush()")
    until(page, "GAIA.status().queued === 0")


# ---------------------------------------------------------------- the file


def test_the_file_is_small_and_is_made_of_its_source() -> None:
    built = (FOLDER / "gaia.js").read_bytes()
    source = (FOLDER / "gaia.src.js").read_bytes()

    assert len(gzip.compress(built, 9)) <= 5_000
    assert hashlib.sha256(source).hexdigest().encode() in built.splitlines()[0], "run: sh .ci/sdk"
    version = re.search(rb'VERSION = "([\d.]+)"', source)
    assert version is not None
    assert b'"%s"' % version[1] in built


def test_the_source_reads_no_text_no_value_and_no_address() -> None:
    source = (FOLDER / "gaia.src.js").read_text()

    for never in ("innerText", "innerHTML", ".value", "event.data", "event.code", "clipboardData", "location", "cookie",
                  "document.title", "userAgent", "eval(", "new Function", '"unload"', "beforeunload", ".message"):  # fmt: skip
        assert never not in source, never
    reads = re.findall(
        r'event\.key(?: &&|\.length === 1| === "(?:Unidentified|Process|Backspace|Delete)")', source
    )
    assert len(reads) == source.count("event.key")
    assert (
        source.count("textContent") == 1
    )  # the label of a clicked button, which is compared with a list of words


def test_the_source_itself_runs_as_well(app: AppSite, context: BrowserContext) -> None:
    student = pupil()
    page = app.open(context, student, document="source.html")

    page.locator("#answer").press_sequentially("three")
    settled(page)

    eventually(app, student, {"keypress": 5})


def test_a_module_exports_the_same(app: AppSite, context: BrowserContext) -> None:
    page = context.new_page()
    page.goto(f"{app.origin}/app.html")

    same = page.evaluate(
        f"import('{app.demo.url}/static/usability/gaia.mjs').then((m) => m.default === GAIA && m.attempt === GAIA.attempt)"
    )

    assert same is True


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"url": "gaia"}, "url"),
        ({"app": "a b"}, "app"),
        ({"student": ""}, "student"),
        ({"student": "s" * 51}, "student"),
        ({"token": ""}, "token or key"),
    ],
)
def test_a_wrong_option_is_named(app: AppSite, context: BrowserContext, options: Any, named: str) -> None:
    page = context.new_page()
    page.goto(f"{app.origin}/app.html")

    said = page.evaluate(
        "options => { try { GAIA.init(options); return ''; } catch (error) { return error.message; } }",
        app.options("ada", token="t") | options,
    )

    assert f"GAIA.init: {named}" in said


# ---------------------------------------------------------------- what is counted


def test_keys_are_counted_and_a_password_is_not(app: AppSite, context: BrowserContext) -> None:
    student = pupil()
    page = app.open(context, student)

    page.locator("#answer").press_sequentially("one half")
    for _ in range(3):
        page.keyboard.press("Backspace")
    page.keyboard.press("Shift")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Control+a")
    page.keyboard.press("Delete")
    page.locator("#password").press_sequentially("hunter2")
    page.locator("#private").press_sequentially("not watched")
    settled(page)

    eventually(app, student, {"keypress": 8, "backspace": 4})


def test_a_keyboard_on_the_screen_is_counted_by_what_it_changes(
    app: AppSite, context: BrowserContext
) -> None:
    student = pupil()
    page = app.open(context, student)

    page.evaluate(
        """() => {
          const field = document.getElementById("answer");
          const changes = ["insertText", "insertCompositionText", "deleteContentBackward"];
          for (const inputType of changes) {
            field.dispatchEvent(new KeyboardEvent("keydown", { key: "Unidentified", bubbles: true }));
            field.dispatchEvent(new InputEvent("input", { inputType, data: "x", bubbles: true }));
          }
        }"""
    )
    settled(page)

    eventually(app, student, {"keypress": 2, "backspace": 1})


def test_ten_thousand_keystrokes_are_few_requests(app: AppSite, context: BrowserContext) -> None:
    student = pupil()
    page = app.open(context, student)
    seen = posts(page)

    page.evaluate(
        """async () => {
          const field = document.getElementById("essay");
          for (let round = 0; round < 100; round += 1) {
            for (let n = 0; n < 100; n += 1) field.dispatchEvent(new KeyboardEvent("keydown", { key: "e", bubbles: true }));
            await new Promise((resolve) => setTimeout(resolve, 40));
          }
        }"""
    )
    settled(page)

    eventually(app, student, {"keypress": 10_000})
    assert len(seen) <= 8
    assert sum(len(request.post_data or "") for request in seen) < 16_000


def test_movement_is_distance_and_scrolling_a_count(app: AppSite, context: BrowserContext) -> None:
    student = pupil()
    page = app.open(context, student)

    page.mouse.move(100, 100)
    page.mouse.move(400, 500, steps=20)
    page.mouse.wheel(0, 300)
    until(page, "scrollY > 200")
    settled(page)

    wait_for(lambda: {"mouse_movement", "scrolling"} <= app.stored(student).keys(), "movement", STORED_S)
    found = app.stored(student)
    assert 400 <= found["mouse_movement"] <= 900
    assert 1 <= found["scrolling"] <= 20


def test_what_an_app_tells_arrives_with_its_details_and_nothing_else(
    app: AppSite, context: BrowserContext
) -> None:
    student = pupil()
    page = app.open(context, student, auto=False)

    page.evaluate(
        """() => {
          GAIA.item("item-9", "ratios");
          GAIA.attempt({ correct: false, attempt: 1, duration_ms: 4200, note: "I hate this", skill: "not an id!" });
          GAIA.attempt({ correct: true, item: "item-10", similar: true });
          GAIA.attempt({});
          GAIA.hint({ level: 2, is_bottom: false });
          GAIA.track("completion");
          GAIA.track("no type!", 1);
        }"""
    )
    settled(page)

    wait_for(lambda: len(app.stored(student)) >= 4, "the metrics", STORED_S)
    kept = {
        (kind, value, metadata.get("item")): {name: metadata[name] for name in metadata if name not in ("age_ms", "sdk", "item")}
        for kind, value, metadata in app.query(
            "SELECT metric_type, metric_value, metadata FROM usability_metrics WHERE student_id = %s"
            " AND metric_type <> 'focus'",
            student,
        )
    }  # fmt: skip
    assert kept == {
        ("answer", 0, "item-9"): {"attempt": 1, "duration_ms": 4200, "correct": False},
        ("answer", 1, "item-10"): {"correct": True, "similar": True, "skill": "ratios"},
        ("hint", 2, "item-9"): {"hint_level": 2, "is_bottom": False, "skill": "ratios"},
        ("completion", 1, "item-9"): {"skill": "ratios"},
    }


@pytest.mark.parametrize(
    "wish",
    [
        'Object.defineProperty(navigator, "globalPrivacyControl", { value: true })',
        'Object.defineProperty(navigator, "doNotTrack", { value: "1" })',
        'document.documentElement.setAttribute("data-gaia-off", "")',
    ],
)
def test_who_does_not_want_to_be_watched_is_not_but_may_ask_for_help(
    app: AppSite, context: BrowserContext, wish: str
) -> None:
    student = pupil()
    page = context.new_page()
    page.add_init_script(
        f"document.addEventListener('readystatechange', () => {{ {wish}; }}, {{ once: true }})"
    )
    app.open(context, student, page=page)

    page.locator("#answer").press_sequentially("abc")
    page.evaluate("GAIA.attempt({ correct: true })")
    page.evaluate("void GAIA.helpPlease()")
    settled(page)

    eventually(app, student, {"help_request": 1})
    assert app.stored(student).keys() <= {"help_request", "focus"}
    assert "keypress" not in app.stored(student)


# ---------------------------------------------------------------- clicks

Act = Callable[[Page], object]


def clicks(selector: str, times: int, delay_ms: int = 60) -> Act:
    def act(page: Page) -> None:
        x, y = middle(page, selector)
        for _ in range(times):
            page.mouse.click(x, y)
            page.wait_for_timeout(delay_ms)

    return act


def selecting(selector: str) -> Act:
    """One click of three, with which a browser selects a paragraph or all of a field."""
    return lambda page: page.mouse.click(*middle(page, selector), click_count=3)


def middle(page: Page, selector: str) -> tuple[float, float]:
    box = page.locator(selector).bounding_box()
    assert box is not None
    return box["x"] + min(box["width"], 60) / 2, box["y"] + box["height"] / 2


def apart(page: Page) -> None:
    for selector in ("#nothing", "#fails", "#scrolls"):
        page.mouse.click(*middle(page, selector))


def by_itself(page: Page) -> None:
    page.evaluate("setTimeout(() => { throw new Error('by itself') }, 0)")


def too_late(page: Page) -> None:
    page.locator("#works").click()
    page.evaluate("setTimeout(() => { throw new Error('later') }, 300)")
    page.wait_for_timeout(400)


RAGE: dict[str, tuple[Act, int]] = {
    "three on one button": (clicks("#nothing", 3), 1),
    "seven in one burst": (clicks("#nothing", 7), 1),
    "on a button that answers": (clicks("#works", 4), 1),
    "two": (clicks("#nothing", 2), 0),
    "slow ones": (clicks("#nothing", 3, 700), 0),
    "far from each other": (apart, 0),
    "next": (clicks("#next", 4), 0),
    "plus": (clicks("#plus", 4), 0),
    "a label that says previous": (clicks("#labelled", 4), 0),
    "a number field": (clicks("#number", 4), 0),
    "text being selected": (selecting("#text"), 0),
    "a field being selected": (selecting("#answer"), 0),
    "where repeating is expected": (clicks("#again", 5), 0),
    "where nothing is watched": (clicks("#unwatched", 5), 0),
}
DEAD: dict[str, tuple[Act, int]] = {
    "nothing happens": (clicks("#nothing", 1), 1),
    "the page changes": (clicks("#works", 1), 0),
    "the page changes late": (clicks("#late", 1), 0),
    "the page scrolls": (clicks("#scrolls", 1), 0),
    "text is selected": (clicks("#selects", 1), 0),
    "a field": (clicks("#answer", 1), 0),
    "a link": (clicks("#link", 1), 0),
    "where it is expected": (clicks("#again", 1), 0),
    "where nothing is watched": (clicks("#unwatched", 1), 0),
    "an error, which is its own kind": (clicks("#fails", 1), 0),
}
ERRORS: dict[str, tuple[Act, int]] = {
    "thrown": (clicks("#fails", 1), 1),
    "rejected": (clicks("#rejects", 1), 1),
    "none": (clicks("#works", 1), 0),
    "without a click": (by_itself, 0),
    "too late": (too_late, 0),
}


@pytest.mark.parametrize(
    ("kind", "cases", "rest_ms"),
    [("rage_click", RAGE, 0), ("dead_click", DEAD, 2_700), ("error_click", ERRORS, 0)],
    ids=["rage", "dead", "error"],
)
def test_clicks_are_judged_by_the_rules(
    app: AppSite, context: BrowserContext, kind: str, cases: dict[str, tuple[Act, int]], rest_ms: int
) -> None:
    students = {name: pupil() for name in cases}
    pages = {name: app.open(context, students[name]) for name in cases}
    for name, (act, _) in cases.items():
        pages[name].bring_to_front()
        act(pages[name])
    next(iter(pages.values())).wait_for_timeout(rest_ms)
    for page in pages.values():
        page.evaluate("GAIA.track('completion'); GAIA.flush()")
    for page in pages.values():
        settled(page)

    for name, (_, expected) in cases.items():
        eventually(app, students[name], {"completion": 1, kind: expected})
        page = pages[name]
        page.close()


def test_a_dead_click_says_where(app: AppSite, context: BrowserContext) -> None:
    student = pupil()
    page = app.open(context, student)
    page.locator("#nothing").click()

    eventually(app, student, {"dead_click": 1})
    assert app.query(
        "SELECT metadata->>'item', metadata->>'element' FROM usability_metrics"
        " WHERE student_id = %s AND metric_type = 'dead_click'",
        student,
    ) == [("item-8", "check")]


# ---------------------------------------------------------------- the network, the tab, the server, the clock


def test_the_network_cut_and_back_loses_nothing_and_doubles_nothing(
    app: AppSite, context: BrowserContext
) -> None:
    student = pupil()
    page = app.open(context, student)
    typed = 0
    for is_away in (False, True, False, True, False):
        context.set_offline(is_away)
        for _ in range(4):
            page.locator("#answer").press_sequentially("12345")
            page.evaluate("GAIA.attempt({ correct: false, item: 'item-8' })")
            page.wait_for_timeout(300)
            typed += 5
    settled(page)

    eventually(app, student, {"keypress": typed, "answer": 0})
    ((answers,),) = app.query(
        "SELECT count(*) FROM usability_metrics WHERE student_id = %s AND metric_type = 'answer'", student
    )
    assert answers == 20
    assert page.evaluate("GAIA.status().dropped") == 0


def test_an_answer_that_never_came_back_is_sent_again_and_stored_once(
    app: AppSite, context: BrowserContext
) -> None:
    student = pupil()
    page = app.open(context, student)
    lost: list[str] = []

    def swallow(route: Any) -> None:
        if route.request.method == "POST" and len(lost) < 2:
            route.fetch()  # it reaches the server, and the answer reaches nobody
            lost.append(route.request.post_data or "")
            route.abort()
        else:
            route.continue_()

    page.route("**/usability/metrics*", swallow)
    page.locator("#answer").press_sequentially("seven..")
    settled(page)

    eventually(app, student, {"keypress": 7})
    assert len(lost) == 2
    first, second = (re.search(r'"batch_id":"(\w+)"', body) for body in lost)
    assert first is not None
    assert second is not None
    assert first[1] == second[1]


def test_a_hidden_tab_hands_over_at_once(app: AppSite, context: BrowserContext) -> None:
    student = pupil()
    page = app.open(context, student)
    settled(page)
    seen = posts(page)

    page.locator("#answer").press_sequentially("abcd")
    page.evaluate(
        """() => {
          Object.defineProperty(document, "visibilityState", { value: "hidden", configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )

    eventually(app, student, {"keypress": 4, "blur": 1}, within_s=1.5)
    assert any("?key=" in request.url for request in seen)
    page.evaluate(
        """() => {
          Object.defineProperty(document, "visibilityState", { value: "visible", configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )
    settled(page)
    eventually(app, student, {"keypress": 4, "blur": 1})


def test_a_page_that_is_left_hands_over_and_the_next_one_doubles_nothing(
    app: AppSite, context: BrowserContext
) -> None:
    student = pupil()
    page = app.open(context, student)
    page.locator("#answer").press_sequentially("abcdef")

    page.goto("about:blank")

    eventually(app, student, {"keypress": 6})
    again = app.open(context, student)
    settled(again)
    eventually(app, student, {"keypress": 6})


def test_a_page_closed_without_a_network_is_sent_by_the_next_one(
    app: AppSite, context: BrowserContext
) -> None:
    student, other = pupil(), pupil()
    page = app.open(context, student)
    settled(page)
    # Taken away in the page: Chromium gives a closing page its network back before it has gone.
    page.evaluate(
        "() => { navigator.sendBeacon = () => true; window.fetch = async () => { throw new TypeError('away'); }; }"
    )
    page.locator("#answer").press_sequentially("abcdef")
    page.evaluate("GAIA.attempt({ correct: true }); GAIA.flush()")
    page.close()

    somebody = app.open(context, other)
    settled(somebody)
    assert "keypress" not in app.stored(student)
    assert "keypress" not in app.stored(other)
    settled(app.open(context, student))

    eventually(app, student, {"keypress": 6, "answer": 1})


def test_damaged_and_outlived_batches_go_and_block_nothing(app: AppSite, context: BrowserContext) -> None:
    student = pupil()
    page = context.new_page()
    page.goto(f"{app.origin}/app.html")
    page.evaluate(
        """(prefix) => {
          const at = performance.timeOrigin;
          const left = ["{", "null", "7", `{"id": "b", "at": ${at}}`, `{"id": "c", "at": ${at - 4e6}, "rows": []}`];
          left.forEach((text, number) => localStorage.setItem(`${prefix}${number}`, text));
        }""",
        f"gaia|{APP}|{student}|",
    )

    app.open(context, student, page=page)
    page.evaluate("GAIA.attempt({ correct: true })")
    settled(page)

    eventually(app, student, {"answer": 1})
    assert page.evaluate("Object.keys(localStorage).filter((key) => key.startsWith('gaia|'))") == []


def test_what_waits_is_bounded_and_what_was_dropped_is_counted(app: AppSite, context: BrowserContext) -> None:
    student = pupil()
    page = app.open(context, student, auto=False)
    page.route("**/usability/**", lambda route: route.abort())

    kept, dropped = page.evaluate(
        """() => {
          const item = "i".repeat(100), skill = "s".repeat(100);
          for (let n = 0; n < 5000; n += 1) GAIA.attempt({ correct: true, item, skill, attempt: n });
          GAIA.flush();
          const kept = Object.keys(localStorage).reduce((sum, key) => sum + localStorage[key].length, 0);
          return [kept, GAIA.status().dropped];
        }"""
    )

    assert 400_000 < kept <= 500_000
    assert 1_000 < dropped < 5_000


def test_a_server_that_is_killed_is_waited_for(app: AppSite, demo: Demo, context: BrowserContext) -> None:
    student = pupil()
    page = app.open(context, student)
    settled(page)
    (pid,) = (
        one["pid"]
        for one in json.loads((demo.data / "run.json").read_text())["processes"]
        if one["role"] == "web"
    )

    os.kill(pid, signal.SIGKILL)
    for _ in range(5):
        page.locator("#answer").press_sequentially("12345")
        page.wait_for_timeout(200)
    page.evaluate("GAIA.attempt({ correct: true })")
    page.evaluate("GAIA.flush()")

    eventually(app, student, {"keypress": 25, "answer": 1}, within_s=60)
    settled(page)
    eventually(app, student, {"keypress": 25, "answer": 1})


@pytest.mark.parametrize("hours", [-5, 3])
def test_a_clock_that_is_wrong_by_hours_does_not_matter(
    app: AppSite, context: BrowserContext, hours: int
) -> None:
    student = pupil()
    page = context.new_page()
    page.add_init_script(
        f"""{{
          const real = Date.now, off = {hours} * 3600000, origin = performance.timeOrigin;
          Date.now = () => real() + off;
          Object.defineProperty(performance, "timeOrigin", {{ get: () => origin + off }});
        }}"""
    )
    app.open(context, student, page=page)
    page.route("**/usability/metrics*", lambda route: route.abort())
    page.evaluate("GAIA.attempt({ correct: true })")
    page.wait_for_timeout(3_000)
    page.unroute("**/usability/metrics*")
    settled(page)

    eventually(app, student, {"answer": 1})
    (age_s,) = app.times(student, "answer")
    assert 2.5 < age_s < 30


def test_retry_after_is_obeyed_and_a_refusal_is_not_repeated(app: AppSite, context: BrowserContext) -> None:
    student = pupil()
    page = app.open(context, student, auto=False)
    settled(page)
    heard: list[float] = []
    answers = [503, 429, 400]

    def answer(route: Any) -> None:
        if route.request.method != "POST":
            return route.continue_()
        heard.append(time.monotonic())
        headers = {
            "Retry-After": "2",
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Expose-Headers": "Retry-After",
        }
        return route.fulfill(status=answers[len(heard) - 1], headers=headers, json={})

    page.route("**/usability/metrics*", answer)
    page.evaluate("GAIA.attempt({ correct: true }); GAIA.flush()")
    until(page, "GAIA.status().rejected === 1", within_s=30)
    page.wait_for_timeout(1_500)

    assert len(heard) == 3
    assert all(later - earlier >= 1.9 for earlier, later in itertools.pairwise(heard))
    assert page.evaluate("GAIA.status()")["queued"] == 0


def test_a_token_that_is_over_is_asked_for_anew(app: AppSite, context: BrowserContext) -> None:
    student = pupil()
    tokens = [app.token(student, ttl_s=1), app.token(student)]
    time.sleep(1.2)
    page = app.open(context, student, tokens=tokens)

    page.evaluate("GAIA.attempt({ correct: true })")
    settled(page)

    eventually(app, student, {"answer": 1})
    assert page.evaluate("GAIA.status().rejected") == 0


def test_stop_ends_the_listening_and_hands_over(app: AppSite, context: BrowserContext) -> None:
    student = pupil()
    page = app.open(context, student)
    page.locator("#answer").press_sequentially("abc")

    page.evaluate("GAIA.stop()")
    page.locator("#answer").press_sequentially("defgh")
    page.evaluate("GAIA.attempt({ correct: true })")

    eventually(app, student, {"keypress": 3, "answer": 0})


# ---------------------------------------------------------------- help and ratings


def test_the_pupil_learns_that_the_teacher_saw_the_request(
    app: AppSite, demo: Demo, context: BrowserContext, teacher: Page
) -> None:
    student = demo.student_ids[7]
    page = app.open(context, student)
    page.evaluate(
        """() => {
          window.told = [];
          GAIA.helpPlease((state) => told.push(state)).then((state) => { window.first = state; });
        }"""
    )
    until(page, "told.includes('sent')")
    teacher.goto(demo.live_path)
    name = teacher.locator(f'#map a[href$="/students/{student}/"] span').first.inner_text()
    card = teacher.locator("[data-card]").filter(has_text=name).first
    assert page.evaluate("window.first") is None

    teachers = {"Authorization": f"Bearer {demo.keys['teacher']}"}
    alerts = f"{demo.url}/api/v1/usability/alerts"
    (alert,) = urllib3.request("GET", f"{alerts}?student_id={student}&limit=1", headers=teachers).json()[
        "results"
    ]
    assert urllib3.request("POST", f"{alerts}/{alert['id']}/acknowledge", headers=teachers).status == 200
    until(page, "window.first === 'seen'", within_s=20)

    card.get_by_role("button", name="On my way").click()

    until(page, "told.at(-1) === 'coming'", within_s=20)
    card.get_by_text("I helped").click()
    card.get_by_role("button", name="Explained it").click()
    until(page, "told.at(-1) === 'done'", within_s=30)
    assert page.evaluate("told") == ["sent", "seen", "coming", "done"]


def test_help_nobody_can_answer_is_told_so(app: AppSite, context: BrowserContext) -> None:
    student = pupil()
    page = app.open(context, student)
    page.route("**/usability/help-requests/**", lambda route: route.fulfill(
        status=404, headers={"Access-Control-Allow-Origin": "*"}, json={}))  # fmt: skip

    assert page.evaluate("GAIA.helpPlease()") is None


def test_a_rating_is_stored_and_a_second_one_replaces_it(app: AppSite, context: BrowserContext) -> None:
    student = pupil()
    page = app.open(context, student)

    page.evaluate("GAIA.rate(6); GAIA.rate(2)")
    settled(page)
    page.evaluate("GAIA.rate(5)")
    settled(page)

    assert app.query("SELECT rating FROM satisfaction_ratings WHERE student_id = %s", student) == [(5,)]


# ---------------------------------------------------------------- origins


def test_a_page_of_an_origin_that_the_key_does_not_list_stores_nothing(
    app: AppSite, demo: Demo, context: BrowserContext
) -> None:
    student = pupil()
    elsewhere = serve(demo.url)
    foreign = AppSite(demo, f"http://127.0.0.1:{elsewhere.server_port}", app.key, app.database_url)
    page = foreign.open(context, student, key=app.key)

    page.evaluate("GAIA.attempt({ correct: true }); GAIA.flush()")
    page.wait_for_timeout(1_000)
    page.goto("about:blank")  # a beacon asks nobody before it goes
    here = app.open(context, student, key=app.key)
    here.evaluate("GAIA.attempt({ correct: true })")
    settled(here)

    eventually(app, student, {"answer": 1})
    elsewhere.shutdown()
    elsewhere.server_close()


def test_the_policy_of_the_page_was_never_broken(app: AppSite, context: BrowserContext) -> None:
    student = pupil()
    page = context.new_page()
    page.add_init_script(
        "window.broken = []; addEventListener('securitypolicyviolation', (event) => broken.push(event.violatedDirective))"
    )
    app.open(context, student, page=page)
    page.locator("#nothing").click()
    page.evaluate("void GAIA.helpPlease(); GAIA.rate(4)")
    settled(page)

    assert page.evaluate("broken") == []


# ---------------------------------------------------------------- the sample of the documentation


def test_the_sample_page_works_as_it_stands(app: AppSite, context: BrowserContext) -> None:
    student = pupil()
    page = context.new_page()
    page.add_init_script("addEventListener('securitypolicyviolation', () => { window.isBroken = true; })")
    told = f"url={app.demo.url}&student={student}&token={app.token(student)}"
    page.goto(f"{app.origin}/docs/sdk-sample.html#{told}")
    until(page, "typeof GAIA === 'object' && GAIA.status().queued !== undefined")

    page.locator("#answer").fill("three eighths")
    page.get_by_role("button", name="Check").click()
    page.locator("#answer").press_sequentially(" or half")
    page.get_by_role("button", name="Check").click()
    page.get_by_role("button", name="Hint").click()
    page.get_by_role("button", name="5", exact=True).click()
    page.get_by_role("button", name="Please help me").click()

    until(page, "document.getElementById('said').textContent === 'Your teacher has been told.'")
    settled(page)
    eventually(app, student, {"answer": 1, "hint": 1, "help_request": 1, "keypress": 8})
    assert page.evaluate("[GAIA.status().rejected, window.isBroken]") == [0, None]
