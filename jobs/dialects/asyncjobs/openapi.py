"""The document of this API for generators of clients: OpenAPI 3.0.3, written by hand beside this."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_SOURCE = Path(__file__).with_name("openapi.yaml")


def as_dict() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(_SOURCE.read_text())
    return found


@cache
def document() -> str:
    """The document as JSON, without the servers, which depend on the address that is asked."""
    return json.dumps(as_dict())
