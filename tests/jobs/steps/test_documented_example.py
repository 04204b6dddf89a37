"""The example of docs/steps.md runs as it is printed."""

from __future__ import annotations

import json
import re

from jobs.engine.enqueue import NewJob, enqueue
from jobs.states import State
from tests.documents import page
from tests.jobs.steps.cases import TestNode


def test_the_example_of_the_documents_runs(alpha: object) -> None:
    match = re.search(r"```json\n(.*?)```", page("docs/steps.md"), re.DOTALL)
    assert match is not None
    asked = json.loads(match[1])
    job = enqueue(NewJob(**asked), by="test").job
    node = TestNode()
    node.types = ["demo:echo", "demo:noop"]
    node.run()
    job.refresh_from_db()
    assert (job.state, job.error) == (State.SUCCEEDED, None)
    assert str(job.result) == "2"
    assert node.ran == ["fetch", "do eu", "do us", "left", "right", "say", "tidy"]
