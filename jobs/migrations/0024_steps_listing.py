"""Words of jobs made of steps, to search for."""

import django.db.models.deletion
from django.db import migrations, models

POSTGRES = """
ALTER TABLE steps_listing ADD COLUMN search tsvector GENERATED ALWAYS AS (
  setweight(to_tsvector('english'::regconfig, name), 'B')
  || setweight(to_tsvector('english'::regconfig, description), 'C')) STORED
"""
POSTGRES_INDEX = "CREATE INDEX steps_listing_search ON steps_listing USING gin (search)"
SQLITE = [
    """CREATE VIRTUAL TABLE steps_search USING fts5(
         name, description, tokenize='porter unicode61')""",
    """CREATE TRIGGER steps_search_add AFTER INSERT ON steps_listing BEGIN
         INSERT INTO steps_search (rowid, name, description)
         VALUES (NEW.id, NEW.name, NEW.description);
       END""",
    """CREATE TRIGGER steps_search_remove AFTER DELETE ON steps_listing BEGIN
         DELETE FROM steps_search WHERE rowid = OLD.id;
       END""",
]
SQLITE_BACK = [
    "DROP TRIGGER steps_search_add",
    "DROP TRIGGER steps_search_remove",
    "DROP TABLE steps_search",
]
# Of jobs that were there before.
FILL = """
INSERT INTO steps_listing (job_id, created_at, name, description)
SELECT r.job_id, j.created_at, r.name, r.description
  FROM steps_run r JOIN job j ON j.id = r.job_id WHERE j.kind = 'steps' ORDER BY j.created_at, j.id
"""


def forwards(apps, schema_editor):
    is_postgresql = schema_editor.connection.vendor == "postgresql"
    for statement in [POSTGRES, POSTGRES_INDEX] if is_postgresql else SQLITE:
        schema_editor.execute(statement)
    schema_editor.execute(FILL)


def backwards(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("ALTER TABLE steps_listing DROP COLUMN search")
        return
    for statement in SQLITE_BACK:
        schema_editor.execute(statement)


class Migration(migrations.Migration):
    dependencies = [("jobs", "0023_webhooks")]

    operations = [
        migrations.CreateModel(
            name="StepsListing",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("created_at", models.DateTimeField()),
                ("name", models.CharField(max_length=256)),
                ("description", models.TextField()),
                ("audience", models.JSONField(null=True)),
                (
                    "job",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="steps_listing",
                        to="jobs.job",
                    ),
                ),
            ],
            options={
                "db_table": "steps_listing",
                "indexes": [
                    models.Index(fields=["created_at", "job"], name="steps_listing_newest")
                ],
            },
        ),
        migrations.AddField(
            model_name="schedule",
            name="dialect_notes",
            field=models.JSONField(null=True),
        ),
        migrations.RunPython(forwards, backwards),
    ]
