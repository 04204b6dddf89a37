"""What people say of groups of failures, where those were seen, and how often by the minute."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0029_archived_jobs"),
    ]

    operations = [
        migrations.CreateModel(
            name="FailureMinute",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "fingerprint",
                        "starts_at",
                        "queue",
                        "type",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("fingerprint", models.CharField(max_length=16)),
                ("starts_at", models.DateTimeField()),
                ("queue", models.CharField(max_length=100)),
                ("type", models.CharField(max_length=200)),
                ("count", models.PositiveBigIntegerField(default=0)),
                ("failed", models.PositiveBigIntegerField(default=0)),
            ],
            options={
                "db_table": "failure_minute",
            },
        ),
        migrations.AddField(
            model_name="failure",
            name="mark",
            field=models.CharField(
                choices=[
                    ("new", "New"),
                    ("known", "Known"),
                    ("muted", "Muted"),
                    ("returned", "Returned"),
                ],
                db_default="new",
                default="new",
                max_length=8,
            ),
        ),
        migrations.AddField(
            model_name="failure",
            name="mark_reason",
            field=models.CharField(db_default="", default="", max_length=500),
        ),
        migrations.AddField(
            model_name="failure",
            name="marked_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="failure",
            name="marked_by",
            field=models.CharField(db_default="", default="", max_length=200),
        ),
        migrations.AddField(
            model_name="failure",
            name="muted_until",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="failure",
            name="owner",
            field=models.CharField(db_default="", default="", max_length=200),
        ),
        migrations.AddField(
            model_name="failure",
            name="returned_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="failure",
            name="seen_on",
            field=models.JSONField(db_default=models.Value({}, models.JSONField()), default=dict),
        ),
        migrations.AddField(
            model_name="failure",
            name="ticket",
            field=models.CharField(db_default="", default="", max_length=500),
        ),
        migrations.AddIndex(
            model_name="failure",
            index=models.Index(
                condition=models.Q(("mark", "muted")), fields=["muted_until"], name="failure_muted"
            ),
        ),
        migrations.AddConstraint(
            model_name="failure",
            constraint=models.CheckConstraint(
                condition=models.Q(("mark__in", ["new", "known", "muted", "returned"])),
                name="failure_mark_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="failure",
            constraint=models.CheckConstraint(
                condition=models.Q(("muted_until", None), ("mark", "muted"), _connector="OR"),
                name="failure_muted_until_goes_with_mute",
            ),
        ),
        migrations.AddIndex(
            model_name="failureminute",
            index=models.Index(fields=["starts_at"], name="failure_minute_latest"),
        ),
    ]
