from django.db import migrations, models

POSTGRES = [
    """CREATE FUNCTION audit_stays() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN RAISE EXCEPTION 'the audit only grows'; END $$""",
    """CREATE TRIGGER audit_stays BEFORE UPDATE OR DELETE ON audit
       FOR EACH ROW EXECUTE FUNCTION audit_stays()""",
]
POSTGRES_BACK = ["DROP TRIGGER audit_stays ON audit", "DROP FUNCTION audit_stays()"]
# Whoever has the file can delete what he likes; what must not happen by mistake is a change.
SQLITE = [
    # As many digits as the times have that are compared with these.
    "UPDATE audit SET at = at || '000' WHERE length(at) = 23",
    """CREATE TRIGGER audit_stays BEFORE UPDATE ON audit
       BEGIN SELECT RAISE(ABORT, 'the audit only grows'); END""",
]
SQLITE_BACK = ["DROP TRIGGER audit_stays"]


def forwards(apps, schema_editor):
    is_postgresql = schema_editor.connection.vendor == "postgresql"
    for statement in POSTGRES if is_postgresql else SQLITE:
        schema_editor.execute(statement)


def backwards(apps, schema_editor):
    is_postgresql = schema_editor.connection.vendor == "postgresql"
    for statement in POSTGRES_BACK if is_postgresql else SQLITE_BACK:
        schema_editor.execute(statement)


class Migration(migrations.Migration):
    dependencies = [
        ("clusters", "0002_audit"),
    ]

    operations = [
        migrations.AddField(
            model_name="auditentry",
            name="count",
            field=models.PositiveIntegerField(null=True),
        ),
        migrations.AddField(
            model_name="auditentry",
            name="credential",
            field=models.CharField(db_default="", default="", max_length=40),
        ),
        migrations.AddField(
            model_name="auditentry",
            name="filter",
            field=models.JSONField(null=True),
        ),
        migrations.AddField(
            model_name="auditentry",
            name="surface",
            field=models.CharField(db_default="", default="", max_length=20),
        ),
        migrations.AddIndex(
            model_name="auditentry",
            index=models.Index(fields=["actor", "-at", "-id"], name="audit_actor"),
        ),
        migrations.AddIndex(
            model_name="auditentry",
            index=models.Index(fields=["verb", "-at", "-id"], name="audit_verb"),
        ),
        migrations.RunPython(forwards, backwards),
    ]
