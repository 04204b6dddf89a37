"""The table of guards fits the tree that it is about."""

from __future__ import annotations

from tests.faults.mutations import HERE, MUTATIONS, ROOT, check_texts


def test_every_guard_in_the_table_is_where_the_table_says():
    check_texts()


def test_every_test_in_the_table_exists():
    for one in MUTATIONS:
        file, _, name = one.test.partition("::")
        text = (ROOT / HERE / file).read_text()
        assert not name or f"def {name.partition('[')[0]}(" in text, one
