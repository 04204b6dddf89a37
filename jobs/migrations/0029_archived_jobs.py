"""Which jobs came from another cluster."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("jobs", "0028_secrets")]

    operations = [
        migrations.CreateModel(
            name="ArchivedJob",
            fields=[
                (
                    "job",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        primary_key=True,
                        related_name="archived",
                        serialize=False,
                        to="jobs.job",
                    ),
                ),
                ("source", models.CharField(max_length=25)),
                ("fence", models.BigIntegerField()),
                ("finished_at", models.DateTimeField()),
                (
                    "archived_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
            ],
            options={"db_table": "archived_job"},
        ),
    ]
