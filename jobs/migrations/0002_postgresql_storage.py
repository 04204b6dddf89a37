"""Storage settings of the hot table on PostgreSQL.

Every claim and completion leaves a dead entry at the head of the index on ready jobs, and the next
claim reads past all of them. Autovacuum by a share of the table would come after millions; here it
comes by count. Room in each page keeps updates of progress and cancel requests inside their page.
"""

from django.db import migrations

TUNE = """
ALTER TABLE job SET (
    fillfactor = 80,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0.01
)
"""
RESET = """
ALTER TABLE job RESET (
    fillfactor,
    autovacuum_vacuum_scale_factor,
    autovacuum_vacuum_threshold,
    autovacuum_vacuum_cost_delay,
    autovacuum_analyze_scale_factor
)
"""


def run(statement):
    def forwards(apps, schema_editor):
        if schema_editor.connection.vendor == "postgresql":
            schema_editor.execute(statement)

    return forwards


class Migration(migrations.Migration):
    dependencies = [("jobs", "0001_initial")]

    operations = [migrations.RunPython(run(TUNE), run(RESET))]
