"""openapi-python-client: create, get, list, retry and purge, in the words of its client."""

from __future__ import annotations

import json
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

pytestmark = pytest.mark.once

NATIVE = """
import sys
from uuid import UUID

from client import AuthenticatedClient
from client.api.jobs import jobs_cancel, jobs_enqueue, jobs_get, jobs_list, jobs_retry
from client.api.queues import queues_create, queues_purge
from client.models import NewJobRequest, NewQueueRequest, Problem, PurgeRequest

base, key = sys.argv[1:]
client = AuthenticatedClient(base_url=base, token=key)
queue = queues_create.sync("alpha", client=client, body=NewQueueRequest(name="mail"))
assert queue.name == "mail", queue
made = jobs_enqueue.sync(
    "alpha", client=client, body=NewJobRequest(type_="demo:noop", queue="mail", payload={"a": [1]})
)
assert made.created and made.state == "ready", made
shown = jobs_get.sync("alpha", made.id, client=client)
assert (shown.id, shown.payload) == (made.id, {"a": [1]}), shown
page = jobs_list.sync("alpha", client=client, queue="mail", limit=5)
assert [job.id for job in page.items] == [made.id], page
assert jobs_cancel.sync("alpha", made.id, client=client).state == "cancelled"
assert jobs_retry.sync("alpha", made.id, client=client).state == "ready"
assert queues_purge.sync("alpha", "mail", client=client, body=PurgeRequest(reason="x")).id
missing = jobs_get.sync("alpha", UUID(int=7), client=client)
assert isinstance(missing, Problem) and missing.code == "not_found", missing
refused = jobs_enqueue.sync("alpha", client=client, body=NewJobRequest(queue="nowhere"))
assert isinstance(refused, Problem) and refused.status == 400, refused
print(made.id)
"""


ASYNCJOBS = """
import base64
import json
import sys

from client import AuthenticatedClient
from client.api.queues import create_queue, purge_queue
from client.api.tasks import create_task, delete_task, get_task, list_tasks, retry_task, retry_tasks
from client.models import CreateQueueRequest, CreateTaskRequest, Error, RetryTasksRequest

base, key = sys.argv[1:]
client = AuthenticatedClient(base_url=base, token=key)
queue = create_queue.sync(client=client, body=CreateQueueRequest(name="mail", max_runtime="30s"))
assert (queue.name, queue.max_runtime) == ("mail", 30_000_000_000), queue
body = CreateTaskRequest(type_="email:new", queue="mail", payload={"to": "x@y"}, max_tries=3)
made = create_task.sync(client=client, body=body, idempotency_key="once")
assert (made.state, made.queue, made.max_tries) == ("new", "mail", 3), made
assert create_task.sync(client=client, body=body, idempotency_key="once").id == made.id
shown = get_task.sync(made.id, client=client)
assert json.loads(base64.b64decode(shown.payload)) == {"to": "x@y"}, shown
listed = list_tasks.sync(client=client, type_="email:new", limit=5)
assert (listed.count, listed.tasks[0].id) == (1, made.id), listed
assert retry_task.sync(made.id, client=client).id == made.id
both = retry_tasks.sync(client=client, body=RetryTasksRequest(ids=[made.id, "missing-id"]))
assert [one.status for one in both.results] == ["ok", "not_found"], both
assert purge_queue.sync_detailed("mail", client=client).status_code == 202
missing = get_task.sync("missing-id", client=client)
assert isinstance(missing, Error) and missing.error.details.reason == "task_not_found", missing
gone = create_task.sync(client=client, body=CreateTaskRequest(type_="email:new", payload=7))
assert delete_task.sync_detailed(gone.id, client=client).status_code == 204
print(made.id)
"""


def generate(document: dict[str, Any], folder: Path) -> None:
    (folder / "document.json").write_text(json.dumps(document))
    said = run(
        *(sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none"),
        *("--path", "document.json", "--output-path", "client"),
        cwd=folder,
    )
    # What the generator cannot read it leaves out, with a warning.
    assert "WARNING" not in said.upper(), said


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
