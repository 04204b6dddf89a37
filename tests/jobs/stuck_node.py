"""A node one of whose loops hangs once a file is there: `python -m tests.jobs.stuck_node LOOP FILE …`.

The other arguments are those of `manage.py worker`. Its watchdog is less patient than a real one.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import django
from django.core.management import call_command

PERIOD_SECONDS = 1.0


def main(loop: str, file: str, *arguments: str) -> None:
    django.setup()
    from jobs.engine import heartbeat, upkeep, watchdog, worker

    def hang_if_told(*_: object) -> int:
        if Path(file).exists():
            time.sleep(600)
        return 0

    watchdog.PERIOD_SECONDS = PERIOD_SECONDS
    if loop == "upkeep":
        hang = upkeep.Duty("hang", hang_if_told, 0.1, is_everywhere=True)
        worker.duties = lambda *_: (hang,)  # type: ignore[attr-defined]
    elif loop == "heartbeat":
        beat = heartbeat.Heartbeat._beat

        def beat_or_hang(self: heartbeat.Heartbeat, alias: str) -> None:
            hang_if_told()
            beat(self, alias)

        heartbeat.Heartbeat._beat = beat_or_hang  # type: ignore[method-assign]
    else:
        assert loop == "turns"
        worker.Worker._pass_on_cancel_requests = hang_if_told  # type: ignore[assignment]
    call_command("worker", *arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
