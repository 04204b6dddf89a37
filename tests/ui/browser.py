"""A real Chromium against `manage.py serve`: what it sees, clicks and complains of."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

MISSING = "no Chromium: install the package chromium or set YARDMASTER_TEST_BROWSER"
WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")
# Kept for whoever wants to see what was tested.
PICTURES = os.environ.get("YARDMASTER_TEST_PICTURES", "")

# The first elements that stick out of the page, for the message.
_WIDE = """
() => [...document.querySelectorAll("body *")]
  .filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && e.offsetParent)
  .slice(0, 3).map((e) => `${e.tagName}.${e.className}`)
"""


def program() -> str:
    """The browser's path; without one the test is skipped, or fails where one is required."""
    found = os.environ.get("YARDMASTER_TEST_BROWSER") or shutil.which("chromium")
    if found and Path(found).exists():
        return found
    if os.environ.get("YARDMASTER_REQUIRE_BROWSER") == "1":
        pytest.fail(MISSING)
    pytest.skip(MISSING)


class Visit:
    """One person at one browser window, and everything that went wrong in it."""

    def __init__(self, context: Any, address: str) -> None:
        self.address = address
        self.host = urlsplit(address).netloc
        self.complaints: list[str] = []
        self.page = context.new_page()
        self.page.set_default_timeout(15_000)
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"script: {error}"))
        self.page.on("request", self._on_request)
        self.page.on("requestfailed", self._on_failure)
        self.page.on("response", self._on_response)

    def go(self, path: str) -> Visit:
        self.page.goto(self.address + path)
        return self

    def sign_in(self, name: str, password: str = "correct horse") -> Visit:
        self.go("/admin/login/?next=/admin/")
        self.page.fill("input[name=username]", name)
        self.page.fill("input[name=password]", password)
        self.page.click("button[type=submit]")
        self.page.wait_for_url(f"{self.address}/admin/")
        return self

    def sees(self, text: str) -> Visit:
        self.page.wait_for_selector(f"text={text}")
        return self

    def click(self, name: str, role: str = "button") -> Visit:
        self.page.get_by_role(role, name=name).first.click()
        return self

    def check(self, where: str) -> None:
        """Nothing went wrong here, and nothing sticks out."""
        assert self.complaints == [], where
        wide = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{where} scrolls sideways by {wide}: {self.page.evaluate(_WIDE)}"
        self.picture(where)

    def picture(self, where: str) -> None:
        """Keep what is seen, where somebody wants it kept."""
        if PICTURES:
            name = where.strip("/").replace("/", "-").replace("?", "-") or "fleet"
            Path(PICTURES).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=f"{PICTURES}/{name}.png", full_page=True)

    def _on_console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"console: {message.text}")

    def _on_request(self, request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and parts.netloc != self.host:
            self.complaints.append(f"another host: {request.url}")

    def _on_failure(self, request: Any) -> None:
        # What was under way when the page was left.
        if "ERR_ABORTED" not in str(request.failure):
            self.complaints.append(f"failed: {request.url}: {request.failure}")

    def _on_response(self, response: Any) -> None:
        if response.status >= 400:
            self.complaints.append(f"{response.status}: {response.url}")


@contextmanager
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    path = program()
    flags = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visit(
    browser: Any, address: str, *, width: int = 1280, scheme: str = "light"
) -> Iterator[Visit]:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    try:
        yield Visit(context, address)
    finally:
        context.close()
