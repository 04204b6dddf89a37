"""The page of the native API in a real browser: each way to say who one is can be tried, offline."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import PBKDF2PasswordHasher

from authn.keys import create_key
from tests.processes import free_port, started, worker_environment
from tests.ui.browser import Visit, chromium, program, visit
from tests.ui.test_browser import _answers, until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.once]
# By scheme what is typed, and the headers that the page then sends.
PASSWORD = "correct horse"
BASIC = "Basic " + base64.b64encode(f"root:{PASSWORD}".encode()).decode()


@pytest.fixture
def page(transactional_db: None) -> Iterator[tuple[Visit, str]]:
    """The page as somebody sees it who is signed in, and the text of a key."""
    program()
    port = free_port()
    password = PBKDF2PasswordHasher().encode(PASSWORD, "salt-of-the-tests", 10)
    get_user_model().objects.create(
        username="root", password=password, is_staff=True, is_superuser=True
    )
    key = create_key("tried", "viewer", ["*"])[1]
    with ExitStack() as stack:
        bind = ("--bind", f"127.0.0.1:{port}", "--workers", "1")
        stack.enter_context(started("serve", *bind, env=worker_environment()))
        until(lambda: _answers(port))
        browser = stack.enter_context(chromium())
        visitor = stack.enter_context(visit(browser, f"http://127.0.0.1:{port}"))
        visitor.sign_in("root", PASSWORD)
        visitor.go("/jm-api/swagger").sees("Say who is calling")
        yield visitor, key


def authorize(visitor: Visit, scheme: str, *typed: str) -> None:
    """Type credentials into the page's own form for a scheme, and close it."""
    page = visitor.page
    page.locator(".auth-wrapper .btn.authorize").first.click()
    form = page.locator(
        ".auth-container form", has=page.locator(f"h4:has(code:text-is('{scheme}'))")
    )
    for box, text in zip(form.locator("input").all(), typed, strict=True):
        box.fill(text)
    form.locator("button.authorize").click()
    page.locator(".btn-done").first.click()


def forget(visitor: Visit, scheme: str) -> None:
    page = visitor.page
    page.locator(".auth-wrapper .btn.authorize").first.click()
    form = page.locator(
        ".auth-container form", has=page.locator(f"h4:has(code:text-is('{scheme}'))")
    )
    form.locator("button", has_text="Logout").click()
    page.locator(".btn-done").first.click()


def execute(visitor: Visit) -> Any:
    """Try `whoami` out: the request that the page sends."""
    with visitor.page.expect_response(lambda answer: answer.url.endswith("/whoami")) as answered:
        visitor.page.locator("#operations-whoami-whoami button.execute").click()
    return answered.value


def test_every_way_to_say_who_one_is_can_be_tried(page: Any) -> None:
    visitor, key = page
    assert visitor.complaints == []
    block = visitor.page.locator("#operations-whoami-whoami")
    block.locator(".opblock-summary-control").click()
    block.locator("button.try-out__btn").click()
    for scheme, typed, header, sent, status in (
        ("ApiKey", (key,), "x-api-key", key, 200),
        ("Bearer", (key,), "authorization", f"Bearer {key}", 200),
        ("UserName", ("root",), "x-user-name", "root", None),
        ("Password", (PASSWORD,), "x-password", PASSWORD, None),
        ("Basic", ("root", PASSWORD), "authorization", BASIC, None),
    ):
        authorize(visitor, scheme, *typed)
        answer = execute(visitor)
        assert answer.request.headers[header] == sent, scheme
        assert status is None or answer.status == status
        forget(visitor, scheme)
    # The session of the page is no credential: without any of them it is nobody who asks.
    visitor.complaints.clear()
    assert execute(visitor).status == 401
    assert not [said for said in visitor.complaints if not said.startswith(("401", "console"))]
