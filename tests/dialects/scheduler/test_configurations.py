"""``jobConfiguration`` of each type of job: what is stored, what comes out, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.executors.procedure_catalog import read_procedures
from jobs.models import Job, Schedule
from tests.dialects.scheduler.conftest import Caller, check_problem


def make(api: Caller, job_type: str, configuration: Any, **members: Any) -> dict[str, Any]:
    return api.make(jobType=job_type, jobConfiguration=configuration, **members)


def refused(api: Caller, job_type: str, configuration: Any, *fields: str) -> dict[str, Any]:
    from tests.dialects.scheduler.conftest import CRON_JOB

    body = {**CRON_JOB, "jobType": job_type, "jobConfiguration": configuration}
    wanted = [f"jobConfiguration.{field}" if field else "jobConfiguration" for field in fields]
    problem = check_problem(api.post("jobs", body), 400, "validation_failed", *wanted)
    assert not Schedule.objects.exists()
    return problem


# -- HttpCall --------------------------------------------------------------------------------------

URL = "https://example.com/hook"


@pytest.mark.parametrize(
    ("given", "payload"),
    [
        ({"body": None}, {}),
        ({"body": '{"a":1}'}, {"body": '{"a":1}', "content_type": "application/json"}),
        ({"body": {"a": [1]}}, {"json": {"a": [1]}}),
        ({"body": 0}, {"json": 0}),
        ({"headers": {"Content-Type": "text/csv"}, "body": "a"},
         {"headers": {"Content-Type": "text/csv"}, "body": "a", "content_type": "application/json"}),
        ({"timeoutSeconds": 9}, {"timeout_seconds": 9}),
        ({"successStatusCodes": [200, 404]}, {"expected_status": [200, 404]}),
        ({"retryOnStatusCodes": [503]}, {"retry_status": [503]}),
        ({"handlerType": "ignored"}, {}),
    ],
)  # fmt: skip
def test_a_request_is_kept_in_our_words_and_comes_out_in_theirs(
    given: dict[str, Any], payload: dict[str, Any], api: Caller
) -> None:
    made = make(api, "HttpCall", {"url": URL, "method": "post", **given})
    assert Schedule.objects.get().payload == {"url": URL, "method": "POST", **payload}
    wanted = {"url": URL, "method": "POST", "headers": {}, "body": None, **given}
    wanted.pop("handlerType", None)
    assert made["jobConfiguration"] == wanted
    again = api.put(f"jobs/{made['id']}", {"jobConfiguration": made["jobConfiguration"]})
    assert again.json()["jobConfiguration"] == wanted
    assert Schedule.objects.get().payload == {"url": URL, "method": "POST", **payload}


def test_retry_codes_may_come_with_the_policy(api: Caller) -> None:
    policy = {"maxRetryAttempts": 1, "shouldRetryHttpStatusCodes": [500, 502]}
    make(api, "HttpCall", {"url": URL, "method": "GET"}, retryPolicy=policy)
    assert Schedule.objects.get().payload["retry_status"] == [500, 502]


@pytest.mark.once
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"url": None}, "url"),
        ({"url": "/relative"}, "url"),
        ({"url": "ftp://example.com/"}, "url"),
        ({"url": "https://user:pass@example.com/"}, "url"),
        ({"method": None}, "method"),
        ({"method": "TRACE"}, "method"),
        ({"headers": {"A": 1}}, "headers.A"),
        ({"headers": {"Host": "x"}}, "headers.Host"),
        ({"headers": {"A": "x\r\nB: y"}}, "headers.A"),
        ({"successStatusCodes": [99]}, "successStatusCodes[0]"),
        ({"retryOnStatusCodes": ["500"]}, "retryOnStatusCodes[0]"),
    ],
)
def test_bad_requests(change: dict[str, Any], field: str, api: Caller) -> None:
    refused(api, "HttpCall", {"url": URL, "method": "GET", **change}, field)


def test_variables_are_filled_in_everywhere_when_it_runs(api: Caller) -> None:
    configuration = {
        "url": f"{URL}/{{{{Job.Name}}}}",
        "method": "POST",
        "headers": {"X-Job": "{{ Job.Id }}"},
        "body": {"by": "{{User.Email}}", "no": "{{Nothing}}"},
    }
    made = make(api, "HttpCall", configuration, createdBy="ops@example.com")
    assert made["jobConfiguration"]["body"] == configuration["body"]
    api.post(f"jobs/{made['id']}/trigger")
    payload = Job.objects.get().payload
    assert payload["url"] == f"{URL}/nightly"
    assert payload["headers"] == {"X-Job": made["id"]}
    assert payload["json"] == {"by": "ops@example.com", "no": "{{Nothing}}"}


# -- Secrets ---------------------------------------------------------------------------------------

SECRETS = {
    "url": URL,
    "method": "POST",
    "headers": {"Authorization": "Bearer a", "x-api-key": "b", "Cookie": "c", "Accept": "d"},
    "body": {"user": "u", "Password": "p", "deep": [{"accessToken": "t", "n": 1}], "secret": None},
}


def test_secrets_never_come_out(api: Caller, viewer: Caller) -> None:
    made = make(api, "HttpCall", SECRETS)
    wanted = {
        "headers": {"Authorization": "***", "x-api-key": "***", "Cookie": "***", "Accept": "d"},
        "body": {"user": "u", "Password": "***", "deep": [{"accessToken": "***", "n": 1}],
                 "secret": None},
    }  # fmt: skip
    for shown in (
        made,
        viewer.job(made["id"]),
        viewer.get("jobs").json()["items"][0],
        api.put(f"jobs/{made['id']}", {"name": "n"}).json(),
    ):
        assert {name: shown["jobConfiguration"][name] for name in wanted} == wanted


def test_a_mask_that_goes_in_keeps_what_is_stored(api: Caller) -> None:
    made = make(api, "HttpCall", SECRETS)
    changed = {**made["jobConfiguration"], "url": f"{URL}/2"}
    changed["headers"] = {"AUTHORIZATION": "***", "X-Api-Key": "new"}
    response = api.put(f"jobs/{made['id']}", {"jobConfiguration": changed})
    assert response.status_code == 200, response.content
    payload = Schedule.objects.get().payload
    assert payload["headers"] == {"AUTHORIZATION": "Bearer a", "X-Api-Key": "new"}
    assert payload["json"] == SECRETS["body"]
    # A mask of what is not known is no secret.
    changed["headers"] = {"X-Token": "***"}
    response = api.put(f"jobs/{made['id']}", {"jobConfiguration": changed})
    check_problem(response, 400, "validation_failed", "jobConfiguration.headers.X-Token")
    other = {**made["jobConfiguration"], "handlerType": "demo:noop"}
    body = {
        "jobType": "CodeExecution",
        "jobConfiguration": {**other, "parameters": {"token": "***"}},
    }
    response = api.put(f"jobs/{made['id']}", body)
    check_problem(response, 400, "validation_failed", "jobConfiguration.parameters.token")
    assert Schedule.objects.get().payload == payload


def test_a_mask_is_no_value_of_a_new_job(api: Caller) -> None:
    headers = {"headers": {"X-Api-Key": "***"}}
    refused(api, "HttpCall", {"url": URL, "method": "GET", **headers}, "headers.X-Api-Key")


def test_what_is_no_secret_may_be_three_stars_and_references_are_shown(api: Caller) -> None:
    parameters = {"rating": "***", "token": "{{Secret.API}}"}
    made = api.make(jobConfiguration={"handlerType": "demo:noop", "parameters": parameters})
    assert made["jobConfiguration"]["parameters"] == parameters


# -- StoredProcedure -------------------------------------------------------------------------------

CATALOG = """
[connections.billing]
url = "postgresql://nobody@127.0.0.1:1/none"
[[connections.billing.allowed]]
name = "reports.close_month"
arguments = [{name = "month", type = "date"}, {name = "count", type = "integer", is_optional = true}]
"""


@pytest.fixture
def procedures(tmp_path: Path, settings: Any) -> None:
    path = tmp_path / "procedures.toml"
    path.write_text(CATALOG)
    path.chmod(0o600)
    problems: list[str] = []
    settings.PROCEDURES = read_procedures(str(path), problems)
    assert not problems


def test_a_procedure_is_called_by_name_with_bound_parameters(procedures: None, api: Caller) -> None:
    given = {
        "storedProcedureName": "reports.close_month",
        "parameters": {"month": "{{Today}}", "count": "7"},
        "commandTimeoutSeconds": 60,
    }
    made = make(api, "StoredProcedure", given)
    assert made["jobConfiguration"] == {**given, "databaseConnectionStringName": "billing"}
    assert Schedule.objects.get().payload == {
        "connection": "billing",
        "procedure": "reports.close_month",
        "parameters": given["parameters"],
        "timeout_seconds": 60,
    }
    response = api.post(f"jobs/{made['id']}/trigger", {"parameters": {"month": "2026-01-01"}})
    assert response.status_code == 202
    assert Job.objects.get().payload["parameters"] == {"month": "2026-01-01", "count": "7"}
    bad = api.post(f"jobs/{made['id']}/trigger", {"parameters": {"month": "never"}})
    check_problem(bad, 400, "validation_failed", "jobConfiguration.parameters.month")


@pytest.mark.once
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"storedProcedureName": None}, "storedProcedureName"),
        ({"storedProcedureName": "reports.drop_all"}, "storedProcedureName"),
        ({"storedProcedureName": "x; DROP TABLE job"}, "storedProcedureName"),
        ({"databaseConnectionStringName": "other"}, "databaseConnectionStringName"),
        ({"parameters": {"month": "soon"}}, "parameters.month"),
        ({"parameters": {}}, "parameters.month"),
        ({"parameters": {"month": "2026-01-01", "x": "1"}}, "parameters.x"),
        ({"parameters": ["2026-01-01"]}, "parameters"),
        ({"commandTimeoutSeconds": 0}, "commandTimeoutSeconds"),
    ],
)
def test_bad_calls(change: dict[str, Any], field: str, procedures: None, api: Caller) -> None:
    good = {"storedProcedureName": "reports.close_month", "parameters": {"month": "2026-01-01"}}
    refused(api, "StoredProcedure", {**good, **change}, field)


def test_without_connections_nothing_may_be_called(api: Caller) -> None:
    given = {"storedProcedureName": "reports.close_month", "parameters": {}}
    refused(api, "StoredProcedure", given, "databaseConnectionStringName")


# -- FileOperation ---------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path, settings: Any) -> str:
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    settings.FILE_ROOTS = [f"in={tmp_path}/in", f"out={tmp_path}/out"]
    return str(tmp_path)


@pytest.mark.parametrize(
    ("given", "payload", "shown"),
    [
        (
            {"operation": "DeleteOldFiles", "sourcePath": "/in/*.log", "olderThanHours": 48},
            {"operation": "delete", "root": "in", "path": "*.log", "older_than_seconds": 172800},
            {"deleteAfterDays": 2},
        ),
        (
            {"sourcePath": "/in/*.log", "deleteAfterDays": 7, "olderThanHours": 1, "dryRun": True},
            {"operation": "delete", "root": "in", "path": "*.log", "older_than_seconds": 604800,
             "dry_run": True},
            {"operation": "DeleteOldFiles", "olderThanHours": 168},
        ),
        (
            {"operation": "delete", "sourcePath": "/in/a.tmp"},
            {"operation": "delete", "root": "in", "path": "a.tmp", "all": True},
            {"operation": "Delete"},
        ),
        (
            {"operation": "Move", "sourcePath": "/in/*.csv", "destinationPath": "/out/done"},
            {"operation": "move", "root": "in", "path": "*.csv", "overwrite": True,
             "to": {"root": "out", "path": "done"}},
            {},
        ),
        (
            {"operation": "Archive", "sourcePath": "/in/*.csv", "destinationPath": "/out"},
            {"operation": "move", "root": "in", "path": "*.csv", "overwrite": True,
             "to": {"root": "out", "path": ""}},
            {},
        ),
        (
            {"operation": "Copy", "sourcePath": "/in/a", "destinationPath": "/out"},
            {"operation": "copy", "root": "in", "path": "a", "overwrite": True,
             "to": {"root": "out", "path": ""}},
            {},
        ),
        (
            {"operation": "Compress", "sourcePath": "/in/*.log"},
            {"operation": "compress", "root": "in", "path": "*.log", "overwrite": True},
            {},
        ),
        (
            {"operation": "Compress", "sourcePath": "/in/*.log", "archivePath": "/out/l.tar.gz",
             "compression": "targz"},
            {"operation": "archive", "root": "in", "path": "*.log", "overwrite": True,
             "to": {"root": "out", "path": "l.tar.gz"}, "format": "tar.gz"},
            {"compression": "TarGz"},
        ),
        (
            {"operation": "List", "sourcePath": "in:/*.log", "recursive": True},
            {"operation": "list", "root": "in", "path": "*.log", "recursive": True},
            {"sourcePath": "/in/*.log"},
        ),
    ],
)  # fmt: skip
def test_a_file_operation_works_below_its_roots(
    given: dict[str, Any], payload: dict[str, Any], shown: dict[str, Any], root: str, api: Caller
) -> None:
    def placed(values: dict[str, Any]) -> dict[str, Any]:
        return {
            name: f"{root}{value}" if str(value).startswith("/") else value
            for name, value in values.items()
        }

    made = make(api, "FileOperation", placed(given))
    assert Schedule.objects.get().payload == payload
    assert made["jobConfiguration"] == placed({**given, **shown})
    again = api.put(f"jobs/{made['id']}", {"jobConfiguration": made["jobConfiguration"]})
    assert again.json()["jobConfiguration"] == made["jobConfiguration"]
    assert Schedule.objects.get().payload == payload


@pytest.mark.once
@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"operation": "Shred"}, "operation"),
        ({"operation": "DeleteOldFiles"}, "olderThanHours"),
        ({"operation": None}, "olderThanHours"),
        ({"operation": "DeleteOldFiles", "olderThanHours": 0}, "olderThanHours"),
        ({"operation": "Move"}, "destinationPath"),
        ({"operation": "Copy", "destinationPath": "/etc"}, "destinationPath"),
        ({"operation": "List", "sourcePath": "/etc/passwd"}, "sourcePath"),
        ({"operation": "List", "sourcePath": "{root}/in/../../etc/*"}, "sourcePath"),
        ({"operation": "List", "sourcePath": "{root}/inner/*"}, "sourcePath"),
        ({"operation": "List", "sourcePath": "relative/*"}, "sourcePath"),
        ({"operation": "List", "sourcePath": "nowhere:/x"}, "sourcePath"),
        ({"operation": "List", "sourcePath": None}, "sourcePath"),
        ({"operation": "List", "sourcePath": 7}, "sourcePath"),
        ({"operation": "Compress", "compression": "GZip"}, "compression"),
        ({"operation": "Delete", "deleteEmptyDirectories": True}, "deleteEmptyDirectories"),
        ({"operation": "Delete", "dryRun": "yes"}, "dryRun"),
    ],
)
def test_bad_file_operations(
    given: dict[str, Any], field: str, root: str, api: Caller, tmp_path: Path
) -> None:
    (tmp_path / "inner").mkdir()
    full = {"sourcePath": f"{root}/in/*", **given}
    if isinstance(full["sourcePath"], str):
        full["sourcePath"] = full["sourcePath"].replace("{root}", root)
    refused(api, "FileOperation", full, field)


def test_without_roots_all_file_operations_are_refused(api: Caller) -> None:
    given = {"operation": "Delete", "sourcePath": "/tmp/x"}
    assert "root" in refused(api, "FileOperation", given, "sourcePath")["detail"]
