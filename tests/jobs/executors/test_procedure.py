"""Kind `procedure`: calls of real functions and procedures, what they return and how they fail."""

from __future__ import annotations

import json

import psycopg
import pytest
from django.db import connections

from jobs.executors import RESULT_BYTES, procedure
from jobs.executors.procedure_catalog import Routine
from jobs.models import Attempt, Job, LogLine
from tests.jobs.executors.attempts import Recorder, corpus, in_loop, make_assignment
from tests.jobs.executors.procedures import CALLER, CANARY, DATABASE, call

SCALARS = {
    "a": -32768,
    "b": 2**63 - 1,
    "c": "12345678901234567890.123456789",
    "d": 0.5,
    "e": True,
    "f": "2026-01-31",
    "g": "16:30:00",
    "h": "2026-01-31T16:30:00.000001",
    "i": "2026-01-31T16:30:00+00:00",
    "j": "P1DT2H",
    "k": "0189d0a2-6d3c-7bb1-9d6a-3f6d2f1c0a55",
    "l": {"deep": [1, None, "ü"]},
    "m": "AP8=",
    "n": "green blue",
    "o": [1, None, 3],
    "p": ['a "quoted", {one}', "NULL", None, "back\\slash", ""],
    "q": 1e300,
}


def test_a_function_returns_its_rows(procedures):
    outcome = in_loop(call("work.numbers", parameters={"upto": 3}))
    assert outcome.ok
    assert outcome.result["rows"] == [{"n": i, "square": i * i} for i in (1, 2, 3)]
    assert (outcome.result["row_count"], outcome.result["is_truncated"]) == (3, False)
    assert outcome.result["elapsed_seconds"] > 0


def test_a_name_without_schema_is_one_of_public(procedures):
    for name in ("twice", "public.twice"):
        outcome = in_loop(call(name, parameters={"number": 21}))
        assert outcome.result["rows"] == [{"twice": 42}]


def test_a_function_that_returns_nothing_has_no_rows_and_its_effect_stays(procedures):
    outcome = in_loop(call("work.note", parameters={"what": "noted"}))
    assert (outcome.ok, outcome.result["rows"]) == (True, [])
    assert procedures.done() == ["noted"]


def test_a_procedure_returns_what_it_gives_out(procedures):
    outcome = in_loop(call("work.add", parameters={"a": 2, "b": 3}))
    assert outcome.ok, outcome
    said = {"name": "sum", "price": "5.00", "tags": ["x"]}
    assert outcome.result["output"] == {"b": 4, "total": 5, "said": said}


def test_a_procedure_that_gives_nothing_out_has_no_output(procedures):
    outcome = in_loop(call("work.quiet", parameters={"what": "quiet"}))
    assert (outcome.ok, outcome.result["output"]) == (True, None)
    assert procedures.done() == ["quiet"]


def test_an_argument_left_out_has_the_default_of_the_database(procedures):
    assert in_loop(call("work.echo")).result["rows"] == [{"echo": "its default"}]
    given = in_loop(call("work.echo", parameters={"t": None}))
    assert given.result["rows"] == [{"echo": None}]


def test_values_of_all_types_arrive_and_come_back(procedures):
    outcome = in_loop(call("work.everything", parameters=SCALARS))
    assert outcome.ok, outcome
    (row,) = outcome.result["rows"]
    assert row == {**SCALARS, "i": row["i"], "j": "1 day 02:00:00"}
    assert row["i"].startswith("2026-01-31T")
    nothing = in_loop(call("work.everything", parameters=dict.fromkeys(SCALARS)))
    assert nothing.result["rows"] == [dict.fromkeys(SCALARS)]


def test_what_json_has_no_form_for_is_kept_all_the_same(procedures):
    outcome = in_loop(call("work.odd"))
    assert outcome.ok, outcome
    (row,) = outcome.result["rows"]
    ancient = row.pop("ancient")
    assert ancient.startswith("0044-03-15T") and ancient.endswith(" BC")
    assert row == {
        "item": {
            "name": 'a "quoted", \\ one',
            "price": "1.50",
            "tags": ["x", None, "NULL", "{y}"],
        },
        "items": [{"name": "first", "price": "2.00", "tags": None}, None],
        "matrix": [[1, 2], [3, None]],
        "price": "3.00",
        "endless": "infinity",
        "nan": "NaN",
        "nothing": None,
        "blobs": ["AP8="],
        "anonymous": ["1", "two"],
        "nul": '{"a": "\\u0000"}',
        "shifted": [5, 6],
        "spread": "[1,5)",
    }
    json.dumps(row, allow_nan=False)


