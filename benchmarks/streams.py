"""Streams: many tasks as lines, and what many open streams cost everybody else."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack

import psutil

from benchmarks.bench import Bench
from benchmarks.history import fill
from benchmarks.load import HEADERS_END, TIMEOUT_SECONDS, Target, put_under_load
from benchmarks.results import Measurement, median_of
from benchmarks.web import WORKERS, served

TASKS = 100_000
STREAMS = 20
SETTLE_SECONDS = 2
MIB = 1 << 20
PATH = "/v1/tasks?stream=ndjson"


def measure(bench: Bench) -> None:
    bench.ours.prepare()
    bench.say(f"filling {TASKS:,} finished jobs")
    fill(bench.ours.url, TASKS)
    how = f"{WORKERS} workers"
    lines = bench.add(Measurement("streams", f"{TASKS:,} tasks", bench.ours.name, how, "/s"))
    grown = bench.add(
        Measurement("streams", "memory above idle meanwhile", bench.ours.name, how, "MiB")
    )
    health = bench.add(
        Measurement("streams", f"GET /healthz beside {STREAMS}", bench.ours.name, how, "ms, p99")
    )
    details = []
    for run in range(bench.asked.runs):
        with served(bench.ours) as target:
            server = _server(target)
            idle = _proportional(server)
            rate, most = _read(target, server)
            lines.values.append(rate)
            grown.values.append(most - idle)
            grown.notes = {"idle MiB": round(idle)}
            request = target.request("GET", "/healthz")
            alone = put_under_load(target, request, 1, bench.asked.seconds).percentiles()
            details.append(
                {**_beside(bench, target), **{f"alone {name}": ms for name, ms in alone.items()}}
            )
            health.values.append(details[-1]["p99 ms"])
            health.notes = median_of(details)
        bench.say(
            f"streams {run + 1}: {rate:,.0f} lines/s, +{grown.values[-1]:.0f} MiB, {details[-1]}"
        )


def _read(target: Target, server: psutil.Process) -> tuple[float, float]:
    """Read one stream until it has sent all: lines a second, and the most memory seen."""
    most, count = 0.0, 0
    with _opened(target) as stream:
        begun = looked_at = time.perf_counter()
        while count < TASKS:
            count += stream.recv(1 << 18).count(b"\n")
            if time.perf_counter() - looked_at > 0.2:
                most, looked_at = max(most, _proportional(server)), time.perf_counter()
        seconds = time.perf_counter() - begun
    return count / seconds, most


def _beside(bench: Bench, target: Target) -> dict[str, float]:
    """Ask for health while streams are open and wait for news."""
    with ExitStack() as streams:
        # Of few tasks, so that all of them are soon sent and the streams wait for news.
        opened = [
            streams.enter_context(_opened(target, "&state=terminated")) for _ in range(STREAMS)
        ]
        time.sleep(SETTLE_SECONDS)
        for stream in opened:
            stream.recv(1 << 20)
        load = put_under_load(target, target.request("GET", "/healthz"), 1, bench.asked.seconds)
    return load.percentiles()


def _opened(target: Target, more: str = "") -> socket.socket:
    connection = socket.create_connection((target.host, target.port), TIMEOUT_SECONDS)
    connection.sendall(target.request("GET", PATH + more))
    data = b""
    while HEADERS_END not in data:
        data += connection.recv(1 << 12)
    if b" 200 " not in data.split(b"\r\n")[0]:
        raise RuntimeError(f"no stream: {data[:300]!r}")
    return connection


def _server(target: Target) -> psutil.Process:
    """The process that listens, above its workers."""
    for connection in psutil.net_connections("tcp4"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == target.port:
            process = psutil.Process(connection.pid)
            parents = process.parents()
            return next((p for p in parents if "serve" in p.cmdline()), process)
    raise RuntimeError("nobody listens")


def _proportional(process: psutil.Process) -> float:
    """Memory of a process and all below it, pages they share counted once."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_full_info().pss
        except psutil.Error:
            continue  # it has ended
    return total / MIB
