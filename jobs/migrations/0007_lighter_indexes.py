"""Indexes of the hot table: fewer for a claim and a completion to renew.

Lists by queue and by type are served by ``job_listing``, lists by state by two halves.
"""

from django.db import migrations, models

from jobs.migration_operations import AddIndexOnline, AddUniqueOnline, RemoveIndexOnline


class Migration(migrations.Migration):
    # PostgreSQL builds and drops indexes online only outside of a transaction.
    atomic = False

    dependencies = [("jobs", "0006_listing_backfill")]

    operations = [
        AddIndexOnline(
            model_name="job",
            index=models.Index(
                condition=models.Q(("state", "running")),
                fields=["node", "queue"],
                name="job_holder",
            ),
        ),
        AddIndexOnline(
            model_name="job",
            index=models.Index(
                condition=models.Q(
                    ("finished_at", None), models.Q(("state", "running"), _negated=True)
                ),
                fields=["state", "created_at", "id"],
                name="job_open",
            ),
        ),
        AddIndexOnline(
            model_name="job",
            index=models.Index(
                condition=models.Q(("finished_at__isnull", False)),
                fields=["state", "created_at", "id"],
                name="job_final",
            ),
        ),
        AddIndexOnline(
            model_name="job",
            index=models.Index(
                condition=models.Q(
                    ("expires_at__isnull", False), ("state__in", ("blocked", "scheduled", "ready"))
                ),
                fields=["expires_at"],
                name="job_expiring",
            ),
        ),
        AddIndexOnline(
            model_name="job",
            index=models.Index(
                condition=models.Q(
                    ("deadline_at__isnull", False), ("state__in", ("blocked", "scheduled", "ready"))
                ),
                fields=["deadline_at"],
                name="job_deadline",
            ),
        ),
        AddIndexOnline(
            model_name="job",
            index=models.Index(
                condition=models.Q(("copy_of__isnull", False)),
                fields=["copy_of"],
                name="job_copies",
            ),
        ),
        AddIndexOnline(
            model_name="job",
            index=models.Index(
                condition=models.Q(("fingerprint__isnull", False)),
                fields=["fingerprint", "created_at", "id"],
                name="job_fingerprint",
            ),
        ),
        AddIndexOnline(
            model_name="jobtag",
            index=models.Index(fields=["tag", "created_at", "job"], name="job_tag_newest"),
        ),
        AddUniqueOnline(
            model_name="job",
            constraint=models.UniqueConstraint(
                condition=models.Q(("finished_at", None), ("unique_key__isnull", False)),
                fields=("unique_key",),
                name="job_unique_while_open",
            ),
        ),
        RemoveIndexOnline(
            model_name="job",
            name="job_held",
        ),
        RemoveIndexOnline(
            model_name="job",
            name="job_newest",
        ),
        RemoveIndexOnline(
            model_name="job",
            name="job_newest_by_state",
        ),
        RemoveIndexOnline(
            model_name="job",
            name="job_newest_by_queue",
        ),
        RemoveIndexOnline(
            model_name="job",
            name="job_newest_by_type",
        ),
        RemoveIndexOnline(
            model_name="job",
            name="job_finished",
        ),
    ]
