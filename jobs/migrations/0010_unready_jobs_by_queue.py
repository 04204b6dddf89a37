"""An index of what is in a queue besides ready and running jobs, to count it and to see that it is empty.

Neither the enqueue of a ready job nor a claim or a completion writes there.
"""

from django.db import migrations, models

from jobs.migration_operations import AddIndexOnline


class Migration(migrations.Migration):
    # PostgreSQL builds an index online only outside of a transaction.
    atomic = False

    dependencies = [("jobs", "0009_wider_metadata")]

    operations = [
        AddIndexOnline(
            model_name="job",
            index=models.Index(
                condition=models.Q(("state__in", ("blocked", "scheduled", "waiting"))),
                fields=["queue", "state"],
                name="job_unready",
            ),
        ),
    ]
