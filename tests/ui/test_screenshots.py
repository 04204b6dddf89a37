"""The pictures of the documents: those that are shown are there, and small enough for a repository."""

from __future__ import annotations

import re

from tests.documents import README, all_pages, page
from tests.ui.screenshots import MOST_BYTES, WHERE, names


def test_every_picture_that_is_shown_is_there_and_small():
    shown = {*re.findall(r"\((?:docs/)?screens/([a-z-]+\.webp)\)", all_pages())}
    assert len(re.findall(r"\(docs/screens/", page(README))) >= 6
    files = {path.name: path for path in WHERE.iterdir()}
    assert shown == {*files} == {*names()}
    for name, path in files.items():
        assert path.read_bytes()[8:12] == b"WEBP", name
        assert path.stat().st_size <= MOST_BYTES, name
