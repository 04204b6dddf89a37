"""Fill ``job_listing`` for jobs that were there before, and give tags the age of their jobs."""

from django.db import migrations, transaction

BATCH = 5000

LIST = """
INSERT INTO job_listing (created_at, job_id, queue, type)
SELECT created_at, id, queue, type FROM job
 WHERE id > %s AND id <= %s ON CONFLICT DO NOTHING
"""
DATE_TAGS = """
UPDATE job_tag SET created_at = (SELECT created_at FROM job WHERE job.id = job_tag.job_id)
 WHERE job_id > %s AND job_id <= %s AND EXISTS (SELECT 1 FROM job WHERE job.id = job_tag.job_id)
"""


def forwards(apps, schema_editor):
    """In steps of their own, so that nobody waits long for any of them."""
    connection = schema_editor.connection
    lowest = "0" * 32
    with connection.cursor() as cursor:
        while True:
            cursor.execute(
                "SELECT max(id), count(*) FROM (SELECT id FROM job WHERE id > %s ORDER BY id LIMIT %s)"
                " AS page"
                if connection.vendor != "postgresql"
                # There is no max() of uuids before PostgreSQL 18.
                else "SELECT (array_agg(id ORDER BY id DESC))[1], count(*) FROM"
                " (SELECT id FROM job WHERE id > %s ORDER BY id LIMIT %s) AS page",
                [lowest, BATCH],
            )
            highest, count = cursor.fetchone()
            if not count:
                return
            with transaction.atomic(using=connection.alias):
                cursor.execute(LIST, [lowest, highest])
                cursor.execute(DATE_TAGS, [lowest, highest])
            lowest = highest


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("jobs", "0005_listing_triggers")]

    operations = [migrations.RunPython(forwards, migrations.RunPython.noop)]
