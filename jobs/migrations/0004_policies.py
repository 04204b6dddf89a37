"""Policies of queues and jobs, dependencies, roll-ups, failures, bulk operations, upkeep.

Every new column of ``job`` and ``queue`` may be null or has a default of the database, so that servers
of the version before go on inserting.
"""

import django.db.models.deletion
import django.db.models.functions.datetime
import uuid_utils.compat
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("clusters", "0001_initial"),
        ("jobs", "0003_default_queue"),
    ]

    operations = [
        migrations.CreateModel(
            name="BulkOperation",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "action",
                    models.CharField(
                        choices=[
                            ("cancel", "Cancel"),
                            ("retry", "Retry"),
                            ("run_now", "Run Now"),
                            ("move", "Move"),
                            ("set_priority", "Set Priority"),
                            ("delete", "Delete"),
                        ],
                        max_length=12,
                    ),
                ),
                ("filter", models.JSONField(default=dict)),
                ("arguments", models.JSONField(default=dict)),
                ("reason", models.CharField(max_length=500)),
                ("requested_by", models.CharField(max_length=200)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("pending", "Pending"),
                            ("running", "Running"),
                            ("finished", "Finished"),
                            ("cancelled", "Cancelled"),
                            ("failed", "Failed"),
                        ],
                        default="pending",
                        max_length=9,
                    ),
                ),
                (
                    "covers_until",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
                ("expected", models.PositiveBigIntegerField(null=True)),
                ("seen", models.PositiveBigIntegerField(default=0)),
                ("outcomes", models.JSONField(default=dict)),
                ("cursor", models.JSONField(null=True)),
                ("error", models.TextField(null=True)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
                ("started_at", models.DateTimeField(null=True)),
                ("finished_at", models.DateTimeField(null=True)),
                ("cancel_requested_at", models.DateTimeField(null=True)),
                ("cancelled_by", models.CharField(max_length=200, null=True)),
            ],
            options={
                "db_table": "bulk_operation",
            },
        ),
        migrations.CreateModel(
            name="Failure",
            fields=[
                ("fingerprint", models.CharField(max_length=16, primary_key=True, serialize=False)),
                ("error_type", models.CharField(max_length=200)),
                ("message", models.CharField(max_length=500)),
                ("frame", models.CharField(max_length=300)),
                ("type", models.CharField(max_length=200)),
                ("queue", models.CharField(max_length=100)),
                ("job_id", models.UUIDField()),
                ("example", models.TextField()),
                ("count", models.PositiveBigIntegerField(default=0)),
                ("first_seen_at", models.DateTimeField()),
                ("last_seen_at", models.DateTimeField()),
            ],
            options={
                "db_table": "failure",
            },
        ),
        migrations.CreateModel(
            name="FailureHour",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "fingerprint",
                        "starts_at",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("fingerprint", models.CharField(max_length=16)),
                ("starts_at", models.DateTimeField()),
                ("count", models.PositiveBigIntegerField(default=0)),
            ],
            options={
                "db_table": "failure_hour",
            },
        ),
        migrations.CreateModel(
            name="FailureSighting",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("fingerprint", models.CharField(max_length=16)),
                ("fence", models.BigIntegerField()),
                ("seen_at", models.DateTimeField()),
                (
                    "job",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="jobs.job",
                    ),
                ),
            ],
            options={
                "db_table": "failure_sighting",
            },
        ),
        migrations.CreateModel(
            name="JobDependency",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "child_id",
                        "parent_id",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "needs",
                    models.CharField(
                        choices=[("all", "All"), ("any", "Any")], default="all", max_length=3
                    ),
                ),
                (
                    "on_failure",
                    models.CharField(
                        choices=[("fail", "Fail"), ("skip", "Skip"), ("run", "Run")],
                        default="fail",
                        max_length=4,
                    ),
                ),
                ("satisfied_at", models.DateTimeField(null=True)),
                (
                    "child",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="dependencies",
                        to="jobs.job",
                    ),
                ),
                (
                    "parent",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="dependants",
                        to="jobs.job",
                    ),
                ),
            ],
            options={
                "db_table": "job_dependency",
            },
        ),
        migrations.CreateModel(
            name="JobListing",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "created_at",
                        "job_id",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("created_at", models.DateTimeField()),
                ("queue", models.CharField(max_length=100)),
                ("type", models.CharField(max_length=200)),
                (
                    "job",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="listing",
                        to="jobs.job",
                    ),
                ),
            ],
            options={
                "db_table": "job_listing",
            },
        ),
        migrations.CreateModel(
            name="JobMetadata",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "key",
                        "value",
                        "created_at",
                        "job_id",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("key", models.CharField(max_length=60)),
                ("value", models.CharField(max_length=300)),
                ("created_at", models.DateTimeField()),
                (
                    "job",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        to="jobs.job",
                    ),
                ),
            ],
            options={
                "db_table": "job_metadata",
            },
        ),
        migrations.CreateModel(
            name="Rollup",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "resolution_seconds",
                        "starts_at",
                        "queue",
                        "type",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("resolution_seconds", models.PositiveIntegerField()),
                ("starts_at", models.DateTimeField()),
                ("queue", models.CharField(max_length=100)),
                ("type", models.CharField(max_length=200)),
                ("enqueued", models.PositiveBigIntegerField(default=0)),
                ("started", models.PositiveBigIntegerField(default=0)),
                ("succeeded", models.PositiveBigIntegerField(default=0)),
                ("failed", models.PositiveBigIntegerField(default=0)),
                ("cancelled", models.PositiveBigIntegerField(default=0)),
                ("skipped", models.PositiveBigIntegerField(default=0)),
                ("retried", models.PositiveBigIntegerField(default=0)),
                ("released", models.PositiveBigIntegerField(default=0)),
                ("wait_histogram", models.JSONField(default=dict)),
                ("run_histogram", models.JSONField(default=dict)),
            ],
            options={
                "db_table": "rollup",
            },
        ),
        migrations.CreateModel(
            name="Tally",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("minute", models.DateTimeField()),
                ("queue", models.CharField(max_length=100)),
                ("type", models.CharField(max_length=200)),
                (
                    "event",
                    models.CharField(
                        choices=[
                            ("enqueued", "Enqueued"),
                            ("started", "Started"),
                            ("succeeded", "Succeeded"),
                            ("failed", "Failed"),
                            ("cancelled", "Cancelled"),
                            ("skipped", "Skipped"),
                            ("retried", "Retried"),
                            ("released", "Released"),
                        ],
                        max_length=9,
                    ),
                ),
                ("bucket", models.SmallIntegerField(null=True)),
                ("count", models.PositiveIntegerField()),
            ],
            options={
                "db_table": "tally",
            },
        ),
        migrations.CreateModel(
            name="UpkeepDuty",
            fields=[
                ("name", models.CharField(max_length=40, primary_key=True, serialize=False)),
                ("node_id", models.UUIDField(null=True)),
                ("lease_until", models.DateTimeField(null=True)),
                ("next_at", models.DateTimeField(null=True)),
                ("last_started_at", models.DateTimeField(null=True)),
                ("last_finished_at", models.DateTimeField(null=True)),
                ("last_count", models.BigIntegerField(null=True)),
                ("last_error", models.TextField(null=True)),
            ],
            options={
                "db_table": "upkeep_duty",
            },
        ),
        migrations.AddField(
            model_name="job",
            name="copy_of",
            field=models.UUIDField(null=True),
        ),
        migrations.AddField(
            model_name="job",
            name="deadline_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="job",
            name="expires_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="job",
            name="fingerprint",
            field=models.CharField(max_length=16, null=True),
        ),
        migrations.AddField(
            model_name="job",
            name="has_dependants",
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.AddField(
            model_name="job",
            name="metadata",
            field=models.JSONField(db_default=models.Value({}, models.JSONField()), default=dict),
        ),
        migrations.AddField(
            model_name="job",
            name="pending_dependencies",
            field=models.PositiveIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="job",
            name="progress_timeout_seconds",
            field=models.FloatField(null=True),
        ),
        migrations.AddField(
            model_name="job",
            name="retry_base_seconds",
            field=models.FloatField(null=True),
        ),
        migrations.AddField(
            model_name="job",
            name="retry_cap_seconds",
            field=models.FloatField(null=True),
        ),
        migrations.AddField(
            model_name="job",
            name="unique_key",
            field=models.CharField(max_length=200, null=True),
        ),
        migrations.AddField(
            model_name="jobtag",
            name="created_at",
            field=models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
        ),
        migrations.AddField(
            model_name="queue",
            name="default_max_attempts",
            field=models.PositiveSmallIntegerField(null=True),
        ),
        migrations.AddField(
            model_name="queue",
            name="default_priority",
            field=models.SmallIntegerField(null=True),
        ),
        migrations.AddField(
            model_name="queue",
            name="default_timeout_seconds",
            field=models.FloatField(null=True),
        ),
        migrations.AddField(
            model_name="queue",
            name="is_backoff_enabled",
            field=models.BooleanField(db_default=True, default=True),
        ),
        migrations.AddField(
            model_name="queue",
            name="max_age_seconds",
            field=models.FloatField(null=True),
        ),
        migrations.AddField(
            model_name="queue",
            name="max_concurrency",
            field=models.PositiveIntegerField(null=True),
        ),
        migrations.AddField(
            model_name="queue",
            name="max_entries",
            field=models.PositiveIntegerField(null=True),
        ),
        migrations.AddField(
            model_name="queue",
            name="overflow",
            field=models.CharField(
                choices=[("refuse", "Refuse"), ("drop_oldest", "Drop Oldest")],
                db_default="refuse",
                default="refuse",
                max_length=11,
            ),
        ),
        migrations.AddField(
            model_name="queue",
            name="rate_limit",
            field=models.PositiveIntegerField(null=True),
        ),
        migrations.AddField(
            model_name="queue",
            name="rate_period_seconds",
            field=models.FloatField(db_default=1.0, default=1.0),
        ),
        migrations.AddField(
            model_name="queue",
            name="rate_grants",
            field=models.JSONField(db_default=models.Value([], models.JSONField()), default=list),
        ),
        migrations.AddField(
            model_name="queue",
            name="resume_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="queue",
            name="retain_failed_seconds",
            field=models.FloatField(null=True),
        ),
        migrations.AddField(
            model_name="queue",
            name="retain_succeeded_seconds",
            field=models.FloatField(null=True),
        ),
        migrations.AddField(
            model_name="queue",
            name="retry_base_seconds",
            field=models.FloatField(null=True),
        ),
        migrations.AddField(
            model_name="queue",
            name="retry_cap_seconds",
            field=models.FloatField(null=True),
        ),
        migrations.AddConstraint(
            model_name="job",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("pending_dependencies__gt", 0), ("state", "blocked")),
                    models.Q(("state", "blocked"), _negated=True),
                    _connector="OR",
                ),
                name="job_blocked_waits_for_something",
            ),
        ),
        migrations.AddConstraint(
            model_name="queue",
            constraint=models.CheckConstraint(
                condition=models.Q(("is_paused", True), ("resume_at", None), _connector="OR"),
                name="queue_resumes_what_is_paused",
            ),
        ),
        migrations.AddConstraint(
            model_name="queue",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("max_concurrency", None), ("max_concurrency__gte", 1), _connector="OR"
                    ),
                    models.Q(("rate_limit", None), ("rate_limit__gte", 1), _connector="OR"),
                    models.Q(("max_entries", None), ("max_entries__gte", 1), _connector="OR"),
                    ("rate_period_seconds__gt", 0),
                ),
                name="queue_limits_positive",
            ),
        ),
        migrations.AddIndex(
            model_name="bulkoperation",
            index=models.Index(
                condition=models.Q(("status__in", ("pending", "running"))),
                fields=["created_at"],
                name="bulk_operation_open",
            ),
        ),
        migrations.AddIndex(
            model_name="bulkoperation",
            index=models.Index(fields=["-created_at", "-id"], name="bulk_operation_newest"),
        ),
        migrations.AddConstraint(
            model_name="bulkoperation",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("status__in", ["pending", "running", "finished", "cancelled", "failed"])
                ),
                name="bulk_operation_status_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="bulkoperation",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("finished_at", None), ("status__in", ("pending", "running"))),
                    models.Q(
                        models.Q(("status__in", ("pending", "running")), _negated=True),
                        ("finished_at__isnull", False),
                    ),
                    _connector="OR",
                ),
                name="bulk_operation_finished_at_tells_the_end",
            ),
        ),
        migrations.AddIndex(
            model_name="failure",
            index=models.Index(fields=["-last_seen_at", "fingerprint"], name="failure_latest"),
        ),
        migrations.AddIndex(
            model_name="jobdependency",
            index=models.Index(fields=["parent", "child"], name="job_dependency_parent"),
        ),
        migrations.AddIndex(
            model_name="joblisting",
            index=models.Index(fields=["queue", "created_at", "job"], name="job_listing_queue"),
        ),
        migrations.AddIndex(
            model_name="joblisting",
            index=models.Index(fields=["type", "created_at", "job"], name="job_listing_type"),
        ),
    ]
