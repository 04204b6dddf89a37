from django.db import migrations

# Of credentials that were refused one row counts those of a minute; all else in it stays, as all other
# rows do.
POSTGRES = [
    """CREATE OR REPLACE FUNCTION access_audit_stays() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN
         IF TG_OP = 'UPDATE' THEN
           IF OLD.verb = 'credentials.refuse' AND NEW.count > OLD.count
              AND to_jsonb(NEW) - 'count' = to_jsonb(OLD) - 'count' THEN
             RETURN NEW;
           END IF;
         END IF;
         RAISE EXCEPTION 'the audit only grows';
       END $$""",
]
POSTGRES_BACK = [
    """CREATE OR REPLACE FUNCTION access_audit_stays() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN RAISE EXCEPTION 'the audit only grows'; END $$""",
]
_STAYS = "BEGIN SELECT RAISE(ABORT, 'the audit only grows'); END"
_COLUMNS = (
    "id, at, actor, credential, surface, address, verb, target_type, target_id, filter, reason, "
    '"before", "after", request_id'
)
SQLITE = [
    "DROP TRIGGER access_audit_stays",
    f"CREATE TRIGGER access_audit_stays BEFORE UPDATE OF {_COLUMNS} ON access_audit {_STAYS}",
    f"""CREATE TRIGGER access_audit_counts BEFORE UPDATE OF count ON access_audit
        WHEN OLD.verb <> 'credentials.refuse' OR NEW.count <= OLD.count OR OLD.count IS NULL
        {_STAYS}""",
]
SQLITE_BACK = [
    "DROP TRIGGER access_audit_counts",
    "DROP TRIGGER access_audit_stays",
    f"CREATE TRIGGER access_audit_stays BEFORE UPDATE ON access_audit {_STAYS}",
]


def forwards(apps, schema_editor):
    is_postgresql = schema_editor.connection.vendor == "postgresql"
    for statement in POSTGRES if is_postgresql else SQLITE:
        schema_editor.execute(statement)


def backwards(apps, schema_editor):
    is_postgresql = schema_editor.connection.vendor == "postgresql"
    for statement in POSTGRES_BACK if is_postgresql else SQLITE_BACK:
        schema_editor.execute(statement)


class Migration(migrations.Migration):
    dependencies = [("authn", "0006_group_roles")]

    operations = [migrations.RunPython(forwards, backwards)]
