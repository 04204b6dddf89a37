"""Payloads of `procedure` jobs, and the file that says what they may call. No database is needed."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from jobs.errors import InvalidJob
from jobs.executors.procedure_call import read, validate
from jobs.executors.procedure_catalog import read_procedures
from tests.processes import manage, worker_environment

ADDRESS = "postgresql://caller:canary-91c4@db.example/billing"
CONFIG = """
[connections.billing]
url = "postgresql://caller:canary-91c4@db.example/billing"

[[connections.billing.allowed]]
name = "reports.close_month"
arguments = [
  {name = "month", type = "date"},
  {name = "note", type = "text", is_optional = true},
  {name = "rows_closed", type = "bigint", mode = "out"},
]

[[connections.billing.allowed]]
name = "typed"
kind = "function"
arguments = [{name = "value", type = "TYPE", is_optional = true}]
"""


@pytest.fixture
def configured(settings, tmp_path):
    def configure(text: str = CONFIG) -> None:
        path = tmp_path / "procedures.toml"
        path.write_text(text.replace("TYPE", "integer"))
        path.chmod(0o600)
        problems: list[str] = []
        settings.PROCEDURES = read_procedures(str(path), problems)
        assert problems == []

    configure()
    return configure


def payload(**changes):
    base = {
        "connection": "billing",
        "procedure": "reports.close_month",
        "parameters": {"month": "2026-01-01"},
    }
    return {**base, **changes}


def test_a_sound_payload_is_taken(configured):
    call = read(payload(timeout_seconds=60, max_rows=0))
    assert call.routine.full_name == "reports.close_month"
    texts = [(argument.name, text) for argument, text in call.values]
    assert texts == [("month", "2026-01-01"), ("rows_closed", None)]
    assert (call.timeout_seconds, call.max_rows) == (60.0, 0)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (None, "payload"),
        ([], "payload"),
        ("CALL x()", "payload"),
        ({"surprise": 1}, "payload.surprise"),
        ({"connection": None}, "payload.connection"),
        ({"connection": 7}, "payload.connection"),
        ({"connection": ["billing"]}, "payload.connection"),
        ({"connection": "billin"}, "payload.connection"),
        ({"connection": "Billing"}, "payload.connection"),
        ({"procedure": None}, "payload.procedure"),
        ({"procedure": {}}, "payload.procedure"),
        ({"procedure": "close_month"}, "payload.procedure"),
        ({"procedure": "reports.close_month\n"}, "payload.procedure"),
        ({"procedure": " reports.close_month"}, "payload.procedure"),
        ({"procedure": "reports.CLOSE_MONTH"}, "payload.procedure"),
        ({"procedure": "x.reports.close_month"}, "payload.procedure"),
        ({"parameters": None}, "payload.parameters"),
        ({"parameters": ["2026-01-01"]}, "payload.parameters"),
        ({"parameters": {}}, "payload.parameters.month"),
        ({"parameters": {"month": "soon"}}, "payload.parameters.month"),
        (
            {"parameters": {"month": "2026-01-01", "rows_closed": 1}},
            "payload.parameters.rows_closed",
        ),
        ({"parameters": {"month": "2026-01-01", "other": 1}}, "payload.parameters.other"),
        ({"parameters": {"month": "2026-01-01", "note": 5}}, "payload.parameters.note"),
        ({"timeout_seconds": "60"}, "payload.timeout_seconds"),
        ({"timeout_seconds": True}, "payload.timeout_seconds"),
        ({"timeout_seconds": 0}, "payload.timeout_seconds"),
        ({"timeout_seconds": float("nan")}, "payload.timeout_seconds"),
        ({"timeout_seconds": 1e9}, "payload.timeout_seconds"),
        ({"max_rows": -1}, "payload.max_rows"),
        ({"max_rows": 1.5}, "payload.max_rows"),
        ({"max_rows": True}, "payload.max_rows"),
        ({"max_rows": 100_001}, "payload.max_rows"),
    ],
)
def test_a_mistake_names_its_field(configured, given, field):
    with pytest.raises(InvalidJob) as refused:
        validate(payload(**given) if isinstance(given, dict) else given)
    assert refused.value.field == field
    assert "canary" not in str(refused.value)


def test_where_nothing_is_configured_everything_is_refused(settings):
    assert settings.PROCEDURES == {}
    with pytest.raises(InvalidJob, match="none are configured"):
        validate(payload())


TYPES = {
    "smallint": ([0, -32768, "7"], [32768, 1.0, True, "x", "1e3", [], {}]),
    "integer": ([2**31 - 1, "-5", "+5"], [2**31, "2147483648", "9" * 30, "", " 1"]),
    "bigint": ([2**63 - 1, -(2**63)], [2**63, 10**400]),
    "numeric": ([1, 1.5, "0.10", ".5", "-1e9"], ["NaN", "1,5", float("inf"), True, "1" * 1001]),
    "real": ([1.5, "2"], ["1e9999", "infinity", None.__class__]),
    "double precision": ([1e300], ["0x10", []]),
    "boolean": ([True, "false"], [1, "yes", None.__class__, "TRUE"]),
    "text": (["", "ü", "'; --"], [1, True, [], "a\0b", "\ud800"]),
    "varchar": (["x"], [5]),
    "date": (["2026-01-31"], ["2026-02-30", "31.01.2026", 20260131, "today", "now"]),
    "time": (["16:30", "16:30:00.5"], ["25:00", "16:30Z", "noon"]),
    "timestamp": (["2026-01-31T16:30:00"], ["2026-01-31T16:30:00Z", "tomorrow"]),
    "timestamptz": (["2026-01-31T16:30:00Z", "2026-01-31 16:30:00+05:30"], ["2026-01-31T16:30:00"]),
    "interval": (["P1D", "PT1H30M", "P1Y2M3DT4H5M6.5S"], ["P", "PT", "1 day", 60, "P1"]),
    "uuid": (
        ["0189d0a2-6d3c-7bb1-9d6a-3f6d2f1c0a55"],
        ["0189d0a26d3c7bb19d6a3f6d2f1c0a55", "x" * 36, 1],
    ),
    "json": ([{"a": [1]}, "text", 5], [float("nan"), {"a": float("inf")}, "\ud800"]),
    "jsonb": ([[]], [{1, 2}]),
    "bytea": (["AP8=", ""], ["AP8", "é", 5, "AP 8="]),
    "work.colour": (["red", "'; --"], [1, "a\0"]),
    "integer[]": ([[], [1, None], ["2"]], [1, "{1}", [[1]], ["x"], [0] * 10_001]),
    "text[]": ([["a", '"', None]], [[1], "a"]),
}
CASES = [
    (name, value, is_good)
    for name, (good, bad) in TYPES.items()
    for values, is_good in ((good, True), (bad, False))
    for value in values
]


@pytest.mark.parametrize(("name", "value", "is_good"), CASES, ids=lambda value: ascii(value)[:40])
def test_a_value_has_the_declared_type(configured, name, value, is_good):
    configured(CONFIG.replace("TYPE", name))
    call = payload(procedure="typed", parameters={"value": value})
    if is_good:
        validate(call)
        return
    with pytest.raises(InvalidJob) as refused:
        validate(call)
    assert refused.value.field == "payload.parameters.value"


def test_null_is_a_value_of_every_type(configured):
    for name in TYPES:
        configured(CONFIG.replace("TYPE", name))
        ((_, text),) = read(payload(procedure="typed", parameters={"value": None})).values
        assert text is None
        assert read(payload(procedure="typed", parameters={})).values == ()


def test_a_payload_is_checked_without_a_driver():
    script = (
        "import sys; from django.conf import settings; settings.configure(PROCEDURES={});"
        "from jobs.errors import InvalidJob; from jobs.executors import KINDS\n"
        "try: KINDS['procedure'].validate({})\n"
        "except InvalidJob: print('psycopg' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


# -- The file --------------------------------------------------------------------------------------

ONE = '[connections.a]\nurl = "postgresql://u:canary-91c4@h/d"\n'
LISTED = ONE + '[[connections.a.allowed]]\nname = "x.y"\n'


def problems_of(tmp_path, text: str, mode: int = 0o600) -> list[str]:
    path = tmp_path / "procedures.toml"
    path.write_text(text)
    path.chmod(mode)
    problems: list[str] = []
    read_procedures(str(path), problems)
    assert all("canary" not in problem for problem in problems)
    assert all(problem.startswith("YARDMASTER_PROCEDURES_CONFIG: ") for problem in problems)
    return problems


def test_a_sound_file_has_no_problem(tmp_path):
    assert problems_of(tmp_path, LISTED) == []
    assert problems_of(tmp_path, CONFIG.replace("TYPE", "work.colour[]")) == []
    assert problems_of(tmp_path, LISTED, 0o440) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[connections.a", "is no TOML"),
        ("other = 1", "unknown key 'other'"),
        ("connections = 1", "must be a table"),
        ("[connections]\na = 1", "must be a table"),
        ('[connections."a b"]', "a name has up to"),
        (ONE, "allows nothing"),
        (ONE + "allowed = 1", "allows nothing"),
        (ONE + "allowed = [1]", "must be a table"),
        (ONE + "password = 'canary-91c4'", "unknown key 'password'"),
        (LISTED.replace("postgresql:", "mysql:"), "not the address"),
        (LISTED.replace("@h/d", "@h/d?canary-91c4"), "not the address"),
        (LISTED.replace("url =", "url_file ="), "url_file"),
        (LISTED.replace("[[", 'url_file = "x"\n[['), "exactly one of"),
        (LISTED.replace("x.y", "x.y.z"), "expected schema.name"),
        (LISTED.replace("x.y", "x y"), "expected schema.name"),
        (LISTED.replace("x.y", "x." + "y" * 64), "expected schema.name"),
        (LISTED + '[[connections.a.allowed]]\nname = "x.y"\n', "allowed twice"),
        (LISTED + "colour = 1", "unknown key 'colour'"),
        (LISTED + 'kind = "trigger"', "kind: expected one of"),
        (LISTED + 'commits = "yes"', "commits: expected true or false"),
        (LISTED + 'kind = "function"\ncommits = true', "cannot end a transaction"),
        (LISTED + "arguments = 1", "expected a list"),
        (LISTED + "arguments = [1]", "each is a table"),
        (LISTED + 'arguments = [{type = "text"}]', "is none"),
        (LISTED + 'arguments = [{name = "a"}]', "needs a type"),
        (LISTED + 'arguments = [{name = "a", type = "text; --"}]', "is none of"),
        (LISTED + 'arguments = [{name = "a", type = "text[][]"}]', "is none of"),
        (LISTED + 'arguments = [{name = "a", type = "text", mode = "up"}]', "mode: expected"),
        (LISTED + 'arguments = [{name = "a", type = "text", is_optional = 1}]', "true or false"),
        (LISTED + 'arguments = [{name = "a", type = "text", size = 1}]', "unknown key 'size'"),
        (
            LISTED + 'kind = "function"\narguments = [{name = "a", type = "text", mode = "out"}]',
            "not among its arguments",
        ),
        (
            LISTED + 'arguments = [{name = "a", type = "text"}, {name = "a", type = "text"}]',
            "a name is there twice",
        ),
    ],
)
def test_a_mistake_in_the_file_is_told(tmp_path, text, words):
    problems = problems_of(tmp_path, text)
    assert any(words in problem for problem in problems), problems


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o604, 0o644])
def test_a_file_that_others_can_change_or_read_is_refused(tmp_path, mode):
    assert any("others can" in problem for problem in problems_of(tmp_path, LISTED, mode))


def test_without_an_address_in_it_others_may_read_the_file(tmp_path):
    secret = tmp_path / "a.url"
    secret.write_text("postgresql://u:canary-91c4@h/d\n")
    secret.chmod(0o600)
    text = '[connections.a]\nurl_file = "a.url"\n[[connections.a.allowed]]\nname = "x"\n'
    assert problems_of(tmp_path, text, 0o644) == []
    for mode in (0o604, 0o602, 0o620):
        secret.chmod(mode)
        (problem,) = problems_of(tmp_path, text, 0o644)
        assert "url_file: others can read or write it" in problem


def test_a_file_that_is_not_there_stops_the_start(tmp_path):
    problems: list[str] = []
    assert read_procedures(str(tmp_path / "missing"), problems) == {}
    assert "cannot be read" in problems[0]


def test_an_address_is_not_in_what_a_connection_looks_like(configured, settings):
    assert "canary" not in repr(settings.PROCEDURES)
    assert settings.PROCEDURES["billing"].url == ADDRESS


def test_warnings_of_the_driver_which_may_name_hosts_are_not_logged(caplog):
    logging.getLogger("psycopg").warning("query cancellation failed: %s", ADDRESS)
    assert "canary" not in caplog.text


def test_a_start_with_a_wrong_file_says_what_is_wrong_with_it(transactional_db, tmp_path):
    path = tmp_path / "procedures.toml"
    path.write_text(LISTED + 'colour = "red"\n')
    path.chmod(0o666)
    env = worker_environment(YARDMASTER_PROCEDURES_CONFIG=str(path))
    done = manage("check", env=env)
    assert done.returncode == 2
    assert "unknown key 'colour'" in done.stderr and "others can write it" in done.stderr
    assert "canary" not in done.stderr + done.stdout and "Traceback" not in done.stderr
