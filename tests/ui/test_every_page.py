"""Every page in a real browser, with rows in it: light and dark, wide and narrow.

Nothing fails to load, nothing is asked of another host, nothing sticks out sideways, and axe finds no
violation of WCAG 2.2, levels A and AA. One server, one login and one visit to each page: the width and
the theme are changed while it is open.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.db import connections
from django.test import Client

from tests.processes import ROOT, free_port, started, worker_environment
from tests.ui import every_page
from tests.ui.browser import SCHEMES, WIDTHS, Visit, chromium, program, visit
from tests.ui.test_browser import _answers, until

VENDOR = Path(__file__).parent / "vendor"
AXE = VENDOR / "axe-core" / "axe.min.js"
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
# What a change of colours alone can break.
OF_COLOURS = ["color-contrast", "link-in-text-block"]

_RUN = """
async (only) => {
  const found = await axe.run(document, {
    // Nothing is fetched anew for rules about sound, of which there is none.
    runOnly: only, resultTypes: ["violations"], elementRef: false, preload: false,
  });
  return found.violations.map((one) => one.nodes.slice(0, 3).map((node) =>
    `${one.id}: ${node.target.join(" ")}: ${(node.any[0] || node.all[0] || node.none[0] || {}).message}`
  )).flat();
}
"""
# Nothing is asked for any more but by the clock.
_IS_CALM = "!document.querySelector('.htmx-request')"
_WIDE = "document.documentElement.scrollWidth - innerWidth"
_STICKS_OUT = """
() => [...document.querySelectorAll("body *")]
  .filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && e.offsetParent)
  .slice(0, 3).map((e) => `${e.tagName}.${e.className}`).join(", ")
"""
_IS_DARK = "document.documentElement.classList.contains('dark')"


def _made() -> list[str]:
    """Rows, somebody to look at them, and the pages; where no event loop runs."""
    try:
        password = PBKDF2PasswordHasher().encode("correct horse", "salt-of-the-tests", 10)
        user = get_user_model()._default_manager.create(
            username="root", password=password, is_staff=True, is_superuser=True
        )
        every_page.fill()
        client = Client()
        client.force_login(user)
        return [page.path for page in every_page.shown(client, every_page.found())]
    finally:
        connections.close_all()


@pytest.fixture
def window(transactional_db: None) -> Iterator[tuple[Visit, list[str]]]:
    program()
    port = free_port()
    with ExitStack() as stack:
        with ThreadPoolExecutor(1) as pool:
            pages = pool.submit(_made).result()
        bind = ("--bind", f"127.0.0.1:{port}", "--workers", "1")
        stack.enter_context(started("serve", *bind, env=worker_environment()))
        until(lambda: _answers(port), seconds=120)
        browser = stack.enter_context(chromium())
        visitor = stack.enter_context(visit(browser, f"http://127.0.0.1:{port}"))
        visitor.page.set_default_timeout(60_000)
        visitor.sign_in("root")
        visitor.page.add_init_script(path=AXE)
        yield visitor, pages


@pytest.mark.once
@pytest.mark.django_db(transaction=True)
def test_no_page_has_a_fault_in_any_theme_or_width(window: Any) -> None:
    visitor, pages = window
    # Far more than a few: the walk finds them.
    assert len(pages) > 40
    faults: list[str] = []
    for path in pages:
        visitor.page.emulate_media(color_scheme="light")
        visitor.page.set_viewport_size({"width": WIDTHS[0], "height": 900})
        visitor.go(path)
        visitor.page.wait_for_function(_IS_CALM)
        faults += [f"{path}: {one}" for one in _look(visitor, path)]
        faults += [f"{path}: {one}" for one in visitor.complaints]
        visitor.complaints.clear()
    faults += _dark_from_the_start(visitor)
    assert not faults, "\n".join(faults)


def _look(visitor: Visit, path: str) -> list[str]:
    """All that is wrong with the page as it is open."""
    page, faults = visitor.page, []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            if page.evaluate(_IS_DARK) != (scheme == "dark"):
                page.evaluate(f"document.documentElement.classList.toggle('dark', {_js(scheme)})")
            only: dict[str, Any] = {"type": "tag", "values": TAGS}
            if scheme == "dark":
                only = {"type": "rule", "values": OF_COLOURS}
            faults += [f"{scheme}, {width}: {one}" for one in page.evaluate(_RUN, only)]
            visitor.picture(f"{scheme}/{width}{path}")
        if page.evaluate(_WIDE) > 0:
            faults.append(f"{width}: scrolls sideways: {page.evaluate(_STICKS_OUT)}")
    return faults


def _dark_from_the_start(visitor: Visit) -> list[str]:
    """The theme is the system's without a switch, and charts are drawn in its colours at once."""
    visitor.page.emulate_media(color_scheme="dark")
    visitor.page.set_viewport_size({"width": WIDTHS[0], "height": 900})
    visitor.go(f"/admin/{every_page.CLUSTER}/")
    visitor.page.wait_for_selector("#plot-throughput canvas")
    assert visitor.page.evaluate(_IS_DARK)
    only = {"type": "rule", "values": OF_COLOURS}
    return [*visitor.page.evaluate(_RUN, only), *visitor.complaints]


def _js(scheme: str) -> str:
    return "true" if scheme == "dark" else "false"


def test_what_others_have_written_is_what_its_table_says():
    table = (VENDOR / "README.md").read_text()
    rows = re.findall(
        r"^\| `([^`]+)` \| ([0-9.]+) \|.*\| `([0-9a-f]{64})` \|$", table, re.MULTILINE
    )
    files = {str(path.relative_to(VENDOR)) for path in VENDOR.rglob("*.js")}
    assert {name for name, _, _ in rows} == files
    for name, version, digest in rows:
        file = VENDOR / name
        assert hashlib.sha256(file.read_bytes()).hexdigest() == digest, name
        assert version in file.read_text()[:200], name
        assert (file.parent / "LICENSE").exists()


def test_no_rule_is_swallowed_by_another_one():
    """A bracket that a merge has lost hides all that follows it, and no browser complains."""
    text = (ROOT / "ui" / "static" / "ui" / "ui.css").read_text()
    depth = 0
    for number, line in enumerate(text.splitlines(), 1):
        assert depth == 0 or not line.startswith((".", "@", "/*")), (
            f"line {number} is inside a block"
        )
        depth += line.count("{") - line.count("}")
    assert depth == 0
