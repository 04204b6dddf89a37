"""What lists of schedules are filtered by, beside the table that fires write to.

Triggers keep it in step with ``schedule``, whoever writes there; none of them fires when a schedule does.
"""

import django.db.models.deletion
from django.db import migrations, models

_COLUMNS = "created_at, kind, type, queue, timing, source, created_by, tags"
# An update that names one of these is seen; those of a fire are not.
_WATCHED = "name, description, kind, type, queue, timing, source, created_by, tags"
_TEXT = {
    "postgresql": "lower({0}name || chr(10) || {0}description)",
    "sqlite": "lower({0}name || char(10) || {0}description)",
}


def _values(vendor, of="NEW."):
    names = ", ".join(f"{of}{name}" for name in _COLUMNS.split(", "))
    return f"{of}id, {names}, {_TEXT[vendor].format(of)}"


def _change(vendor):
    names = ("kind", "type", "queue", "timing", "source", "created_by", "tags")
    pairs = ", ".join(f"{name} = NEW.{name}" for name in names)
    text = _TEXT[vendor].format("NEW.")
    return f"UPDATE schedule_listing SET {pairs}, text = {text} WHERE schedule_id = NEW.id"  # noqa: S608


def forwards(apps, schema_editor):
    vendor = schema_editor.connection.vendor
    into = f"INSERT INTO schedule_listing (schedule_id, {_COLUMNS}, text)"
    add, change = f"{into} VALUES ({_values(vendor)})", _change(vendor)
    if vendor == "postgresql":
        schema_editor.execute(
            "CREATE INDEX schedule_listing_tags ON schedule_listing USING gin (tags jsonb_path_ops)"
        )
        for name, when, body in (
            ("add", "INSERT", add),
            ("change", f"UPDATE OF {_WATCHED}", change),
        ):
            schema_editor.execute(
                f"CREATE FUNCTION schedule_listing_{name}() RETURNS trigger LANGUAGE plpgsql AS"
                f" $$ BEGIN {body}; RETURN NULL; END $$"
            )
            schema_editor.execute(
                f"CREATE TRIGGER schedule_listing_{name} AFTER {when} ON schedule"
                f" FOR EACH ROW EXECUTE FUNCTION schedule_listing_{name}()"
            )
    else:
        schema_editor.execute(
            f"CREATE TRIGGER schedule_listing_add AFTER INSERT ON schedule BEGIN {add}; END"
        )
        schema_editor.execute(
            f"CREATE TRIGGER schedule_listing_change AFTER UPDATE OF {_WATCHED} ON schedule"
            f" BEGIN {change}; END"
        )
    schema_editor.execute(f"{into} SELECT {_values(vendor, 's.')} FROM schedule s")  # noqa: S608


def backwards(apps, schema_editor):
    is_postgresql = schema_editor.connection.vendor == "postgresql"
    for name in ("add", "change"):
        on = " ON schedule" if is_postgresql else ""
        schema_editor.execute(f"DROP TRIGGER schedule_listing_{name}{on}")
        if is_postgresql:
            schema_editor.execute(f"DROP FUNCTION schedule_listing_{name}()")
    if is_postgresql:
        schema_editor.execute("DROP INDEX schedule_listing_tags")


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0015_schedule_indexes"),
    ]

    operations = [
        migrations.CreateModel(
            name="ScheduleListing",
            fields=[
                (
                    "schedule",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="listing",
                        serialize=False,
                        to="jobs.schedule",
                    ),
                ),
                ("created_at", models.DateTimeField()),
                ("kind", models.CharField(max_length=16)),
                ("type", models.CharField(max_length=200)),
                ("queue", models.CharField(max_length=100)),
                ("timing", models.CharField(max_length=8)),
                ("source", models.CharField(max_length=6)),
                ("created_by", models.CharField(max_length=200)),
                ("tags", models.JSONField()),
                ("text", models.TextField()),
            ],
            options={
                "db_table": "schedule_listing",
            },
        ),
        migrations.AddIndex(
            model_name="schedule",
            index=models.Index(
                condition=models.Q(("deleted_at__isnull", False)),
                fields=["-created_at", "-id"],
                name="schedule_deleted",
            ),
        ),
        migrations.AddIndex(
            model_name="schedule",
            index=models.Index(
                condition=models.Q(("deleted_at", None), ("is_paused", True)),
                fields=["-created_at", "-id"],
                name="schedule_paused",
            ),
        ),
        migrations.AddIndex(
            model_name="schedule",
            index=models.Index(
                condition=models.Q(
                    ("deleted_at", None), ("is_enabled", False), ("is_paused", False)
                ),
                fields=["-created_at", "-id"],
                name="schedule_disabled",
            ),
        ),
        migrations.AddIndex(
            model_name="schedule",
            index=models.Index(
                condition=models.Q(("deleted_at", None), ("error__isnull", False)),
                fields=["-created_at", "-id"],
                name="schedule_broken",
            ),
        ),
        migrations.AddIndex(
            model_name="schedule",
            index=models.Index(
                condition=models.Q(
                    ("deleted_at", None),
                    ("error", None),
                    ("is_enabled", True),
                    ("is_paused", False),
                    ("next_due_at__isnull", True),
                ),
                fields=["-created_at", "-id"],
                name="schedule_completed",
            ),
        ),
        migrations.AddIndex(
            model_name="schedulelisting",
            index=models.Index(fields=["kind", "-created_at"], name="schedule_listing_kind"),
        ),
        migrations.AddIndex(
            model_name="schedulelisting",
            index=models.Index(fields=["type", "-created_at"], name="schedule_listing_type"),
        ),
        migrations.AddIndex(
            model_name="schedulelisting",
            index=models.Index(fields=["queue", "-created_at"], name="schedule_listing_queue"),
        ),
        migrations.AddIndex(
            model_name="schedulelisting",
            index=models.Index(fields=["timing", "-created_at"], name="schedule_listing_timing"),
        ),
        migrations.AddIndex(
            model_name="schedulelisting",
            index=models.Index(fields=["source", "-created_at"], name="schedule_listing_source"),
        ),
        migrations.AddIndex(
            model_name="schedulelisting",
            index=models.Index(
                fields=["created_by", "-created_at"], name="schedule_listing_created_by"
            ),
        ),
        migrations.RunPython(forwards, backwards),
    ]