# -- Bounds ----------------------------------------------------------------------------------------


def test_more_rows_than_are_wanted_are_left_out(procedures):
    outcome = in_loop(call("work.numbers", parameters={"upto": 2000}))
    assert (outcome.result["row_count"], outcome.result["is_truncated"]) == (1000, True)
    few = in_loop(call("work.numbers", parameters={"upto": 4}, max_rows=3)).result
    assert (len(few["rows"]), few["is_truncated"]) == (3, True)
    all_of_them = in_loop(call("work.numbers", parameters={"upto": 3}, max_rows=3)).result
    assert (len(all_of_them["rows"]), all_of_them["is_truncated"]) == (3, False)


@pytest.mark.parametrize("width", [10, 1000, 5000])
def test_a_result_fits_into_what_the_cluster_keeps(procedures, width):
    token = RESULT_BYTES.set(8192)
    try:
        outcome = in_loop(call("work.wide", parameters={"count": 500, "width": width}))
    finally:
        RESULT_BYTES.reset(token)
    assert outcome.ok
    assert outcome.result["is_truncated"] is True
    assert len(json.dumps(outcome.result, ensure_ascii=False).encode()) <= 8192
    assert bool(outcome.result["rows"]) is (width < 5000)


def test_the_effect_of_a_function_is_whole_although_its_rows_are_cut(procedures):
    outcome = in_loop(call("work.note_each", parameters={"upto": 50}, max_rows=2))
    assert (outcome.result["row_count"], outcome.result["is_truncated"]) == (2, True)
    assert len(procedures.done()) == 50


def test_what_the_server_says_on_the_way_is_in_the_log(procedures):
    recorder = Recorder()
    assert in_loop(call("work.talk", recorder)).ok
    assert recorder.written[:2] == [
        ("log", "it is said", "info"),
        ("log", "and warned", "warning"),
    ]
    assert recorder.written[2][1].startswith("work.talk on main ended well in ")
    assert "not this" not in recorder.text("log")


# -- Failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "is_permanent"),
    [
        ("P0001", False),
        ("23505", False),
        ("23503", False),
        ("40001", False),
        ("40P01", False),
        ("53200", False),
        ("55P03", False),
        ("08006", False),
        ("57P03", False),
        ("22012", True),
        ("42501", True),
        ("42P01", True),
        ("54001", True),
        ("0A000", True),
    ],
)
def test_what_may_pass_is_tried_again_and_the_rest_is_not(procedures, code, is_permanent):
    outcome = in_loop(call("work.fail", parameters={"code": code, "words": "because"}))
    assert (outcome.ok, outcome.is_permanent, outcome.effect_unknown) == (
        False,
        is_permanent,
        False,
    )
    assert outcome.error == f"{code}: because"


def test_a_function_that_is_not_there_fails_for_good(procedures):
    outcome = in_loop(call("work.missing"))
    assert (outcome.is_permanent, outcome.error_type) == (True, "UndefinedFunction")


def test_a_failed_call_leaves_nothing(procedures):
    in_loop(call("work.note", parameters={"what": "there"}))
    again = in_loop(call("work.note", parameters={"what": "there"}))
    assert again.error_type == "UniqueViolation"
    # The values of others may be in the details; only the first line is told.
    assert "(there)" not in again.error
    assert procedures.done() == ["there"]
    assert procedures.sessions() == []


def test_a_procedure_that_commits_must_be_declared(procedures, settings):
    main = settings.PROCEDURES["main"]
    steps = main.allowed["work.in_steps"]
    object.__setattr__(steps, "commits", False)
    parameters = {"what": "step", "seconds": 0}
    outcome = in_loop(call("work.in_steps", parameters=parameters))
    assert (outcome.ok, outcome.is_permanent) == (False, True)
    assert outcome.error.endswith("declare commits = true for it")
    object.__setattr__(steps, "commits", True)
    assert in_loop(call("work.in_steps", parameters=parameters)).ok
    assert procedures.done() == ["step 1", "step 2"]


def test_a_connection_lost_in_a_call_is_another_attempt_and_no_doubt(procedures):
    outcome = in_loop(call("work.crash_session"))
    assert (outcome.ok, outcome.is_permanent, outcome.effect_unknown) == (False, False, False)


# -- Connections -----------------------------------------------------------------------------------


