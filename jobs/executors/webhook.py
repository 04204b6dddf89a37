"""Kind ``webhook``: one delivery, signed, through the client and the guards of kind ``http``.

    X-Yardmaster-Event: job.StateChange
    X-Yardmaster-Signature: t=1767225600,v1=5257a869…

``v1`` is the HMAC-SHA256, in hex, of the time, a dot and the body as it was sent. Whoever is told
compares it, and refuses what is old.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from dataclasses import replace
from typing import Any

from django.conf import settings

from jobs.errors import InvalidJob
from jobs.executors import Assignment, Outcome, Output, http
from jobs.executors.http_request import read

KEYS = ("url", "headers", "event", "body")
SIGNATURE, EVENT = "X-Yardmaster-Signature", "X-Yardmaster-Event"


def validate(payload: Any) -> None:
    """Raise ``InvalidJob``, naming the field, when nobody could deliver this."""
    if not isinstance(payload, dict) or payload.keys() != {*KEYS}:
        raise InvalidJob(f"a delivery has {', '.join(KEYS)}", field="payload")
    read(_request(payload, "", {}))


async def run(assignment: Assignment, output: Output) -> Outcome:
    """Send it once. Only what may pass by itself is worth another attempt."""
    body = json.dumps(assignment.payload["body"], ensure_ascii=False, separators=(",", ":"))
    signed = {SIGNATURE: signature(settings.WEBHOOK_KEY, body, int(time.time()))}
    request = _request(assignment.payload, body, signed if settings.WEBHOOK_KEY else {})
    outcome = await http.run(assignment._replace(payload=request), output)
    if outcome.error_type != "HttpStatus":
        return outcome
    # One that is refused for now counts: nobody is told more often than was said.
    return replace(outcome, is_throttled=False, result=None)


def signature(key: str, body: str, at: int) -> str:
    digest = hmac.new(key.encode(), f"{at}.{body}".encode(), hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def _request(payload: dict[str, Any], body: str, signed: dict[str, str]) -> dict[str, Any]:
    ours = {name.lower() for name in (SIGNATURE, EVENT, "Content-Type")}
    headers = {
        name: value for name, value in payload["headers"].items() if name.lower() not in ours
    }
    return {
        "method": "POST",
        "url": payload["url"],
        "headers": {**headers, EVENT: payload["event"], **signed},
        "body": body,
        "content_type": "application/json; charset=UTF-8",
        "retry_status": [429, "5xx"],
    }
