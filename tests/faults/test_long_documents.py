"""Ten thousand requests made from each document of ours; `tests/clients` has the few of every run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import fetch_document, server  # noqa: F401  a fixture
from tests.clients.documents import DOCUMENTS, number_of_operations, try_out
from tests.faults.report import scaled, seed

pytestmark = [pytest.mark.long, pytest.mark.django_db(transaction=True)]

PHASES = "examples,coverage,fuzzing,stateful"
MOST_TURNS = 8


@pytest.mark.parametrize("path", DOCUMENTS)
def test_no_request_of_ten_thousand_gets_a_surprise(
    path: str,
    server: tuple[str, str],  # noqa: F811
    tmp_path: Path,
    figures: dict[str, Any],
) -> None:
    wanted = scaled(10_000)
    examples = max(1, wanted // number_of_operations(fetch_document(server, path)))
    figures["requests"] = 0
    # A small document has fewer cases than are wanted; other seeds make others.
    for turn in range(MOST_TURNS):
        figures["requests"] += try_out(
            server, path, tmp_path, phases=PHASES, examples=examples, seed=seed() + turn
        )
        if figures["requests"] >= wanted:
            return
    pytest.fail(f"only {figures['requests']} of {wanted} requests were made")
