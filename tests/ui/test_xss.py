"""Whatever people and jobs write is text on every page: in the markup, and in a real browser."""

from __future__ import annotations

import http.client
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from html.parser import HTMLParser
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.db import connections, transaction

from clusters.binding import cluster_bound
from tests.processes import free_port, started, worker_environment
from tests.ui.browser import chromium, program, visit
from tests.ui.nasty_rows import make_rows, nasty_texts

# Attributes that lead somewhere or load something.
LEADING = {"href", "src", "action", "formaction", "srcdoc", "data", "xlink:href"}


class Skeleton(HTMLParser):
    """The elements of a page with the names of their attributes, and where they lead."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: Counter[tuple[str, ...]] = Counter()
        self.targets: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[(tag, *sorted(name for name, _ in attrs))] += 1
        self.targets += [value or "" for name, value in attrs if name in LEADING]


def _pages(admin: Any, texts: list[str]) -> list[tuple[str, Skeleton]]:
    """All pages with rows that hold these texts; the rows are gone afterwards."""
    found = []
    with cluster_bound("alpha"), transaction.atomic("cluster-alpha"):
        for page in make_rows(texts):
            response = admin.get(f"/admin/alpha/{page}")
            assert response.status_code == 200, page
            found.append((page, Skeleton(response.content.decode())))
        transaction.set_rollback(True, using="cluster-alpha")
    return found


def test_there_are_enough_of_them():
    texts = nasty_texts()
    assert len(set(texts)) == len(texts) >= 40
    assert all("lert" in text for text in texts)


@pytest.mark.once
def test_no_text_becomes_markup_on_any_page(superuser, alpha):
    nasty = nasty_texts()
    harmless = ["x" * len(text) for text in nasty]
    # Each page with the one and with the other: the same elements with the same attributes.
    for (page, with_it), (_, without) in zip(
        _pages(superuser, nasty), _pages(superuser, harmless), strict=True
    ):
        more = with_it.elements - without.elements
        assert not more, (page, more)
        for target in with_it.targets:
            scheme = target.strip().lower().partition(":")[0]
            assert scheme not in ("javascript", "data", "vbscript"), (page, target)


def _served_rows() -> list[str]:
    """Made where no event loop runs; the browser's driver keeps one in the thread of the test."""
    password = PBKDF2PasswordHasher().encode("correct horse", "salt-of-the-tests", 10)
    get_user_model().objects.create(
        username="root", password=password, is_staff=True, is_superuser=True
    )
    try:
        with cluster_bound("alpha"):
            return make_rows(nasty_texts())
    finally:
        connections.close_all()


@pytest.mark.once
@pytest.mark.django_db(transaction=True)
def test_no_text_runs_in_a_browser(eventually):
    program()
    port = free_port()
    with ThreadPoolExecutor(1) as pool:
        pages = pool.submit(_served_rows).result()
    bind = ("--bind", f"127.0.0.1:{port}", "--workers", "1")
    with started("serve", *bind, env=worker_environment()), chromium() as browser:
        eventually(lambda: _answers(port), seconds=120)
        with visit(browser, f"http://127.0.0.1:{port}") as window:
            said: list[str] = []

            def on_dialog(dialog: Any) -> None:
                said.append(f"{window.page.url}: {dialog.message}")
                dialog.dismiss()

            window.page.on("dialog", on_dialog)
            window.page.set_default_timeout(60_000)
            window.sign_in("root")
            for page in pages:
                window.go(f"/admin/alpha/{page}")
                assert not said
                # A script that the policy held back would have been markup too.
                assert window.complaints == [], page


def _answers(port: int) -> bool:
    with suppress(OSError):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/livez")
            return connection.getresponse().status == 200
        finally:
            connection.close()
    return False
