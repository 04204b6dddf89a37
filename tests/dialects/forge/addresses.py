"""Every route of the API, with the least role that it needs, and a body that it takes."""

from __future__ import annotations

from typing import Any

from tests.api.routes import MISSING_ID as ID

VIEWER, OPERATOR, ADMIN = "viewer", "operator", "admin"
RANGE = "from=2026-06-01T00:00:00Z&to=2026-06-01T01:00:00Z&bucket_secs=60"

ENDPOINTS: list[tuple[str, str, str, dict[str, Any] | None]] = [
    ("GET", "metrics", VIEWER, None),
    ("GET", "storage/info", VIEWER, None),
    ("GET", "queue/overview", VIEWER, None),
    ("GET", "queue/processes", VIEWER, None),
    ("GET", "queue/workers", VIEWER, None),
    ("GET", f"queue/timeline?{RANGE}", VIEWER, None),
    ("GET", f"queue/metric-series?queue=default&{RANGE}", VIEWER, None),
    ("GET", f"queue/resource-series?{RANGE}", VIEWER, None),
    ("GET", f"queue/db-series?{RANGE}", VIEWER, None),
    ("POST", "queue/cleanup", ADMIN, None),
    ("POST", "queue/default/max-workers", ADMIN, {"n": 4}),
    ("POST", "queue/default/paused", OPERATOR, {"paused": True}),
    ("POST", "queue/default/retention", ADMIN, {"done_days": 7, "dead_days": 30}),
    (
        "POST",
        "queue/default/backoff",
        ADMIN,
        {"enabled": True, "base_seconds": 60, "max_seconds": 1800},
    ),
    ("POST", "jobs/list", VIEWER, {"filter": {}, "limit": 50, "offset": 0}),
    ("GET", "jobs/failed?limit=10", VIEWER, None),
    ("GET", "jobs/kinds", VIEWER, None),
    ("GET", "jobs/scheduled", VIEWER, None),
    ("GET", f"jobs/inspect/{ID}", VIEWER, None),
    ("POST", "jobs/enqueue", OPERATOR, {"kind": "x", "payload": {}, "queue_name": "default"}),
    ("POST", "jobs/enqueue-demo", OPERATOR, {"payload": {}}),
    ("POST", f"jobs/run-now/{ID}", OPERATOR, None),
    ("POST", "jobs/retry", OPERATOR, {"ids": [ID]}),
    ("POST", "jobs/requeue", OPERATOR, {"ids": [ID]}),
    ("POST", "jobs/retry-all-failed", OPERATOR, None),
    ("POST", "jobs/retry-all-by-status", OPERATOR, {"status": "dead"}),
    ("POST", "jobs/delete", ADMIN, {"ids": [ID]}),
    ("POST", "jobs/delete-done-older-than", ADMIN, {"days": 7, "queue_name": None}),
    ("POST", "jobs/delete-by-status", ADMIN, {"status": "done", "queue_name": None}),
    ("GET", "cron", VIEWER, None),
    ("POST", "cron/nightly/enabled", OPERATOR, {"enabled": False}),
    ("POST", "cron/nightly/expr", OPERATOR, {"expr": "0 */5 * * * *"}),
    ("POST", "cron/nightly/dedupe", OPERATOR, {"dedupe": True}),
    ("POST", "cron/nightly/trigger", OPERATOR, None),
]
