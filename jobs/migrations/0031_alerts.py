"""Alerts: rules, how they stand, and their history."""

import django.db.models.deletion
import django.db.models.functions.datetime
import uuid_utils.compat
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0030_failure_marks"),
    ]

    operations = [
        migrations.CreateModel(
            name="AlertRule",
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
                ("name", models.CharField(max_length=100, unique=True)),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("failure_rate", "Failure Rate"),
                            ("oldest_ready", "Oldest Ready"),
                            ("dead_nodes", "Dead Nodes"),
                            ("late_schedules", "Late Schedules"),
                            ("heartbeat", "Heartbeat"),
                        ],
                        max_length=14,
                    ),
                ),
                (
                    "severity",
                    models.CharField(
                        choices=[("warning", "Warning"), ("critical", "Critical")],
                        default="warning",
                        max_length=8,
                    ),
                ),
                ("is_enabled", models.BooleanField(default=True)),
                ("queue", models.CharField(max_length=100, null=True)),
                ("type", models.CharField(max_length=200, null=True)),
                ("schedule_id", models.UUIDField(null=True)),
                ("ratio", models.FloatField(null=True)),
                ("at_least", models.PositiveIntegerField(null=True)),
                ("window_seconds", models.PositiveIntegerField(null=True)),
                ("limit_seconds", models.FloatField(null=True)),
                ("for_seconds", models.FloatField(default=60.0)),
                ("clear_after_seconds", models.FloatField(default=60.0)),
                ("quiet_seconds", models.FloatField(default=300.0)),
                ("webhook_url", models.CharField(default="", max_length=2000)),
                (
                    "state",
                    models.CharField(
                        choices=[("ok", "Ok"), ("firing", "Firing")], default="ok", max_length=6
                    ),
                ),
                (
                    "state_since",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
                ("wrong_since", models.DateTimeField(null=True)),
                ("right_since", models.DateTimeField(null=True)),
                ("sentence", models.CharField(default="", max_length=500)),
                ("page", models.CharField(default="", max_length=500)),
                (
                    "told_state",
                    models.CharField(
                        choices=[("ok", "Ok"), ("firing", "Firing")], default="ok", max_length=6
                    ),
                ),
                ("told_at", models.DateTimeField(null=True)),
                ("turn", models.PositiveBigIntegerField(default=0)),
                ("acknowledged_by", models.CharField(default="", max_length=200)),
                ("acknowledged_at", models.DateTimeField(null=True)),
                ("acknowledge_reason", models.CharField(default="", max_length=500)),
                ("muted_by", models.CharField(default="", max_length=200)),
                ("muted_until", models.DateTimeField(null=True)),
                ("mute_reason", models.CharField(default="", max_length=500)),
                ("created_by", models.CharField(max_length=200)),
                ("updated_by", models.CharField(max_length=200)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
                (
                    "updated_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
                ("version", models.PositiveIntegerField(default=1)),
            ],
            options={
                "db_table": "alert_rule",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("wrong_since", None), ("right_since", None), _connector="OR"
                        ),
                        name="alert_rule_is_wrong_or_right",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("acknowledged_at", None), ("state", "firing"), _connector="OR"
                        ),
                        name="alert_rule_acknowledged_is_firing",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="AlertEvent",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "what",
                    models.CharField(
                        choices=[
                            ("fired", "Fired"),
                            ("recovered", "Recovered"),
                            ("told", "Told"),
                            ("untold", "Untold"),
                            ("tested", "Tested"),
                            ("acknowledged", "Acknowledged"),
                            ("muted", "Muted"),
                            ("unmuted", "Unmuted"),
                        ],
                        max_length=12,
                    ),
                ),
                ("sentence", models.CharField(default="", max_length=500)),
                ("by", models.CharField(default="", max_length=200)),
                ("job_id", models.UUIDField(null=True)),
                (
                    "rule",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="jobs.alertrule",
                    ),
                ),
            ],
            options={
                "db_table": "alert_event",
                "indexes": [
                    models.Index(fields=["rule", "-id"], name="alert_event_newest"),
                    models.Index(fields=["at"], name="alert_event_oldest"),
                ],
            },
        ),
    ]
