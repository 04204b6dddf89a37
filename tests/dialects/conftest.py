"""Callers of a foreign API in each role; by the fixture `caller` each API says how it is called."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.conftest import (  # noqa: F401  fixtures
    _forget_health,
    admin_key,
    make_key,
    operator_key,
    viewer_key,
)


@pytest.fixture
def ready(alpha: object) -> None:
    """What has to be there before somebody may do something."""


@pytest.fixture
def api(ready: None, caller: Any, operator_key: str) -> Any:  # noqa: F811
    return caller(operator_key)


@pytest.fixture
def viewer(alpha: object, caller: Any, viewer_key: str) -> Any:  # noqa: F811
    return caller(viewer_key)


@pytest.fixture
def admin(ready: None, caller: Any, admin_key: str) -> Any:  # noqa: F811
    return caller(admin_key)


@pytest.fixture
def anonymous(db: None, caller: Any) -> Any:
    return caller(None)
