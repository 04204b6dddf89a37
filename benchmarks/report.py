"""The table for people and the JSON for programs."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.bench import Bench
from benchmarks.contestants import Peer
from benchmarks.results import Measurement, ratio


def environment(bench: Bench) -> dict[str, Any]:
    """Everything beside the program that makes a figure what it is."""
    from config.settings import VERSION

    libraries = ("Django", "psycopg", "gunicorn")
    peers = [one for one in bench.contestants if isinstance(one, Peer)]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "load_before": round(os.getloadavg()[0], 2),
        "yardmaster": VERSION,
        "python": platform.python_version(),
        **{name.lower(): version(name) for name in libraries},
        "postgresql": bench.server.describe(),
        "peers": {peer.name: peer.version() for peer in peers},
        "runs": bench.asked.runs,
    }


def to_json(bench: Bench, surroundings: Mapping[str, Any]) -> dict[str, Any]:
    rows = bench.measurements
    return {
        "environment": dict(surroundings),
        "measurements": [
            {**row.to_json(), "ours_to_this": _rounded_ratio(row, rows)} for row in rows
        ],
    }


def print_table(bench: Bench, surroundings: Mapping[str, Any], console: Console) -> None:
    table = Table(title="Yardmaster's benchmarks: medians (lowest-highest)", title_justify="left")
    for name in ("what", "who", "how"):
        table.add_column(name, overflow="fold")
    for name in ("median", "range", "ours / this"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("notes", overflow="fold")
    last = None
    for row in sorted(bench.measurements, key=_first_of_its_kind(bench.measurements)):
        if last not in (None, row.what):
            table.add_section()
        shown = row.what if row.what != last else ""
        last = row.what
        table.add_row(shown, row.who, row.how, *_figures(row, bench), _notes(row))
    console.print(table)
    console.print(" ".join(f"{name}={value}" for name, value in surroundings.items()), style="dim")


def _first_of_its_kind(rows: list[Measurement]) -> Any:
    order: dict[str, int] = {}
    for row in rows:
        order.setdefault(row.what, len(order))
    return lambda row: order[row.what]


def _figures(row: Measurement, bench: Bench) -> tuple[str, str, str]:
    def number(value: float) -> str:
        return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"

    quotient = _rounded_ratio(row, bench.measurements)
    return (
        f"{number(row.median)} {row.unit}",
        f"{number(min(row.values))}-{number(max(row.values))}",
        "" if quotient is None else f"{quotient:.2f}",
    )


def _notes(row: Measurement) -> str:
    return ", ".join(f"{name} {value}" for name, value in row.notes.items())


def _rounded_ratio(row: Measurement, rows: list[Measurement]) -> float | None:
    quotient = ratio(row, rows)
    return None if quotient is None else round(quotient, 2)
