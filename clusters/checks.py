"""System checks with stable ids."""

from __future__ import annotations

import sqlite3
from typing import Any

from django.core import checks

SQLITE_FLOOR = (3, 51, 3)


# The checks that concern every process; commands that serve no pages run only these.
TAG = "yardmaster"


@checks.register(TAG)
def sqlite_version(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """Warn of an SQLite library that can corrupt a database when its write-ahead log is reset."""
    if sqlite3.sqlite_version_info >= SQLITE_FLOOR:
        return []
    return [
        checks.Warning(
            f"SQLite {sqlite3.sqlite_version} can corrupt a database when its log is reset.",
            hint="Install the pinned pysqlite3 wheel, or use PostgreSQL.",
            id="clusters.W001",
        )
    ]
