"""Takes the pictures of the README from a running demonstration, as soon as enough signals are on the page.

Run: .venv/bin/python docs/screenshots.py   (beside `make run`; needs Chromium)
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
SIZE = {"width": 1366, "height": 900}
LEAST_SIGNALS = 4


def signed_in(browser: Browser, facts: dict, scheme: str) -> Page:
    context = browser.new_context(base_url=facts["url"], color_scheme=scheme, viewport=SIZE)
    page = context.new_page()
    page.goto("/sign-in/")
    page.get_by_label("User name").fill(facts["logins"]["teacher"]["username"])
    page.get_by_label("Password").fill(facts["logins"]["teacher"]["password"])
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/")
    page.goto(f"/classes/{facts['classroom_id']}/")
    return page


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=ROOT / ".gaia", help="the data folder of the running system"
    )
    parser.add_argument("--wait-s", type=float, default=900.0, help="how long to wait for signals")
    given = parser.parse_args()
    facts = json.loads((given.data / "demo.json").read_text())
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        pages = {scheme: signed_in(browser, facts, scheme) for scheme in ("light", "dark")}
        deadline = time.monotonic() + given.wait_s
        while pages["light"].locator("[data-card]").count() < LEAST_SIGNALS:
            if time.monotonic() > deadline:
                print(f"Fewer than {LEAST_SIGNALS} signals within {given.wait_s:.0f} s.", file=sys.stderr)
                return 1
            time.sleep(1)
        for scheme, page in pages.items():
            page.mouse.move(2, 2)
            page.wait_for_timeout(2500)
            page.screenshot(path=IMAGES / f"live-{scheme}.png")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
