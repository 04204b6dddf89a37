from typing import Any

from django.apps import AppConfig


class JobsConfig(AppConfig):
    name = "jobs"

    def ready(self) -> None:
        from jobs.rights import guard_with

        def check_rows(rows: Any) -> None:
            # The engine is much to read for commands that start nothing.
            from jobs.engine.started_kinds import check_rows

            check_rows(rows)

        guard_with(check_rows)
