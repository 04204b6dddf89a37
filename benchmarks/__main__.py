"""`python -m benchmarks`: measure, print a table, and write JSON if asked to."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from benchmarks import (
    dialects,
    drain,
    enqueue,
    http_enqueue,
    listing,
    memory,
    pages,
    pickup,
    report,
    schedules,
    scrape,
    screen,
    steps,
    streams,
)
from benchmarks.bench import Asked, Bench, prepared

SECTIONS: dict[str, Callable[[Bench], None]] = {
    "drain": drain.measure,
    "enqueue": enqueue.measure,
    "pickup": pickup.measure,
    "http": http_enqueue.measure,
    "list": listing.measure,
    "memory": memory.measure,
    "schedules": schedules.measure,
    "scrape": scrape.measure,
    "screen": screen.measure,
    "pages": pages.measure,
    "steps": steps.measure,
    "dialects": dialects.measure,
    "streams": streams.measure,
}

FILE_WIDTH = 150


def main() -> None:
    options = _options()
    asked = Asked(
        options.postgres_url,
        options.peers,
        options.runs,
        options.jobs,
        options.rows,
        options.seconds,
        options.sqlite,
    )
    progress, answer = Console(stderr=True), Console()
    if not answer.is_terminal:
        answer = Console(width=FILE_WIDTH)
    with prepared(asked, progress) as bench:
        surroundings = report.environment(bench)
        try:
            for name in options.only:
                SECTIONS[name](bench)
        finally:
            # What was measured before an error or Ctrl-C is not lost.
            bench.measurements = [row for row in bench.measurements if row.values]
            report.print_table(bench, surroundings, answer)
            if options.json:
                document = report.to_json(bench, surroundings)
                options.json.write_text(json.dumps(document, indent=2) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--postgres-url", metavar="URL", help="a server to measure on; else one is started")
    add(
        "--peers",
        type=Path,
        default=os.environ.get("YARDMASTER_BENCH_PEERS"),
        metavar="DIR",
        help="adapters of the peers (default: $YARDMASTER_BENCH_PEERS); venvs in $BENCH_HOME",
    )
    add("--runs", type=_positive, default=3, help="of each measurement (default 3)")
    add("--jobs", type=_positive, default=50_000, help="in a drain (default 50,000)")
    add("--rows", type=_positive, default=1_000_000, help="in the table that is listed")
    add("--seconds", type=float, default=5.0, help="of load on the API each (default 5)")
    add("--no-sqlite", dest="sqlite", action="store_false", help="PostgreSQL only")
    add("--only", type=_sections, default=list(SECTIONS), help=",".join(SECTIONS))
    add("--json", type=Path, metavar="FILE")
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _sections(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    if unknown := set(names) - SECTIONS.keys():
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}")
    return names


if __name__ == "__main__":
    main()
