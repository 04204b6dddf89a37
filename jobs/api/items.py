"""A job as lists show it, as one JSON text that the database writes.

To load fifty rows and to write them again takes Python ten times as long as all the rest of a list does.
``serializers.job_to_json`` writes a single job; a test holds the two together.
"""

from __future__ import annotations

import json
from enum import Enum
from functools import cache

from jobs.models import Job

# A list shows the beginning of an error; the whole one is with the job.
LISTED_ERROR_LENGTH = 4096


class Form(Enum):
    """How a column becomes JSON: on PostgreSQL a text for ``format()``, on SQLite a JSON value."""

    TEXT = "to_json({})::text", "{}"
    # Words of our own that a constraint holds the column to, and ids: nothing to escape.
    WORD = "'\"' || {} || '\"'", "{}"
    ID = (
        "'\"' || {} || '\"'",
        "substr({0}, 1, 8) || '-' || substr({0}, 9, 4) || '-' || substr({0}, 13, 4) || '-'"
        " || substr({0}, 17, 4) || '-' || substr({0}, 21)",
    )
    NUMBER = "{}::text", "{}"
    BOOLEAN = "CASE WHEN {} THEN 'true' ELSE 'false' END", "json(iif({}, 'true', 'false'))"
    JSON = "{}::text", "json({})"
    ERROR = (
        f"to_json(left({{}}, {LISTED_ERROR_LENGTH}))::text",
        f"substr({{}}, 1, {LISTED_ERROR_LENGTH})",
    )
    # Django leaves out the fraction of a whole second in SQLite.
    TIME = (
        r"""to_char({} AT TIME ZONE 'UTC', '\"YYYY-MM-DD"T"HH24:MI:SS.US"Z"\"')""",
        "substr(replace({0}, ' ', 'T') || iif(length({0}) = 19, '.', '') || '000000', 1, 26) || 'Z'",
    )


# In the order in which a job shows them.
COLUMNS: dict[str, Form] = {
    "id": Form.ID,
    "kind": Form.TEXT,
    "type": Form.TEXT,
    "queue": Form.TEXT,
    "state": Form.WORD,
    "reason": Form.WORD,
    "is_held": Form.BOOLEAN,
    "priority": Form.NUMBER,
    "tags": Form.JSON,
    "metadata": Form.JSON,
    "unique_key": Form.TEXT,
    "enqueued_by": Form.TEXT,
    "on_lost": Form.TEXT,
    "timeout_seconds": Form.NUMBER,
    "progress_timeout_seconds": Form.NUMBER,
    "retry_base_seconds": Form.NUMBER,
    "retry_cap_seconds": Form.NUMBER,
    "max_attempts": Form.NUMBER,
    "attempts": Form.NUMBER,
    "crashes": Form.NUMBER,
    "fence": Form.NUMBER,
    "node_id": Form.ID,
    "pending_dependencies": Form.NUMBER,
    "copy_of": Form.ID,
    "schedule_id": Form.ID,
    "due_at": Form.TIME,
    "trigger": Form.WORD,
    "progress_percent": Form.NUMBER,
    "progress_note": Form.TEXT,
    "error": Form.ERROR,
    "fingerprint": Form.TEXT,
    "run_at": Form.TIME,
    "created_at": Form.TIME,
    "started_at": Form.TIME,
    "finished_at": Form.TIME,
    "cancel_requested_at": Form.TIME,
    "expires_at": Form.TIME,
    "deadline_at": Form.TIME,
}


@cache
def item_sql(vendor: str) -> str:
    """An expression whose value is the JSON text of the job `j`."""
    if vendor == "postgresql":
        names = ",".join(f'"{name}":%%s' for name in COLUMNS)
        return f"format('{{{names}}}', {', '.join(map(_postgresql, COLUMNS))})"
    pairs = (f"'{name}', {form.value[1].format(f'j.{name}')}" for name, form in COLUMNS.items())
    return f"json_object({', '.join(pairs)})"


def _postgresql(name: str) -> str:
    text = COLUMNS[name].value[0].format(f"j.{name}")
    return f"coalesce({text}, 'null')" if Job._meta.get_field(name).null else text


def key_of(item: str) -> tuple[str, str]:
    """Where a job of a list stands in it."""
    job = json.loads(item)
    return job["created_at"], job["id"]
