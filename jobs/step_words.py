"""What the definition of steps and their rows agree on."""

from __future__ import annotations

# The kinds of jobs that are made of others: by a definition, or as a composite step of one.
STEPS, GROUP = "steps", "group"
MADE_OF_STEPS = (STEPS, GROUP)
# In a dialect's notes: whom lists show the job to, see StepsListing.
AUDIENCE = "audience"
# In a dialect's notes: how long after its success the job is deleted, in seconds.
DELETE_AFTER = "delete_after_seconds"
MAX_STEPS_NAME_LENGTH, MAX_STEP_NAME_LENGTH, MAX_VAR_LENGTH = 256, 256, 64
# Of a job, and of pieces of work that say nothing of it themselves.
DEFAULTS = (
    *("queue", "priority", "timeout_seconds", "max_attempts"),
    *("retry_base_seconds", "retry_cap_seconds", "retry_curve"),
)