def with_address(procedures, settings, tmp_path, url):
    settings.PROCEDURES = procedures.connections(tmp_path / "other.toml", url)


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("no-such-role", "there is no such role or database"),
        ("no-such-database", "there is no such role or database"),
        ("closed-port", "nobody listens there"),
        ("closed-socket", "nobody listens there"),
        ("unknown-host", "its host is not known"),
    ],
)
def test_no_connection_is_said_without_the_address(
    procedures, settings, tmp_path, place, reason, caplog
):
    caplog.set_level("DEBUG")
    host = f"{CANARY}@127.0.0.1:1/{CANARY}?connect_timeout=2"
    url = {
        "no-such-role": procedures.url(user=CANARY),
        "no-such-database": procedures.url(database=CANARY),
        "closed-port": f"postgresql://{CANARY}:{host}",
        "closed-socket": f"postgresql://{CANARY}:{CANARY}@/x?host=/{CANARY}",
        "unknown-host": f"postgresql://{CANARY}:{CANARY}@{CANARY}.invalid/x",
    }[place]
    with_address(procedures, settings, tmp_path, url)
    recorder = Recorder()
    outcome = in_loop(call("twice", recorder, parameters={"number": 1}))
    assert (outcome.ok, outcome.is_permanent, outcome.effect_unknown) == (False, False, False)
    assert outcome.error == f"no connection to main: {reason}"
    told = f"{outcome} {recorder.written} {settings.PROCEDURES} {caplog.text}"
    assert CANARY not in told


def test_the_server_sees_whose_call_it_is_and_gets_its_limits(procedures, settings):
    shown = procedures.ask("SHOW server_version_num")[0]
    procedures.ask(
        "CREATE OR REPLACE FUNCTION work.settings() RETURNS TABLE (name text, value text)"
        " LANGUAGE sql AS $$SELECT name, setting FROM pg_settings WHERE name IN"
        " ('application_name', 'statement_timeout', 'lock_timeout', 'client_connection_check_interval',"
        " 'idle_in_transaction_session_timeout')$$"
    )
    main = settings.PROCEDURES["main"]
    main.allowed["work.settings"] = Routine("work", "settings", True, False, ())
    given = {"timeout_seconds": 30.0, "fence": 12}
    outcome = in_loop(call("work.settings", assignment={**given, "id": "an-id"}))
    found = {row["name"]: row["value"] for row in outcome.result["rows"]}
    assert found["application_name"] == "yardmaster-an-id-12"
    assert 30_000 <= int(found["statement_timeout"]) <= 31_000
    assert found["lock_timeout"] == "10000"
    assert found["idle_in_transaction_session_timeout"] == "15000"
    assert int(shown) < 140_000 or found["client_connection_check_interval"] == "1000"
    own = in_loop(call("work.settings", assignment=given, timeout_seconds=2.5))
    found = {row["name"]: row["value"] for row in own.result["rows"]}
    assert (found["statement_timeout"], found["lock_timeout"]) == ("2500", "2500")


def test_a_procedure_can_tell_whose_call_it_is(procedures, settings):
    procedures.ask(
        "CREATE OR REPLACE FUNCTION work.whose() RETURNS text LANGUAGE sql AS $$SELECT concat_ws(' ',"
        " current_setting('yardmaster.job_id'), current_setting('yardmaster.fence'),"
        " current_setting('yardmaster.attempt'))$$"
    )
    settings.PROCEDURES["main"].allowed["work.whose"] = Routine("work", "whose", True, False, ())
    outcome = in_loop(call("work.whose", assignment={"id": "an-id", "fence": 9, "attempt": 3}))
    assert outcome.result["rows"] == [{"whose": "an-id 9 3"}]


def test_nothing_of_one_job_reaches_the_next(procedures, settings):
    procedures.ask(
        "CREATE OR REPLACE FUNCTION work.dirty() RETURNS text LANGUAGE plpgsql AS $$"
        " DECLARE before text := current_setting('work.mark', true); BEGIN"
        " PERFORM set_config('work.mark', 'dirty', false), pg_advisory_lock(4711);"
        " CREATE TEMPORARY TABLE left_behind (x int); RETURN before; END $$"
    )
    main = settings.PROCEDURES["main"]
    main.allowed["work.dirty"] = Routine("work", "dirty", True, False, ())
    for _ in range(3):
        outcome = in_loop(call("work.dirty"))
        assert outcome.result["rows"] == [{"dirty": None}]
    assert procedures.sessions() == []


# -- Rights ----------------------------------------------------------------------------------------


