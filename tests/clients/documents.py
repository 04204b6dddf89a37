"""schemathesis: requests made from our documents by the hundred, good and bad."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from tests.clients.conftest import fetch_document, run

PROGRAM = Path(sys.executable).with_name("schemathesis")
# The documents there are, and the checks that do not fit one. What is well-formed may still be refused:
# a queue there is not, a cursor of nowhere, a time gone by. And `/v1/tasks/retry` is also the address of
# a task, as any word in its place, so its `Allow` names more than its description.
DOCUMENTS = {
    "/jm-api/openapi.json": ("positive_data_acceptance",),
    "/v1/openapi.json": ("positive_data_acceptance", "unsupported_method"),
}
# Beside the usual: a version that is not the present one is told before what is wrong with the body, and
# too much of anything is told as such.
CONFIGURATION = """
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 411, 412, 413, 414, 415, 422, 428, 429, 431]
"""


def narrowed(document: dict[str, Any], cluster: str) -> dict[str, Any]:
    """The document with the cluster written into its paths: most others are 404 and nothing more.

    Without streams, too, each of which takes a minute; they have tests of their own.
    """
    paths = {}
    left_out = {("path", "cluster_id"), ("query", "stream")}
    for path, operations in document["paths"].items():
        if path.endswith("/stream"):
            continue
        for operation in operations.values():
            if isinstance(operation, dict):
                operation["parameters"] = [
                    one
                    for one in operation.get("parameters", [])
                    if (one.get("in"), one.get("name")) not in left_out
                ]
        paths[path.replace("{cluster_id}", cluster)] = operations
    return {**document, "paths": paths}


def number_of_operations(document: dict[str, Any]) -> int:
    methods = {"get", "post", "put", "patch", "delete"}
    return sum(len(methods & operations.keys()) for operations in document["paths"].values())


def try_out(
    server: tuple[str, str], path: str, folder: Path, *, phases: str, examples: int, seed: int
) -> int:
    """Send what can be made of a document; how many requests that were. Any surprise fails."""
    base, key = server
    document = narrowed(fetch_document(server, path), "alpha")
    (folder / "document.json").write_text(json.dumps(document))
    (folder / "schemathesis.toml").write_text(CONFIGURATION)
    said = run(
        *(PROGRAM, "--config-file", "schemathesis.toml", "run", "document.json"),
        *("--url", base, "-H", f"x-api-key: {key}", "--request-timeout", "120"),
        *("--checks", "all", "--exclude-checks", ",".join(DOCUMENTS[path])),
        *("--continue-on-failure", "--no-shrink", "--phases", phases),
        *("--max-examples", str(examples), "--seed", str(seed)),
        cwd=folder,
        seconds=3000,
    )
    found = re.search(r"Selected: (\d+)/(\d+)\s+Tested: (\d+)", said)
    assert found is not None, said
    assert len(set(found.groups())) == 1, said
    sent = re.search(r"Test cases:\s+(\d+) generated", said)
    assert sent is not None, said
    return int(sent[1])
