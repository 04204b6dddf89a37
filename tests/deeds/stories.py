"""One deed for each way to change something that an API offers: the request, and how it is told.

``{names}`` are of ``world.build``. A story that needs a thing only its own API can make says so with
``first``, whose answer's ``id`` is ``{made}``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.deeds.world import STEPS

NATIVE, SCHEDULER = "/jm-api/alpha", "/api/v1/scheduler"
HANDLER = {"handlerType": "demo:noop", "parameters": {}}
JOB = {
    "name": "new",
    "jobType": "CodeExecution",
    "scheduleType": "Cron",
    "jobConfiguration": HANDLER,
}
JOB |= {"scheduleExpression": "0 4 * * *"}
DATES = {"dates": ["2034-01-01"]}
EXCLUDED = {"excludedDates": ["2034-01-01"]}
NEW_KEY = {"name": "new", "role": "operator", "clusters": ["alpha"], "granted_kinds": ["shell"]}
MAKE_KEY = ("POST", "/jm-api/keys", NEW_KEY)
NEW_ROLE = {"sort": "key", "name": "viewer-1", "cluster": "alpha", "role": "operator"}
GIVE_ROLE = ("POST", "/jm-api/roles", NEW_ROLE)
TORK_SCHEDULE = STEPS | {"schedule": {"cron": "@hourly"}}


@dataclass(frozen=True)
class Story:
    method: str
    path: str
    body: Any = None
    # The verb of the trace, where it is not the one of the route.
    verb: str | None = None
    # Traces: one for a deed; none for a plain enqueue, which the job itself tells.
    traces: int = 1
    first: tuple[str, str, Any] | None = None
    # In the control database.
    is_access: bool = False


def native(method: str, path: str, body: Any = None, **how: Any) -> Story:
    return Story(method, f"{NATIVE}/{path}", body, **how)


def access(method: str, path: str, body: Any = None, **how: Any) -> Story:
    return Story(method, f"/jm-api/{path}", body, is_access=True, **how)


def scheduler(method: str, path: str, body: Any = None, **how: Any) -> Story:
    return Story(method, f"{SCHEDULER}/{path}", body, **how)


def enqueue(method: str, path: str, body: Any) -> Story:
    return Story(method, path, body, traces=0)


STORIES: dict[str, Story] = {
    "native JobViewSet create": enqueue("POST", f"{NATIVE}/jobs", {"type": "demo:noop"}),
    "native JobViewSet bulk": enqueue("POST", f"{NATIVE}/jobs/bulk", {"jobs": [{"type": "a"}] * 2}),
    "native JobViewSet cancel": native("POST", "jobs/{ready}/cancel"),
    "native JobViewSet retry": native("POST", "jobs/{failed}/retry"),
    "native JobViewSet close": native("POST", "jobs/{held}/close"),
    "native JobViewSet run_now": native("POST", "jobs/{scheduled}/run-now"),
    "native JobViewSet requeue": native("POST", "jobs/{succeeded}/requeue"),
    "native JobViewSet partial_update": native("PATCH", "jobs/{ready}", {"priority": 7}),
    "native JobViewSet destroy": native("DELETE", "jobs/{succeeded}"),
    "native BulkOperationViewSet create": native(
        "POST", "bulk-operations", {"action": "cancel", "filter": {"queue": "default"}, "reason": "x"}),
    "native BulkOperationViewSet cancel": native("POST", "bulk-operations/{operation}/cancel"),
    "native QueueViewSet create": native("POST", "queues", {"name": "new"}),
    "native QueueViewSet partial_update": native("PATCH", "queues/mail", {"max_concurrency": 3}),
    "native QueueViewSet destroy": native("DELETE", "queues/mail"),
    "native QueueViewSet pause": native("POST", "queues/mail/pause", {"reason": "x"}),
    "native QueueViewSet resume": native("POST", "queues/slow/resume"),
    "native QueueViewSet purge": native("POST", "queues/mail/purge", {"reason": "x"}),
    "native ScheduleViewSet create": native(
        "POST", "schedules",
        {"name": "new", "type": "demo:noop", "timing": "cron", "expression": "0 4 * * *"}),
    "native ScheduleViewSet partial_update": native("PATCH", "schedules/{nightly}", {"priority": 5}),
    "native ScheduleViewSet reschedule": native(
        "POST", "schedules/{nightly}/reschedule", {"timing": "interval", "interval_seconds": 900}),
    "native ScheduleViewSet destroy": native("DELETE", "schedules/{nightly}"),
    "native ScheduleViewSet destroy, for good": native(
        "DELETE", "schedules/{nightly}?hard=true", verb="schedules.delete_for_good"),
    "native ScheduleViewSet restore": native("POST", "schedules/{deleted}/restore"),
    "native ScheduleViewSet pause": native("POST", "schedules/{nightly}/pause", {"reason": "x"}),
    "native ScheduleViewSet resume": native("POST", "schedules/{paused}/resume"),
    "native ScheduleViewSet trigger": native("POST", "schedules/{nightly}/trigger"),
    "native ScheduleViewSet pause_all": native("POST", "schedules/pause-all", {"reason": "x"}),
    "native ScheduleViewSet resume_all": native("POST", "schedules/resume-all"),
    "native ScheduleRulesViewSet skip_next": native(
        "POST", "schedules/{nightly}/skip-next", {"reason": "x"}),
    "native ScheduleRulesViewSet run_missed": native(
        "POST", "schedules/{nightly}/run-missed", {"fire_id": "{gap}", "which": "latest", "reason": "x"}),
    "native ScheduleRulesViewSet set_exclusions": native("PUT", "schedules/{nightly}/exclusions", DATES),
    "native ScheduleRulesViewSet add_exclusions": native("POST", "schedules/{nightly}/exclusions", DATES),
    "native ScheduleRulesViewSet clear_exclusions": native("DELETE", "schedules/{other}/exclusions"),
    "native ScheduleRulesViewSet set_dependencies": native(
        "PUT", "schedules/{nightly}/dependencies", {"depends_on": ["{sent}"]}),
    "native ScheduleRulesViewSet clear_dependencies": native("DELETE", "schedules/{other}/dependencies"),
    "native FailureViewSet partial_update": native("PATCH", "failures/{failure}", {"owner": "ann"}),
    "native AlertViewSet create": native("POST", "alerts", {"name": "n", "kind": "dead_nodes"}),
    "native AlertViewSet partial_update": native("PATCH", "alerts/{alert}", {"limit_seconds": 2}),
    "native AlertViewSet destroy": native("DELETE", "alerts/{alert}"),
    "native AlertViewSet test": native("POST", "alerts/{alert}/test"),
    "native AlertViewSet acknowledge": native("POST", "alerts/{alert}/acknowledge", {"reason": "r"}),
    "native AlertViewSet mute": native("POST", "alerts/{alert}/mute", {"seconds": 60}),
    "native AlertViewSet unmute": native("POST", "alerts/{alert}/unmute"),
    "native CalendarViewSet create": native("POST", "calendars", {"name": "new", **DATES}),
    "native CalendarViewSet partial_update": native("PATCH", "calendars/holidays", {"description": "x"}),
    "native CalendarViewSet destroy": native("DELETE", "calendars/holidays"),
    "native WorkflowViewSet create": native(
        "POST", "workflows", {"name": "new", "nodes": [{"schedule_id": "{nightly}"}]}),
    "native WorkflowViewSet partial_update": native("PATCH", "workflows/{flow}", {"description": "x"}),
    "native WorkflowViewSet destroy": native("DELETE", "workflows/{loose}"),
    "native WorkflowViewSet trigger": native("POST", "workflows/{flow}/trigger"),
    "native WorkflowRunViewSet cancel": native("POST", "workflows/{flow}/runs/{going}/cancel"),
    "native WorkflowRunViewSet rerun": native("POST", "workflows/{flow}/runs/{ended}/rerun"),
    "native WorkflowRunViewSet skip": native("POST", "workflows/{flow}/runs/{going}/nodes/{sent}/skip"),
    "native NodeViewSet drain": native("POST", "nodes/{node}/drain"),
    "native NodeViewSet undrain": native("POST", "nodes/{drained}/undrain"),
    "native SettingsViewSet partial_update": native(
        "PATCH", "settings", {"values": {"mode": "passive"}, "reason": "x"}),
    "native SecretViewSet create": native("POST", "secrets", {"name": "new", "value": "a long one"}),
    "native SecretViewSet partial_update": native("PATCH", "secrets/token", {"value": "another one"}),
    "native SecretViewSet destroy": native("DELETE", "secrets/token"),
    "native KeyViewSet create": access("POST", "keys", NEW_KEY),
    "native KeyViewSet partial_update": access("PATCH", "keys/{made}", {"owner": "y"}, first=MAKE_KEY),
    "native KeyViewSet rotate": access("POST", "keys/{made}/rotate", {}, first=MAKE_KEY),
    "native KeyViewSet revoke": access("POST", "keys/{made}/revoke", {"reason": "x"}, first=MAKE_KEY),
    "native RoleViewSet create": access("POST", "roles", NEW_ROLE),
    "native RoleViewSet destroy": access("DELETE", "roles/{made}", first=GIVE_ROLE),

    "asyncjobs TaskView create": enqueue("POST", "/v1/tasks", {"type": "demo:noop"}),
    "asyncjobs TaskView destroy": Story("DELETE", "/v1/tasks/{succeeded}"),
    "asyncjobs TaskView retry": Story("POST", "/v1/tasks/{failed}/retry"),
    "asyncjobs TaskView retry_many": Story("POST", "/v1/tasks/retry", {"ids": ["{failed}"]}),
    "asyncjobs QueueView create": Story("POST", "/v1/queues", {"name": "new"}),
    "asyncjobs QueueView destroy": Story("DELETE", "/v1/queues/mail"),
    "asyncjobs QueueView purge": Story("POST", "/v1/queues/mail/purge"),
    "asyncjobs ScheduleView create": Story(
        "POST", "/v1/schedules",
        {"name": "new", "task_type": "a", "queue": "mail", "schedule": "@every 1h"}),
    "asyncjobs ScheduleView destroy": Story("DELETE", "/v1/schedules/nightly"),

    "forge QueueView cleanup": Story("POST", "/queue/cleanup"),
    "forge QueueView max_workers": Story("POST", "/queue/mail/max-workers", {"n": 4}),
    "forge QueueView max_workers, none": Story("POST", "/queue/mail/max-workers", {"n": 0}),
    "forge QueueView paused": Story("POST", "/queue/mail/paused", {"paused": True}),
    "forge QueueView paused, no more": Story(
        "POST", "/queue/slow/paused", {"paused": False}, verb="queues.resume"),
    "forge QueueView retention": Story(
        "POST", "/queue/mail/retention", {"done_days": 7, "dead_days": 30}),
    "forge QueueView backoff": Story(
        "POST", "/queue/mail/backoff", {"enabled": True, "base_seconds": 60, "max_seconds": 1800}),
    "forge JobView enqueue": enqueue(
        "POST", "/jobs/enqueue", {"kind": "x", "payload": {}, "queue_name": "default"}),
    "forge JobView enqueue_demo": enqueue("POST", "/jobs/enqueue-demo", {"payload": {}}),
    "forge MoveView run_now": Story("POST", "/jobs/run-now/{scheduled}"),
    "forge MoveView retry": Story("POST", "/jobs/retry", {"ids": ["{failed}", "{retrying}"]}),
    "forge MoveView retry_all_failed": Story("POST", "/jobs/retry-all-failed"),
    "forge MoveView retry_all_by_status": Story("POST", "/jobs/retry-all-by-status", {"status": "dead"}),
    "forge MoveView delete": Story("POST", "/jobs/delete", {"ids": ["{succeeded}", "{ready}"]}),
    "forge MoveView delete_done_older_than": Story("POST", "/jobs/delete-done-older-than", {"days": 7}),
    "forge MoveView delete_by_status": Story("POST", "/jobs/delete-by-status", {"status": "pending"}),
    "forge CronView enabled": Story("POST", "/cron/nightly/enabled", {"enabled": False}),
    "forge CronView enabled, paused before": Story("POST", "/cron/paused/enabled", {"enabled": True}),
    "forge CronView expr": Story("POST", "/cron/nightly/expr", {"expr": "0 */5 * * * *"}),
    "forge CronView dedupe": Story("POST", "/cron/nightly/dedupe", {"dedupe": True}),
    "forge CronView trigger": Story("POST", "/cron/nightly/trigger"),

    "scheduler JobView create": scheduler("POST", "jobs", JOB),
    "scheduler JobView update": scheduler("PUT", "jobs/{nightly}", {"name": "other name"}),
    "scheduler JobView destroy": scheduler("DELETE", "jobs/{nightly}"),
    "scheduler JobView destroy, for good": scheduler(
        "DELETE", "jobs/{nightly}?hardDelete=true", verb="schedules.delete_for_good"),
    "scheduler JobView reschedule": scheduler(
        "PATCH", "jobs/{nightly}/reschedule", {"scheduleType": "Interval", "intervalSeconds": 9000}),
    "scheduler JobView pause": scheduler("POST", "jobs/{nightly}/pause", {"reason": "r"}),
    "scheduler JobView resume": scheduler("POST", "jobs/{paused}/resume"),
    "scheduler JobView trigger": scheduler("POST", "jobs/{nightly}/trigger"),
    "scheduler JobView restore": scheduler("POST", "jobs/{deleted}/restore"),
    "scheduler RuleView add_exclusions": scheduler("POST", "jobs/{nightly}/exclusions", EXCLUDED),
    "scheduler RuleView set_exclusions": scheduler("PUT", "jobs/{nightly}/exclusions", EXCLUDED),
    "scheduler RuleView clear_exclusions": scheduler("DELETE", "jobs/{other}/exclusions"),
    "scheduler RuleView set_dependencies": scheduler(
        "POST", "jobs/{nightly}/dependencies",
        {"dependsOnJobIds": ["{sent}"], "condition": "AllSucceeded"}),
    "scheduler RuleView clear_dependencies": scheduler("DELETE", "jobs/{other}/dependencies"),
    "scheduler ExecutionView cancel": scheduler("POST", "executions/{run_open}/cancel"),
    "scheduler ExecutionView retry": scheduler("POST", "executions/{run_failed}/retry"),
    "scheduler WorkflowView create": scheduler(
        "POST", "workflows", {"name": "new", "jobs": [{"jobId": "{nightly}"}]}),
    "scheduler WorkflowView update": scheduler("PUT", "workflows/{flow}", {"name": "v"}),
    "scheduler WorkflowView destroy": scheduler("DELETE", "workflows/{loose}"),
    "scheduler WorkflowView trigger": scheduler("POST", "workflows/{flow}/trigger"),
    "scheduler AdminView pause_all": scheduler("POST", "admin/pause-all"),
    "scheduler AdminView resume_all": scheduler("POST", "admin/resume-all"),
    "scheduler AdminView clear_logs": scheduler("DELETE", "admin/clear-logs", {"olderThanDays": 9}),
    "scheduler AdminView import_jobs": scheduler("POST", "admin/import", [{**JOB, "name": "in"}]),

    "tork JobView create": enqueue("POST", "/jobs", STEPS),
    "tork JobView cancel": Story("PUT", "/jobs/{made}/cancel", first=("POST", "/jobs", STEPS)),
    "tork JobView restart": Story("PUT", "/jobs/{made}/restart", first=("POST", "/jobs", STEPS)),
    "tork QueueView destroy": Story("DELETE", "/queues/mail"),
    "tork ScheduledJobView create": Story("POST", "/scheduled-jobs", TORK_SCHEDULE),
    "tork ScheduledJobView pause": Story(
        "PUT", "/scheduled-jobs/{made}/pause", first=("POST", "/scheduled-jobs", TORK_SCHEDULE)),
    "tork ScheduledJobView resume": Story(
        "PUT", "/scheduled-jobs/{made}/resume", first=("POST", "/scheduled-jobs", TORK_SCHEDULE)),
    "tork ScheduledJobView destroy": Story(
        "DELETE", "/scheduled-jobs/{made}", first=("POST", "/scheduled-jobs", TORK_SCHEDULE)),
    "tork UserView create": Story(
        "POST", "/tork/users", {"username": "new", "password": "p"}, is_access=True),
}  # fmt: skip
