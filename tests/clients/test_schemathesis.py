"""schemathesis: requests made from our documents, good and bad; no answer may surprise."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.api.documentation import native_document
from tests.clients.conftest import run

PROGRAM = Path(sys.executable).with_name("schemathesis")
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)


def on_one_cluster(document: dict[str, Any], cluster: str) -> dict[str, Any]:
    """The document with the cluster written into its paths: most others are 404 and nothing more."""
    paths = {}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            parameters = operation.get("parameters", [])
            others = [p for p in parameters if (p["in"], p["name"]) != ("path", "cluster_id")]
            operation["parameters"] = others
        paths[path.replace("{cluster_id}", cluster)] = operations
    return {**document, "paths": paths}


DOCUMENTS = {
    "native": lambda: on_one_cluster(json.loads(json.dumps(native_document())), "alpha"),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_request_made_from_the_document_gets_a_surprise(
    name: str, server: tuple[str, str], tmp_path: Path
) -> None:
    base, key = server
    (tmp_path / "document.json").write_text(json.dumps(DOCUMENTS[name]()))
    said = run(
        *(PROGRAM, "run", "document.json", "--url", base, "-H", f"x-api-key: {key}"),
        *("--checks", ",".join(CHECKS), "--continue-on-failure", "--no-shrink"),
        *("--phases", "examples,fuzzing", "--max-examples", "4", "--seed", "20260101"),
        cwd=tmp_path,
    )
    found = re.search(r"Selected: (\d+)/(\d+)\s+Tested: (\d+)", said)
    assert found is not None, said
    assert len(set(found.groups())) == 1, said
