"""Samples of hosts, minute by minute."""

from django.db import migrations, models


class Migration(migrations.Migration):
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
    ]
