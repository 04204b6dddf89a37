"""People who look at the screen, and how often a page asks its databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext

from authn.models import UserRole
from clusters.health import watch
from ui.fragments import shared
from ui.pages import fleet

# Loads the middleware once: WhiteNoise looks at every static file when it starts.
_handler = Client().handler


@pytest.fixture(autouse=True)
def _forget_health() -> None:
    watch.forget()


@pytest.fixture(autouse=True)
def _of_this_very_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page shows is what the test has just made, not what somebody asked for a second ago."""
    shared.forget()
    monkeypatch.setattr(shared, "seconds", -1.0)
    monkeypatch.setattr(fleet, "_last_seen", {})


def visitor() -> Client:
    client = Client()
    client.handler = _handler
    return client


@pytest.fixture
def stranger(db: None) -> Client:
    """Nobody who has signed in."""
    return visitor()


@pytest.fixture
def sign_in(db: None) -> Callable[..., Client]:
    """A client of somebody with this role on these clusters; all of them unless told."""
    made = 0

    def sign(role: str | None, *clusters: str, grants: tuple[str, ...] = ()) -> Client:
        nonlocal made
        made += 1
        user = get_user_model().objects.create_user(f"{role}-{made}", password="x", is_staff=True)
        if role is not None:
            for cluster_id in clusters or ("*",):
                UserRole.objects.create(
                    user=user, cluster_id=cluster_id, role=role, granted_kinds=list(grants)
                )
        client = visitor()
        client.force_login(user)
        return client

    return sign


@pytest.fixture
def viewer(sign_in: Callable[..., Client]) -> Client:
    return sign_in("viewer")


@pytest.fixture
def operator(sign_in: Callable[..., Client]) -> Client:
    return sign_in("operator")


@pytest.fixture
def admin(sign_in: Callable[..., Client]) -> Client:
    return sign_in("admin")


@pytest.fixture
def superuser(db: None) -> Client:
    user = get_user_model().objects.create_superuser("root", password="x")
    client = visitor()
    client.force_login(user)
    return client


@pytest.fixture
def queries() -> Callable[..., Any]:
    """All statements that the databases of a page are asked within the block."""

    @contextmanager
    def captured() -> Iterator[list[str]]:
        asked: list[str] = []
        with ExitStack() as stack:
            contexts = [
                stack.enter_context(CaptureQueriesContext(connections[alias]))
                for alias in ("default", "cluster-alpha")
            ]
            yield asked
            asked += [
                query["sql"]
                for context in contexts
                for query in context.captured_queries
                if not query["sql"].startswith(("SAVEPOINT", "RELEASE", "BEGIN", "COMMIT"))
            ]

    return captured
