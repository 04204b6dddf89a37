"""Samples of hosts, minute by minute; jobs that wait for another attempt, for their count and lists."""

from django.db import migrations, models

from jobs.migration_operations import AddIndexOnline


class Migration(migrations.Migration):
    # PostgreSQL builds an index online only outside of a transaction.
    atomic = False

    dependencies = [
        ("clusters", "0002_audit"),
        ("jobs", "0019_totals"),
    ]

    operations = [
        migrations.CreateModel(
            name="HostSample",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "minute",
                        "host",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("minute", models.DateTimeField()),
                ("host", models.CharField(max_length=255)),
                ("cpu_percent", models.FloatField(null=True)),
                ("memory_bytes", models.BigIntegerField(null=True)),
                ("disk_read_bytes", models.BigIntegerField(null=True)),
                ("disk_write_bytes", models.BigIntegerField(null=True)),
                ("disk_used_percent", models.FloatField(null=True)),
                ("read_p50_seconds", models.FloatField(null=True)),
                ("read_p95_seconds", models.FloatField(null=True)),
                ("read_p99_seconds", models.FloatField(null=True)),
                ("write_p50_seconds", models.FloatField(null=True)),
                ("write_p95_seconds", models.FloatField(null=True)),
                ("write_p99_seconds", models.FloatField(null=True)),
                ("rows_read", models.BigIntegerField(null=True)),
                ("rows_written", models.BigIntegerField(null=True)),
                ("connections_active", models.PositiveIntegerField(null=True)),
                ("connections_idle", models.PositiveIntegerField(null=True)),
                ("connections_max", models.PositiveIntegerField(null=True)),
                ("database_bytes", models.BigIntegerField(null=True)),
                ("wal_bytes", models.BigIntegerField(null=True)),
            ],
            options={
                "db_table": "host_sample",
            },
        ),
        AddIndexOnline(
            model_name="job",
            index=models.Index(
                condition=models.Q(("attempts__gt", 0), ("state__in", ("scheduled", "ready"))),
                fields=["created_at", "id", "queue"],
                name="job_retrying",
            ),
        ),
    ]
