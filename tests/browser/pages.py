"""Pages of an education app, served from an origin of their own, and what the database holds afterwards."""

from __future__ import annotations

import functools
import http.server
import json
import os
import subprocess
import sys
import threading
import time
import urllib.parse
import uuid
from dataclasses import dataclass
from typing import Any

import psycopg
import urllib3
from playwright.sync_api import BrowserContext, Page

from tests.browser.conftest import Demo
from tests.running import GIVEN_BY_THE_TESTS, ROOT

APP = "fractions-lab"

# What a careful app allows its pages: its own scripts and GAIA's, and calls to GAIA. Nothing inline.
POLICY = "default-src 'none'; script-src 'self' {gaia}; connect-src 'self' {gaia}; img-src 'self'; style-src 'self'"

PAGE = (
    """<!doctype html><html lang="en"><meta charset="utf-8"><title>An exercise</title>
<script src="{gaia}/static/usability/{script}" crossorigin="anonymous"></script>
<script src="/app.js" defer></script>
<main data-gaia-item="item-8">
  <p id="text">Which fraction is larger, and why do you think so? Read it slowly.</p>
  <input id="answer" autocomplete="off"><input id="password" type="password">
  <textarea id="essay"></textarea>
  <p><button id="nothing" data-gaia-element="check">Check</button>
  <button id="works">Draw</button> <button id="fails">Break</button>
  <button id="rejects">Reject</button> <button id="selects">Select</button>
  <button id="scrolls">Scroll</button> <button id="next">Next</button> <button id="plus">+</button>
  <button id="labelled" aria-label="Previous page">p</button> <input id="number" type="number">
  <button id="again" data-gaia-expect-repeat>Play C</button> <a id="link" href="#there">There</a></p>
  <p data-gaia-off><button id="unwatched">Private</button><input id="private"></p>
  <button id="late">Think</button> <ul id="list"></ul>
</main>"""
    + "<p>.</p>" * 100
    + "</html>"
)

SCRIPT = """
const on = (id, heard) => document.getElementById(id).addEventListener("click", heard);
on("works", () => document.getElementById("list").append(document.createElement("li")));
on("late", () => setTimeout(() => document.getElementById("list").append(document.createElement("li")), 1500));
on("fails", () => { throw new Error("it broke"); });
on("rejects", () => { Promise.reject(new Error("it broke")); });
on("selects", () => getSelection().selectAllChildren(document.getElementById("text")));
on("scrolls", () => scrollTo(0, 400));
for (const id of ["next", "plus", "labelled"]) on(id, () => {});
const options = JSON.parse(decodeURIComponent(location.hash.slice(1)) || "null");
if (options) {
  if (options.tokens) options.token = async () => options.tokens.shift();
  GAIA.init(options);
}
"""


class Pages(http.server.BaseHTTPRequestHandler):
    """The documents above and the sample of the documentation, nothing else."""

    gaia = ""

    def do_GET(self) -> None:
        name = self.path.partition("?")[0]
        if name == "/app.js":
            self.answer("text/javascript", SCRIPT)
        elif name.startswith("/docs/sdk-sample."):
            kinds = {".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css"}
            path = ROOT / "docs" / name.removeprefix("/docs/")
            self.answer(kinds[path.suffix], path.read_text())
        elif name.endswith(".html"):
            script = "gaia.src.js" if name == "/source.html" else "gaia.js"
            self.answer(
                "text/html; charset=utf-8", PAGE.replace("{gaia}", self.gaia).replace("{script}", script)
            )
        else:
            self.send_error(404)

    def answer(self, kind: str, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Security-Policy", POLICY.replace("{gaia}", self.gaia))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name in the standard library
        """Says nothing."""


@dataclass(frozen=True)
class AppSite:
    """The app's own server: an origin, and a key for its pages."""

    demo: Demo
    origin: str
    key: str
    database_url: str

    def token(self, student_id: str, **more: Any) -> str:
        """A session token, as the app's server asks for it."""
        answer = urllib3.request(
            "POST",
            f"{self.demo.url}/api/v1/usability/sessions",
            json={"student_id": student_id, "app_name": APP, **more},
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=15.0,
            retries=False,
        )
        assert answer.status == 201, answer.data
        return answer.json()["token"]

    def options(self, student_id: str, **more: Any) -> dict[str, Any]:
        return {"url": self.demo.url, "app": APP, "student": student_id} | more

    def open(self, context: BrowserContext, student_id: str, page: Page | None = None, **more: Any) -> Page:
        """A page of the app with the SDK running for that pupil."""
        if not {"token", "key", "tokens"} & more.keys():
            more["token"] = self.token(student_id)
        page = page or context.new_page()
        name = more.pop("document", "app.html")
        # The query makes it another document, so that the page loads anew.
        told = urllib.parse.quote(json.dumps(self.options(student_id, **more)))
        page.goto(f"{self.origin}/{name}?{uuid.uuid4().hex}#{told}")
        return page

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(sql, values).fetchall()

    def stored(self, student_id: str) -> dict[str, float]:
        """The sums of the pupil's metrics by their type."""
        return dict(
            self.query(
                "SELECT metric_type, sum(metric_value) FROM usability_metrics WHERE student_id = %s GROUP BY 1",
                student_id,
            )
        )

    def times(self, student_id: str, metric_type: str) -> list[float]:
        """How many seconds before now each of these metrics happened."""
        return [
            float(age_s)
            for (age_s,) in self.query(
                "SELECT extract(epoch FROM now() - timestamp) FROM usability_metrics"
                " WHERE student_id = %s AND metric_type = %s ORDER BY timestamp",
                student_id,
                metric_type,
            )
        ]


def pupil() -> str:
    """A pupil whom no other test knows."""
    return f"sdk-{uuid.uuid4().hex[:12]}"


def until(page: Page, expression: str, within_s: float = 15) -> None:
    """Polls the page from outside: Playwright's own waiting evaluates text, which the page's policy forbids."""
    deadline = time.monotonic() + within_s
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(50)


def serve(gaia: str) -> http.server.ThreadingHTTPServer:
    handler = type("PagesOfOneSite", (Pages,), {"gaia": gaia})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def new_key(demo: Demo, *arguments: str) -> str:
    """A key made by the command, beside the running system."""
    environment = {name: value for name, value in os.environ.items() if name not in GIVEN_BY_THE_TESTS}
    command = [sys.executable, "manage.py", "create_api_key", "--name", "pages", *arguments]
    made = subprocess.run(
        command,
        cwd=ROOT,
        env=environment | {"GAIA_DATA_DIR": str(demo.data)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return made.stdout.strip()
