"""openapi-generator: the same story in the words of its Python client. It needs a Java runtime."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import (
    check_asyncjobs_story,
    check_native_story,
    fetch_document,
    run,
)

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(shutil.which("java") is None, reason="needs a Java runtime"),
]
GENERATOR = Path(sys.executable).with_name("openapi-generator-cli")

NATIVE = """
import sys
from uuid import UUID

import client
from client import NewJobRequest, NewQueueRequest, PurgeRequest

base, key = sys.argv[1:]
with client.ApiClient(client.Configuration(host=base, access_token=key)) as api:
    jobs, queues = client.JobsApi(api), client.QueuesApi(api)
    assert queues.queues_create("alpha", new_queue_request=NewQueueRequest(name="mail")).name == "mail"
    made = jobs.jobs_enqueue(
        "alpha", new_job_request=NewJobRequest(type="demo:noop", queue="mail", payload={"a": [1]})
    )
    assert made.created and made.state == "ready", made
    shown = jobs.jobs_get("alpha", made.id)
    assert (shown.id, shown.payload) == (made.id, {"a": [1]}), shown
    assert [job.id for job in jobs.jobs_list("alpha", queue="mail", limit=5).items] == [made.id]
    assert jobs.jobs_cancel("alpha", made.id).state == "cancelled"
    assert jobs.jobs_retry("alpha", made.id).state == "ready"
    assert queues.queues_purge("alpha", "mail", purge_request=PurgeRequest(reason="x"))
    try:
        jobs.jobs_get("alpha", UUID(int=7))
    except client.exceptions.NotFoundException as error:
        assert error.data.code == "not_found", error
    else:
        raise AssertionError("found what is not there")
print(made.id)
"""


ASYNCJOBS = """
import base64
import json
import sys

import client
from client import CreateQueueRequest, CreateTaskRequest, RetryTasksRequest

base, key = sys.argv[1:]
with client.ApiClient(client.Configuration(host=base, access_token=key)) as api:
    tasks, queues = client.TasksApi(api), client.QueuesApi(api)
    queue = queues.create_queue(CreateQueueRequest(name="mail", max_runtime="30s"))
    assert (queue.name, queue.max_runtime) == ("mail", 30_000_000_000), queue
    body = CreateTaskRequest(type="email:new", queue="mail", payload={"to": "x@y"}, max_tries=3)
    made = tasks.create_task(body, idempotency_key="once")
    assert (made.state, made.queue, made.max_tries) == ("new", "mail", 3), made
    assert tasks.create_task(body, idempotency_key="once").id == made.id
    payload = tasks.get_task(made.id).payload
    text = base64.b64decode(payload) if isinstance(payload, str) else payload
    assert json.loads(text) == {"to": "x@y"}, payload
    listed = tasks.list_tasks(type="email:new", limit=5)
    assert (listed.count, listed.tasks[0].id) == (1, made.id), listed
    assert tasks.retry_task(made.id).id == made.id
    both = tasks.retry_tasks(RetryTasksRequest(ids=[made.id, "missing-id"]))
    assert [one.status for one in both.results] == ["ok", "not_found"], both
    queues.purge_queue("mail")
    try:
        tasks.get_task("missing-id")
    except client.exceptions.NotFoundException as error:
        assert error.data.error.details.reason == "task_not_found", error
    else:
        raise AssertionError("found what is not there")
print(made.id)
"""


def generate(document: dict[str, Any], folder: Path) -> None:
    (folder / "document.json").write_text(json.dumps(document))
    run(
        *(GENERATOR, "generate", "-g", "python", "--package-name", "client"),
        *("-i", "document.json", "-o", "generated"),
        cwd=folder,
    )
    (folder / "generated" / "client").rename(folder / "client")


def test_the_native_document_makes_a_client_that_works(
    server: tuple[str, str], tmp_path: Path
) -> None:
    generate(fetch_document(server, "/jm-api/openapi.json"), tmp_path)
    check_native_story(NATIVE, server, tmp_path)


def test_the_asyncjobs_document_makes_a_client_that_works(
    server: tuple[str, str], tmp_path: Path
) -> None:
    generate(fetch_document(server, "/v1/openapi.json"), tmp_path)
    check_asyncjobs_story(ASYNCJOBS, server, tmp_path)
