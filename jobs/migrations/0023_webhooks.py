"""Webhooks: what has been told of jobs made of steps, and which of them have more to tell."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0022_steps"),
    ]

    operations = [
        migrations.CreateModel(
            name="WebhookEvent",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("event", models.CharField(max_length=32)),
                ("word", models.CharField(max_length=32)),
                ("fence", models.BigIntegerField()),
                ("is_last", models.BooleanField(default=False)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
            ],
            options={
                "db_table": "webhook_event",
            },
        ),
        migrations.AddField(
            model_name="stepsrun",
            name="is_watched",
            field=models.BooleanField(null=True),
        ),
        migrations.AddIndex(
            model_name="stepsrun",
            index=models.Index(
                condition=models.Q(("is_watched", True)), fields=["-job"], name="steps_run_watched"
            ),
        ),
        migrations.AddField(
            model_name="webhookevent",
            name="job",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.DO_NOTHING,
                to="jobs.job",
            ),
        ),
        migrations.AddIndex(
            model_name="webhookevent",
            index=models.Index(
                condition=models.Q(("is_last", True)),
                fields=["job", "fence"],
                name="webhook_event_last",
            ),
        ),
        migrations.AddConstraint(
            model_name="webhookevent",
            constraint=models.UniqueConstraint(
                fields=("job", "event", "word", "fence"), name="webhook_event_told_once"
            ),
        ),
    ]
