"""schemathesis: requests made from our documents, good and bad; no answer may surprise."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import fetch_document, run

PROGRAM = Path(sys.executable).with_name("schemathesis")
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)


def narrowed(document: dict[str, Any], cluster: str) -> dict[str, Any]:
    """The document with the cluster written into its paths: most others are 404 and nothing more.

    Without streams, too, each of which takes a minute; they have tests of their own.
    """
    paths = {}
    left_out = {("path", "cluster_id"), ("query", "stream")}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if isinstance(operation, dict):
                operation["parameters"] = [
                    one
                    for one in operation.get("parameters", [])
                    if (one.get("in"), one.get("name")) not in left_out
                ]
        paths[path.replace("{cluster_id}", cluster)] = operations
    return {**document, "paths": paths}


@pytest.mark.parametrize("path", ["/jm-api/openapi.json", "/v1/openapi.json"])
def test_no_request_made_from_the_document_gets_a_surprise(
    path: str, server: tuple[str, str], tmp_path: Path
) -> None:
    base, key = server
    document = narrowed(fetch_document(server, path), "alpha")
    (tmp_path / "document.json").write_text(json.dumps(document))
    said = run(
        *(PROGRAM, "run", "document.json", "--url", base, "-H", f"x-api-key: {key}"),
        *("--checks", ",".join(CHECKS), "--continue-on-failure", "--no-shrink"),
        *("--phases", "examples,fuzzing", "--max-examples", "4", "--seed", "20260101"),
        cwd=tmp_path,
    )
    found = re.search(r"Selected: (\d+)/(\d+)\s+Tested: (\d+)", said)
    assert found is not None, said
    assert len(set(found.groups())) == 1, said
