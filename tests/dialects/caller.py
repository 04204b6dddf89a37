"""What the clients of all foreign APIs have in common."""

from __future__ import annotations

import json
from typing import Any

from django.http import HttpResponse

from tests.api.conftest import Api


class DialectCaller(Api):
    """Calls an API as the holder of a key; paths are given from below its base."""

    BASE = ""

    def __init__(self, key: str | None, base: str | None = None) -> None:
        super().__init__(key)
        self.base = self.BASE if base is None else base

    def __call__(self, method: str, path: str, *args: Any, **headers: Any) -> HttpResponse:
        address = path if path.startswith("/") else f"{self.base}/{path}"
        raw = headers.pop("raw", None)
        body = args[0] if args else headers.pop("body", None)
        content = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        content_type = given.pop("content-type", "application/json")
        response = self.client.generic(
            method, address, content, content_type, headers={**self.headers, **given}
        )
        self.check(method, address, response)
        return response

    def check(self, method: str, address: str, response: HttpResponse) -> None:
        """Hold an answer against what is promised of all of them."""
