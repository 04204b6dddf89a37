"""The checks of the hot table in fewer words, on PostgreSQL.

A statement that inserts or updates a row of a table reads the stored text of every check of it, once, and
a list written as Django writes it is stored as one expression for each of its values. The same conditions
around one constant of the list's values take a tenth off the cost of a statement for a single job.
"""

from django.db import migrations

CHECKS = {
    "job_state_known": "state = ANY ('{blocked,scheduled,ready,running,waiting,succeeded,failed,"
    "cancelled,skipped}'::text[])",
    "job_finished_at_tells_the_end": "(finished_at IS NOT NULL)"
    " = (state = ANY ('{succeeded,failed,cancelled,skipped}'::text[]))",
    # Without a reason the second half is NULL, which a check lets pass; the first half decides.
    "job_reason_goes_with_failed": "(reason IS NOT NULL) = (state = 'failed') AND reason = ANY"
    " ('{error,timeout,lost,expired,dependency,poisoned,bad_definition}'::text[])",
    "job_blocked_waits_for_something": "state <> 'blocked' OR pending_dependencies > 0",
    "job_progress_range": "progress_percent >= 0 AND progress_percent <= 100",
}


def forwards(apps, schema_editor):
    if schema_editor.connection.vendor != "postgresql":
        return
    for name, condition in CHECKS.items():
        # Rows are looked at afterwards, and nobody waits meanwhile.
        schema_editor.execute(
            f"ALTER TABLE job DROP CONSTRAINT {name},"
            f" ADD CONSTRAINT {name} CHECK ({condition}) NOT VALID"
        )
        schema_editor.execute(f"ALTER TABLE job VALIDATE CONSTRAINT {name}")


def backwards(apps, schema_editor):
    if schema_editor.connection.vendor != "postgresql":
        return
    model = apps.get_model("jobs", "Job")
    for constraint in model._meta.constraints:
        if constraint.name in CHECKS:
            schema_editor.remove_constraint(model, constraint)
            schema_editor.add_constraint(model, constraint)


class Migration(migrations.Migration):
    # Each statement for itself, so that no lock outlives it.
    atomic = False

    dependencies = [("jobs", "0011_rollup_series")]

    operations = [migrations.RunPython(forwards, backwards)]
