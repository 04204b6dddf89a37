"""Requests that may be repeated under an Idempotency-Key."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

from django.http import HttpResponse
from rest_framework.request import Request

from clusters.api.base import reply
from clusters.api.fields import refuse
from jobs.engine.idempotency import once

IDEMPOTENCY_KEY_TEXT = re.compile(r"[\x20-\x7e]{1,255}\Z")


def answer_once(
    request: Request, actor: str, effect: Callable[[], tuple[int, Any]]
) -> tuple[HttpResponse, Any]:
    """Run the effect, or give the reply it had under the same Idempotency-Key."""
    key = idempotency_key(request)
    if key is None:
        status, body = effect()
        return reply(body, status), body
    done = once(actor, key, _request_hash(request), effect)
    headers = {"Idempotent-Replayed": "true"} if done.is_repeat else None
    return reply(done.body, done.status, headers), done.body


def idempotency_key(request: Request) -> str | None:
    """The key of a request that has a good one."""
    key: str | None = request.headers.get("Idempotency-Key")
    if key is not None and not IDEMPOTENCY_KEY_TEXT.match(key):
        refuse("Idempotency-Key", "Must be 1 to 255 printable ASCII characters.")
    return key


def _request_hash(request: Request) -> str:
    """The same for the same request only."""
    body_hash = getattr(request, "body_hash", "")
    text = f"{request.method} {request.path.rstrip('/')}\n{body_hash}"
    return hashlib.sha256(text.encode()).hexdigest()