def test_a_role_that_may_only_execute_is_enough_and_sees_no_table(procedures, settings, tmp_path):
    """As docs/stored-procedures.md tells to set it up: the function runs with the rights of its owner."""
    for statement in (
        f"DROP ROLE IF EXISTS {CALLER}",
        f"CREATE ROLE {CALLER} LOGIN",
        "CREATE OR REPLACE FUNCTION work.count_done() RETURNS bigint LANGUAGE sql SECURITY DEFINER"
        " SET search_path = pg_catalog, pg_temp AS 'SELECT count(*) FROM work.done'",
        "CREATE OR REPLACE FUNCTION work.peek() RETURNS bigint LANGUAGE sql"
        " AS 'SELECT count(*) FROM work.done'",
        "REVOKE ALL ON FUNCTION work.count_done(), work.note(text) FROM PUBLIC",
        f"GRANT USAGE ON SCHEMA work TO {CALLER}",
        f"GRANT EXECUTE ON FUNCTION work.count_done() TO {CALLER}",
    ):
        procedures.ask(statement)
    try:
        with_address(procedures, settings, tmp_path, procedures.url(user=CALLER))
        allowed = settings.PROCEDURES["main"].allowed
        allowed["work.count_done"] = Routine("work", "count_done", True, False, ())
        allowed["work.peek"] = Routine("work", "peek", True, False, ())
        counted = in_loop(call("work.count_done"))
        assert counted.result["rows"] == [{"count_done": 0}]
        for refused in (
            call("work.peek"),
            call("work.note", parameters={"what": "not this"}),
        ):
            outcome = in_loop(refused)
            assert (outcome.error_type, outcome.is_permanent) == ("InsufficientPrivilege", True)
        assert procedures.done() == []
    finally:
        procedures.ask("GRANT EXECUTE ON FUNCTION work.note(text) TO PUBLIC")
        procedures.ask(f"DROP OWNED BY {CALLER}")


def test_that_role_cannot_read_our_tables(procedures, settings, tmp_path, alpha, is_postgresql):
    if not is_postgresql:
        pytest.skip("our tables are not in PostgreSQL")
    name = connections["cluster-alpha"].settings_dict["NAME"]
    procedures.ask(f"DROP ROLE IF EXISTS {CALLER}")
    procedures.ask(f"CREATE ROLE {CALLER} LOGIN")
    address = procedures.url(user=CALLER, database=name)
    with psycopg.connect(address, autocommit=True) as connection:
        for table in (model._meta.db_table for model in (Job, Attempt, LogLine)):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"SELECT * FROM {table}")


# -- Injection -------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", corpus("sql_injections.txt"))
def test_a_value_is_never_part_of_a_statement(procedures, text):
    outcome = in_loop(call("work.note", parameters={"what": text}))
    if "\0" in text:
        assert (outcome.error_type, outcome.is_permanent) == ("InvalidJob", True)
        return
    assert outcome.ok, outcome
    assert procedures.done() == [text]
    assert in_loop(call("work.echo", parameters={"t": text})).result["rows"] == [{"echo": text}]
    assert procedures.ask("SELECT count(*) FROM work.done") == [1]
    wrong = in_loop(call("work.numbers", parameters={"upto": text}))
    assert (wrong.ok, wrong.error_type) == (False, "InvalidJob")


def test_an_element_of_a_list_is_never_part_of_a_statement(procedures):
    texts = [text for text in corpus("sql_injections.txt") if "\0" not in text]
    given = dict.fromkeys(SCALARS) | {"p": texts}
    outcome = in_loop(call("work.everything", parameters=given))
    assert outcome.result["rows"][0]["p"] == texts


@pytest.mark.parametrize("text", corpus("sql_injections.txt"))
def test_a_name_is_one_that_is_listed_or_refused(procedures, text):
    for name in (text, f"work.{text}", f"{text}.note", f"work.note{text}"):
        outcome = in_loop(call(name, parameters={"what": "x"}))
        assert (outcome.error_type, outcome.is_permanent) == ("InvalidJob", True), name
        outcome = in_loop(call("work.note", parameters={"what": "x", name: "y"}))
        assert outcome.error_type == "InvalidJob"
    assert procedures.done() == []
    assert DATABASE in procedures.ask("SELECT current_database()")


def test_what_exists_and_is_not_listed_is_refused(procedures):
    for name in ("work.not_listed", "pg_catalog.pg_sleep", "version", "WORK.NOTE", "work.Note"):
        outcome = in_loop(call(name))
        assert (outcome.error_type, outcome.is_permanent) == ("InvalidJob", True)
        assert "is not allowed on main" in outcome.error


def test_a_payload_that_is_none_fails_for_good(procedures):
    outcome = in_loop(procedure.run(make_assignment("SELECT 1"), Recorder()))
    assert (outcome.error_type, outcome.is_permanent) == ("InvalidJob", True)
