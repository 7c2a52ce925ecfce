"""What a pupil types, pastes, drops or is called is not in a request of gaia.js, a stored byte, a stream or a log."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest
import redis
import urllib3
from playwright.sync_api import Browser, Page, Request

from tests.browser.conftest import Demo
from tests.browser.pages import APP, AppSite, new_key, pupil, serve, until
from tests.running import wait_for

SECRETS = {
    "typed": "qzxtypedword",
    "pasted": "qzxpastedword",
    "password": "qzxpassword",
    "essay": "qzxinanessay",
    "dropped": "qzxdropped",
    "editable": "qzxeditable",
    "title": "qzxpagetitle",
    "query": "qzxinthequery",
    "error": "qzxinanerror",
    "label": "qzxonabutton",
    "note": "qzxinanote",
    "skill": "qzx as a skill",
    "cookie": "qzxinacookie",
    "storage": "qzxinstorage",
}


@pytest.fixture(scope="module")
def app(demo: Demo) -> Iterator[AppSite]:
    server = serve(demo.url)
    origin = f"http://127.0.0.1:{server.server_port}"
    key = new_key(demo, "--scope", "metrics:write", "--app", APP, "--origin", origin)
    running = json.loads((demo.data / "run.json").read_text())
    yield AppSite(demo, origin, key, running["database_url"])
    server.shutdown()
    server.server_close()


def everything_kept(demo: Demo) -> str:
    """All rows, all stream entries, all lines of the log, all labels of metrics."""
    running = json.loads((demo.data / "run.json").read_text())
    parts: list[str] = []
    with psycopg.connect(running["database_url"]) as connection:
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
        ).fetchall()
        for (table,) in tables:
            parts += [row[0] for row in connection.execute(f'SELECT t::text FROM "{table}" t').fetchall()]
    broker = redis.Redis.from_url(running["redis_url"])
    for key in broker.keys("gaia:*"):
        if broker.type(key) == b"stream":
            parts += [value.decode("latin-1") for _, entry in broker.xrange(key) for value in entry.values()]
    assert demo.logged
    parts += demo.logged
    parts.append(urllib3.request("GET", f"{demo.url}/metrics", timeout=15.0, retries=False).data.decode())
    return "\n".join(parts)


def use_the_page(page: Page) -> None:
    """A pupil writes, pastes, drops, clicks and makes mistakes; a careless app hands text to the SDK."""
    page.locator("#answer").press_sequentially(SECRETS["typed"])
    page.locator("#essay").press_sequentially(SECRETS["essay"])
    page.locator("#password").press_sequentially(SECRETS["password"])
    page.evaluate(
        """async (secrets) => {
          const essay = document.getElementById("essay");
          const carried = new DataTransfer();
          carried.setData("text/plain", secrets.pasted);
          essay.dispatchEvent(new ClipboardEvent("paste", { clipboardData: carried, bubbles: true }));
          essay.dispatchEvent(new InputEvent("input", { data: secrets.pasted, inputType: "insertFromPaste", bubbles: true }));
          essay.value += secrets.pasted;
          const dropped = new DataTransfer();
          dropped.setData("text/plain", secrets.dropped);
          essay.dispatchEvent(new DragEvent("drop", { dataTransfer: dropped, bubbles: true }));
          const editable = document.createElement("div");
          editable.contentEditable = "true";
          editable.id = "editable";
          document.body.prepend(editable);
          document.title = secrets.title;
          document.cookie = `note=${secrets.cookie}`;
          localStorage.setItem("note", secrets.storage);
          document.getElementById("nothing").textContent = secrets.label;
          document.getElementById("fails").addEventListener("click", () => { throw new Error(secrets.error); });
          GAIA.attempt({ correct: false, note: secrets.note, answer: secrets.note, skill: secrets.skill, item: "item-8" });
          GAIA.hint({ level: 1, text: secrets.note });
          GAIA.track(secrets.skill, 1);
          GAIA.track("completion", secrets.note);
          GAIA.item(secrets.skill, secrets.skill);
          void GAIA.helpPlease(() => {}, { note: secrets.note });
          GAIA.rate(secrets.note);
        }""",
        SECRETS,
    )
    page.locator("#editable").press_sequentially(SECRETS["editable"])
    page.mouse.click(5, 5)
    box = page.locator("#nothing").bounding_box()
    assert box is not None
    for _ in range(3):
        page.mouse.click(box["x"] + 8, box["y"] + 8)
    page.wait_for_timeout(300)  # a focus that moves at once counts as an answer to the click
    page.locator("#fails").click()
    page.wait_for_timeout(2_700)


def test_what_a_pupil_writes_leaves_the_page_in_no_request_and_is_kept_nowhere(
    app: AppSite, demo: Demo, chromium: Browser
) -> None:
    student = pupil()
    context = chromium.new_context(user_agent=f"Mozilla/5.0 {SECRETS['query']}")
    context.set_default_timeout(15_000)
    page = context.new_page()
    requests: list[Request] = []
    page.on("request", lambda request: requests.append(request) if request.url.startswith(demo.url) else None)
    app.open(context, student, page=page)
    page.evaluate(
        "query => history.replaceState(null, '', '?answer=' + query + location.hash)", SECRETS["query"]
    )

    use_the_page(page)
    page.evaluate("GAIA.flush()")
    until(page, "GAIA.status().queued === 0")
    queued = page.evaluate("Object.entries(localStorage).filter(([key]) => key.startsWith('gaia|')).join()")
    page.goto("about:blank")
    context.close()

    sent = [request for request in requests if "/usability/" in request.url]
    told = "\n".join(f"{one.url} {one.post_data or ''} {one.headers.get('referer', '')}" for one in sent)
    assert len(sent) > 3
    assert [name for name, secret in SECRETS.items() if secret in told or secret in queued] == []
    expected = {"keypress", "rage_click", "dead_click", "error_click"}
    wait_for(lambda: not expected - app.stored(student).keys(), f"{expected}", 20, [str(app.stored(student))])
    typed = sum(len(SECRETS[name]) for name in ("typed", "essay", "editable"))
    assert app.stored(student)["keypress"] == typed
    kept = everything_kept(demo)
    assert student in kept
    assert [name for name, secret in SECRETS.items() if secret in kept] == []
