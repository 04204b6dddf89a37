"""What this API calls what we call by another name: fields of definitions, and words of sentences."""

from __future__ import annotations

import re

# Where our words for what is wrong differ from those of this API; longest first.
FIELDS: tuple[tuple[str, str], ...] = (
    ("payload.expected_status", "jobConfiguration.successStatusCodes"),
    ("payload.retry_status", "jobConfiguration.retryOnStatusCodes"),
    ("payload.timeout_seconds", "jobConfiguration.timeoutSeconds"),
    ("payload.content_type", "jobConfiguration.body"),
    ("payload.json", "jobConfiguration.body"),
    ("payload.connection", "jobConfiguration.databaseConnectionStringName"),
    ("payload.procedure", "jobConfiguration.storedProcedureName"),
    ("payload.root", "jobConfiguration.sourcePath"),
    ("payload.path", "jobConfiguration.sourcePath"),
    ("payload.pattern", "jobConfiguration.sourcePath"),
    ("payload.to", "jobConfiguration.destinationPath"),
    ("payload.older_than_seconds", "jobConfiguration.olderThanHours"),
    (
        "payload.delete_empty_directories",
        "jobConfiguration.deleteEmptyDirectories",
    ),
    ("payload.format", "jobConfiguration.compression"),
    ("payload", "jobConfiguration"),
    ("type", "jobConfiguration.handlerType"),
    ("kind", "jobType"),
    ("timing", "scheduleType"),
    ("expression", "scheduleExpression"),
    ("interval_seconds", "intervalSeconds"),
    ("run_at", "runAt"),
    ("effective_from", "effectiveFrom"),
    ("timeout_seconds", "timeoutSeconds"),
    ("max_attempts", "retryPolicy.maxAttempts"),
    ("retry_base_seconds", "retryPolicy.delaySeconds"),
    ("retry_cap_seconds", "retryPolicy.maxDelaySeconds"),
    ("retry_curve", "retryPolicy.backoffType"),
    ("misfire", "misfireHandling"),
    ("overlap", "concurrencyPolicy"),
    ("depends_on", "dependsOnJobIds"),
    ("needs", "condition"),
    ("exclusions.dates", "excludedDates"),
    ("exclusions.days_of_week", "excludedDaysOfWeek"),
    ("exclusions.time_ranges", "timeRanges"),
    ("exclusions.calendars", "calendars"),
    ("exclusions.countries", "countries"),
    ("nodes", "jobs"),
)
# Inside of the nodes of a workflow.
_NODE = re.compile(r"nodes\[(\d+)\]")
_NODE_FIELDS = {"schedule_id": "jobId", "depends_on": "dependsOn", "on_failure": "onFailure"}


def field_to_wire(field: str) -> str:
    """What this API calls what we call by this name."""
    if node := _NODE.match(field):
        rest = field[node.end() :].removeprefix(".")
        return f"jobs[{node[1]}]" + (f".{_NODE_FIELDS.get(rest, rest)}" if rest else "")
    for ours, theirs in FIELDS:
        if field == ours or field.startswith((f"{ours}.", f"{ours}[")):
            return theirs + field[len(ours) :]
    return field


# In our sentences, outside of what is quoted; and the field names that stand in them.
_WORDS = {
    "a schedule": "a job",
    "schedule": "job",
    "schedules": "jobs",
    "a job": "an execution",
    "job": "execution",
    "jobs": "executions",
    **{ours: theirs for ours, theirs in FIELDS if "_" in ours and "." not in ours},
}
_QUOTED = r"""(?<!\w)(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")(?!\w)"""
_OURS = re.compile(
    rf"{_QUOTED}|\b(?:{'|'.join(sorted(_WORDS, key=len, reverse=True))})\b", re.IGNORECASE
)


def words_to_wire(text: str) -> str:
    """One of our sentences in the words of this API, where schedules are jobs and jobs executions."""
    return _OURS.sub(_word_to_wire, text)


def _word_to_wire(found: re.Match[str]) -> str:
    ours = found[0]
    theirs = _WORDS.get(ours.lower(), ours)
    return theirs.capitalize() if ours[0].isupper() and theirs != ours else theirs
