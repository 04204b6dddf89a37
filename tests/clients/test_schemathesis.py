"""Each document against a server: no answer that it does not tell of, and none of 500."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.conftest import fetch_document
from tests.clients.documents import DOCUMENTS, number_of_operations, try_out

MOST_CASES = 500


@pytest.mark.parametrize("path", DOCUMENTS)
def test_no_request_made_from_the_document_gets_a_surprise(
    path: str, server: tuple[str, str], tmp_path: Path
) -> None:
    # Good ones and bad ones; examples of the document come on top.
    of_each = 2 * number_of_operations(fetch_document(server, path))
    examples = max(1, (MOST_CASES - 150) // of_each)
    sent = try_out(
        server, path, tmp_path, phases="examples,fuzzing", examples=examples, seed=20260101
    )
    assert 100 <= sent <= MOST_CASES
