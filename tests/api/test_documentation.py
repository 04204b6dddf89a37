"""openapi.json and Swagger UI"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.staticfiles import finders
from django.core.management import call_command

from jobs.api import job_forms as forms
from jobs.api.documentation import native_document
from jobs.executors import PUBLIC_KINDS
from jobs.executors.procedure_catalog import read_procedures
from tests.api.conftest import Api, check_problem
from tests.api.routes import native_routes

OPERATIONS = {
    "clusters_list", "clusters_count", "clusters_get", "whoami", "token_issue",
    "jobs_list", "jobs_count", "jobs_get", "jobs_enqueue", "jobs_enqueue_bulk", "jobs_cancel",
    "jobs_close", "jobs_retry", "jobs_run_now", "jobs_requeue", "jobs_change",
    "jobs_why", "jobs_dependencies", "jobs_delete", "jobs_attempts", "jobs_logs", "jobs_logs_stream",
    "jobs_steps",
    "queues_list", "queues_count", "queues_create", "queues_get", "queues_change", "queues_pause",
    "queues_resume", "queues_delete", "queues_purge",
    "bulk_operations_list", "bulk_operations_count", "bulk_operations_request",
    "bulk_operations_get", "bulk_operations_cancel",
    "schedules_list", "schedules_count", "schedules_create", "schedules_get", "schedules_change",
    "schedules_reschedule", "schedules_delete", "schedules_restore", "schedules_pause",
    "schedules_resume", "schedules_trigger", "schedules_skip_next", "schedules_run_missed",
    "schedules_pause_all", "schedules_resume_all",
    "schedules_preview", "schedules_next_runs", "schedules_exclusions_get",
    "schedules_exclusions_set", "schedules_exclusions_add", "schedules_exclusions_delete",
    "schedules_dependencies_get", "schedules_dependencies_set", "schedules_dependencies_delete",
    "schedules_fires", "schedules_fires_count",
    "audit_list", "audit_export", "access_audit_list", "access_audit_export",
    "keys_list", "keys_count", "keys_create", "keys_get", "keys_change", "keys_rotate",
    "keys_revoke", "roles_list", "roles_count", "roles_give", "roles_get", "roles_take",
    "calendars_list", "calendars_count", "calendars_create", "calendars_get", "calendars_change",
    "calendars_delete",
    "workflows_list", "workflows_count", "workflows_create", "workflows_get", "workflows_change",
    "workflows_delete", "workflows_trigger", "workflow_runs_list", "workflow_runs_count",
    "workflow_runs_get", "workflow_runs_cancel", "workflow_runs_rerun", "workflow_runs_skip_node",
    "nodes_list", "nodes_count", "nodes_get", "nodes_drain", "nodes_undrain",
    "logs_list", "logs_count", "logs_get",
    "secrets_list", "secrets_count", "secrets_create", "secrets_get", "secrets_change",
    "secrets_delete",
    "settings_get", "settings_change", "settings_changes", "settings_changes_count",
    "stats", "timeline", "failures_list", "failures_count", "failures_get",
    "alerts_list", "alerts_count", "alerts_create", "alerts_preview", "alerts_get", "alerts_change",
    "alerts_delete", "alerts_test", "alerts_acknowledge", "alerts_mute", "alerts_unmute",
    "alerts_events",
    "failures_change",
}  # fmt: skip


def operations(document: Any) -> dict[str, Any]:
    return {
        operation["operationId"]: operation
        for path in document["paths"].values()
        for operation in path.values()
    }


def test_the_document_names_the_clusters_a_caller_may_see(make_key: Callable[..., str]) -> None:
    for clusters, visible in ((("alpha",), ["alpha"]), (("*",), ["alpha", "beta"])):
        document = Api(make_key("viewer", *clusters)).get("openapi.json").json()
        assert document["info"]["x-jobmaster-clusters"] == visible
        assert document["x-jobmaster-clusters"] == document["info"]["x-jobmaster-clusters"]


def test_clusters_and_the_page_may_be_left_out(
    make_key: Callable[..., str], admin_client: Any, settings: Any
) -> None:
    settings.CLUSTERS_IN_OPENAPI = settings.SWAGGER = False
    key = make_key("viewer")
    document = Api(key).get("openapi.json").json()
    assert "x-jobmaster-clusters" not in document and "x-jobmaster-clusters" not in document["info"]
    check_problem(admin_client.get("/jm-api/swagger"), 401, "not_authenticated")
    check_problem(Api(key).get("swagger"), 404, "not_found")


def test_without_credentials_it_is_401(anonymous: Api, db: None) -> None:
    check_problem(anonymous.get("openapi.json"), 401, "not_authenticated")
    check_problem(anonymous.get("openapi.json", x_api_key="x"), 401, "invalid_credentials")


def test_whoever_is_signed_in_to_the_admin_site_may_read_it(admin_client: Any) -> None:
    document = admin_client.get("/jm-api/openapi.json").json()
    assert document["x-jobmaster-clusters"] == ["alpha", "beta"]


def test_a_user_without_a_role_sees_no_cluster_in_it(client: Any, db: None) -> None:
    user = get_user_model().objects.create_user("helper", password="x", is_staff=True)
    client.force_login(user)
    assert client.get("/jm-api/openapi.json").json()["x-jobmaster-clusters"] == []
    outsider = get_user_model().objects.create_user("outsider", password="x")
    client.force_login(outsider)
    assert client.get("/jm-api/openapi.json").status_code == 401


def test_a_session_does_not_help_a_bad_key(admin_client: Any) -> None:
    response = admin_client.get("/jm-api/openapi.json", headers={"x-api-key": "x"})
    check_problem(response, 401, "invalid_credentials")


def test_it_holds_the_native_operations_and_no_others() -> None:
    document = native_document()
    assert set(operations(document)) == OPERATIONS
    assert all(path.startswith("/jm-api/") for path in document["paths"])
    routes = {re.sub(r"<str:(\w+)>", r"{\1}", route) for route in native_routes()}
    undocumented = routes - set(document["paths"])
    # And what is unknown.
    assert undocumented == {"/jm-api/openapi.json", "/jm-api/metrics", "/jm-api/"}


def test_the_enqueue_has_an_example_of_each_kind(
    alpha: object, make_key: Any, settings: Any, tmp_path: Path
) -> None:
    path = tmp_path / "procedures.toml"
    path.write_text(
        '[connections.billing]\nurl = "postgresql://x@h/d"\n[[connections.billing.allowed]]\n'
        'name = "reports.close_month"\narguments = [{name = "month", type = "date"}]\n'
    )
    path.chmod(0o600)
    settings.PROCEDURES = read_procedures(str(path), [])
    settings.FILE_ROOTS = ["reports=/srv/reports", "archive=/srv/archive"]
    content = operations(native_document())["jobs_enqueue"]["requestBody"]["content"]
    values = [e["value"] for e in content["application/json"]["examples"].values()]
    assert {value.get("kind", "python") for value in values} == set(PUBLIC_KINDS)
    api = Api(make_key("operator", grants=("container", "shell")))
    for value in values:
        response = api.post("alpha/jobs", value)
        assert response.status_code == 201, response.content


def test_input_fields_and_the_engine_agree() -> None:
    from dataclasses import fields

    from jobs.engine.new_job import NewJob

    asked = {"payload_bytes" if n == "payload_base64" else n for n in forms.NewJobInput().fields}
    of_others = {"copy_of", "origin", "notes", "is_limited_by_queue", "may_be_late", "lost_parents"}
    of_others |= {"step", "is_of_engine"}
    assert asked == {field.name for field in fields(NewJob)} - of_others


def test_it_is_a_valid_document() -> None:
    out = io.StringIO()
    call_command(
        "spectacular", "--validate", "--fail-on-warn", "--format", "openapi-json", stdout=out
    )
    import openapi_spec_validator as validator

    validator.validate(json.loads(out.getvalue()))


def test_swagger_sends_strangers_to_the_login(client: Any, db: None) -> None:
    response = client.get("/jm-api/swagger")
    assert response.status_code == 302
    assert response["Location"] == "/admin/login/?next=/jm-api/swagger"
    assert client.get("/")["Location"] == "/jm-api/swagger"


def test_swagger_has_no_inline_script_and_needs_no_other_server(admin_client: Any) -> None:
    page = admin_client.get("/jm-api/swagger").content.decode()
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", page, re.DOTALL)
    assert scripts
    assert all("src=" in attributes and not text.strip() for attributes, text in scripts)
    assert not re.findall(r"\son\w+=", page)
    for address in re.findall(r'(?:src|href)="([^"]*)"', page):
        assert address.startswith("/"), address
        if address.startswith("/static/"):
            assert finders.find(address.removeprefix("/static/")), address
    script = admin_client.get("/jm-api/swagger?script=")
    assert script["Content-Type"].startswith("application/javascript")
    assert "openapi.json" in script.content.decode()


def test_no_answer_is_a_bare_array() -> None:
    for name, operation in operations(native_document()).items():
        for answer in operation["responses"].values():
            # Problems are references to one object each.
            for content in answer.get("content", {}).values():
                assert content["schema"].get("type") != "array", name
