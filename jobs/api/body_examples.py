"""Examples of bodies that have none beside their view, by operation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SCHEDULE = "01a20191-868c-7979-8cdf-31c02d86b8b8"
_FIRE = "01a2052c-154e-7271-9051-9d69751f6869"
_EXCLUSIONS = {
    "dates": ["2030-12-25"],
    "days_of_week": ["Saturday", "Sunday"],
    "time_ranges": [{"start": "12:00", "end": "13:00"}],
}

BODY_EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "token_issue": {
        "A name and a password": {"username": "ann", "password": "correct horse battery"},
        "For ten minutes": {
            "username": "ann",
            "password": "correct horse battery",
            "lifetime_seconds": 600,
        },
    },
    "keys_create": {
        "For a build server": {
            "name": "build-server",
            "role": "operator",
            "clusters": ["main"],
            "owner": "the build team",
            "expires_at": "2040-01-01T00:00:00Z",
            "addresses": ["10.1.0.0/16"],
        }
    },
    "keys_change": {
        "Longer": {"expires_at": "2041-01-01T00:00:00Z"},
        "From anywhere": {"addresses": []},
    },
    "keys_rotate": {
        "An hour to change over": {"grace_seconds": 3600},
        "At once": {"grace_seconds": 0},
    },
    "keys_revoke": {"It was seen in a log": {"reason": "in the log of a build"}},
    "roles_give": {
        "To all of a group": {
            "sort": "group",
            "name": "on-call",
            "cluster": "main",
            "role": "operator",
        },
        "With shell jobs": {
            "sort": "user",
            "name": "ann",
            "cluster": "main",
            "role": "operator",
            "granted_kinds": ["shell"],
        },
    },
    "jobs_enqueue_bulk": {
        "Two jobs": {
            "jobs": [
                {"type": "demo:echo", "payload": {"number": 1}},
                {"type": "demo:echo", "payload": {"number": 2}, "delay_seconds": 60},
            ]
        }
    },
    "jobs_change": {
        "Another queue, and sooner": {"queue": "default", "priority": 10},
        "Another payload": {"payload": {"hello": "everybody"}},
    },
    "bulk_operations_request": {
        "What would it be about?": {
            "action": "retry",
            "filter": {"state": ["failed"], "queue": "default"},
            "dry_run": True,
        },
        "Retry all failed jobs of a queue": {
            "action": "retry",
            "filter": {"state": ["failed"], "queue": "default"},
            "arguments": {"spread_seconds": 600},
            "reason": "the mail server is back",
        },
    },
    "queues_create": {
        "A few at a time": {
            "name": "mail",
            "description": "Everything that is sent to customers.",
            "max_concurrency": 4,
            "rate_limit": 100,
            "rate_period_seconds": 60,
            "default_max_attempts": 5,
        }
    },
    "queues_change": {"More at a time": {"max_concurrency": 8}, "No limit": {"rate_limit": None}},
    "queues_pause": {
        "Until somebody resumes it": {"reason": "the mail server is down"},
        "For an hour": {"reason": "maintenance", "resume_in_seconds": 3600},
    },
    "queues_purge": {
        "What would go?": {"dry_run": True},
        "Jobs that wait": {"states": ["ready"], "reason": "imported twice"},
    },
    "alerts_create": {
        "Letters fail": {
            "name": "letters",
            "kind": "failure_rate",
            "queue": "mail",
            "ratio": 0.2,
            "at_least": 20,
            "window_seconds": 900,
            "webhook_url": "https://hooks.example/on-call",
        },
        "A backup that should have come": {
            "name": "backup",
            "kind": "heartbeat",
            "type": "backup:database",
            "limit_seconds": 93600,
            "severity": "critical",
        },
    },
    "alerts_preview": {"Is a queue late?": {"kind": "oldest_ready", "limit_seconds": 300}},
    "alerts_change": {"Later": {"limit_seconds": 900}, "Not now": {"is_enabled": False}},
    "alerts_acknowledge": {"I have it": {"reason": "the mail server restarts"}},
    "alerts_mute": {
        "For an hour": {"seconds": 3600, "reason": "maintenance"},
        "Until then": {"until": "2030-01-01T00:00:00Z"},
    },
    "failures_change": {
        "Somebody has it": {"mark": "known", "owner": "mail team", "ticket": "https://tickets/17"},
        "Not before the year is over": {
            "mark": "muted",
            "muted_until": "2040-01-01T00:00:00Z",
            "reason": "the partner mends it",
        },
    },
    "calendars_create": {
        "Holidays": {
            "name": "holidays",
            "description": "Days on which nothing is delivered.",
            "dates": ["2030-12-25", "2030-12-26"],
        }
    },
    "calendars_change": {"Other days": {"dates": ["2030-12-25", "2031-01-01"]}},
    "schedules_change": {
        "Another time": {"timing": "cron", "expression": "30 6 * * 1-5"},
        "Another payload": {"payload": {"warehouse": 8}},
    },
    "schedules_reschedule": {
        "Every ten minutes": {"timing": "interval", "interval_seconds": 600},
        "From the new year on": {
            "timing": "cron",
            "expression": "0 7 * * *",
            "effective_from": "2040-01-01T00:00:00Z",
        },
    },
    "schedules_pause": {
        "Until somebody resumes it": {"reason": "the partner is down"},
        "For a while": {"reason": "maintenance", "until": "2040-01-01T00:00:00Z"},
    },
    "schedules_pause_all": {"All schedules": {"reason": "the data centre moves"}},
    "schedules_trigger": {
        "Once, now": {},
        "With a payload of its own": {"payload": {"warehouse": 8}},
    },
    "schedules_skip_next": {"Not this time": {"reason": "the warehouse is closed tomorrow"}},
    "schedules_run_missed": {
        "After an outage": {"fire_id": _FIRE, "which": "all", "reason": "the nodes were down"},
        "Nobody needs it any more": {"fire_id": _FIRE, "which": "skip"},
    },
    "schedules_preview": {
        "When it would run": {
            "timing": "cron",
            "expression": "0 7 * * 1-5",
            "timezone": "Europe/Berlin",
            "count": 3,
        },
        "All that makes the schedule": {
            "name": "nightly report",
            "timing": "cron",
            "expression": "0 3 * * *",
            "type": "demo:noop",
            "tags": ["reports"],
        },
    },
    "schedules_exclusions_set": {"Weekends, noon and Christmas": _EXCLUSIONS},
    "schedules_exclusions_add": {"One more day": {"dates": ["2031-01-01"]}},
    "schedules_dependencies_set": {
        "After another one": {"depends_on": [_SCHEDULE], "needs": "all"}
    },
    "secrets_create": {
        "A password": {
            "name": "mail-password",
            "value": "something that nobody reads again",
            "description": "Of the account that sends letters.",
        }
    },
    "secrets_change": {"Another value": {"value": "something else that nobody reads again"}},
    "settings_change": {
        "More time, and the default again": {
            "values": {"default_timeout_seconds": 600, "max_crashes": None},
            "reason": "reports take longer at the end of a month",
        }
    },
    "workflows_trigger": {
        "As it is": {},
        "With another payload for a node": {"payloads": {_SCHEDULE: {"day": "2030-12-24"}}},
    },
    "workflows_change": {
        "Another name": {"name": "Close the month"},
        "Other nodes": {"nodes": [{"schedule_id": _SCHEDULE}]},
    },
}
