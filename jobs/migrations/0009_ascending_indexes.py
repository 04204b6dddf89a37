"""Indexes of lists in the order in which rows come; a list reads them backwards.

With the newest first every entry went before the last one: pages were split in the middle and stayed half
empty, and a bulk of new jobs searched its place for each row. Each index is missing while its successor
is built, and lists are slower.
"""

from django.db import migrations, models

from jobs.migration_operations import AddIndexOnline, RemoveIndexOnline

OPEN = models.Q(("finished_at", None), models.Q(("state", "running"), _negated=True))
FINAL = models.Q(("finished_at__isnull", False))


def renewed(model_name, index):
    return [
        RemoveIndexOnline(model_name=model_name, name=index.name),
        AddIndexOnline(model_name=model_name, index=index),
    ]


class Migration(migrations.Migration):
    # PostgreSQL builds and drops indexes online only outside of a transaction.
    atomic = False

    dependencies = [("jobs", "0009_wider_metadata")]

    operations = [
        *renewed(
            "job",
            models.Index(condition=OPEN, fields=["state", "created_at", "id"], name="job_open"),
        ),
        *renewed(
            "job",
            models.Index(condition=FINAL, fields=["state", "created_at", "id"], name="job_final"),
        ),
        *renewed(
            "joblisting",
            models.Index(fields=["queue", "created_at", "job"], name="job_listing_queue"),
        ),
        *renewed(
            "joblisting",
            models.Index(fields=["type", "created_at", "job"], name="job_listing_type"),
        ),
        *renewed(
            "jobtag", models.Index(fields=["tag", "created_at", "job"], name="job_tag_newest")
        ),
    ]
