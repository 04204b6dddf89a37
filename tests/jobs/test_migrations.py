"""Migrations that change what is there already."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import OperationalError, connections
from django.db.migrations import AddField
from django.db.migrations.executor import MigrationExecutor

USING = "cluster-alpha"


def migrate(*targets: tuple[str, str]) -> None:
    executor = MigrationExecutor(connections[USING])
    executor.migrate([*targets] or executor.loader.graph.leaf_nodes("jobs"))


@pytest.mark.django_db(transaction=True, databases=["default", USING])
def test_an_interrupted_migration_can_be_repeated(
    alpha: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = AddField.database_forwards

    def interrupted(operation: AddField, *arguments: Any) -> None:
        if operation.model_name == "schedule":
            raise OperationalError
        real(operation, *arguments)

    try:
        migrate(("jobs", "0017_scheduled_job_indexes"))
        monkeypatch.setattr(AddField, "database_forwards", interrupted)
        with pytest.raises(OperationalError):
            migrate(("jobs", "0018_dialect_notes"))
        monkeypatch.undo()
        migrate(("jobs", "0018_dialect_notes"))
    finally:
        monkeypatch.undo()
        migrate()
