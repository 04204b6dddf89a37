"""Every operation of the API, with the least role that it needs."""

from __future__ import annotations

from tests.dialects.asyncjobs.conftest import MISSING as ID

VIEWER, OPERATOR, ADMIN = "viewer", "operator", "admin"

# In the order of the document, with its names of the operations; what it leaves out has none.
ENDPOINTS: list[tuple[str, str, str, str]] = [
    ("GET", "v1/info", VIEWER, "getInfo"),
    ("GET", "v1/openapi.json", VIEWER, ""),
    ("GET", "v1/retry-policies", VIEWER, "listRetryPolicies"),
    ("GET", "v1/tasks", VIEWER, "listTasks"),
    ("POST", "v1/tasks", OPERATOR, "createTask"),
    ("GET", f"v1/tasks/{ID}", VIEWER, "getTask"),
    ("DELETE", f"v1/tasks/{ID}", ADMIN, "deleteTask"),
    ("POST", f"v1/tasks/{ID}/retry", OPERATOR, "retryTask"),
    ("POST", "v1/tasks/retry", OPERATOR, "retryTasks"),
    ("GET", "v1/queues", VIEWER, "listQueues"),
    ("POST", "v1/queues", ADMIN, "createQueue"),
    ("GET", "v1/queues/gone", VIEWER, "getQueue"),
    ("DELETE", "v1/queues/gone", ADMIN, "deleteQueue"),
    ("POST", "v1/queues/gone/purge", ADMIN, "purgeQueue"),
    ("GET", "v1/schedules", VIEWER, "listSchedules"),
    ("POST", "v1/schedules", OPERATOR, "createSchedule"),
    ("GET", "v1/schedules/gone", VIEWER, "getSchedule"),
    ("DELETE", "v1/schedules/gone", OPERATOR, "deleteSchedule"),
]
HEALTH = [("GET", "healthz", "getHealthz"), ("GET", "readyz", "getReadyz")]
