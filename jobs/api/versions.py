"""Rows that count their edits: the ETag says which version was read, and If-Match which one is meant."""

from __future__ import annotations

import re

from rest_framework.request import Request

_ETAG = re.compile(r'"([0-9]{1,9})"\Z')


def etag(version: int) -> dict[str, str]:
    """The header that goes with a row."""
    return {"ETag": f'"{version}"'}


def asked_versions(request: Request) -> list[int] | None:
    """The versions under which a change is wanted; None is any."""
    if_match = request.headers.get("If-Match")
    if if_match is None or if_match.strip() == "*":
        return None
    tags = [_ETAG.match(part.strip()) for part in if_match.split(",")[:10]]
    return [int(tag[1]) for tag in tags if tag]
