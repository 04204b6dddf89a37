"""The newest jobs made of steps in a state, for searches by words of states."""

from django.db import migrations, models

from jobs.migration_operations import AddIndexOnline


class Migration(migrations.Migration):
    # PostgreSQL builds an index online only outside of a transaction.
    atomic = False

    dependencies = [("jobs", "0024_steps_listing")]

    operations = [
        AddIndexOnline(
            model_name="job",
            index=models.Index(
                condition=models.Q(("kind", "steps")),
                fields=["state", "created_at", "id"],
                name="job_steps_state",
            ),
        ),
    ]
