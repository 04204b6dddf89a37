"""A trigger that records every move of a job and refuses those that are not in the table below.

The table is this suite's own copy of DESIGN.md, section 2; it is not read from the engine.
"""

from __future__ import annotations

from tests.faults.database import Queryable

MOVES = {
    "blocked": ("scheduled", "ready", "skipped", "failed", "cancelled"),
    "scheduled": ("ready", "cancelled", "failed"),
    "ready": ("running", "cancelled", "failed"),
    "running": ("succeeded", "failed", "cancelled", "scheduled", "ready", "waiting"),
    # Taken up again later, which a job made of steps may be as any other.
    "waiting": ("ready", "succeeded", "failed", "cancelled", "scheduled"),
    "failed": ("ready",),
    "cancelled": ("ready",),
    "skipped": ("ready",),
    # Born, or brought back with an edge to a parent that had ended already.
    "": ("blocked", "scheduled", "ready"),
}
REFUSAL = "illegal move of a job"

_TABLES = """
CREATE TABLE fault_legal (before varchar(10), after varchar(10), PRIMARY KEY (before, after));
CREATE TABLE fault_edge (id {serial}, job {id}, before varchar(10), after varchar(10),
                         fence bigint, node {id}, at double precision);
"""
# A claim raises the fence by one, and nothing else touches it.
_IS_LEGAL = """
EXISTS (SELECT 1 FROM fault_legal AS l WHERE l.before = {before} AND l.after = NEW.state)
AND NEW.fence = {old_fence} + CASE WHEN NEW.state = 'running' THEN 1 ELSE 0 END
"""
_CHANGED = (
    "OLD.state <> NEW.state OR OLD.fence <> NEW.fence"
    " OR (OLD.state = 'running' AND OLD.node_id <> NEW.node_id)"
)
_FINAL = "('succeeded', 'failed', 'cancelled', 'skipped')"

# After, because a row that ON CONFLICT leaves out has been through the triggers before.
_POSTGRES = f"""
CREATE FUNCTION fault_edge() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF TG_OP = 'DELETE' THEN
    IF OLD.state NOT IN {_FINAL} THEN
      RAISE EXCEPTION '{REFUSAL}: % deleted', OLD.state;
    END IF;
    RETURN OLD;
  ELSIF TG_OP = 'INSERT' THEN
    IF NOT ({_IS_LEGAL.format(before="''", old_fence="0")}) THEN
      RAISE EXCEPTION '{REFUSAL}: born %', NEW.state;
    END IF;
    INSERT INTO fault_edge (job, before, after, fence, node, at) VALUES
      (NEW.id, '', NEW.state, NEW.fence, NEW.node_id, extract(epoch FROM clock_timestamp()));
  ELSIF {_CHANGED} THEN
    IF NOT ({_IS_LEGAL.format(before="OLD.state", old_fence="OLD.fence")}) THEN
      RAISE EXCEPTION '{REFUSAL}: % to %, fence % to %', OLD.state, NEW.state, OLD.fence, NEW.fence;
    END IF;
    INSERT INTO fault_edge (job, before, after, fence, node, at) VALUES
      (NEW.id, OLD.state, NEW.state, NEW.fence, NEW.node_id, extract(epoch FROM clock_timestamp()));
  END IF;
  RETURN NEW;
END $body$;
CREATE TRIGGER fault_edge AFTER INSERT OR UPDATE OR DELETE ON job
  FOR EACH ROW EXECUTE FUNCTION fault_edge();
"""
_INSERT_EDGE = """
INSERT INTO fault_edge (job, before, after, fence, node, at)
VALUES (NEW.id, {before}, NEW.state, NEW.fence, NEW.node_id, (julianday('now') - 2440587.5) * 86400.0);
"""
_SQLITE = (
    f"""CREATE TRIGGER fault_edge_born AFTER INSERT ON job BEGIN
    SELECT RAISE(ABORT, '{REFUSAL}: born')
     WHERE NOT ({_IS_LEGAL.format(before="''", old_fence="0")});
    {_INSERT_EDGE.format(before="''")} END""",
    f"""CREATE TRIGGER fault_edge_moved AFTER UPDATE ON job WHEN {_CHANGED} BEGIN
    SELECT RAISE(ABORT, '{REFUSAL}')
     WHERE NOT ({_IS_LEGAL.format(before="OLD.state", old_fence="OLD.fence")});
    {_INSERT_EDGE.format(before="OLD.state")} END""",
    f"""CREATE TRIGGER fault_edge_deleted BEFORE DELETE ON job WHEN OLD.state NOT IN {_FINAL}
    BEGIN SELECT RAISE(ABORT, '{REFUSAL}: deleted'); END""",
)


def install(database: Queryable) -> None:
    remove(database)
    is_postgres = database.is_postgresql
    serial = "bigserial PRIMARY KEY" if is_postgres else "integer PRIMARY KEY"
    for statement in _TABLES.format(serial=serial, id="uuid" if is_postgres else "text").split(";"):
        if statement.strip():
            database.rows(statement)
    for before, afters in MOVES.items():
        for after in afters:
            database.rows(f"INSERT INTO fault_legal VALUES ('{before}', '{after}')")
    for statement in [_POSTGRES] if is_postgres else _SQLITE:
        database.rows(statement)


def remove(database: Queryable) -> None:
    if database.is_postgresql:
        database.rows("DROP TRIGGER IF EXISTS fault_edge ON job")
        database.rows("DROP FUNCTION IF EXISTS fault_edge()")
    else:
        for name in ("born", "moved", "deleted"):
            database.rows(f"DROP TRIGGER IF EXISTS fault_edge_{name}")
    database.rows("DROP TABLE IF EXISTS fault_legal")
    database.rows("DROP TABLE IF EXISTS fault_edge")
